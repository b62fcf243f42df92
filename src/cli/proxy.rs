//! `docker-worker proxy`: the process that serves all tasks of a worker that have `taskclusterProxy`. The worker starts it,
//! in a container and with a socket; for people there is nothing to do with it.

use std::process::ExitCode;

use runtime::launch::passed_on;

use super::operator::Operator;
use super::refusal::Refusal;
use super::{FAILED, WRONG_USE};
use crate::proxy::serve::{self, ServeError};

/// The command. Before anything else of the process has a descriptor.
pub(super) fn main(operator: &Operator) -> ExitCode {
    let served = passed_on().map_err(ServeError::NotForPeople).and_then(serve::run);
    let status = match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ ServeError::NotForPeople(_)) => Refusal::because(WRONG_USE, &error).tell(operator),
        Err(error) => Refusal::because(FAILED, &error).tell(operator),
    };
    operator.out().finish();
    status
}
