//! Why a registry gave no image.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use hyper::StatusCode;
use rustls::AlertDescription;

use crate::digest::{Digest, DigestError};
use crate::image::ConfigError;
use crate::manifest::ManifestError;

use super::credentials::CredentialsError;
use super::url::{Origin, Url, UrlError};

/// Why something could not be fetched. `url`s are printed without queries; bodies are not repeated
/// but for the message that the registry API has for people, escaped and shortened.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The registry does not have it.
    #[error("find {what} at {url}: it is not there; check the name and the tag{detail}")]
    NotFound {
        /// `image NAME` or `blob DIGEST`.
        what: String,
        /// Where it was asked for.
        url: String,
        /// The registry's words, with a leading ": ", or nothing.
        detail: String,
    },
    /// A layer that its licence keeps out of registries, e.g. Windows' own.
    #[error(
        "get the foreign layer {blob} from {url}: the registry does not have it, and foreign sources are not asked; \
         rebuild the image without it"
    )]
    Foreign {
        /// The layer's blob.
        blob: Digest,
        /// Where it was asked for.
        url: String,
    },
    /// The registry wants other credentials, or does not have the repository and will not say so.
    #[error("get {what} from {url}: not authorized{}{detail}", advice(credentials.as_deref()))]
    Unauthorized {
        /// `image NAME` or `blob DIGEST`.
        what: String,
        /// Where it was asked for.
        url: String,
        /// The registry's words, with a leading ": ", or nothing.
        detail: String,
        /// For which place the credentials are that were used.
        credentials: Option<String>,
    },
    /// Its challenge is of no known kind.
    #[error("log in to {url}: the registry's challenge is neither Bearer nor Basic, or malformed")]
    Challenge {
        /// Where it was asked.
        url: String,
    },
    /// It would have our password told to a stranger.
    #[error(
        "log in to {registry}: it sends us to {realm} for a token, which may not see its credentials; tokenHosts of this host in the worker's `registries` may name it"
    )]
    ForeignRealm {
        /// The registry.
        registry: String,
        /// The token server's origin.
        realm: String,
    },
    /// A token server that leads elsewhere what may not go there.
    #[error(
        "log in at {realm}: it leads to {to}, where an identity token is not sent; use a name and a password for this registry"
    )]
    TokenRedirect {
        /// The token server's URL.
        realm: String,
        /// The origin to which it leads.
        to: String,
    },
    /// It is not known who we are to the registry.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The token server's answer has no token.
    #[error("log in to {registry}: the reply of {realm} holds no token")]
    NoToken {
        /// The registry.
        registry: String,
        /// The token server's origin.
        realm: String,
    },
    /// A redirect or realm that is no proper URL.
    #[error("follow the {kind} of {url}: {source}")]
    Url {
        /// `Location` or `realm`.
        kind: &'static str,
        /// Who sent it.
        url: String,
        /// What is wrong with it.
        source: UrlError,
    },
    /// From TLS to plain HTTP.
    #[error("follow the redirect of {url}: it leads from https to {to}, in the clear")]
    Downgrade {
        /// Who sent it.
        url: String,
        /// Where it leads.
        to: String,
    },
    /// Plain HTTP to a host for which it is not allowed.
    #[error(
        "connect to {origin}: plain HTTP is refused for this host; plainHttp: true for it in the worker's `registries` allows it"
    )]
    PlainHttp {
        /// The origin.
        origin: String,
    },
    /// Redirects without end.
    #[error("get {what}: more than {limit} redirects, the last to {url}")]
    Redirects {
        /// `image NAME` or `blob DIGEST`.
        what: String,
        /// The last one.
        url: String,
        /// The limit.
        limit: u32,
    },
    /// The host's name leads to an address that must not be dialled.
    #[error("connect to {origin}: {address} is {why}, which is refused for this host; {remedy}")]
    Address {
        /// The origin.
        origin: String,
        /// What it resolves to.
        address: IpAddr,
        /// What is special about it.
        why: &'static str,
        /// What may be done about it.
        remedy: &'static str,
    },
    /// The host's name is unknown.
    #[error("find the address of {origin}; check the name and the network")]
    Resolve {
        /// The origin.
        origin: String,
        /// The resolver's error.
        source: io::Error,
    },
    /// No connection.
    #[error("connect to {origin}; check that it runs and can be reached")]
    Connect {
        /// The origin.
        origin: String,
        /// The last address's error.
        source: io::Error,
    },
    /// A proxy that does not do what proxies do.
    #[error("connect to {origin} by way of {proxy}: it does not answer as a proxy does")]
    Proxy {
        /// The proxy.
        proxy: String,
        /// The origin.
        origin: String,
        /// What broke.
        source: hyper::Error,
    },
    /// A proxy that refuses.
    #[error("connect to {origin} by way of {proxy}: it answers {status}{}", proxy_advice(*status))]
    ProxyStatus {
        /// The proxy.
        proxy: String,
        /// The origin.
        origin: String,
        /// The status.
        status: StatusCode,
    },
    /// No trust.
    #[error(
        "establish TLS with {origin}; if its certificate is of a private authority, name that one's file as certificateAuthority of this host in the worker's `registries`"
    )]
    Tls {
        /// The origin.
        origin: String,
        /// The handshake's error.
        source: io::Error,
    },
    /// The host does not know us, or wants to.
    #[error(
        "establish TLS with {origin}: it refuses the certificate that it was shown, or wants one; clientCertificate and clientKey of this host in the worker's `registries` name one"
    )]
    ClientCertificate {
        /// The origin.
        origin: String,
        /// What it says.
        source: rustls::Error,
    },
    /// A certificate or a key cannot be read, or is none.
    #[error("read the {kind} in {path:?}")]
    Pem {
        /// `certificate authorities`, `client certificate`, `client key`.
        kind: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// It took too long.
    #[error("{action} {url}: nothing came for {limit:?}")]
    Timeout {
        /// `connect to`, `get`, `read`.
        action: &'static str,
        /// The origin or URL.
        url: String,
        /// How long was waited.
        limit: Duration,
    },
    /// It dripped.
    #[error("read {url}: slower than {minimum} bytes a second over {window:?}")]
    TooSlow {
        /// The URL.
        url: String,
        /// The least rate.
        minimum: u64,
        /// Over how long.
        window: Duration,
    },
    /// The connection broke, or what came is not HTTP.
    #[error("get {url}")]
    Http {
        /// The URL.
        url: String,
        /// What broke.
        source: hyper::Error,
    },
    /// A header block larger than any that is needed.
    #[error("get {url}: the response's headers are larger than {limit} bytes")]
    Headers {
        /// The URL.
        url: String,
        /// The limit.
        limit: u64,
    },
    /// Another status than the request admits.
    #[error("get {url}: the server answers {status}{}{detail}", status_advice(*status))]
    Status {
        /// The URL.
        url: String,
        /// The status.
        status: StatusCode,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
        /// The registry's words, with a leading ": ", or nothing.
        detail: String,
    },
    /// More than is admitted.
    #[error("read {url}: more than {limit} bytes")]
    TooLong {
        /// The URL.
        url: String,
        /// The limit.
        limit: u64,
    },
    /// Another length than the manifest says.
    #[error("read {url}: it has {found} bytes and its manifest says {size}; push the image again")]
    Size {
        /// The URL.
        url: String,
        /// Bytes announced or received.
        found: u64,
        /// Bytes by the manifest.
        size: u64,
    },
    /// Another part than was asked for.
    #[error("resume {url} at byte {offset}: the server sends another part")]
    Range {
        /// The URL.
        url: String,
        /// Where to go on.
        offset: u64,
    },
    /// The digest that the registry states is none.
    #[error("get {url}: its Docker-Content-Digest is refused")]
    StatedDigest {
        /// The URL.
        url: String,
        /// What is wrong with it.
        source: DigestError,
    },
    /// Other content than was asked for.
    #[error("verify {url}: its content has digest {found}, not {expected}")]
    Digest {
        /// The URL.
        url: String,
        /// What was computed.
        found: Digest,
        /// What was asked for, or stated.
        expected: Digest,
    },
    /// The manifest is refused.
    #[error("use {url}")]
    Manifest {
        /// The URL.
        url: String,
        /// Why.
        source: ManifestError,
    },
    /// The configuration is refused.
    #[error("use {url}")]
    Config {
        /// The URL.
        url: String,
        /// Why.
        source: ConfigError,
    },
    /// Who takes the bytes has stopped, and knows why.
    #[error("read {url}: nobody takes it any more")]
    Abandoned {
        /// The URL.
        url: String,
    },
}

