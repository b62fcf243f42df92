//! A pull: from a source's offer of an image to the image in the store.
//!
//! ```text
//!  offer ──► layers that are missing ──┬─► claim ─► download ═══► ingest ─► commit ─┬─► merge ─► name
//!                                      ├─► …        (task)  channel (threads)       │
//!                                      └─► as many at once as cores and limits allow┘
//! ```
//!
//! Until the name is written nobody can see that anything happened. What has been fetched so far
//! stays for the next try, unless it is refused or does not fit on the disk: then the pull takes back
//! what it made.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::archive::{Archive, Archived};
use crate::disk;
use crate::image::{Image, ImageConfig};
use crate::json::shortened;
use crate::manifest::{Offer, Platform};
use crate::reference::Reference;
use crate::registry::Sources;
use crate::source::Source;

use super::catalog::{Asked, NameRecord, store_name};
use super::claim::Work;
use super::collect::GcPolicy;
use super::lease::{Hold, Lease};
use super::options::{Cancel, PullEvent, PullOptions};
use super::stream::StreamName;
use super::transfer::{LayerSource, Transfer};
use super::waiting::{blocking, in_thread, unless_cancelled};
use super::{PullError, PullErrorKind, Store, StoreError, layout};

pub(super) type Events<'a> = &'a (dyn Fn(PullEvent) + Send + Sync);

impl Store {
    /// Brings an image into the store under its name; layers that are there are not fetched again.
    /// Where the disk is too full for it, garbage and what was used longest ago make room.
    ///
    /// Dropping the future abandons the pull; [`PullOptions::cancel`] also waits for the clean-up.
    ///
    /// # Errors
    ///
    /// [`PullError`]. After [`PullErrorKind::Refused`] and [`PullErrorKind::DiskFull`] the store is as
    /// before, but for what has made room; after others it also holds what has been fetched so far, for
    /// the next try.
    pub async fn pull(
        &self,
        source: &Source,
        options: &PullOptions,
        events: &(dyn Fn(PullEvent) + Send + Sync),
    ) -> Result<Lease, PullError> {
        let images = self.pull_with_room(source, Which::One, options, events).await?;
        let gone = || PullError::Store(StoreError::Gone { name: source.to_string() });
        images.into_iter().next().ok_or_else(gone)
    }

    /// Brings every image of an archive into the store under the names inside the archive; an
    /// image without one gets the source for a name.
    ///
    /// # Errors
    ///
    /// As [`Store::pull`].
    pub async fn load(
        &self,
        source: &Source,
        options: &PullOptions,
        events: &(dyn Fn(PullEvent) + Send + Sync),
    ) -> Result<Vec<Lease>, PullError> {
        self.pull_with_room(source, Which::AllNamed, options, events).await
    }

    /// The same of an archive whose own name means nothing, as it has none or a passing one: an image without a name is
    /// [`StreamName::of_image`] then.
    ///
    /// # Errors
    ///
    /// As [`Store::pull`].
    pub async fn load_nameless(
        &self,
        source: &Source,
        options: &PullOptions,
        events: &(dyn Fn(PullEvent) + Send + Sync),
    ) -> Result<Vec<Lease>, PullError> {
        self.pull_with_room(source, Which::AllNamedOrById, options, events).await
    }

    /// Tries once more if the disk was full and something could be removed.
    async fn pull_with_room(
        &self,
        source: &Source,
        which: Which,
        options: &PullOptions,
        events: Events<'_>,
    ) -> Result<Vec<Lease>, PullError> {
        let started = Instant::now();
        match self.pull_in_time(source, which, options, events).await {
            Err(error) if error.kind() == PullErrorKind::DiskFull => {
                if !self.make_room(&store_name(source), options, &error).await? {
                    return Err(error);
                }
                let mut rest = options.clone();
                rest.limits.pull = rest.limits.pull.saturating_sub(started.elapsed());
                self.pull_in_time(source, which, &rest, events).await
            }
            done => done,
        }
    }

