//! What nftables holds on this host, read over netlink: tables, chains of others that drop, and whether rules
//! let tasks' packets through all the same.
//!
//! Source: the kernel's `linux/netfilter/nf_tables.h`, which the numbers of [`super::elements`] are from too.

use std::io;

use netlink_packet_core::DefaultNla;

use super::netfilter::{Message, number, text, value, values};
use super::netlink::Socket;

/// The number of nftables among the parts of the packet filter.
pub(super) const SUBSYSTEM: u16 = 10;
pub(super) const TABLES: u16 = SUBSYSTEM << 8;
const GET_TABLE: u16 = TABLES | 1;
const GET_CHAIN: u16 = TABLES | 4;
const GET_RULE: u16 = TABLES | 7;

pub(super) const TABLE_NAME: u16 = 1;
pub(super) const CHAIN_TABLE: u16 = 1;
pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const CHAIN_HOOK: u16 = 4;
pub(super) const CHAIN_POLICY: u16 = 5;
pub(super) const HOOK_NUMBER: u16 = 1;
pub(super) const POLICY_DROP: u32 = 0;
const HOOK_FORWARD: u32 = 2;
pub(super) const RULE_TABLE: u16 = 1;
pub(super) const RULE_EXPRESSIONS: u16 = 4;
pub(super) const LIST_ITEM: u16 = 1;
pub(super) const EXPRESSION_NAME: u16 = 1;
pub(super) const EXPRESSION_DATA: u16 = 2;
const META_KEY: u16 = 2;
const META_INPUT_NAME: u32 = 6;
const META_OUTPUT_NAME: u32 = 7;
const COMPARE_OPERATION: u16 = 2;
const COMPARE_DATA: u16 = 3;
const COMPARE_EQUAL: u32 = 0;
pub(super) const IMMEDIATE_DATA: u16 = 2;
pub(super) const DATA_VALUE: u16 = 1;
pub(super) const DATA_VERDICT: u16 = 2;
pub(super) const VERDICT_CODE: u16 = 1;
const VERDICT_ACCEPT: u32 = 1;

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
    /// Its family's number.
    family: u8,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
}

impl DroppingChain {
    /// What `nft` calls its family.
    pub fn family(&self) -> &'static str {
        if self.family == INET { "inet" } else { "ip" }
    }
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
    let family = Some(chain.family).filter(|family| matches!(*family, INET | IPV4))?;
    let hook = value(&chain.attributes, CHAIN_HOOK)?;
    let drops = number(&hook, HOOK_NUMBER) == Some(HOOK_FORWARD)
        && number(&chain.attributes, CHAIN_POLICY) == Some(POLICY_DROP);
    let table = text(&chain.attributes, CHAIN_TABLE)?;
    let name = text(&chain.attributes, CHAIN_NAME)?;
    drops.then_some(DroppingChain { family, table, name })
}

/// Whether rules beside a chain, in its table, accept whatever comes in by an interface whose name begins
/// with `links`, and whatever goes out by one. Where they stand is not looked at: administrators know.
///
/// # Errors
///
/// The kernel's refusal.
pub fn lets_through(socket: &mut Socket, chain: &DroppingChain, links: &str) -> io::Result<bool> {
    let table = DefaultNla::new(RULE_TABLE, chain.table.bytes().chain([0]).collect());
    let rules: Vec<Message> = socket.dump(Message::new(GET_RULE, chain.family, &[table]))?;
    let accepts = |end| rules.iter().any(|rule| accepted_end(&rule.attributes, links) == Some(end));
    Ok(accepts(META_INPUT_NAME) && accepts(META_OUTPUT_NAME))
}

/// By which end of a link a rule accepts all that passes, if that is what it does.
fn accepted_end(rule: &[u8], links: &str) -> Option<u32> {
    let (mut end, mut is_link) = (None, false);
    for expression in values(&value(rule, RULE_EXPRESSIONS)?, LIST_ITEM) {
        let data = value(&expression, EXPRESSION_DATA).unwrap_or_default();
        match text(&expression, EXPRESSION_NAME)?.as_str() {
            "meta" if end.is_none() => end = number(&data, META_KEY),
            "cmp" => is_link = compares_with(&data, links),
            "immediate" => {
                let verdict = value(&value(&data, IMMEDIATE_DATA)?, DATA_VERDICT)?;
                let accepts = number(&verdict, VERDICT_CODE) == Some(VERDICT_ACCEPT);
                return end.filter(|_| is_link && accepts);
            }
            "counter" => {}
            _ => return None, // It wants something else as well.
        }
    }
    None
}

/// Whether a comparison is true for every name that begins with `links`.
fn compares_with(comparison: &[u8], links: &str) -> bool {
    let name = value(comparison, COMPARE_DATA).and_then(|data| value(&data, DATA_VALUE));
    number(comparison, COMPARE_OPERATION) == Some(COMPARE_EQUAL)
        && name.is_some_and(|name| links.as_bytes().starts_with(&name))
}
