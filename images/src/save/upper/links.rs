//! Files with several names: which name each was written by.
use std::collections::HashMap;

use rustix::fs::Stat;

/// A slot of the table and a name's allocation.
const LINK_BYTES: u64 = 96;

/// Those files of the upper directory of which not all names have been seen.
#[derive(Default)]
pub struct Links {
    table: HashMap<u64, Link>,
    held: u64,
}

/// A file with names that have not been seen, which the overlay's index may hold.
pub struct Link {
    /// The name with the contents.
    pub first: Box<[u8]>,
    /// Names that are in the layer.
    pub seen: u64,
    links: u64,
}

impl Links {
    /// Bytes of memory.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Takes note of a name. The one that has the contents, if this is not the first.
    pub fn see(&mut self, stat: &Stat, path: &[u8]) -> Option<Box<[u8]>> {
        if stat.st_nlink < 2 {
            return None;
        }
        let Some(link) = self.table.get_mut(&stat.st_ino) else {
            self.held += LINK_BYTES + path.len() as u64;
            self.table.insert(stat.st_ino, Link { first: path.into(), seen: 1, links: stat.st_nlink });
            return None;
        };
        link.seen += 1;
        if link.seen < link.links {
            return Some(link.first.clone());
        }
        let link = self.table.remove(&stat.st_ino)?;
        self.held -= LINK_BYTES + link.first.len() as u64;
        Some(link.first)
    }

    /// Those that have more links than names here.
    pub fn take_rest(&mut self) -> Vec<Link> {
        self.held = 0;
        std::mem::take(&mut self.table).into_values().collect()
    }
}
