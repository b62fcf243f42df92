//! The further process of a container, from the fork to its command. It is what the command is to be already, and others in
//! the container can see it: here is only what nobody can do for it.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::setsid;

use super::usher::{Entering, end_with_starter};
use super::{ChildError, call, command, prepare, wait_for_go};
use crate::cgroup::{Entrance, join_tasks};
use crate::execute::failure;
use crate::launch::{Failed, FailureKind};
use crate::sys::exec::{Confinement, Image};
use crate::terminal;

/// The descriptors that it has beside the command's.
pub(super) struct Room<'a> {
    pub socket: BorrowedFd<'a>,
    /// The ways into the container's control groups.
    pub groups: &'a [Entrance],
    /// The pty's end that is to be its terminal.
    pub terminal: Option<OwnedFd>,
}

pub(super) fn become_command(
    entering: &Entering<'_>,
    room: Room<'_>,
    image: &Image,
    confinement: &Confinement,
) -> Result<Infallible, Failed> {
    let at = |step: &'static str| move |error: ChildError| failure(step, FailureKind::Host, &error);
    settle(entering, &room).map_err(at("exec.settle"))?;
    let word = command::announce(room.socket, entering.preserve_fds, image, None).map_err(at("execute"))?;
    command::execute(confinement, image, &word)
}

fn settle(entering: &Entering<'_>, room: &Room<'_>) -> Result<(), ChildError> {
    prepare()?;
    if entering.dies_with_starter {
        // If that has died before this, nobody says `Go`.
        end_with_starter()?;
    }
    wait_for_go(room.socket)?;
    // The usher has joined the others before the fork.
    let mut left = room.groups.iter().filter(|group| group.counts_processes);
    let joined = left.try_for_each(|group| join_tasks(group.file.as_fd()));
    joined.map_err(ChildError::JoinCgroups)?;
    call("setsid", setsid())?;
    match &room.terminal {
        Some(terminal) => Ok(terminal::become_controlling(terminal)?),
        None => Ok(()),
    }
}
