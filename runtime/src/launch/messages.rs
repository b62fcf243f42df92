//! Messages between our own processes: one packet each, a line of JSON with descriptors beside it.
//!
//! | message | from → to | descriptors |
//! |---|---|---|
//! | `Created` | monitor → worker | init, mount namespace, root, the terminal if there is one, control groups |
//! | `Started`, `CommandEnded`, `Exited`, `Failed` | monitor → worker | – |
//! | `ExecStarted`, `ExecExited`, `Failed` | `exec` → worker | with the first: the process, the terminal if there is one |
//! | `Ready` | PID 1 → monitor | mount namespace, root, the terminal if there is one |
//! | `AtHooks` | PID 1 → monitor | – (answered by `Go`) |
//! | `Go` | monitor → PID 1; `exec` → its process | – |
//! | `Failed` | PID 1 → monitor or `start`; usher, or the process of `exec` → `exec` | – |
//! | `Forked` | usher → `exec` | the process that becomes the command, the terminal if there is one |
//! | `Held` | PID 1, which becomes the holder → monitor | the process that becomes the command |
//! | `Executing` | PID 1 → monitor or `start`; the process of `exec` → `exec` | the word in which PID 1 leaves what fails after this message |

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, IoSliceMut};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{CommandEnded, Created, Ended, Entered, ExecReport, Exited, Failed, ReceiveError, Report};
use crate::limits::{MESSAGE_BYTES, MESSAGE_DESCRIPTORS, SENTENCE_BYTES};

/// What PID 1 and its monitor say to each other before the command starts.
#[derive(Debug)]
pub(crate) enum ChildMessage {
    /// All is set up; what is left belongs to `start`.
    Ready(Ready),
    /// A step failed; the child ends.
    Failed(Failed),
    /// The user namespace's maps are written, or the hooks have run: go on.
    Go,
    /// The step that a test wants to stop after is done.
    #[cfg(feature = "test-stop-points")]
    Stop,
    /// The point of the `createRuntime` hooks is reached.
    AtHooks,
    /// The process that `exec` is to start exists, and waits for `Go`.
    Forked(Newcomer),
    /// The process that is to be the command exists, by its pidfd. Who says this becomes the holder.
    Held(OwnedFd),
    /// The last message: the filter and execve(2) come next. The socket's end means that the command runs, unless
    /// the word says otherwise.
    Executing {
        /// The command, for an error's text.
        command: String,
        /// [`crate::sys::shared_word`].
        word: OwnedFd,
    },
}

/// How the monitor can hold what PID 1 made.
#[derive(Debug)]
pub(crate) struct Ready {
    pub mount_namespace: OwnedFd,
    pub root: OwnedFd,
    pub terminal: Option<OwnedFd>,
}

/// A further process of a container, which has not become its command yet.
#[derive(Debug)]
pub(crate) struct Newcomer {
    /// Its number on the host.
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub terminal: Option<OwnedFd>,
}

