//! What a task believes about names: its `/etc/hosts` and `/etc/resolv.conf`. Pure, but for [`resolvers`].

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};

/// The host's resolvers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Those behind systemd-resolved, which itself listens on loopback only.
const SYSTEMD_UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";

/// Bytes of either that are read.
const RESOLV_CONF_BYTES: u64 = 64 * 1024;

/// Name servers that a resolver looks at (`MAXNS` of resolv.h).
const MOST_SERVERS: usize = 3;

/// A name for somebody on a link of the task's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// What the task calls it.
    pub name: String,
    /// Where it is.
    pub address: Ipv4Addr,
}

/// Docker's lines, the name that old test harnesses look up, and the aliases.
///
/// The task's own name is its address on the network, loopback's if it has none.
pub fn hosts(hostname: &str, address: Option<Ipv4Addr>, aliases: &[Alias]) -> String {
    let own = address.unwrap_or(Ipv4Addr::LOCALHOST);
    let mut text = format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n127.0.0.1\tlocalhost.localdomain\n{own}\t{hostname}\n"
    );
    for Alias { name, address } in aliases {
        text += &format!("{address}\t{name}\n");
    }
    text
}

/// Where a task asks for addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolvers {
    /// The servers, in the order in which they are asked.
    pub servers: Vec<Ipv4Addr>,
    /// Search list and options, as the host has them.
    pub options: String,
}

impl Resolvers {
    /// The content of `resolv.conf`.
    pub fn resolv_conf(&self) -> String {
        let servers = self.servers.iter().map(|server| format!("nameserver {server}\n"));
        servers.chain([self.options.clone()]).collect()
    }
}

/// The resolvers for tasks of this host: the host's; where those listen on loopback only, the ones behind
/// systemd-resolved; where there are none of either, the configuration's.
pub fn resolvers(configured: &[Ipv4Addr]) -> Resolvers {
    choose(configured, &read(RESOLV_CONF), &read(SYSTEMD_UPSTREAM))
}

/// Absent or unreadable is empty.
fn read(path: &str) -> String {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(RESOLV_CONF_BYTES).read_to_end(&mut bytes)) {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

fn choose(configured: &[Ipv4Addr], host: &str, upstream: &str) -> Resolvers {
    let found = [servers(host), servers(upstream), configured.to_vec()];
    let mut servers = found.into_iter().find(|servers| !servers.is_empty()).unwrap_or_default();
    servers.truncate(MOST_SERVERS);
    let options = host.lines().filter(|line| {
        let word = line.split_whitespace().next().unwrap_or_default();
        matches!(word, "search" | "domain" | "options" | "sortlist")
    });
    Resolvers { servers, options: options.map(|line| format!("{}\n", line.trim())).collect() }
}

/// The servers that a task can reach: tasks have no IPv6, and their loopback is their own.
fn servers(resolv_conf: &str) -> Vec<Ipv4Addr> {
    resolv_conf
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
            match address.parse() {
                Ok(IpAddr::V4(address)) if !address.is_loopback() && !address.is_unspecified() => {
                    Some(address)
                }
                _ => None,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_asks_whom_it_can_reach() {
        let systemd = "# managed\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch example.test\n";
        let options = "options edns0 trust-ad\nsearch example.test\n";
        let upstream = "nameserver 192.0.2.1\nnameserver fe80::1%2\n";
        for (configured, host, upstream, expected) in [
            (vec![], "nameserver 192.0.2.9\n", upstream, "nameserver 192.0.2.9\n".to_owned()),
            (vec![], "nameserver ::1\nnameserver 192.0.2.9", "", "nameserver 192.0.2.9\n".to_owned()),
            (vec![], systemd, upstream, format!("nameserver 192.0.2.1\n{options}")),
            (vec!["192.0.2.7"], "nameserver 192.0.2.9\n", upstream, "nameserver 192.0.2.9\n".to_owned()),
            (vec!["192.0.2.7"], systemd, upstream, format!("nameserver 192.0.2.1\n{options}")),
            (vec!["192.0.2.7"], systemd, "", format!("nameserver 192.0.2.7\n{options}")),
            (vec!["192.0.2.7"], "", "", "nameserver 192.0.2.7\n".to_owned()),
            (vec![], systemd, "", options.to_owned()),
            (vec![], "", "", String::new()),
            (
                vec![],
                "nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4\n",
                "",
                "nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\n".to_owned(),
            ),
        ] {
            let configured: Vec<Ipv4Addr> = configured.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(choose(&configured, host, upstream).resolv_conf(), expected, "{host:?} {upstream:?}");
        }
    }

    #[test]
    fn hosts_name_the_task_and_who_is_linked_to_it() {
        let alias = Alias { name: "taskcluster".to_owned(), address: Ipv4Addr::new(169, 254, 2, 1) };
        let text = hosts("abc", Some(Ipv4Addr::new(10, 231, 7, 9)), &[alias]);
        assert!(text.ends_with("\n10.231.7.9\tabc\n169.254.2.1\ttaskcluster\n"), "{text}");
        assert!(hosts("abc", None, &[]).ends_with("\n127.0.0.1\tabc\n"));
    }
}
