//! What the process knows of the host and may reach of it: as the host has it at the beginning of each task.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::openings;
use super::root::Names;
use crate::net::Network;
use crate::net::confinement::Opening;

/// How long the start of a process waits for the deployment's name to be resolved. It is asked for again with each task.
const NAME_TIME: Duration = Duration::from_secs(5);

/// See the module's head.
pub(super) struct Surroundings {
    names: Names,
    network: Arc<Network>,
    root_url: String,
    /// Where that was the last time when anybody knew.
    deployment: Vec<Opening>,
    /// What the rules let it reach.
    open: Vec<Opening>,
}

/// Where the deployment is; nowhere if nobody knows in time.
pub(super) async fn deployment(root_url: &str) -> Vec<Opening> {
    let root_url = root_url.to_owned();
    let looked_up = timeout(NAME_TIME, spawn_blocking(move || openings::deployment(&root_url))).await;
    looked_up.ok().and_then(Result::ok).and_then(Result::ok).unwrap_or_default()
}

impl Surroundings {
    /// As the host has them now.
    pub(super) fn of(
        names: Names,
        network: &Arc<Network>,
        root_url: &str,
        deployment: Vec<Opening>,
    ) -> Surroundings {
        let (network, root_url) = (Arc::clone(network), root_url.to_owned());
        let open = all(&deployment);
        Surroundings { names, network, root_url, deployment, open }
    }

    /// What the process is to be confined with.
    pub(super) fn open(&self) -> &[Opening] {
        &self.open
    }

    /// Has the process see what the host has now. What cannot be changed stays as it was. Blocks as long as a name takes.
    pub(super) fn refresh(&mut self) {
        self.names.refresh();
        if let Ok(deployment) = openings::deployment(&self.root_url) {
            self.deployment = deployment;
        }
        let open = all(&self.deployment);
        if open != self.open && self.network.open(&open).is_ok() {
            self.open = open;
        }
    }
}

fn all(deployment: &[Opening]) -> Vec<Opening> {
    let mut all = [deployment, &openings::resolvers()].concat();
    all.sort();
    all.dedup();
    all
}
