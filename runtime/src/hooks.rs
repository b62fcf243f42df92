//! Hooks: programs of the Spec's author that run at fixed points of a container's life.
//!
//! | stage | runs | in the namespaces of | a failure |
//! |---|---|---|---|
//! | `prestart`, `createRuntime` | before pivot_root, while PID 1 waits | the monitor | ends the start |
//! | `createContainer` | right after | PID 1, host's tree still there | ends the start |
//! | `startContainer` | after `start`, before the command, bound as that will be | PID 1, container's root | ends the start |
//! | `poststart` | after the command has started | the monitor | ends the container |
//! | `poststop` | after everything is undone | the monitor | is a warning, and the next one runs |
//!
//! Each gets the container's state as JSON on its standard input, and its own arguments. One without an environment of
//! its own gets that of the process that starts it, as in runc: the runtime's, or within the container the command's.
//! Source: OCI runtime specification, config.md, "POSIX-platform Hooks", and runtime.md, "Lifecycle".

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, fcntl_setfl};
use rustix::io::{Errno, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, pidfd_send_signal};

use crate::limits;
use crate::spec::{Hook, Spec};
use crate::sys::exec::Confinement;
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
    /// It could not be started, or be given its state.
    #[error("start the {stage} hook {}", path.display())]
    Start { stage: Stage, path: PathBuf, source: io::Error },
    /// It ran and says no.
    #[error("run the {stage} hook {}: it ended with {ended:?}", path.display())]
    Refused { stage: Stage, path: PathBuf, ended: Ended },
    /// It took too long and was killed.
    #[error("run the {stage} hook {}: killed after {timeout:?}", path.display())]
    TimedOut {
        stage: Stage,
        path: PathBuf,
        /// How long it had.
        timeout: Duration,
    },
    /// The runtime was asked to end, and killed it.
    #[error("run the {stage} hook {}: it was interrupted", path.display())]
    Interrupted { stage: Stage, path: PathBuf },
    /// The hooks could not be waited for.
    #[error("wait for the {stage} hooks")]
    Wait { stage: Stage, source: io::Error },
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

/// Calls `found` for what is wrong with a Spec's hooks: a JSON pointer, and what it is.
pub fn check(spec: &Spec, mut found: impl FnMut(String, String)) {
    let hooks = &spec.hooks;
    for (name, list) in [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
        ("startContainer", &hooks.start_container),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ] {
        for (index, hook) in list.iter().enumerate() {
            if !hook.path.is_absolute() {
                found(format!("/hooks/{name}/{index}/path"), format!("{:?} is not absolute", hook.path));
            }
            if let Some(timeout) = hook.timeout.filter(|seconds| *seconds <= 0) {
                let message = format!("{timeout} seconds are no time: leave it out or give more than 0");
                found(format!("/hooks/{name}/{index}/timeout"), message);
            }
        }
    }
}

/// What a hook is given by the process that starts it.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// For a hook without one of its own.
    pub environment: Vec<CString>,
    /// `None`: that of the process.
    pub umask: Option<Mode>,
    /// What the command is bound by is what a `startContainer` hook is bound by.
    pub confinement: Confinement,
}

impl Surroundings {
    /// Those of this process.
    pub fn own() -> Surroundings {
        // Neither a name nor a value from there holds a NUL.
        let entry = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            CString::new([name.into_vec(), value.into_vec()].join(&b'=')).ok()
        };
        Surroundings {
            environment: std::env::vars_os().filter_map(entry).collect(),
            ..Surroundings::default()
        }
    }
}

/// Runs the hooks of one stage in order, with `state` on their standard input. Stops at the first that fails.
///
/// # Errors
///
/// The first failure.
pub fn run(spec: &Spec, stage: Stage, state: String, surroundings: Surroundings) -> Result<(), HookError> {
    let mut hooks = HookSequence::new(spec, stage, state, surroundings);
    while hooks.advance()? == Progress::Waiting {
        hooks.wait(None)?;
    }
    Ok(())
}

