//! The certificate of the worker's public name.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::task::spawn_blocking;
use tokio_rustls::TlsAcceptor;

use crate::config::Ssl;
use crate::event::{Event, Events};
use crate::text::chain;

/// Bytes of a file of certificates, or of a key.
const FILE_BYTES: u64 = 1 << 20;

/// How often the files are looked at, at most: strangers make connections as often as they like.
const LOOK: Duration = Duration::from_secs(1);

/// Certificate and key, read again when their files change: a worker runs for longer than a certificate is good.
pub(super) struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    loaded: Mutex<Loaded>,
    events: Events,
}

/// When the two files were written last.
type Written = [Option<SystemTime>; 2];

struct Loaded {
    written: Written,
    config: Arc<ServerConfig>,
    looks: Looks,
}

/// The looks at the files since then.
struct Looks {
    last: Instant,
    is_under_way: bool,
    /// What was of no use, and whether that was told.
    useless: Option<(Written, bool)>,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error(
        "read {} to serve live logs over TLS (name another file with ssl.certificate and ssl.key, or set logging.secureLiveLogging to false)",
        path.display()
    )]
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
    pub(super) fn open(ssl: &Ssl, events: Events) -> Result<Tls, TlsError> {
        let (certificate, key) = (ssl.certificate().to_owned(), ssl.key().to_owned());
        let loaded = load(&certificate, &key)?;
        Ok(Tls { certificate, key, loaded: Mutex::new(loaded), events })
    }

    /// For a new connection, which waits for the look at the files that it brings about; others go on with the old pair.
    pub(super) async fn acceptor(self: &Arc<Tls>) -> TlsAcceptor {
        if self.loaded().looks.begin() {
            let looking = Arc::clone(self);
            if spawn_blocking(move || looking.look()).await.is_err() {
                // It has said why it panicked, and nobody looks any more.
            }
        }
        TlsAcceptor::from(Arc::clone(&self.loaded().config))
    }

    /// Blocks, for as long as the files do.
    fn look(&self) {
        let written = written(&self.certificate, &self.key);
        let new = if self.loaded().written == written {
            None
        } else {
            // While only one of the two is new, or half of one is there, the old pair goes on.
            Some(load(&self.certificate, &self.key))
        };
        let mut loaded = self.loaded();
        loaded.looks.is_under_way = false;
        match new {
            None => {}
            Some(Ok(new)) => *loaded = new,
            Some(Err(error)) if loaded.looks.is_worth_telling(written) => {
                let message =
                    format!("failed to {}; the certificate from before stays in use", chain(&error));
                self.events.emit(&Event::Warning { message: &message });
            }
            Some(Err(_)) => {}
        }
    }

    /// Nothing that panics is done while it is held.
    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Looks {
    fn begin(&mut self) -> bool {
        let is_due = !self.is_under_way && self.last.elapsed() > LOOK;
        if is_due {
            *self = Looks { last: Instant::now(), is_under_way: true, ..*self };
        }
        is_due
    }

    /// Once, and not at the first look: somebody may be writing them.
    fn is_worth_telling(&mut self, written: Written) -> bool {
        let (is_same, told) = self.useless.map_or((false, false), |(it, told)| (it == written, told));
        self.useless = Some((written, is_same));
        is_same && !told
    }
}

fn written(certificate: &Path, key: &Path) -> Written {
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
    let looks = Looks { last: Instant::now(), is_under_way: false, useless: None };
    Ok(Loaded { written, config: Arc::new(config), looks })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(bytes),
        Err(source) => Err(TlsError::Read { path: path.to_owned(), source }),
    }
}
