//! A deployment as somebody sees it who wants to carry a task out that nobody has given to them: what the task is, and what
//! its roles let it do.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::clock::QueueClock;
use super::finder::ArtifactFinder;
use super::path::component;
use super::session::{Call, Insists, Session};
use super::{PATIENCE, TIMEOUT, expand_scopes};
use crate::limits;
use crate::queue::task_id::TaskId;
use crate::queue::{Credentials, QueueError};

/// A deployment, and credentials of somebody's or none. Every call ends, with an answer or without: what has failed is tried
/// again for ten seconds, an attempt takes no more than half a minute, and so does a look at the deployment's clock where a
/// signature was refused.
#[derive(Debug)]
pub struct TaskReader(Session);

impl TaskReader {
    /// Nothing is asked yet; reads the certificates of this host.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`] for what is no root URL or no credentials.
    pub fn new(root_url: &str, credentials: Option<Credentials>) -> Result<TaskReader, QueueError> {
        let session = Session::new(root_url, credentials, TIMEOUT, Arc::new(QueueClock::new()));
        session.prepare()?;
        Ok(TaskReader(session))
    }

    /// The definition of a task: JSON of at most [`limits::DEFINITION_BYTES`], not looked at.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`]; [`QueueError::Unauthenticated`], [`QueueError::Unauthorized`]; [`QueueError::Foreign`] for an
    /// answer that is longer or no JSON, [`QueueError::Unreachable`] without one.
    pub async fn definition(&self, task_id: &TaskId) -> Result<Box<RawValue>, QueueError> {
        definition(&self.0, task_id).await
    }

    /// Looks for artifacts.
    #[must_use]
    pub fn finder(&self) -> ArtifactFinder<'_> {
        ArtifactFinder::new(&self.0)
    }

    /// All scopes that somebody has who has these: what the deployment's roles add to them.
    ///
    /// # Errors
    ///
    /// As of [`TaskReader::definition`]; not everybody may ask.
    pub async fn expand_scopes(&self, scopes: &[String]) -> Result<Vec<String>, QueueError> {
        expand_scopes(&self.0, scopes, PATIENCE, Insists::Never).await
    }
}

/// See [`TaskReader::definition`].
pub(super) async fn definition(session: &Session, task_id: &TaskId) -> Result<Box<RawValue>, QueueError> {
    let call = Call {
        method: "GET",
        path: format!("api/queue/v1/task/{}", component(task_id.as_str())),
        body: None,
        what: format!("task {task_id}"),
        patience: PATIENCE,
        insists: Insists::Never,
        most: limits::DEFINITION_BYTES,
    };
    session.ask(call).await
}
