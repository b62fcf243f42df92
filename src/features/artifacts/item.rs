//! One entry of the payload, as it becomes artifacts.
//!
//! ```text
//!   what is there                                  artifact                         the task
//!   a file, or files below a directory             their bytes
//!   nothing                                        file-missing-on-worker
//!   something else than the payload says           invalid-resource-on-worker
//!   too many bytes, files or directories           too-large-file-on-worker
//!   what the disk does not give                    file-not-readable-on-worker      fails
//!   what storage or queue do not take              none                             fails
//!   a file whose name is no artifact's             none                             fails
//!   a file that has a name of the worker's own     none
//! ```
//!
//! The log has a line for each but the first, and one does not keep the others from being stored.

use std::fs::File;
use std::future::ready;
use std::io;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use rustix::io::Errno;

use super::Stopped;
use super::listings::{Listings, NotListed};
use crate::artifact::content::{content_encoding, content_type};
use crate::artifact::{Description, Missing, Patience, PublishError, Publisher, Source};
use crate::payload::ArtifactSource;
use crate::queue::ErrorReason;
use crate::queue::artifact_name::ArtifactName;
use crate::root::{Found, Kind, Listing, WalkError};
use crate::text::{chain, escaped};
use crate::timestamp::Timestamp;

/// What stands at the path of an entry.
enum Looked {
    /// A file, where one is to be.
    File(Content),
    /// A directory, where one is to be.
    Directory(Found),
    /// Something else.
    Other(Kind),
}

/// A regular file.
enum Content {
    /// Opened for reading.
    Open(File),
    /// Not opened, as it has so many bytes.
    TooLarge(u64),
}

/// The artifact could not be stored; the log says why.
pub(super) struct NotStored;

/// What the entries of one payload share while they are stored.
pub(super) struct Sharing {
    patience: Patience,
    listings: Listings,
}

impl Sharing {
    pub(super) fn of(publisher: &Publisher) -> Sharing {
        Sharing { patience: publisher.patience(), listings: Listings::default() }
    }

    /// The rest is not tried when one was interrupted.
    pub(super) fn check(&self) -> Result<(), NotStored> {
        if self.patience.is_over() { Err(NotStored) } else { Ok(()) }
    }
}

/// One entry of the payload.
pub(super) struct Item<'a> {
    pub(super) name: &'a ArtifactName,
    pub(super) declared: &'static str,
    pub(super) path: &'a str,
    /// The entries of the payload whose names lie below this one's.
    pub(super) closer: Vec<Closer<'a>>,
    pub(super) expires: Timestamp,
    pub(super) sharing: &'a Sharing,
}

/// An entry whose name lies below that of another: whichever is stored first, the names that it gives are its own.
pub(super) struct Closer<'a> {
    pub(super) name: &'a ArtifactName,
    pub(super) source: &'a ArtifactSource,
}

impl Closer<'_> {
    /// Whether it gives this name.
    fn covers(&self, name: &ArtifactName) -> bool {
        match self.source {
            ArtifactSource::File(_) => name == self.name,
            ArtifactSource::Directory(_) | ArtifactSource::Volume(_) => {
                name == self.name || name.is_below(self.name)
            }
        }
    }
}

