//! `diskUse`, for the page: what the worker's caches and images take on the disk.
//!
//! To look is to visit each file, which takes the disk's time. So one look at a time is for all who ask meanwhile and for a
//! while after; it ends where nobody waits for it any more, and of caches it sees no more than there is time for.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use images::store::{ImageUsage, StoreError, StoreUsage};
use jiff::Timestamp as Time;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::exchange::{Exchange, ok};
use super::reply::{Code, Refusal, Reply, fault};
use crate::cache::{CacheError, CacheUsage};
use crate::task::run::Worker;
use crate::timestamp::Timestamp;

/// How long what was seen is good enough.
const FRESH: Duration = Duration::from_secs(5);

/// How long a look at caches may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Files and directories of all caches that are looked at.
const ENTRIES: u64 = 2_000_000;

/// What was seen last, and when.
#[derive(Debug, Default)]
pub(super) struct DiskUse(Mutex<Option<(Instant, Box<RawValue>)>>);

/// What is answered.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Seen {
    caches: Vec<CacheUsage>,
    images: Vec<SeenImage>,
    shared_bytes: u64,
    other_bytes: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SeenImage {
    id: String,
    names: Vec<String>,
    last_used: Timestamp,
    is_used: bool,
    own_bytes: u64,
    shared_bytes: u64,
}

/// Why nothing was seen.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Caches(#[from] CacheError),
    #[error(transparent)]
    Images(#[from] StoreError),
}

/// Ends a look with the call that wants it.
struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// `diskUse`
pub(super) async fn see(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let Some(worker) = it.services.worker.get() else {
        return Err(Refusal::new(Code::ResourceNotFound, "there is no worker here"));
    };
    // Held while somebody looks: whoever asks meanwhile has the same answer.
    let mut last = it.services.disk_use.0.lock().await;
    if let Some((when, seen)) = &*last
        && when.elapsed() < FRESH
    {
        return ok(seen);
    }
    let seen = look_for(Arc::clone(worker)).await?;
    *last = Some((Instant::now(), seen.clone()));
    ok(&seen)
}

async fn look_for(worker: Arc<Worker>) -> Result<Box<RawValue>, Refusal> {
    let is_wanted = Arc::new(AtomicBool::new(true));
    let _wanted = Wanted(Arc::clone(&is_wanted));
    let looked = spawn_blocking(move || look(&worker, &|| is_wanted.load(Ordering::Relaxed))).await;
    let seen = looked.map_err(|error| fault("look at the disk", &error))?;
    let seen = seen.map_err(|error| fault("look at the disk", &error))?;
    to_raw_value(&seen).map_err(|error| fault("write what was seen", &error))
}

fn look(worker: &Worker, wanted: &dyn Fn() -> bool) -> Result<Seen, LookError> {
    let (until, left) = (Instant::now() + PATIENCE, Cell::new(ENTRIES));
    let goes_on = || {
        left.set(left.get().saturating_sub(1));
        left.get() > 0 && wanted() && Instant::now() < until
    };
    let caches = worker.caches.usage(&goes_on)?;
    let StoreUsage { images, shared_bytes, other_bytes } = worker.store.usage(wanted)?;
    let images = images.into_iter().map(SeenImage::from).collect();
    Ok(Seen { caches, images, shared_bytes, other_bytes })
}

impl From<ImageUsage> for SeenImage {
    fn from(image: ImageUsage) -> SeenImage {
        let ImageUsage { id, names, last_used, is_used, own_bytes, shared_bytes } = image;
        let last_used = Time::try_from(last_used).map_or(0, |time| time.as_millisecond());
        let last_used = Timestamp::from_millis(last_used);
        SeenImage { id: id.to_string(), names, last_used, is_used, own_bytes, shared_bytes }
    }
}
