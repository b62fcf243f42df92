//! What is known of a container between two commands: a directory below the state root.
//!
//! ```text
//! <root>/<id>/            locked (flock) by whoever changes the container: the monitor of `run` for as long as it
//!                         lives. Who locks it while it is empty has the claim on the id
//!     config.json         the bundle's, as it was when the container was made: what is changed there later has no effect
//!     journal             how the host's changes are undone; once PID 1 exists, a note says which it is, and once more
//!                         when it is set up
//!     start.sock          only between `create` and `start`: PID 1 listens on it
//! ```
//!
//! Whether a container runs is never stored: it is asked of PID 1, which is named by its number *and* its
//! start time, and from then on by a pidfd.

mod directory;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::fstat;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::id::ContainerId;
use crate::limits::SMALL_FILE_BYTES;
use crate::spec::Spec;
use crate::sys::wait::readable_within;

pub use directory::{ContainerDirectory, StateError, list};

/// The version of the OCI runtime specification that `state` answers by.
pub const OCI_VERSION: &str = "1.2.0";

/// The note in a container's journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The container's id.
    pub id: String,
    /// PID 1's number on the host.
    pub pid: i32,
    /// PID 1's start time, in clock ticks since boot: field 22 of `/proc/<pid>/stat`.
    pub start_time: u64,
    /// The inode of its pidfd: since Linux 6.9 no two processes of a boot have the same. A clock tick is
    /// long enough for a number to come round again.
    pub pidfd_inode: u64,
    /// The inode of the user namespace that PID 1 was started in. 0 if another version wrote this, which did not know
    /// it: it is nobody's.
    #[serde(default)]
    pub user_namespace: u64,
    /// The bundle's absolute path.
    pub bundle: PathBuf,
    /// Seconds since 1970.
    pub created: u64,
    /// Its set-up is complete: the state is written down again then.
    pub is_set_up: bool,
    /// The command, if the container has a holder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<HeldCommand>,
    /// `annotations` of the Spec. They may be large, so they are not written down again: they are in the Spec that
    /// is kept ([`ContainerDirectory::spec`]).
    #[serde(skip)]
    pub annotations: BTreeMap<String, String>,
}

/// The command of a container with a holder: it may end before that does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldCommand {
    /// As the fields of [`State`].
    pub pid: i32,
    /// As the fields of [`State`].
    pub start_time: u64,
    /// As the fields of [`State`].
    pub pidfd_inode: u64,
    /// It has ended.
    pub has_ended: bool,
    /// How: its status, or 128 and the number of the signal that ended it. Nobody knows it of a created container, whose
    /// engine hears it when the holder ends.
    pub exit_status: Option<i32>,
}

impl HeldCommand {
    /// What is to be known of the process behind `command`. `None` if it is no more.
    ///
    /// # Errors
    ///
    /// `/proc` cannot be read.
    pub fn new(command: BorrowedFd<'_>) -> io::Result<Option<HeldCommand>> {
        let Some(pid) = unless_gone(number(command))? else { return Ok(None) };
        let Some(start_time) = unless_gone(start_time(pid))? else { return Ok(None) };
        let pidfd_inode = fstat(command)?.st_ino;
        Ok(Some(HeldCommand { pid, start_time, pidfd_inode, has_ended: false, exit_status: None }))
    }
}

/// The OCI runtime specification's status of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being set up, or what a crash while setting up left.
    Creating,
    /// Set up, its command not started.
    Created,
    /// Its command runs.
    Running,
    /// It stands still until `resume`. The specification lets a runtime have statuses of its own; this is runc's.
    Paused,
    /// PID 1 has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

/// A container, as far as the host knows it now.
#[derive(Debug)]
pub struct Known {
    /// What was written down; `None` while it is being set up.
    pub state: Option<State>,
    /// Its status.
    pub status: Status,
    /// PID 1, if it lives.
    pub init: Option<OwnedFd>,
    /// The command, if the container has a holder and it lives.
    pub command: Option<OwnedFd>,
}

impl State {
    /// The state of a container whose PID 1 is `init`: its number and its pidfd. It is a child of this process that is
    /// not yet reaped.
    ///
    /// # Errors
    ///
    /// `/proc` does not know the process.
    pub fn new(
        id: &ContainerId,
        init: (i32, BorrowedFd<'_>),
        bundle: &Path,
        spec: &Spec,
    ) -> io::Result<State> {
        let (pid, pidfd) = init;
        let start_time = start_time(pid)?;
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Ok(State {
            id: id.to_string(),
            pid,
            start_time,
            pidfd_inode: fstat(pidfd)?.st_ino,
            user_namespace: rustix::fs::stat(format!("/proc/{pid}/ns/user"))?.st_ino,
            bundle: bundle.to_owned(),
            created: since_1970.map_or(0, |duration| duration.as_secs()),
            is_set_up: false,
            command: None,
            annotations: spec.annotations.clone(),
        })
    }

    /// The JSON that `state` prints and that hooks read. Source: OCI runtime specification, runtime.md,
    /// "State".
    pub fn to_oci(&self, status: Status) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct OciState<'a> {
            oci_version: &'a str,
            id: &'a str,
            status: Status,
            #[serde(skip_serializing_if = "Option::is_none")]
            pid: Option<i32>,
            bundle: &'a Path,
            #[serde(skip_serializing_if = "Option::is_none")]
            command: Option<OciCommand>,
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            annotations: &'a BTreeMap<String, String>,
        }
        /// A property of our own, which the specification allows: the container's `running` does not tell.
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase", tag = "status")]
        enum OciCommand {
            Running {
                pid: i32,
            },
            #[serde(rename_all = "camelCase")]
            Ended {
                #[serde(skip_serializing_if = "Option::is_none")]
                exit_status: Option<i32>,
            },
        }
        let runs = matches!(status, Status::Running | Status::Paused);
        let command = self.command.as_ref().filter(|_| runs).map(|command| match command.has_ended {
            true => OciCommand::Ended { exit_status: command.exit_status },
            false => OciCommand::Running { pid: command.pid },
        });
        let state = OciState {
            oci_version: OCI_VERSION,
            id: &self.id,
            status,
            pid: (status != Status::Stopped).then_some(self.pid),
            bundle: &self.bundle,
            command,
            annotations: &self.annotations,
        };
        // Strings, numbers and paths that came from JSON: they go back into it.
        serde_json::to_string_pretty(&state).unwrap_or_default()
    }
}

