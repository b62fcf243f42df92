//! An image from an archive that comes as a stream: indexed while it comes, and nowhere kept as it is.
//!
//! ```text
//!  sender ──► gunzip, if it was sent so ──► sha256 ──► inflate ──► tar ──┬─► document: kept in memory
//!  (async)                                  of the archive               ├─► layer: ingested into work/SLUG.stream/N
//!                                                                        └─► neither: passed over
//!                                 at the end: which document is the manifest, which layers are the image's?
//!                                             ──► layers committed by the diff ids they turned out to have ──► merge ──► name
//! ```
//!
//! What an archive is about stands at its end. So the claim is on the archive's name (SLUG is its digest), and until the
//! end has come everything lies in that claim's directory: a failure, or a crash, leaves what the sweep removes.
//!
//! The image's layers are known again, wherever else they come from, and the image itself by the name that the caller has
//! for the archive. That is no name of a registry, and nothing that the archive calls itself counts.
//!
//! Why no blobs are kept: they would be a second copy, and each layer's tar stream can be written again without. A layer that turns out to be damaged makes the image unknown, and
//! it comes as a stream again.

use std::fmt;
use std::path::{Path, PathBuf};

use hyper::body::Bytes;
use tokio::sync::mpsc;

use crate::digest::Digest;
use crate::disk;
use crate::manifest::Offer;
use crate::registry::Received;

use super::claim::{Claim, Work};
use super::lease::Lease;
use super::options::{Cancel, PullOptions};
use super::pull::{Events, platform_warning};
use super::transfer::CHUNKS_WAITING;
use super::waiting::{blocking, in_thread, unless_cancelled};
use super::{PullError, PullEvent, Store, StoreError};

mod stages;

/// What the caller calls an archive. Two archives of one name are one: it has to tell contents apart. No name of a
/// registry, and no local source, is spelled like that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamName(String);

impl StreamName {
    /// The caller's word for it, which is shown to people.
    pub fn new(label: &str) -> StreamName {
        StreamName(label.to_owned())
    }

    /// That of an image of which nobody knows more than its id.
    pub fn of_image(id: &Digest) -> StreamName {
        StreamName(id.to_string())
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A space is in no reference.
        write!(out, "archive {}", self.0)
    }
}

/// How an archive's bytes are sent. Whatever compresses the archive itself is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As they are.
    Identity,
    /// Compressed for the way (`Content-Encoding: gzip`).
    Gzip,
}

/// The end of a stream at which the store is.
#[derive(Debug)]
pub struct Stream {
    received: mpsc::Receiver<Received>,
    encoding: Encoding,
    announced: Option<u64>,
}

/// The end at which the bytes come in. One that goes before it has finished has broken off.
#[derive(Debug)]
pub struct StreamSender(mpsc::Sender<Received>);

impl Stream {
    /// Both ends. `announced` is how many bytes will come, if that is known.
    pub fn new(encoding: Encoding, announced: Option<u64>) -> (StreamSender, Stream) {
        let (sender, received) = mpsc::channel(1);
        (StreamSender(sender), Stream { received, encoding, announced })
    }
}

impl StreamSender {
    /// Hands bytes over, and waits as long as there is no room for them. False when nobody takes any more: the store has
    /// failed, and says why.
    pub async fn send(&self, bytes: Bytes) -> bool {
        self.0.send(Received::Bytes(bytes)).await.is_ok()
    }

    /// Waits until nobody takes any more.
    pub async fn closed(&self) {
        self.0.closed().await;
    }

    /// Says that this was all. False as of [`StreamSender::send`].
    pub async fn finish(self) -> bool {
        self.0.send(Received::End).await.is_ok()
    }
}

/// The right to bring an archive in under a name, which one has at a time.
#[derive(Debug)]
pub struct StreamClaim {
    store: Store,
    name: StreamName,
    /// Until it is given up.
    claim: Option<Claim>,
}

impl Drop for StreamClaim {
    fn drop(&mut self) {
        // Best effort: a claim that stays is nobody's, and swept.
        self.claim.take().map_or(Ok(()), Claim::release).unwrap_or_default();
    }
}

impl StreamClaim {
    /// Brings the image of the archive into the store, from a stream of its bytes. What another one has brought in by that
    /// name gives way.
    ///
    /// Dropping the future abandons it; [`PullOptions::cancel`] also waits for the clean-up.
    ///
    /// # Errors
    ///
    /// [`PullError`]; then the store is as before.
    pub async fn load(
        mut self,
        stream: Stream,
        options: &PullOptions,
        events: Events<'_>,
    ) -> Result<Lease, PullError> {
        let (cancel, refused) = (Cancel::default(), Cancel::default());
        let ends = CancelOnDrop(cancel.clone());
        let (out, chunks) = mpsc::channel(CHUNKS_WAITING);
        let name = self.name.to_string();
        let taking = Taking {
            store: self.store.clone(),
            name: self.name.clone(),
            path: PathBuf::from(&self.name.0),
            options: options.clone(),
            cancel: cancel.clone(),
            refused: refused.clone(),
        };
        let gone = || StoreError::Gone { name: name.clone() };
        let claim = self.claim.take().ok_or_else(gone)?;
        let Stream { received, encoding, announced } = stream;
        let taken = blocking(move || taking.image(claim, (chunks, encoding), announced));
        let loading = async { tokio::join!(pass_on(received, out, (&cancel, &refused)), taken).1 };
        tokio::pin!(loading);
        let stopped = tokio::select! {
            done = &mut loading => return done.inspect(|lease| warn(lease, options, events)),
            () = options.cancel.cancelled() => PullError::Cancelled { name },
            () = tokio::time::sleep(options.limits.pull) => {
                PullError::TimeLimit { name, limit: options.limits.pull }
            }
        };
        ends.0.cancel();
        // The stages end soon and clean up. They may also have been done just now.
        let done = loading.await.map_err(|_cancelled| stopped);
        done.inspect(|lease| warn(lease, options, events))
    }
}

