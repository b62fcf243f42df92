//! Secondary runs: those that another one, the primary, makes superfluous. They are kept while it runs and resolved just
//! before it is.
//!
//! None of them is ever carried out. But each is this worker's: it has a place, where a successor of this worker finds its
//! claim, and the claim is prolonged.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::Serialize;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::artifact::{ContentEncoding, Description, PublishError, Publisher, PublisherParts, Source, Store};
use crate::background::Background;
use crate::claim_file::Logs;
use crate::event::{Event, RunEvent};
use crate::interrupt::{Interrupts, channel};
use crate::queue::artifact_name::{ArtifactName, ArtifactNameError};
use crate::queue::{Claim, QueueError, Reason, RunId, RunQueue, Verdict};
use crate::task::opening::{self, BeginError, Opened};
use crate::task::reclaim;
use crate::task::run::Worker;
use crate::text::chain;
use crate::timestamp::Timestamp;

/// How long a queue at fault is told of one of them. What it does not hear, a successor of this worker tells it, or the
/// claim runs out.
const REPORT_TIME: Duration = Duration::from_secs(60);

/// How long its artifact may take.
const ARTIFACT_TIME: Duration = Duration::from_secs(60);

/// The names of the primary's list: the original's, and the documents'.
const LISTS: [&str; 2] = ["public/supersedes.json", "public/superses.json"];

/// The name of what a secondary gets.
const SUPERSEDED_BY: &str = "public/superseded-by.json";

/// The secondary runs of one run. If they are dropped, their claims are a dead run's.
pub struct Secondaries {
    worker: Arc<Worker>,
    store: Store,
    runs: Vec<Secondary>,
    unheard: Unheard,
}

/// Whether the queue has refused to hear that a run was superseded. Clones know the same.
#[derive(Clone, Debug, Default)]
pub struct Unheard(Arc<AtomicBool>);

