//! PID 1 parts with the process that goes on to the command, and becomes the holder ([`crate::holder`]).
//!
//! That is before the container has its root: the other process makes it, and with pivot_root(2) gives it to both.
//!
//! If the holder ends on its way, it or the first process's end says why. The other process says nothing then: it would be
//! told of an end only, and might be heard first.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::AtFlags;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Rlimit, setrlimit, setsid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::usher::why_not_forked;
use super::{Child, ChildError, call, let_signals_through, process};
use crate::capabilities::{self, CapabilitySets};
use crate::execute::executing::NOT_YET;
use crate::execute::say;
use crate::holder::{self, Descriptors, Keeper};
use crate::launch::messages::ChildMessage;
use crate::sys::clone3::{Forked, Namespaces, SingleThreaded, clone3};
use crate::sys::exit::exit_now;
use crate::sys::shared_word::SharedWord;
use crate::sys::{descriptors, signals};

/// A group by its number, any but root's; most systems call it so.
const NOGROUP: u32 = 65_534;

/// What the holder is made of.
#[derive(Debug)]
pub(in crate::execute) struct HolderParts {
    /// The copy that this program runs from.
    pub executable: OwnedFd,
    /// To the monitor.
    pub socket: OwnedFd,
    /// Of the monitor, which this process is a copy of.
    pub alone: SingleThreaded,
}

/// What the process that goes on to the command has of its holder.
pub(super) struct Holding {
    /// In which it leaves whether it came to its command, for both the monitor and the holder.
    pub word: SharedWord,
    pub memory: OwnedFd,
    gate: OwnedFd,
}

impl Holding {
    /// Waits until the holder is confined. Before that the root must not change, from which it may load its libraries, and
    /// nobody else may be in the container.
    pub fn wait(&self) -> Result<(), ChildError> {
        let mut byte = [0; 1];
        loop {
            match rustix::io::read(&self.gate, &mut byte) {
                Ok(1) => return Ok(()),
                Ok(_) => exit_now(1),
                Err(Errno::INTR) => {}
                Err(errno) => {
                    return Err(ChildError::Call { call: "wait for the holder", source: errno.into() });
                }
            }
        }
    }
}

impl Child<'_> {
    /// Returns in the new process only. The holder is to be under `profile`.
    pub(super) fn hold(&mut self, profile: Option<&str>) -> Result<(), ChildError> {
        let missing = ChildError::Missing { what: "the holder's socket" };
        let HolderParts { executable, socket, alone } = self.held.holder.take().ok_or(missing)?;
        let (word, memory) = call("make a word of shared memory", SharedWord::create(NOT_YET))?;
        let (gate, opened) = call("make a pipe", pipe_with(PipeFlags::CLOEXEC))?;
        // No signal that comes before the holder can take it is lost, nor the end of its child.
        call("sigprocmask", signals::block_all())?;
        match clone3(&alone, Namespaces::default(), None) {
            Ok(Forked::Child) => {
                let_signals_through()?;
                // Nobody may write another process's.
                if let (Some(_), Some(proc)) = (&self.label, &self.proc) {
                    self.label = process::open_label(proc)?;
                }
                self.holding = Some(Holding { word, memory, gate });
                Ok(())
            }
            Ok(Forked::Parent { child, pid }) => {
                say(&self.socket, &ChildMessage::Held(child)).map_err(|_| ChildError::MonitorGone)?;
                let keeper = if self.held.start.is_some() { Keeper::Nobody } else { Keeper::Monitor };
                if let Some(profile) = profile {
                    self.set_label(profile)?;
                }
                let streams = Descriptors { socket, word: memory, gate: opened };
                let Err(error) = become_holder(&executable, &streams, pid, keeper);
                Err(error)
            }
            Err(source) => Err(ChildError::Fork { why: why_not_forked(&source), source }),
        }
    }
}

/// Of a signal for which there is no room the kernel forgets who has sent it, and says what it says of those from outside
/// ([`signals::Taken`]). So there is room for all: each is counted as memory of the group that it comes from.
///
/// Without CAP_SYS_RESOURCE, or in a user namespace, the limit stays: then who fills it can end the holder once the command
/// has ended.
fn take_any_number_of_signals() -> Result<(), Errno> {
    match setrlimit(Resource::Sigpending, Rlimit { current: None, maximum: None }) {
        Ok(()) | Err(Errno::PERM) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Becomes root, of another real group: so nobody without CAP_SYS_RESOURCE is like enough to it to lower its limits
/// (prlimit(2)). That group is neither the effective nor the saved one, which execve(2) makes the same.
fn become_root() -> Result<(), Errno> {
    let (user, group) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
    match set_thread_res_gid(rustix::fs::Gid::from_raw(NOGROUP), group, group) {
        Ok(()) => {}
        // A user namespace without that group.
        Err(Errno::INVAL) => set_thread_res_gid(group, group, group)?,
        Err(errno) => return Err(errno),
    }
    set_thread_res_uid(user, user, user)
}

/// Gives up all that a holder needs not, and executes it.
fn become_holder(
    executable: &OwnedFd,
    streams: &Descriptors,
    command: i32,
    keeper: Keeper,
) -> Result<Infallible, ChildError> {
    // pivot_root(2) leads everybody out of the host's tree who is at its root.
    call("chdir", rustix::process::chdir("/"))?;
    // Signals to the caller's process group are not for the container.
    call("setsid", setsid())?;
    let mut kill = CapabilitySets::default();
    // The command may run as another user than root, or become one.
    kill.add(&["CAP_KILL".to_owned()]);
    capabilities::drop_bounding(&kill)?;
    call("setgroups", set_thread_groups(&[]))?;
    call("set the limit on waiting signals", take_any_number_of_signals())?;
    call("setresgid or setresuid", become_root())?;
    capabilities::apply_sets(&kill)?;
    // Nothing that the caller's shell ignored may be ignored here, the end of a child above all.
    call("reset the signals", signals::reset())?;
    call("sigprocmask", signals::block_all())?;
    call("close_range", descriptors::close_on_exec_from(3))?;
    call("dup2", streams.put())?;
    let arguments = call("name the holder", holder::arguments(command, keeper))?;
    let environment: [std::ffi::CString; 0] = [];
    let executed = nix::unistd::execveat(executable, c"", &arguments, &environment, AtFlags::AT_EMPTY_PATH);
    call("execute the holder", executed.map_err(io::Error::from))
}
