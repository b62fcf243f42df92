//! Bringing an image that is an artifact of another task: found, and streamed into the store while it is downloaded.
//!
//! ```text
//!  index ──► task ──► its last run ──► is it here by that name? ──► loaded
//!                                      └─► place ──► download ══► store   (again, or gone on with)
//! ```
//!
//! In the store it is called by task, run and path. Artifacts of a run that has been reported stay as they are; those of
//! another one may change, so that theirs get a name that nobody looks for.

use std::time::{Duration, Instant};

use images::store::{
    Cancel, Lease, PullError, PullErrorKind, PullEvent, PullOptions, Stream, StreamClaim, StreamName,
    StreamSender,
};

use crate::download::{Download, DownloadError, Rest};
use crate::event::RunEvent;
use crate::payload::{ArtifactImage, TaskName};
use crate::queue::artifact_name::ArtifactName;
use crate::queue::{ArtifactFinder, LatestRun, QueueError, RunId};
use crate::random::{random_fraction, random_hex};
use crate::task::error::TaskError;
use crate::task::image::{Pulling, failure, milliseconds, not_pulled, observe};
use crate::task::outcome::End;
use crate::task::run::Run;
use crate::text::{chain, escaped};

/// Bytes after which a download counts as getting on: what fails then fails for the first time.
const PROGRESS_BYTES: u64 = 1 << 20;
/// Between two lines about how far it is, and between two words to whoever watches.
const LINE_EVERY: Duration = Duration::from_secs(5);
const WORD_EVERY: Duration = Duration::from_millis(100);
/// What it is called where layers have their digests.
const ID: &str = "archive";

/// Finds the image in the store, or brings it. Ends soon when `options` are cancelled.
pub(super) async fn bring(
    run: &Run,
    pulling: &Pulling,
    image: &ArtifactImage,
    options: PullOptions,
) -> Result<Lease, TaskError> {
    let own = run.claim.queue.finder();
    let finder = own.or_else(|| pulling.deployment.as_deref().map(|deployment| deployment.finder()));
    let finder = finder.ok_or_else(no_deployment)?;
    let stop = options.cancel.clone();
    let latest = unless_stopped(&stop, latest_run(&finder, image)).await?;
    let name = stream_name(&latest, &image.path)?;
    let began = Instant::now();
    let bringing = Bringing { run, pulling, options, finder, latest, path: &image.path, name, began };
    bringing.lease().await
}

/// One image on its way.
struct Bringing<'a> {
    run: &'a Run,
    pulling: &'a Pulling,
    options: PullOptions,
    finder: ArtifactFinder<'a>,
    latest: LatestRun,
    path: &'a ArtifactName,
    name: StreamName,
    began: Instant,
}

/// Why one attempt has brought nothing.
enum Failure {
    Queue(QueueError),
    Download(DownloadError),
    Store(PullError),
    /// It is judged already.
    Final(TaskError),
}

/// What became of a part of a download.
enum Passed {
    All,
    /// The store has failed, and says why.
    NobodyTakes,
}

/// Attempts since it has got on.
#[derive(Default)]
struct Attempts {
    made: u32,
}

