//! The `registries` section: how single registries are spoken to, and who the worker is there.
//!
//! ```yaml
//! registries:
//!   "registry.example.com:5000": {certificateAuthority: /etc/ca.pem}      # holds for all of it
//!   "registry.example.com:5000/team": {username: me, password: …}         # for what lies below team/ there
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use images::registry::{
    Access, Addresses, ClientCertificate, Credentials, Fallback, HostRules, Place, Scheme, auth_pair,
};
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::secret::Secret;
use super::unused::Unused;
use super::values::absolute_path;
use crate::text::excerpt;

/// What is said of one registry, or of a part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct RegistrySettings {
    /// In the clear, without TLS; then also on this machine and in private networks.
    pub plain_http: bool,
    /// Whether tasks that are claimed may be sent to it at a private address.
    pub private_addresses: bool,
    /// PEM file of certificate authorities that are trusted for it, beside the system's.
    #[serde(deserialize_with = "absolute_path")]
    pub certificate_authority: Option<PathBuf>,
    /// PEM file of the certificate that the worker shows it.
    #[serde(deserialize_with = "absolute_path")]
    pub client_certificate: Option<PathBuf>,
    /// PEM file of that certificate's key.
    #[serde(deserialize_with = "absolute_path")]
    pub client_key: Option<PathBuf>,
    /// Who is asked for its images first, in this order: `HOST[:PORT][/PREFIX]`.
    pub mirrors: Vec<String>,
    /// Whether it is asked itself where no mirror has given what is wanted.
    pub mirror_fallback: Option<bool>,
    /// Its token servers on other hosts, which may be told who the worker is.
    pub token_hosts: Vec<String>,
    /// Who the worker is there.
    pub username: Option<String>,
    /// What proves it.
    pub password: Option<Secret>,
    /// Both in one, as Docker's files have it: base64 of `NAME:PASSWORD`.
    pub auth: Option<Secret>,
    /// What buys tokens in the place of a password.
    pub identitytoken: Option<Secret>,
    /// A token that is shown as it is.
    pub registrytoken: Option<Secret>,
    /// Accepted, not used: of what Docker is told this says nothing more.
    #[serde(skip_serializing)]
    pub email: Unused,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub serveraddress: Unused,
}

impl RegistrySettings {
    /// Tells what the settings mean to pulls.
    pub(super) fn add_to(&self, access: &mut Access, name: &str) {
        // It has been looked at when it was read.
        if let Ok(Some(credentials)) = self.credentials() {
            access.credentials.held.insert(Place::new(name), credentials);
        }
        if !self.is_about_the_host() {
            return;
        }
        let scheme = if self.plain_http { Scheme::Http } else { Scheme::Https };
        let addresses = if self.private_addresses { Addresses::Private } else { Addresses::Ordinary };
        let authorities = self.certificate_authority.clone();
        let pair = self.client_certificate.clone().zip(self.client_key.clone());
        let client_certificate = pair.map(|(chain, key)| ClientCertificate { chain, key });
        let (token_hosts, mirrors) = (self.token_hosts.clone(), self.mirrors.iter().map(|it| Place::new(it)));
        let keeps_itself = self.mirror_fallback.unwrap_or(true);
        let rules = HostRules {
            scheme,
            addresses,
            token_hosts,
            authorities,
            mirrors: mirrors.collect(),
            fallback: if keeps_itself { Fallback::Registry } else { Fallback::Nobody },
            client_certificate,
        };
        access.set(name.trim_end_matches('/'), rules);
    }

