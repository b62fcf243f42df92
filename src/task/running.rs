//! From a running command to the end of its last process.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use images::store::{Lease, PullOptions};
use runtime::launch::Exited;

use crate::background::Background;
use crate::container::{Container, ContainerError, Created, EndError, Remains};
use crate::event::RunEvent;
use crate::features::{Active, StageError};
use crate::net::link::Bytes;
use crate::net::{self, TaskNetwork};
use crate::payload::Payload;
use crate::task::error::TaskError;
use crate::task::full_disk::{MustEnd, Turn};
use crate::task::linking::stage_failure;
use crate::task::outcome::End;
use crate::task::resolving::{Aftermath, Over, Resolving, Terms};
use crate::task::resources::Resources;
use crate::task::run::Run;
use crate::task::taken::Taken;
use crate::task_log::output::Pump;
use crate::text::chain;

/// How long the kernel and the monitor may take to end a container that is killed.
const KILL_TIME: Duration = Duration::from_secs(15);

/// How long what the task printed may take to arrive after its last process is gone.
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// A run whose command runs.
pub struct Running {
    pub(super) run: Run,
    pub(super) features: Active,
    pub(super) taken: Taken,
    pub(super) payload: Payload,
    pub(super) lease: Lease,
    pub(super) pulling: PullOptions,
    pub(super) container: Container,
    pub(super) created: Created,
    /// The pty's other end.
    pub(super) terminal: OwnedFd,
    pub(super) run_time: Background,
    /// Of a run that ends because the disk is full.
    pub(super) turn: Option<Turn>,
}

/// Why a container comes to its end.
enum Ending {
    /// Its command ended, or its monitor did.
    Itself(Result<Exited, ContainerError>),
    /// Something interrupts.
    Interrupted,
    /// The worker cannot let it run on.
    Aborted(TaskError),
    /// There is no room for what it writes.
    DiskFull(MustEnd),
}

/// What the kernel holds of a container that is over.
pub(super) struct Held {
    pub(super) created: Created,
    /// Keeps the image in the store while it is mounted.
    pub(super) lease: Lease,
    /// How the image may be fetched.
    pub(super) pulling: PullOptions,
    /// Keeps other runs from being ended for want of room.
    pub(super) turn: Option<Turn>,
}

impl Held {
    /// The container's mounts go, and the image may be collected. What is left is held until the files are gone.
    pub(super) fn release(self) -> Option<Turn> {
        self.turn
    }
}

impl Running {
    /// Waits for the end: the command's own, or an interrupt's.
    pub async fn wait(mut self) -> Box<Resolving> {
        self.run.events.emit(&RunEvent::TaskStarted {
            container_id: self.run.id.as_str(),
            after_ms: millis(self.run.began.elapsed()),
        });
        let started = Instant::now();
        let mut pump = Pump::start(&self.terminal, &self.run.log);
        let ending = self.ending(&mut pump).await;
        let (end, mut remains) = self.finish(ending).await;
        let wall = started.elapsed();
        drop(self.run_time);
        let pumped = pump.finish(DRAIN_TIME).await;
        let resources = match &end {
            Ok(exited) => Some(Resources::of(exited, wall, traffic(self.taken.network.as_ref()).await)),
            Err(_) => None,
        };
        // After what the task printed: the lines about its end are the last ones.
        let exited = end.and_then(|exited| pumped.map(|()| exited).map_err(output_failure));
        let (end, exited) = match exited {
            Ok(exited) => (End::Exited(status(&exited)), Some(exited)),
            Err(error) => (self.run.fail(error), None),
        };
        if remains == Remains::None
            && let Err(error) = self.container.reap().await
        {
            remains = self.run.abandon(&EndError::Monitor(error));
        }
        let Running { run, features, taken, payload, created, lease, pulling, turn, .. } = self;
        let terms = Terms::of(&payload);
        let over = Over { held: Held { created, lease, pulling, turn }, exited, resources, remains };
        let aftermath = Aftermath::Over(Box::new(over));
        Box::new(Resolving { run, features, taken, terms, end, aftermath })
    }