/// The process that the state was written for, unless it has ended. That it cannot be looked at is no end.
fn living(state: &State) -> io::Result<Option<OwnedFd>> {
    living_process(state.pid, state.start_time, state.pidfd_inode)
}

/// Marks the command that is known to have ended, and returns the one that has not.
fn living_command(state: &mut State) -> io::Result<Option<OwnedFd>> {
    let Some(command) = &mut state.command else { return Ok(None) };
    let living = living_process(command.pid, command.start_time, command.pidfd_inode)?;
    command.has_ended |= living.is_none();
    Ok(living)
}

fn living_process(pid: i32, started: u64, inode: u64) -> io::Result<Option<OwnedFd>> {
    let Some(pidfd) = unless_gone(open_pidfd(pid))? else { return Ok(None) };
    // Looked at after the pidfd was opened: if it is still the one, the pidfd is of it.
    let Some(start_time) = unless_gone(start_time(pid))? else { return Ok(None) };
    let same = start_time == started && fstat(&pidfd)?.st_ino == inode;
    // What `/proc` says is about the first thread, which others may outlive.
    let has_ended = readable_within(pidfd.as_fd(), Duration::ZERO)?;
    Ok((same && !has_ended).then_some(pidfd))
}

/// The number here of the process behind `pidfd`. Source: proc_pid_fdinfo(5).
fn number(pidfd: BorrowedFd<'_>) -> io::Result<i32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let number = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    number.filter(|number| *number > 0).ok_or_else(|| io::Error::from(Errno::SRCH))
}

/// `None` if the process, or its directory in procfs, is not there.
fn unless_gone<T>(looked: io::Result<T>) -> io::Result<Option<T>> {
    match looked {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether somebody traces the process behind `pidfd`, also one that has ended and was not reaped. Source:
/// proc_pid_status(5). One that is reaped between two looks may be taken for another that has got its number.
///
/// # Errors
///
/// `/proc` does not know the process.
pub(crate) fn is_traced(pidfd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut text = String::with_capacity(4 << 10);
    let path = format!("/proc/{}/status", number(pidfd)?);
    File::open(path)?.take(SMALL_FILE_BYTES).read_to_string(&mut text)?;
    let tracer = text.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    Ok(tracer.is_some_and(|number| number.trim() != "0"))
}

fn open_pidfd(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// When a process has started. Source: proc_pid_stat(5).
fn start_time(pid: i32) -> io::Result<u64> {
    let mut text = String::with_capacity(1 << 10);
    File::open(format!("/proc/{pid}/stat"))?.take(SMALL_FILE_BYTES).read_to_string(&mut text)?;
    // The second field is the program's name, in parentheses, and may hold anything.
    let (_, fields) = text.rsplit_once(") ").ok_or(io::ErrorKind::InvalidData)?;
    fields
        .split(' ')
        .nth(19)
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_the_same_number_but_another_start_is_not_ours() {
        let id = ContainerId::new("a").unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let pidfd = open_pidfd(own).unwrap();
        let state = State::new(&id, (own, pidfd.as_fd()), Path::new("/bundle"), &Spec::default()).unwrap();
        assert!(living(&state).unwrap().is_some());
        for stranger in [
            State { start_time: state.start_time + 1, ..state.clone() },
            State { pidfd_inode: state.pidfd_inode + 1, ..state.clone() },
            State { pid: i32::MAX, ..state },
        ] {
            assert!(living(&stranger).unwrap().is_none(), "{stranger:?}");
        }
    }

    #[test]
    fn a_process_lives_as_long_as_any_of_its_threads() {
        // exit(2), which ends one thread, has number 60 or 93.
        let script = "import ctypes, platform, threading, time
threading.Thread(target=lambda: time.sleep(60)).start()
ctypes.CDLL(None).syscall(60 if platform.machine() == 'x86_64' else 93, 0)";
        let mut child = std::process::Command::new("python3").args(["-c", script]).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let pidfd = open_pidfd(pid).unwrap();
        let (started, inode) = (start_time(pid).unwrap(), fstat(&pidfd).unwrap().st_ino);
        let first_thread = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let begun = std::time::Instant::now();
        while !first_thread().contains(") Z ") {
            assert!(begun.elapsed() < Duration::from_secs(20), "its first thread has not ended");
        }
        assert!(living_process(pid, started, inode).unwrap().is_some());
        child.kill().unwrap();
        assert!(readable_within(pidfd.as_fd(), Duration::from_secs(10)).unwrap());
        assert!(living_process(pid, started, inode).unwrap().is_none(), "and is not reaped yet");
        child.wait().unwrap();
    }
}
