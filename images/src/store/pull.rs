//! Pulling: events, options and errors.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::archive::ArchiveError;
use crate::digest::Digest;
use crate::disk::DiskFull;
use crate::layer::IndexLayerError;
use crate::limits::Limits;
use crate::manifest::Platform;
use crate::registry::{Access, RegistryError};

use super::StoreError;
use super::ingest::IngestError;

/// What a pull may do.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// Bounds on what comes in.
    pub limits: Limits,
    /// Hosts and credentials.
    pub access: Access,
    /// Which image of several is taken.
    pub platform: Platform,
    /// Ends the pull from elsewhere.
    pub cancel: Cancel,
}

impl PullOptions {
    /// The default limits and this host's platform.
    pub fn new(access: Access) -> PullOptions {
        PullOptions {
            limits: Limits::default(),
            access,
            platform: Platform::of_host(),
            cancel: Cancel::default(),
        }
    }
}

/// Tells a pull, its tasks and its threads to end. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    shared: Arc<CancelState>,
}

#[derive(Debug, Default)]
struct CancelState {
    flag: AtomicBool,
    changed: Notify,
}

impl Cancel {
    /// Ends whoever shares it; more than once is once.
    pub fn cancel(&self) {
        self.shared.flag.store(true, Ordering::Release);
        self.shared.changed.notify_waiters();
    }

    /// Whether it has been cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.shared.flag.load(Ordering::Acquire)
    }

    /// Waits until it is cancelled.
    pub async fn cancelled(&self) {
        let changed = self.shared.changed.notified();
        tokio::pin!(changed);
        // Registered before the flag is read, so that no call falls between the two.
        changed.as_mut().enable();
        if !self.is_cancelled() {
            changed.await;
        }
    }

    /// The flag, for code that knows nothing of pulls.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.shared.flag
    }
}

/// How a pull goes on. Layers that are in the store already raise no event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullEvent {
    /// A layer is on its way.
    LayerStarted {
        /// The first 12 digits of its blob's digest, as Docker shows it.
        id: String,
        /// Bytes to fetch.
        total_bytes: u64,
    },
    /// More of it has arrived; at most ten a second for each layer.
    LayerProgress {
        /// As in `LayerStarted`.
        id: String,
        /// Bytes so far.
        bytes: u64,
        /// Bytes to fetch.
        total_bytes: u64,
    },
    /// It is verified and in the store.
    LayerDone {
        /// As in `LayerStarted`.
        id: String,
        /// How long that took.
        took: Duration,
    },
    /// A line for the log, e.g. `Digest: sha256:…`.
    Status(String),
}

/// What a caller can do about a failed pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullErrorKind {
    /// The name names nothing that could be pulled.
    BadName,
    /// There is no such image.
    NotFound,
    /// The registry wants (other) credentials.
    Unauthorized,
    /// What came is not what it claims to be, or not allowed.
    Refused,
    /// The registry cannot be reached, or does not answer properly; later may be better.
    Unreachable,
    /// No space in the store.
    DiskFull,
    /// Cancelled by the caller.
    Cancelled,
    /// This host is at fault.
    Host,
}

/// Why an image could not be pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry does not give it, or gives something else.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The archive does not hold it, or holds something else.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A layer is not what it should be, or cannot be stored.
    #[error("take in layer {layer}")]
    Layer {
        /// The digest of its blob.
        layer: Digest,
        /// What went wrong.
        source: IngestError,
    },
    /// Too little space for the layers that are missing.
    #[error(transparent)]
    DiskFull(#[from] DiskFull),
    /// The store itself failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It took too long as a whole.
    #[error("pull {name}: not done after {limit:?}")]
    TimeLimit {
        /// The image.
        name: String,
        /// The limit.
        limit: Duration,
    },
    /// The caller cancelled it.
    #[error("pull {name}: cancelled")]
    Cancelled {
        /// The image.
        name: String,
    },
}

impl PullError {
    /// What a caller can do about it.
    pub fn kind(&self) -> PullErrorKind {
        match self {
            PullError::Registry(error) => registry_kind(error),
            PullError::Archive(error) => archive_kind(error),
            PullError::Layer { source, .. } => layer_kind(source),
            PullError::DiskFull(_) => PullErrorKind::DiskFull,
            PullError::Store(error) => error.pull_kind(),
            PullError::TimeLimit { .. } => PullErrorKind::Unreachable,
            PullError::Cancelled { .. } => PullErrorKind::Cancelled,
        }
    }
}

fn registry_kind(error: &RegistryError) -> PullErrorKind {
    match error {
        RegistryError::NotFound { .. } => PullErrorKind::NotFound,
        RegistryError::Unauthorized { .. }
        | RegistryError::Challenge { .. }
        | RegistryError::ForeignRealm { .. }
        | RegistryError::NoToken { .. } => PullErrorKind::Unauthorized,
        RegistryError::Resolve { .. }
        | RegistryError::Connect { .. }
        | RegistryError::Tls { .. }
        | RegistryError::Timeout { .. }
        | RegistryError::TooSlow { .. }
        | RegistryError::Http { .. }
        | RegistryError::Status { .. }
        | RegistryError::Abandoned { .. } => PullErrorKind::Unreachable,
        RegistryError::Authorities { .. } => PullErrorKind::Host,
        RegistryError::Url { .. }
        | RegistryError::Downgrade { .. }
        | RegistryError::PlainHttp { .. }
        | RegistryError::Redirects { .. }
        | RegistryError::Address { .. }
        | RegistryError::Headers { .. }
        | RegistryError::TooLong { .. }
        | RegistryError::Size { .. }
        | RegistryError::Range { .. }
        | RegistryError::StatedDigest { .. }
        | RegistryError::Digest { .. }
        | RegistryError::Manifest { .. }
        | RegistryError::Config { .. } => PullErrorKind::Refused,
    }
}

fn archive_kind(error: &ArchiveError) -> PullErrorKind {
    match error {
        ArchiveError::Open { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
            PullErrorKind::DiskFull
        }
        ArchiveError::Open { .. } | ArchiveError::NoSuchImage { .. } => PullErrorKind::NotFound,
        ArchiveError::Several { .. } => PullErrorKind::BadName,
        ArchiveError::DiskFull(_) => PullErrorKind::DiskFull,
        ArchiveError::Read { .. } => PullErrorKind::Host,
        ArchiveError::Format { .. }
        | ArchiveError::Parse { .. }
        | ArchiveError::Missing { .. }
        | ArchiveError::Twice { .. }
        | ArchiveError::TooLarge { .. }
        | ArchiveError::Digest { .. }
        | ArchiveError::Manifest { .. }
        | ArchiveError::Config { .. } => PullErrorKind::Refused,
    }
}

fn layer_kind(error: &IngestError) -> PullErrorKind {
    match error {
        IngestError::DiskFull(_) => PullErrorKind::DiskFull,
        IngestError::Keep(source) | IngestError::Index(IndexLayerError::Write { source, .. })
            if source.kind() == io::ErrorKind::StorageFull =>
        {
            PullErrorKind::DiskFull
        }
        IngestError::Keep(_) | IngestError::Input(_) | IngestError::Index(IndexLayerError::Write { .. }) => {
            PullErrorKind::Host
        }
        IngestError::Cancelled => PullErrorKind::Cancelled,
        IngestError::TooShort { .. }
        | IngestError::TooLong { .. }
        | IngestError::Digest { .. }
        | IngestError::DiffId { .. }
        | IngestError::Inflate(_)
        | IngestError::TooLarge { .. }
        | IngestError::Index(_) => PullErrorKind::Refused,
    }
}