impl Bringing<'_> {
    async fn lease(&self) -> Result<Lease, TaskError> {
        if let Some(lease) = self.found().await? {
            return Ok(self.loaded(lease));
        }
        let mut attempts = Attempts::default();
        let mut has_made_room = false;
        loop {
            let claim = self.run.worker.store.claim_stream(&self.name, &self.options).await;
            let claim = claim.map_err(|error| not_loaded(&error))?;
            // Another run of this host may have brought it meanwhile.
            if let Some(lease) = self.found().await? {
                return Ok(self.loaded(lease));
            }
            let failed = match self.attempt(claim, &mut attempts).await {
                Ok(lease) => {
                    self.run.events.emit(&RunEvent::ImagePulled { took_ms: milliseconds(self.began) });
                    return Ok(self.loaded(lease));
                }
                Err(failed) => failed,
            };
            match failed {
                Failure::Final(error) => return Err(error),
                Failure::Store(error) if error.kind() == PullErrorKind::DiskFull && !has_made_room => {
                    has_made_room = true;
                    let making = self.run.worker.store.make_room_for(&self.name, &self.options, &error);
                    if !making.await.map_err(|error| not_loaded(&error))? {
                        return Err(not_loaded(&error));
                    }
                }
                failed => self.again(&mut attempts, failed).await?,
            }
        }
    }

    /// What is in the store, where it is certain to be what would be downloaded.
    async fn found(&self) -> Result<Option<Lease>, TaskError> {
        if !self.latest.is_final {
            return Ok(None);
        }
        let found = self.run.worker.store.find_stream(&self.name, &self.options).await;
        found.map_err(|error| not_loaded(&error))
    }

    fn loaded(&self, lease: Lease) -> Lease {
        let (path, task_id, id) = (self.path, &self.latest.run.task_id, &lease.image().id);
        let text = format!("Image '{path}' from task '{task_id}' loaded.  Using image ID {id}.");
        self.run.log.info(&text);
        lease
    }

    /// From its first byte to the image.
    async fn attempt(&self, claim: StreamClaim, attempts: &mut Attempts) -> Result<Lease, Failure> {
        let task_id = &self.latest.run.task_id;
        self.run.log.info(&format!("Downloading artifact \"{}\" from task ID: {task_id}.", self.path));
        let download = self.begin(None).await?;
        let (sender, stream) = Stream::new(download.encoding, download.total);
        let left = self.options.limits.pull.saturating_sub(self.began.elapsed());
        let mut options = self.options.clone();
        options.limits.pull = left;
        let tell = |event| observe(self.run, self.pulling, &event);
        let loading = claim.load(stream, &options, &tell);
        // When it is stopped, that ends the load as well, which cleans up.
        let sending = async {
            tokio::select! {
                biased;
                () = self.options.cancel.cancelled() => Err(Failure::Final(TaskError::interrupted())),
                sent = self.send(download, sender, attempts) => sent,
            }
        };
        match tokio::join!(loading, sending) {
            (Ok(lease), _) => Ok(lease),
            // The store has seen no more than that bytes stopped coming.
            (Err(PullError::Broken { .. }), Err(failed)) => Err(failed),
            (Err(error), _) => Err(Failure::Store(error)),
        }
    }

    /// Asks for all of it or for the rest, each time by a fresh URL.
    async fn begin(&self, rest: Option<&Rest>) -> Result<Download, Failure> {
        let beginning = async {
            let place = self.finder.place(&self.latest.run, self.path).await.map_err(Failure::Queue)?;
            self.pulling.downloader.begin(&place, rest).await.map_err(Failure::Download)
        };
        tokio::select! {
            biased;
            () = self.options.cancel.cancelled() => Err(Failure::Final(TaskError::interrupted())),
            begun = beginning => begun,
        }
    }

    /// Hands the bytes to the store. A connection that breaks is gone on with, if what comes is certain to be the rest.
    async fn send(
        &self,
        mut download: Download,
        sender: StreamSender,
        attempts: &mut Attempts,
    ) -> Result<(), Failure> {
        let encoding = download.encoding;
        let mut progress = Progress::new(self, download.total);
        loop {
            let error = match self.pass_on(&mut download, &sender, &mut progress).await {
                Ok(Passed::All) => break,
                Ok(Passed::NobodyTakes) => return Ok(()),
                Err(error) => error,
            };
            if progress.has_got_on(download.received()) {
                *attempts = Attempts::default();
            }
            let Some(rest) = download.rest() else { return Err(Failure::Download(error)) };
            let mut failed = Failure::Download(error);
            download = loop {
                self.again(attempts, failed).await.map_err(Failure::Final)?;
                match self.begin(Some(&rest)).await {
                    Ok(download) if download.encoding == encoding => break download,
                    Ok(_) => return Err(Failure::Download(DownloadError::NotTheRest(self.path.to_string()))),
                    Err(other @ Failure::Download(DownloadError::NotTheRest(_))) => return Err(other),
                    Err(error) => failed = error,
                }
            };
        }
        progress.end(download.received());
        sender.finish().await;
        Ok(())
    }

    async fn pass_on(
        &self,
        download: &mut Download,
        sender: &StreamSender,
        progress: &mut Progress<'_>,
    ) -> Result<Passed, DownloadError> {
        loop {
            // The store may have had enough while nothing comes.
            let chunk = tokio::select! {
                biased;
                () = sender.closed() => return Ok(Passed::NobodyTakes),
                chunk = download.chunk() => chunk?,
            };
            let Some(bytes) = chunk else { return Ok(Passed::All) };
            progress.reached(download.received());
            if !sender.send(bytes).await {
                return Ok(Passed::NobodyTakes);
            }
        }
    }

    /// Waits before the next attempt, or says why there is none.
    async fn again(&self, attempts: &mut Attempts, failed: Failure) -> Result<(), TaskError> {
        attempts.made += 1;
        let (path, task_id, made) = (self.path, &self.latest.run.task_id, attempts.made);
        let why = match failed {
            Failure::Final(error) => return Err(error),
            Failure::Store(error) => return Err(not_loaded(&error)),
            Failure::Queue(error) => return Err(self.given_up(made, &of_queue(&error), end_of(&error))),
            Failure::Download(DownloadError::Refused(why)) => {
                return Err(self.given_up(made, &why, End::ImageUnavailable));
            }
            Failure::Download(error @ (DownloadError::Passing(_) | DownloadError::NotTheRest(_))) => {
                error.to_string()
            }
        };
        let Some(wait) = attempts.wait(&self.options) else {
            return Err(self.given_up(made, &why, End::ImageUnavailable));
        };
        self.run.log.error(&format!(
            "Error downloading \"{path}\" from task ID \"{task_id}\". {} Next Attempt in: {:.2} ms.",
            escaped(&why),
            wait.as_secs_f64() * 1000.0
        ));
        unless_stopped(&self.options.cancel, async {
            tokio::time::sleep(wait).await;
            Ok(())
        })
        .await
    }

    fn given_up(&self, made: u32, why: &str, end: End) -> TaskError {
        let (path, task_id) = (self.path, &self.latest.run.task_id);
        let text = format!(
            "Could not download artifact \"{path}\" from task \"{task_id}\" after {made} attempt(s). Error: {why}"
        );
        not_pulled(end, &text)
    }
}

