//! The bytes of one artifact on their way to the store, and what the queue is told of them.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::copy::{Copied, CopyError, Patience};
use super::growing_log::GrowingLog;
use super::spooled::Spooled;
use super::upload::{Attempt, Uploader};
use super::{ContentEncoding, Description, Destination, PublishError, Publisher, Source, Stored};
use crate::config::ArtifactStorage;
use crate::event::RunEvent;
use crate::interrupt::Interrupt;
use crate::queue::artifact_name::ArtifactName;
use crate::queue::{ArtifactContent, ArtifactRequest, Created, QueueError};
use crate::timestamp::Timestamp;

impl Publisher {
    /// Stores a file in a directory of the operator's.
    pub(super) async fn keep_here(
        &self,
        destination: &Arc<Destination>,
        what: &Description,
        source: Source,
        patience: Patience,
    ) -> Result<Stored, PublishError> {
        self.create_or_ignore(&what.name, what.expires, self.content(what)).await?;
        let (destination, name) = (Arc::clone(destination), what.name.clone());
        let encoding = what.content_encoding;
        off_the_loop(move || destination.store(&name, source, encoding, &patience)).await
    }

    /// Uploads a file to where the queue says.
    pub(super) async fn upload(
        &self,
        uploader: &Uploader,
        what: &Description,
        source: Source,
        patience: &Patience,
    ) -> Result<Stored, PublishError> {
        // A log may be long: whether it is taken is asked before it is compressed. A file of the task's may turn out to
        // be unreadable, and what was created cannot become an error any more.
        let created = match &source {
            Source::Log(_) => Some(self.create(&what.name, what.expires, self.content(what)).await?),
            Source::Task(_) | Source::Own(_) => None,
        };
        let spooled = self.spool(source, what.content_encoding, patience).await?;
        self.send(uploader, (what, created), &spooled, patience).await
    }

    /// Uploads what is ready to be sent, and may have been created already.
    pub(super) async fn send(
        &self,
        uploader: &Uploader,
        (what, mut created): (&Description, Option<Created>),
        spooled: &Spooled,
        patience: &Patience,
    ) -> Result<Stored, PublishError> {
        let target = async || {
            let given = match created.take() {
                Some(created) => created,
                None => self.create(&what.name, what.expires, self.content(what)).await?,
            };
            match given {
                Created::Put(target) => Ok(target),
                Created::Object(object) => {
                    let target = object.begin(what.content_type, spooled.length()).await?;
                    // The queue does not create it a second time, a URL of its service can be had again.
                    created = Some(Created::Object(object));
                    target.ok_or(PublishError::Nowhere)
                }
                Created::Done | Created::KeepBytes => Err(PublishError::Nowhere),
            }
        };
        let name = what.name.as_str();
        let tell = |attempt: Attempt<'_>| self.tell_attempt(name, attempt);
        let began = Instant::now();
        let Copied { size, sha256 } = uploader.upload(spooled, patience, target, &tell).await?;
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.events.emit(&RunEvent::ArtifactUploaded { name, sent_bytes: spooled.length(), took_ms });
        if let Some(Created::Object(object)) = created {
            object.end(&sha256).await?;
            self.queue.finish_artifact(&what.name, object.upload_id()).await?;
        }
        Ok(Stored { size, sha256: Some(sha256), stored_as: None })
    }

    fn tell_attempt(&self, name: &str, attempt: Attempt<'_>) {
        self.events.emit(&match attempt {
            Attempt::Begins(attempt) => RunEvent::ArtifactUploading { name, attempt },
            Attempt::Failed(message) => RunEvent::ArtifactUploadFailed { name, message },
        });
    }

    /// What an artifact with bytes is to the queue.
    pub(super) fn content(&self, what: &Description) -> ArtifactContent {
        let content_type = what.content_type.to_owned();
        match self.store.storage(&self.config) {
            ArtifactStorage::S3 => ArtifactContent::S3 { content_type },
            ArtifactStorage::Object => ArtifactContent::Object { content_type },
        }
    }

