//! Which hosts a pull may reach, how, and with whose name.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::limits::Limits;
use crate::reference::{Reference, canonical_registry};

use super::credentials::{Identity, Keyring, Place};
use super::error::RegistryError;
use super::mirrors;
use super::proxy::Proxies;
use super::url::Origin;

/// Rules for the hosts of a pull. The default is what a claimed task gets: TLS only, no loopback.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Whether a registry on loopback may be named.
    pub loopback: Loopback,
    /// Exceptions, by `HOST` or `HOST:PORT` as names spell it. `HOST` is the port of its scheme only: what is known of one
    /// port is not told to another.
    pub hosts: BTreeMap<String, HostRules>,
    /// Who we are to whom.
    pub credentials: Keyring,
    /// By way of whom hosts are reached.
    pub proxies: Proxies,
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
    /// Token servers that may be told the credentials for this registry, besides its own host: `HOST` or `HOST:PORT`.
    pub token_hosts: Vec<String>,
    /// PEM file of certificate authorities trusted in addition to the system's.
    pub authorities: Option<PathBuf>,
    /// Who is asked for the registry's images before it, in this order: each with a prefix below which it has their names.
    pub mirrors: Vec<Place>,
    /// Who is asked when no mirror has given what is wanted.
    pub fallback: Fallback,
    /// Who the host is told that connects, in the handshake of TLS: it only, and not if a redirect of another's leads there.
    pub client_certificate: Option<ClientCertificate>,
}

/// A certificate to show, and the key that it is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientCertificate {
    /// PEM file of the certificate and of those that have signed it.
    pub chain: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
}

/// Who is asked behind the mirrors of a registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fallback {
    /// The registry itself.
    #[default]
    Registry,
    /// Nobody.
    Nobody,
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
        let [usual, exact] = origin.names();
        self.hosts.get(&exact).or_else(|| self.hosts.get(&usual))
    }

    /// Whether an image would be asked for with credentials or a certificate of ours, of whomever that may be: of its registry or of a mirror. Docker
    /// Hub's own images are everybody's there, but a mirror may have others by their names.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Credentials`] where that cannot be known, and [`RegistryError::Url`] for a registry that has none.
    pub async fn has_credentials(
        &self,
        reference: &Reference,
        limits: &Limits,
    ) -> Result<bool, RegistryError> {
        for name in mirrors::names(reference, self)? {
            let origin = super::origin(&name, self)?;
            if self.has_certificate(&origin) || self.identity(&origin, &name, limits).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a host is told who we are as soon as we connect.
    pub(super) fn has_certificate(&self, origin: &Origin) -> bool {
        let shows = |rules: &HostRules| rules.client_certificate.is_some();
        origin.scheme == Scheme::Https && self.rules(origin).is_some_and(shows)
    }

    /// Who we are where it is about this image. Docker Hub's own images are everybody's: nobody logs in there for them.
    pub(super) async fn identity(
        &self,
        origin: &Origin,
        reference: &Reference,
        limits: &Limits,
    ) -> Result<Option<Identity>, RegistryError> {
        if reference.is_official() {
            return Ok(None);
        }
        Ok(self.credentials.identity(origin, reference.repository(), limits).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_bound_to_host_and_port() {
        let mut access = Access::default();
        for host in ["h", "h:5000", "registry.hub.docker.com", "[::1]:80"] {
            access.set(host, HostRules { token_hosts: vec![host.to_owned()], ..HostRules::default() });
        }
        let cases = [
            (Scheme::Https, "h", 443, Some("h")),
            (Scheme::Http, "h", 80, Some("h")),
            (Scheme::Https, "h", 5000, Some("h:5000")),
            (Scheme::Https, "h", 5001, None),
            (Scheme::Http, "h", 443, None),
            (Scheme::Https, "registry-1.docker.io", 443, Some("registry.hub.docker.com")),
            (Scheme::Https, "docker.io", 443, Some("registry.hub.docker.com")),
            (Scheme::Https, "registry-1.docker.io", 444, None),
            (Scheme::Http, "::1", 80, Some("[::1]:80")),
            (Scheme::Https, "other", 443, None),
        ];
        for (scheme, host, port, expected) in cases {
            let found = access.rules(&Origin { scheme, host: host.to_owned(), port });
            assert_eq!(found.map(|rules| rules.token_hosts[0].as_str()), expected, "{host}:{port}");
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