/// One packet as it came.
#[derive(Debug)]
pub(crate) struct Packet {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// A [`Report`] without its descriptors.
#[derive(Serialize, Deserialize)]
enum ReportText {
    Created { terminal: bool },
    Started,
    CommandEnded(CommandEnded),
    Exited(Exited),
    Failed(Failed),
}

/// An [`ExecReport`] without its descriptors.
#[derive(Serialize, Deserialize)]
enum ExecText {
    ExecStarted { terminal: bool },
    ExecExited(Ended),
    Failed(Failed),
}

/// A [`ChildMessage`] without its descriptors.
#[derive(Serialize, Deserialize)]
enum ChildText {
    Ready {
        terminal: bool,
    },
    Failed(Failed),
    Go,
    #[cfg(feature = "test-stop-points")]
    Stop,
    AtHooks,
    Forked {
        pid: i32,
        terminal: bool,
    },
    Held,
    Executing {
        command: String,
    },
}

/// Sends a report. The descriptors in it are duplicated by the kernel on the way.
pub(crate) fn send_report(socket: BorrowedFd<'_>, report: &Report) -> Result<(), Errno> {
    let mut fds = Vec::new();
    let text = match report {
        Report::Created(created) => {
            fds.extend([created.init.as_fd(), created.mount_namespace.as_fd(), created.root.as_fd()]);
            fds.extend(created.terminal.as_ref().map(AsFd::as_fd));
            fds.extend(created.cgroups.iter().map(AsFd::as_fd));
            ReportText::Created { terminal: created.terminal.is_some() }
        }
        Report::Started => ReportText::Started,
        Report::CommandEnded(ended) => ReportText::CommandEnded(ended.clone()),
        Report::Exited(exited) => ReportText::Exited(exited.clone()),
        Report::Failed(failed) => ReportText::Failed(bounded(failed)),
    };
    send(socket, &text, &fds)
}

/// Sends a report of `exec`. The descriptors in it are duplicated by the kernel on the way.
pub(crate) fn send_exec_report(socket: BorrowedFd<'_>, report: &ExecReport) -> Result<(), Errno> {
    let mut fds = Vec::new();
    let text = match report {
        ExecReport::Started(entered) => {
            fds.push(entered.process.as_fd());
            fds.extend(entered.terminal.as_ref().map(AsFd::as_fd));
            ExecText::ExecStarted { terminal: entered.terminal.is_some() }
        }
        ExecReport::Exited(ended) => ExecText::ExecExited(*ended),
        ExecReport::Failed(failed) => ExecText::Failed(bounded(failed)),
    };
    send(socket, &text, &fds)
}

/// Sends a message between PID 1 and its monitor.
pub(crate) fn send_child(socket: BorrowedFd<'_>, message: &ChildMessage) -> Result<(), Errno> {
    let mut fds = Vec::new();
    let text = match message {
        ChildMessage::Ready(ready) => {
            fds.extend([ready.mount_namespace.as_fd(), ready.root.as_fd()]);
            fds.extend(ready.terminal.as_ref().map(AsFd::as_fd));
            ChildText::Ready { terminal: ready.terminal.is_some() }
        }
        ChildMessage::Failed(failed) => ChildText::Failed(bounded(failed)),
        ChildMessage::Go => ChildText::Go,
        #[cfg(feature = "test-stop-points")]
        ChildMessage::Stop => ChildText::Stop,
        ChildMessage::AtHooks => ChildText::AtHooks,
        ChildMessage::Forked(newcomer) => {
            fds.push(newcomer.pidfd.as_fd());
            fds.extend(newcomer.terminal.as_ref().map(AsFd::as_fd));
            ChildText::Forked { pid: newcomer.pid, terminal: newcomer.terminal.is_some() }
        }
        ChildMessage::Held(command) => {
            fds.push(command.as_fd());
            ChildText::Held
        }
        ChildMessage::Executing { command, word } => {
            fds.push(word.as_fd());
            ChildText::Executing { command: cut(command) }
        }
    };
    send(socket, &text, &fds)
}

/// The next packet; `None` if a non-blocking socket has none yet.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> Result<Option<Packet>, ReceiveError> {
    let mut bytes = vec![0; MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        match recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => break received,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            // The peer died with something of ours unread; no more than an end of the socket.
            Err(Errno::CONNRESET) => return Err(ReceiveError::Ended),
            Err(errno) => return Err(ReceiveError::Socket(errno.into())),
        }
    };
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            descriptors.extend(fds);
        }
    }
    if received.bytes == 0 {
        return Err(ReceiveError::Ended);
    }
    bytes.truncate(received.bytes);
    Ok(Some(Packet { bytes, descriptors }))
}

/// Reads a packet as a report.
pub(crate) fn decode_report(packet: Packet) -> Result<Report, ReceiveError> {
    let text = packet.text()?;
    let mut fds = packet.descriptors.into_iter();
    Ok(match text {
        ReportText::Created { terminal } => Report::Created(Created {
            init: descriptor(&mut fds)?,
            mount_namespace: descriptor(&mut fds)?,
            root: descriptor(&mut fds)?,
            terminal: terminal.then(|| descriptor(&mut fds)).transpose()?,
            cgroups: fds.collect(),
        }),
        ReportText::Started => Report::Started,
        ReportText::CommandEnded(ended) => Report::CommandEnded(ended),
        ReportText::Exited(exited) => Report::Exited(exited),
        ReportText::Failed(failed) => Report::Failed(failed),
    })
}

/// Reads a packet as a report of `exec`.
pub(crate) fn decode_exec_report(packet: Packet) -> Result<ExecReport, ReceiveError> {
    let text = packet.text()?;
    let mut fds = packet.descriptors.into_iter();
    Ok(match text {
        ExecText::ExecStarted { terminal } => ExecReport::Started(Entered {
            process: descriptor(&mut fds)?,
            terminal: terminal.then(|| descriptor(&mut fds)).transpose()?,
        }),
        ExecText::ExecExited(ended) => ExecReport::Exited(ended),
        ExecText::Failed(failed) => ExecReport::Failed(failed),
    })
}

