//! TLS: whom we trust, and what we show of ourselves.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::Party;
use super::access::{ClientCertificate, HostRules};
use super::error::RegistryError;
use super::url::Origin;

/// What connections to one host have for themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Trust {
    /// PEM file of certificate authorities beside the system's.
    authorities: Option<PathBuf>,
    client: Option<ClientCertificate>,
}

impl Trust {
    /// Who connects as nobody has no certificate.
    pub(super) fn of(rules: &HostRules, party: Party) -> Trust {
        let client = match party {
            Party::Ourselves => rules.client_certificate.clone(),
            Party::Nobody => None,
        };
        Trust { authorities: rules.authorities.clone(), client }
    }

    /// Reads the files. `origin` is for messages.
    pub(super) fn configuration(&self, origin: &Origin) -> Result<ClientConfig, RegistryError> {
        let mut roots = RootCertStore::empty();
        // Certificates that this host cannot read are as if they were not installed.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = &self.authorities {
            let kind = "certificate authorities";
            for certificate in certificates(path, kind)? {
                roots.add(certificate).map_err(|error| pem(path, kind, error))?;
            }
        }
        // The provider is passed by hand: two in one program would leave no default.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| tls_error(origin, error))?
            .with_root_certificates(roots);
        let Some(ClientCertificate { chain, key }) = &self.client else {
            return Ok(builder.with_no_client_auth());
        };
        let certificates = certificates(chain, "client certificate")?;
        // What cannot be parsed is not repeated: it may be a key.
        let private = PrivateKeyDer::from_pem_file(key)
            .map_err(|error| pem(key, "client key", without_content(error)))?;
        // They may be sound and not fit each other.
        builder.with_client_auth_cert(certificates, private).map_err(|error| pem(key, "client key", error))
    }
}

/// All certificates of a file, at least one.
fn certificates(path: &Path, kind: &'static str) -> Result<Vec<CertificateDer<'static>>, RegistryError> {
    let failed = |error| pem(path, kind, without_content(error));
    let all: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    if all.is_empty() {
        return Err(pem(path, kind, "there is no certificate in it"));
    }
    Ok(all)
}

fn without_content(error: rustls::pki_types::pem::Error) -> io::Error {
    match error {
        rustls::pki_types::pem::Error::Io(error) => error,
        rustls::pki_types::pem::Error::NoItemsFound => io::Error::other("it is not there"),
        _ => io::Error::other("it is not as PEM is"),
    }
}

fn pem(
    path: &Path,
    kind: &'static str,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> RegistryError {
    RegistryError::Pem { kind, path: path.to_owned(), source: io::Error::other(error) }
}

pub(super) fn tls_error(
    origin: &Origin,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> RegistryError {
    RegistryError::Tls { origin: origin.to_string(), source: io::Error::other(error) }
}