    /// The strongest of what is there, as Docker's daemon takes it.
    fn credentials(&self) -> Result<Option<Credentials>, &'static str> {
        if let Some(token) = &self.registrytoken {
            return Ok(Some(Credentials::RegistryToken(token.reveal().to_owned())));
        }
        if let Some(token) = &self.identitytoken {
            return Ok(Some(Credentials::IdentityToken(token.reveal().to_owned())));
        }
        let (username, password) = match (&self.username, &self.password, &self.auth) {
            (None, None, None) => return Ok(None),
            (None, None, Some(auth)) => {
                auth_pair(auth.reveal()).ok_or("has an \"auth\" that is not base64 of NAME:PASSWORD")?
            }
            (Some(username), Some(password), _) => (username.clone(), password.reveal().to_owned()),
            (Some(_), None, _) => return Err("has a \"username\" and no \"password\""),
            (None, Some(_), _) => return Err("has a \"password\" and no \"username\""),
        };
        // Such a name could not be told from the password that follows it.
        if username.is_empty() || username.contains(':') {
            return Err("has a \"username\" that cannot be one: it is empty, or has a colon");
        }
        Ok(Some(Credentials::Password { username, password }))
    }

    fn is_about_the_host(&self) -> bool {
        self.plain_http
            || self.private_addresses
            || self.certificate_authority.is_some()
            || self.client_certificate.is_some()
            || !self.token_hosts.is_empty()
            || !self.mirrors.is_empty()
    }

    /// What cannot be meant. `is_part`: it is of a part of a registry.
    fn problem(&self, is_part: bool) -> Option<&'static str> {
        if self.client_certificate.is_some() != self.client_key.is_some() {
            return Some("needs both, \"clientCertificate\" and \"clientKey\"");
        }
        if is_part && self.is_about_the_host() {
            return Some(
                "is a part of a registry, and how that is spoken to holds for all of it: write HOST or HOST:PORT",
            );
        }
        if !self.token_hosts.iter().all(|host| is_host(host)) {
            return Some("has \"tokenHosts\" that are not written as HOST or HOST:PORT");
        }
        if !self.mirrors.iter().all(|mirror| is_place(mirror)) {
            return Some("has \"mirrors\" that are not written as HOST, HOST:PORT or either with /PREFIX");
        }
        if self.mirror_fallback.is_some() && self.mirrors.is_empty() {
            return Some("has a \"mirrorFallback\" and no \"mirrors\"");
        }
        self.credentials().err()
    }
}

/// `HOST[:PORT][/PREFIX]`.
fn is_place(text: &str) -> bool {
    let (host, prefix) = text.split_once('/').unwrap_or((text, ""));
    // A slash at the end means nothing, to the original as well.
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    is_host(host) && (prefix.is_empty() || is_prefix(prefix))
}

fn is_host(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte))
}

/// As names of images have it.
fn is_prefix(text: &str) -> bool {
    let of_names = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    text.split('/').all(|part| !part.is_empty() && part.bytes().all(of_names))
}

/// Settings of registries by names that an image's name can have: those of others would hold for none.
pub(super) fn registries<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, RegistrySettings>, D::Error> {
    deserializer.deserialize_map(Registries)
}

struct Registries;

impl<'de> Visitor<'de> for Registries {
    type Value = BTreeMap<String, RegistrySettings>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("registries by HOST, HOST:PORT or either with /PREFIX, each with its keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut registries = BTreeMap::new();
        let mut places = BTreeMap::new();
        while let Some(name) = members.next_key::<String>()? {
            let refused = |problem: &str| A::Error::custom(format!("\"{}\" {problem}", excerpt(&name)));
            if name.contains("://") {
                return Err(refused(
                    "has a scheme: write a registry as in names of images, HOST or HOST:PORT",
                ));
            }
            if !is_place(&name) {
                return Err(refused(
                    "is no registry: write it as in names of images, HOST or HOST:PORT, with /PREFIX for a part of it",
                ));
            }
            let settings: RegistrySettings = members.next_value()?;
            let is_part = name.trim_end_matches('/').contains('/');
            if let Some(problem) = settings.problem(is_part) {
                return Err(refused(problem));
            }
            if let Some(other) = places.insert(Place::new(&name), name.clone()) {
                return Err(refused(&format!("means the same as \"{}\"", excerpt(&other))));
            }
            registries.insert(name, settings);
        }
        Ok(registries)
    }
}

#[cfg(test)]
mod tests;
