//! Names in directories, millions of them in little memory: 16 bytes for a name, its own bytes, and
//! some eight for finding it again.
//!
//! Why not a map for each directory: a small map takes as much as a dozen of these names, and an
//! image of nothing but directories would have as many maps.
use std::hash::{BuildHasher, Hasher, RandomState};

use hashbrown::HashTable;

/// No value.
const NONE: u32 = u32::MAX;

/// Names by directory. Directories and values are numbers of whoever uses the table.
#[derive(Debug, Default)]
pub struct NameTable {
    slots: Vec<Slot>,
    bytes: Vec<u8>,
    places: HashTable<u32>,
    /// Random, so that nobody can make names that all fall on one place.
    keys: RandomState,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    directory: u32,
    value: u32,
    /// In `bytes`. Who fills the table keeps it below 4 GiB by [`Limits::index_bytes`](crate::limits::Limits).
    at: u32,
    length: u8,
    is_marked: bool,
}

/// A name as it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named<'a> {
    pub directory: u32,
    pub name: &'a [u8],
    pub value: Option<u32>,
    pub is_marked: bool,
}

impl NameTable {
    /// What the name stands for.
    pub fn value(&self, directory: u32, name: &[u8]) -> Option<u32> {
        let found = self.find(directory, name)?;
        self.slots.get(found).map(|slot| slot.value).filter(|value| *value != NONE)
    }

    /// Gives the name a value in place of any other.
    pub fn set(&mut self, directory: u32, name: &[u8], value: u32) {
        if let Some(slot) = self.slot(directory, name) {
            slot.value = value;
        }
    }

    /// Takes the name's value away.
    pub fn clear(&mut self, directory: u32, name: &[u8]) {
        if let Some(slot) = self.find(directory, name).and_then(|found| self.slots.get_mut(found)) {
            slot.value = NONE;
        }
    }

    /// Marks the name, whatever its value.
    pub fn mark(&mut self, directory: u32, name: &[u8]) {
        if let Some(slot) = self.slot(directory, name) {
            slot.is_marked = true;
        }
    }

    /// All names, the youngest first.
    pub fn youngest_first(&self) -> impl Iterator<Item = Named<'_>> {
        self.slots.iter().rev().map(|slot| named(&self.bytes, slot))
    }

    /// Ends the search by hash and puts the names in order.
    pub fn sort(self) -> SortedNames {
        let NameTable { mut slots, bytes, .. } = self;
        slots.sort_unstable_by(|one, other| key(&bytes, one).cmp(&key(&bytes, other)));
        SortedNames { slots, bytes }
    }

    fn slot(&mut self, directory: u32, name: &[u8]) -> Option<&mut Slot> {
        let found = match self.find(directory, name) {
            Some(found) => found,
            None => self.add(directory, name),
        };
        self.slots.get_mut(found)
    }

    fn find(&self, directory: u32, name: &[u8]) -> Option<usize> {
        let is_it = |place: &u32| {
            let slot = self.slots.get(*place as usize).map(|slot| named(&self.bytes, slot));
            slot.is_some_and(|slot| slot.directory == directory && slot.name == name)
        };
        self.places.find(hash(&self.keys, directory, name), is_it).map(|place| *place as usize)
    }

    fn add(&mut self, directory: u32, name: &[u8]) -> usize {
        let number = self.slots.len();
        self.slots.push(Slot {
            directory,
            value: NONE,
            at: u32::try_from(self.bytes.len()).unwrap_or(NONE),
            length: u8::try_from(name.len()).unwrap_or(u8::MAX),
            is_marked: false,
        });
        self.bytes.extend_from_slice(name);
        let (slots, bytes, keys) = (&self.slots, &self.bytes, &self.keys);
        let rehash = |place: &u32| {
            let slot = slots.get(*place as usize).map(|slot| named(bytes, slot));
            slot.map_or(0, |slot| hash(keys, slot.directory, slot.name))
        };
        let place = u32::try_from(number).unwrap_or(NONE);
        self.places.insert_unique(hash(keys, directory, name), place, rehash);
        number
    }
}

/// Names by directory, in byte order.
#[derive(Debug, Default)]
pub struct SortedNames {
    slots: Vec<Slot>,
    bytes: Vec<u8>,
}

impl SortedNames {
    /// The names of one directory.
    pub fn of(&self, directory: u32) -> impl Iterator<Item = Named<'_>> {
        let start = self.slots.partition_point(|slot| slot.directory < directory);
        let slots = self.slots.get(start..).unwrap_or_default().iter();
        slots.take_while(move |slot| slot.directory == directory).map(|slot| named(&self.bytes, slot))
    }
}

/// What names are sorted by.
fn key<'a>(bytes: &'a [u8], slot: &Slot) -> (u32, &'a [u8]) {
    (slot.directory, named(bytes, slot).name)
}

fn named<'a>(bytes: &'a [u8], slot: &Slot) -> Named<'a> {
    let (at, length) = (slot.at as usize, usize::from(slot.length));
    Named {
        directory: slot.directory,
        name: bytes.get(at..at + length).unwrap_or_default(),
        value: (slot.value != NONE).then_some(slot.value),
        is_marked: slot.is_marked,
    }
}

fn hash(keys: &RandomState, directory: u32, name: &[u8]) -> u64 {
    let mut hasher = keys.build_hasher();
    hasher.write_u32(directory);
    hasher.write(name);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_directory_and_come_out_in_byte_order() {
        let mut table = NameTable::default();
        for number in (0..1000_u32).rev() {
            table.set(number % 3, number.to_string().as_bytes(), number);
        }
        table.set(0, b"9", 7);
        table.clear(0, b"0");
        table.mark(0, b"0");
        table.mark(1, b"new");
        assert_eq!((table.value(0, b"9"), table.value(1, b"9"), table.value(0, b"0")), (Some(7), None, None));
        assert_eq!(table.youngest_first().next().unwrap().name, b"new");
        let sorted = table.sort();
        let all: Vec<_> = sorted.of(0).collect();
        assert!(all.is_sorted_by_key(|named| named.name) && all.len() == 334);
        let first = Named { directory: 0, name: b"0", value: None, is_marked: true };
        assert_eq!((all[0], sorted.of(3).count()), (first, 0));
    }
}
