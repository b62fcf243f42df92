//! The layers of one image on their way into the store.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::archive::{Archive, Archived};
use crate::digest::Digest;
use crate::disk;
use crate::layer::Budget;
use crate::manifest::{Descriptor, Offer};
use crate::registry::{RegistryError, Sources};
use crate::tree::MergeError;

use super::catalog::Asked;
use super::claim::{Claim, Work};
use super::collect::MadeLayer;
use super::ingest::{Control, Expected, IngestError, NetworkReader};
use super::layers::{BlobInput, BuildError};
use super::options::{Cancel, PullEvent, PullOptions};
use super::pull::{Events, Request};
use super::waiting::{blocking, in_thread, joined, unless_cancelled};
use super::{PullError, Store, StoreError};

/// Chunks that may wait between the network and the first stage; hyper's have up to 256 KiB.
pub(super) const CHUNKS_WAITING: usize = 8;
const EVENTS_WAITING: usize = 64;
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Where layers come from.
#[derive(Clone)]
pub(super) enum LayerSource {
    Registry(Arc<Sources>),
    Archive(Arc<Archive>, Arc<Archived>),
}

/// What the layers of one image share while they are fetched.
pub(super) struct Transfer {
    store: Store,
    source: LayerSource,
    options: PullOptions,
    cancel: Cancel,
    /// The image's, for messages.
    name: String,
    /// One for each layer that is being fetched or waited for.
    slots: Semaphore,
    made: Mutex<Vec<MadeLayer>>,
}

/// One layer to be fetched.
#[derive(Clone)]
struct Layer {
    blob: Descriptor,
    diff_id: Digest,
    /// What all layers of the image may take.
    budget: Arc<Budget>,
}

impl Layer {
    /// The pull's error, with the layer's name.
    fn failed(&self, error: BuildError) -> PullError {
        let layer = self.blob.digest.clone();
        match error {
            BuildError::Store(error) => error.into(),
            BuildError::Ingest(source) => PullError::Layer { layer, source },
        }
    }
}

impl Transfer {
    pub(super) fn new(store: &Store, source: LayerSource, request: &Request<'_>) -> Arc<Transfer> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        // Not fewer than two: while one layer waits for the network, another inflates.
        let slots = request.options.limits.parallel_blobs.min(cores.max(2)).max(1);
        Arc::new(Transfer {
            store: store.clone(),
            source,
            options: request.options.clone(),
            cancel: request.cancel.clone(),
            name: request.name.to_owned(),
            slots: Semaphore::new(slots),
            made: Mutex::default(),
        })
    }

