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
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use serde::Serialize;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::artifact::{ContentEncoding, Description, PublishError, Publisher, PublisherParts, Source, Store};
use crate::background::Background;
use crate::claim_file::{ClaimFile, Logs};
use crate::event::{Event, RunEvent};
use crate::interrupt::{Interrupts, channel};
use crate::payload::superseder::LISTS;
use crate::queue::artifact_name::{ArtifactName, ArtifactNameError};
use crate::queue::{Claim, QueueError, Reason, RunId, RunQueue, Verdict};
use crate::run_directory::RunDirectory;
use crate::task::opening::{self, BeginError, Opened};
use crate::task::reclaim::{self, settle_until};
use crate::task::run::Worker;
use crate::text::chain;
use crate::timestamp::Timestamp;

/// How long a place for all of them may take. Those without one are given back.
const KEEPING: Duration = Duration::from_secs(20);

/// How long it may take that all of them are resolved, with their artifacts. What the queue does not hear, a successor of
/// this worker tells it, or the claim runs out.
const RESOLVING: Duration = Duration::from_secs(60);

/// What of that is for the queue's answer.
const REPORTING: Duration = Duration::from_secs(40);

/// How long an artifact of the primary's may take.
const PUBLISHING: Duration = Duration::from_secs(30);

/// The name of what a secondary gets.
const SUPERSEDED_BY: &str = "public/superseded-by.json";

const SUPERSEDED: Verdict = Verdict::Exception(Reason::Superseded);
const GIVEN_BACK: Verdict = Verdict::Exception(Reason::WorkerShutdown);

/// A claim of which only that is left which it is resolved with: a definition may be large, and there may be many.
#[derive(Clone, Debug)]
pub struct SecondaryClaim {
    /// Which run, and where it is told of.
    pub queue: RunQueue,
    /// Until when it holds.
    pub taken_until: Timestamp,
    expires: Timestamp,
}

impl From<Claim> for SecondaryClaim {
    fn from(claim: Claim) -> SecondaryClaim {
        let Claim { queue, taken_until, expires, .. } = claim;
        SecondaryClaim { queue, taken_until, expires }
    }
}

/// The secondary runs of one run. If they are dropped, their claims are a dead run's.
pub struct Secondaries {
    resolver: Resolver,
    runs: Vec<Secondary>,
}

/// What it takes to resolve them.
#[derive(Clone)]
struct Resolver {
    worker: Arc<Worker>,
    store: Store,
    unheard: Unheard,
}

/// Whether the queue has refused to hear that a run was superseded. Clones know the same.
#[derive(Clone, Debug, Default)]
pub struct Unheard(Arc<AtomicBool>);

impl Unheard {
    /// Whether it has.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether that is news.
    fn note(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }
}

struct Secondary {
    queue: RunQueue,
    expires: Timestamp,
    opened: Opened,
    interrupts: Interrupts,
    keeping: Background,
}

/// Why an artifact about them could not be published.
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
    #[error("store it in {} s", PUBLISHING.as_secs())]
    TooSlow,
}

impl Secondaries {
    /// Keeps these from now on. Their artifacts go to `store`. One for which this host has no place is given back to the
    /// queue.
    pub async fn keep(
        worker: &Arc<Worker>,
        store: Store,
        unheard: Unheard,
        claims: Vec<SecondaryClaim>,
    ) -> Secondaries {
        let resolver = Resolver { worker: Arc::clone(worker), store, unheard };
        let mut runs = Vec::new();
        let mut keeping: FuturesUnordered<_> =
            claims.into_iter().map(|claim| resolver.keep_or_give_back(claim)).collect();
        let all = async {
            while let Some(kept) = keeping.next().await {
                runs.extend(kept);
            }
        };
        if timeout(KEEPING, all).await.is_err() {
            resolver.warn(
                "some tasks that were to be superseded found no place here in time: their claims run out",
            );
        }
        drop(keeping);
        Secondaries { resolver, runs }
    }

    /// Which they are.
    pub fn runs(&self) -> impl Iterator<Item = &RunId> {
        self.runs.iter().map(|secondary| secondary.queue.run())
    }

    /// Tells the queue that `primary` has made them superfluous. Lists those that were superseded, as the queue heard of them.
    /// What fails is told in the worker's log, and no fault of the primary's. Somebody's impatience ends it.
    pub(super) async fn supersede(self, primary: &RunId, mut interrupts: Interrupts) -> Vec<RunId> {
        let Secondaries { resolver, runs } = self;
        let mut superseded = Vec::new();
        let mut resolving: FuturesUnordered<_> =
            runs.into_iter().map(|secondary| resolver.resolve(secondary, Some(primary))).collect();
        let all = async {
            while let Some(run) = resolving.next().await {
                superseded.extend(run);
            }
        };
        let urgency = interrupts.urgency();
        let in_time = tokio::select! {
            biased;
            in_time = timeout(RESOLVING, all) => in_time.is_ok(),
            () = interrupts.more_urgent_than(urgency) => false,
        };
        if !in_time {
            resolver.warn(
                "while resolving superseded task: the queue has not answered in time about all of them",
            );
        }
        drop(resolving);
        superseded
    }

