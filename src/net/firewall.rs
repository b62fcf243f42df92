//! What tasks may reach, as nftables text. Pure: the golden file `tests/golden/network.nft` shows it.
//!
//! All tables of a run directory are loaded in one transaction, and what a task has in them in another
//! ([`super::elements`]), before its link can carry a packet. Every rule for what comes from a task begins with its interface's
//! name, by prefix: a link that has no elements yet, or none any more, can do nothing at all.
//!
//! ```text
//!  eth0 of a task ═▶ ingress        whose frame is it? Ethernet, ARP and IP source must be the task's;
//!                      │            no VLAN tag, no IPv6, nothing but ARP and IPv4
//!                    prerouting     before connection tracking and other tables' DNAT: own address?
//!                      │            not a metadata address, not a task's, not the host's
//!          ┌───────────┴──────────┐
//!        input                  forward        not to another link; back to a task: only replies
//!   only a sidecar's              │
//!   own port at the gateway     postrouting    masqueraded
//! ```
//!
//! What a process of the host's own sends to the gateway goes by loopback, and the kernel takes it for come by a task's
//! link all the same: it is dropped.
//!
//! The process that speaks to Taskcluster for tasks is on the host's network ([`super::confinement`]). What it sends is told
//! by its group, which is the run directory's own: so the rules of one worker are not for another worker's process, whose
//! deployment may be on loopback, nor for a stranger that has the same user. What counts is whom it asks for, so they come
//! before the host's own DNAT: that may lead from an address of the host's to somewhere else, or the other way round.
//!
//! Other tables have their say as well: what one of them drops stays dropped ([`super::survey`] finds
//! chains that drop by policy). They are read, never edited.
//!
//! IPv6: tasks have none yet, whether or not the host routes it.

use std::net::Ipv4Addr;
use std::path::Path;

use runtime::id::ContainerId;
use sha2::{Digest, Sha256};

use super::addresses::AddressRange;
use super::link::{GATEWAY, Mac};

/// Begins the name of every link of every worker.
pub const ANY_LINK: &str = "dw";

/// Begins the name of every table of every worker.
pub const ANY_TABLE: &str = "docker_worker_";

/// An empty table that says: the kernel did not forward packets before a worker switched it on.
pub const FORWARDING_MARK: &str = "docker_worker_forwarding";

/// Addresses that hosts of a cloud ask for their credentials, and everything else that is never
/// routed. Link-local is the whole block: the gateway is resolved, not addressed.
const METADATA: &str = "169.254.0.0/16, 100.100.100.200, 192.0.0.192";

/// The same of IPv6, where tasks have none but the host may.
const METADATA_IPV6: &str = "fe80::/10, fd00:ec2::254, fd20:ce::254";

/// Hexadecimal digits of a run directory's hash in the names of its links: with those of a container
/// they fill the 15 characters that the kernel allows.
const RUN_DIGITS: usize = 5;
const CONTAINER_DIGITS: usize = 8;

/// The first group of those that a run directory's is one of. Distributions, their containers and their directories leave
/// 1879048192 to 2147352575 to nobody (systemd's "Users, Groups, UIDs and GIDs").
const FIRST_GROUP: u32 = 0x7000_0000;

/// The names that everything of one run directory bears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Of its tables, in each family.
    pub table: String,
    /// How its links' names begin.
    pub links: String,
    /// The group of a process on the host's network that tasks are served by.
    pub group: u32,
}

impl Names {
    /// The names for a run directory, given by its absolute path.
    pub fn of(run_directory: &Path) -> Names {
        use std::os::unix::ffi::OsStrExt;
        let hash = Sha256::digest(run_directory.as_os_str().as_bytes());
        let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let short: String = digits.chars().take(RUN_DIGITS).collect();
        let number = hash.iter().take(3).fold(0, |number, byte| number << 8 | u32::from(*byte));
        let group = FIRST_GROUP + number;
        Names { table: format!("{ANY_TABLE}{short}"), links: format!("{ANY_LINK}{short}"), group }
    }

    /// The host end of a container's link.
    pub fn link(&self, id: &ContainerId) -> String {
        let digits: String = id.as_str().chars().take(CONTAINER_DIGITS).collect();
        format!("{}{digits}", self.links)
    }
}

