//! The holder: the first process of a container that outlives its command (`--hold`).
//!
//! A pid namespace ends with its first process. So here that is not the command but a program of a few system calls: it waits
//! for whatever ends in the container, passes signals on to the command, tells the monitor at once how that ended, and stays
//! until it is told to go: by the monitor, which kills it, or after the command by a signal from outside that asks to end. Such
//! a signal may be lost, as the second of its kind while the first, from inside, waits: who sends it looks whether it has ended.
//!
//! ```text
//!  monitor                        PID 1                                  the process that is to be the command
//!    │◀── Held + pidfd ───────────│── clone3 ────────────────────────────────────▶│
//!    │                            │ execveat: the holder                          │ mounts, devices, terminal, hooks
//!    │                            │ confines itself                               │
//!    │                            │── a byte ────────────────────────────────────▶│ pivot_root, for both; all other steps
//!    │◀── Ready, Executing and the end of its socket, as without a holder ────────│ seccomp, execve
//!    │                            │◀── SIGCHLD ───────────────────────────────────┘
//!    │◀── [`Said::Ended`] ────────│
//!    │── SIGKILL, when it is told to go ▶│
//! ```
//!
//! It is executed anew, by a descriptor of the read-only copy that the monitor itself runs from: so nothing of the monitor's
//! memory is in it, no argument or variable of the caller's, and `/proc/1/exe` leads to nothing that can be written. Of the
//! command it has the namespaces, the control groups and the AppArmor profile, and of the monitor the score for the OOM
//! killer, who would take the command's end with it; the command has all that it would have without a holder, because the
//! same steps make it.
//!
//! Nobody in the container gains by it. It is root there without a capability but CAP_KILL, cannot be looked into without
//! CAP_SYS_PTRACE, and who has that finds six system calls: any other kills it, and the container with it. No signal from inside
//! ends it, as long as all find room in its queue: so it has no limit on those, and nobody without CAP_SYS_RESOURCE sets one.
//! That needs CAP_SYS_RESOURCE of the runtime, and is not so in a user namespace. To the monitor of `run`, what it tells counts only if the command has ended indeed, and
//! where it ends without a word the command was killed, whatever its own status says; the engine that has used `create` hears
//! that status. Who can trace it could as well trace the command.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, set_dumpable_behavior, set_parent_process_death_signal,
};
use rustix::stdio::{stderr, stdin, stdout};
use rustix::thread::{set_name, set_no_new_privs};

use crate::execute::executing::EXECUTED;
use crate::seccomp;
use crate::sys::exit::exit_now;
use crate::sys::wait::Ended;
use crate::sys::{shared_word, signals};

/// The word on the command line. It is no command of the operator's.
pub(crate) const COMMAND: &str = "hold";

/// What `ps` shows.
const NAME: &CStr = c"holder";

/// Whose death ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeper {
    /// The monitor's, which stays.
    Monitor,
    /// Nobody's: the container was created, and is left to its engine.
    Nobody,
}

impl Keeper {
    fn word(self) -> &'static str {
        match self {
            Keeper::Monitor => "monitor",
            Keeper::Nobody => "nobody",
        }
    }
}

/// The arguments of the holder of the process `command`, a child of it, by its number there.
pub(crate) fn arguments(command: i32, keeper: Keeper) -> Result<Vec<CString>, io::Error> {
    let words =
        ["docker-worker-runtime".to_owned(), COMMAND.into(), command.to_string(), keeper.word().into()];
    Ok(words.into_iter().map(CString::new).collect::<Result<_, _>>()?)
}

/// The same, read; `None` for anything else.
fn parse(arguments: &[String]) -> Option<(Pid, Keeper)> {
    let [command, keeper] = arguments else { return None };
    let keeper = [Keeper::Monitor, Keeper::Nobody].into_iter().find(|known| known.word() == keeper)?;
    Some((Pid::from_raw(command.parse().ok().filter(|number| *number > 1)?)?, keeper))
}

/// What it tells the monitor: its only packet.
#[derive(Debug)]
pub(crate) enum Said {
    /// How the command ended.
    Ended(Ended),
    /// It could not get ready. It ends, and there was no command.
    Failed(HolderError),
}