    /// Gives them back to the queue, which makes new runs. Somebody's impatience ends it.
    pub(super) async fn give_back(self, mut interrupts: Interrupts) {
        let Secondaries { resolver, runs } = self;
        let all = join_all(runs.into_iter().map(|secondary| resolver.resolve(secondary, None)));
        let urgency = interrupts.urgency();
        tokio::select! {
            biased;
            _ = timeout(RESOLVING, all) => {}
            () = interrupts.more_urgent_than(urgency) => {}
        }
    }
}

/// Gives claims back to the queue of which nothing is kept.
pub async fn give_back(worker: &Arc<Worker>, store: Store, unheard: Unheard, claims: Vec<SecondaryClaim>) {
    let resolver = Resolver { worker: Arc::clone(worker), store, unheard };
    join_all(claims.iter().map(|claim| resolver.settle(&claim.queue, GIVEN_BACK))).await;
}

impl Resolver {
    async fn keep_or_give_back(&self, claim: SecondaryClaim) -> Option<Secondary> {
        let queue = claim.queue.clone();
        match self.keep(claim).await {
            Ok(secondary) => Some(secondary),
            Err((error, file)) => {
                self.warn(&format!("could not keep {}: failed to {}", queue.run(), chain(&error)));
                if self.settle(&queue, GIVEN_BACK).await.is_some() {
                    self.forget(&queue, None, file).await;
                }
                None
            }
        }
    }

    async fn keep(&self, claim: SecondaryClaim) -> Result<Secondary, (BeginError, Option<ClaimFile>)> {
        let SecondaryClaim { queue, taken_until, expires } = claim;
        let (interrupter, interrupts) = channel();
        let held = opening::held(&self.worker, &queue, (taken_until, expires), Logs::default());
        let opened = opening::open_idle(&self.worker, &interrupts, held).await?;
        let keeping = reclaim::keep(reclaim::Held {
            queue: queue.clone(),
            taken_until,
            divisor: self.worker.config.file.reclaim_divisor(),
            interrupter,
            log: opened.log.clone(),
            file: opened.file.clone(),
            events: self.worker.events.clone(),
        });
        Ok(Secondary { queue, expires, opened, interrupts, keeping })
    }

    /// The run, if it was superseded.
    async fn resolve(&self, secondary: Secondary, primary: Option<&RunId>) -> Option<RunId> {
        // A claim of a run that is resolved cannot be prolonged.
        secondary.keeping.end();
        let wanted = match primary {
            Some(_) if !self.unheard.is_known() => SUPERSEDED,
            Some(_) | None => GIVEN_BACK,
        };
        let standing = self.settle(&secondary.queue, wanted).await?;
        let by = primary.filter(|_| standing == SUPERSEDED);
        let run = secondary.queue.run().clone();
        let event = RunEvent::SecondaryResolved { reason: standing.as_str(), by: by.map(|by| &by.task_id) };
        self.worker.events.of(&run).emit(&event);
        if let Some(by) = by
            && let Err(error) = self.publish(&secondary, by).await
        {
            let why = chain(&error);
            self.warn(&format!("while resolving superseded task: {SUPERSEDED_BY} of {run}: failed to {why}"));
        }
        let Secondary { opened, queue, .. } = secondary;
        self.forget(&queue, Some(opened.directory), opened.file).await;
        by.map(|_| run)
    }

    /// How the run stands then, if the queue says so.
    async fn settle(&self, queue: &RunQueue, verdict: Verdict) -> Option<Verdict> {
        let until = queue.now().plus(REPORTING);
        let settled = match settle_until(queue, until, verdict).await {
            Err(QueueError::Invalid { .. }) if verdict == SUPERSEDED => {
                if self.unheard.note() {
                    self.warn(
                        "the queue takes no report that a task was superseded: tasks run alone from now on",
                    );
                }
                settle_until(queue, until, GIVEN_BACK).await
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
    async fn forget(&self, queue: &RunQueue, directory: Option<RunDirectory>, file: Option<ClaimFile>) {
        let removing = spawn_blocking(move || {
            let removed = directory.map_or(Ok(()), RunDirectory::remove).map_err(|error| chain(&error));
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
    match timeout(PUBLISHING, publisher.publish(description, Source::Own(file))).await {
        Ok(published) => Ok(published?),
        Err(_) => Err(SupersedingArtifactError::TooSlow),
    }
}

fn written(scratch: &Path, content: &(impl Serialize + ?Sized)) -> io::Result<File> {
    let mut file = tempfile::tempfile_in(scratch)?;
    file.write_all(&serde_json::to_vec(content)?)?;
    Ok(file)
}