    async fn pull_in_time(
        &self,
        source: &Source,
        which: Which,
        options: &PullOptions,
        events: Events<'_>,
    ) -> Result<Vec<Lease>, PullError> {
        // Its own: it also ends the rest of a pull of which a part has failed.
        let cancel = CancelOnDrop(Cancel::default());
        let name = store_name(source);
        let request = Request { source, which, name: &name, options, cancel: &cancel.0, events };
        let pulling = self.pull_once(&request);
        tokio::pin!(pulling);
        let stopped = tokio::select! {
            done = &mut pulling => return done,
            () = options.cancel.cancelled() => PullError::Cancelled { name: name.clone() },
            () = tokio::time::sleep(options.limits.pull) => {
                PullError::TimeLimit { name: name.clone(), limit: options.limits.pull }
            }
        };
        cancel.0.cancel();
        // What it has started ends soon and cleans up. It may also have been done just now.
        pulling.await.map_err(|_cancelled| stopped)
    }

    /// Whether there is more room than before.
    pub(super) async fn make_room(
        &self,
        name: &str,
        options: &PullOptions,
        error: &PullError,
    ) -> Result<bool, PullError> {
        let root = self.layout().root().to_owned();
        let reserve = disk::reserve_bytes(&root, &options.limits);
        let needed = match error {
            PullError::DiskFull(full)
                if !disk::could_hold(&root, reserve.saturating_add(full.needed_bytes)) =>
            {
                // Whatever is removed is not enough: a stranger may have said how much there will be.
                return Ok(false);
            }
            // Inflated it is about twice that.
            PullError::DiskFull(full) => full.needed_bytes.saturating_mul(3),
            _ => ROOM_BYTES,
        };
        let wanted = reserve.saturating_add(needed);
        let before = disk::free_bytes(&root);
        let (store, place, cancel) = (self.clone(), root.clone(), options.cancel.clone());
        let make_room = move || {
            let has_enough = || disk::free_bytes(&place).is_none_or(|free| free >= wanted);
            store.gc_while(GcPolicy::Until(&has_enough), &|| !cancel.is_cancelled())
        };
        let collected = in_thread(make_room, drop);
        unless_cancelled(&options.cancel, name, collected).await??;
        Ok(disk::free_bytes(&root) > before)
    }

    async fn pull_once(&self, request: &Request<'_>) -> Result<Vec<Lease>, PullError> {
        let offers = unless_cancelled(request.cancel, request.name, self.offers(request)).await??;
        let mut images = Vec::new();
        for offered in offers {
            images.extend(self.pull_offered(offered, request).await?);
        }
        self.settle_in_background();
        Ok(images)
    }

    /// Fetches and names one image.
    async fn pull_offered(&self, offered: Offered, request: &Request<'_>) -> Result<Vec<Lease>, PullError> {
        let hold = unless_cancelled(request.cancel, request.name, self.hold(&offered.offer, request.cancel))
            .await??;
        let transfer = Transfer::new(self, offered.source, request);
        let pulled = self.fetch_and_build(&transfer, &offered.offer, request).await;
        if let Err(error) = &pulled
            && matches!(error.kind(), PullErrorKind::Refused | PullErrorKind::DiskFull)
        {
            // Not before: while it is held nobody takes it away, ourselves included.
            drop(hold);
            let (store, made) = (self.clone(), transfer.made());
            let blobs: Vec<_> = offered.offer.layers.iter().map(|blob| transfer.work(&blob.digest)).collect();
            // The caller's: a pull of which a part has failed has ended the rest itself.
            let cancel = request.options.cancel.clone();
            blocking(move || store.take_back(&made, &blobs, &|| !cancel.is_cancelled())).await?;
            return pulled.map(|()| Vec::new());
        }
        pulled?;
        let (store, offer) = (self.clone(), offered.offer);
        let names = if offered.names.is_empty() { vec![request.name.to_owned()] } else { offered.names };
        let (resolved, asked) = (offer.resolved.clone(), transfer.asked());
        let cancel = request.cancel.clone();
        let named = blocking(move || {
            let _using = store.layout().lock_shared(&|| !cancel.is_cancelled())?;
            store.name_image(&offer, &names, asked, hold)
        });
        let named = named.await?;
        warn_of_platform(request, &named);
        for (lease, before) in &named {
            tell(request, &resolved.to_string(), lease.image(), before);
        }
        Ok(named.into_iter().map(|(lease, _)| lease).collect())
    }

