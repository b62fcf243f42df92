//! The certificate of the worker's public name.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::Ssl;

/// Bytes of a file of certificates, or of a key.
const FILE_BYTES: u64 = 1 << 20;

/// How often the files are looked at, at most: strangers make connections as often as they like.
const LOOK: Duration = Duration::from_secs(1);

/// Certificate and key, read again when their files change: a worker runs for longer than a certificate is good.
#[derive(Debug)]
pub(super) struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    loaded: Mutex<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    looked: Instant,
    written: [Option<SystemTime>; 2],
    config: Arc<ServerConfig>,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A key of the configuration is missing.
    #[error("serve live logs over TLS: {key} is missing (or set logging.secureLiveLogging to false)")]
    Missing {
        /// Which.
        key: &'static str,
    },
    /// A file cannot be read.
    #[error("read {} to serve live logs over TLS", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("find PEM {what} in {} to serve live logs over TLS", path.display())]
    Pem {
        /// What was to be in it.
        what: &'static str,
        /// Which.
        path: PathBuf,
    },
    /// Certificate and key are not of one another, or of a kind that is not known.
    #[error("use the certificate {} and its key to serve live logs over TLS", path.display())]
    Pair {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
}

impl Tls {
    /// Reads what the configuration names.
    pub(super) fn open(ssl: &Ssl) -> Result<Tls, TlsError> {
        let named = |file: &Option<PathBuf>, key| file.clone().ok_or(TlsError::Missing { key });
        let (certificate, key) = (named(&ssl.certificate, "ssl.certificate")?, named(&ssl.key, "ssl.key")?);
        let loaded = load(&certificate, &key)?;
        Ok(Tls { certificate, key, loaded: Mutex::new(loaded) })
    }

    /// For a new connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.looked.elapsed() > LOOK {
            loaded.looked = Instant::now();
            if loaded.written != written(&self.certificate, &self.key)
                // While only one of the two is new, or half of one is there, the old pair goes on.
                && let Ok(new) = load(&self.certificate, &self.key)
            {
                *loaded = new;
            }
        }
        TlsAcceptor::from(Arc::clone(&loaded.config))
    }
}

/// When the two files were written last.
fn written(certificate: &Path, key: &Path) -> [Option<SystemTime>; 2] {
    [certificate, key].map(|path| std::fs::metadata(path).and_then(|file| file.modified()).ok())
}

fn load(certificate: &Path, key: &Path) -> Result<Loaded, TlsError> {
    // Before they are read: a change after that is seen the next time.
    let written = written(certificate, key);
    let pem = |what, path: &Path| TlsError::Pem { what, path: path.to_owned() };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(certificate)?).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let chain = chain.ok_or_else(|| pem("certificates", certificate))?;
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|_| pem("a private key", key))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private));
    let config = config.map_err(|source| TlsError::Pair { path: certificate.to_owned(), source })?;
    Ok(Loaded { looked: Instant::now(), written, config: Arc::new(config) })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(bytes),
        Err(source) => Err(TlsError::Read { path: path.to_owned(), source }),
    }
}
