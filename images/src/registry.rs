//! The registry client: Docker's registry API v2 over HTTP/1.1, with TLS but where allowed without.
mod access;

pub use access::{Access, Addresses, Credentials, HostRules, Loopback, Scheme};
