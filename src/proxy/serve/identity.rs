//! In whose name a task's requests are made. All that goes into every signature and every response is put together here,
//! once for each pair of credentials, and shared.

use std::sync::Arc;

use super::label::Label;
use super::signature::{SignError, Signer};
use crate::queue::Credentials;

/// See the module's head.
pub(super) struct Identity {
    signer: Result<Signer, Arc<SignError>>,
    pub(super) label: Label,
}

impl Identity {
    /// For requests that may do at most what `scopes` say.
    pub(super) fn new(credentials: &Credentials, scopes: &[String]) -> Identity {
        match Signer::new(credentials, scopes) {
            Ok(signer) => Identity { signer: Ok(signer), label: Label::of(credentials, scopes) },
            Err(error) => Identity { signer: Err(Arc::new(error)), label: Label::default() },
        }
    }

    /// Who signs.
    ///
    /// # Errors
    ///
    /// Why nobody can, with such credentials.
    pub(super) fn signer(&self) -> Result<&Signer, Arc<SignError>> {
        self.signer.as_ref().map_err(Arc::clone)
    }
}
