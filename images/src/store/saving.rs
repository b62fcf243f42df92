//! What an archive of an image is written from: its documents as they are kept, and its layers' blobs.
//!
//! ```text
//!  lease ──► manifest, configuration: verified ──► for each layer: its blob, which is there
//!                                                   └─► another blob of the same layer, where tar streams are written
//!                                                   └─► fetched from the registry under the same digest
//!                                                   └─► nothing: an error; a layer is never made up of what it was
//!                                                       unpacked into, as its digest would be another one
//! ```

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use crate::digest::{Digest, Hasher};
use crate::disk;
use crate::image::parse_configuration;
use crate::inflate::Compression;
use crate::limits::Limits;
use crate::manifest::{self, Descriptor, Document};
use crate::reference::Reference;
use crate::registry::Sources;
use crate::save::{Layers, Manifest, SaveError, SavedImage, SavedLayer};
use crate::source::Source;

use super::claim::{Claim, Work};
use super::ingest::{NetworkReader, read_chunk};
use super::lease::{Hold, Lease};
use super::options::{Cancel, PullEvent, PullOptions};
use super::pull::Events;
use super::transfer::CHUNKS_WAITING;
use super::waiting::in_thread;
use super::{Store, StoreError, layout, lock};

/// A blob of a layer, and the layer.
struct Wanted {
    blob: Descriptor,
    diff_id: Digest,
}

/// A blob that is there, where, and what holds it besides the image's lease.
struct Present {
    path: PathBuf,
    blob: Descriptor,
    hold: Option<Arc<Hold>>,
}

/// What is kept of an image's documents.
struct Kept {
    manifest: Manifest,
    /// Whether every reader of OCI layouts takes it.
    is_common: bool,
    config: Vec<u8>,
    layers: Vec<Wanted>,
}

impl Store {
    /// Prepares a leased image to be written into an archive under `names`. Layers of which the store has no blob any more
    /// are fetched.
    ///
    /// # Errors
    ///
    /// [`SaveError`]
    pub async fn prepare_save(
        &self,
        lease: &Lease,
        (names, layers): (Vec<Reference>, Layers),
        options: &PullOptions,
        events: Events<'_>,
    ) -> Result<SavedImage, SaveError> {
        let name = lease.image().name.clone();
        let kept = self.kept_documents(lease, options)?;
        let blobs: Vec<_> = kept.layers.iter().map(|layer| layer.blob.clone()).collect();
        let mut saved = Vec::new();
        let mut holds = vec![lease.hold()];
        for wanted in kept.layers {
            let (layer, hold) = self.saved_layer(&name, wanted, layers, (options, events)).await?;
            saved.push(layer);
            holds.extend(hold);
        }
        // One that names other blobs than are written is no manifest of this archive.
        let is_kept = kept.is_common && saved.iter().map(|layer| &layer.blob).eq(&blobs);
        let manifest = if is_kept { kept.manifest } else { Manifest::of(&kept.config, &saved) };
        Ok(SavedImage { names, config: kept.config, manifest, layers: saved, _holds: holds })
    }

    /// Looks at a blob that turned out to be damaged while it was saved, and drops it if it is: the next one who needs it
    /// fetches it.
    ///
    /// # Errors
    ///
    /// I/O errors of the store.
    pub fn drop_damaged(&self, error: &SaveError) -> Result<(), StoreError> {
        let SaveError::Content { blob, .. } = error else { return Ok(()) };
        self.is_whole(blob, &Cancel::default()).map(drop)
    }

    fn kept_documents(&self, lease: &Lease, options: &PullOptions) -> Result<Kept, SaveError> {
        let image = lease.image();
        let read = |digest: &Digest| {
            let content = layout::read_small(&self.layout().blob(digest))?;
            let content = content.filter(|content| digest.verify(content).is_ok());
            let damaged = || SaveError::Document { name: image.name.clone(), digest: digest.clone() };
            content.ok_or_else(damaged)
        };
        let (content, config) = (read(&image.digest)?, read(&image.id)?);
        let damaged = || SaveError::Document { name: image.name.clone(), digest: image.digest.clone() };
        let Ok(Document::Manifest(parsed)) = manifest::parse(&image.digest, &content, None, &options.limits)
        else {
            return Err(damaged());
        };
        let configuration = parse_configuration(&image.id, &config, parsed.layers.len(), &options.limits)?;
        let (media_type, is_common) = manifest::kind(&content).ok_or_else(damaged)?;
        let layers = parsed.layers.into_iter().zip(configuration.diff_ids);
        let layers = layers.map(|(blob, diff_id)| Wanted { blob, diff_id }).collect();
        Ok(Kept { manifest: Manifest { media_type, content }, is_common, config, layers })
    }