/// What kept the holder from getting ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HolderError {
    #[error("confine the container's holder: prctl")]
    Confine(#[source] io::Error),
    #[error("install the filter of the container's holder: does this kernel have CONFIG_SECCOMP_FILTER?")]
    Filter(#[source] io::Error),
    #[error("tell the process that is to be the command that its holder is ready")]
    Gate(#[source] io::Error),
}

impl Said {
    fn to_bytes(&self) -> [u8; 8] {
        let errno = |error: &io::Error| error.raw_os_error().unwrap_or(libc::EIO);
        let (kind, value) = match self {
            Said::Ended(Ended::Exited(status)) => (0, *status),
            Said::Ended(Ended::Signaled(signal)) => (1, *signal),
            Said::Failed(HolderError::Confine(error)) => (2, errno(error)),
            Said::Failed(HolderError::Filter(error)) => (3, errno(error)),
            Said::Failed(HolderError::Gate(error)) => (4, errno(error)),
        };
        (u64::from(value.cast_unsigned()) << 32 | kind).to_ne_bytes()
    }

    fn from_bytes(bytes: [u8; 8]) -> Option<Said> {
        let word = u64::from_ne_bytes(bytes);
        let value = i32::try_from(word >> 32).ok()?;
        match word & u64::from(u32::MAX) {
            0 if value <= 255 => Some(Said::Ended(Ended::Exited(value))),
            1 if (1..=64).contains(&value) => Some(Said::Ended(Ended::Signaled(value))),
            2 => Some(Said::Failed(HolderError::Confine(io::Error::from_raw_os_error(value)))),
            3 => Some(Said::Failed(HolderError::Filter(io::Error::from_raw_os_error(value)))),
            4 => Some(Said::Failed(HolderError::Gate(io::Error::from_raw_os_error(value)))),
            _ => None,
        }
    }

    /// What the holder at the other end of `socket` has said; `None` if it has ended, or says what no holder does.
    pub(crate) fn hear(socket: BorrowedFd<'_>) -> Option<Said> {
        let mut bytes = [0; 8];
        let (length, _) = recv(socket, &mut bytes, RecvFlags::DONTWAIT).ok()?;
        Said::from_bytes(bytes).filter(|_| length == bytes.len())
    }
}

/// Its descriptors, under the numbers of the standard streams: so it has no other, and nobody looks for missing ones.
pub(crate) struct Descriptors {
    /// To the monitor.
    pub socket: OwnedFd,
    /// What the process that is to be the command leaves ([`crate::execute::executing`]).
    pub word: OwnedFd,
    /// A byte in it says that the holder is confined.
    pub gate: OwnedFd,
}

impl Descriptors {
    /// Puts them there, over what this process had.
    pub(crate) fn put(&self) -> Result<(), Errno> {
        rustix::stdio::dup2_stdin(&self.socket)?;
        rustix::stdio::dup2_stdout(&self.word)?;
        rustix::stdio::dup2_stderr(&self.gate)
    }
}

/// Whether this process is a container's holder, told so by these arguments. Nobody else has any use for it.
pub(crate) fn main(arguments: &[String]) -> Option<()> {
    let (command, keeper) = parse(arguments).filter(|_| rustix::process::getpid() == Pid::INIT)?;
    let told = match confine(keeper) {
        Ok(()) => rustix::io::write(stderr(), &[0]).map_err(|errno| HolderError::Gate(errno.into())),
        Err(error) => Err(error),
    };
    match told {
        Ok(_) => hold(command, keeper),
        Err(error) => {
            // If the monitor has gone nobody is left to tell.
            rustix::io::write(stdin(), &Said::Failed(error).to_bytes()).unwrap_or_default();
            exit_now(1)
        }
    }
}

/// Before there is anybody else in the container.
fn confine(keeper: Keeper) -> Result<(), HolderError> {
    let prctl = |errno: Errno| HolderError::Confine(errno.into());
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(prctl)?;
    set_name(NAME).map_err(prctl)?;
    if keeper == Keeper::Monitor {
        // Again: a profile that was entered with execve(2) may have reset it. If the monitor has died before this, the
        // command's next message to it fails, and then this ends.
        set_parent_process_death_signal(Some(Signal::KILL)).map_err(prctl)?;
    }
    set_no_new_privs(true).map_err(prctl)?;
    // Of what comes from now on.
    let calls = [
        libc::SYS_rt_sigtimedwait,
        libc::SYS_wait4,
        libc::SYS_kill,
        libc::SYS_write,
        libc::SYS_pread64,
        libc::SYS_exit_group,
    ];
    seccomp::only(&calls).install().map_err(HolderError::Filter)
}

/// Allocates nothing, and makes no call but those of [`confine`].
fn hold(command: Pid, keeper: Keeper) -> ! {
    let mut outcome = None;
    loop {
        // One signal may stand for many ends.
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid == command && outcome.is_none() {
                let exited = status.exit_status().map(Ended::Exited);
                let ended = exited.or_else(|| status.terminating_signal().map(Ended::Signaled));
                outcome = ended.map(|ended| tell(ended, keeper));
            }
        }
        let Ok(signal) = signals::take_next() else { exit_now(1) };
        match outcome {
            _ if signal.number == libc::SIGCHLD => {}
            // It is our child, and reaped by nobody but us: its number is its own. That it has ended is heard next.
            None => signals::send_to_child(command.as_raw_nonzero().get(), signal.number).unwrap_or(()),
            // Those that the command has left behind are not asked whether the container is to stay.
            Some(status) if signal.is_from_outside && asks_to_end(signal.number) => exit_now(status),
            Some(_) => {}
        }
    }
}

/// Tells the monitor how the command ended. Returns the status to end with, as the engine of a created container hears it.
fn tell(ended: Ended, keeper: Keeper) -> i32 {
    // What never became the command has no status of its own. Whoever started it knows why.
    if shared_word::read(stdout()).ok() != Some(EXECUTED) {
        exit_now(1);
    }
    let told = rustix::io::write(stdin(), &Said::Ended(ended).to_bytes());
    if keeper == Keeper::Monitor && told.is_err() {
        exit_now(1);
    }
    ended.status()
}

/// Whether it is one of those that end a holder whose command has ended.
pub(crate) fn asks_to_end(signal: i32) -> bool {
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM].contains(&signal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard_and_nothing_else_is() {
        for ended in [Ended::Exited(0), Ended::Exited(255), Ended::Signaled(1), Ended::Signaled(64)] {
            let heard = Said::from_bytes(Said::Ended(ended).to_bytes());
            assert!(matches!(heard, Some(Said::Ended(got)) if got == ended), "{ended:?}: {heard:?}");
        }
        for fails in [HolderError::Confine, HolderError::Filter, HolderError::Gate] {
            let failed = Said::Failed(fails(io::Error::from_raw_os_error(libc::EPERM)));
            let Some(Said::Failed(heard)) = Said::from_bytes(failed.to_bytes()) else { panic!("{failed:?}") };
            assert_eq!(
                format!("{heard:?}"),
                format!("{:?}", fails(io::Error::from_raw_os_error(libc::EPERM)))
            );
        }
        for (kind, value) in [(0, 256), (1, 0), (1, 65), (5, 0), (u64::from(u32::MAX), 0)] {
            assert!(Said::from_bytes((value << 32 | kind).to_ne_bytes()).is_none(), "{kind} {value}");
        }
    }

    #[test]
    fn only_a_holders_own_words_make_one() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let own = arguments(2, Keeper::Nobody).unwrap();
        let own: Vec<_> = own.iter().skip(2).map(|word| word.to_str().unwrap().to_owned()).collect();
        assert_eq!(parse(&own), Some((Pid::from_raw(2).unwrap(), Keeper::Nobody)));
        for other in ["", "2", "1 monitor", "0 monitor", "-2 monitor", "x monitor", "2 who", "2 nobody more"]
        {
            assert_eq!(parse(&words(other)), None, "{other}");
        }
        // This process is not the first of a pid namespace.
        assert!(main(&own).is_none());
    }
}
