//! Carries out a plan: the monitor's steps here, PID 1's after the fork, and the undoing of both.
//!
//! ```text
//! Container ── Host::start ──▶ steps before the fork ─▶ fork ─▶ steps after it
//!                                                        └────▶ child::main: one `match`, then execve
//!           ── monitor::watch ─▶ poll until PID 1 has ended
//!           ── Host::finish ───▶ usage, journal undone, directory gone
//! ```
//!
//! Whatever fails, at whatever point, ends in the same place: kill, undo by journal, remove the directory.

mod child;
mod exec;
pub(crate) mod executing;
mod host;
mod monitor;
mod monitor_socket;
mod pid_file;
mod signals;
mod stop_point;

use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use crate::journal::Keeper;
use crate::launch::messages::{self, ChildMessage};
use crate::launch::{Exited, Failed, FailureKind, Report};
use crate::plan::{ChildStep, ContainerPlan};
use crate::scheduling::Scheduling;
use crate::spec::{Spec, on_one_line};
use crate::state::ContainerDirectory;
use crate::undo::UndoError;

pub use exec::{Exec, Stay, exec};
use host::Host;
pub use monitor::Outlet;
pub use signals::Signals;
pub use stop_point::StopPoint;

/// A container to be started.
#[derive(Debug)]
pub struct Container {
    /// Its directory below the state root, locked.
    pub directory: ContainerDirectory,
    /// The bundle's absolute path.
    pub bundle: PathBuf,
    /// Its Spec, for the hooks.
    pub spec: Spec,
    /// The text of the Spec's `config.json`, to be kept for later commands.
    pub config: Vec<u8>,
    /// What is done.
    pub plan: ContainerPlan,
    /// Its root, if the caller holds it; `root.path` otherwise.
    pub root: Option<OwnedFd>,
    /// The network namespace that the Spec names by [`crate::launch::NETWORK_PATH`], if the caller holds it.
    #[expect(dead_code, reason = "held open, and opened again by its path")]
    pub network: Option<OwnedFd>,
    /// What the command line adds to the Spec.
    pub options: Options,
}

impl Container {
    /// Where in the container the source of a bind lies, if the host sees it in the container's root.
    fn inside_root(&self, source: &Path) -> Option<PathBuf> {
        let root = self.spec.root.as_ref().filter(|_| self.root.is_none())?;
        let inside = self.bundle.join(source).strip_prefix(self.bundle.join(&root.path)).ok()?.to_owned();
        let stays = inside.components().all(|part| matches!(part, Component::Normal(_)));
        stays.then_some(inside)
    }

    fn has_user_namespace(&self) -> bool {
        self.plan.child.contains(&ChildStep::BecomeRoot)
    }
}

/// What the command line adds to the Spec.
#[derive(Debug, Default)]
pub struct Options {
    /// Descriptors 3 … 2 + n are passed on to the command.
    pub preserve_fds: u16,
    /// Keep the caller's session keyring.
    pub keep_keyring: bool,
    /// Where the pty's master goes, as conmon and containerd want it.
    pub console_socket: Option<PathBuf>,
    /// What the command gets in place of what this process was started with.
    pub scheduling: Option<Scheduling>,
    /// Tests only: where the monitor stops itself.
    pub stop: StopPoint,
}

/// A container's whole life.
#[derive(Debug)]
pub struct Run {
    /// How it ended, or why it did not start. Either way the host is as before, unless the failure says
    /// that it is not.
    pub outcome: Result<Exited, Failed>,
    /// What failed after its end and changes nothing: `poststop` hooks.
    pub warnings: Vec<String>,
}