    async fn saved_layer(
        &self,
        name: &str,
        wanted: Wanted,
        layers: Layers,
        (options, events): (&PullOptions, Events<'_>),
    ) -> Result<(SavedLayer, Option<Arc<Hold>>), SaveError> {
        // Whatever is damaged is dropped, and then it is missing: so there are two rounds.
        for _ in ["what is there", "what is fetched"] {
            let Present { path, blob, hold } = match self.any_blob(&wanted, layers, &options.cancel)? {
                Some(found) => found,
                None => {
                    self.fetch_blob(name, &wanted.blob, (options, events)).await?;
                    let path = self.layout().blob(&wanted.blob.digest);
                    Present { path, blob: wanted.blob.clone(), hold: None }
                }
            };
            let diff_id = wanted.diff_id.clone();
            let (limits, cancel) = (options.limits.clone(), options.cancel.clone());
            let scratch = self.layout().works();
            let (described, read_path) = (blob.clone(), path.clone());
            let read =
                move || Ok(saved(&read_path, &described, &diff_id, (layers, (&scratch, &limits), &cancel)));
            let read = tokio::select! {
                read = in_thread(read, drop) => read?,
                () = options.cancel.cancelled() => return Err(SaveError::Cancelled),
            };
            match read {
                Ok(layer) => return Ok((layer, hold)),
                Err(_damaged) if !self.is_whole(&blob.digest, &options.cancel)? => {}
                Err(error) => return Err(error),
            }
        }
        Err(SaveError::Content { blob: wanted.blob.digest, found: None })
    }

    /// The layer's own blob, or, where only its tar stream counts, that of another image with the same layer.
    fn any_blob(
        &self,
        wanted: &Wanted,
        layers: Layers,
        cancel: &Cancel,
    ) -> Result<Option<Present>, SaveError> {
        let layout = self.layout();
        let own = layout.blob(&wanted.blob.digest);
        if is_of_size(&own, wanted.blob.size) {
            return Ok(Some(Present { path: own, blob: wanted.blob.clone(), hold: None }));
        }
        if layers == Layers::AsTheyCame {
            return Ok(None);
        }
        let _using = layout.lock_shared(&|| !cancel.is_cancelled())?;
        for (record, _) in self.read_names()? {
            let Some(image) = self.image_record(&record.image)? else { continue };
            for (diff_id, blob) in image.layers.iter().zip(&record.blobs) {
                let path = layout.blob(&blob.digest);
                if *diff_id == wanted.diff_id && is_of_size(&path, blob.size) {
                    let hold = Hold::take(layout, std::slice::from_ref(&path))?;
                    let (blob, hold) = (blob.clone(), Some(Arc::new(hold)));
                    return Ok(Some(Present { path, blob, hold }));
                }
            }
        }
        Ok(None)
    }

    /// Whether a stored blob is what its name says; one that is not is removed.
    fn is_whole(&self, digest: &Digest, cancel: &Cancel) -> Result<bool, StoreError> {
        let path = self.layout().blob(digest);
        let mut file = match layout::open_regular(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened.map_err(StoreError::file("open", &path))?,
        };
        let verified = digest.verify_stream(&mut file).map_err(StoreError::file("read", &path))?;
        if verified.is_ok() {
            return Ok(true);
        }
        let _one_at_a_time = self.lock_blobs(&|| !cancel.is_cancelled())?;
        // Meanwhile somebody may have put a whole one in its place.
        if lock::is_still_at(&file, &path).map_err(StoreError::file("look at", &path))? {
            layout::remove_file(&path)?;
        }
        Ok(false)
    }

    /// Brings a layer's blob back from where its image came from.
    async fn fetch_blob(
        &self,
        name: &str,
        blob: &Descriptor,
        (options, events): (&PullOptions, Events<'_>),
    ) -> Result<(), SaveError> {
        let not_kept = || SaveError::NotKept { name: name.to_owned(), layer: blob.digest.clone() };
        let Ok(Source::Registry(reference)) = Source::parse(name) else { return Err(not_kept()) };
        let lost = |source| SaveError::Lost {
            name: name.to_owned(),
            layer: blob.digest.clone(),
            source: Box::new(source),
        };
        let sources = Sources::new(&reference, &options.access, &options.limits).map_err(lost)?;
        let slow = || SaveError::TimeLimit { name: name.to_owned(), limit: options.limits.pull };
        let work = Work::blob(&blob.digest, sources.registry());
        let Some((claim, from)) = self.blob_to_fetch(blob, work, options).await? else { return Ok(()) };
        events(PullEvent::LayerStarted { id: blob.digest.short().to_owned(), total_bytes: blob.size });
        let began = Instant::now();
        let (out, chunks) = mpsc::channel(CHUNKS_WAITING);
        let (store, kept, cancel) = (self.clone(), blob.clone(), options.cancel.clone());
        let keep = move || store.keep_blob(claim, NetworkReader::new(chunks), &kept, &cancel);
        let keeping = in_thread(keep, drop);
        let sending = async {
            let tell = |text| events(PullEvent::Status(text));
            let sent = tokio::select! {
                sent = sources.blob(blob, from, &out, &tell) => sent.map_err(lost),
                () = options.cancel.cancelled() => Err(SaveError::Cancelled),
                () = tokio::time::sleep(options.limits.pull) => Err(slow()),
            };
            // Closes the channel: without an end mark before it, what was kept is a beginning.
            drop(out);
            sent
        };
        let (sent, kept) = tokio::join!(sending, keeping);
        // Whoever takes the bytes says first what is wrong: to the sender it looks as if nobody wanted them.
        match kept? {
            Taken::Other => {
                return Err(SaveError::Other { name: name.to_owned(), layer: blob.digest.clone() });
            }
            Taken::Whole | Taken::Part => sent?,
        }
        events(PullEvent::LayerDone { id: blob.digest.short().to_owned(), took: began.elapsed() });
        Ok(())
    }

    /// The claim on a blob that is not there, and where to go on with it.
    async fn blob_to_fetch(
        &self,
        blob: &Descriptor,
        work: Work,
        options: &PullOptions,
    ) -> Result<Option<(Claim, u64)>, SaveError> {
        let (store, blob, limits, cancel) =
            (self.clone(), blob.clone(), options.limits.clone(), options.cancel.clone());
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
            () = options.cancel.cancelled() => Err(SaveError::Cancelled),
        }
    }
}

fn is_of_size(path: &Path, size: u64) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.len() == size)
}

