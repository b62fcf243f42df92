//! Hooks: programs of the Spec's author that run at fixed points of a container's life.
//!
//! | stage | runs | in the namespaces of | a failure |
//! |---|---|---|---|
//! | `prestart`, `createRuntime` | before pivot_root, while PID 1 waits | the monitor | ends the start |
//! | `createContainer` | right after | PID 1, host's tree still there | ends the start |
//! | `startContainer` | after `start`, before the command | PID 1, container's root | ends the start |
//! | `poststart` | after the command has started | the monitor | ends the container |
//! | `poststop` | after everything is undone | the monitor | is a warning |
//!
//! Each gets the container's state as JSON on its standard input, its own arguments and environment and
//! nothing else. Source: OCI runtime specification, config.md, "POSIX-platform Hooks".

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, pidfd_send_signal};

use crate::limits;
use crate::spec::{Hook, Spec};
use crate::sys::spawn::{self, Command};
use crate::sys::wait::{self, Ended};

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// `prestart` and then `createRuntime`, which run at the same point.
    CreateRuntime,
    /// `createContainer`.
    CreateContainer,
    /// `startContainer`.
    StartContainer,
    /// `poststart`.
    PostStart,
    /// `poststop`.
    PostStop,
}

impl fmt::Display for Stage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Stage::CreateRuntime => "createRuntime",
            Stage::CreateContainer => "createContainer",
            Stage::StartContainer => "startContainer",
            Stage::PostStart => "poststart",
            Stage::PostStop => "poststop",
        })
    }
}

/// Why a hook did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It could not be started.
    #[error("start the {stage} hook {}", path.display())]
    Start {
        /// Its stage.
        stage: Stage,
        /// Its program.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It ran and says no.
    #[error("run the {stage} hook {}: it ended with {ended:?}", path.display())]
    Refused {
        /// Its stage.
        stage: Stage,
        /// Its program.
        path: PathBuf,
        /// How it ended.
        ended: Ended,
    },
    /// It took too long and was killed.
    #[error("run the {stage} hook {}: killed after {timeout:?}", path.display())]
    TimedOut {
        /// Its stage.
        stage: Stage,
        /// Its program.
        path: PathBuf,
        /// How long it had.
        timeout: Duration,
    },
}

/// The Spec's hooks of one stage, in order.
pub fn of(spec: &Spec, stage: Stage) -> Vec<&Hook> {
    let hooks = &spec.hooks;
    let lists: [&[Hook]; 2] = match stage {
        Stage::CreateRuntime => [&hooks.prestart, &hooks.create_runtime],
        Stage::CreateContainer => [&hooks.create_container, &[]],
        Stage::StartContainer => [&hooks.start_container, &[]],
        Stage::PostStart => [&hooks.poststart, &[]],
        Stage::PostStop => [&hooks.poststop, &[]],
    };
    lists.into_iter().flatten().collect()
}

/// Whether the Spec has any hook of this stage.
pub fn has(spec: &Spec, stage: Stage) -> bool {
    !of(spec, stage).is_empty()
}

/// Runs the hooks of one stage in order, with `state` on their standard input. Stops at the first that
/// fails.
///
/// # Errors
///
/// The first failure.
pub fn run(spec: &Spec, stage: Stage, state: &str) -> Result<(), HookError> {
    of(spec, stage).into_iter().try_for_each(|hook| run_one(hook, stage, state))
}

fn run_one(hook: &Hook, stage: Stage, state: &str) -> Result<(), HookError> {
    let path = hook.path.clone();
    let timeout = hook.timeout.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
    let timeout = timeout.map_or(limits::HOOK, Duration::from_secs);
    let started =
        start(hook, state).map_err(|source| HookError::Start { stage, path: path.clone(), source })?;
    let waited = wait_until(&started, Instant::now() + timeout);
    match waited.map_err(|source| HookError::Start { stage, path: path.clone(), source })? {
        Some(Ended::Exited(0)) => Ok(()),
        Some(ended) => Err(HookError::Refused { stage, path, ended }),
        None => Err(HookError::TimedOut { stage, path, timeout }),
    }
}

fn start(hook: &Hook, state: &str) -> io::Result<OwnedFd> {
    let mut command = Command::new(&hook.path)?;
    if !hook.args.is_empty() {
        command.arguments(&hook.args)?;
    }
    for entry in hook.env.iter().flatten() {
        command.env(CString::new(entry.as_str())?);
    }
    // A state is well below the 64 KiB that a pipe holds, so this cannot block on the hook.
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::write(&write, state.as_bytes())?;
    drop(write);
    command.stdin(read);
    spawn::spawn(&command)
}

/// `None` if the deadline came first; the process is then killed.
fn wait_until(process: &OwnedFd, deadline: Instant) -> io::Result<Option<Ended>> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&left)) {
            Ok(0) => {
                pidfd_send_signal(process, Signal::KILL)?;
                wait::wait(process.as_fd())?;
                return Ok(None);
            }
            Ok(_) => return Ok(Some(wait::wait(process.as_fd())?.ended)),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
