//! What one task has in the tables, put in and taken out over netlink: no program is run for a task.
//!
//! ```text
//!   inet    set links       interface . address              what it may send to the outside as
//!           set listeners   interface . port                 what it may reach at its gateway
//!           sets openings…  address . protocol . port        what its proxy may reach of what is the host's
//!   netdev  set pins        interface . MAC . address        what its frames must look like
//!           chain NAME      its interface's ingress, where frames go to `pinned` or are dropped
//! ```
//!
//! The text of [`super::firewall`] says what they mean; `nft list ruleset` shows them.
//!
//! What is deleted is destroyed by the kernel some milliseconds later (a grace period), and closing a socket
//! waits for that. So one socket is kept open to the worker's end.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{DefaultNla, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE};

use super::confinement::Opening;
use super::firewall::{Names, Pin};
use super::link::Mac;
use super::netfilter::{Message, nested};
use super::netlink::Socket;
use super::ruleset::{
    CHAIN_HOOK, CHAIN_NAME, CHAIN_POLICY, CHAIN_TABLE, DATA_VALUE, DATA_VERDICT, EXPRESSION_DATA,
    EXPRESSION_NAME, HOOK_NUMBER, IMMEDIATE_DATA, INET, LIST_ITEM, NETDEV, POLICY_DROP, RULE_EXPRESSIONS,
    RULE_TABLE, SUBSYSTEM, TABLE_NAME, TABLES, Table, VERDICT_CODE,
};

const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;

const DELETE_TABLE: u16 = TABLES | 2;
const NEW_CHAIN: u16 = TABLES | 3;
const DELETE_CHAIN: u16 = TABLES | 5;
const NEW_RULE: u16 = TABLES | 6;
const NEW_ELEMENT: u16 = TABLES | 12;
const DELETE_ELEMENT: u16 = TABLES | 14;

const CHAIN_TYPE: u16 = 7;
const HOOK_PRIORITY: u16 = 2;
const HOOK_DEVICE: u16 = 3;
const HOOK_INGRESS: u32 = 0;
const RULE_CHAIN: u16 = 2;
const IMMEDIATE_REGISTER: u16 = 1;
const REGISTER_VERDICT: u32 = 0;
const VERDICT_CHAIN: u16 = 2;
const VERDICT_JUMP: i32 = -3;
const ELEMENTS_TABLE: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const ELEMENTS: u16 = 3;
const ELEMENT_KEY: u16 = 1;

/// Flags of what is new. Rules are put behind those that are there; to the others it means nothing.
const NEW: u16 = NLM_F_CREATE | NLM_F_APPEND;

/// Before anybody else's chain sees a frame.
const INGRESS_PRIORITY: i32 = -500;

/// Bytes of an interface's name in a key, the rest of them zero (IFNAMSIZ).
const NAME_BYTES: usize = 16;

/// The sets of what a proxy may reach, by the family of its address.
const OPENINGS: [&str; 2] = ["openings", "openings6"];

/// Lets a task's frames in. Its link must be there.
///
/// # Errors
///
/// The kernel's refusal, and nothing has changed.
pub fn admit(socket: &mut Socket, names: &Names, pin: &Pin) -> io::Result<()> {
    let [link, frames] = keys(names, pin).map(|element| element.message(NEW_ELEMENT));
    let hook = [
        number(HOOK_NUMBER, HOOK_INGRESS),
        number(HOOK_PRIORITY, INGRESS_PRIORITY.cast_unsigned()),
        text(HOOK_DEVICE, &pin.link),
    ];
    let chain = [
        text(CHAIN_TABLE, &names.table),
        text(CHAIN_NAME, &pin.link),
        nested(CHAIN_HOOK, &hook),
        number(CHAIN_POLICY, POLICY_DROP),
        text(CHAIN_TYPE, "filter"),
    ];
    let chain = Message::new(NEW_CHAIN, NETDEV, &chain);
    transaction(socket, vec![link, frames, chain, jump(names, &pin.link, "pinned")], NEW)
}

/// The rule of `chain` that sends everything on to another chain.
fn jump(names: &Names, chain: &str, to: &str) -> Message {
    let verdict = [number(VERDICT_CODE, VERDICT_JUMP.cast_unsigned()), text(VERDICT_CHAIN, to)];
    let data = [
        number(IMMEDIATE_REGISTER, REGISTER_VERDICT),
        nested(IMMEDIATE_DATA, &[nested(DATA_VERDICT, &verdict)]),
    ];
    let expression = [text(EXPRESSION_NAME, "immediate"), nested(EXPRESSION_DATA, &data)];
    let rule = [
        text(RULE_TABLE, &names.table),
        text(RULE_CHAIN, chain),
        nested(RULE_EXPRESSIONS, &[nested(LIST_ITEM, &expression)]),
    ];
    Message::new(NEW_RULE, NETDEV, &rule)
}

/// Lets the task on `link` reach a port of its gateway address.
///
/// # Errors
///
/// The kernel's refusal.
pub fn listen(socket: &mut Socket, names: &Names, link: &str, port: u16) -> io::Result<()> {
    transaction(socket, vec![listener(names, link, port).message(NEW_ELEMENT)], NEW)
}

