//! From the end of the last process to the resolution.
//!
//! Every run comes through here exactly once, however far it came: artifacts, footer, logs, report. What it still holds
//! of the host comes out beside the resolution, for [`holdings`](super::holdings) to give back.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use runtime::launch::Exited;

use crate::apparmor_profiles::Use;
use crate::cache::{CacheLease, Fate};
use crate::container::Remains;
use crate::event::{Event, RunEvent};
use crate::features::{Active, Hooks, Ingredients, Killed, Stopped};
use crate::interrupt::{Interrupt, Notice};
use crate::net::TaskNetwork;
use crate::payload::{OnExitStatus, Payload};
use crate::queue::{Reason, Verdict};
use crate::registry::Phase;
use crate::root::ContainerRoot;
use crate::sidecar::Lost;
use crate::task::holdings::{self, Holdings, Releasing, Rest, Returned};
use crate::task::outcome::{Caches, End, Outcome, Resolution, exit_status, judge};
use crate::task::resolution_document::{ImageUsed, ResolutionDocument};
use crate::task::resolved::{Report, Resolved};
use crate::task::resources::Resources;
use crate::task::run::Run;
use crate::task::running::Held;
use crate::task::secondaries::{Secondaries, publish_list};
use crate::task::taken::Taken;
use crate::task_log;
use crate::text::chain;
use crate::timestamp::Timestamp;

/// A run that only has to be resolved.
pub struct Resolving {
    pub(super) run: Run,
    pub(super) features: Active,
    pub(super) taken: Taken,
    pub(super) terms: Terms,
    pub(super) end: End,
    pub(super) aftermath: Aftermath,
}

/// What the payload says about the end; nothing where there is no valid payload.
#[derive(Default)]
pub(super) struct Terms {
    max_run_time: Duration,
    on_exit_status: OnExitStatus,
}

/// What is left of the container.
pub(super) enum Aftermath {
    /// There was none.
    NoContainer,
    /// It was to start and did not.
    NotStarted(Remains),
    /// It ran, and is over.
    Over(Box<Over>),
}

/// What is left of a container that ran.
pub(super) struct Over {
    pub(super) held: Held,
    pub(super) exited: Option<Exited>,
    /// What it used, as far as it is known to have ended.
    pub(super) resources: Option<Resources>,
    pub(super) remains: Remains,
}

impl Terms {
    pub(super) fn of(payload: &Payload) -> Terms {
        Terms { max_run_time: payload.max_run_time, on_exit_status: payload.on_exit_status.clone() }
    }
}

impl Resolving {
    /// Publishes what the run leaves behind, closes its log and reports it. To give back what it holds may take as long as
    /// the disk does, so that comes after whatever has to be told of the run.
    pub async fn resolve(mut self: Box<Self>) -> (Resolved, Holdings) {
        self.run.entry.pass_to(Phase::Resolving);
        let known = self.run.interrupts.first();
        self.explain_end(known);
        if !matches!(self.aftermath, Aftermath::NoContainer) {
            self.run.log.info(task_log::TASK_FINISHED);
        }
        self.taken.sidecars.give_up();
        self.tell_lost_sidecars().await;
        let stopped = self.stop().await;
        // The last one that counts: from here on the run is what it is.
        let interrupt = self.run.interrupts.first();
        if known.is_none() {
            self.explain_interrupt(interrupt);
        }
        let Taken { image, caches, network, sidecars, profile, mounts } = std::mem::take(&mut self.taken);
        let releasing = self.release_network(network);
        let mut outcome = self.outcome(stopped, interrupt.map(|(reason, _)| reason));
        let judged = judge(&outcome);
        self.tell_abort(&outcome, &judged);
        let exit_code = judged.exit_code;
        if let Some(resources) = self.resources() {
            self.run.log.info(&resources.line());
        }
        let footer = task_log::footer(Timestamp::now(), exit_code, self.run.began.elapsed());
        self.run.log.text(&footer);
        outcome.killed = self.close_log(image.as_ref().filter(|_| outcome.is_the_commands_own())).await;
        // Features have no more use for them. It goes on beside the reports.
        let ending = tokio::spawn(sidecars.end());
        let mut resolution = judge(&outcome);
        let mut returned = self.return_caches(caches, fate(&resolution)).await;
        let secondaries = self.supersede(&outcome).await;
        let giving_back = async {
            if let Some(secondaries) = secondaries {
                secondaries.give_back(self.run.interrupts.clone()).await;
            }
        };
        let (Report { standing, resisting }, ()) = tokio::join!(self.report(resolution.verdict), giving_back);
        resolution.verdict = standing.unwrap_or_else(|problem| {
            self.run.failures.push(problem);
            // Nobody may take for completed what the queue knows nothing of.
            Verdict::Exception(Reason::InternalError)
        });
        returned.problems.extend(resisting);
        let exit_status = exit_status(&outcome, &resolution);
        let explanation = self.explanation(&outcome, exit_status);
        let (document, rest) = self.part(&resolution, image, (returned, profile, mounts));
        let resolved = Resolved { resolution, exit_status, explanation, document };
        (resolved, Holdings { releasing, ending, rest })
    }

