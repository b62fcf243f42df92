//! Which hosts a pull may reach, how, and with whose name.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::reference::canonical_registry;

use super::url::Origin;

/// Rules for the hosts of a pull. The default is what a claimed task gets: TLS only, no loopback.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Whether a registry on loopback may be named.
    pub loopback: Loopback,
    /// Exceptions and credentials, by `HOST` or `HOST:PORT` as names spell it. `HOST` is the port of
    /// its scheme only: what is known of one port is not told to another.
    pub hosts: BTreeMap<String, HostRules>,
    /// Addresses that nothing may lead to, e.g. those of containers.
    pub excluded: Vec<AddressBlock>,
}

/// A block of addresses, as `10.231.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressBlock {
    /// The lowest address.
    pub network: IpAddr,
    /// Leading bits that all have in common.
    pub prefix: u8,
}

impl AddressBlock {
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        let differ = match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (network.to_bits() ^ address.to_bits()).leading_zeros()
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                (network.to_bits() ^ address.to_bits()).leading_zeros()
            }
            _ => return false,
        };
        differ >= u32::from(self.prefix)
    }
}

/// Whether names may point at this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loopback {
    /// No: for a claimed task loopback is a way to the host's own services.
    #[default]
    Refused,
    /// The operator's own commands: the registry that the name itself spells may be on this machine,
    /// and speaks plain HTTP on loopback. Such a one may lead to others of this machine; no other may.
    Operator,
}

/// What holds for one host.
#[derive(Clone, Debug, Default)]
pub struct HostRules {
    /// How it is spoken to.
    pub scheme: Scheme,
    /// Whether it may lie on a loopback, link-local or otherwise special address.
    pub addresses: Addresses,
    /// Who we are there.
    pub credentials: Option<Credentials>,
    /// Hosts of token servers that may be told these credentials, besides the registry's own.
    pub token_hosts: Vec<String>,
    /// PEM file of certificate authorities trusted in addition to the system's.
    pub authorities: Option<PathBuf>,
}

/// How a host is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// With TLS, certificates verified.
    #[default]
    Https,
    /// In the clear.
    Http,
}

/// Which addresses a host's name may resolve to. A host that may be spoken to in the clear may also
/// lie on a private one or on this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addresses {
    /// Public ones; private ones too for the operator's own commands.
    #[default]
    Ordinary,
    /// Also private ones.
    Private,
    /// Also loopback, link-local and the rest of `address`'s list.
    Any,
}

/// A user name and password. The password is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name.
    pub username: String,
    /// The password or access token.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Access {
    /// The rules of the operator's own commands (`run`, `pull`): see [`Loopback::Operator`].
    pub fn operator() -> Access {
        Access { loopback: Loopback::Operator, ..Access::default() }
    }

    /// Sets the rules for `HOST` or `HOST:PORT`. Docker Hub is one host under all its names.
    pub fn set(&mut self, host: &str, rules: HostRules) {
        self.hosts.insert(canonical_registry(&host.to_ascii_lowercase()).to_owned(), rules);
    }

    /// The rules for an origin: those with its port, or those without if it is the usual one.
    pub(super) fn rules(&self, origin: &Origin) -> Option<&HostRules> {
        let host = canonical_registry(&origin.host);
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let exact = self.hosts.get(&format!("{host}:{}", origin.port));
        exact.or_else(|| if origin.has_default_port() { self.hosts.get(&host) } else { None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_bound_to_host_and_port() {
        let mut access = Access::default();
        for (host, username) in
            [("h", "plain"), ("h:5000", "port"), ("registry.hub.docker.com", "hub"), ("[::1]:80", "v6")]
        {
            let credentials = Credentials { username: username.to_owned(), password: String::new() };
            access.set(host, HostRules { credentials: Some(credentials), ..HostRules::default() });
        }
        let cases = [
            (Scheme::Https, "h", 443, Some("plain")),
            (Scheme::Http, "h", 80, Some("plain")),
            (Scheme::Https, "h", 5000, Some("port")),
            (Scheme::Https, "h", 5001, None),
            (Scheme::Http, "h", 443, None),
            (Scheme::Https, "registry-1.docker.io", 443, Some("hub")),
            (Scheme::Https, "docker.io", 443, Some("hub")),
            (Scheme::Https, "registry-1.docker.io", 444, None),
            (Scheme::Http, "::1", 80, Some("v6")),
            (Scheme::Https, "other", 443, None),
        ];
        for (scheme, host, port, expected) in cases {
            let found = access.rules(&Origin { scheme, host: host.to_owned(), port });
            let user = found.and_then(|rules| rules.credentials.as_ref()).map(|who| who.username.as_str());
            assert_eq!(user, expected, "{host}:{port}");
        }
    }

    #[test]
    fn blocks_hold_what_has_their_leading_bits() {
        let block = AddressBlock { network: "10.231.0.0".parse().unwrap(), prefix: 16 };
        for (address, expected) in [
            ("10.231.0.0", true),
            ("10.231.255.1", true),
            ("10.232.0.1", false),
            ("::ffff:10.231.0.1", false),
        ] {
            assert_eq!(block.contains(address.parse().unwrap()), expected, "{address}");
        }
    }
}