/// Reads a packet as a message between PID 1 and its monitor.
pub(crate) fn decode_child(packet: Packet) -> Result<ChildMessage, ReceiveError> {
    let text = packet.text()?;
    let mut fds = packet.descriptors.into_iter();
    Ok(match text {
        ChildText::Ready { terminal } => ChildMessage::Ready(Ready {
            mount_namespace: descriptor(&mut fds)?,
            root: descriptor(&mut fds)?,
            terminal: terminal.then(|| descriptor(&mut fds)).transpose()?,
        }),
        ChildText::Failed(failed) => ChildMessage::Failed(failed),
        ChildText::Go => ChildMessage::Go,
        #[cfg(feature = "test-stop-points")]
        ChildText::Stop => ChildMessage::Stop,
        ChildText::AtHooks => ChildMessage::AtHooks,
        ChildText::Forked { pid, terminal } => ChildMessage::Forked(Newcomer {
            pid,
            pidfd: descriptor(&mut fds)?,
            terminal: terminal.then(|| descriptor(&mut fds)).transpose()?,
        }),
        ChildText::Held => ChildMessage::Held(descriptor(&mut fds)?),
        ChildText::Executing { command } => ChildMessage::Executing { command, word: descriptor(&mut fds)? },
    })
}

impl Packet {
    fn text<T: DeserializeOwned>(&self) -> Result<T, ReceiveError> {
        serde_json::from_slice(&self.bytes).map_err(|_| ReceiveError::Malformed { what: "text" })
    }
}

fn send(socket: BorrowedFd<'_>, text: &impl Serialize, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    // Texts, numbers and flags: they are always JSON.
    let bytes = serde_json::to_vec(text).map_err(|_| Errno::INVAL)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOBIG);
    }
    loop {
        match sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn descriptor(fds: &mut impl Iterator<Item = OwnedFd>) -> Result<OwnedFd, ReceiveError> {
    fds.next().ok_or(ReceiveError::Malformed { what: "descriptors" })
}

fn bounded(failed: &Failed) -> Failed {
    Failed { step: cut(&failed.step), kind: failed.kind, message: cut(&failed.message) }
}

fn cut(text: &str) -> String {
    text.get(..text.floor_char_boundary(SENTENCE_BYTES)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{FailureKind, Usage};
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn a_report_arrives_as_it_was_sent() {
        let usage = Usage { cpu: Duration::from_nanos(1_234_567), memory_peak_bytes: Some(u64::MAX) };
        let exited = Exited { status: 137, signal: Some(9), oom_killed: true, usage };
        let plain = Exited { status: 0, signal: None, oom_killed: false, usage: Usage::default() };
        // As long as a text can get once each of its bytes has become six.
        let message = "\u{1}".repeat(2 * SENTENCE_BYTES);
        let failed = Failed { step: message.clone(), kind: FailureKind::Host, message };
        let (ours, theirs) = pair();
        for report in [Report::Exited(exited.clone()), Report::Exited(plain.clone()), Report::Started] {
            send_report(theirs.as_fd(), &report).unwrap();
        }
        send_report(theirs.as_fd(), &Report::Failed(failed.clone())).unwrap();
        drop(theirs);

        let next = || receive(ours.as_fd()).map(|packet| decode_report(packet.unwrap()).unwrap());
        assert!(matches!(next().unwrap(), Report::Exited(got) if got == exited));
        assert!(matches!(next().unwrap(), Report::Exited(got) if got == plain));
        assert!(matches!(next().unwrap(), Report::Started));
        let Report::Failed(got) = next().unwrap() else { panic!("not the failure") };
        assert_eq!(got.kind, failed.kind);
        assert!(failed.message.starts_with(&got.message) && got.message.len() == SENTENCE_BYTES);
        assert!(matches!(next(), Err(ReceiveError::Ended)));
    }

    #[test]
    fn descriptors_keep_their_places() {
        let (ours, theirs) = pair();
        assert!(receive(ours.as_fd()).unwrap().is_none());
        let created = Created {
            init: null(),
            mount_namespace: null(),
            root: null(),
            cgroups: vec![null(), null()],
            terminal: Some(null()),
        };
        send_report(theirs.as_fd(), &Report::Created(created)).unwrap();
        let packet = receive(ours.as_fd()).unwrap().unwrap();
        let Report::Created(got) = decode_report(packet).unwrap() else { panic!("not Created") };
        assert_eq!((got.cgroups.len(), got.terminal.is_some()), (2, true));
    }

    #[test]
    fn a_malformed_packet_is_an_error_and_no_panic() {
        for text in ["", "0", "{", r#""Nonesuch""#, r#"{"Created":{"terminal":true}}"#, r#"{"Exited":{}}"#] {
            let packet = || Packet { bytes: text.into(), descriptors: Vec::new() };
            assert!(decode_report(packet()).is_err() && decode_child(packet()).is_err(), "{text}");
            assert!(decode_exec_report(packet()).is_err(), "{text}");
        }
    }
}
