//! Why the store, or a pull into it, failed.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use crate::archive::ArchiveError;
use crate::digest::Digest;
use crate::disk::DiskFull;
use crate::erofs::WriteImageError;
use crate::layer::{IndexLayerError, ReadIndexError};
use crate::mount::MountError;
use crate::registry::RegistryError;
use crate::tree::MergeError;

use super::ingest::IngestError;

/// Why the store itself failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused something.
    #[error("{action} {path:?} in the image store")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A newer program's store.
    #[error(
        "open the image store {root:?}: it has version {found} and this program knows {known}; use the newer \
         program, or another data directory"
    )]
    Version {
        /// The store.
        root: PathBuf,
        /// What its stamp says.
        found: u32,
        /// What this program makes.
        known: u32,
    },
    /// A store whose version nobody can tell.
    #[error(
        "open the image store {root:?}: its file \"version\" is damaged, it says {found:?}; move the directory away, \
         and images are pulled again"
    )]
    Stamp {
        /// The store.
        root: PathBuf,
        /// What its stamp says, shortened.
        found: String,
    },
    /// An older version's store that an older program is using, so that it cannot be made anew.
    #[error("open the image store {root:?}: an older program is using it; wait until its tasks are done")]
    Busy {
        /// The store.
        root: PathBuf,
    },
    /// Somebody else holds a lock, and goes on holding it.
    #[error("lock {path:?} in the image store: it is held by {holder}")]
    Locked {
        /// What is locked.
        path: PathBuf,
        /// Who it is.
        holder: String,
    },
    /// Nobody waits for a lock, or for an answer, any more.
    #[error("use {path:?} in the image store: the wait for it was interrupted")]
    Unwanted {
        /// What is locked, or was to be looked at.
        path: PathBuf,
    },
    /// Someone has removed files of the store by hand.
    #[error("use image {name:?}: it has been removed meanwhile; pull it again")]
    Gone {
        /// Its name.
        name: String,
    },
    /// No thread to work on.
    #[error("start a thread for the image store")]
    Thread {
        /// Why not.
        source: io::Error,
    },
    /// A layer's index cannot be read.
    #[error("read {path:?} in the image store")]
    Index {
        /// The index.
        path: PathBuf,
        /// Why not.
        source: ReadIndexError,
    },
    /// The layers do not fit together.
    #[error(transparent)]
    Merge {
        /// Why.
        source: MergeError,
    },
    /// The metadata image cannot be written.
    #[error("make the file system of image {id}")]
    Tree {
        /// The image.
        id: Digest,
        /// Why not.
        source: WriteImageError,
    },
    /// The image cannot be mounted.
    #[error("mount image {name:?}")]
    Mount {
        /// Its name.
        name: String,
        /// What failed.
        source: MountError,
    },
    /// The file system of the image does not fit on the disk.
    #[error(transparent)]
    DiskFull(#[from] DiskFull),
}

impl StoreError {
    /// The file system refused `action` on `path`. What is of another kind than the store makes there is someone
    /// else's: it is not removed, and said so.
    pub(super) fn file<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl Fn(io::Error) -> StoreError + Copy + 'a {
        move |source| {
            let advice = match source.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::ISDIR | Errno::LOOP | Errno::NXIO) => "it is no regular file; move it away",
                Some(Errno::NOTDIR) => "it is, or lies in, something that is no directory; move that away",
                Some(Errno::EXIST) => "something else has that name; move it away",
                _ => return StoreError::File { action, path: path.to_owned(), source },
            };
            StoreError::File { action, path: path.to_owned(), source: io::Error::other(advice) }
        }
    }

    /// What it means for a pull.
    pub(super) fn pull_kind(&self) -> PullErrorKind {
        match self {
            StoreError::DiskFull(_) => PullErrorKind::DiskFull,
            StoreError::Unwanted { .. } => PullErrorKind::Cancelled,
            StoreError::Locked { .. } | StoreError::Busy { .. } => PullErrorKind::InUse,
            StoreError::Merge { source: MergeError::TooLarge { .. } | MergeError::NoLinkTarget { .. } } => {
                PullErrorKind::Refused
            }
            StoreError::File { .. }
            | StoreError::Version { .. }
            | StoreError::Stamp { .. }
            | StoreError::Gone { .. }
            | StoreError::Thread { .. }
            | StoreError::Index { .. }
            | StoreError::Merge { source: MergeError::Index { .. } }
            | StoreError::Tree { .. }
            | StoreError::Mount { .. } => PullErrorKind::Host,
        }
    }
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
    /// Too many files are open; later may be better.
    OpenFiles,
    /// Somebody else goes on holding what it takes of the store; later, or on another host, may be better.
    InUse,
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
    /// A member of a streamed archive that looks like a layer cannot be one, or cannot be stored.
    #[error("take in {member:?} of image archive {archive:?}")]
    Member {
        /// The archive.
        archive: String,
        /// The member.
        member: String,
        /// What went wrong.
        source: IngestError,
    },
    /// A streamed archive has come in part; where it comes from knows why.
    #[error("read image archive {archive:?}: its bytes stop coming")]
    Broken {
        /// The archive.
        archive: String,
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
        if let Some(kind) = lack(self) {
            return kind;
        }
        match self {
            PullError::Registry(error) => registry_kind(error),
            PullError::Archive(error) => archive_kind(error),
            PullError::Layer { source, .. } | PullError::Member { source, .. } => layer_kind(source),
            PullError::Broken { .. } => PullErrorKind::Unreachable,
            PullError::DiskFull(_) => PullErrorKind::DiskFull,
            PullError::Store(error) => error.pull_kind(),
            PullError::TimeLimit { .. } => PullErrorKind::Unreachable,
            PullError::Cancelled { .. } => PullErrorKind::Cancelled,
        }
    }
}

