//! Messages between our own processes: one packet each, descriptors beside the bytes.
//!
//! | tag | message | from → to | bytes after the tag | descriptors |
//! |---|---|---|---|---|
//! | 1 | `Created` | monitor → worker | number of control groups, 1 if there is a terminal | init, mount namespace, root, control groups, terminal |
//! | 2 | `Started` | monitor → worker | – | – |
//! | 3 | `Exited` | monitor → worker | status, signal (0: none), oom, cpu (ns), 1 if a peak follows, peak | – |
//! | 4 | `Failed` | both | kind, step, message | – |
//! | 5 | `Ready` | PID 1 → monitor | 1 if there is a terminal | mount namespace, root, terminal |
//! | 6 | `Go` | monitor → PID 1 | – | – |
//! | 7 | `Stop` | PID 1 → monitor | – | – (tests only: `--stop-after` has been reached) |
//! | 8 | `AtHooks` | PID 1 → monitor | – | – (answered by `Go`) |
//!
//! Numbers are little-endian; texts are preceded by their length in 16 bits.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::{Errno, IoSliceMut};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use super::{Created, Exited, Failed, FailureKind, ReceiveError, Report, Usage};
use crate::limits::{MESSAGE_BYTES, MESSAGE_DESCRIPTORS, SENTENCE_BYTES};

/// What PID 1 and its monitor say to each other before the command starts.
#[derive(Debug)]
pub(crate) enum ChildMessage {
    /// All steps but the last are done.
    Ready(Ready),
    /// A step failed; the child ends.
    Failed(Failed),
    /// The user namespace's maps are written, or the hooks have run: go on.
    Go,
    /// The step that a test wants to stop after is done.
    Stop,
    /// The point of the `createRuntime` hooks is reached.
    AtHooks,
}

/// How the monitor can hold what PID 1 made.
#[derive(Debug)]
pub(crate) struct Ready {
    pub mount_namespace: OwnedFd,
    pub root: OwnedFd,
    pub terminal: Option<OwnedFd>,
}