impl Attempts {
    /// How long to wait before the next one, if there is one.
    fn wait(&self, PullOptions { limits, .. }: &PullOptions) -> Option<Duration> {
        if self.made >= limits.attempts {
            return None;
        }
        let (first, longest) = limits.backoff;
        let pause = first.saturating_mul(2_u32.saturating_pow(self.made.saturating_sub(1))).min(longest);
        let spread = f64::from(limits.backoff_spread_percent.min(100)) / 100.0;
        Some(pause.mul_f64(1.0 - spread + 2.0 * spread * random_fraction()))
    }
}

/// Says how far a download is.
struct Progress<'a> {
    of: &'a Bringing<'a>,
    total: Option<u64>,
    began: Instant,
    line: Instant,
    word: Instant,
    /// Where it was when it failed last.
    failed_at: u64,
}

impl<'a> Progress<'a> {
    fn new(of: &'a Bringing<'a>, total: Option<u64>) -> Progress<'a> {
        let now = Instant::now();
        let progress = Progress { of, total, began: now, line: now, word: now, failed_at: 0 };
        let total_bytes = total.unwrap_or_default();
        progress.tell(PullEvent::LayerStarted { id: ID.to_owned(), total_bytes });
        progress
    }

    fn tell(&self, event: PullEvent) {
        (self.of.pulling.observer)(&event);
    }

    fn reached(&mut self, bytes: u64) {
        let Some(total) = self.total else { return };
        if self.word.elapsed() >= WORD_EVERY {
            self.word = Instant::now();
            self.tell(PullEvent::LayerProgress { id: ID.to_owned(), bytes, total_bytes: total });
        }
        if self.line.elapsed() >= LINE_EVERY {
            self.line = Instant::now();
            let share = approximately(bytes) / approximately(total.max(1)) * 100.0;
            self.of.run.log.info(&format!("Download Progress: {share:.2}%"));
        }
    }

    /// Whether enough has come since it failed last, at this point of it.
    fn has_got_on(&mut self, bytes: u64) -> bool {
        bytes.saturating_sub(std::mem::replace(&mut self.failed_at, bytes)) >= PROGRESS_BYTES
    }

    fn end(&self, bytes: u64) {
        self.tell(PullEvent::LayerDone { id: ID.to_owned(), took: self.began.elapsed() });
        let log = &self.of.run.log;
        log.info("Downloaded artifact successfully.");
        log.info(&format!("Downloaded {:.3} mb over the wire", approximately(bytes) / 1024.0 / 1024.0));
        log.info("Loading docker image from downloaded archive.");
    }
}