    /// Fetches the layers that are missing, and merges all. A layer whose index turns out to be
    /// damaged, or of another version, is made anew.
    async fn fetch_and_build(
        &self,
        transfer: &Arc<Transfer>,
        offer: &Offer,
        request: &Request<'_>,
    ) -> Result<(), PullError> {
        let mut left = offer.layers.len();
        loop {
            transfer.fetch(offer, request.events).await?;
            let id = offer.config_blob.digest.clone();
            let claim = transfer.claim(&Work::image(&id)).await?;
            let (store, configuration) = (self.clone(), offer.configuration.clone());
            let limits = request.options.limits.clone();
            let built = blocking(move || match store.build_image(claim, &id, &configuration, &limits) {
                Ok(()) => Ok::<_, StoreError>(true),
                Err(error) if left > 0 => store.distrust_index(error).map(|()| false),
                Err(error) => Err(error),
            });
            if built.await? {
                return Ok(());
            }
            left -= 1;
        }
    }

    /// Holds everything that the image will consist of, so that no `gc` takes away what is there or
    /// being made.
    async fn hold(&self, offer: &Offer, cancel: &Cancel) -> Result<Hold, StoreError> {
        let (store, offer, cancel) = (self.clone(), offer.clone(), cancel.clone());
        in_thread(move || store.hold_now(&offer, &|| !cancel.is_cancelled()), drop).await
    }

    /// The same, waiting while it is `wanted`.
    pub(super) fn hold_now(&self, offer: &Offer, wanted: &dyn Fn() -> bool) -> Result<Hold, StoreError> {
        let layout = self.layout();
        let mut objects: Vec<PathBuf> =
            offer.configuration.diff_ids.iter().map(|layer| layout.layer(layer)).collect();
        objects.push(layout.image(&offer.config_blob.digest));
        let documents = [&offer.config_blob.digest, &offer.digest].into_iter();
        let blobs = documents.chain(offer.layers.iter().map(|blob| &blob.digest));
        objects.extend(blobs.map(|blob| layout.blob(blob)));
        let _using = layout.lock_shared(wanted)?;
        Hold::take(layout, &objects)
    }

    /// What the source has, resolved once.
    async fn offers(&self, request: &Request<'_>) -> Result<Vec<Offered>, PullError> {
        let (options, which) = (request.options.clone(), request.which);
        if let Source::Registry(reference) = request.source {
            let sources = Sources::new(reference, &options.access, &options.limits)?;
            let tell = |text| (request.events)(PullEvent::Status(text));
            let offer = sources.offer(&options.platform, &tell).await?;
            let source = LayerSource::Registry(Arc::new(sources));
            return Ok(vec![Offered { source, offer, names: Vec::new() }]);
        }
        let (source, scratch) = (request.source.clone(), self.layout().works());
        let cancel = request.cancel.clone();
        let opened = blocking(move || {
            let archive = Archive::open(&source, &scratch, &options.limits, cancel.flag())?;
            let found = match which {
                Which::One => vec![archive.image(&options.platform, &options.limits)?],
                Which::AllNamed | Which::AllNamedOrById => {
                    archive.images(&options.platform, &options.limits)?
                }
            };
            Ok::<_, PullError>((Arc::new(archive), found))
        });
        let (archive, found) = opened.await?;
        let offer = |archived: Archived| {
            let names = match which {
                Which::One => Vec::new(),
                Which::AllNamedOrById if archived.names.is_empty() => {
                    vec![StreamName::of_image(&archived.offer.config_blob.digest).to_string()]
                }
                Which::AllNamed | Which::AllNamedOrById => {
                    archived.names.iter().map(Reference::to_string).collect()
                }
            };
            let offer = archived.offer.clone();
            let source = LayerSource::Archive(Arc::clone(&archive), Arc::new(archived));
            Offered { source, offer, names }
        };
        Ok(found.into_iter().map(offer).collect())
    }

