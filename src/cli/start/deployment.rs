//! Where tasks come from, and who this worker is there.

use crate::cleanup::Unfinished;
use crate::cli::WRONG_USE;
use crate::cli::operator::Operator;
use crate::cli::recovery::leave_alone;
use crate::cli::refusal::Refusal;
use crate::config::{ConfigFile, Secret};
use crate::queue::{Credentials, WorkerIdentity, WorkerQueue};

/// A deployment's queue, and this worker's name there.
pub(super) struct Deployment {
    pub(super) queue: WorkerQueue,
    pub(super) identity: WorkerIdentity,
}

impl Deployment {
    /// What the configuration says, if it says all of it.
    pub(super) fn of(file: &ConfigFile) -> Result<Deployment, Refusal> {
        let credentials = credentials(file);
        let parts = (&file.root_url, credentials, &file.provisioner_id, &file.worker_type);
        let own = (&file.worker_group, &file.worker_id);
        let ((Some(root_url), Some(credentials), Some(_), Some(_)), (Some(group), Some(id))) = (parts, own)
        else {
            let keys = missing(file).join(", ");
            return Err(Refusal::new(
                WRONG_USE,
                format!("the configuration has to say {keys} (--config FILE)"),
            ));
        };
        let identity = WorkerIdentity { worker_group: group.clone(), worker_id: id.clone() };
        let queue = WorkerQueue::deployment(root_url, credentials)
            .map_err(|error| Refusal::because(WRONG_USE, &error))?;
        Ok(Deployment { queue, identity })
    }
}

/// What the worker's calls are signed with, if the configuration says all of it.
fn credentials(file: &ConfigFile) -> Option<Credentials> {
    let reveal = |secret: &Secret| secret.reveal().to_owned();
    Some(Credentials {
        client_id: file.taskcluster.client_id.clone()?,
        access_token: file.taskcluster.access_token.as_ref().map(reveal)?,
        certificate: file.taskcluster.certificate.as_ref().map(reveal),
    })
}

/// What a worker of a deployment cannot do without.
fn missing(file: &ConfigFile) -> Vec<&'static str> {
    let required = [
        ("rootUrl", file.root_url.is_some()),
        ("taskcluster.clientId", file.taskcluster.client_id.is_some()),
        ("taskcluster.accessToken", file.taskcluster.access_token.is_some()),
        ("provisionerId", file.provisioner_id.is_some()),
        ("workerType", file.worker_type.is_some()),
        ("workerGroup", file.worker_group.is_some()),
        ("workerId", file.worker_id.is_some()),
    ];
    required.into_iter().filter(|(_, is_there)| !is_there).map(|(key, _)| key).collect()
}

/// The unfinished runs that this worker has left; those of others with the same directories are left alone.
pub(super) fn own(
    unfinished: Vec<Unfinished>,
    file: &ConfigFile,
    identity: &WorkerIdentity,
    operator: &Operator,
) -> Vec<Unfinished> {
    let root_url = file.root_url.as_deref().unwrap_or_default();
    let (own, others): (Vec<_>, Vec<_>) =
        unfinished.into_iter().partition(|run| run.held.is_of(root_url, identity));
    leave_alone(&others, operator);
    own
}
