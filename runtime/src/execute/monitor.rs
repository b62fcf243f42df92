//! The monitor's wait: one poll loop over PID 1's socket, its pidfd, signals, the lifeline and a terminal.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};

use super::host::Host;
use super::stop_point::stop;
use super::{failure, say};
use crate::cgroup;
use crate::hooks::Stage;
use crate::launch::messages::{self, ChildMessage, Ready};
use crate::launch::{Created, Exited, Failed, FailureKind, Report, Usage, kill_init};
use crate::sys::wait::{self, Ended, Reaped};
use crate::terminal;
use crate::terminal::relay::Relay;

/// Who hears of the container, and whose death ends it.
#[derive(Debug, Default)]
pub struct Outlet {
    /// The report socket (`--report-fd`).
    pub report: Option<OwnedFd>,
    /// Its end means that the caller is gone (`--lifeline-fd`).
    pub lifeline: Option<OwnedFd>,
    /// Where PID 1's number is written (`--pid-file`).
    pub pid_file: Option<PathBuf>,
}

/// Everything that the loop waits for.
struct Watch<'h, 'c> {
    host: &'h mut Host<'c>,
    outlet: Outlet,
    signals: SignalFd,
    relay: Option<Relay>,
    failed: Option<Failed>,
    /// PID 1's socket is still open: its command has not started.
    starting: bool,
}

/// Waits until PID 1 has ended, and says how.
///
/// # Errors
///
/// The command did not start.
pub(super) fn watch(host: &mut Host<'_>, outlet: Outlet) -> Result<Reaped, Failed> {
    let signals = block_signals().map_err(|error| broken(&error))?;
    let mut watch = Watch { host, outlet, signals, relay: None, failed: None, starting: true };
    loop {
        if watch.turn().map_err(|error| broken(&error))? {
            break;
        }
    }
    watch.end()
}

/// Blocks the signals that are passed on, so that they are read and do not end this process.
///
/// # Errors
///
/// The kernel's answer.
pub fn block_signals() -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in PASSED_ON {
        set.add(signal);
    }
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

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

/// What one wait found: the events of each descriptor, none if it was not waited for.
struct Found {
    ended: PollFlags,
    signal: PollFlags,
    child: PollFlags,
    lifeline: PollFlags,
    input: PollFlags,
    output: PollFlags,
}

impl Watch<'_, '_> {
    /// Waits once and handles what came. `true` when PID 1 has ended.
    fn turn(&mut self) -> io::Result<bool> {
        let found = self.wait()?;
        if !found.signal.is_empty() {
            self.take_signals()?;
        }
        if !found.child.is_empty() {
            self.take_messages();
        }
        if !found.lifeline.is_empty() {
            self.outlet.lifeline = None;
            self.kill()?;
        }
        if let Some(relay) = &mut self.relay {
            if found.input.intersects(PollFlags::IN | PollFlags::HUP) {
                relay.take_input()?;
            }
            if found.output.contains(PollFlags::OUT) {
                relay.flush()?;
            }
            // Before PID 1 has ended an end of the pty may be followed by another opening of it; poll
            // would report the hang-up over and over.
            if found.output.intersects(PollFlags::IN | PollFlags::HUP) && !relay.take_output()? {
                self.relay = None;
            }
        }
        Ok(!found.ended.is_empty())
    }

