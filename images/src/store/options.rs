//! What a pull is asked for, and what it tells on its way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::limits::Limits;
use crate::manifest::Platform;
use crate::registry::Access;

/// What a pull may do.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// Bounds on what comes in.
    pub limits: Limits,
    /// Hosts and credentials.
    pub access: Access,
    /// Which image of several is taken.
    pub platform: Platform,
    /// Ends the pull from elsewhere.
    pub cancel: Cancel,
}

impl PullOptions {
    /// The default limits and this host's platform.
    pub fn new(access: Access) -> PullOptions {
        PullOptions {
            limits: Limits::default(),
            access,
            platform: Platform::of_host(),
            cancel: Cancel::default(),
        }
    }
}

/// Tells a pull, its tasks and its threads to end. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    shared: Arc<CancelState>,
}

#[derive(Debug, Default)]
struct CancelState {
    flag: AtomicBool,
    changed: Notify,
}

impl Cancel {
    /// Ends whoever shares it; more than once is once.
    pub fn cancel(&self) {
        self.shared.flag.store(true, Ordering::Release);
        self.shared.changed.notify_waiters();
    }

    /// Whether it has been cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.shared.flag.load(Ordering::Acquire)
    }

    /// Waits until it is cancelled.
    pub async fn cancelled(&self) {
        let changed = self.shared.changed.notified();
        tokio::pin!(changed);
        // Registered before the flag is read, so that no call falls between the two.
        changed.as_mut().enable();
        if !self.is_cancelled() {
            changed.await;
        }
    }

    /// The flag, for code that knows nothing of pulls.
    pub fn flag(&self) -> &AtomicBool {
        &self.shared.flag
    }
}

/// How a pull goes on. Layers that are in the store already raise no event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullEvent {
    /// A layer is on its way.
    LayerStarted {
        /// The first 12 digits of its blob's digest, as Docker shows it.
        id: String,
        /// Bytes to fetch.
        total_bytes: u64,
    },
    /// More of it has arrived; at most ten a second for each layer.
    LayerProgress {
        /// As in `LayerStarted`.
        id: String,
        /// Bytes so far.
        bytes: u64,
        /// Bytes to fetch.
        total_bytes: u64,
    },
    /// It is verified and in the store.
    LayerDone {
        /// As in `LayerStarted`.
        id: String,
        /// How long that took.
        took: Duration,
    },
    /// A line for the log, e.g. `Digest: sha256:…`.
    Status(String),
}
