//! A layer's blob that comes again from where its image came from.

use std::io::{self, Read, Write};
use std::time::Instant;

use tokio::sync::mpsc;

use crate::digest::Hasher;
use crate::disk::{self, Watch};
use crate::limits::Limits;
use crate::manifest::Descriptor;
use crate::registry::{RegistryError, Sources};
use crate::save::SaveError;
use crate::store::claim::{Claim, Work};
use crate::store::ingest::{IngestError, NetworkReader, read_chunk};
use crate::store::options::{Cancel, PullEvent, PullOptions};
use crate::store::pull::Events;
use crate::store::transfer::CHUNKS_WAITING;
use crate::store::waiting::in_thread;
use crate::store::{Store, StoreError};

use super::Origin;
use super::present::is_of_size;

impl Store {
    /// Brings a layer's blob back from where its image came from, before the image's deadline. A place that gives other bytes
    /// is left for the next one.
    pub(super) async fn fetch_blob(
        &self,
        origin: &Origin,
        blob: &Descriptor,
        (options, events): (&PullOptions, Events<'_>),
    ) -> Result<(), SaveError> {
        let Origin { name, registry, deadline } = origin;
        let not_kept = || SaveError::NotKept { name: name.clone(), layer: blob.digest.clone() };
        let reference = registry.as_ref().ok_or_else(not_kept)?;
        let lost = |source| lost(name, blob, source);
        let sources = Sources::new(reference, &options.access, &options.limits).map_err(lost)?;
        let fetching = Fetching { store: self, name, blob, sources: &sources, options, events };
        tokio::select! {
            fetched = fetching.anywhere() => fetched,
            () = tokio::time::sleep_until(*deadline) => {
                Err(SaveError::TimeLimit { name: name.to_owned(), limit: options.limits.pull })
            }
        }
    }
}

fn lost(name: &str, blob: &Descriptor, source: RegistryError) -> SaveError {
    SaveError::Lost { name: name.to_owned(), layer: blob.digest.clone(), source: Box::new(source) }
}

/// One blob on its way.
struct Fetching<'a> {
    store: &'a Store,
    name: &'a str,
    blob: &'a Descriptor,
    sources: &'a Sources,
    options: &'a PullOptions,
    events: Events<'a>,
}

impl Fetching<'_> {
    /// From the first place that gives it.
    async fn anywhere(&self) -> Result<(), SaveError> {
        loop {
            let place = self.sources.place();
            let Some((claim, from)) = self.claim().await? else { return Ok(()) };
            let Some(why) = self.fetch(claim, from).await? else { return Ok(()) };
            // What a killed process left may not have reached the disk as it was: once more without it.
            if from > 0 {
                continue;
            }
            match self.sources.leave_mirror(place, &why) {
                Some(left) => (self.events)(PullEvent::Status(left)),
                None => {
                    let (name, layer) = (self.name.to_owned(), self.blob.digest.clone());
                    return Err(SaveError::Other { name, layer });
                }
            }
        }
    }

    /// Takes what comes. What is wrong with it, if it was another blob.
    async fn fetch(&self, claim: Claim, from: u64) -> Result<Option<IngestError>, SaveError> {
        let Fetching { blob, events, .. } = self;
        events(PullEvent::LayerStarted { id: blob.digest.short().to_owned(), total_bytes: blob.size });
        let began = Instant::now();
        let (out, chunks) = mpsc::channel(CHUNKS_WAITING);
        let (store, kept) = (self.store.clone(), (*blob).clone());
        let (limits, cancel) = (self.options.limits.clone(), self.options.cancel.clone());
        let keep = move || store.keep_blob(claim, NetworkReader::new(chunks), &kept, (&limits, &cancel));
        let keeping = in_thread(keep, drop);
        let sending = async {
            let tell = |text| events(PullEvent::Status(text));
            let sent = tokio::select! {
                sent = self.sources.blob(blob, from, &out, &tell) => {
                    sent.map_err(|source| lost(self.name, blob, source))
                }
                () = self.options.cancel.cancelled() => Err(SaveError::Cancelled),
            };
            // Closes the channel: without an end mark before it, what was kept is a beginning.
            drop(out);
            sent
        };
        let (sent, kept) = tokio::join!(sending, keeping);
        // Whoever takes the bytes says first what is wrong: to the sender it looks as if nobody wanted them.
        match kept? {
            Taken::Other(why) => return Ok(Some(why)),
            Taken::Whole | Taken::Part => sent?,
        }
        events(PullEvent::LayerDone { id: blob.digest.short().to_owned(), took: began.elapsed() });
        Ok(None)
    }

    /// The claim on the blob, and where to go on with it; nothing if it is there by now.
    async fn claim(&self) -> Result<Option<(Claim, u64)>, SaveError> {
        let work = Work::blob(&self.blob.digest, self.sources.registry());
        let (store, blob) = (self.store.clone(), self.blob.clone());
        let (limits, cancel) = (self.options.limits.clone(), self.options.cancel.clone());
        let take = move || {
            let wanted = || !cancel.is_cancelled();
            let layout = store.layout();
            let claim = Claim::take(layout, &work, layout.at_most(limits.pull, &wanted))?;
            if is_of_size(&layout.blob(&blob.digest), blob.size) {
                return claim.release().map(|()| None);
            }
            if claim.partial_bytes()? > blob.size {
                claim.truncate()?;
            }
            let from = claim.partial_bytes()?;
            match disk::check(layout.root(), blob.size - from, &limits) {
                Ok(()) => Ok(Some((claim, from))),
                Err(full) => claim.leave().and(Err(full.into())),
            }
        };
        tokio::select! {
            taken = in_thread(take, |late| drop(late.map(|(claim, _)| claim.leave()))) => Ok(taken?),
            () = self.options.cancel.cancelled() => Err(SaveError::Cancelled),
        }
    }
}

