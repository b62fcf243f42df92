//! What the kernel's packet filter holds, read over netlink: tables, chains, tracked connections.
//!
//! Source: nfnetlink(7) and the kernel's `linux/netfilter/nf_tables.h`, `nfnetlink_conntrack.h`.

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

const TABLES: u16 = 10 << 8;
const TABLES_GET_TABLE: u16 = TABLES | 1;
const TABLES_GET_CHAIN: u16 = TABLES | 4;
const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const HOOK_NUMBER: u16 = 1;
const HOOK_FORWARD: u32 = 2;
const POLICY_DROP: u32 = 0;

/// A message of the packet filter's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    kind: u16,
    family: u8,
    attributes: Vec<u8>,
}

impl Message {
    fn new(kind: u16, family: u8, attributes: &[DefaultNla]) -> Message {
        let mut bytes = vec![0; attributes.iter().map(Emitable::buffer_len).sum()];
        let mut rest = bytes.as_mut_slice();
        for attribute in attributes {
            let (own, following) = rest.split_at_mut(attribute.buffer_len());
            attribute.emit(own);
            rest = following;
        }
        Message { kind, family, attributes: bytes }
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        HEADER_BYTES + self.attributes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let bytes = [self.family, 0, 0, 0].into_iter().chain(self.attributes.iter().copied());
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
        Ok(Message { kind: header.message_type, family, attributes })
    }
}

/// The value of an attribute; what cannot be parsed is not there.
fn value(attributes: &[u8], wanted: u16) -> Option<Vec<u8>> {
    NlasIterator::new(attributes)
        .map_while(Result::ok)
        .find(|attribute| attribute.kind() & NLA_TYPE_MASK == wanted)
        .map(|attribute| attribute.value().to_vec())
}

fn text(attributes: &[u8], wanted: u16) -> Option<String> {
    let bytes = value(attributes, wanted)?;
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(String::from_utf8_lossy(text).into_owned())
}

fn number(attributes: &[u8], wanted: u16) -> Option<u32> {
    Some(u32::from_be_bytes(value(attributes, wanted)?.try_into().ok()?))
}

/// The names of all nftables tables, of whatever family.
///
/// # Errors
///
/// The kernel's refusal.
pub fn tables(socket: &mut Socket) -> io::Result<Vec<String>> {
    let answers = socket.dump(Message::new(TABLES_GET_TABLE, 0, &[]))?;
    Ok(answers.iter().filter_map(|table| text(&table.attributes, TABLE_NAME)).collect())
}

/// A chain of somebody's that drops forwarded packets unless a rule of its own accepts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppingChain {
    /// `ip`, `ip6` or `inet`.
    pub family: &'static str,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
}

/// The chains that drop forwarded IPv4 packets by policy.
///
/// # Errors
///
/// The kernel's refusal.
pub fn dropping_chains(socket: &mut Socket) -> io::Result<Vec<DroppingChain>> {
    let answers = socket.dump(Message::new(TABLES_GET_CHAIN, 0, &[]))?;
    Ok(answers.iter().filter_map(dropping_chain).collect())
}

fn dropping_chain(chain: &Message) -> Option<DroppingChain> {
    // NFPROTO_INET and NFPROTO_IPV4 of linux/netfilter.h.
    let family = match chain.family {
        1 => "inet",
        2 => "ip",
        _ => return None,
    };
    let hook = value(&chain.attributes, CHAIN_HOOK)?;
    let drops = number(&hook, HOOK_NUMBER) == Some(HOOK_FORWARD)
        && number(&chain.attributes, CHAIN_POLICY) == Some(POLICY_DROP);
    let table = text(&chain.attributes, CHAIN_TABLE)?;
    let name = text(&chain.attributes, CHAIN_NAME)?;
    drops.then_some(DroppingChain { family, table, name })
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