/// Lets the process that serves tasks reach `openings` of what it otherwise may not, in place of those before.
///
/// # Errors
///
/// The kernel's refusal, and nothing has changed.
pub fn open(socket: &mut Socket, names: &Names, openings: &[Opening]) -> io::Result<()> {
    let emptied = OPENINGS.map(|set| {
        let all = [text(ELEMENTS_TABLE, &names.table), text(ELEMENTS_SET, set)];
        Message::new(DELETE_ELEMENT, INET, &all)
    });
    let elements = openings.iter().map(|it| opening(names, it).message(NEW_ELEMENT));
    transaction(socket, emptied.into_iter().chain(elements).collect(), NEW)
}

/// Forgets a task, whether or not it was admitted, and its listeners on `ports`. Its tables may be gone.
///
/// # Errors
///
/// The kernel's refusal; calling again tries what is left once more.
pub fn forget(socket: &mut Socket, names: &Names, pin: &Pin, ports: &[u16]) -> io::Result<()> {
    let listeners = ports.iter().map(|port| listener(names, &pin.link, *port));
    for element in keys(names, pin).into_iter().chain(listeners) {
        delete(socket, element.message(DELETE_ELEMENT))?;
    }
    // Last: as long as it is there, it drops what no element lets in.
    let chain = [text(CHAIN_TABLE, &names.table), text(CHAIN_NAME, &pin.link)];
    delete(socket, Message::new(DELETE_CHAIN, NETDEV, &chain))
}

/// Deletes tables and everything in them, in one transaction: each of its own would be a grace period more.
///
/// # Errors
///
/// The kernel's refusal, and nothing has changed.
pub fn delete_tables(socket: &mut Socket, tables: &[Table]) -> io::Result<()> {
    let message = |table: &Table| Message::new(DELETE_TABLE, table.family, &[text(TABLE_NAME, &table.name)]);
    if tables.is_empty() {
        return Ok(());
    }
    transaction(socket, tables.iter().map(message).collect(), 0)
}

/// A transaction of its own, so that "already gone" undoes nothing else: it is success.
fn delete(socket: &mut Socket, message: Message) -> io::Result<()> {
    match transaction(socket, vec![message], 0) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// All of it or nothing.
fn transaction(socket: &mut Socket, changes: Vec<Message>, flags: u16) -> io::Result<()> {
    let last = changes.len().saturating_sub(1);
    let mut messages = vec![(Message::to_part(BATCH_BEGIN, SUBSYSTEM), 0)];
    for (number, change) in changes.into_iter().enumerate() {
        // A refusal is said in any case, and before the verdict on the last one.
        let acknowledge = if number == last { NLM_F_ACK } else { 0 };
        messages.push((change, flags | acknowledge));
    }
    messages.push((Message::to_part(BATCH_END, SUBSYSTEM), 0));
    socket.change_all(messages)
}

/// An element of a set.
struct Element<'a> {
    family: u8,
    table: &'a str,
    set: &'static str,
    key: Vec<u8>,
}

impl Element<'_> {
    fn message(&self, kind: u16) -> Message {
        let key = nested(ELEMENT_KEY, &[DefaultNla::new(DATA_VALUE, self.key.clone())]);
        let attributes = [
            text(ELEMENTS_TABLE, self.table),
            text(ELEMENTS_SET, self.set),
            nested(ELEMENTS, &[nested(LIST_ITEM, &[key])]),
        ];
        Message::new(kind, self.family, &attributes)
    }
}

fn keys<'a>(names: &'a Names, pin: &Pin) -> [Element<'a>; 2] {
    let Pin { link, mac: Mac(mac), address } = pin;
    [
        Element { family: INET, table: &names.table, set: "links", key: linked(link, &[&octets(*address)]) },
        Element {
            family: NETDEV,
            table: &names.table,
            set: "pins",
            key: linked(link, &[mac, &octets(*address)]),
        },
    ]
}

fn listener<'a>(names: &'a Names, link: &str, port: u16) -> Element<'a> {
    let key = linked(link, &[&port.to_be_bytes()]);
    Element { family: INET, table: &names.table, set: "listeners", key }
}

fn opening<'a>(names: &'a Names, Opening { protocol, address, port }: &Opening) -> Element<'a> {
    let [ipv4, ipv6] = OPENINGS;
    let (set, address) = match address {
        IpAddr::V4(address) => (ipv4, address.octets().to_vec()),
        IpAddr::V6(address) => (ipv6, address.octets().to_vec()),
    };
    let key = key(&[&address, &[protocol.number()], &port.to_be_bytes()]);
    Element { family: INET, table: &names.table, set, key }
}

fn octets(address: Ipv4Addr) -> [u8; 4] {
    address.octets()
}

/// A concatenation that begins with an interface's name.
fn linked(link: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut name = link.as_bytes().to_vec();
    name.resize(NAME_BYTES, 0);
    key(&[&[name.as_slice()], parts].concat())
}

/// The parts of a concatenation, each filled up to whole registers of four bytes.
fn key(parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::new();
    for part in parts {
        key.extend_from_slice(part);
        key.resize(key.len().next_multiple_of(4), 0);
    }
    key
}

fn text(kind: u16, text: &str) -> DefaultNla {
    DefaultNla::new(kind, text.bytes().chain([0]).collect())
}

fn number(kind: u16, number: u32) -> DefaultNla {
    DefaultNla::new(kind, number.to_be_bytes().to_vec())
}