/// What became of a blob that was fetched.
enum Taken {
    /// It is in the store.
    Whole,
    /// It broke off; what has come stays for the next one.
    Part,
    /// It was another one, for this reason, and is gone.
    Other(IngestError),
}

impl Store {
    /// Takes the rest of a blob in behind what the claim's file holds.
    fn keep_blob(
        &self,
        claim: Claim,
        mut rest: NetworkReader,
        blob: &Descriptor,
        (limits, cancel): (&Limits, &Cancel),
    ) -> Result<Taken, StoreError> {
        let path = claim.path().to_owned();
        let failed = |action| StoreError::file(action, &path);
        let mut watch = Watch::new(self.layout().root(), limits);
        let (mut hasher, mut bytes) = (Hasher::new(blob.digest.algorithm()), 0);
        let mut file = claim.file();
        let beginning = read_all(&mut file, |chunk| {
            bytes += chunk.len() as u64;
            hasher.update(chunk);
            !cancel.is_cancelled()
        });
        beginning.map_err(failed("read"))?;
        // Then the rest has no place yet.
        if cancel.is_cancelled() {
            return claim.leave().map(|()| Taken::Part);
        }
        let (mut came_bytes, mut written) = (0, Ok(()));
        let came = read_all(&mut rest, |chunk| {
            bytes += chunk.len() as u64;
            came_bytes += chunk.len() as u64;
            hasher.update(chunk);
            let has_room = watch.reached(came_bytes).map_err(StoreError::from);
            written = has_room.and_then(|()| file.write_all(chunk).map_err(failed("write")));
            bytes <= blob.size && written.is_ok() && !cancel.is_cancelled()
        });
        if let Err(error) = written {
            return claim.leave().and(Err(error));
        }
        if came.is_err() || cancel.is_cancelled() {
            return claim.leave().map(|()| Taken::Part);
        }
        let size = blob.size;
        let why = match hasher.verify(&blob.digest) {
            _ if bytes > size => Some(IngestError::TooLong { size }),
            _ if bytes < size => Some(IngestError::TooShort { found: bytes, size }),
            verified => verified.err().map(|found| IngestError::Digest { found }),
        };
        if let Some(why) = why {
            return claim.release().map(|()| Taken::Other(why));
        }
        let blobs = self.lock_blobs(&|| !cancel.is_cancelled());
        match blobs {
            Ok(_one_at_a_time) => claim.commit(&self.layout().blob(&blob.digest)).map(|()| Taken::Whole),
            Err(error) => claim.leave().and(Err(error)),
        }
    }
}

/// Reads as long as `take` goes on.
fn read_all(from: &mut dyn Read, mut take: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    loop {
        let chunk = read_chunk(from)?;
        if chunk.is_empty() || !take(&chunk) {
            return Ok(());
        }
    }
}
