//! What is kept of requests' bodies to send them again, counted as long as a byte of it lives.

use std::sync::Arc;

use hyper::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of one task's requests that are kept. What does not fit is sent once.
pub(super) const BYTES: usize = 16 << 20;

/// What a piece takes beside its bytes, more or less: bodies may come in pieces of one byte.
const PIECE_BYTES: usize = 256;

/// The room of one task, and of all.
pub(super) struct Room([Arc<Semaphore>; 2]);

/// A piece of a body, and its places.
struct Counted {
    bytes: Box<[u8]>,
    _places: [OwnedSemaphorePermit; 2],
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Room {
    pub(super) fn of(all: &Arc<Semaphore>) -> Room {
        Room([Arc::new(Semaphore::new(BYTES)), Arc::clone(all)])
    }

    /// A copy of a piece, whose places are given back with the last of its bytes; nothing if there is no room for it.
    pub(super) fn keep(&self, piece: &[u8]) -> Option<Bytes> {
        let size = u32::try_from(piece.len().checked_add(PIECE_BYTES)?).ok()?;
        let [own, all] = self.0.each_ref().map(|room| Arc::clone(room).try_acquire_many_owned(size).ok());
        Some(Bytes::from_owner(Counted { bytes: piece.into(), _places: [own?, all?] }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_counts_until_its_last_byte_goes_also_where_it_is_small() {
        let all = Arc::new(Semaphore::new(BYTES + BYTES / 2));
        let (one, other) = (Room::of(&all), Room::of(&all));
        let most = BYTES / PIECE_BYTES;
        let fill = |room: &Room, piece: &[u8]| {
            std::iter::from_fn(|| room.keep(piece)).take(most).collect::<Vec<_>>()
        };
        let kept = fill(&one, b"x");
        assert_eq!(kept.len(), BYTES / (PIECE_BYTES + 1));
        assert!(one.keep(b"").is_none() || kept.len() * (PIECE_BYTES + 1) < BYTES);
        let large = vec![0; 1 << 20];
        assert_eq!(fill(&other, &large).len(), 7, "half of what is a task's is left of all");
        let last = kept.last().unwrap().slice(..0);
        drop(kept);
        drop(last);
        assert_eq!(all.available_permits(), BYTES + BYTES / 2);
    }
}