/// What is lacking at the bottom of it, if that is it: room, or files that may be open, in this process or on the host.
fn lack(error: &PullError) -> Option<PullErrorKind> {
    let mut causes = std::iter::successors(Some(error as &dyn Error), |error| (*error).source());
    causes.find_map(|cause| {
        let errno = cause.downcast_ref::<io::Error>()?.raw_os_error()?;
        match Errno::from_raw_os_error(errno) {
            Errno::MFILE | Errno::NFILE => Some(PullErrorKind::OpenFiles),
            Errno::NOSPC => Some(PullErrorKind::DiskFull),
            _ => None,
        }
    })
}

fn registry_kind(error: &RegistryError) -> PullErrorKind {
    match error {
        RegistryError::NotFound { .. } | RegistryError::Foreign { .. } => PullErrorKind::NotFound,
        RegistryError::Unauthorized { .. }
        | RegistryError::Challenge { .. }
        | RegistryError::ForeignRealm { .. }
        | RegistryError::TokenRedirect { .. }
        | RegistryError::ClientCertificate { .. }
        | RegistryError::NoToken { .. } => PullErrorKind::Unauthorized,
        RegistryError::Resolve { .. }
        | RegistryError::Connect { .. }
        | RegistryError::Proxy { .. }
        | RegistryError::ProxyStatus { .. }
        | RegistryError::Tls { .. }
        | RegistryError::Timeout { .. }
        | RegistryError::TooSlow { .. }
        | RegistryError::Http { .. }
        | RegistryError::Status { .. }
        | RegistryError::Abandoned { .. } => PullErrorKind::Unreachable,
        RegistryError::Pem { .. } | RegistryError::Credentials(_) => PullErrorKind::Host,
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
        ArchiveError::Open { .. } | ArchiveError::NoSuchImage { .. } | ArchiveError::Foreign { .. } => {
            PullErrorKind::NotFound
        }
        ArchiveError::Several { .. } => PullErrorKind::BadName,
        ArchiveError::DiskFull(_) => PullErrorKind::DiskFull,
        ArchiveError::Read { .. } => PullErrorKind::Host,
        ArchiveError::Format { .. }
        | ArchiveError::Parse { .. }
        | ArchiveError::Missing { .. }
        | ArchiveError::Twice { .. }
        | ArchiveError::NotOne { .. }
        | ArchiveError::NotOfKind { .. }
        | ArchiveError::DiffId { .. }
        | ArchiveError::TooLarge { .. }
        | ArchiveError::Digest { .. }
        | ArchiveError::Manifest { .. }
        | ArchiveError::Config { .. } => PullErrorKind::Refused,
    }
}

fn layer_kind(error: &IngestError) -> PullErrorKind {
    match error {
        IngestError::DiskFull(_) => PullErrorKind::DiskFull,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_open_files_or_of_room_passes_whatever_it_hits() {
        let path = Path::new("/store/lock");
        let id = Digest::of(b"");
        let errors = |errno: Errno| {
            let tree = WriteImageError::Write(errno.into());
            [
                PullError::Store(StoreError::file("open", path)(errno.into())),
                PullError::Store(StoreError::Tree { id: id.clone(), source: tree }),
                PullError::Archive(ArchiveError::Open { path: path.to_owned(), source: errno.into() }),
                PullError::Layer { layer: id.clone(), source: IngestError::Keep(errno.into()) },
            ]
        };
        for (errno, kind) in [
            (Errno::MFILE, PullErrorKind::OpenFiles),
            (Errno::NFILE, PullErrorKind::OpenFiles),
            (Errno::NOSPC, PullErrorKind::DiskFull),
        ] {
            errors(errno).iter().for_each(|error| assert_eq!(error.kind(), kind, "{error:?}"));
        }
        let other = PullError::Store(StoreError::file("open", path)(Errno::ACCESS.into()));
        assert_eq!(other.kind(), PullErrorKind::Host);
    }

    #[test]
    fn a_lock_that_somebody_else_holds_is_not_this_hosts_fault() {
        let locked = StoreError::Locked { path: "/store/lock".into(), holder: "process 4711".to_owned() };
        assert_eq!(PullError::Store(locked).kind(), PullErrorKind::InUse);
    }
}
