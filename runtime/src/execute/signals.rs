//! The signals that the monitor passes on to PID 1.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};

const PASSED_ON: [NixSignal; 9] = [
    NixSignal::SIGHUP,
    NixSignal::SIGINT,
    NixSignal::SIGQUIT,
    NixSignal::SIGTERM,
    NixSignal::SIGUSR1,
    NixSignal::SIGUSR2,
    NixSignal::SIGALRM,
    NixSignal::SIGCONT,
    NixSignal::SIGWINCH,
];

/// Those that ask a process to end.
const ASK_TO_END: [NixSignal; 4] =
    [NixSignal::SIGHUP, NixSignal::SIGINT, NixSignal::SIGQUIT, NixSignal::SIGTERM];

/// The signals, blocked: they are read and do not end this process half-way.
///
/// Made before the host is touched. They stay blocked to the end of the process, whose status a late one must not
/// replace, unless they are let through again.
#[derive(Debug)]
pub struct Signals {
    descriptor: SignalFd,
    before: SigSet,
}

impl Signals {
    /// Blocks the signals that are passed on.
    pub fn block() -> io::Result<Signals> {
        let set: SigSet = PASSED_ON.into_iter().collect();
        let before = set.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?;
        let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Signals { descriptor, before })
    }

    /// Lets them through again; those that have come meanwhile take effect.
    pub fn release(self) -> io::Result<()> {
        Ok(self.before.thread_set_mask()?)
    }

    /// Reports only those that ask to end from here on: there is nobody any more to pass the others on to.
    pub(super) fn only_those_that_ask_to_end(&mut self) -> io::Result<BorrowedFd<'_>> {
        self.descriptor.set_mask(&ASK_TO_END.into_iter().collect())?;
        Ok(self.descriptor.as_fd())
    }

    /// The number of the next one, if one has come.
    pub(super) fn next(&self) -> io::Result<Option<i32>> {
        let read = self.descriptor.read_signal()?;
        Ok(read.map(|information| i32::try_from(information.ssi_signo).unwrap_or(0)))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Whether `signal` asks the container to end and PID 1 would not hear of it.
///
/// The kernel drops a signal to the first process of a pid namespace that has no handler for it. For one that asks to
/// end, that would leave the operator with no way to.
pub(super) fn ends_all(signal: i32, pid: Option<i32>) -> bool {
    asks_to_end(signal) && !pid.is_some_and(|pid| handles(pid, signal))
}

/// Whether `signal` is one of those that ask a process to end.
pub(super) fn asks_to_end(signal: i32) -> bool {
    ASK_TO_END.iter().any(|known| *known as i32 == signal)
}

/// Passes a signal on to PID 1.
pub(super) fn pass_on(signal: i32, pidfd: &OwnedFd) -> io::Result<()> {
    let Some(signal) = Signal::from_named_raw(signal) else { return Ok(()) };
    match pidfd_send_signal(pidfd, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether the process has a handler for the signal, or ignores it by its own will. Source:
/// proc_pid_status(5). The number is that of our child, which is not yet reaped.
fn handles(pid: i32, signal: i32) -> bool {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let bit = 1_u64 << (signal - 1);
    let mask = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    ["SigCgt:", "SigIgn:"].iter().filter_map(|name| mask(name)).any(|mask| mask & bit != 0)
}