/// The layer of a blob that is there.
fn saved(
    path: &Path,
    blob: &Descriptor,
    diff_id: &Digest,
    (layers, room, cancel): (Layers, (&Path, &Limits), &Cancel),
) -> Result<SavedLayer, SaveError> {
    let failed = |source| SaveError::Read { blob: blob.digest.clone(), source };
    let as_it_came = SavedLayer::as_it_came(path, blob, diff_id).map_err(failed)?;
    // Of the others no manifest could tell.
    if layers == Layers::AsTheyCame && as_it_came.compression != Compression::Other {
        return Ok(as_it_came);
    }
    let read = SavedLayer::plain(path, blob, diff_id, (room, cancel.flag()));
    if cancel.is_cancelled() { Err(SaveError::Cancelled) } else { read }
}

/// What became of a blob that was fetched.
enum Taken {
    /// It is in the store.
    Whole,
    /// It broke off; what has come stays for the next one.
    Part,
    /// It was another one, and is gone.
    Other,
}

impl Store {
    /// Takes the rest of a blob in behind what the claim's file holds.
    fn keep_blob(
        &self,
        claim: Claim,
        mut rest: NetworkReader,
        blob: &Descriptor,
        cancel: &Cancel,
    ) -> Result<Taken, StoreError> {
        let path = claim.path().to_owned();
        let failed = |action| StoreError::file(action, &path);
        let (mut hasher, mut bytes) = (Hasher::new(blob.digest.algorithm()), 0);
        let mut file = claim.file();
        let beginning = read_all(&mut file, |chunk| {
            bytes += chunk.len() as u64;
            hasher.update(chunk);
            true
        });
        beginning.map_err(failed("read"))?;
        let mut written = Ok(());
        let came = read_all(&mut rest, |chunk| {
            bytes += chunk.len() as u64;
            hasher.update(chunk);
            written = file.write_all(chunk);
            bytes <= blob.size && written.is_ok() && !cancel.is_cancelled()
        });
        if let Err(error) = written {
            claim.leave()?;
            return Err(failed("write")(error));
        }
        if came.is_err() || cancel.is_cancelled() {
            return claim.leave().map(|()| Taken::Part);
        }
        if bytes != blob.size || hasher.verify(&blob.digest).is_err() {
            return claim.release().map(|()| Taken::Other);
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