impl Store {
    /// Waits until nobody else brings an archive in under that name, in whatever process: then it may be there.
    ///
    /// # Errors
    ///
    /// I/O errors of the store; [`PullError::Cancelled`].
    pub async fn claim_stream(
        &self,
        name: &StreamName,
        options: &PullOptions,
    ) -> Result<StreamClaim, PullError> {
        let (store, name, cancel) = (self.clone(), name.clone(), options.cancel.clone());
        let (called, most) = (name.to_string(), options.limits.pull);
        let take = move || {
            let wanted = || !cancel.is_cancelled();
            let claim =
                Claim::take(store.layout(), &Work::stream(&name), store.layout().at_most(most, &wanted))?;
            Ok(StreamClaim { store: store.clone(), name, claim: Some(claim) })
        };
        Ok(unless_cancelled(&options.cancel, &called, in_thread(take, drop)).await??)
    }

    /// Makes room after a load that found too little; whether there is more than before.
    ///
    /// # Errors
    ///
    /// I/O errors of the store; [`PullError::Cancelled`].
    pub async fn make_room_for(
        &self,
        name: &StreamName,
        options: &PullOptions,
        error: &PullError,
    ) -> Result<bool, PullError> {
        self.make_room(&name.to_string(), options, error).await
    }
}

fn warn(lease: &Lease, options: &PullOptions, events: Events<'_>) {
    if let Some(warning) = platform_warning(&lease.image().config, &options.platform) {
        events(PullEvent::Status(warning));
    }
}

/// Passes a stream on until it ends or nobody needs it: then nobody is kept waiting by whoever sends.
async fn pass_on(
    mut received: mpsc::Receiver<Received>,
    out: mpsc::Sender<Received>,
    (cancel, refused): (&Cancel, &Cancel),
) {
    let passing = async {
        while let Some(piece) = received.recv().await {
            if out.send(piece).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => {}
        () = refused.cancelled() => {}
        () = out.closed() => {}
        () = passing => {}
    }
}

struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// One archive on its way.
struct Taking {
    store: Store,
    name: StreamName,
    /// What messages call it.
    path: PathBuf,
    options: PullOptions,
    cancel: Cancel,
    /// What has come makes no image: nothing more has to come.
    refused: Cancel,
}

impl Taking {
    fn image(
        &self,
        claim: Claim,
        input: (mpsc::Receiver<Received>, Encoding),
        announced: Option<u64>,
    ) -> Result<Lease, PullError> {
        let (store, limits) = (&self.store, &self.options.limits);
        let has_room = disk::check(store.layout().root(), announced.unwrap_or_default(), limits);
        let made = has_room.map_err(PullError::from).and_then(|()| self.image_in(claim.fresh_work()?, input));
        let released = claim.release();
        let lease = if self.cancel.is_cancelled() && made.is_err() { Err(self.cancelled()) } else { made }?;
        released?;
        store.settle_in_background();
        Ok(lease)
    }

    fn image_in(&self, work: &Path, input: (mpsc::Receiver<Received>, Encoding)) -> Result<Lease, PullError> {
        let (streamed, archive) = self.stream_into(work, input)?;
        let (archived, layers) = streamed.image(&self.options.platform)?;
        let offer = Offer { resolved: archive, ..archived.offer };
        let hold = self.store.hold_now(&offer, &self.wanted())?;
        for layer in &layers {
            // A damaged one is not taken for this one.
            if self.store.intact_layer(&layer.diff_id)?.is_none() {
                self.store.commit_layer(&directory(work, layer.number), &layer.diff_id, &self.wanted())?;
            }
        }
        let id = &offer.config_blob.digest;
        let wanted = self.wanted();
        let claim = Claim::take(
            self.store.layout(),
            &Work::image(id),
            self.store.layout().at_most(self.options.limits.pull, &wanted),
        )?;
        self.store.build_image(claim, id, &offer.configuration, &self.options.limits)?;
        let _using = self.store.layout().lock_shared(&wanted)?;
        let named = self.store.name_image(&offer, &[self.name.to_string()], None, hold)?;
        let gone = || PullError::Store(StoreError::Gone { name: self.name.to_string() });
        named.into_iter().next().map(|(lease, _)| lease).ok_or_else(gone)
    }

    fn wanted(&self) -> impl Fn() -> bool {
        let cancel = self.cancel.clone();
        move || !cancel.is_cancelled()
    }

    fn cancelled(&self) -> PullError {
        PullError::Cancelled { name: self.name.to_string() }
    }

    fn broken(&self) -> PullError {
        PullError::Broken { archive: self.path.display().to_string() }
    }
}

fn directory(work: &Path, number: usize) -> PathBuf {
    work.join(number.to_string())
}