    pub(super) fn made(&self) -> Vec<MadeLayer> {
        std::mem::take(&mut self.made.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Fetches the layers that are missing. On the first error the others are ended and waited for.
    pub(super) async fn fetch(self: &Arc<Self>, offer: &Offer, events: Events<'_>) -> Result<(), PullError> {
        let (transfer, wanted) = (Arc::clone(self), offer.clone());
        let missing = blocking(move || transfer.missing(&wanted)).await?;
        let (sender, mut told) = mpsc::channel(EVENTS_WAITING);
        let mut tasks = JoinSet::new();
        for layer in missing {
            let (transfer, sender) = (Arc::clone(self), sender.clone());
            tasks.spawn(async move { transfer.layer(&layer, &sender).await });
        }
        drop(sender);
        let mut first_error = None;
        loop {
            tokio::select! {
                Some(event) = told.recv() => events(event),
                Some(ended) = tasks.join_next() => {
                    if let Err(error) = joined(ended) {
                        self.cancel.cancel();
                        first_error.get_or_insert(error);
                    }
                }
                else => break,
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// The layers that are not there, if there is room for them; the others are counted in the image's budget.
    fn missing(&self, offer: &Offer) -> Result<Vec<Layer>, PullError> {
        // A new one: where layers are looked at once more, those that were made count as what is there.
        let budget = Arc::new(Budget::new(&self.options.limits));
        let mut seen = HashSet::new();
        let mut missing = Vec::new();
        for (diff_id, blob) in offer.configuration.diff_ids.iter().zip(&offer.layers) {
            if !seen.insert(diff_id) {
                continue;
            }
            match self.store.intact_layer(diff_id)? {
                Some(layer) => {
                    let taken = budget.take_layer(&layer);
                    let too_large = |(what, limit)| MergeError::TooLarge { what, limit };
                    taken.map_err(|exceeded| StoreError::Merge { source: too_large(exceeded) })?;
                }
                None => {
                    let (blob, diff_id) = (blob.clone(), diff_id.clone());
                    missing.push(Layer { blob, diff_id, budget: Arc::clone(&budget) });
                }
            }
        }
        let mut bytes = 0_u64;
        for layer in &missing {
            bytes = bytes.saturating_add(self.still_to_fetch(layer)?);
        }
        disk::check(self.store.layout().root(), bytes, &self.options.limits)?;
        Ok(missing)
    }

    /// What of a layer's blob is not yet in the store: another pull may have begun it, or one that was interrupted.
    fn still_to_fetch(&self, layer: &Layer) -> Result<u64, StoreError> {
        let layout = self.store.layout();
        let size = layer.blob.size;
        if file_bytes(&layout.blob(&layer.blob.digest))?.is_some() {
            return Ok(0);
        }
        let partial = file_bytes(&layout.partial(&self.work(&layer.blob.digest)))?;
        Ok(size - self.source.resumable(partial.unwrap_or(0), size))
    }

    /// One layer, by whoever holds the claim on its blob.
    async fn layer(
        self: &Arc<Self>,
        layer: &Layer,
        events: &mpsc::Sender<PullEvent>,
    ) -> Result<(), PullError> {
        let cancelled = || PullError::Cancelled { name: self.name.clone() };
        // The slot first, then the claim: whoever holds a claim is at work, so waiting for one ends.
        let _slot = unless_cancelled(&self.cancel, &self.name, self.slots.acquire())
            .await?
            .map_err(|_closed| cancelled())?;
        let claim = self.claim(&self.work(&layer.blob.digest)).await?;
        if self.store.has_layer(&layer.diff_id)? {
            return blocking(move || claim.release().map_err(PullError::from)).await;
        }
        let claim = match self.from_store(claim, layer).await? {
            None => return Ok(()),
            Some(claim) => claim,
        };
        let mut from = resume_point(&claim, layer, &self.source)?;
        let mut claim = claim;
        let began = Instant::now();
        let (id, total_bytes) = (layer.blob.digest.short().to_owned(), layer.blob.size);
        self.tell(events, PullEvent::LayerStarted { id: id.clone(), total_bytes }).await;
        loop {
            let place = self.source.place();
            let Err(error) = self.transfer(claim, layer, from, events).await else { break };
            match &error {
                // What a killed process left may not have reached the disk as it was: once more without it.
                PullError::Layer { source, .. } if from > 0 && source.is_of_content() => {}
                PullError::Layer { source, .. } if source.is_of_blob() => {
                    let Some(left) = self.source.leave(place, source) else { return Err(error) };
                    self.tell(events, PullEvent::Status(left)).await;
                }
                _ => return Err(error),
            }
            claim = self.claim(&self.work(&layer.blob.digest)).await?;
            claim.truncate()?;
            from = 0;
        }
        self.tell(events, PullEvent::LayerDone { id, took: began.elapsed() }).await;
        Ok(())
    }

    /// Makes the layer from a blob that is in the store. Gives the claim back if there is none.
    async fn from_store(self: &Arc<Self>, claim: Claim, layer: &Layer) -> Result<Option<Claim>, PullError> {
        let mut claim = claim;
        // A damaged one goes; somebody who fetches it from another registry may have put a whole one there meanwhile.
        for _ in 0..2 {
            let Some(blob) = self.store.stored_blob(&layer.blob.digest)? else { break };
            match self.build(claim, layer, BlobInput::Stored(blob), Arc::default()).await {
                Ok(()) => return Ok(None),
                Err(BuildError::Ingest(IngestError::Digest { .. })) => {}
                Err(error) => return Err(layer.failed(error)),
            }
            claim = self.claim(&self.work(&layer.blob.digest)).await?;
        }
        Ok(Some(claim))
    }

    /// Moves the blob through all stages, with progress events.
    async fn transfer(
        self: &Arc<Self>,
        claim: Claim,
        layer: &Layer,
        from: u64,
        events: &mpsc::Sender<PullEvent>,
    ) -> Result<(), PullError> {
        let progress = Arc::new(AtomicU64::new(0));
        let moved = async {
            match &self.source {
                LayerSource::Registry(sources) => {
                    self.download((sources, events), claim, layer, (from, Arc::clone(&progress))).await
                }
                LayerSource::Archive(archive, archived) => {
                    let input = archive.blob(archived, &layer.blob)?;
                    let built =
                        self.build(claim, layer, BlobInput::Stream(input), Arc::clone(&progress)).await;
                    built.map_err(|error| layer.failed(error))
                }
            }
        };
        tokio::pin!(moved);
        let mut ticks = tokio::time::interval(PROGRESS_EVERY);
        loop {
            tokio::select! {
                done = &mut moved => return done,
                _ = ticks.tick() => {
                    let (id, bytes) = (layer.blob.digest.short().to_owned(), progress.load(Ordering::Relaxed));
                    let event = PullEvent::LayerProgress { id, bytes, total_bytes: layer.blob.size };
                    // Progress that nobody has time for is left out.
                    drop(events.try_send(event));
                }
            }
        }
    }

    async fn download(
        self: &Arc<Self>,
        (sources, events): (&Sources, &mpsc::Sender<PullEvent>),
        claim: Claim,
        layer: &Layer,
        (from, progress): (u64, Arc<AtomicU64>),
    ) -> Result<(), PullError> {
        let (out, chunks) = mpsc::channel(CHUNKS_WAITING);
        let input = BlobInput::Stream(Box::new(NetworkReader::new(chunks)));
        let building = self.build(claim, layer, input, progress);
        // Where there is no room for more, somebody has been told enough.
        let tell = |text| drop(events.try_send(PullEvent::Status(text)));
        let sending = async {
            let sent = tokio::select! {
                sent = sources.blob(&layer.blob, from, &out, &tell) => Some(sent),
                () = self.cancel.cancelled() => None,
            };
            // Closes the channel: without an end mark before it, the stages break off.
            drop(out);
            sent
        };
        match tokio::join!(sending, building) {
            // The stages saw no more than a broken stream, unless they stopped first.
            (Some(Err(error)), Err(_)) if !matches!(error, RegistryError::Abandoned { .. }) => {
                Err(error.into())
            }
            (_, built) => built.map_err(|error| layer.failed(error)),
        }
    }

    /// Runs the stages on threads of their own.
    async fn build(
        self: &Arc<Self>,
        claim: Claim,
        layer: &Layer,
        input: BlobInput<'static>,
        progress: Arc<AtomicU64>,
    ) -> Result<(), BuildError> {
        let (transfer, layer) = (Arc::clone(self), layer.clone());
        let built = blocking(move || {
            let expected = Expected { blob: &layer.blob, diff_id: &layer.diff_id };
            let budget = Budget::part(&layer.budget);
            let control = Control {
                budget: &budget,
                store: transfer.store.layout().root(),
                scratch: &transfer.store.layout().works(),
                cancelled: transfer.cancel.flag(),
                progress: &progress,
            };
            let fetched = matches!(input, BlobInput::Stream(_));
            transfer.store.build_layer(claim, &expected, input, &control)?;
            budget.keep();
            let made = MadeLayer { diff_id: layer.diff_id, blob: layer.blob.digest, fetched };
            transfer.made.lock().unwrap_or_else(PoisonError::into_inner).push(made);
            Ok(())
        });
        built.await
    }

    /// As whom the registry has been asked so far.
    pub(super) fn asked(&self) -> Option<Asked> {
        match &self.source {
            LayerSource::Registry(sources) if sources.know_us() => Some(Asked::AsOurselves),
            LayerSource::Registry(_) => Some(Asked::Anonymously),
            LayerSource::Archive(..) => None,
        }
    }

    /// What is claimed of a blob where these layers come from.
    pub(super) fn work(&self, blob: &Digest) -> Work {
        match &self.source {
            LayerSource::Registry(sources) => Work::blob(blob, sources.registry()),
            LayerSource::Archive(..) => Work::local_blob(blob),
        }
    }

    /// Takes a claim, and waits for it only if someone has it.
    pub(super) async fn claim(&self, of: &Work) -> Result<Claim, PullError> {
        let (layout, of) = (self.store.layout().clone(), of.clone());
        if let Some(claim) = Claim::try_take(&layout, &of)? {
            return Ok(claim);
        }
        // What comes too late is given up: a claim that is only dropped leaves an empty file behind.
        let (cancel, most) = (self.cancel.clone(), self.options.limits.pull);
        let take = move || {
            let wanted = || !cancel.is_cancelled();
            Claim::take(&layout, &of, layout.at_most(most, &wanted))
        };
        let taking = in_thread(take, |late: Claim| drop(late.leave()));
        Ok(unless_cancelled(&self.cancel, &self.name, taking).await??)
    }

    /// If nobody listens any more, the pull is being dropped.
    async fn tell(&self, events: &mpsc::Sender<PullEvent>, event: PullEvent) {
        drop(events.send(event).await);
    }
}

impl LayerSource {
    /// Who would be asked for a layer now.
    fn place(&self) -> usize {
        match self {
            LayerSource::Registry(sources) => sources.place(),
            LayerSource::Archive(..) => 0,
        }
    }

    /// Leaves who was asked when a layer turned out to be another one, if that was a mirror: the sentence about it.
    fn leave(&self, place: usize, why: &IngestError) -> Option<String> {
        match self {
            LayerSource::Registry(sources) => sources.leave_mirror(place, why),
            LayerSource::Archive(..) => None,
        }
    }

    /// How much of the `bytes` of a blob with `size` that an interrupted pull has left are of use. Reading a file again
    /// costs nothing, so that starts anew; so does what is longer than the blob can be.
    fn resumable(&self, bytes: u64, size: u64) -> u64 {
        match self {
            LayerSource::Registry(_) if bytes <= size => bytes,
            LayerSource::Registry(_) | LayerSource::Archive(..) => 0,
        }
    }
}

/// How large a file is, if it is there.
fn file_bytes(path: &Path) -> Result<Option<u64>, StoreError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::file("look at", path)(error)),
    }
}

/// Where to go on with a blob that an interrupted pull has begun.
fn resume_point(claim: &Claim, layer: &Layer, source: &LayerSource) -> Result<u64, StoreError> {
    let bytes = source.resumable(claim.partial_bytes()?, layer.blob.size);
    if bytes == 0 {
        claim.truncate()?;
    }
    Ok(bytes)
}
