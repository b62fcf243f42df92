//! What of this host stands in the way of its tasks' network, with the remedy: for `check`, and for the
//! log of a worker's first task.

use std::io;

use rustix::fs::{Access, access};

use super::addresses::AddressRange;
use super::firewall::ANY_LINK;
use super::link::{Route, routes};
use super::netlink::{Family, Socket};
use super::ruleset::{self, DroppingChain};
use super::settings::NetworkSettings;
use super::{names, sysctl, tables};

/// Something that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub remedy: String,
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}; {}", self.found, self.remedy)
    }
}

/// Looks at the host of the calling thread's network namespace. Nothing is changed.
///
/// # Errors
///
/// The kernel does not answer.
pub fn obstacles(settings: &NetworkSettings) -> io::Result<Vec<Obstacle>> {
    let mut found = Vec::new();
    found.extend(forwarding()?);
    let mut packet_filter = Socket::open(Family::Netfilter)?;
    for chain in ruleset::dropping_chains(&mut packet_filter)? {
        if !ruleset::lets_through(&mut packet_filter, &chain, ANY_LINK)? {
            found.push(dropping_chain(&chain));
        }
    }
    let mut socket = Socket::open(Family::Route)?;
    let range = settings.addresses();
    found.extend(strangers(range, &routes(&mut socket)?).map(|route| occupied(range, &route)));
    if names::resolvers(&settings.dns).servers.is_empty() {
        found.push(Obstacle {
            found: "this host has no name server that a task can reach".to_owned(),
            remedy: "name one in network.dns of the configuration".to_owned(),
        });
    }
    Ok(found)
}

fn forwarding() -> io::Result<Option<Obstacle>> {
    let may_set = access(sysctl::path(tables::FORWARDING), Access::WRITE_OK).is_ok();
    Ok((!tables::forwards()? && !may_set).then(|| Obstacle {
        found: "the kernel does not forward packets, and the worker may not tell it to".to_owned(),
        remedy: "set net.ipv4.ip_forward=1, or make /proc/sys writable for docker-worker".to_owned(),
    }))
}

fn dropping_chain(chain: &DroppingChain) -> Obstacle {
    let (family, DroppingChain { table, name, .. }) = (chain.family(), chain);
    let rule = |end| format!("nft insert rule {family} {table} {name} {end} \"{ANY_LINK}*\" accept");
    Obstacle {
        found: format!(
            "the chain {name} of the nftables table {family} {table} may drop tasks' packets: it drops what no rule accepts, and none is there for all of {ANY_LINK}*"
        ),
        remedy: format!("if tasks do not reach the outside: {} && {}", rule("iifname"), rule("oifname")),
    }
}

/// Routes of others into the range.
pub(super) fn strangers(range: AddressRange, routes: &[Route]) -> impl Iterator<Item = Route> {
    let strange = move |route: &&Route| {
        !route.is_ours && route.prefix > 0 && range.overlaps(route.destination, route.prefix)
    };
    routes.iter().filter(strange).copied()
}

fn occupied(range: AddressRange, route: &Route) -> Obstacle {
    Obstacle {
        found: format!(
            "tasks' addresses {range} overlap with a network of this host, {}/{}",
            route.destination, route.prefix
        ),
        remedy: "set network.addresses of the configuration to a range that nothing else uses".to_owned(),
    }
}
