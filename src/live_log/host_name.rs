//! The name by which readers find the worker.
//!
//! Workers that come and go have no name of their own in the DNS, and a certificate needs one. So there are servers that
//! make an address up from the name they are asked for: the address itself, an expiry and a random salt, signed with a
//! secret that worker and server share, in base32:
//!
//! ```text
//!   address (4 bytes), expiry (ms since 1970, 8), salt (2), HMAC-SHA256 of all that, its first 16 bytes
//! ```

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aws_lc_rs::hmac;

use crate::config::{ConfigFile, Secret};
use crate::timestamp::Timestamp;

/// Bytes of the signature in a name.
const SIGNATURE_BYTES: usize = 16;

/// The digits of base32 (RFC 4648), as names have them.
const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// How the worker is called.
#[derive(Clone, Debug)]
pub(super) enum HostName {
    /// Always the same.
    Fixed(String),
    /// By names that are made up.
    Stateless { address: Ipv4Addr, secret: Secret, domain: String },
}

/// Why there is no name for the worker.
#[derive(Debug, thiserror::Error)]
pub enum HostNameError {
    /// The names need an address to lead to.
    #[error(
        "make a host name for live logs: statelessHostname needs publicIp to be this host's IPv4 address"
    )]
    Address,
}

impl HostName {
    /// What the configuration says. Names are made up where they are switched on and somebody would believe them; workers
    /// of the original's `production` profile have them switched on, and no secret where nobody has such a server.
    pub(super) fn of(config: &ConfigFile) -> Result<HostName, HostNameError> {
        let stateless = &config.stateless_hostname;
        let is_on = stateless.enabled.unwrap_or(false);
        let (Some(secret), Some(domain), true) = (&stateless.secret, &stateless.domain, is_on) else {
            return Ok(HostName::fixed(config.host.as_deref().unwrap_or("localhost")));
        };
        let address = config.public_ip.as_deref().and_then(|address| address.parse().ok());
        Ok(HostName::Stateless {
            address: address.ok_or(HostNameError::Address)?,
            secret: secret.clone(),
            domain: domain.clone(),
        })
    }

    fn fixed(host: &str) -> HostName {
        let is_address_6 = host.parse::<Ipv6Addr>().is_ok();
        HostName::Fixed(if is_address_6 { format!("[{host}]") } else { host.to_owned() })
    }

    /// Whether it leads every host to itself.
    pub(super) fn is_of_loopback(&self) -> bool {
        let name = match self {
            HostName::Fixed(name) => name.as_str(),
            HostName::Stateless { address, .. } => return address.is_loopback(),
        };
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        name == "localhost" || bare.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }

    /// A name that is good until then.
    pub(super) fn until(&self, expires: Timestamp) -> io::Result<String> {
        match self {
            HostName::Fixed(name) => Ok(name.clone()),
            HostName::Stateless { address, secret, domain } => {
                let mut salt = [0_u8; 2];
                rustix::rand::getrandom(&mut salt[..], rustix::rand::GetRandomFlags::empty())?;
                Ok(format!("{}.{domain}", label(*address, expires, salt, secret)))
            }
        }
    }
}

fn label(address: Ipv4Addr, expires: Timestamp, salt: [u8; 2], secret: &Secret) -> String {
    let mut bytes = Vec::new();
    bytes.extend(address.octets());
    bytes.extend(expires.as_millis().to_be_bytes());
    bytes.extend(salt);
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
    let signature = hmac::sign(&key, &bytes);
    bytes.extend(signature.as_ref().iter().take(SIGNATURE_BYTES));
    base32(&bytes)
}

/// Whole groups of five bytes only: nothing is padded.
fn base32(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(5) {
        let number = group.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        for digit in (0..8).rev() {
            let value = usize::try_from(number >> (5 * digit) & 31).unwrap_or_default();
            text.extend(DIGITS.get(value).copied().map(char::from));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StatelessHostname;

    fn config(enabled: bool) -> ConfigFile {
        ConfigFile {
            host: Some("worker.example".to_owned()),
            public_ip: Some("203.0.113.7".to_owned()),
            stateless_hostname: StatelessHostname {
                enabled: Some(enabled),
                secret: Some(Secret::new("sesame".to_owned())),
                domain: Some("workers.example".to_owned()),
            },
            ..ConfigFile::default()
        }
    }

    #[test]
    fn a_name_says_address_expiry_salt_and_signature() {
        let expires = Timestamp::parse("2026-01-02T03:04:05.678Z").unwrap();
        let secret = Secret::new("sesame".to_owned());
        let label = label(Ipv4Addr::new(203, 0, 113, 7), expires, [0x12, 0x34], &secret);
        // Computed with Python's hmac and base64.
        assert_eq!(label, "zmahcbyaaaazw7fjr4xbendjhgkalzruypocmzuf5vuuve3w");
    }

    #[test]
    fn names_are_made_up_where_they_are_switched_on_and_can_be_signed() {
        let of = |change: fn(&mut ConfigFile)| {
            let mut config = config(true);
            change(&mut config);
            HostName::of(&config).map(|name| name.until(Timestamp::now()).unwrap())
        };
        let made_up = of(|_| {}).unwrap();
        assert!(made_up.len() == 48 + ".workers.example".len() && made_up.ends_with(".workers.example"));
        let fixed: [fn(&mut ConfigFile); 3] = [
            |it| it.stateless_hostname.enabled = Some(false),
            |it| it.stateless_hostname.secret = None,
            |it| it.stateless_hostname.domain = None,
        ];
        for change in fixed {
            assert_eq!(of(change).unwrap(), "worker.example");
        }
        let without_address: [fn(&mut ConfigFile); 2] =
            [|it| it.public_ip = None, |it| it.public_ip = Some("::1".to_owned())];
        for change in without_address {
            assert!(of(change).unwrap_err().to_string().contains("publicIp"));
        }
        let name = HostName::of(&config(true)).unwrap();
        assert!(!format!("{name:?}").contains("sesame"));
    }

    #[test]
    fn some_names_lead_every_host_to_itself() {
        for (host, expected) in [
            (None, true),
            (Some("localhost"), true),
            (Some("127.0.0.2"), true),
            (Some("::1"), true),
            (Some("192.0.2.1"), false),
            (Some("2001:db8::1"), false),
            (Some("localhost.example.com"), false),
        ] {
            let config = ConfigFile { host: host.map(str::to_owned), ..config(false) };
            assert_eq!(HostName::of(&config).unwrap().is_of_loopback(), expected, "{host:?}");
        }
    }

    #[test]
    fn an_ipv6_address_is_written_as_urls_have_it() {
        let config = ConfigFile { host: Some("2001:db8::1".to_owned()), ..config(false) };
        assert_eq!(HostName::of(&config).unwrap().until(Timestamp::now()).unwrap(), "[2001:db8::1]");
    }
}