    /// The lines about an end that was not the command's own.
    fn explain_end(&mut self, interrupt: Option<(Interrupt, Notice)>) {
        self.explain_interrupt(interrupt);
        if let Some(exited) = self.exited() {
            self.run.events.emit(&RunEvent::ContainerExited {
                status: exited.status,
                signal: exited.signal,
                oom_killed: exited.oom_killed,
                cpu_ms: u64::try_from(exited.usage.cpu.as_millis()).unwrap_or(u64::MAX),
                memory_peak_bytes: exited.usage.memory_peak_bytes,
            });
            if exited.oom_killed {
                let succeeded = exited.status == 0;
                let host = &self.run.worker.host;
                let one = host.limits.memory_bytes.and_then(|bytes| u64::try_from(bytes).ok());
                let text = task_log::out_of_memory(one, host.memory_for_all);
                self.run.log.error(&text);
                // A command that went on without that process has its own say.
                if !succeeded {
                    self.run.failures.push(text);
                }
            }
        }
    }

    /// Says that this is not its command's own end, nor that of a command that could not be started.
    fn tell_abort(&self, outcome: &Outcome, judged: &Resolution) {
        let is_commands = match outcome.end {
            End::Exited(_) | End::StartFailed | End::CommandNotExecutable | End::CommandNotFound => true,
            End::MalformedPayload
            | End::ImageUnavailable
            | End::SetupFailed
            | End::StartedHookFailed
            | End::Interrupted
            | End::WorkerFault
            | End::ResourceShort
            | End::HostBusy
            | End::HostUnfit => false,
        };
        if outcome.interrupt.is_some() || !is_commands {
            self.run.events.emit(&RunEvent::TaskAborted { reason: judged.verdict.as_str() });
        }
    }

    /// Why the run did not come to its command's own end, or what went wrong all the same.
    fn explanation(&self, outcome: &Outcome, exit_status: u8) -> Option<String> {
        let is_commands_own = outcome.is_the_commands_own() && outcome.end == End::Exited(exit_status);
        let mut reasons = self.run.failures.clone();
        let interrupt = outcome.interrupt.and(self.run.interrupts.first());
        reasons.extend(interrupt.map(|interrupt| self.interrupt_text(interrupt)));
        match (outcome.end, reasons.is_empty()) {
            (_, true) if is_commands_own => None,
            (End::Exited(status), true) => {
                Some(format!("the command ended with {status}, for which the payload asks for another try"))
            }
            _ => Some(reasons.join(" ")),
        }
    }

    fn explain_interrupt(&self, interrupt: Option<(Interrupt, Notice)>) {
        if let Some(interrupt) = interrupt {
            let text = self.interrupt_text(interrupt);
            let (reason, notice) = interrupt;
            let limit = (reason == Interrupt::MaxRunTime).then_some(self.terms.max_run_time.as_secs());
            self.run.events.emit(&RunEvent::Interrupted { reason, notice, max_run_time: limit });
            self.run.log.error(&text);
        }
    }

    /// What has served the task, and has come to its end before it.
    async fn tell_lost_sidecars(&mut self) {
        for Lost { name, status, last_words } in self.taken.sidecars.lost().await {
            self.run.log.error(&format!(
                "The container that serves the task as {name} ended before it, with status {status}."
            ));
            self.run.log.last_words(name, &last_words);
        }
    }

    fn exited(&self) -> Option<&Exited> {
        match &self.aftermath {
            Aftermath::Over(over) => over.exited.as_ref(),
            Aftermath::NoContainer | Aftermath::NotStarted(_) => None,
        }
    }

    fn resources(&self) -> Option<Resources> {
        match &self.aftermath {
            Aftermath::Over(over) => over.resources,
            Aftermath::NoContainer | Aftermath::NotStarted(_) => None,
        }
    }

    fn remains(&self) -> Remains {
        match &self.aftermath {
            Aftermath::NoContainer => Remains::None,
            Aftermath::NotStarted(remains) => *remains,
            Aftermath::Over(over) => over.remains,
        }
    }

    fn interrupt_text(&self, interrupt: (Interrupt, Notice)) -> String {
        task_log::interrupted(interrupt, self.terms.max_run_time)
    }

