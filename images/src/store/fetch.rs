//! A pull: from a source's offer of an image to the image in the store.
//!
//! ```text
//!  offer ──► layers that are missing ──┬─► claim ─► download ═══► ingest ─► commit ─┬─► merge ─► name
//!                                      ├─► …        (task)  channel (threads)       │
//!                                      └─► as many at once as cores and limits allow┘
//! ```
//!
//! Until the name is written nobody can see that anything happened. A pull that fails takes back
//! what it made.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread;

use tokio::sync::oneshot;
use tokio::task::{JoinError, spawn_blocking};

use crate::archive::{Archive, Archived};
use crate::image::Image;
use crate::manifest::Offer;
use crate::reference::Reference;
use crate::registry::Registry;
use crate::source::Source;

use super::catalog::{NameRecord, store_name};
use super::collect::MadeLayer;
use super::lock::{self, Lock};
use super::pull::{Cancel, PullError, PullEvent, PullOptions};
use super::transfer::{Origin, Pull};
use super::{Store, StoreError, layout};

pub(super) type Events<'a> = &'a (dyn Fn(PullEvent) + Send + Sync);

impl Store {
    /// Brings an image into the store under its name; layers that are there are not fetched again.
    ///
    /// Dropping the future abandons the pull; [`PullOptions::cancel`] also waits for the clean-up.
    ///
    /// # Errors
    ///
    /// [`PullError`]; the store is then as before.
    pub async fn pull(
        &self,
        source: &Source,
        options: &PullOptions,
        events: &(dyn Fn(PullEvent) + Send + Sync),
    ) -> Result<Image, PullError> {
        let images = self.bring_in_time(source, Which::One, options, events).await?;
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
    ) -> Result<Vec<Image>, PullError> {
        self.bring_in_time(source, Which::AllNamed, options, events).await
    }

    async fn bring_in_time(
        &self,
        source: &Source,
        which: Which,
        options: &PullOptions,
        events: Events<'_>,
    ) -> Result<Vec<Image>, PullError> {
        let cancel = CancelOnDrop(Cancel::default());
        let bringing = self.bring(source, which, (options, &cancel.0), events);
        tokio::pin!(bringing);
        let name = source.to_string();
        let stopped = tokio::select! {
            done = &mut bringing => return done,
            () = options.cancel.cancelled() => PullError::Cancelled { name },
            () = tokio::time::sleep(options.limits.pull) => PullError::TimeLimit { name, limit: options.limits.pull },
        };
        cancel.0.cancel();
        // What it has started ends soon and cleans up. It may also have been done just now.
        bringing.await.map_err(|_cancelled| stopped)
    }

    async fn bring(
        &self,
        source: &Source,
        which: Which,
        (options, cancel): (&PullOptions, &Cancel),
        events: Events<'_>,
    ) -> Result<Vec<Image>, PullError> {
        let name = store_name(source);
        let using = unless_cancelled(cancel, &name, self.use_store()).await??;
        let offers = unless_cancelled(cancel, &name, self.offers(source, which, options)).await??;
        let request = Request { source, name: &name, options, cancel, events };
        let mut made = Vec::new();
        let taken = self.take_offers(offers, &request, &mut made).await;
        // Nothing is taken back while others may be building on it, ourselves included.
        drop(using);
        match taken {
            Ok(images) => {
                self.settle_in_background();
                Ok(images)
            }
            Err(error) => {
                self.take_back(&made)?;
                Err(error)
            }
        }
    }

    /// Takes in and names one image after the other; `made` tells what to take back on error.
    async fn take_offers(
        &self,
        offers: Vec<(Origin, Offer, Vec<String>)>,
        request: &Request<'_>,
        made: &mut Vec<MadeLayer>,
    ) -> Result<Vec<Image>, PullError> {
        let mut images = Vec::new();
        for (origin, offer, names) in offers {
            let names = if names.is_empty() { vec![request.name.to_owned()] } else { names };
            let pull = Pull::new(self, origin, request.options, request.cancel);
            let taken = pull.take(&offer, request.name, request.events).await;
            made.append(&mut pull.made());
            taken?;
            let named = self.name_image(&offer, &names, request.options).await?;
            tell(request, &offer, &named);
            images.extend(named.into_iter().map(|(image, _)| image));
        }
        Ok(images)
    }

    /// Waits for the store's shared lock; only `gc` makes this take a while.
    async fn use_store(&self) -> Result<Lock, StoreError> {
        let path = self.layout().lock();
        in_thread(move || lock::shared(&path), drop).await
    }

    /// What the source has, resolved once.
    async fn offers(
        &self,
        source: &Source,
        which: Which,
        options: &PullOptions,
    ) -> Result<Vec<(Origin, Offer, Vec<String>)>, PullError> {
        if let Source::Registry(reference) = source {
            let registry = Registry::new(reference, &options.access, &options.limits)?;
            let offer = registry.offer(&options.platform).await?;
            return Ok(vec![(Origin::Registry(Arc::new(registry)), offer, Vec::new())]);
        }
        let (source, options, scratch) = (source.clone(), options.clone(), self.layout().works());
        let opened = spawn_blocking(move || {
            let archive = Archive::open(&source, &scratch, &options.limits)?;
            let found = match which {
                Which::One => vec![archive.image(&options.platform, &options.limits)?],
                Which::AllNamed => archive.images(&options.platform, &options.limits)?,
            };
            Ok::<_, PullError>((Arc::new(archive), found))
        });
        let (archive, found) = joined(opened.await)?;
        let offer = |archived: Archived| {
            let names = match which {
                Which::One => Vec::new(),
                Which::AllNamed => archived.names.iter().map(Reference::to_string).collect(),
            };
            let offer = archived.offer.clone();
            (Origin::Archive(Arc::clone(&archive), Arc::new(archived)), offer, names)
        };
        Ok(found.into_iter().map(offer).collect())
    }

