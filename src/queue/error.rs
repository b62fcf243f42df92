//! Why a queue does not do what it is asked for.

use std::error::Error;

/// One variant for each answer that a worker gives to it.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// There is no such task, run or artifact (404).
    #[error("find {what} in the queue")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// It contradicts what the queue has (409): stop working on it.
    #[error("change {what}: {because}")]
    Conflict {
        /// What was to be changed.
        what: String,
        /// Why it may not.
        because: String,
    },
    /// It can never be right (400).
    #[error("accept {what}: {because}")]
    Invalid {
        /// What was handed in.
        what: String,
        /// What is wrong with it.
        because: String,
    },
    /// It is an artifact without content, for a reason that whoever made it has given (424).
    #[error("get {what}: it is an error artifact: {because}")]
    NoContent {
        /// What was asked for.
        what: String,
        /// Their words.
        because: String,
    },
    /// The call's signature is refused (401): the credentials are no longer valid, or a clock is off for now.
    #[error("be allowed {what}: {because}")]
    Unauthenticated {
        /// What was asked for.
        what: String,
        /// The queue's own words.
        because: String,
    },
    /// The credentials do not allow it (403).
    #[error("be allowed {what}: {because}")]
    Unauthorized {
        /// What was asked for.
        what: String,
        /// The queue's own words.
        because: String,
    },
    /// What answered is no service of a deployment, or a front end that has none behind it for now: a refusal without the
    /// services' kind of reason, a redirect, a page in place of JSON.
    #[error("have the queue itself answer about {what}: {because}")]
    Foreign {
        /// What was asked for.
        what: String,
        /// What shows it.
        because: String,
    },
    /// There is no answer, for now: no connection, or a service at fault (5xx). It has been tried for a while.
    #[error("have the queue answer about {what}")]
    Unreachable {
        /// What was asked for.
        what: String,
        /// What was in the way the last time.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The queue is at fault and may be so again: neither it nor its disk did what it should.
    #[error("use the queue: {call}")]
    Internal {
        /// What was being done.
        call: &'static str,
        /// Why it failed.
        source: Box<dyn Error + Send + Sync>,
    },
}