impl Unheard {
    /// Whether it has.
    pub fn is_known(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Secondary {
    queue: RunQueue,
    expires: Timestamp,
    opened: Opened,
    interrupts: Interrupts,
    keeping: Background,
}

/// Why an artifact about it could not be published.
#[derive(Debug, thiserror::Error)]
pub enum SupersedingArtifactError {
    /// Its name is none.
    #[error(transparent)]
    Name(#[from] ArtifactNameError),
    /// There is no place for it.
    #[error("write it")]
    Write(#[from] io::Error),
    /// The queue, or the storage.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// It has taken too long.
    #[error("store it in {} s", ARTIFACT_TIME.as_secs())]
    TooSlow,
}

impl Secondaries {
    /// None so far. Their artifacts go to `store`.
    pub fn new(worker: &Arc<Worker>, store: Store, unheard: Unheard) -> Secondaries {
        Secondaries { worker: Arc::clone(worker), store, runs: Vec::new(), unheard }
    }

    /// Takes one in. One for which this host has no place is given back to the queue.
    pub async fn add(&mut self, claim: Claim) {
        let queue = claim.queue.clone();
        if let Err(error) = self.keep(claim).await {
            self.warn(&format!("could not keep {}: failed to {}", queue.run(), chain(&error)));
            self.settle(&queue, Verdict::Exception(Reason::WorkerShutdown)).await;
        }
    }

    async fn keep(&mut self, claim: Claim) -> Result<(), BeginError> {
        let (interrupter, interrupts) = channel();
        let held = opening::held(&self.worker, &claim, Logs::default());
        let opened = opening::open_idle(&self.worker, &interrupts, held).await;
        let opened = opened.map_err(|(error, _successors)| error)?;
        let keeping = reclaim::keep(reclaim::Held {
            queue: claim.queue.clone(),
            taken_until: claim.taken_until,
            divisor: self.worker.config.file.reclaim_divisor(),
            interrupter,
            log: opened.log.clone(),
            file: opened.file.clone(),
            events: self.worker.events.clone(),
        });
        let (queue, expires) = (claim.queue, claim.expires);
        self.runs.push(Secondary { queue, expires, opened, interrupts, keeping });
        Ok(())
    }

    /// Which they are.
    pub fn runs(&self) -> impl Iterator<Item = &RunId> {
        self.runs.iter().map(|secondary| secondary.queue.run())
    }

    /// Gives them back to the queue, which makes new runs.
    pub async fn give_back(self) {
        self.resolve(None).await;
    }

    /// Tells the queue that `primary` has made them superfluous, or, without one, that another worker may have them. Lists
    /// those that were superseded, as the queue heard of them. What fails is told in the worker's log, and no fault of the
    /// primary's.
    pub(super) async fn resolve(mut self, primary: Option<&RunId>) -> Vec<RunId> {
        let runs = std::mem::take(&mut self.runs);
        let resolving: FuturesUnordered<_> =
            runs.into_iter().map(|secondary| self.resolve_one(secondary, primary)).collect();
        resolving.filter_map(std::future::ready).collect().await
    }

    async fn resolve_one(&self, secondary: Secondary, primary: Option<&RunId>) -> Option<RunId> {
        // A claim of a run that is resolved cannot be prolonged.
        secondary.keeping.end();
        let superseded = Verdict::Exception(Reason::Superseded);
        let wanted = match primary {
            Some(_) if !self.unheard.is_known() => superseded,
            Some(_) | None => Verdict::Exception(Reason::WorkerShutdown),
        };
        let standing = self.settle(&secondary.queue, wanted).await;
        let by = primary.filter(|_| standing == Some(superseded));
        if let Some(by) = by {
            let run = secondary.queue.run();
            self.worker.events.of(run).emit(&RunEvent::Superseded { by: &by.task_id });
            if let Err(error) = self.publish(&secondary, by).await {
                let why = chain(&error);
                self.warn(&format!(
                    "while resolving superseded task: {SUPERSEDED_BY} of {run}: failed to {why}"
                ));
            }
        }
        let run = secondary.queue.run().clone();
        if standing.is_some() {
            self.forget(secondary).await;
        }
        by.map(|_| run)
    }

    /// How the run stands then, if the queue says so.
    async fn settle(&self, queue: &RunQueue, verdict: Verdict) -> Option<Verdict> {
        let again = Verdict::Exception(Reason::WorkerShutdown);
        let settled = match queue.settle_within(REPORT_TIME, verdict).await {
            Err(QueueError::Invalid { .. }) if verdict == Verdict::Exception(Reason::Superseded) => {
                self.unheard.note();
                self.warn(
                    "the queue takes no report that a task was superseded: tasks run alone from now on",
                );
                queue.settle_within(REPORT_TIME, again).await
            }
            settled => settled,
        };
        match settled {
            Ok(standing) => Some(standing),
            Err(error) => {
                let why = chain(&error);
                self.warn(&format!("while resolving superseded task: {}: failed to {why}", queue.run()));
                None
            }
        }
    }

    /// Tells whoever waits for the secondary which run stands for it. Of an exception the queue takes artifacts for a while.
    async fn publish(&self, secondary: &Secondary, by: &RunId) -> Result<(), SupersedingArtifactError> {
        let scratch = secondary.opened.directory.data();
        let publisher = Publisher::new(PublisherParts {
            queue: secondary.queue.clone(),
            expires: secondary.expires,
            store: self.store.clone(),
            reserved: Vec::new(),
            scratch: scratch.to_owned(),
            log: None,
            config: Arc::new(self.worker.config.file.clone()),
            events: self.worker.events.clone(),
            interrupts: secondary.interrupts.clone(),
        });
        publish(&publisher, SUPERSEDED_BY, (scratch, by)).await
    }

    /// Nobody has to tell of it any more.
    async fn forget(&self, secondary: Secondary) {
        let Secondary { opened: Opened { file, directory, .. }, queue, .. } = secondary;
        let removing = spawn_blocking(move || {
            let removed = directory.remove().map_err(|error| chain(&error));
            let file = file.map_or(Ok(()), |file| file.remove()).map_err(|error| chain(&error));
            removed.and(file)
        });
        if let Err(why) = removing.await.map_err(|error| chain(&error)).flatten() {
            self.warn(&format!("failed to remove what is left of {}: failed to {why}", queue.run()));
        }
    }

    fn warn(&self, message: &str) {
        self.worker.events.emit(&Event::Warning { message });
    }
}

/// Publishes which runs the primary stands for, if there are any.
///
/// # Errors
///
/// [`SupersedingArtifactError`].
pub(super) async fn publish_list(
    publisher: &Publisher,
    scratch: &Path,
    superseded: &[RunId],
) -> Result<(), SupersedingArtifactError> {
    if superseded.is_empty() {
        return Ok(());
    }
    for name in LISTS {
        publish(publisher, name, (scratch, superseded)).await?;
    }
    Ok(())
}

async fn publish(
    publisher: &Publisher,
    name: &str,
    (scratch, content): (&Path, &(impl Serialize + ?Sized)),
) -> Result<(), SupersedingArtifactError> {
    let file = written(scratch, content)?;
    let description = Description {
        name: ArtifactName::new(name)?,
        content_type: "application/json",
        content_encoding: ContentEncoding::Identity,
        expires: publisher.task_expires(),
    };
    match timeout(ARTIFACT_TIME, publisher.publish(description, Source::Own(file))).await {
        Ok(published) => Ok(published?),
        Err(_) => Err(SupersedingArtifactError::TooSlow),
    }
}

fn written(scratch: &Path, content: &(impl Serialize + ?Sized)) -> io::Result<File> {
    let mut file = tempfile::tempfile_in(scratch)?;
    file.write_all(&serde_json::to_vec(content)?)?;
    Ok(file)
}