    /// The hooks `stopped`, if the command ran.
    async fn stop(&mut self) -> Hooks {
        let Aftermath::Over(over) = &self.aftermath else { return Hooks::Done };
        if over.exited.is_none() && over.remains == Remains::Container {
            // Its processes may go on writing. A run without its command's end is no success in any case.
            return Hooks::Done;
        }
        let root = match over.held.created.root.try_clone() {
            Ok(root) => Arc::new(ContainerRoot::new(root)),
            Err(error) => {
                self.run.log.error(&format!("Failed to read the container's files: {error}"));
                return Hooks::Failed;
            }
        };
        let stage = self
            .features
            .stopped(Stopped {
                root,
                log: &self.run.log,
                publisher: &self.run.publisher,
                command_ended: matches!(self.end, End::Exited(_)),
                ingredients: Some(Ingredients {
                    data: self.run.directory.task().data(),
                    store: &self.run.worker.store,
                    lease: &over.held.lease,
                    pulling: &over.held.pulling,
                    caches: &self.taken.caches,
                }),
            })
            .await;
        if let Err(error) = &stage {
            let text = error.to_string();
            self.run.log.error(&text);
            self.run.failures.push(text);
        }
        Hooks::from(&stage)
    }

    fn outcome(&self, stopped: Hooks, interrupt: Option<Interrupt>) -> Outcome {
        let on_exit_status = self.terms.on_exit_status.clone();
        Outcome { end: self.end, interrupt, stopped, killed: Hooks::Done, on_exit_status }
    }

    /// Begins to give the network back, beside the reports: nobody of the task is there to use it.
    fn release_network(&self, task: Option<TaskNetwork>) -> Option<Releasing> {
        let network = Arc::clone(self.run.worker.network.as_ref()?);
        match self.remains() {
            Remains::None => {
                let record = self.run.directory.task().network();
                Some(tokio::task::spawn_blocking(move || network.release(task, &record)))
            }
            Remains::Container => None,
        }
    }

    /// Closes the log and runs the hooks `killed`. `image`: whose command has ended by itself.
    async fn close_log(&mut self, image: Option<&ImageUsed>) -> Hooks {
        let broken = self.run.log.end();
        let killed = Killed {
            log: self.run.log.path(),
            image_id: image.map(|image| image.id.as_str()),
            image_artifact: image.and_then(|image| image.artifact.as_deref()),
            publisher: &self.run.publisher,
        };
        let stage = self.features.killed(killed).await;
        if let Err(error) = &stage {
            let message = error.to_string();
            self.run.events.emit(&RunEvent::KilledHooksFailed { message: &message });
            self.run.failures.push(message);
        }
        match broken {
            None => Hooks::from(&stage),
            Some(error) => {
                // What was to be its last lines is told where the operator reads it.
                self.run.failures.insert(0, format!("Failed to keep the whole log of the task: {error}."));
                Hooks::Failed
            }
        }
    }

    /// Caches that a container may still write to stay marked as its own.
    async fn return_caches(&self, caches: Vec<CacheLease>, fate: Fate) -> Returned {
        match self.remains() {
            Remains::None => holdings::return_caches(caches, fate, self.run.events.clone()).await,
            Remains::Container => Returned::default(),
        }
    }

    /// Resolves the runs that this one makes superfluous, if it has come to its command's own end: whoever waits for it
    /// finds them resolved. Gives those that go back to the queue: otherwise, or where somebody has ended it meanwhile.
    async fn supersede(&mut self, outcome: &Outcome) -> Option<Secondaries> {
        let Run { secondaries, worker, claim, publisher, directory, interrupts, .. } = &mut self.run;
        let secondaries = secondaries.take()?;
        if !outcome.is_the_commands_own() || interrupts.current().is_some() {
            return Some(secondaries);
        }
        let run = claim.queue.run();
        let superseded = secondaries.supersede(run, interrupts.clone()).await;
        if let Err(error) = publish_list(publisher, directory.data(), &superseded).await {
            let message =
                format!("failed to publish which tasks {run} supersedes: failed to {}", chain(&error));
            worker.events.emit(&Event::Warning { message: &message });
        }
        None
    }

    /// Tells the queue how the run ended.
    async fn report(&self, verdict: Verdict) -> Report {
        // A claim of a run that is resolved cannot be prolonged, which would look like a cancellation.
        self.run.reclaiming.end();
        self.run.identity().report(verdict).await
    }

    /// Parts what is to be told of the run from what it holds.
    fn part(
        self: Box<Self>,
        resolution: &Resolution,
        image: Option<ImageUsed>,
        (returned, profile, mounts): (Returned, Option<Use>, Vec<PathBuf>),
    ) -> (ResolutionDocument, Rest) {
        let (resources, remains) = (self.resources(), self.remains());
        let Resolving { run, aftermath, .. } = *self;
        let held = match aftermath {
            Aftermath::Over(over) => Some(over.held),
            Aftermath::NoContainer | Aftermath::NotStarted(_) => None,
        };
        let document = ResolutionDocument {
            resolved: Timestamp::now(),
            image,
            artifacts: run.publisher.into_records(),
            resources,
            ..ResolutionDocument::without_container(run.claim.queue.run().clone(), resolution, run.began.at)
        };
        let (directory, events) = (run.directory, run.events);
        (document, Rest { held, returned, profile, mounts, directory, remains, events })
    }
}

fn fate(resolution: &Resolution) -> Fate {
    match resolution.caches {
        Caches::Keep => Fate::Keep,
        Caches::Purge => Fate::Purge,
    }
}
