//! What every phase of a run carries on to the next: who it is, its directories, its log.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use images::image::Image;
use images::store::Store;
use runtime::id::ContainerId;

use crate::artifact::{self, Publisher};
use crate::background::Background;
use crate::cache::{CacheLease, Caches};
use crate::claim_file::ClaimFile;
use crate::config::Config;
use crate::event::{Events, RunEvents};
use crate::features::Active;
use crate::host::Host;
use crate::interrupt::{Interrupter, Interrupts};
use crate::live_log::LiveLogServer;
use crate::net::{Network, TaskNetwork};
use crate::payload::{Origin, Payload};
use crate::processors::Processor;
use crate::queue::Claim;
use crate::registry::{Entry, Registry};
use crate::run_directory::RunDirectory;
use crate::task::container::EndError;
use crate::task::error::TaskError;
use crate::task::image::Pulling;
use crate::task::resolve::End;
use crate::task::resolved::Identity;
use crate::task_log::spool::Spool;
use crate::text::chain;
use crate::timestamp::Timestamp;

/// What all runs of one worker share.
pub struct Worker {
    /// The tasks' network; they have loopback only without it.
    pub network: Option<Arc<Network>>,
    /// The configuration in force.
    pub config: Config,
    /// Where images lie.
    pub store: Store,
    /// Where caches lie.
    pub caches: Caches,
    /// Who hears of what happens.
    pub events: Events,
    /// Serves the logs of runs to others.
    pub live_log: Option<Arc<LiveLogServer>>,
    /// The runs that are under way.
    pub registry: Registry,
    /// What this host is.
    pub host: Host,
}

/// How one run is to be carried out, beside what all of its worker have in common.
#[derive(Clone)]
pub struct RunOptions {
    /// Where its artifacts go.
    pub store: artifact::Store,
    /// Who wrote the task.
    pub origin: Origin,
    /// Where the payload is in the document that it came in: findings point there.
    pub payload_pointer: &'static str,
    /// How its image may be pulled.
    pub pulling: Pulling,
}

/// One run, whatever phase it is in.
pub struct Run {
    /// The worker.
    pub worker: Arc<Worker>,
    /// Who hears of what happens to it.
    pub events: RunEvents,
    /// By which others find it.
    pub entry: Entry,
    /// What is to be done.
    pub claim: Claim,
    /// Where it stands for a successor of this worker, if it does.
    pub file: Option<ClaimFile>,
    /// Keeps the claim; ended before the run is reported.
    pub reclaiming: Option<Background>,
    /// The container's name.
    pub id: ContainerId,
    /// Where the container's things lie.
    pub directory: RunDirectory,
    /// The log.
    pub log: Spool,
    /// The way out for artifacts.
    pub publisher: Publisher,
    /// The features that are on.
    pub features: Active,
    /// For the run's own time limit.
    pub interrupter: Interrupter,
    /// What ends the run early.
    pub interrupts: Interrupts,
    /// The payload, once it is known to be valid.
    pub payload: Option<Payload>,
    /// What the task may do.
    pub scopes: Vec<String>,
    /// The image, once it is there.
    pub image: Option<Image>,
    /// The caches that the run holds.
    pub caches: Vec<CacheLease>,
    /// The network that the run holds.
    pub network: Option<TaskNetwork>,
    /// The processor that the run has to itself.
    pub processor: Option<Processor>,
    /// What is mounted for the run in the worker's own mount namespace, in order.
    pub mounts: Vec<PathBuf>,
    /// What may still be there of the container when the run is over.
    pub remains: Remains,
    /// Why it does not go on, for the operator if the log could not be kept.
    pub failures: Vec<String>,
    /// When the run began.
    pub began: Began,
}

/// What may be there of a container that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remains {
    /// Nothing.
    None,
    /// Processes, mounts, control groups: its monitor did not end in time. What could tell of them is kept, and what
    /// they can reach is given to nobody else, until a clean-up has undone them.
    Container,
}

/// The beginning of a run, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Began {
    /// For people.
    pub at: Timestamp,
    /// For durations.
    pub instant: Instant,
}

impl Began {
    /// Now.
    pub fn now() -> Began {
        Began { at: Timestamp::now(), instant: Instant::now() }
    }

    /// How long ago it was.
    pub fn elapsed(&self) -> Duration {
        self.instant.elapsed()
    }
}

impl Run {
    /// Who it is, for the case that nothing else is left of it.
    pub(super) fn identity(&self) -> Identity {
        let (queue, interrupts) = (self.claim.queue.clone(), self.interrupts.clone());
        Identity { queue, file: self.file.clone(), interrupts, began: self.began }
    }

    /// Writes why the run does not go on, and says how far it came.
    pub fn fail(&mut self, error: TaskError) -> End {
        for line in &error.lines {
            self.log.error(line);
        }
        self.failures.extend(error.lines);
        error.end
    }

    /// Something of the container may still be there.
    pub fn abandon(&mut self, error: &EndError) {
        self.remains = Remains::Container;
        let text = format!(
            "Failed to {}; what is left of the container is kept until \"docker-worker cleanup\" can undo it.",
            chain(error)
        );
        self.log.error(&text);
        self.failures.push(text);
    }
}