fn proxy_advice(status: StatusCode) -> &'static str {
    match status {
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            "; who asks it is a part of its URL: http://USER:PASSWORD@HOST:PORT"
        }
        _ => "",
    }
}

fn status_advice(status: StatusCode) -> &'static str {
    match status {
        StatusCode::TOO_MANY_REQUESTS => {
            ", as it limits how often it is asked; credentials or mirrors in the worker's `registries` may help"
        }
        _ => "",
    }
}

fn advice(credentials: Option<&str>) -> String {
    match credentials {
        None => "; check the name: the repository may not exist, or not be for everybody".to_owned(),
        Some(place) => {
            format!(" with the credentials for {place}; check them, and that they are for this repository")
        }
    }
}

/// That the other side does not take our certificate, or misses it, if that is what has gone wrong.
fn refusal(error: &(dyn std::error::Error + 'static)) -> Option<rustls::Error> {
    let causes = std::iter::successors(Some(error), |&error| {
        // An `io::Error` passes over what it holds.
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        held.map(|held| held as &(dyn std::error::Error + 'static)).or_else(|| error.source())
    });
    let refused = |alert: &AlertDescription| {
        matches!(
            alert,
            AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied
        )
    };
    let mut alerts = causes.filter_map(|error| error.downcast_ref::<rustls::Error>());
    alerts.find(|error| matches!(error, rustls::Error::AlertReceived(alert) if refused(alert))).cloned()
}

impl RegistryError {
    /// A failed request, of a connection that is known to work or not.
    pub(super) fn of_request(url: &Url, source: hyper::Error) -> RegistryError {
        // In TLS 1.3 a server looks at the client's certificate when the handshake is over for the client.
        match refusal(&source) {
            Some(source) => RegistryError::ClientCertificate { origin: url.origin.to_string(), source },
            None => RegistryError::Http { url: url.to_string(), source },
        }
    }

    /// A handshake that has failed.
    pub(super) fn of_handshake(origin: &Origin, source: io::Error) -> RegistryError {
        match refusal(&source) {
            Some(source) => RegistryError::ClientCertificate { origin: origin.to_string(), source },
            None => RegistryError::Tls { origin: origin.to_string(), source },
        }
    }

    /// Whether another attempt may go better. Everything else fails at once.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            // The resolver's "try again" has no number of its own here, only its words.
            RegistryError::Resolve { source, .. } => source.to_string().contains("Temporary failure"),
            // Broken off; a certificate that is refused stays so.
            RegistryError::Tls { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::UnexpectedEof
            ),
            RegistryError::Connect { .. }
            | RegistryError::Proxy { .. }
            | RegistryError::Timeout { .. }
            | RegistryError::TooSlow { .. }
            | RegistryError::Http { .. } => true,
            RegistryError::Status { status, .. } | RegistryError::ProxyStatus { status, .. } => {
                status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429)
            }
            _ => false,
        }
    }

    /// How long the server asks to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            RegistryError::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
