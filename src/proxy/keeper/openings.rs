//! What of this host, and of what is never routed, the process has to reach: the deployment, if it is there, and those who
//! are asked for names.
//!
//! What is elsewhere is open anyway, and so is not named: a name that leads to other public addresses each time changes
//! nothing.

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};

use hyper::Uri;
use images::registry::{Reach, reach};

use crate::net::confinement::{Opening, Protocol};

/// Whom the host asks for names.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Bytes of it that are read.
const RESOLV_CONF_BYTES: u64 = 1 << 20;

/// Servers of it that are asked (`MAXNS` of resolv.h).
const SERVERS: usize = 3;

/// Where they listen.
const NAMES_PORT: u16 = 53;

/// Addresses of the deployment's name.
const ADDRESSES: usize = 64;

/// Where a deployment is, and who is asked for names. Blocks as long as a name takes.
///
/// # Errors
///
/// The deployment's name leads nowhere.
pub(super) fn deployment(root_url: &str) -> io::Result<Vec<Opening>> {
    let Some((host, port)) = host_and_port(root_url) else { return Ok(Vec::new()) };
    let found = (host.as_str(), port).to_socket_addrs()?.take(ADDRESSES).map(|found| found.ip());
    let is_open = |address: &IpAddr| matches!(reach(*address), Reach::Public | Reach::Private);
    let named = found.filter(|address| !is_open(address));
    Ok(named.map(|address| Opening { protocol: Protocol::Tcp, address, port }).collect())
}

/// Those that this host asks for names. Blocks for no longer than a file.
pub(super) fn resolvers() -> Vec<Opening> {
    let mut bytes = Vec::new();
    let read = File::open(RESOLV_CONF).and_then(|file| file.take(RESOLV_CONF_BYTES).read_to_end(&mut bytes));
    // Without the file it is as if that were empty: resolv.conf(5).
    let text = read.map_or(String::new(), |_| String::from_utf8_lossy(&bytes).into_owned());
    let both = |address| {
        [Protocol::Tcp, Protocol::Udp].map(|protocol| Opening { protocol, address, port: NAMES_PORT })
    };
    servers(&text).into_iter().flat_map(both).collect()
}

fn host_and_port(root_url: &str) -> Option<(String, u16)> {
    let url: Uri = root_url.parse().ok()?;
    let default = if url.scheme_str()?.eq_ignore_ascii_case("https") { 443 } else { 80 };
    let host = url.host()?.trim_matches(['[', ']']).to_owned();
    Some((host, url.port_u16().unwrap_or(default)))
}

fn servers(resolv_conf: &str) -> Vec<IpAddr> {
    let lines = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        // A link-local one says by which link.
        let (address, _) = address.split_once('%').unwrap_or((address, ""));
        address.parse().ok()
    });
    let servers: Vec<IpAddr> = lines.take(SERVERS).collect();
    if servers.is_empty() { vec![Ipv4Addr::LOCALHOST.into()] } else { servers }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_is_open_at_its_own_port_only() {
        for (root_url, expected) in [
            ("http://127.0.0.1:8239", Some(("127.0.0.1", 8239))),
            ("https://127.0.0.1/x/", Some(("127.0.0.1", 443))),
            ("http://[::1]", Some(("::1", 80))),
            ("https://192.0.2.1", None),
            ("127.0.0.1", None),
        ] {
            let opening = |(address, port): (&str, u16)| Opening {
                protocol: Protocol::Tcp,
                address: address.parse().unwrap(),
                port,
            };
            let expected: Vec<Opening> = expected.map(opening).into_iter().collect();
            assert_eq!(deployment(root_url).unwrap(), expected, "{root_url}");
        }
        assert!(
            deployment("http://localhost:1")
                .unwrap()
                .iter()
                .all(|it| it.address.is_loopback() && it.port == 1)
        );
    }

    #[test]
    fn those_are_asked_whom_the_c_library_asks() {
        for (text, expected) in [
            ("# none\n", vec!["127.0.0.1"]),
            ("search x\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\n", vec!["127.0.0.53", "fe80::1"]),
            (
                "nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver x\nnameserver 1.1.1.3\nnameserver 1.1.1.4",
                vec!["1.1.1.1", "1.1.1.2", "1.1.1.3"],
            ),
        ] {
            let expected: Vec<IpAddr> = expected.iter().map(|address| address.parse().unwrap()).collect();
            assert_eq!(servers(text), expected, "{text}");
        }
    }
}
