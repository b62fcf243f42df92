//! `start`: lets a created container go.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::{Global, Problem, only_id};
use crate::execute::executing::Executing;
use crate::execute::{failure, sentence};
use crate::hooks::{self, Stage, Surroundings};
use crate::id::ContainerId;
use crate::launch::messages::{self, ChildMessage};
use crate::launch::{FailureKind, ReceiveError};
use crate::spec::Spec;
use crate::state::{ContainerDirectory, State, Status};

pub(super) fn start(global: &Global, arguments: lexopt::Parser) -> Result<u8, Problem> {
    let id = only_id(arguments)?;
    start_created(global, &id)
}

/// Starts the command of the created container `id`.
pub(super) fn start_created(global: &Global, id: &ContainerId) -> Result<u8, Problem> {
    let because = |error: &dyn std::error::Error| Problem::because(&format!("start {id}"), error);
    let directory = ContainerDirectory::open(&global.root, id).map_err(|error| because(&error))?;
    directory.lock().map_err(|error| because(&error))?;
    let known = directory.look().map_err(|error| because(&error))?;
    let (Status::Created, Some(state)) = (known.status, known.state) else {
        return Err(Problem::Failed(format!("failed to start {id}: it is {}, not created", known.status)));
    };
    let spec = directory.spec().map_err(|error| because(&error))?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|errno| because(&std::io::Error::from(errno)))?;
    let path = directory.start_socket().map_err(|error| because(&error))?;
    let connected = SocketAddrUnix::new(&path).and_then(|address| connect(&socket, &address));
    connected.map_err(|errno| match errno {
        Errno::CONNREFUSED => {
            Problem::Failed(format!("failed to start {id}: its first process has just ended"))
        }
        errno => because(&std::io::Error::from(errno)),
    })?;
    // From here on it counts as running; nobody can start it twice. Whoever is killed before the next message has
    // started nothing: PID 1 ends with the connection.
    std::fs::remove_file(&path).map_err(|error| because(&error))?;
    match messages::send_child(socket.as_fd(), &ChildMessage::Go) {
        Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => {} // It has ended: that is heard below.
        Err(errno) => return Err(because(&std::io::Error::from(errno))),
    }
    let started = match hear(&socket) {
        Ok(heard) => heard.and_then(|()| run_poststart(&spec, &state)),
        Err(error) => return Err(because(&error)),
    };
    match started {
        Err(problem) if of_hook(&problem) => {
            // OCI runtime specification, runtime.md, "Lifecycle", steps 7 and 9: the container is stopped, undone, and
            // the poststop hooks follow.
            // The hook's failure is the one to be answered with: this one follows from it, or comes on top.
            if let Err(Problem::Failed(sentence)) = super::delete::destroy(global, directory) {
                global.log.warning(&sentence);
            }
            Err(problem)
        }
        other => other.map(|()| 0),
    }
}

/// What PID 1 says, until it is the command.
fn hear(socket: &OwnedFd) -> Result<Result<(), Problem>, ReceiveError> {
    let mut executing = None;
    loop {
        let message = match messages::receive(socket.as_fd()) {
            Ok(Some(packet)) => messages::decode_child(packet)?,
            Ok(None) => continue, // The socket blocks.
            Err(ReceiveError::Ended) => break,
            Err(error) => return Err(error),
        };
        match Executing::from_message(message) {
            Ok(last) => executing = Some(last),
            Err(ChildMessage::Failed(failed)) => return Ok(Err(Problem::NotStarted(failed))),
            Err(_) => return Err(ReceiveError::Malformed { what: "order of messages" }),
        }
    }
    let ended = "failed to start the command: the container's first process ended before".to_owned();
    let outcome = executing.ok_or(Problem::Failed(ended));
    Ok(outcome.and_then(|executing| executing.outcome().map_err(Problem::NotStarted)))
}

fn of_hook(problem: &Problem) -> bool {
    matches!(problem, Problem::NotStarted(failed) if failed.step.starts_with("hooks"))
}

fn run_poststart(spec: &Spec, state: &State) -> Result<(), Problem> {
    let state = State { annotations: spec.annotations.clone(), ..state.clone() };
    let stage = Stage::PostStart;
    hooks::run(spec, stage, state.to_oci(Status::Running), Surroundings::own())
        .map_err(|error| Problem::NotStarted(failure(format!("hooks {stage}"), FailureKind::Host, &error)))
}

/// What fails is said, and changes nothing.
pub(super) fn run_poststop(global: &Global, spec: &Spec, state: &State) {
    let state = State { annotations: spec.annotations.clone(), ..state.clone() };
    for error in hooks::run_poststop(spec, state.to_oci(Status::Stopped), None) {
        global.log.warning(&format!("failed to {}", sentence(&error)));
    }
}
