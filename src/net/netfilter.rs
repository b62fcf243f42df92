//! Messages to and from the kernel's packet filter, and the connections that it tracks.
//!
//! Source: the kernel's `linux/netfilter/nfnetlink.h` and `nfnetlink_conntrack.h`.

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;

use netlink_packet_core::{
    DefaultNla, Emitable, NLA_F_NESTED, NLA_TYPE_MASK, NetlinkDeserializable, NetlinkHeader,
    NetlinkSerializable, NlasIterator,
};

use super::netlink::Socket;

/// `struct nfgenmsg`: family, version, resource.
const HEADER_BYTES: usize = 4;

const CONNTRACK: u16 = 1 << 8;
const CONNTRACK_GET: u16 = CONNTRACK | 1;
const CONNTRACK_DELETE: u16 = CONNTRACK | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_IP: u16 = 1;
const IP_V4_SOURCE: u16 = 1;
const CONNECTION_ID: u16 = 12;
const CONNECTION_ZONE: u16 = 18;

/// A message of the packet filter's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    kind: u16,
    pub(super) family: u8,
    resource: u16,
    pub(super) attributes: Vec<u8>,
}

impl Message {
    pub(super) fn new(kind: u16, family: u8, attributes: &[DefaultNla]) -> Message {
        Message { kind, family, resource: 0, attributes: bytes(attributes) }
    }

    /// One that concerns a part of the packet filter as a whole.
    pub(super) fn to_part(kind: u16, resource: u16) -> Message {
        Message { kind, family: 0, resource, attributes: Vec::new() }
    }
}

fn bytes(attributes: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![0; attributes.iter().map(Emitable::buffer_len).sum()];
    let mut rest = bytes.as_mut_slice();
    for attribute in attributes {
        let (own, following) = rest.split_at_mut(attribute.buffer_len());
        attribute.emit(own);
        rest = following;
    }
    bytes
}

/// An attribute that holds others.
pub(super) fn nested(kind: u16, attributes: &[DefaultNla]) -> DefaultNla {
    DefaultNla::new(kind | NLA_F_NESTED, bytes(attributes))
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        HEADER_BYTES + self.attributes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let [high, low] = self.resource.to_be_bytes();
        let bytes = [self.family, 0, high, low].into_iter().chain(self.attributes.iter().copied());
        for (to, from) in buffer.iter_mut().zip(bytes) {
            *to = from;
        }
    }
}

impl NetlinkDeserializable for Message {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Message, Infallible> {
        let attributes = payload.get(HEADER_BYTES..).unwrap_or_default().to_vec();
        let family = payload.first().copied().unwrap_or_default();
        Ok(Message { kind: header.message_type, family, resource: 0, attributes })
    }
}

/// The values of all attributes of a kind; what cannot be parsed is not there.
pub(super) fn values(attributes: &[u8], wanted: u16) -> Vec<Vec<u8>> {
    NlasIterator::new(attributes)
        .map_while(Result::ok)
        .filter(|attribute| attribute.kind() & NLA_TYPE_MASK == wanted)
        .map(|attribute| attribute.value().to_vec())
        .collect()
}

/// The value of the first.
pub(super) fn value(attributes: &[u8], wanted: u16) -> Option<Vec<u8>> {
    values(attributes, wanted).into_iter().next()
}

pub(super) fn text(attributes: &[u8], wanted: u16) -> Option<String> {
    let bytes = value(attributes, wanted)?;
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(String::from_utf8_lossy(text).into_owned())
}

pub(super) fn number(attributes: &[u8], wanted: u16) -> Option<u32> {
    Some(u32::from_be_bytes(value(attributes, wanted)?.try_into().ok()?))
}

/// Forgets all tracked connections that an address began: replies to them must not reach the next task
/// that has it.
///
/// # Errors
///
/// The kernel's refusal.
pub fn forget_connections(socket: &mut Socket, address: Ipv4Addr) -> io::Result<()> {
    // AF_INET of sys/socket.h.
    let family = 2;
    let connections: Vec<Message> = socket.dump(Message::new(CONNTRACK_GET, family, &[]))?;
    for connection in connections {
        if begun_by(&connection.attributes) != Some(address) {
            continue;
        }
        let named = [
            (TUPLE_ORIGINAL | NLA_F_NESTED, TUPLE_ORIGINAL),
            (CONNECTION_ID, CONNECTION_ID),
            (CONNECTION_ZONE, CONNECTION_ZONE),
        ];
        let attributes: Vec<DefaultNla> = named
            .into_iter()
            .filter_map(|(kind, from)| Some(DefaultNla::new(kind, value(&connection.attributes, from)?)))
            .collect();
        match socket.change(Message::new(CONNTRACK_DELETE, family, &attributes), 0) {
            // It has ended meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// The source of a connection's first packet.
fn begun_by(connection: &[u8]) -> Option<Ipv4Addr> {
    let tuple = value(connection, TUPLE_ORIGINAL)?;
    let addresses = value(&tuple, TUPLE_IP)?;
    let source: [u8; 4] = value(&addresses, IP_V4_SOURCE)?.try_into().ok()?;
    Some(source.into())
}