    /// Keeps the documents, and writes the names last. Says of each whether it led to the image before. The caller shares
    /// the store's lock.
    pub(super) fn name_image(
        &self,
        offer: &Offer,
        names: &[String],
        asked: Option<Asked>,
        hold: Hold,
    ) -> Result<Vec<(Lease, Before)>, StoreError> {
        let id = &offer.config_blob.digest;
        for (digest, content) in [(id, &offer.config), (&offer.digest, &offer.manifest)] {
            layout::replace(&self.layout().blob(digest), content)?;
        }
        let hold = Arc::new(hold);
        let name = |name: &String| {
            let (image, before) = self.name_one(name.clone(), offer, asked)?;
            Ok((Lease::new(image, Arc::clone(&hold)), before))
        };
        names.iter().map(name).collect()
    }

    fn name_one(
        &self,
        name: String,
        offer: &Offer,
        asked: Option<Asked>,
    ) -> Result<(Image, Before), StoreError> {
        let before = self.read_name(&name)?;
        let record = NameRecord {
            name,
            image: offer.config_blob.digest.clone(),
            manifest: offer.digest.clone(),
            resolved: offer.resolved.clone(),
            blobs: offer.layers.clone(),
            asked,
        };
        let gone = || StoreError::Gone { name: record.name.clone() };
        let image = self.image_of(&record)?.ok_or_else(gone)?;
        self.write_name(&record)?;
        let same = before.is_some_and(|before| before.resolved == record.resolved);
        Ok((image, if same { Before::Same } else { Before::Other }))
    }
}

/// What is made free for a pull that ran out of space on the way.
const ROOM_BYTES: u64 = 1 << 30;

/// What one call asks for.
pub(super) struct Request<'a> {
    pub source: &'a Source,
    pub which: Which,
    /// The source's key in the store.
    pub name: &'a str,
    pub options: &'a PullOptions,
    pub cancel: &'a Cancel,
    pub events: Events<'a>,
}

/// Which images of a source.
#[derive(Clone, Copy)]
pub(super) enum Which {
    /// The one that the source names, under the source's name.
    One,
    /// All, under their own names, and else the source's.
    AllNamed,
    /// The same without the source's.
    AllNamedOrById,
}

/// One image that a source has.
struct Offered {
    source: LayerSource,
    offer: Offer,
    /// Its own names, where those count.
    names: Vec<String>,
}

/// Whether a name led to the same manifest before.
#[derive(PartialEq, Eq)]
pub(super) enum Before {
    Same,
    Other,
}

/// An image that says for which other architecture it is runs all the same, as Docker lets it: the
/// kernel may know how to (binfmt_misc).
fn warn_of_platform(request: &Request<'_>, named: &[(Lease, Before)]) {
    let Some((lease, _)) = named.first() else { return };
    if let Some(warning) = platform_warning(&lease.image().config, &request.options.platform) {
        (request.events)(PullEvent::Status(warning));
    }
}

pub(super) fn platform_warning(config: &ImageConfig, wanted: &Platform) -> Option<String> {
    if config.architecture.is_empty() || config.architecture == wanted.architecture {
        return None;
    }
    let has = shortened(&format!("linux/{}", config.architecture));
    Some(format!("WARNING: The image's platform ({has}) does not match this host's ({wanted})"))
}

/// The closing lines of a pull, as Docker writes them.
fn tell(request: &Request<'_>, resolved: &str, image: &Image, before: &Before) {
    let events = request.events;
    let Source::Registry(reference) = request.source else {
        events(PullEvent::Status(format!("Loaded image: {}", image.name)));
        return;
    };
    let name = reference.familiar();
    events(PullEvent::Status(format!("Digest: {resolved}")));
    events(PullEvent::Status(match before {
        Before::Same => format!("Status: Image is up to date for {name}"),
        Before::Other => format!("Status: Downloaded newer image for {name}"),
    }));
}

/// Ends the tasks and threads of a pull whose future is dropped.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