/// A task on its link: what its frames must look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The host end.
    pub link: String,
    /// The task's Ethernet address.
    pub mac: Mac,
    /// The task's address.
    pub address: Ipv4Addr,
}

/// Makes all tables, without any task. None of them may be there.
pub fn tables(names: &Names, range: AddressRange) -> String {
    inet_table(names, range) + &netdev_table(&names.table)
}

fn inet_table(Names { table, links, group }: &Names, range: AddressRange) -> String {
    let from_proxy = from_proxy();
    format!(
        r#"table inet {table} {{
	set links {{
		type ifname . ipv4_addr
	}}
	set listeners {{
		type ifname . inet_service
	}}
	set openings {{
		type ipv4_addr . inet_proto . inet_service
	}}
	set openings6 {{
		type ipv6_addr . inet_proto . inet_service
	}}
	chain prerouting {{
		type filter hook prerouting priority raw; policy accept;
		iifname "{links}*" jump from_task
	}}
	chain from_task {{
		meta nfproto ipv6 counter drop
		iifname . ip saddr != @links counter drop
		ip daddr {GATEWAY} iifname . tcp dport @listeners accept
		ip daddr {{ {METADATA} }} counter drop
		ip daddr {range} counter drop
		fib daddr type != unicast counter drop
	}}
	chain input {{
		type filter hook input priority filter - 10; policy accept;
		iifname "{links}*" jump to_host
		iifname "lo" ip daddr {GATEWAY} counter drop
	}}
	chain to_host {{
		ip daddr {GATEWAY} iifname . tcp dport @listeners accept
		counter drop
	}}
	chain forward {{
		type filter hook forward priority filter - 10; policy accept;
		iifname "{links}*" oifname "{ANY_LINK}*" counter drop
		oifname "{links}*" jump to_task
	}}
	chain asked {{
		type filter hook output priority mangle; policy accept;
		meta skgid {group} jump from_proxy
	}}
	chain output {{
		type filter hook output priority filter - 10; policy accept;
		oifname "{links}*" jump to_task
	}}
	chain to_task {{
		ct state established,related accept
		counter drop
	}}
{from_proxy}	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		iifname "{links}*" masquerade
	}}
}}
"#
    )
}

/// What a process of the host's that serves tasks may send to others than tasks.
fn from_proxy() -> String {
    format!(
        "	chain from_proxy {{
		ct state established accept
		ip daddr . meta l4proto . th dport @openings accept
		ip6 daddr . meta l4proto . th dport @openings6 accept
		ip daddr {{ {METADATA} }} counter drop
		ip6 daddr {{ {METADATA_IPV6} }} counter drop
		fib daddr type != unicast counter drop
	}}
"
    )
}

fn netdev_table(table: &str) -> String {
    format!(
        r"table netdev {table} {{
	set pins {{
		type ifname . ether_addr . ipv4_addr
	}}
	chain pinned {{
		ether type ip iifname . ether saddr . ip saddr @pins accept
		ether type arp iifname . ether saddr . arp saddr ip @pins iifname . arp saddr ether . arp saddr ip @pins accept
		counter drop
	}}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::addresses::DEFAULT_RANGE;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn names() -> Names {
        let (table, links) = ("docker_worker_1a2b3".to_owned(), "dw1a2b3".to_owned());
        Names { table, links, group: 0x701a_2b3c }
    }

    #[test]
    fn the_rules_are_as_the_golden_file_shows() {
        let text = tables(&names(), DEFAULT_RANGE);
        let golden = include_str!("../../tests/golden/network.nft");
        assert!(text == golden, "tests/golden/network.nft should be:\n{text}");
    }

    #[test]
    fn names_fit_an_interface_and_differ_by_run_directory() {
        let [one, other] = ["/run/docker-worker", "/tmp/x"].map(|path| Names::of(Path::new(path)));
        assert!(one.table != other.table && one.links != other.links && one.group != other.group);
        let link = one.link(&ContainerId::new(ID).unwrap());
        assert_eq!(link.len(), 15, "IFNAMSIZ less its end: {link}");
        assert!(link.starts_with(&one.links) && link.ends_with("01234567"), "{link}");
    }
}
