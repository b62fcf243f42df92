//! How much room a directory tree takes that somebody hostile may have filled, and may still be filling.
//!
//! As in `remove_tree` every step is relative to an open directory, no link is followed and no mount
//! is entered. A file with several names in the tree counts once. What lies deeper than [`TREE_DEPTH`], and what there is no
//! time for, is left out: then the size is a part of it.

use std::collections::HashSet;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Directories opened below one another.
const TREE_DEPTH: usize = 64;

/// Bytes of one of the blocks that a file system counts (stat(2)).
const BLOCK_BYTES: u64 = 512;

/// What was seen of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeSize {
    /// Bytes on the disk, directories included.
    pub bytes: u64,
    /// Whether there is more.
    pub is_partial: bool,
}

/// A tree that is being measured.
struct Measuring<'a> {
    goes_on: &'a dyn Fn() -> bool,
    size: TreeSize,
    /// Files with several names, by inode: a tree is on one file system.
    seen: HashSet<u64>,
}

/// Measures what is at `path`, a directory, as long as it `goes_on`, which is asked before each entry. What vanishes
/// meanwhile, or cannot be looked at, is not counted.
pub fn tree_size(path: &Path, goes_on: &dyn Fn() -> bool) -> TreeSize {
    let mut measuring = Measuring { goes_on, size: TreeSize::default(), seen: HashSet::new() };
    match rustix::fs::open(path, DIRECTORY, Mode::empty()) {
        Ok(top) => measuring.add(top.as_fd(), 0),
        Err(Errno::NOENT) => {}
        Err(_) => measuring.size.is_partial = true,
    }
    measuring.size
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Measuring<'_> {
    /// Counts a directory and what is in it.
    fn add(&mut self, directory: BorrowedFd<'_>, depth: usize) {
        let (Ok(status), Ok(entries)) = (rustix::fs::fstat(directory), Dir::read_from(directory)) else {
            self.size.is_partial = true;
            return;
        };
        self.count(status.st_blocks);
        for entry in entries {
            if !(self.goes_on)() {
                self.size.is_partial = true;
                return;
            }
            let Ok(entry) = entry else {
                self.size.is_partial = true;
                return;
            };
            if entry.file_name() != c"." && entry.file_name() != c".." {
                self.add_entry(directory, entry.file_name(), depth);
            }
        }
    }

    fn add_entry(&mut self, parent: BorrowedFd<'_>, name: &CStr, depth: usize) {
        let Ok(status) = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) else { return };
        if FileType::from_raw_mode(status.st_mode) != FileType::Directory {
            if status.st_nlink < 2 || self.seen.insert(status.st_ino) {
                self.count(status.st_blocks);
            }
            return;
        }
        let inside = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        match rustix::fs::openat2(parent, name, DIRECTORY, Mode::empty(), inside) {
            Ok(directory) if depth < TREE_DEPTH => self.add(directory.as_fd(), depth + 1),
            // What is mounted there takes its room elsewhere.
            Err(Errno::NOENT | Errno::XDEV) => {}
            Ok(_) | Err(_) => self.size.is_partial = true,
        }
    }

    fn count(&mut self, blocks: i64) {
        let bytes = u64::try_from(blocks).unwrap_or_default().saturating_mul(BLOCK_BYTES);
        self.size.bytes = self.size.bytes.saturating_add(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn size(path: &Path) -> TreeSize {
        tree_size(path, &|| true)
    }

    #[test]
    fn a_file_counts_once_and_what_links_lead_to_does_not() {
        let parent = tempfile::tempdir().unwrap();
        let (tree, elsewhere) = (parent.path().join("tree"), parent.path().join("elsewhere"));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        let empty = size(&tree).bytes;
        fs::write(elsewhere.join("large"), vec![1; 1 << 20]).unwrap();
        symlink(&elsewhere, tree.join("link")).unwrap();
        fs::write(tree.join("a/b/file"), vec![1; 1 << 16]).unwrap();
        let with_file = size(&tree);
        assert!(!with_file.is_partial);
        assert!((empty + (1 << 16)..empty + (1 << 17)).contains(&with_file.bytes), "{empty} {with_file:?}");
        fs::hard_link(tree.join("a/b/file"), tree.join("again")).unwrap();
        assert_eq!(size(&tree), with_file);
        assert_eq!(size(&tree.join("none")), TreeSize::default());
    }

    #[test]
    fn s_a_tree_that_has_no_end_is_measured_in_part() {
        let parent = tempfile::tempdir().unwrap();
        let mut deep = parent.path().to_owned();
        for _ in 0..TREE_DEPTH + 2 {
            deep.push("d");
            fs::create_dir(&deep).unwrap();
        }
        assert!(size(parent.path()).is_partial);
        let asked = Cell::new(0);
        let three_times = || asked.replace(asked.get() + 1) < 3;
        assert!(tree_size(parent.path(), &three_times).is_partial);
    }
}