    async fn ending(&mut self, pump: &mut Pump) -> Ending {
        let Running { run: Run { publisher, interrupts, worker, id, .. }, features, container, .. } = self;
        let mut interrupts = interrupts.clone();
        // A command that ends early leaves the hooks their time.
        let command = async {
            let hooks = async {
                match features.started(publisher).await {
                    Ok(()) => Ok(()),
                    // Whoever waits for this one is interrupted as well.
                    Err(StageError::Interrupted) => std::future::pending().await,
                    Err(error) => Err(stage_failure(&error, End::StartedHookFailed, "started")),
                }
            };
            let exited = async { Ok(container.exited().await) };
            tokio::try_join!(exited, hooks).map(|(exited, ())| exited)
        };
        tokio::select! {
            biased;
            ended = command => ended.map_or_else(Ending::Aborted, Ending::Itself),
            _ = interrupts.interrupted() => Ending::Interrupted,
            // Nobody reads what the task prints any more: it would wait for ever.
            error = pump.failed() => Ending::Aborted(output_failure(error)),
            full = worker.full_disk.ends(worker, id) => Ending::DiskFull(full),
        }
    }

    /// Sees to it that no process is left.
    async fn finish(&mut self, ending: Ending) -> (Result<Exited, TaskError>, Remains) {
        let (ended, abort) = match ending {
            Ending::Itself(ended) => (ended, None),
            Ending::Interrupted => (self.kill().await, None),
            Ending::Aborted(error) => (self.kill().await, Some(error)),
            Ending::DiskFull(MustEnd { error, turn }) => {
                self.turn = turn;
                (self.kill().await, Some(error))
            }
        };
        match (ended, abort) {
            (Ok(exited), None) => (Ok(exited), Remains::None),
            (Ok(_), Some(error)) => (Err(error), Remains::None),
            (Err(error), _) => {
                let (lost, remains) = self.lost(&error).await;
                (Err(lost), remains)
            }
        }
    }

    /// SIGKILL at once, as the original: tasks have no say in how long they take to end.
    async fn kill(&mut self) -> Result<Exited, ContainerError> {
        self.created.kill().map_err(ContainerError::Watch)?;
        match tokio::time::timeout(KILL_TIME, self.container.exited()).await {
            Ok(result) => result,
            Err(_) => Err(ContainerError::Lost(runtime::launch::ReceiveError::Ended)),
        }
    }

    /// The monitor is gone or does not answer: what it held is undone by what it wrote down.
    async fn lost(&mut self, error: &ContainerError) -> (TaskError, Remains) {
        let text = format!("The worker lost control of the task's container: failed to {}", chain(error));
        let mut lost = TaskError::new(End::WorkerFault, text);
        if let Err(error) = self.created.kill() {
            lost = lost.and(format!("Failed to kill the container's first process: {error}"));
        }
        let remains = match self.container.end(self.run.directory.task().runtime_state()).await {
            Ok(()) => Remains::None,
            Err(error) => self.run.abandon(&error),
        };
        (lost, remains)
    }
}

/// What has passed the task's link; unknown without one.
async fn traffic(network: Option<&TaskNetwork>) -> Option<Bytes> {
    let link = network?.link().to_owned();
    // Not on this thread: whoever changes the host's network keeps the question waiting.
    let counted = tokio::task::spawn_blocking(move || net::traffic(&link)).await;
    // A fact less about a task that is over is no fault of it.
    counted.ok()?.ok()?
}

/// 128 + signal and the like fit; what would not counts as the worst.
fn status(exited: &Exited) -> u8 {
    u8::try_from(exited.status).unwrap_or(u8::MAX)
}

fn output_failure(error: io::Error) -> TaskError {
    TaskError::new(End::WorkerFault, format!("Failed to read the task's output: {error}"))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