impl Item<'_> {
    /// Stores what `find` finds at its path.
    pub(super) async fn publish(
        &self,
        find: impl FnOnce() -> io::Result<Found> + Send + 'static,
        stopped: &Stopped<'_>,
    ) -> Result<(), NotStored> {
        let (declared, most) = (self.declared, stopped.publisher.config().artifact_bytes());
        match off_the_loop(move || look(find()?, declared, most)).await {
            Ok(Looked::File(content)) => self.file(self.name, self.path, content, stopped).await,
            Ok(Looked::Directory(top)) => self.directory(top, stopped).await,
            Ok(Looked::Other(actual)) => self.mismatch(actual, stopped).await,
            Err(error) => self.unread(self.name, self.path, &error, stopped).await,
        }
    }

    /// Stores one regular file as `name`; `path` decides on its type.
    async fn file(
        &self,
        name: &ArtifactName,
        path: &str,
        content: Content,
        stopped: &Stopped<'_>,
    ) -> Result<(), NotStored> {
        let file = match content {
            Content::Open(file) => file,
            Content::TooLarge(bytes) => return self.file_too_large(name, bytes, stopped).await,
        };
        let description = Description {
            name: name.clone(),
            content_type: content_type(path),
            content_encoding: content_encoding(path, stopped.publisher.config()),
            expires: self.expires,
        };
        self.sharing.check()?;
        match stopped.publisher.publish(description, Source::Task(file)).await {
            Ok(()) => Ok(()),
            Err(PublishError::Read(error)) => self.unread(name, path, &error, stopped).await,
            Err(error) => self.not_published(name, error, stopped),
        }
    }

    /// Stores every regular file below a directory.
    async fn directory(&self, found: Found, stopped: &Stopped<'_>) -> Result<(), NotStored> {
        let (top, Sharing { patience, listings }) = (Arc::new(found), self.sharing);
        let (listing, _room) = match listings.list(&top, patience).await {
            Ok(listed) => listed,
            Err(NotListed::Walk(error)) => return self.too_large(&error, stopped).await,
            Err(NotListed::Panicked(error)) => {
                return Err(self.not_stored(self.name, &error.to_string(), stopped));
            }
            Err(NotListed::Interrupted) => return Err(NotStored),
        };
        let Listing { files, unnamable, unreadable } = listing;
        let mut all = Ok(());
        for name in unnamable {
            all = Err(self.unnamable(&name, "be UTF-8", stopped));
        }
        for (below, error) in unreadable {
            all = all.and(self.unread_below(&below, &error, stopped).await);
        }
        let members = self.members(top, files, stopped).await;
        all.and(members)
    }

    /// Stores the files of a directory, several at a time.
    pub(super) async fn members(
        &self,
        top: Arc<Found>,
        files: Vec<String>,
        stopped: &Stopped<'_>,
    ) -> Result<(), NotStored> {
        let top = &top;
        let publish = |below: String| async move {
            self.sharing.check()?;
            self.member(top, &below, stopped).await
        };
        let published = stream::iter(files).map(publish).buffer_unordered(stopped.publisher.at_once());
        published.fold(Ok(()), |all, one| ready(all.and(one))).await
    }

    async fn member(&self, top: &Arc<Found>, below: &str, stopped: &Stopped<'_>) -> Result<(), NotStored> {
        let name = match self.name.join(below) {
            Ok(name) => name,
            Err(error) => return Err(self.unnamable(below, &error.to_string(), stopped)),
        };
        if let Some(other) = self.closer.iter().find(|other| other.covers(&name)) {
            self.leave_out(&name, &format!("the artifact \"{}\" of the payload", other.name), stopped);
            return Ok(());
        }
        let (top, path, most) =
            (Arc::clone(top), below.to_owned(), stopped.publisher.config().artifact_bytes());
        match off_the_loop(move || open(&top.find_below(&path)?, most)).await {
            Ok(content) => self.file(&name, below, content, stopped).await,
            Err(error) => self.unread(&name, below, &error, stopped).await,
        }
    }

    /// What a walk could not look at; the directory itself if `below` is empty.
    async fn unread_below(
        &self,
        below: &str,
        error: &io::Error,
        stopped: &Stopped<'_>,
    ) -> Result<(), NotStored> {
        if below.is_empty() {
            return self.unread(self.name, self.path, error, stopped).await;
        }
        match self.name.join(below) {
            Ok(name) => self.unread(&name, below, error, stopped).await,
            Err(why) => Err(self.unnamable(below, &why.to_string(), stopped)),
        }
    }

    fn unnamable(&self, below: &str, why: &str, stopped: &Stopped<'_>) -> NotStored {
        let text = format!(
            "Error uploading \"{}/{}\". An artifact's name must {why}; rename the file.",
            self.name,
            escaped(below)
        );
        stopped.log.error(&text);
        NotStored
    }

    fn leave_out(&self, name: &ArtifactName, owner: &str, stopped: &Stopped<'_>) {
        let text = format!(
            "Error uploading \"{name}\". That is the name of {owner}; the file is left out, rename it."
        );
        stopped.log.error(&text);
    }

    /// There is nothing at `path`, which does not fail the task, or it cannot be read, which does.
    async fn unread(
        &self,
        name: &ArtifactName,
        path: &str,
        error: &io::Error,
        stopped: &Stopped<'_>,
    ) -> Result<(), NotStored> {
        if let Some(why) = absence(error) {
            let text = format!("Artifact \"{name}\" not found at \"{}\": {why}", escaped(path));
            stopped.log.info(&text);
            let missing = Missing { reason: ErrorReason::FileMissingOnWorker, message: &text };
            return self.error(name, missing, stopped).await;
        }
        let text = format!("Error uploading \"{name}\" artifact. Failed to read it: {}", chain(error));
        stopped.log.error(&text);
        let missing = Missing { reason: ErrorReason::FileNotReadableOnWorker, message: &text };
        self.error(name, missing, stopped).await.and(Err(NotStored))
    }

    async fn mismatch(&self, actual: Kind, stopped: &Stopped<'_>) -> Result<(), NotStored> {
        let text = format!(
            "Error uploading \"{}\". Expected artifact to be a \"{}\" but was \"{}\"",
            self.name,
            self.declared,
            actual.word()
        );
        stopped.log.error(&text);
        self.error(
            self.name,
            Missing { reason: ErrorReason::InvalidResourceOnWorker, message: &text },
            stopped,
        )
        .await
    }

    async fn file_too_large(
        &self,
        name: &ArtifactName,
        bytes: u64,
        stopped: &Stopped<'_>,
    ) -> Result<(), NotStored> {
        let most = stopped.publisher.config().artifact_bytes();
        let text = format!(
            "Error uploading \"{name}\". It is {bytes} bytes long, and an artifact may be {most} (artifacts.maxBytes)."
        );
        stopped.log.error(&text);
        self.error(name, Missing { reason: ErrorReason::TooLargeFileOnWorker, message: &text }, stopped).await
    }

    async fn too_large(&self, error: &WalkError, stopped: &Stopped<'_>) -> Result<(), NotStored> {
        let text = format!("Error uploading \"{}\". Failed to {error}", self.name);
        stopped.log.error(&text);
        self.error(self.name, Missing { reason: ErrorReason::TooLargeFileOnWorker, message: &text }, stopped)
            .await
    }

    /// Publishes why there is no artifact, which does not fail the task.
    async fn error(
        &self,
        name: &ArtifactName,
        missing: Missing<'_>,
        stopped: &Stopped<'_>,
    ) -> Result<(), NotStored> {
        match stopped.publisher.publish_error(name, missing, self.expires).await {
            Ok(()) => Ok(()),
            Err(error) => self.not_published(name, error, stopped),
        }
    }

    fn not_published(
        &self,
        name: &ArtifactName,
        error: PublishError,
        stopped: &Stopped<'_>,
    ) -> Result<(), NotStored> {
        match error {
            PublishError::Reserved { owner } => {
                self.leave_out(name, &format!("this task's {owner}"), stopped);
                Ok(())
            }
            // The footer says that the task was interrupted; no line about each artifact.
            PublishError::Interrupted => Err(NotStored),
            PublishError::Read(_)
            | PublishError::Store(_)
            | PublishError::Make(_)
            | PublishError::Queue(_)
            | PublishError::Upload(_)
            | PublishError::Nowhere => {
                Err(self.not_stored(name, &format!("Failed to {}", chain(&error)), stopped))
            }
        }
    }

    fn not_stored(&self, name: &ArtifactName, why: &str, stopped: &Stopped<'_>) -> NotStored {
        stopped.log.error(&format!("Error uploading \"{name}\" artifact. {why}"));
        NotStored
    }
}

