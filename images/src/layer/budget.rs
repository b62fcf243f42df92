//! What all layers of one image may take together.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::LayerIndex;
use crate::limits::Limits;

/// Memory that an entry takes beside its name while a layer is indexed or an image is made of layers:
/// a slot among the names, one among the nodes, and their places. The test that measures the peak of
/// the largest images holds this number.
const ENTRY_BYTES: u64 = 80;
/// What is remembered of an extended attribute that inodes share.
pub(super) const SHARED_XATTR_BYTES: u64 = 96;

/// Counts what the layers of one image take. They may be indexed at the same time.
#[derive(Debug)]
pub struct Budget {
    limits: Limits,
    used: [AtomicU64; 3],
    has_large_window: AtomicBool,
    /// The image's, if this is a part of it.
    whole: Option<Arc<Budget>>,
}

impl Drop for Budget {
    fn drop(&mut self) {
        if let Some(whole) = &self.whole {
            let [entries, memory_bytes, unpacked_bytes] = self.used.each_mut().map(|used| *used.get_mut());
            whole.give_back(Share { entries, memory_bytes, unpacked_bytes });
        }
    }
}

/// What was or would be taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub entries: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of files, holes included, and of what is kept between them as it came.
    pub unpacked_bytes: u64,
}

/// More than the limits allow: what, and the limit.
pub(crate) type Exceeded = (&'static str, u64);

impl Share {
    /// One entry with a name of that length.
    pub fn of_entry(name_bytes: usize) -> Share {
        Share { entries: 1, memory_bytes: ENTRY_BYTES + name_bytes as u64, unpacked_bytes: 0 }
    }

    /// Of a layer that is indexed already.
    pub fn of_layer(layer: &LayerIndex) -> Share {
        let head = &layer.head;
        Share { entries: head.entries, memory_bytes: head.memory_bytes, unpacked_bytes: head.unpacked_bytes }
    }

    /// Both together.
    pub fn and(self, more: Share) -> Share {
        Share {
            entries: self.entries.saturating_add(more.entries),
            memory_bytes: self.memory_bytes.saturating_add(more.memory_bytes),
            unpacked_bytes: self.unpacked_bytes.saturating_add(more.unpacked_bytes),
        }
    }

    fn counts(self) -> [u64; 3] {
        [self.entries, self.memory_bytes, self.unpacked_bytes]
    }
}

impl Budget {
    /// For one image.
    pub fn new(limits: &Limits) -> Budget {
        Budget {
            limits: limits.clone(),
            used: [const { AtomicU64::new(0) }; 3],
            has_large_window: AtomicBool::new(false),
            whole: None,
        }
    }

    /// A part of an image's, for one try at a layer. What it takes is given back with it, unless it is kept.
    pub(crate) fn part(whole: &Arc<Budget>) -> Budget {
        let mut part = Budget::new(&whole.limits);
        part.whole = Some(Arc::clone(whole));
        part
    }

    /// The layer is the image's.
    pub(crate) fn keep(mut self) {
        self.whole = None;
    }

    /// The bounds.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether a decoder of one of the layers has a large window.
    pub(crate) fn has_large_window(&self) -> &AtomicBool {
        self.whole.as_ref().map_or(&self.has_large_window, |whole| whole.has_large_window())
    }

    /// Takes a share, or says what there is too much of.
    pub(crate) fn take(&self, share: Share) -> Result<(), Exceeded> {
        let limits = &self.limits;
        // Places of names have 32 bits.
        let memory_bytes = limits.index_bytes.min(u64::from(u32::MAX));
        let bounds = [
            ("entries", limits.entries),
            ("names and attributes", memory_bytes),
            ("files' bytes", limits.unpacked_bytes),
        ];
        // All is counted before anything is refused, so that it can be given back as a whole.
        let counts = self.used.iter().zip(share.counts());
        let counted: Vec<u64> =
            counts.map(|(used, more)| used.fetch_add(more, Ordering::Relaxed).saturating_add(more)).collect();
        if let Some(whole) = &self.whole {
            return whole.take(share);
        }
        let exceeded = counted.into_iter().zip(bounds).find(|(count, (_, limit))| count > limit);
        exceeded.map_or(Ok(()), |(_, bound)| Err(bound))
    }

    /// Takes what a layer has that is indexed already.
    pub(crate) fn take_layer(&self, layer: &LayerIndex) -> Result<(), Exceeded> {
        self.take(Share::of_layer(layer))
    }

    /// Gives a share back: of a layer that came to nothing.
    pub(crate) fn give_back(&self, share: Share) {
        for (used, less) in self.used.iter().zip(share.counts()) {
            used.fetch_sub(less, Ordering::Relaxed);
        }
        if let Some(whole) = &self.whole {
            whole.give_back(share);
        }
    }
}
