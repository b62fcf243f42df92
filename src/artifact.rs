//! Artifacts: what a task leaves behind, as it is published.
//!
//! [`Publisher`] is the only way out: it creates the artifact in the queue, delivers its bytes to
//! the [`Destination`] that the operator chose, and keeps the list that `resolution.json` shows.

pub mod content;
mod copy;
pub mod destination;
mod draft;
mod record;

use std::io;
use std::sync::Arc;

pub use content::{ContentEncoding, LOG_TYPE};
pub use copy::Patience;
pub use destination::{Destination, DestinationError, Source, Stored};
pub use draft::RESOLUTION;
pub use record::ArtifactRecord;

use crate::config::ConfigFile;
use crate::event::{Event, Events};
use crate::interrupt::{Interrupt, Interrupts};
use crate::queue::artifact_name::ArtifactName;
use crate::queue::{ArtifactContent, ArtifactRequest, ErrorReason, QueueError, RunQueue, StorageType};
use crate::timestamp::Timestamp;

/// What an artifact is to be called and how it is described.
#[derive(Clone, Debug)]
pub struct Description {
    /// Its name.
    pub name: ArtifactName,
    /// Its MIME type.
    pub content_type: String,
    /// How its bytes are stored.
    pub content_encoding: ContentEncoding,
    /// When it may be deleted.
    pub expires: Timestamp,
}

/// Why an artifact could not be published; fits "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Its bytes could not be read, or not be written where the operator wants them.
    #[error("store it: {0}")]
    Store(#[source] io::Error),
    /// The task was interrupted meanwhile.
    #[error("store it: the task was interrupted")]
    Interrupted,
    /// The queue refused it.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// Publishes the artifacts of one run.
#[derive(Debug)]
pub struct Publisher {
    queue: RunQueue,
    expires: Timestamp,
    destination: Arc<Destination>,
    config: Arc<ConfigFile>,
    events: Events,
    interrupts: Interrupts,
    records: Vec<ArtifactRecord>,
}

/// What a [`Publisher`] is made of.
#[derive(Debug)]
pub struct PublisherParts {
    /// Where the run is known.
    pub queue: RunQueue,
    /// When the task may be forgotten.
    pub expires: Timestamp,
    /// Where bytes go.
    pub destination: Arc<Destination>,
    /// What is compressed.
    pub config: Arc<ConfigFile>,
    /// Who hears of it.
    pub events: Events,
    /// What ends storing.
    pub interrupts: Interrupts,
}

impl Publisher {
    /// A publisher that has published nothing yet.
    pub fn new(parts: PublisherParts) -> Publisher {
        let PublisherParts { queue, expires, destination, config, events, interrupts } = parts;
        let records = Vec::new();
        Publisher { queue, expires, destination, config, events, interrupts, records }
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

    /// Publishes a regular file's bytes, as long as the file is now.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub async fn publish_file(&mut self, what: Description, source: Source) -> Result<(), PublishError> {
        let content = ArtifactContent::S3 { content_type: what.content_type.clone() };
        self.create(&what.name, what.expires, content).await?;
        let destination = Arc::clone(&self.destination);
        let patience = match &source {
            Source::Task(_) => Patience::with_artifact(&self.interrupts),
            Source::Own(_) => Patience::with_log(&self.interrupts),
        };
        let (name, encoding) = (what.name.clone(), what.content_encoding);
        let storing =
            tokio::task::spawn_blocking(move || destination.store(&name, source, encoding, &patience));
        let stored = match storing.await.map_err(io::Error::other).and_then(|result| result) {
            Ok(stored) => stored,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                return Err(PublishError::Interrupted);
            }
            Err(error) => return Err(PublishError::Store(error)),
        };
        self.note(ArtifactRecord {
            storage_type: StorageType::S3,
            content_type: Some(what.content_type),
            content_encoding: what.content_encoding.header().map(str::to_owned),
            size: Some(stored.size),
            sha256: stored.sha256,
            stored_as: stored.stored_as,
            ..empty_record(what.name, what.expires)
        });
        Ok(())
    }

    /// Publishes a name that stands for another artifact of this run.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub async fn publish_link(
        &mut self,
        name: &ArtifactName,
        existing: &ArtifactName,
    ) -> Result<(), PublishError> {
        let content = ArtifactContent::Link { artifact: existing.clone(), content_type: LOG_TYPE.to_owned() };
        self.create(name, self.expires, content).await?;
        let destination = Arc::clone(&self.destination);
        let (new, old) = (name.clone(), existing.clone());
        let linking = tokio::task::spawn_blocking(move || destination.link(&new, &old));
        let linked = linking.await.map_err(io::Error::other).and_then(|result| result);
        let stored_as = linked.map_err(PublishError::Store)?;
        self.note(ArtifactRecord {
            storage_type: StorageType::Link,
            stored_as,
            content_type: Some(LOG_TYPE.to_owned()),
            ..empty_record(name.clone(), self.expires)
        });
        Ok(())
    }

    /// Publishes why there is no artifact of that name.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub async fn publish_error(
        &mut self,
        name: &ArtifactName,
        missing: Missing<'_>,
        expires: Timestamp,
    ) -> Result<(), PublishError> {
        let Missing { reason, message } = missing;
        let content = ArtifactContent::Error { reason, message: message.to_owned() };
        self.create(name, expires, content).await?;
        self.events.emit(&Event::ArtifactMissing { name: name.as_str(), reason });
        self.records.push(ArtifactRecord {
            storage_type: StorageType::Error,
            reason: Some(reason),
            ..empty_record(name.clone(), expires)
        });
        Ok(())
    }

    /// What was published, by name.
    pub fn into_records(mut self) -> Vec<ArtifactRecord> {
        self.records.sort_by(|left, right| left.name.cmp(&right.name));
        self.records
    }

    async fn create(
        &self,
        name: &ArtifactName,
        expires: Timestamp,
        content: ArtifactContent,
    ) -> Result<(), PublishError> {
        let request = ArtifactRequest { expires, content };
        match self.queue.create_artifact(name, &request).await {
            Ok(_) => Ok(()),
            // The queue has resolved the run; what it does not take is still stored here (O23).
            Err(QueueError::Conflict { .. })
                if self.interrupt().is_some_and(Interrupt::may_come_from_the_queue) =>
            {
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn note(&mut self, record: ArtifactRecord) {
        self.events.emit(&Event::ArtifactPublished {
            name: record.name.as_str(),
            storage_type: record.storage_type,
            size: record.size,
        });
        self.records.push(record);
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