    /// Compresses a file; the log once, under however many names it is published. Where that finds no room on the disk, the
    /// log is sent as it is: it may say why there is none.
    async fn spool(
        &self,
        source: Source,
        encoding: ContentEncoding,
        patience: &Patience,
    ) -> Result<Spooled, PublishError> {
        let (spooler, patience) = (self.spooler.clone(), patience.clone());
        let is_log = matches!(source, Source::Log(_));
        let growing = if is_log { self.take_growing_log() } else { None };
        let spool = || async move {
            let file = source.open().map_err(CopyError::Read)?;
            let length = file.metadata().map_err(CopyError::Read)?.len();
            if let Some(mut growing) = growing {
                // What went wrong while the task ran may go well now.
                if let Ok(Some(log)) = growing.compressed().await
                    && log.content().is_some_and(|content| content.size == length)
                {
                    return Ok(log);
                }
            }
            let as_it_is = if is_log { Some(file.try_clone().map_err(CopyError::Read)?) } else { None };
            let (compressing, bounds) = (spooler.clone(), patience.clone());
            let compressed = off_the_loop(move || compressing.spool(file, encoding, &bounds)).await;
            match (compressed, as_it_is) {
                (Err(PublishError::Store(error)), Some(log))
                    if error.kind() == io::ErrorKind::StorageFull =>
                {
                    let spool = move || spooler.spool(log, ContentEncoding::Identity, &patience);
                    off_the_loop(spool).await
                }
                (spooled, _) => spooled,
            }
        };
        if is_log { self.log.get_or_try_init(spool).await.cloned() } else { spool().await }
    }

    fn take_growing_log(&self) -> Option<GrowingLog> {
        self.growing_log.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn create(
        &self,
        name: &ArtifactName,
        expires: Timestamp,
        content: ArtifactContent,
    ) -> Result<Created, PublishError> {
        Ok(self.queue.create_artifact(name, &ArtifactRequest { expires, content }).await?)
    }

    /// What the queue does not take any more of a run that it has resolved is as good as created (O23).
    pub(super) async fn create_or_ignore(
        &self,
        name: &ArtifactName,
        expires: Timestamp,
        content: ArtifactContent,
    ) -> Result<(), PublishError> {
        match self.create(name, expires, content).await {
            Ok(_) => Ok(()),
            Err(error) if self.is_resolved_by_queue(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether that is why something could not be created.
    pub(super) fn is_resolved_by_queue(&self, error: &PublishError) -> bool {
        matches!(error, PublishError::Queue(QueueError::Conflict { .. }))
            && self.interrupt().is_some_and(Interrupt::may_come_from_the_queue)
    }
}

/// Does what waits for the disk where it keeps nobody else waiting.
pub(super) async fn off_the_loop<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CopyError> + Send + 'static,
) -> Result<T, PublishError> {
    let done =
        tokio::task::spawn_blocking(work).await.map_err(|panic| CopyError::Write(io::Error::other(panic)));
    Ok(done.flatten()?)
}

/// Waits for a queue or a storage, which may take minutes to answer, until `patience` is over.
pub(super) async fn until_over<T>(
    patience: &Patience,
    work: impl Future<Output = Result<T, PublishError>>,
) -> Result<T, PublishError> {
    tokio::select! {
        biased;
        () = patience.over() => Err(PublishError::Interrupted),
        done = work => done,
    }
}

/// The same, and so much longer: what is done is asked for in any case.
pub(super) async fn until_over_for<T>(
    longer: Duration,
    patience: &Patience,
    work: impl Future<Output = Result<T, PublishError>>,
) -> Result<T, PublishError> {
    let over = async {
        patience.over().await;
        sleep(longer).await;
    };
    tokio::select! {
        biased;
        done = work => done,
        () = over => Err(PublishError::Interrupted),
    }
}
