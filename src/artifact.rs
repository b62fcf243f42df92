//! Artifacts: what a task leaves behind, as it is published.
//!
//! [`Publisher`] is the only way out: it creates the artifact in the queue, delivers its bytes to
//! the [`Store`], and keeps the list that `resolution.json` shows. It may be asked for several at
//! once; what the worker itself publishes has its names for itself.

mod body;
mod connect;
pub mod content;
mod copy;
mod delivery;
#[cfg(test)]
mod deployment;
pub mod destination;
mod growing_log;
mod gzip;
mod made;
mod pieces;
mod place;
mod record;
mod spooled;
#[cfg(test)]
pub(crate) mod storage;
mod store;
pub mod upload;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OnceCell, Semaphore};

pub(crate) use connect::tls;
pub use content::{ContentEncoding, LOG_TYPE};
pub use copy::{CopyError, Patience};
pub use destination::{Destination, DestinationError, Source, Stored};
pub use made::{Make, MakeError};
pub use place::RESOLUTION;
pub use record::ArtifactRecord;
pub use store::Store;

use self::delivery::{off_the_loop, until_over, until_over_for};
use self::growing_log::{GrowingLog, Scratch};
use self::record::Records;
use self::spooled::{Spooled, Spooler};
use self::upload::UploadError;

use crate::config::{ArtifactStorage, ConfigFile};
use crate::event::{Events, RunEvent, RunEvents};
use crate::interrupt::{Interrupt, Interrupts};
use crate::limits;
use crate::queue::artifact_name::ArtifactName;
use crate::queue::{ArtifactContent, ErrorReason, QueueError, RunQueue, StorageType};
use crate::task_log::reader::LogReader;
use crate::text::chain;
use crate::timestamp::Timestamp;

/// How long an attempt at a link has when nobody has patience any more.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What an artifact is to be called and how it is described.
#[derive(Clone, Debug)]
pub struct Description {
    /// Its name.
    pub name: ArtifactName,
    /// Its MIME type.
    pub content_type: &'static str,
    /// How its bytes are stored.
    pub content_encoding: ContentEncoding,
    /// When it may be deleted.
    pub expires: Timestamp,
}

