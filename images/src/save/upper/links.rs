//! Files with several names: which name each was written by.
use std::collections::HashMap;

use rustix::fs::Stat;

/// Memory that a file takes: a slot here, another where its other names are looked for, and its first name's allocation.
const LINK_BYTES: u64 = 192;

/// What makes a file the same by another name: device and inode.
pub type Same = (u64, u64);

/// What a file is by any of its names.
pub fn same(stat: &Stat) -> Same {
    (stat.st_dev, stat.st_ino)
}

/// Those files of the upper directory of which not all names have been seen.
#[derive(Default)]
pub struct Links {
    table: HashMap<Same, Link>,
    held: u64,
}

struct Link {
    /// The name with the contents; none yet where all that were seen are left out.
    first: Option<Box<[u8]>>,
    seen: u64,
    links: u64,
}

/// A file with names that have not been seen, which the overlay's index may hold.
pub struct Incomplete {
    /// The name with the contents.
    pub first: Box<[u8]>,
    /// Names that were seen.
    pub seen: u64,
}

impl Links {
    /// Bytes of memory.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Takes note of a name. The one that has the contents, if this is not the first.
    pub fn see(&mut self, stat: &Stat, path: &[u8]) -> Option<Box<[u8]>> {
        let link = self.seen(stat)?;
        let first = link.first.clone();
        if first.is_none() {
            link.first = Some(path.into());
            self.held += path.len() as u64;
        }
        self.forget_complete(stat);
        first
    }

    /// Takes note of a name that the layer has not.
    pub fn see_left_out(&mut self, stat: &Stat) {
        if self.seen(stat).is_some() {
            self.forget_complete(stat);
        }
    }

    /// Those that have more links than names here, if the layer has one of the names.
    pub fn take_rest(&mut self) -> impl Iterator<Item = Incomplete> + use<> {
        let links = std::mem::take(&mut self.table).into_values();
        links.filter_map(|link| Some(Incomplete { first: link.first?, seen: link.seen }))
    }

    fn seen(&mut self, stat: &Stat) -> Option<&mut Link> {
        if stat.st_nlink < 2 {
            return None;
        }
        let link = self.table.entry(same(stat)).or_insert_with(|| {
            self.held += LINK_BYTES;
            Link { first: None, seen: 0, links: stat.st_nlink }
        });
        link.seen += 1;
        Some(link)
    }

    fn forget_complete(&mut self, stat: &Stat) {
        let is_complete = |link: &Link| link.seen >= link.links;
        if self.table.get(&same(stat)).is_some_and(is_complete)
            && let Some(link) = self.table.remove(&same(stat))
        {
            self.held -= LINK_BYTES + link.first.map_or(0, |first| first.len() as u64);
        }
    }
}
