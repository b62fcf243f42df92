//! What the queue answers to a request for tasks: what the log says of it, and whether the worker can go on.

use super::Service;
use super::log::Entry;
use super::runner::Renewal;
use crate::queue::{Claim, ClaimedWork, QueueError, WorkerIdentity};
use crate::text::chain;

impl Service {
    /// What the queue has answered, told to the log; and why the worker can go on no longer, if it cannot. `told` is the
    /// refusal that the log has last, if nothing else was answered since.
    pub(super) fn heard(
        &self,
        answer: Result<ClaimedWork, QueueError>,
        renewal: Renewal,
        told: &mut Option<String>,
    ) -> (Vec<Claim>, Option<QueueError>) {
        let error = match answer {
            Ok(ClaimedWork { claims, unreadable }) => {
                for error in &unreadable {
                    self.tell_retrieval_error(&format!("failed to {}", chain(error)));
                }
                return (claims, None);
            }
            Err(error) => error,
        };
        let message = self.explain(&error);
        let (is_refusal, is_final) = match error {
            QueueError::Unauthenticated { .. } | QueueError::Unauthorized { .. } => {
                (true, !renewal.is_to_be_awaited())
            }
            // What is asked is always the same: the names in the configuration.
            QueueError::Invalid { .. } | QueueError::NoContent { .. } => (true, true),
            QueueError::Foreign { .. } | QueueError::NotFound { .. } => (true, false),
            QueueError::Conflict { .. } | QueueError::Unreachable { .. } | QueueError::Internal { .. } => {
                (false, false)
            }
        };
        let message = Some(message);
        if !is_refusal || *told != message {
            message.iter().for_each(|message| self.tell_retrieval_error(message));
        }
        *told = message.filter(|_| is_refusal);
        (Vec::new(), is_final.then_some(error))
    }

    fn tell_retrieval_error(&self, message: &str) {
        self.log.write(&Entry::TaskRetrievalError { message });
    }

    /// What is wrong, and what the operator can do about it.
    fn explain(&self, error: &QueueError) -> String {
        let file = &self.worker.config.file;
        let advice = match error {
            QueueError::Foreign { because, .. } => {
                let root_url = file.root_url.as_deref().unwrap_or_default();
                return format!(
                    "failed to ask {root_url} for tasks: what answers there is no Taskcluster deployment ({because}); correct rootUrl, unless the deployment is away for now: it is asked again, ever less often"
                );
            }
            QueueError::Unauthenticated { .. } => {
                // The error says it, and to set the clock.
                let first = self.queue.clock_skew().map_or("", |_| "if that does not help, ");
                format!("; {first}give the worker a valid taskcluster.clientId, accessToken and certificate")
            }
            QueueError::Unauthorized { .. } => {
                let (pool, WorkerIdentity { worker_group, worker_id }) = (file.worker_pool(), &self.identity);
                format!(
                    "; give taskcluster.clientId the scopes queue:claim-work:{pool} and queue:worker-id:{worker_group}/{worker_id}"
                )
            }
            QueueError::Invalid { .. } | QueueError::NoContent { .. } => {
                "; correct provisionerId, workerType, workerGroup or workerId".to_owned()
            }
            // With a clock that is off certificates are not valid either.
            QueueError::NotFound { .. }
            | QueueError::Conflict { .. }
            | QueueError::Unreachable { .. }
            | QueueError::Internal { .. } => {
                self.queue.clock_skew().map(|skew| format!(" ({skew})")).unwrap_or_default()
            }
        };
        format!("failed to {}{advice}", chain(error))
    }
}