    fn wait(&self) -> io::Result<Found> {
        let none = PollFlags::empty();
        let Some(child) = &self.host.child else {
            return Err(io::Error::from(Errno::CHILD));
        };
        let mut fds = vec![
            PollFd::new(&child.pidfd, PollFlags::IN),
            PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
        ];
        let mut places = [None; 4];
        let optional = [
            self.starting.then(|| PollFd::new(&child.socket, PollFlags::IN)),
            self.outlet.lifeline.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)),
        ];
        let relay = self.relay.iter().flat_map(Relay::interests).map(Some);
        for (place, wanted) in places.iter_mut().zip(optional.into_iter().chain(relay)) {
            *place = wanted.as_ref().map(|_| fds.len());
            fds.extend(wanted);
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let events = |place: Option<usize>| place.and_then(|at| fds.get(at)).map_or(none, PollFd::revents);
        let [child, lifeline, input, output] = places.map(events);
        Ok(Found { ended: events(Some(0)), signal: events(Some(1)), child, lifeline, input, output })
    }

    /// One message of PID 1, or the end of its socket: then its command runs.
    fn take_messages(&mut self) {
        let Some(child) = &self.host.child else { return };
        match messages::receive(child.socket.as_fd()).map(|packet| packet.map(messages::decode_child)) {
            Ok(None) => {}
            Ok(Some(Ok(message))) => self.take_message(message),
            Ok(Some(Err(error))) => self.fail(broken(&error)),
            Err(crate::launch::ReceiveError::Ended) => {
                self.starting = false;
                if self.failed.is_none() {
                    self.started();
                }
            }
            Err(error) => self.fail(broken(&error)),
        }
    }

    fn take_message(&mut self, message: ChildMessage) {
        let taken = match message {
            ChildMessage::Ready(ready) => self.ready(ready),
            ChildMessage::Failed(failed) => {
                self.failed.get_or_insert(failed);
                Ok(())
            }
            ChildMessage::AtHooks => self.host.run_hooks(Stage::CreateRuntime).and_then(|()| self.go_on()),
            ChildMessage::Stop => {
                stop();
                self.go_on()
            }
            ChildMessage::Go => Ok(()),
        };
        if let Err(failed) = taken {
            self.fail(failed);
        }
    }

    /// Tells PID 1 to.
    fn go_on(&self) -> Result<(), Failed> {
        let Some(child) = &self.host.child else { return Ok(()) };
        say(&child.socket, &ChildMessage::Go).map_err(|errno| broken(&io::Error::from(errno)))
    }

    /// Everything is set up; the caller gets hold of it.
    fn ready(&mut self, ready: Ready) -> Result<(), Failed> {
        let failed = |error: io::Error| failure("ready", FailureKind::Host, &error);
        let Ready { mount_namespace, root, terminal } = ready;
        if let (Some(path), Some(child)) = (&self.outlet.pid_file, &self.host.child) {
            std::fs::write(path, child.pid.to_string()).map_err(failed)?;
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
        if let Some(report) = &self.outlet.report
            && let Err(errno) = messages::send_report(report.as_fd(), &Report::Started)
        {
            self.fail(broken(&io::Error::from(errno)));
        }
        if let Err(failed) = self.host.run_hooks(Stage::PostStart) {
            self.fail(failed);
        }
    }

    /// Remembers the first failure and ends the container.
    fn fail(&mut self, failed: Failed) {
        self.failed.get_or_insert(failed);
        self.starting = false;
        if let Err(error) = self.kill() {
            // The kernel refuses to signal our own child: nothing is left that could be done about it.
            self.failed = Some(broken(&error));
        }
    }

    fn kill(&self) -> io::Result<()> {
        self.host.child.as_ref().map_or(Ok(()), |child| kill_init(child.pidfd.as_fd()))
    }

    fn take_signals(&mut self) -> io::Result<()> {
        while let Some(information) = self.signals.read_signal()? {
            let number = i32::try_from(information.ssi_signo).unwrap_or(0);
            if number == NixSignal::SIGWINCH as i32
                && let Some(relay) = &self.relay
            {
                relay.resize()?;
            } else {
                self.pass_on(number)?;
            }
        }
        Ok(())
    }

    /// The kernel drops a signal to the first process of a pid namespace that has no handler for it. For
    /// one that asks to end, that would leave the operator with no way to: so it ends the container.
    fn pass_on(&self, number: i32) -> io::Result<()> {
        let Some(child) = &self.host.child else { return Ok(()) };
        let asks_to_end = [NixSignal::SIGHUP, NixSignal::SIGINT, NixSignal::SIGQUIT, NixSignal::SIGTERM]
            .iter()
            .any(|signal| *signal as i32 == number);
        if asks_to_end && !handles(child.pid, number) {
            return self.kill();
        }
        let Some(signal) = Signal::from_named_raw(number) else { return Ok(()) };
        match pidfd_send_signal(&child.pidfd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// PID 1 has ended: reads what it still said, and reaps it.
    fn end(mut self) -> Result<Reaped, Failed> {
        while self.starting && self.has_message() {
            self.take_messages();
        }
        if let Some(relay) = &mut self.relay {
            relay.drain().map_err(|error| broken(&error))?;
        }
        let Some(child) = self.host.child.take() else {
            return Err(broken(&io::Error::from(Errno::CHILD)));
        };
        let reaped = wait::wait(child.pidfd.as_fd()).map_err(|error| broken(&error))?;
        match self.failed.take() {
            Some(failed) => Err(failed),
            None => Ok(reaped),
        }
    }

    fn has_message(&self) -> bool {
        let Some(child) = &self.host.child else { return false };
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut [PollFd::new(&child.socket, PollFlags::IN)], Some(&now)), Ok(ready) if ready > 0)
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

/// The monitor itself cannot go on.
fn broken(error: &dyn std::error::Error) -> Failed {
    failure("monitor", FailureKind::Host, error)
}

/// How PID 1's end reads to whoever started it.
pub(super) fn exited(reaped: Reaped, usage: cgroup::Usage) -> Exited {
    let (status, signal) = match reaped.ended {
        Ended::Exited(status) => (status, None),
        Ended::Signaled(signal) => (128 + signal, Some(signal)),
    };
    let oom_killed = usage.oom_kills.is_some_and(|kills| kills > 0);
    let usage = Usage { cpu: usage.cpu.unwrap_or(reaped.cpu), memory_peak_bytes: usage.memory_peak_bytes };
    Exited { status, signal, oom_killed, usage }
}

/// For `create`: waits until PID 1 has done all its steps. Returns its number.
///
/// # Errors
///
/// A step failed, or PID 1 ended.
pub(super) fn wait_until_ready(host: &mut Host<'_>) -> Result<i32, Failed> {
    loop {
        let Some(child) = &host.child else { return Err(broken(&io::Error::from(Errno::CHILD))) };
        let packet = messages::receive(child.socket.as_fd()).map_err(|error| broken(&error))?;
        let Some(packet) = packet else { continue };
        match messages::decode_child(packet).map_err(|error| broken(&error))? {
            ChildMessage::Ready(ready) => {
                let pid = child.pid;
                if let (Some(master), Some(path)) = (&ready.terminal, &host.container.options.console_socket)
                {
                    terminal::send_to(path, master.as_fd())
                        .map_err(|error| failure("ready", FailureKind::Host, &error))?;
                }
                return Ok(pid);
            }
            ChildMessage::Failed(failed) => return Err(failed),
            ChildMessage::AtHooks => {
                host.run_hooks(Stage::CreateRuntime)?;
                say(&child.socket, &ChildMessage::Go).map_err(|errno| broken(&io::Error::from(errno)))?;
            }
            ChildMessage::Stop => {
                stop();
                say(&child.socket, &ChildMessage::Go).map_err(|errno| broken(&io::Error::from(errno)))?;
            }
            ChildMessage::Go => {}
        }
    }
}