/// One packet as it came.
#[derive(Debug)]
pub(crate) struct Packet {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// Sends a report. The descriptors in it are duplicated by the kernel on the way.
pub(crate) fn send_report(socket: BorrowedFd<'_>, report: &Report) -> Result<(), Errno> {
    match report {
        Report::Created(created) => {
            let groups = u8::try_from(created.cgroups.len()).map_err(|_| Errno::TOOBIG)?;
            let mut fds = vec![created.init.as_fd(), created.mount_namespace.as_fd(), created.root.as_fd()];
            fds.extend(created.cgroups.iter().map(AsFd::as_fd));
            fds.extend(created.terminal.as_ref().map(AsFd::as_fd));
            send(socket, &[1, groups, created.terminal.is_some().into()], &fds)
        }
        Report::Started => send(socket, &[2], &[]),
        Report::Exited(exited) => send(socket, &encode_exited(exited), &[]),
        Report::Failed(failed) => send(socket, &encode_failed(failed), &[]),
    }
}

/// Sends a message between PID 1 and its monitor.
pub(crate) fn send_child(socket: BorrowedFd<'_>, message: &ChildMessage) -> Result<(), Errno> {
    match message {
        ChildMessage::Ready(ready) => {
            let mut fds = vec![ready.mount_namespace.as_fd(), ready.root.as_fd()];
            fds.extend(ready.terminal.as_ref().map(AsFd::as_fd));
            send(socket, &[5, ready.terminal.is_some().into()], &fds)
        }
        ChildMessage::Failed(failed) => send(socket, &encode_failed(failed), &[]),
        ChildMessage::Go => send(socket, &[6], &[]),
        ChildMessage::Stop => send(socket, &[7], &[]),
        ChildMessage::AtHooks => send(socket, &[8], &[]),
    }
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
    let mut reader = Reader { rest: &packet.bytes };
    let mut fds = packet.descriptors.into_iter();
    match reader.u8("tag")? {
        1 => {
            let groups = usize::from(reader.u8("groups")?);
            let has_terminal = reader.u8("terminal")? == 1;
            Ok(Report::Created(Created {
                init: descriptor(&mut fds)?,
                mount_namespace: descriptor(&mut fds)?,
                root: descriptor(&mut fds)?,
                cgroups: (0..groups).map(|_| descriptor(&mut fds)).collect::<Result<_, _>>()?,
                terminal: has_terminal.then(|| descriptor(&mut fds)).transpose()?,
            }))
        }
        2 => Ok(Report::Started),
        3 => decode_exited(&mut reader).map(Report::Exited),
        4 => decode_failed(&mut reader).map(Report::Failed),
        _ => Err(ReceiveError::Malformed { what: "tag" }),
    }
}

/// Reads a packet as a message between PID 1 and its monitor.
pub(crate) fn decode_child(packet: Packet) -> Result<ChildMessage, ReceiveError> {
    let mut reader = Reader { rest: &packet.bytes };
    let mut fds = packet.descriptors.into_iter();
    match reader.u8("tag")? {
        4 => decode_failed(&mut reader).map(ChildMessage::Failed),
        5 => {
            let has_terminal = reader.u8("terminal")? == 1;
            Ok(ChildMessage::Ready(Ready {
                mount_namespace: descriptor(&mut fds)?,
                root: descriptor(&mut fds)?,
                terminal: has_terminal.then(|| descriptor(&mut fds)).transpose()?,
            }))
        }
        6 => Ok(ChildMessage::Go),
        7 => Ok(ChildMessage::Stop),
        8 => Ok(ChildMessage::AtHooks),
        _ => Err(ReceiveError::Malformed { what: "tag" }),
    }
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOBIG);
    }
    loop {
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn descriptor(fds: &mut impl Iterator<Item = OwnedFd>) -> Result<OwnedFd, ReceiveError> {
    fds.next().ok_or(ReceiveError::Malformed { what: "descriptors" })
}

fn encode_exited(exited: &Exited) -> Vec<u8> {
    let cpu = u64::try_from(exited.usage.cpu.as_nanos()).unwrap_or(u64::MAX);
    let peak = exited.usage.memory_peak_bytes;
    let mut bytes = vec![3];
    bytes.extend(exited.status.to_le_bytes());
    bytes.extend(exited.signal.unwrap_or(0).to_le_bytes());
    bytes.push(exited.oom_killed.into());
    bytes.extend(cpu.to_le_bytes());
    bytes.push(peak.is_some().into());
    bytes.extend(peak.unwrap_or(0).to_le_bytes());
    bytes
}

fn decode_exited(reader: &mut Reader<'_>) -> Result<Exited, ReceiveError> {
    let status = i32::from_le_bytes(reader.array("status")?);
    let signal = i32::from_le_bytes(reader.array("signal")?);
    let oom_killed = reader.u8("oom")? == 1;
    let cpu = Duration::from_nanos(u64::from_le_bytes(reader.array("cpu")?));
    let has_peak = reader.u8("peak")? == 1;
    let peak = u64::from_le_bytes(reader.array("peak")?);
    let usage = Usage { cpu, memory_peak_bytes: has_peak.then_some(peak) };
    Ok(Exited { status, signal: (signal != 0).then_some(signal), oom_killed, usage })
}

fn encode_failed(failed: &Failed) -> Vec<u8> {
    let kind = match failed.kind {
        FailureKind::CommandNotFound => 0,
        FailureKind::CommandNotExecutable => 1,
        FailureKind::Spec => 2,
        FailureKind::Host => 3,
    };
    let mut bytes = vec![4, kind];
    for text in [&failed.step, &failed.message] {
        let end = text.floor_char_boundary(SENTENCE_BYTES);
        let text = text.get(..end).unwrap_or_default();
        bytes.extend(u16::try_from(text.len()).unwrap_or(0).to_le_bytes());
        bytes.extend(text.as_bytes());
    }
    bytes
}

fn decode_failed(reader: &mut Reader<'_>) -> Result<Failed, ReceiveError> {
    let kind = match reader.u8("kind")? {
        0 => FailureKind::CommandNotFound,
        1 => FailureKind::CommandNotExecutable,
        2 => FailureKind::Spec,
        3 => FailureKind::Host,
        _ => return Err(ReceiveError::Malformed { what: "kind" }),
    };
    Ok(Failed { kind, step: reader.text("step")?, message: reader.text("message")? })
}

/// Takes fields off the front of a packet.
struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], ReceiveError> {
        let (field, rest) = self.rest.split_first_chunk::<N>().ok_or(ReceiveError::Malformed { what })?;
        self.rest = rest;
        Ok(*field)
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, ReceiveError> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    fn text(&mut self, what: &'static str) -> Result<String, ReceiveError> {
        let length = usize::from(u16::from_le_bytes(self.array(what)?));
        let (text, rest) = self.rest.split_at_checked(length).ok_or(ReceiveError::Malformed { what })?;
        self.rest = rest;
        String::from_utf8(text.to_vec()).map_err(|_| ReceiveError::Malformed { what })
    }
}

#[cfg(test)]
mod tests {
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
        let message = "ü".repeat(SENTENCE_BYTES);
        let failed = Failed { step: "pivot".into(), kind: FailureKind::Host, message };
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
        assert_eq!((got.step, got.kind), (failed.step, failed.kind));
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
        for bytes in [&[][..], &[0], &[1], &[1, 1, 0], &[3, 0], &[4, 9], &[4, 0, 255, 255, 1], &[200]] {
            let packet = Packet { bytes: bytes.to_vec(), descriptors: Vec::new() };
            assert!(decode_report(packet).is_err(), "{bytes:?}");
        }
    }
}
