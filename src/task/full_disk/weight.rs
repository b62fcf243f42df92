//! How much of the disk the files of a run have.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, open, openat2, statat};

/// Files and directories of one run that are looked at: a task may have made any number.
const MOST_ENTRIES: usize = 50_000;

/// Directories below one another that are looked into.
const MOST_DEPTH: usize = 64;

/// A block of `stat`'s, whatever those of the file system are.
const BLOCK_BYTES: u64 = 512;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Bytes on the disk of what lies below a directory, to compare runs with: what cannot be looked at, what goes meanwhile
/// and what lies beyond the bounds counts as nothing. No link is followed, no mount is entered.
pub(super) fn weight(directory: &Path) -> u64 {
    let mut entries = MOST_ENTRIES;
    open(directory, DIRECTORY, Mode::empty()).map_or(0, |top| below(&top, MOST_DEPTH, &mut entries))
}

fn below(directory: &OwnedFd, depth: usize, entries: &mut usize) -> u64 {
    let Ok(listing) = Dir::read_from(directory) else { return 0 };
    let mut bytes = 0_u64;
    for entry in listing.map_while(Result::ok) {
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let Some(left) = entries.checked_sub(1) else { break };
        *entries = left;
        let Ok(status) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let blocks = u64::try_from(status.st_blocks).unwrap_or(0);
        bytes = bytes.saturating_add(blocks.saturating_mul(BLOCK_BYTES));
        if depth == 0 || FileType::from_raw_mode(status.st_mode) != FileType::Directory {
            continue;
        }
        let inside = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        if let Ok(inner) = openat2(directory, name, DIRECTORY, Mode::empty(), inside) {
            bytes = bytes.saturating_add(below(&inner, depth - 1, entries));
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_run_weighs_what_its_files_have_on_the_disk_and_no_more() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |path: &str| scratch.path().join(path);
        fs::create_dir_all(at("run/a/b")).unwrap();
        fs::write(at("other"), vec![b'x'; 8 << 20]).unwrap();
        symlink(at("other"), at("run/link")).unwrap();
        symlink(scratch.path(), at("run/a/up")).unwrap();
        // A hole has no blocks.
        fs::File::create(at("run/hole")).unwrap().set_len(1 << 40).unwrap();
        let before = weight(&at("run"));
        assert!(before < 1 << 20, "{before}");
        fs::write(at("run/a/b/file"), vec![b'x'; 4 << 20]).unwrap();
        let grown = weight(&at("run")) - before;
        assert!((4 << 20..5 << 20).contains(&grown), "{grown}");
        assert_eq!(weight(&at("nothing")), 0);
    }
}