/// A lookup, on a thread that may wait: the disk takes its time for each step of one.
async fn off_the_loop<T: Send + 'static>(
    lookup: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(lookup).await.map_err(io::Error::other).flatten()
}

/// Looks at what was found for an entry. Blocks.
fn look(found: Found, declared: &str, most: u64) -> io::Result<Looked> {
    match (declared, found.kind()) {
        ("file", Kind::File) => Ok(Looked::File(open(&found, most)?)),
        ("directory" | "volume", Kind::Directory) => Ok(Looked::Directory(found)),
        (_, actual) => Ok(Looked::Other(actual)),
    }
}

/// Opens a regular file, unless it is longer than `most`. Blocks.
fn open(found: &Found, most: u64) -> io::Result<Content> {
    let bytes = found.bytes();
    if bytes > most { Ok(Content::TooLarge(bytes)) } else { Ok(Content::Open(found.open_file()?)) }
}

/// What an error of a lookup says if it means that nothing is there, rather than that looking failed.
fn absence(error: &io::Error) -> Option<&'static str> {
    match Errno::from_io_error(error)? {
        Errno::NOENT => Some("no such file or directory"),
        Errno::NOTDIR => Some("a component of the path is no directory"),
        Errno::LOOP => Some("too many levels of symbolic links"),
        Errno::NAMETOOLONG => Some("a component of the path is too long"),
        _ => None,
    }
}