#[expect(clippy::cast_precision_loss, reason = "people read it")]
fn approximately(bytes: u64) -> f64 {
    bytes as f64
}

/// Which run has the artifact.
async fn latest_run(finder: &ArtifactFinder<'_>, image: &ArtifactImage) -> Result<LatestRun, TaskError> {
    let task_id = match &image.of {
        TaskName::Id(task_id) => task_id.clone(),
        TaskName::Indexed(namespace) => finder.indexed(namespace).await.map_err(|error| {
            let why = of_queue(&error);
            let text = format!("Could not find a task associated with \"{namespace}\" namespace. {why}");
            not_pulled(end_of(&error), &text)
        })?,
    };
    finder.latest_run(&task_id).await.map_err(|error| {
        let why = of_queue(&error);
        let path = &image.path;
        let text = format!(
            "Could not download artifact \"{path}\" from task \"{task_id}\" after 1 attempt(s). Error: {why}"
        );
        not_pulled(end_of(&error), &text)
    })
}

/// What the store calls it.
fn stream_name(latest: &LatestRun, path: &ArtifactName) -> Result<StreamName, TaskError> {
    let RunId { task_id, run_id } = &latest.run;
    let label = format!("{task_id}/{run_id}/{}", path.as_str());
    if latest.is_final {
        return Ok(StreamName::new(&label));
    }
    let moment = random_hex(8)
        .map_err(|error| not_pulled(End::WorkerFault, &format!("the host has no random numbers: {error}")))?;
    Ok(StreamName::new(&format!("{label} at {moment}")))
}

fn not_loaded(error: &PullError) -> TaskError {
    failure(error, "Error loading docker image. ")
}

fn no_deployment() -> TaskError {
    let why = "there is no deployment here to get an artifact of. Let the task run with `start` or `standalone`, or by its id: `run --root-url URL --task-id ID`";
    not_pulled(End::ImageUnavailable, why)
}

fn of_queue(error: &QueueError) -> String {
    format!("failed to {}", chain(error))
}

/// Where the artifact is not to be had, the task has no image; nothing is known of a queue that is out of order itself.
fn end_of(error: &QueueError) -> End {
    match error {
        QueueError::Internal { .. } => End::WorkerFault,
        QueueError::NotFound { .. }
        | QueueError::Conflict { .. }
        | QueueError::Invalid { .. }
        | QueueError::NoContent { .. }
        | QueueError::Unauthenticated { .. }
        | QueueError::Unauthorized { .. }
        | QueueError::Foreign { .. }
        | QueueError::Unreachable { .. } => End::ImageUnavailable,
    }
}

async fn unless_stopped<T>(
    stop: &Cancel,
    work: impl Future<Output = Result<T, TaskError>>,
) -> Result<T, TaskError> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(TaskError::interrupted()),
        done = work => done,
    }
}
