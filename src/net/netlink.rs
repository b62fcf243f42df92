//! A small blocking netlink socket: one request, its answers, the kernel's verdict.
//!
//! The kernel answers while the request is being sent, so there is nothing to wait for; and a socket
//! stays in the network namespace in which it was opened, whatever its thread does afterwards. That is
//! how a task's namespace is furnished from outside, without entering it again.
//!
//! Source: netlink(7), rtnetlink(7).

use std::io;
use std::os::fd::OwnedFd;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use rustix::net::netlink::NETFILTER;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

/// The kernel never puts more into one datagram.
const DATAGRAM_BYTES: usize = 64 * 1024;

/// Answers to one request that are kept: more than any table of a host has that tasks run on.
const MOST_ANSWERS: usize = 1 << 20;

/// Which part of the kernel a socket talks to.
#[derive(Clone, Copy, Debug)]
pub enum Family {
    /// Links, addresses, routes.
    Route,
    /// nftables, connection tracking.
    Netfilter,
}

/// A socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket {
    descriptor: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// Opens a socket.
    ///
    /// # Errors
    ///
    /// The kernel has no such family, or no descriptors are left.
    pub fn open(family: Family) -> io::Result<Socket> {
        let protocol = match family {
            Family::Route => None, // NETLINK_ROUTE is zero, the default.
            Family::Netfilter => Some(NETFILTER),
        };
        let descriptor =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        Ok(Socket { descriptor, sequence: 0 })
    }

    /// Asks for one change.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub fn change<Message>(&mut self, message: Message, flags: u16) -> io::Result<()>
    where
        Message: NetlinkSerializable + NetlinkDeserializable,
    {
        self.exchange(message, flags | NLM_F_ACK).map(drop)
    }

    /// Asks for one thing.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub fn get<Message>(&mut self, message: Message) -> io::Result<Vec<Message>>
    where
        Message: NetlinkSerializable + NetlinkDeserializable,
    {
        self.exchange(message, NLM_F_ACK)
    }

    /// Asks for all things of a kind.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub fn dump<Message>(&mut self, message: Message) -> io::Result<Vec<Message>>
    where
        Message: NetlinkSerializable + NetlinkDeserializable,
    {
        self.exchange(message, NLM_F_DUMP)
    }

    /// Asks for several changes in one datagram, each with its flags. One of them asks for the verdict
    /// ([`NLM_F_ACK`]), which is on all of them: what is refused is said at once.
    ///
    /// # Errors
    ///
    /// The kernel's refusal of any of them.
    pub fn change_all<Message>(&mut self, messages: Vec<(Message, u16)>) -> io::Result<()>
    where
        Message: NetlinkSerializable + NetlinkDeserializable,
    {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = messages.into_iter().flat_map(|(message, flags)| self.encode(message, flags));
        self.send(&bytes.collect::<Vec<u8>>())?;
        self.answers::<Message>().map(drop)
    }

    fn exchange<Message>(&mut self, message: Message, flags: u16) -> io::Result<Vec<Message>>
    where
        Message: NetlinkSerializable + NetlinkDeserializable,
    {
        self.sequence = self.sequence.wrapping_add(1);
        self.send(&self.encode(message, flags))?;
        self.answers()
    }

    fn encode<Message: NetlinkSerializable>(&self, message: Message, flags: u16) -> Vec<u8> {
        let mut header = NetlinkHeader::default();
        header.flags = flags | NLM_F_REQUEST;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    /// Sends bytes that hold one or several whole messages.
    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let sent = send(&self.descriptor, bytes, SendFlags::empty())?;
        if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Everything up to the verdict on the request that was sent last.
    fn answers<Message: NetlinkDeserializable>(&self) -> io::Result<Vec<Message>> {
        let mut answers = Vec::new();
        let mut datagram = vec![0; DATAGRAM_BYTES];
        loop {
            let (received, _) = recv(&self.descriptor, datagram.as_mut_slice(), RecvFlags::empty())?;
            let mut rest = datagram.get(..received).unwrap_or_default();
            while !rest.is_empty() {
                let length = message_length(rest)?;
                let (bytes, following) = rest.split_at_checked(length).unwrap_or((rest, &[]));
                rest = following;
                let message = NetlinkMessage::<Message>::deserialize(bytes).map_err(malformed)?;
                if message.header.sequence_number != self.sequence {
                    continue; // Of an earlier request that was given up.
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) if answers.len() < MOST_ANSWERS => {
                        answers.push(answer);
                    }
                    NetlinkPayload::Error(error) => return verdict(error.raw_code(), answers),
                    NetlinkPayload::Done(done) => return verdict(done.code, answers),
                    _ => return Err(malformed("an unexpected kind of message")),
                }
            }
        }
    }
}

fn verdict<Answers>(code: i32, answers: Answers) -> io::Result<Answers> {
    if code == 0 { Ok(answers) } else { Err(io::Error::from_raw_os_error(code.saturating_abs())) }
}

/// Bytes from the start of one message to the start of the next.
fn message_length(bytes: &[u8]) -> io::Result<usize> {
    let length = NetlinkBuffer::new_checked(bytes).map_err(malformed)?.length();
    let length = usize::try_from(length).map_err(malformed)?;
    Ok(length.next_multiple_of(4).min(bytes.len()))
}

fn malformed(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
