//! What PID 1 says on its way to the command, and what the monitor does about it.

use std::io;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{Phase, Watch, blind, broken};
use crate::execute::executing::Executing;
#[cfg(feature = "test-stop-points")]
use crate::execute::stop_point::stop;
use crate::execute::{failure, pid_file, say};
use crate::hooks::Stage;
use crate::launch::messages::{self, ChildMessage, Ready};
use crate::launch::{Created, Failed, FailureKind, ReceiveError, Report};
use crate::terminal;
use crate::terminal::relay::Relay;

impl Watch<'_, '_> {
    /// PID 1 still has something to say.
    pub(super) fn is_starting(&self) -> bool {
        !matches!(self.phase, Phase::Command | Phase::Lost)
    }

    /// One message of PID 1, or the end of its socket.
    pub(super) fn take_messages(&mut self) {
        let Some(child) = &self.host.child else { return };
        match messages::receive(child.socket.as_fd()).map(|packet| packet.map(messages::decode_child)) {
            Ok(None) => {}
            Ok(Some(Ok(message))) => self.take_message(message),
            Ok(Some(Err(error))) => self.fail(broken(&error)),
            Err(ReceiveError::Ended) => self.take_end(),
            Err(error) => self.fail(broken(&error)),
        }
    }

    fn take_message(&mut self, message: ChildMessage) {
        let taken = match Executing::from_message(message) {
            Ok(executing) => {
                self.phase = Phase::Executing(executing);
                Ok(())
            }
            Err(ChildMessage::Ready(ready)) => {
                self.phase = Phase::Ready;
                self.ready(ready)
            }
            Err(ChildMessage::Failed(failed)) => {
                self.failed.get_or_insert(failed);
                Ok(())
            }
            Err(ChildMessage::AtHooks) => match self.host.hooks(Stage::CreateRuntime) {
                None => self.go_on(),
                hooks => {
                    self.hooks = hooks;
                    Ok(())
                }
            },
            #[cfg(feature = "test-stop-points")]
            Err(ChildMessage::Stop) => {
                stop();
                self.go_on()
            }
            Err(ChildMessage::Held(command)) => {
                self.take_held(command);
                Ok(())
            }
            Err(ChildMessage::Go | ChildMessage::Executing { .. } | ChildMessage::Forked(_)) => Ok(()),
        };
        if let Err(failed) = taken {
            self.fail(failed);
        }
    }

    /// Its socket has ended. Without its last word before, this is no start.
    fn take_end(&mut self) {
        let Phase::Executing(executing) = std::mem::replace(&mut self.phase, Phase::Lost) else {
            // Why, if it has not said so, is known when it is reaped.
            return self.host.kill().unwrap_or_else(|error| self.fail(blind(error)));
        };
        match executing.outcome() {
            Ok(()) => {
                self.phase = Phase::Command;
                self.started();
            }
            Err(failed) => self.fail(failed),
        }
    }

    /// Tells PID 1 to.
    pub(super) fn go_on(&self) -> Result<(), Failed> {
        let Some(child) = &self.host.child else { return Ok(()) };
        match say(&child.socket, &ChildMessage::Go) {
            // It has ended: how, is known when it is reaped.
            Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Err(errno) => Err(blind(errno.into())),
        }
    }

    /// Everything is set up; the caller gets hold of it.
    fn ready(&mut self, ready: Ready) -> Result<(), Failed> {
        let failed = |error: io::Error| failure("ready", FailureKind::Host, &error);
        let Ready { mount_namespace, root, terminal } = ready;
        if let (Some(path), Some(child)) = (&self.outlet.pid_file, &self.host.child) {
            pid_file::write(path, child.pid).map_err(|error| failure("ready", FailureKind::Host, &error))?;
        }
        if let Some(report) = &self.outlet.report {
            let Some(child) = &self.host.child else { return Ok(()) };
            let init = child.pidfd.try_clone().map_err(failed)?;
            let cgroups = self.host.group_directories().map_err(failed)?;
            let created = Created { init, mount_namespace, root, cgroups, terminal };
            return messages::send_report(report.as_fd(), &Report::Created(created))
                .map_err(|errno| failed(errno.into()));
        }
        let Some(master) = terminal else { return Ok(()) };
        match &self.host.container.options.console_socket {
            Some(path) => terminal::send_to(path, master.as_fd())
                .map_err(|error| failure("ready", FailureKind::Host, &error)),
            None => {
                self.relay = Some(Relay::new(master).map_err(failed)?);
                Ok(())
            }
        }
    }

    fn started(&mut self) {
        if let Err(failed) = self.host.note_set_up() {
            return self.fail(failed);
        }
        if let Some(report) = &self.outlet.report
            && let Err(errno) = messages::send_report(report.as_fd(), &Report::Started)
        {
            self.fail(blind(errno.into()));
        }
        self.hooks = self.host.hooks(Stage::PostStart);
    }

    pub(super) fn has_message(&self) -> bool {
        let Some(child) = &self.host.child else { return false };
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut [PollFd::new(&child.socket, PollFlags::IN)], Some(&now)), Ok(ready) if ready > 0)
    }
}