/// Runs the `poststop` hooks, also those behind one that fails. When `interrupt` is readable
/// the one that runs is killed, and those behind it do not start.
pub fn run_poststop(spec: &Spec, state: String, interrupt: Option<BorrowedFd<'_>>) -> Vec<HookError> {
    let mut hooks = HookSequence::new(spec, Stage::PostStop, state, Surroundings::own());
    let mut failures = Vec::new();
    loop {
        let failed = match hooks.advance() {
            Ok(Progress::Done) => return failures,
            Ok(Progress::Waiting) => hooks.wait(interrupt).err(),
            Err(failed) => Some(failed),
        };
        failures.extend(failed);
    }
}

/// How far the hooks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// One runs.
    Waiting,
    /// All have run.
    Done,
}

/// The hooks of one stage on their way, to be waited for beside other things: nothing here blocks but
/// [`HookSequence::wait`].
#[derive(Debug)]
pub struct HookSequence {
    stage: Stage,
    waiting: std::vec::IntoIter<Hook>,
    state: String,
    surroundings: Surroundings,
    running: Option<Running>,
}

/// A hook that runs.
#[derive(Debug)]
struct Running {
    path: PathBuf,
    process: OwnedFd,
    /// Its standard input, until it has got the whole state or wants no more of it.
    input: Option<OwnedFd>,
    written: usize,
    timeout: Duration,
    deadline: Instant,
}

impl HookSequence {
    /// All of one stage. None is started yet.
    pub fn new(spec: &Spec, stage: Stage, state: String, surroundings: Surroundings) -> HookSequence {
        let hooks: Vec<Hook> = of(spec, stage).into_iter().cloned().collect();
        HookSequence { stage, waiting: hooks.into_iter(), state, surroundings, running: None }
    }

    /// Their stage.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Does all that can be done now: starts a hook, goes on writing the state to it, takes note of its end.
    ///
    /// # Errors
    ///
    /// A hook failed and has ended. Called again this goes on with the next one.
    pub fn advance(&mut self) -> Result<Progress, HookError> {
        loop {
            let Some(running) = &mut self.running else {
                let Some(hook) = self.waiting.next() else { return Ok(Progress::Done) };
                self.running = Some(start(&hook, self.stage, &self.surroundings)?);
                continue;
            };
            match running.step(self.state.as_bytes()) {
                Ok(None) if Instant::now() < running.deadline => return Ok(Progress::Waiting),
                Ok(Some(Ended::Exited(0))) => self.running = None,
                outcome => return Err(self.end(outcome)),
            }
        }
    }

    /// What to wait for, until [`HookSequence::time_left`] is over; then [`HookSequence::advance`].
    pub fn interests(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.running.iter().flat_map(|running| {
            let input = running.input.as_ref().map(|input| PollFd::new(input, PollFlags::OUT));
            std::iter::once(PollFd::new(&running.process, PollFlags::IN)).chain(input)
        })
    }

    /// Until the hook that runs has had its time.
    pub fn time_left(&self) -> Option<Timespec> {
        let left = self.running.as_ref()?.deadline.saturating_duration_since(Instant::now());
        Timespec::try_from(left).ok()
    }

    /// Kills the hook that runs, and starts none of those behind it.
    pub fn interrupt(&mut self) -> Option<HookError> {
        self.waiting = Vec::new().into_iter();
        let running = self.running.take()?;
        let path = running.path.clone();
        Some(match running.kill() {
            Ok(()) => HookError::Interrupted { stage: self.stage, path },
            Err(source) => HookError::Wait { stage: self.stage, source },
        })
    }

