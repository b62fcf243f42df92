//! `start`: lets a created container go.

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::{Global, Problem, only_id};
use crate::hooks::{self, Stage};
use crate::id::ContainerId;
use crate::launch::ReceiveError;
use crate::launch::messages::{self, ChildMessage};
use crate::spec::Spec;
use crate::state::{ContainerDirectory, State, Status};

pub(super) fn start(global: &Global, mut arguments: lexopt::Parser) -> Result<u8, Problem> {
    let id = only_id(&mut arguments)?;
    start_created(global, &id)
}

/// Starts the command of the created container `id`.
pub(super) fn start_created(global: &Global, id: &ContainerId) -> Result<u8, Problem> {
    let because = |error: &dyn std::error::Error| Problem::because(&format!("start {id}"), error);
    let directory = ContainerDirectory::open(&global.root, id).map_err(|error| because(&error))?;
    directory.lock().map_err(|error| because(&error))?;
    let known = directory.look().map_err(|error| because(&error))?;
    let (Status::Created, Some(state)) = (known.status, known.state) else {
        return Err(Problem::Failed(format!("failed to start {id}: it is {:?}, not created", known.status)));
    };
    let spec = directory.spec().map_err(|error| because(&error))?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|errno| because(&std::io::Error::from(errno)))?;
    let path = directory.start_socket().map_err(|error| because(&error))?;
    let connected = SocketAddrUnix::new(&path).and_then(|address| connect(&socket, &address));
    connected.map_err(|errno| because(&std::io::Error::from(errno)))?;
    // From here on it counts as running; nobody can start it twice.
    std::fs::remove_file(&path).map_err(|error| because(&error))?;
    match messages::receive(socket.as_fd()) {
        Err(ReceiveError::Ended) => {}
        Ok(Some(packet)) => match messages::decode_child(packet).map_err(|error| because(&error))? {
            ChildMessage::Failed(failed) => return Err(Problem::NotStarted(failed)),
            other => return Err(Problem::Failed(format!("failed to start {id}: it said {other:?}"))),
        },
        Ok(None) => return Err(because(&std::io::Error::from(Errno::AGAIN))),
        Err(error) => return Err(because(&error)),
    }
    run_hooks(&spec, &state, Stage::PostStart, Status::Running)?;
    Ok(0)
}

/// Hooks of a container that no monitor holds.
pub(super) fn run_hooks(spec: &Spec, state: &State, stage: Stage, status: Status) -> Result<(), Problem> {
    let state = State { annotations: spec.annotations.clone(), ..state.clone() };
    hooks::run(spec, stage, &state.to_oci(status))
        .map_err(|error| Problem::because(&format!("finish {}", state.id), &error))
}
