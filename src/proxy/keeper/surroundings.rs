//! What the process knows of the host and may reach of it: as the host has it at the beginning of each task.
//!
//! Files and names may take their time, so a thread looks at them, one at most. What it finds too late for one task is
//! there for the next.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout, timeout_at};

use super::openings;
use super::root::Names;
use crate::net::Network;
use crate::net::confinement::Opening;

/// How long the start of a process waits for the deployment's name to be resolved. It is asked for again with each task.
const NAME_TIME: Duration = Duration::from_secs(5);

/// How long a task waits for the look that is taken for it.
const LOOK_TIME: Duration = Duration::from_secs(2);

/// What was looked at no longer ago than that is as it is now: many tasks are handed over at once.
const FRESH: Duration = Duration::from_secs(1);

/// Surroundings, or the thread that looks at them.
pub(super) enum View {
    /// Since when.
    Known(Box<Surroundings>, Instant),
    /// Until when anybody waits for it.
    Looking(JoinHandle<Box<Surroundings>>, Instant),
    /// The thread panicked. They stay as they were.
    Lost,
}

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

impl View {
    /// Of what was looked at just now.
    pub(super) fn of(surroundings: Surroundings) -> View {
        View::Known(Box::new(surroundings), Instant::now())
    }

    /// Begins to look again, unless that is being done or was done a moment ago.
    pub(super) fn refresh(&mut self) {
        *self = match std::mem::replace(self, View::Lost) {
            View::Known(mut surroundings, since) if since.elapsed() > FRESH => {
                let looking = spawn_blocking(move || {
                    surroundings.refresh();
                    surroundings
                });
                View::Looking(looking, Instant::now() + LOOK_TIME)
            }
            other => other,
        }
    }

    /// Waits until that is done, or has taken too long. May be dropped while it waits.
    pub(super) async fn settle(&mut self) {
        let View::Looking(looking, until) = self else { return };
        match timeout_at(*until, looking).await {
            Ok(Ok(surroundings)) => *self = View::Known(surroundings, Instant::now()),
            Ok(Err(_)) => *self = View::Lost,
            Err(_) => {}
        }
    }
}

fn all(deployment: &[Opening]) -> Vec<Opening> {
    let mut all = [deployment, &openings::resolvers()].concat();
    all.sort();
    all.dedup();
    all
}
