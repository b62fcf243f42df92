//! What nftables holds on this host, read over netlink: tables, and chains of others that drop.
//!
//! Source: the kernel's `linux/netfilter/nf_tables.h`, which the numbers of [`super::elements`] are from too.

use std::io;

use super::netfilter::{Message, number, text, value};
use super::netlink::Socket;

/// The number of nftables among the parts of the packet filter.
pub(super) const SUBSYSTEM: u16 = 10;
pub(super) const TABLES: u16 = SUBSYSTEM << 8;
const GET_TABLE: u16 = TABLES | 1;
const GET_CHAIN: u16 = TABLES | 4;

pub(super) const TABLE_NAME: u16 = 1;
pub(super) const CHAIN_TABLE: u16 = 1;
pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const CHAIN_HOOK: u16 = 4;
pub(super) const CHAIN_POLICY: u16 = 5;
pub(super) const HOOK_NUMBER: u16 = 1;
pub(super) const POLICY_DROP: u32 = 0;
const HOOK_FORWARD: u32 = 2;

/// Families of `linux/netfilter.h`.
pub(super) const INET: u8 = 1;
const IPV4: u8 = 2;
pub(super) const NETDEV: u8 = 5;

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its family's number.
    pub family: u8,
    /// Its name.
    pub name: String,
}

/// All tables, of whatever family.
///
/// # Errors
///
/// The kernel's refusal.
pub fn tables(socket: &mut Socket) -> io::Result<Vec<Table>> {
    let answers = socket.dump(Message::new(GET_TABLE, 0, &[]))?;
    let table =
        |answer: &Message| Some(Table { family: answer.family, name: text(&answer.attributes, TABLE_NAME)? });
    Ok(answers.iter().filter_map(table).collect())
}

/// A chain of somebody's that drops forwarded packets unless a rule of its own accepts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppingChain {
    /// `ip` or `inet`.
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
    let answers = socket.dump(Message::new(GET_CHAIN, 0, &[]))?;
    Ok(answers.iter().filter_map(dropping_chain).collect())
}

fn dropping_chain(chain: &Message) -> Option<DroppingChain> {
    let family = match chain.family {
        INET => "inet",
        IPV4 => "ip",
        _ => return None,
    };
    let hook = value(&chain.attributes, CHAIN_HOOK)?;
    let drops = number(&hook, HOOK_NUMBER) == Some(HOOK_FORWARD)
        && number(&chain.attributes, CHAIN_POLICY) == Some(POLICY_DROP);
    let table = text(&chain.attributes, CHAIN_TABLE)?;
    let name = text(&chain.attributes, CHAIN_NAME)?;
    drops.then_some(DroppingChain { family, table, name })
}
