//! What the process knows of the host and may reach of it: as the host has it at the beginning of each task.
//!
//! Files and names may take their time, so a thread looks at them, one at most. What it finds too late for one task is
//! there for the next.
//!
//! What it may reach is written each time, whatever was written before: workers that share a run directory share the rules
//! of their processes as well, and what one of them writes takes the place of the other's until that one's next task.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout, timeout_at};

use super::openings;
use super::root::Names;
use crate::event::{Event, Events};
use crate::net::Network;
use crate::net::confinement::Opening;
use crate::text::chain;

/// How long the start of a process waits for the deployment's name to be resolved. It is asked for again with each task.
const NAME_TIME: Duration = Duration::from_secs(5);

/// How long a task waits for the look that is taken for it.
const LOOK_TIME: Duration = Duration::from_secs(2);

/// What was looked at no longer ago than that is as it is now: many tasks are handed over at once.
const FRESH: Duration = Duration::from_secs(1);

/// Surroundings, or the thread that looks at them.
pub(super) enum View {
    /// Since when; `None` if where the deployment is could not be found out yet.
    Known(Box<Surroundings>, Option<Instant>),
    /// Until when anybody waits for it.
    Looking(JoinHandle<Box<Surroundings>>, Instant),
    /// The thread panicked. They stay as they were.
    Lost,
}

/// See the module's head.
pub(super) struct Surroundings {
    names: Names,
    network: Arc<Network>,
    events: Events,
    root_url: String,
    /// Where that was the last time when anybody knew.
    deployment: Vec<Opening>,
    /// Somebody has known.
    is_known: bool,
    /// The worker's log knows that it does not go well.
    is_told: bool,
}

/// Where the deployment is, if anybody knows in time.
pub(super) async fn deployment(root_url: &str) -> Option<Vec<Opening>> {
    let root_url = root_url.to_owned();
    let looked_up = timeout(NAME_TIME, spawn_blocking(move || openings::deployment(&root_url))).await;
    looked_up.ok().and_then(Result::ok).and_then(Result::ok)
}

impl Surroundings {
    /// As the host has them now.
    pub(super) fn of(
        names: Names,
        (network, events): (&Arc<Network>, &Events),
        root_url: &str,
        deployment: Option<Vec<Opening>>,
    ) -> Surroundings {
        let (network, events, root_url) = (Arc::clone(network), events.clone(), root_url.to_owned());
        let is_known = deployment.is_some();
        let deployment = deployment.unwrap_or_default();
        Surroundings { names, network, events, root_url, deployment, is_known, is_told: false }
    }

    /// What the process is to be confined with. Blocks for no longer than a file.
    pub(super) fn open(&self) -> Vec<Opening> {
        let mut all = [self.deployment.clone(), openings::resolvers()].concat();
        all.sort();
        all.dedup();
        all
    }

    /// Has the process see what the host has now. What cannot be changed stays as it was. Blocks as long as a name takes.
    pub(super) fn refresh(&mut self) {
        self.names.refresh();
        let found = openings::deployment(&self.root_url).map(|deployment| self.deployment = deployment);
        let found = found.map_err(|error| format!("look up the deployment's name: {error}"));
        let opened = self.network.open(&self.open()).map_err(|error| chain(&error));
        match found.and(opened) {
            Ok(()) => self.is_told = false,
            Err(why) => self.tell(&why),
        }
    }

    /// Says it once, until it goes well again.
    fn tell(&mut self, why: &str) {
        if !self.is_told {
            self.is_told = true;
            let message = &format!("failed to {why}; of this host the proxy for tasks reaches what it did");
            self.events.emit(&Event::Warning { message });
        }
    }
}

impl View {
    /// Of what was looked at just now.
    pub(super) fn of(surroundings: Surroundings) -> View {
        let since = surroundings.is_known.then(Instant::now);
        View::Known(Box::new(surroundings), since)
    }

    /// Begins to look again, unless that is being done or was done a moment ago.
    pub(super) fn refresh(&mut self) {
        *self = match std::mem::replace(self, View::Lost) {
            View::Known(mut surroundings, since) if since.is_none_or(|since| since.elapsed() > FRESH) => {
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
            Ok(Ok(surroundings)) => *self = View::Known(surroundings, Some(Instant::now())),
            Ok(Err(_)) => *self = View::Lost,
            Err(_) => {}
        }
    }
}