    fn wait(&mut self, interrupt: Option<BorrowedFd<'_>>) -> Result<(), HookError> {
        let polled = {
            let mut fds: Vec<_> =
                interrupt.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).into_iter().collect();
            fds.extend(self.interests());
            let polled = poll(&mut fds, self.time_left().as_ref());
            polled.map(|_| interrupt.is_some() && fds.first().is_some_and(|fd| !fd.revents().is_empty()))
        };
        match polled {
            Ok(false) | Err(Errno::INTR) => Ok(()),
            Ok(true) => self.interrupt().map_or(Ok(()), Err),
            Err(errno) => {
                self.interrupt();
                Err(HookError::Wait { stage: self.stage, source: errno.into() })
            }
        }
    }

    /// The hook that runs is over, and not with success.
    fn end(&mut self, outcome: io::Result<Option<Ended>>) -> HookError {
        let stage = self.stage;
        let Some(running) = self.running.take() else {
            return HookError::Wait { stage, source: Errno::CHILD.into() };
        };
        let (path, timeout) = (running.path.clone(), running.timeout);
        match outcome {
            Ok(Some(ended)) => HookError::Refused { stage, path, ended },
            Ok(None) => match running.kill() {
                Ok(()) => HookError::TimedOut { stage, path, timeout },
                Err(source) => HookError::Wait { stage, source },
            },
            Err(source) => match running.kill() {
                Ok(()) => HookError::Start { stage, path, source },
                Err(source) => HookError::Wait { stage, source },
            },
        }
    }
}

impl Running {
    /// Writes what it takes of `state`; how it ended, if it has.
    fn step(&mut self, state: &[u8]) -> io::Result<Option<Ended>> {
        while let Some(input) = &self.input {
            match write(input, state.get(self.written..).unwrap_or_default()) {
                Ok(length) => self.written += length,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => break,
                Err(Errno::PIPE) => self.written = state.len(), // It does not want to know.
                Err(errno) => return Err(errno.into()),
            }
            if self.written >= state.len() {
                self.input = None;
            }
        }
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut [PollFd::new(&self.process, PollFlags::IN)], Some(&now)) {
            Ok(0) | Err(Errno::INTR) => Ok(None),
            Ok(_) => Ok(Some(wait::wait(self.process.as_fd())?.ended)),
            Err(errno) => Err(errno.into()),
        }
    }

    fn kill(self) -> io::Result<()> {
        pidfd_send_signal(&self.process, Signal::KILL)?;
        wait::wait(self.process.as_fd()).map(drop)
    }
}

fn start(hook: &Hook, stage: Stage, surroundings: &Surroundings) -> Result<Running, HookError> {
    let path = hook.path.clone();
    let timeout = hook.timeout.and_then(|seconds| u64::try_from(seconds).ok());
    // 136 years are for ever, and a clock can count them.
    let timeout = timeout.map_or(limits::HOOK, |seconds| Duration::from_secs(seconds.min(u32::MAX.into())));
    let started = spawn(hook, surroundings);
    let (process, input) =
        started.map_err(|source| HookError::Start { stage, path: path.clone(), source })?;
    let deadline = Instant::now() + timeout;
    Ok(Running { path, process, input: Some(input), written: 0, timeout, deadline })
}

/// The hook's process, and the end of its standard input that is written to.
fn spawn(hook: &Hook, surroundings: &Surroundings) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut command = Command::new(&hook.path)?;
    if !hook.args.is_empty() {
        command.arguments(&hook.args)?;
    }
    let own = hook.env.iter().flatten().map(|entry| CString::new(entry.as_str()));
    for entry in own.collect::<Result<Vec<_>, _>>()? {
        command.env(entry);
    }
    if hook.env.is_none() {
        surroundings.environment.iter().cloned().for_each(|entry| command.env(entry));
    }
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    // A state may be longer than what a pipe holds: so it is written as the hook reads, and nobody waits for that.
    fcntl_setfl(&write, OFlags::NONBLOCK)?;
    command.stdin(read).umask(surroundings.umask);
    Ok((spawn::spawn_confined(&command, &surroundings.confinement)?, write))
}
