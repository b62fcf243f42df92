//! Which hosts a pull may reach, how, and with whose name.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Rules for the hosts of a pull. The default is what a claimed task gets: TLS only, no loopback.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Whether a registry on loopback may be named.
    pub loopback: Loopback,
    /// Exceptions and credentials, by `HOST` or `HOST:PORT` as names spell it.
    pub hosts: BTreeMap<String, HostRules>,
}

/// Whether names may point at this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loopback {
    /// No: for a claimed task loopback is a way to the host's own services.
    #[default]
    Refused,
    /// The operator's own commands: the registry that the name itself spells may be on loopback,
    /// and speaks plain HTTP there. Redirects to loopback stay refused.
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

/// Which addresses a host's name may resolve to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addresses {
    /// Public and private ones.
    #[default]
    Ordinary,
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
        Access { loopback: Loopback::Operator, hosts: BTreeMap::new() }
    }

    /// The rules for a host: those with its port, else those without.
    pub(crate) fn rules(&self, host: &str, port: u16) -> Option<&HostRules> {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        self.hosts.get(&format!("{host}:{port}")).or_else(|| self.hosts.get(&host))
    }
}
