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
mod host;
mod monitor;
pub(crate) mod monitor_socket;
mod stop_point;

use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use crate::hooks::Stage;
use crate::launch::messages::{self, ChildMessage};
use crate::launch::{Exited, Failed, FailureKind, Report};
use crate::plan::ContainerPlan;
use crate::spec::Spec;
use crate::state::ContainerDirectory;

use host::Host;
pub use monitor::Outlet;
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
    /// What the command line adds to the Spec.
    pub options: Options,
}

/// What the command line adds to the Spec.
#[derive(Debug, Default)]
pub struct Options {
    /// Descriptors 3 … 2 + n are passed on to the command.
    pub preserve_fds: u32,
    /// Keep the caller's session keyring.
    pub keep_keyring: bool,
    /// Where the pty's master goes, as conmon and containerd want it.
    pub console_socket: Option<PathBuf>,
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
pub fn run(mut container: Container, outlet: Outlet) -> Run {
    let report = outlet.report.as_ref().map(|fd| fd.try_clone());
    let mut warnings = Vec::new();
    let outcome = Host::begin(&mut container)
        .map_err(|error| failure("journal", FailureKind::Host, &error))
        .and_then(|mut host| {
            let ended = host.start(host::Gate::Open).and_then(|()| monitor::watch(&mut host, outlet));
            let finished = host.finish();
            warnings.extend(host.run_hooks(Stage::PostStop).err().map(|failed| failed.message));
            finished.undone.map_err(|error| failure("undo", FailureKind::Host, &error))?;
            ended.map(|ended| monitor::exited(ended, finished.usage))
        });
    // If something stays behind, so does the directory: its journal says what.
    let is_undone = !matches!(&outcome, Err(failed) if failed.step == "undo");
    let removed = if is_undone { container.directory.remove() } else { Ok(()) };
    container.options.stop.pass();
    let outcome = match removed {
        Ok(()) => outcome,
        Err(error) => outcome.and(Err(failure("undo", FailureKind::Host, &error))),
    };
    Run { outcome: tell(report, outcome), warnings }
}

/// Starts a container up to the point where its command would start, and leaves it to `start`.
///
/// # Errors
///
/// The container could not be set up; the host is as before.
pub fn create(mut container: Container) -> Result<i32, Failed> {
    let mut host = match Host::begin(&mut container) {
        Ok(host) => host,
        Err(error) => {
            let failed = failure("journal", FailureKind::Host, &error);
            container.directory.remove().map_err(|error| failure("undo", FailureKind::Host, &error))?;
            return Err(failed);
        }
    };
    match host.start(host::Gate::Closed).and_then(|()| monitor::wait_until_ready(&mut host)) {
        Ok(pid) => Ok(pid),
        Err(failed) => {
            host.abort();
            let finished = host.finish();
            drop(host);
            finished.undone.map_err(|error| failure("undo", FailureKind::Host, &error))?;
            container.directory.remove().map_err(|error| failure("undo", FailureKind::Host, &error))?;
            Err(failed)
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
    Failed { step: step.to_string(), kind, message: sentence(error) }
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
    text
}

/// Sends `message`, unless the other side has ended.
fn say(socket: impl AsFd, message: &ChildMessage) -> Result<(), rustix::io::Errno> {
    messages::send_child(socket.as_fd(), message)
}
