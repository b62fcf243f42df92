//! What every phase of a run hands on to the next: who it is, its directories, its log. What else there is of a run
//! belongs to its phase.

use std::sync::Arc;
use std::time::{Duration, Instant};

use images::store::Store;
use runtime::id::ContainerId;

use crate::apparmor_profiles::DefaultProfile;
use crate::artifact::{self, Publisher};
use crate::background::Background;
use crate::cache::Caches;
use crate::claim_file::ClaimFile;
use crate::config::Config;
use crate::container::{EndError, Remains};
use crate::event::{Events, RunEvent, RunEvents};
use crate::host::Host;
use crate::interrupt::{Interrupter, Interrupts};
use crate::live_log::LiveLogServer;
use crate::net::Network;
use crate::payload::Origin;
use crate::processors::Processor;
use crate::proxy::Proxy;
use crate::queue::Claim;
use crate::registry::{Entry, Registry};
use crate::run_directory::RunDirectory;
use crate::signing_key::SigningKey;
use crate::spec::Limits;
use crate::task::error::TaskError;
use crate::task::full_disk::FullDisk;
use crate::task::image::Pulling;
use crate::task::outcome::End;
use crate::task::resolved::Identity;
use crate::task::secondaries::Secondaries;
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
    /// The AppArmor profile of their containers, where there can be one.
    pub profile: Option<Arc<DefaultProfile>>,
    /// Calls the deployment for tasks; nobody does without one.
    pub proxy: Option<Arc<Proxy>>,
    /// What it certifies tasks with, if it can.
    pub signing_key: Option<Arc<SigningKey>>,
    /// The runs that are under way.
    pub registry: Registry,
    /// What they do when the disk is full.
    pub full_disk: FullDisk,
    /// What this host is.
    pub host: Host,
}

impl Worker {
    /// Which one it is: by its configuration, or by its host.
    pub fn id(&self) -> &str {
        self.config.file.worker_id.as_deref().unwrap_or(&self.host.name)
    }
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

/// One run, the same in all of its phases.
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
    pub reclaiming: Background,
    /// The container's name.
    pub id: ContainerId,
    /// Where the container's things lie.
    pub directory: RunDirectory,
    /// The log.
    pub log: Spool,
    /// The way out for artifacts.
    pub publisher: Publisher,
    /// For the run's own time limit.
    pub interrupter: Interrupter,
    /// What ends the run early.
    pub interrupts: Interrupts,
    /// The processor that the run has to itself, where each has one.
    pub processor: Option<Processor>,
    /// The runs that it makes superfluous, until they are resolved.
    pub secondaries: Option<Secondaries>,
    /// Why it does not go on, for the operator if the log could not be kept.
    pub failures: Vec<String>,
    /// When the run began.
    pub began: Began,
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

    /// What each of its containers may use.
    pub(super) fn limits(&self) -> Limits {
        let processor = self.processor.as_ref().map(Processor::number);
        Limits { processor, ..self.worker.host.limits.clone() }
    }

    /// Writes why the run does not go on, and says how far it came.
    pub fn fail(&mut self, error: TaskError) -> End {
        for line in &error.lines {
            self.log.error(line);
        }
        self.tell_failure(&error);
        self.failures.extend(error.lines);
        error.end
    }

    /// What operators count.
    fn tell_failure(&self, error: &TaskError) {
        let message = &error.lines.join(" ");
        match error.end {
            End::MalformedPayload => self.events.emit(&RunEvent::PayloadRefused),
            End::ImageUnavailable => self.events.emit(&RunEvent::ImageUnavailable),
            End::StartFailed | End::CommandNotExecutable | End::CommandNotFound => {
                self.events.emit(&RunEvent::StartFailed { message });
            }
            End::SetupFailed
            | End::StartedHookFailed
            | End::Exited(_)
            | End::Interrupted
            | End::WorkerFault
            | End::ResourceShort
            | End::HostBusy
            | End::HostUnfit => {}
        }
    }

    /// Says that something of the container may still be there.
    pub fn abandon(&mut self, error: &EndError) -> Remains {
        let text = format!(
            "Failed to {}; what is left of the container is kept until \"docker-worker cleanup\" can undo it.",
            chain(error)
        );
        self.log.error(&text);
        self.failures.push(text);
        Remains::Container
    }
}
