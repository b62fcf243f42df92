//! HTTP proxies: which requests go by way of one, and how.
//!
//! ```text
//!  https  CONNECT HOST:PORT ──► 200 ──► TLS with the host itself     the proxy sees where to, and nothing else
//!  http   GET http://HOST/…                                          it sees everything, as everybody on the way does
//! ```
//!
//! Names and forms are those that Docker's clients know. A proxy's name and password are in its URL, and go to the proxy only.
//! Source: Go's `golang.org/x/net/http/httpproxy`.

use std::fmt;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;

use super::access::{AddressBlock, Scheme};
use super::url::{Origin, Url};

/// By way of which proxies registries are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    https: Option<Proxy>,
    http: Option<Proxy>,
    exceptions: Vec<Exception>,
}

/// One proxy. Its password is never printed.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Proxy {
    pub origin: Origin,
    /// What says to the proxy who we are: a header's value.
    pub authorization: Option<String>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Proxy({})", self.origin)
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "the proxy {}", self.origin)
    }
}

/// Why a proxy cannot be used. Its URL is not repeated: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// Neither `http://` nor `https://`.
    #[error("is a proxy of another kind: only http:// and https:// are known here")]
    Scheme,
    /// Not `[http://][USER[:PASSWORD]@]HOST[:PORT]`.
    #[error("is no proxy: write it as http://HOST:PORT, or http://USER:PASSWORD@HOST:PORT")]
    Malformed,
}

/// What is reached without a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Exception {
    whom: Whom,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Whom {
    All,
    Block(AddressBlock),
    /// This name, and all below it.
    Name(String),
    /// All below this name: with the dot before it.
    Below(String),
}

impl Proxies {
    /// The proxies for hosts with TLS and without, as `[http://][USER:PASSWORD@]HOST[:PORT]`; empty is none.
    ///
    /// `exceptions` are separated by commas: `*`, `HOST` with all below it, `.HOST` or `*.HOST` for those below it only, an
    /// address, a block as `10.0.0.0/8`; all but the first and the last with `:PORT` where it is about that port. This
    /// machine itself is never asked for by way of a proxy.
    ///
    /// # Errors
    ///
    /// [`ProxyError`], for whichever of the two is none. What is no exception is passed over, as everywhere.
    pub fn new(https: &str, http: &str, exceptions: &str) -> Result<Proxies, ProxyError> {
        let exceptions = exceptions.split([',', ' ', '\t']).filter_map(exception).collect();
        Ok(Proxies { https: parse(https)?, http: parse(http)?, exceptions })
    }

    /// The proxy for a host.
    pub(super) fn of(&self, origin: &Origin) -> Option<&Proxy> {
        let proxy = match origin.scheme {
            Scheme::Https => self.https.as_ref(),
            Scheme::Http => self.http.as_ref(),
        };
        let is_excepted = || self.exceptions.iter().any(|exception| exception.is_about(origin));
        proxy.filter(|_| !is_this_machine(origin) && !is_excepted())
    }
}

impl Exception {
    fn is_about(&self, origin: &Origin) -> bool {
        let host = origin.host.as_str();
        let is_whom = match &self.whom {
            Whom::All => true,
            Whom::Block(block) => host.parse().is_ok_and(|address| block.contains(address)),
            Whom::Below(name) => host.len() > name.len() && host.ends_with(name),
            Whom::Name(name) => {
                host.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
        };
        is_whom && self.port.is_none_or(|port| port == origin.port)
    }
}

/// Names of this machine are not for a proxy to look up: it would come to its own (RFC 6761 6.3).
fn is_this_machine(origin: &Origin) -> bool {
    let name = origin.host.trim_end_matches('.');
    origin.is_loopback() || name == "localhost" || name.ends_with(".localhost")
}

fn parse(text: &str) -> Result<Option<Proxy>, ProxyError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
        return Err(ProxyError::Scheme);
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let authority = rest.get(..end).unwrap_or_default();
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    let url = Url::parse(&format!("{}://{host}", scheme.to_ascii_lowercase()));
    let url = url.map_err(|_| ProxyError::Malformed)?;
    let authorization = user.map(|user| {
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        let [name, password] = [name, password].map(|word| percent_decode_str(word).collect::<Vec<u8>>());
        format!("Basic {}", STANDARD.encode([&name[..], b":", &password[..]].concat()))
    });
    Ok(Some(Proxy { origin: url.origin, authorization }))
}

fn exception(text: &str) -> Option<Exception> {
    let text = text.trim().to_ascii_lowercase();
    if text == "*" {
        return Some(Exception { whom: Whom::All, port: None });
    }
    if let Some(block) = block(&text) {
        return Some(Exception { whom: Whom::Block(block), port: None });
    }
    let (host, port) = split_port(&text);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let whom = match host.parse::<IpAddr>() {
        Ok(network) => Whom::Block(AddressBlock { network, prefix: whole(network) }),
        Err(_) => match host.strip_prefix('*').unwrap_or(host) {
            "" | "." => return None,
            name if name.starts_with('.') => Whom::Below(name.to_owned()),
            name => Whom::Name(name.to_owned()),
        },
    };
    Some(Exception { whom, port })
}