/// Why an artifact could not be published; fits "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Its bytes cannot be read.
    #[error("read it: {0}")]
    Read(#[source] io::Error),
    /// They cannot be written where the operator wants them, or where they are compressed.
    #[error("store it: {0}")]
    Store(#[source] io::Error),
    /// Whoever makes it cannot.
    #[error("{}", chain(.0.as_ref()))]
    Make(MakeError),
    /// The task was interrupted meanwhile.
    #[error("store it: the task was interrupted")]
    Interrupted,
    /// The worker itself publishes something under this name.
    #[error("publish it: that is the name of this task's {owner}")]
    Reserved {
        /// What.
        owner: &'static str,
    },
    /// The queue refused it.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// It could not be uploaded.
    #[error(transparent)]
    Upload(UploadError),
    /// The queue has not said where its bytes are to go.
    #[error("upload it: the queue says nothing of where to")]
    Nowhere,
}

impl From<UploadError> for PublishError {
    fn from(error: UploadError) -> PublishError {
        match error {
            UploadError::Interrupted => PublishError::Interrupted,
            UploadError::Read(error) => PublishError::Read(error),
            error @ (UploadError::Target(_)
            | UploadError::Refused { .. }
            | UploadError::Unavailable { .. }) => PublishError::Upload(error),
        }
    }
}

impl From<CopyError> for PublishError {
    fn from(error: CopyError) -> PublishError {
        match error {
            CopyError::Read(error) => PublishError::Read(error),
            CopyError::Write(error) => PublishError::Store(error),
            CopyError::Make(error) => PublishError::Make(error),
            CopyError::Interrupted => PublishError::Interrupted,
        }
    }
}

/// Publishes the artifacts of one run.
#[derive(Debug)]
pub struct Publisher {
    queue: RunQueue,
    expires: Timestamp,
    store: Store,
    /// Those who store at the same time.
    storing: Semaphore,
    reserved: Vec<(ArtifactName, &'static str)>,
    spooler: Spooler,
    /// The log, once it is compressed.
    log: OnceCell<Spooled>,
    /// What compresses it while it is written, until it is needed.
    growing_log: Mutex<Option<GrowingLog>>,
    config: Arc<ConfigFile>,
    events: RunEvents,
    interrupts: Interrupts,
    records: Mutex<Records>,
}

/// What a [`Publisher`] is made of.
#[derive(Debug)]
pub struct PublisherParts {
    /// Where the run is known.
    pub queue: RunQueue,
    /// When the task may be forgotten.
    pub expires: Timestamp,
    /// Where bytes go.
    pub store: Store,
    /// The names that only the worker publishes, and what for.
    pub reserved: Vec<(ArtifactName, &'static str)>,
    /// A directory on the data directory's disk, for what is compressed.
    pub scratch: PathBuf,
    /// The log that will be published, while it is still written.
    pub log: Option<LogReader>,
    /// What is compressed.
    pub config: Arc<ConfigFile>,
    /// Who hears of it.
    pub events: Events,
    /// What ends storing.
    pub interrupts: Interrupts,
}

impl Publisher {
    /// A publisher that has published nothing yet. Inside a tokio runtime only.
    pub fn new(parts: PublisherParts) -> Publisher {
        // Only bytes for S3 are stored compressed, and a directory keeps the log as it is.
        let is_compressed = parts.store.storage(&parts.config) == ArtifactStorage::S3
            && matches!(parts.store, Store::Queue(_));
        let growing_log = parts.log.filter(|_| is_compressed).map(|log| {
            let scratch = Scratch {
                directory: parts.scratch.clone(),
                keep_free: parts.config.low_mark_bytes(),
                patience: Patience::with_log(&parts.interrupts),
            };
            GrowingLog::compress(log, scratch)
        });
        Publisher {
            storing: Semaphore::new(parts.store.at_once()),
            expires: parts.expires,
            store: parts.store,
            reserved: parts.reserved,
            spooler: Spooler::in_directory(parts.scratch),
            log: OnceCell::new(),
            growing_log: Mutex::new(growing_log),
            config: parts.config,
            events: parts.events.of(parts.queue.run()),
            queue: parts.queue,
            interrupts: parts.interrupts,
            records: Mutex::default(),
        }
    }

    /// When the task, and what has no expiry of its own, may be forgotten.
    pub fn task_expires(&self) -> Timestamp {
        self.expires
    }

    /// The configuration in force.
    pub fn config(&self) -> &ConfigFile {
        &self.config
    }

    /// What has interrupted the task so far.
    pub fn interrupt(&self) -> Option<Interrupt> {
        self.interrupts.current()
    }

    /// How long a stage stores files of the task's: until something interrupts that has not done so yet.
    pub fn patience(&self) -> Patience {
        Patience::with_artifact(&self.interrupts)
    }

    /// How many artifacts are stored at the same time; more that are handed in wait.
    pub fn at_once(&self) -> usize {
        self.store.at_once()
    }

    /// Publishes a regular file's bytes, as long as the file is now.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub async fn publish(&self, what: Description, source: Source) -> Result<(), PublishError> {
        let what = self.as_stored(what);
        let patience = match &source {
            Source::Task(_) => {
                self.refuse_reserved(&what.name)?;
                Patience::with_artifact(&self.interrupts)
            }
            Source::Log(_) | Source::Own(_) => Patience::with_log(&self.interrupts),
        };
        let _of_run = store::permit(&self.storing, &patience).await?;
        let _of_worker = self.store.turn(&source, &patience).await?;
        let stored = match &self.store {
            Store::Directory(destination) => self.keep_here(destination, &what, source, patience).await?,
            Store::Queue(uploader) => {
                let uploading = self.upload(uploader, &what, source, &patience);
                match until_over(&patience, uploading).await {
                    Ok(stored) => stored,
                    Err(error) if self.is_resolved_by_queue(&error) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        };
        self.note_stored(what, stored);
        Ok(())
    }

    /// Publishes where the log can be read while it grows; a link may take the place of that later.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub async fn publish_reference(&self, name: &ArtifactName, url: &str) -> Result<(), PublishError> {
        let content = ArtifactContent::Reference { url: url.to_owned(), content_type: LOG_TYPE.to_owned() };
        self.create_or_ignore(name, self.expires, content).await?;
        self.note(ArtifactRecord {
            storage_type: StorageType::Reference,
            content_type: Some(LOG_TYPE),
            ..empty_record(name.clone(), self.expires)
        });
        Ok(())
    }

    /// Publishes a name that stands for another artifact of this run.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub async fn publish_link(
        &self,
        name: &ArtifactName,
        existing: &ArtifactName,
    ) -> Result<(), PublishError> {
        let content = ArtifactContent::Link { artifact: existing.clone(), content_type: LOG_TYPE.to_owned() };
        let patience = Patience::with_log(&self.interrupts);
        // What it takes the place of leads to a server that will be gone.
        until_over_for(LAST_WORDS, &patience, self.create_or_ignore(name, self.expires, content)).await?;
        let stored_as = match &self.store {
            Store::Directory(destination) => {
                let (destination, new, old) = (Arc::clone(destination), name.clone(), existing.clone());
                off_the_loop(move || Ok(destination.link(&new, &old)?)).await?
            }
            Store::Queue(_) => None,
        };
        self.note(ArtifactRecord {
            storage_type: StorageType::Link,
            stored_as,
            content_type: Some(LOG_TYPE),
            ..empty_record(name.clone(), self.expires)
        });
        Ok(())
    }

    /// Publishes why there is no artifact of that name, which is one of the task's.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub async fn publish_error(
        &self,
        name: &ArtifactName,
        missing: Missing<'_>,
        expires: Timestamp,
    ) -> Result<(), PublishError> {
        self.refuse_reserved(name)?;
        let Missing { reason, message } = missing;
        let message = cut(message, limits::ARTIFACT_MESSAGE_CHARS);
        let content = ArtifactContent::Error { reason, message };
        let patience = Patience::with_artifact(&self.interrupts);
        match until_over(&patience, self.create_or_ignore(name, expires, content)).await {
            // It was created before it turned out to be unreadable, and the queue lets nothing become an error.
            Err(PublishError::Queue(QueueError::Conflict { .. }))
                if reason == ErrorReason::FileNotReadableOnWorker => {}
            created => created?,
        }
        self.events.emit(&RunEvent::ArtifactMissing { name: name.as_str(), reason });
        self.keep(ArtifactRecord {
            storage_type: StorageType::Error,
            reason: Some(reason),
            ..empty_record(name.clone(), expires)
        });
        Ok(())
    }

    /// The hashes of the task's own artifacts that are stored, and of one of the worker's: of their bytes before
    /// compression, in hexadecimal.
    pub fn hashes(&self, own: &str) -> BTreeMap<ArtifactName, String> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let is_reserved = |name: &ArtifactName| self.reserved.iter().any(|(reserved, _)| reserved == name);
        let wanted = records.iter().filter(|it| it.name.as_str() == own || !is_reserved(&it.name));
        wanted.filter_map(|it| Some((it.name.clone(), it.sha256.clone()?))).collect()
    }

    /// What was published, by name.
    pub fn into_records(self) -> Vec<ArtifactRecord> {
        let records = self.records.into_inner().unwrap_or_else(PoisonError::into_inner);
        records.into_list()
    }

    /// A task's file must not pass for what the worker says of the task.
    fn refuse_reserved(&self, name: &ArtifactName) -> Result<(), PublishError> {
        match self.reserved.iter().find(|(reserved, _)| reserved == name) {
            Some((_, owner)) => Err(PublishError::Reserved { owner }),
            None => Ok(()),
        }
    }

    /// Its objects have a hash and no encoding where it is the object service's: what is fetched has to be what was hashed.
    fn as_stored(&self, what: Description) -> Description {
        match self.content(&what).storage_type() {
            StorageType::Object => Description { content_encoding: ContentEncoding::Identity, ..what },
            StorageType::S3 | StorageType::Reference | StorageType::Link | StorageType::Error => what,
        }
    }

    fn note_stored(&self, what: Description, stored: Stored) {
        self.note(ArtifactRecord {
            storage_type: self.content(&what).storage_type(),
            content_type: Some(what.content_type),
            content_encoding: what.content_encoding.header(),
            size: Some(stored.size),
            sha256: stored.sha256,
            stored_as: stored.stored_as,
            ..empty_record(what.name, what.expires)
        });
    }

    fn note(&self, record: ArtifactRecord) {
        self.events.emit(&RunEvent::ArtifactPublished {
            name: record.name.as_str(),
            storage_type: record.storage_type,
            size: record.size,
        });
        self.keep(record);
    }

    fn keep(&self, record: ArtifactRecord) {
        // A panic under the lock leaves the list as it was.
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.keep(record);
    }
}

/// Why there is no artifact.
#[derive(Clone, Copy, Debug)]
pub struct Missing<'a> {
    /// In the queue's words.
    pub reason: ErrorReason,
    /// For people.
    pub message: &'a str,
}

/// The first `most` characters; a text that is longer ends in a sign that it was.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most - 1).chain(['…']).collect(),
    }
}

fn empty_record(name: ArtifactName, expires: Timestamp) -> ArtifactRecord {
    ArtifactRecord {
        name,
        storage_type: StorageType::Error,
        content_type: None,
        content_encoding: None,
        size: None,
        sha256: None,
        stored_as: None,
        expires,
        reason: None,
    }
}

#[cfg(test)]
mod tests;
