//! What lies in the directories that a payload names. A task makes them as large as it likes, and names as many, so what
//! is kept of them has a bound for each and one for all of a run together.

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::{JoinError, spawn_blocking};

use crate::artifact::Patience;
use crate::root::{Found, Listing, WalkBounds, WalkError, walk};

/// How far one directory is looked through.
const BOUNDS: WalkBounds =
    WalkBounds { depth: 64, files: 100_000, directories: 1_000_000, path_bytes: PATH_BYTES };

/// Bytes of the paths of one listing, and of all that are kept at the same time.
const PATH_BYTES: usize = 32 << 20;

/// The listings of one run.
pub(super) struct Listings {
    walking: Semaphore,
    /// Bytes of paths that may be kept.
    room: Semaphore,
}

/// Why a directory has no listing.
pub(super) enum NotListed {
    /// A bound is passed.
    Walk(WalkError),
    /// The thread that was to walk has panicked.
    Panicked(JoinError),
    /// The task was interrupted meanwhile.
    Interrupted,
}

impl Default for Listings {
    fn default() -> Listings {
        Listings { walking: Semaphore::new(1), room: Semaphore::new(PATH_BYTES) }
    }
}

impl Listings {
    /// Lists a directory, one at a time, and waits until others have given up as much room as that takes. Whoever has the
    /// listing keeps the room.
    pub(super) async fn list(
        &self,
        top: &Arc<Found>,
        patience: &Patience,
    ) -> Result<(Listing, SemaphorePermit<'_>), NotListed> {
        tokio::select! {
            biased;
            () = patience.over() => Err(NotListed::Interrupted),
            listed = self.list_now(Arc::clone(top), patience.clone()) => listed,
        }
    }

    async fn list_now(
        &self,
        top: Arc<Found>,
        patience: Patience,
    ) -> Result<(Listing, SemaphorePermit<'_>), NotListed> {
        // Nobody closes either of them.
        let _alone = self.walking.acquire().await.map_err(|_closed| NotListed::Interrupted)?;
        let walking = spawn_blocking(move || walk(&top, BOUNDS, &|| !patience.is_over()));
        let listing = walking.await.map_err(NotListed::Panicked)?.map_err(|error| match error {
            WalkError::Unwanted => NotListed::Interrupted,
            error @ (WalkError::TooDeep { .. }
            | WalkError::TooMany { .. }
            | WalkError::TooManyDirectories { .. }
            | WalkError::TooLong { .. }) => NotListed::Walk(error),
        })?;
        let bytes = listing.path_bytes().min(PATH_BYTES);
        let room = self.room.acquire_many(u32::try_from(bytes).unwrap_or(u32::MAX)).await;
        Ok((listing, room.map_err(|_closed| NotListed::Interrupted)?))
    }
}