/// `ADDRESS/BITS`.
fn block(text: &str) -> Option<AddressBlock> {
    let (network, prefix) = text.split_once('/')?;
    let network = network.parse().ok()?;
    let prefix = prefix.parse().ok().filter(|prefix| *prefix <= whole(network))?;
    Some(AddressBlock { network, prefix })
}

fn whole(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// An IPv6 address without brackets has no port.
fn split_port(text: &str) -> (&str, Option<u16>) {
    let split = text.rsplit_once(':').filter(|(host, _)| !host.contains(':') || host.ends_with(']'));
    match split.map(|(host, port)| (host, port.parse())) {
        Some((host, Ok(port))) => (host, Some(port)),
        _ => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Url::parse(text).unwrap().origin
    }

    #[test]
    fn exceptions_are_those_that_docker_knows() {
        let all = "https://registry.example.com:5000";
        let cases = [
            ("", all, false),
            ("*", all, true),
            ("example.com", all, true),
            (".example.com", all, true),
            ("*.example.com", all, true),
            ("EXAMPLE.com", all, true),
            ("ample.com", all, false),
            ("registry.example.com", all, true),
            (".registry.example.com", all, false),
            ("registry.example.com:5000", all, true),
            ("registry.example.com:443", all, false),
            ("example.com:5000", all, true),
            ("example.org, registry.example.com", all, true),
            ("example.org registry.example.com", all, true),
            ("example.org,,", all, false),
            (".,*.", all, false),
            ("com", all, true),
            ("registry.example.com", "http://registry.example.com", true),
            ("registry.example.com:80", "http://registry.example.com", true),
            ("10.0.0.0/8", "https://10.1.2.3:5000", true),
            ("10.0.0.0/8", "https://11.1.2.3:5000", false),
            ("10.0.0.0/33", "https://10.1.2.3", false),
            ("10.1.2.3", "https://10.1.2.3:5000", true),
            ("10.1.2.3:5000", "https://10.1.2.3:5000", true),
            ("10.1.2.3:5001", "https://10.1.2.3:5000", false),
            ("10.1.2.3", "https://110.1.2.3", false),
            ("0.1.2.3", "https://10.1.2.3", false),
            ("10.1.2.0/24", "https://x.10.1.2.3", false),
            ("2001:db8::1", "https://[2001:db8::1]:5000", true),
            ("[2001:db8::1]:5000", "https://[2001:db8::1]:5000", true),
            ("[2001:db8::1]:5001", "https://[2001:db8::1]:5000", false),
            ("2001:db8::/32", "https://[2001:db8::1]", true),
            ("", "https://localhost:5000", true),
            ("", "https://localhost.", true),
            ("", "https://registry.localhost", true),
            ("", "https://notlocalhost", false),
            ("", "https://127.0.0.1:5000", true),
            ("", "https://[::1]:5000", true),
        ];
        for (exceptions, target, is_direct) in cases {
            let proxies = Proxies::new("p:1", "p:2", exceptions).unwrap();
            assert_eq!(proxies.of(&origin(target)).is_none(), is_direct, "{exceptions:?}: {target}");
        }
    }

    #[test]
    fn a_proxy_is_for_its_scheme_and_written_in_several_ways() {
        let basic = |pair: &str| Some(format!("Basic {}", STANDARD.encode(pair)));
        let cases = [
            ("p:3128", "http://p:3128", None),
            ("http://p", "http://p", None),
            ("HTTPS://p:8443/", "https://p:8443", None),
            ("http://me:sesame@p:1", "http://p:1", basic("me:sesame")),
            ("http://a%40b:p%3Aq%25@p:1/x", "http://p:1", basic("a@b:p:q%")),
            ("me:a@b@p:1", "http://p:1", basic("me:a@b")),
            ("http://me@[::1]:1", "http://[::1]:1", basic("me:")),
        ];
        for (text, expected, authorization) in cases {
            let proxies = Proxies::new(text, "", "").unwrap();
            let proxy = proxies.of(&origin("https://h")).unwrap();
            assert_eq!(
                (proxy.origin.to_string().as_str(), &proxy.authorization),
                (expected, &authorization),
                "{text}"
            );
            assert!(proxies.of(&origin("http://h")).is_none());
            let printed = format!("{proxies:?} {proxy}");
            assert!(!printed.contains("sesame") && !printed.contains("Basic"), "{printed}");
        }
        assert_eq!(Proxies::new(" ", "", "").unwrap(), Proxies::default());
    }

    #[test]
    fn what_is_no_proxy_is_refused_and_not_repeated() {
        for (text, expected) in [
            ("socks5://me:sesame@p:1", ProxyError::Scheme),
            ("://p", ProxyError::Scheme),
            ("http://", ProxyError::Malformed),
            ("http://me:sesame@", ProxyError::Malformed),
            ("http://p:sesame", ProxyError::Malformed),
            ("http://p:99999", ProxyError::Malformed),
            ("a b", ProxyError::Malformed),
        ] {
            assert_eq!(Proxies::new("", text, ""), Err(expected), "{text}");
        }
    }
}