/// Starts a container, waits for its end and undoes everything.
pub fn run(mut container: Container, outlet: Outlet, mut signals: Signals) -> Run {
    let report = outlet.report.as_ref().map(|fd| fd.try_clone());
    let mut warnings = Vec::new();
    let (outcome, undone) = match Host::begin(&mut container, Keeper::Monitor) {
        Err(error) => (Err(failure("journal", FailureKind::Host, &error)), Ok(())),
        Ok(mut host) => {
            let ended =
                host.start(host::Gate::Open).and_then(|()| monitor::watch(&mut host, outlet, &signals));
            let finished = host.finish();
            // Nobody can print any more: what is left in the pty is all there will be.
            let interrupt = signals.only_those_that_ask_to_end().ok();
            let ended = ended.and_then(|gone| gone.drain(interrupt));
            warnings.extend(host.run_poststop(interrupt));
            (ended.map(|reaped| monitor::exited(reaped, finished.counters)), finished.undone)
        }
    };
    let outcome = clear(container.directory, outcome, undone);
    container.options.stop.pass();
    Run { outcome: tell(report, outcome), warnings }
}

/// A container that waits for `start`, or why there is none.
#[derive(Debug)]
pub struct Creation {
    /// If it failed, the host is as before.
    pub outcome: Result<(), Failed>,
    /// What failed after a failure and changes nothing: `poststop` hooks.
    pub warnings: Vec<String>,
}

/// Starts a container up to the point where its command would start, and leaves it to `start`.
pub fn create(mut container: Container, outlet: Outlet, signals: &mut Signals) -> Creation {
    let mut host = match Host::begin(&mut container, Keeper::Caller) {
        Ok(host) => host,
        Err(error) => {
            let failed = Err(failure("journal", FailureKind::Host, &error));
            return Creation { outcome: clear(container.directory, failed, Ok(())), warnings: Vec::new() };
        }
    };
    let created =
        host.start(host::Gate::Closed).and_then(|()| monitor::watch_until_ready(&mut host, outlet, signals));
    let created = created.and_then(|()| host.note_set_up());
    if created.is_ok() {
        return Creation { outcome: Ok(()), warnings: Vec::new() };
    }
    let undone = host.finish().undone;
    let warnings = host.run_poststop(signals.only_those_that_ask_to_end().ok());
    drop(host);
    Creation { outcome: clear(container.directory, created, undone), warnings }
}

/// Removes the directory of a container that is undone. If something stays behind, so does the directory: its journal
/// says what. What failed first is told first.
fn clear<T>(
    directory: ContainerDirectory,
    outcome: Result<T, Failed>,
    undone: Result<(), UndoError>,
) -> Result<T, Failed> {
    let undo = |error: &dyn Error| failure("undo", FailureKind::Host, error);
    let left = match undone {
        Ok(()) => directory.remove().map_err(|error| undo(&error)),
        Err(error) => Err(undo(&error)),
    };
    match (outcome, left) {
        (outcome, Ok(())) => outcome,
        (Ok(_), Err(left)) => Err(left),
        (Err(first), Err(left)) => {
            let message = format!("{}; and then, undoing it, to {}", first.message, left.message);
            Err(Failed { message, ..first })
        }
    }
}

fn tell(report: Option<std::io::Result<OwnedFd>>, outcome: Result<Exited, Failed>) -> Result<Exited, Failed> {
    if let Some(Ok(socket)) = report {
        let last = match &outcome {
            Ok(exited) => Report::Exited(exited.clone()),
            Err(failed) => Report::Failed(failed.clone()),
        };
        // A worker that has gone meanwhile hears nothing, and there is nobody else to tell.
        if let Err(errno) = messages::send_report(socket.as_fd(), &last) {
            return outcome.and(Err(failure("report", FailureKind::Host, &std::io::Error::from(errno))));
        }
    }
    outcome
}

/// A failure of `step`, in one sentence: the error and its causes.
pub(crate) fn failure(step: impl ToString, kind: FailureKind, error: &dyn Error) -> Failed {
    Failed { step: on_one_line(step.to_string().chars()), kind, message: sentence(error) }
}

/// An error and its causes in one line.
pub(crate) fn sentence(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // A transparent error prints as its cause does.
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    on_one_line(text.chars())
}

/// Sends `message`, unless the other side has ended.
fn say(socket: impl AsFd, message: &ChildMessage) -> Result<(), rustix::io::Errno> {
    messages::send_child(socket.as_fd(), message)
}