    /// Merges the layers, keeps the documents, and writes the names last. Says of each image
    /// whether its name led to it before.
    async fn name_image(
        &self,
        offer: &Offer,
        names: &[String],
        options: &PullOptions,
    ) -> Result<Vec<(Image, Before)>, StoreError> {
        let (store, offer) = (self.clone(), offer.clone());
        let (names, limits) = (names.to_vec(), options.limits.clone());
        let named = spawn_blocking(move || {
            let id = &offer.config_blob.digest;
            store.build_image(id, &offer.configuration, &limits)?;
            for (digest, content) in [(id, &offer.config), (&offer.digest, &offer.manifest)] {
                layout::replace(&store.layout().blob(digest), content)?;
            }
            names.into_iter().map(|name| store.name_one(name, &offer)).collect()
        });
        joined(named.await)
    }

    fn name_one(&self, name: String, offer: &Offer) -> Result<(Image, Before), StoreError> {
        let before = self.read_name(&name)?;
        let record = NameRecord {
            name,
            image: offer.config_blob.digest.clone(),
            manifest: offer.digest.clone(),
            resolved: offer.resolved.clone(),
            blobs: offer.layers.clone(),
        };
        let gone = || StoreError::Gone { name: record.name.clone() };
        let image = self.image_of(&record)?.ok_or_else(gone)?;
        self.write_name(&record)?;
        let same = before.is_some_and(|before| before.resolved == record.resolved);
        Ok((image, if same { Before::Same } else { Before::Other }))
    }

    /// Brings what was committed to disk and marks it, without anyone waiting. If it fails or the
    /// process ends first, the marks stay as they are, and the next pull tries again.
    fn settle_in_background(&self) {
        let store = self.clone();
        let settle = move || drop(store.boot().settle(store.layout()));
        drop(thread::Builder::new().name("store-settle".to_owned()).spawn(settle));
    }
}

/// What one call asks for.
struct Request<'a> {
    source: &'a Source,
    /// The source's key in the store.
    name: &'a str,
    options: &'a PullOptions,
    cancel: &'a Cancel,
    events: Events<'a>,
}

/// Which images of a source.
#[derive(Clone, Copy)]
enum Which {
    /// The one that the source names, under the source's name.
    One,
    /// All, under their own names.
    AllNamed,
}

/// Whether a name led to the same manifest before.
#[derive(PartialEq, Eq)]
enum Before {
    Same,
    Other,
}

/// The closing lines of a pull, as Docker writes them.
fn tell(request: &Request<'_>, offer: &Offer, named: &[(Image, Before)]) {
    let events = request.events;
    for (image, before) in named {
        let Source::Registry(reference) = request.source else {
            events(PullEvent::Status(format!("Loaded image: {}", image.name)));
            continue;
        };
        let name = reference.familiar();
        events(PullEvent::Status(format!("Digest: {}", offer.resolved)));
        events(PullEvent::Status(match before {
            Before::Same => format!("Status: Image is up to date for {name}"),
            Before::Other => format!("Status: Downloaded newer image for {name}"),
        }));
    }
}

/// Ends the tasks and threads of a pull whose future is dropped.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Waits for something unless the pull is cancelled first.
pub(super) async fn unless_cancelled<T>(
    cancel: &Cancel,
    name: &str,
    future: impl Future<Output = T>,
) -> Result<T, PullError> {
    tokio::select! {
        done = future => Ok(done),
        () = cancel.cancelled() => Err(PullError::Cancelled { name: name.to_owned() }),
    }
}

/// Runs something that may block for long on a thread of its own: unlike a runtime's blocking
/// task, it holds up neither a cancelled pull nor the end of the runtime. A result that nobody
/// waits for any more is given to `unwanted`.
pub(super) async fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    unwanted: impl FnOnce(T) + Send + 'static,
) -> Result<T, StoreError> {
    let (done, result) = oneshot::channel();
    let send = move || {
        if let Err(Ok(late)) = done.send(work()) {
            unwanted(late);
        }
    };
    let spawned = thread::Builder::new().name("store-wait".to_owned()).spawn(send);
    spawned.map_err(|source| StoreError::Thread { source })?;
    let panicked = |_closed| Err(StoreError::Thread { source: io::Error::other("it panicked") });
    result.await.unwrap_or_else(panicked)
}

/// The result of a task. Tasks are not aborted while someone waits for them; a panic goes on here.
pub(super) fn joined<T, E: From<StoreError>>(ended: Result<Result<T, E>, JoinError>) -> Result<T, E> {
    match ended.map_err(JoinError::try_into_panic) {
        Ok(result) => result,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(aborted)) => Err(StoreError::Thread { source: io::Error::other(aborted) }.into()),
    }
}
