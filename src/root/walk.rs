//! Listing what lies below a directory of a container, within bounds: a task may have made it as large as it liked.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self, AtFlags, Dir, Mode};
use rustix::io::Errno;

use super::{Found, Kind, directory_flags, is_made_up, kind_of};

/// How far a walk through a directory goes.
#[derive(Clone, Copy, Debug)]
pub struct WalkBounds {
    /// Directories below one another.
    pub depth: usize,
    /// Regular files in all, and what cannot be looked at or named.
    pub files: usize,
    /// Directories in all: an empty one costs no memory, but time.
    pub directories: usize,
    /// Bytes of the files' paths in all: one of the deepest has some sixteen thousand.
    pub path_bytes: usize,
}

/// Why a directory could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// It lies deeper than the bound.
    #[error("list {path:?}: it lies more than {depth} directories deep; pack the tree into an archive")]
    TooDeep {
        /// Where, below the directory that is walked.
        path: String,
        /// The bound.
        depth: usize,
    },
    /// There are more files than the bound.
    #[error("list the directory: it holds more than {files} files; pack them into an archive")]
    TooMany {
        /// The bound.
        files: usize,
    },
    /// There are more directories than the bound.
    #[error("list the directory: it holds more than {directories} directories; pack them into an archive")]
    TooManyDirectories {
        /// The bound.
        directories: usize,
    },
    /// The files' paths are longer than the bound.
    #[error(
        "list the directory: the paths in it have more than {bytes} bytes; pack the files into an archive"
    )]
    TooLong {
        /// The bound.
        bytes: usize,
    },
    /// Nobody waits for it any more.
    #[error("list the directory: it was interrupted")]
    Unwanted,
}

/// What lies in and below a directory, as paths relative to it.
#[derive(Debug, Default)]
pub struct Listing {
    /// The regular files, in order.
    pub files: Vec<String>,
    /// What has a name that is not UTF-8, made readable.
    pub unnamable: Vec<String>,
    /// What the kernel does not let anybody look at, and why; the directory itself is the empty path.
    pub unreadable: Vec<(String, io::Error)>,
}

impl Listing {
    /// Bytes of all paths.
    pub fn path_bytes(&self) -> usize {
        let named = self.files.iter().chain(&self.unnamable).map(String::len).sum::<usize>();
        named + self.unreadable.iter().map(|(path, _)| path.len()).sum::<usize>()
    }
}

/// Lists a directory, while that is `wanted`. Links, device nodes, fifos, sockets and what the kernel makes up are passed
/// over.
///
/// # Errors
///
/// [`WalkError`] when a bound is passed, or it is no longer wanted.
pub fn walk(top: &Found, bounds: WalkBounds, wanted: &dyn Fn() -> bool) -> Result<Listing, WalkError> {
    let mut walk = Walk { bounds, wanted, directories: 0, path_bytes: 0, listing: Listing::default() };
    match top.open_directory() {
        Ok(directory) => walk.directory(&directory, "", 0)?,
        Err(errno) => walk.unreadable("", errno)?,
    }
    walk.listing.files.sort_unstable();
    Ok(walk.listing)
}

struct Walk<'a> {
    bounds: WalkBounds,
    wanted: &'a dyn Fn() -> bool,
    directories: usize,
    path_bytes: usize,
    listing: Listing,
}

impl Walk<'_> {
    fn directory(&mut self, directory: &OwnedFd, path: &str, depth: usize) -> Result<(), WalkError> {
        if !(self.wanted)() {
            return Err(WalkError::Unwanted);
        }
        if depth >= self.bounds.depth {
            return Err(WalkError::TooDeep { path: path.to_owned(), depth: self.bounds.depth });
        }
        if self.directories >= self.bounds.directories {
            return Err(WalkError::TooManyDirectories { directories: self.bounds.directories });
        }
        self.directories += 1;
        let whole = path.trim_end_matches('/');
        let entries = match Dir::read_from(directory) {
            Ok(entries) => entries,
            Err(errno) => return self.unreadable(whole, errno),
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                // Nothing tells whether the rest can be had.
                Err(errno) => return self.unreadable(whole, errno),
            };
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(utf8) = name.to_str() else {
                let readable = format!("{path}{}", name.to_string_lossy());
                self.count(&readable)?;
                self.listing.unnamable.push(readable);
                continue;
            };
            self.entry(directory, utf8, &format!("{path}{utf8}"), depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, parent: &OwnedFd, name: &str, below: &str, depth: usize) -> Result<(), WalkError> {
        let status = match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) => status,
            Err(errno) => return self.unreadable(below, errno),
        };
        match kind_of(&status) {
            Kind::File => {
                self.count(below)?;
                self.listing.files.push(below.to_owned());
                Ok(())
            }
            Kind::Directory => match fs::openat(parent, name, directory_flags(), Mode::empty()) {
                Ok(child) if is_made_up(child.as_fd()) => Ok(()),
                Ok(child) => self.directory(&child, &format!("{below}/"), depth + 1),
                Err(errno) => self.unreadable(below, errno),
            },
            Kind::Link | Kind::Special => Ok(()),
        }
    }

    fn unreadable(&mut self, path: &str, errno: Errno) -> Result<(), WalkError> {
        self.count(path)?;
        self.listing.unreadable.push((path.to_owned(), errno.into()));
        Ok(())
    }

    /// Makes room for one more path.
    fn count(&mut self, path: &str) -> Result<(), WalkError> {
        let Listing { files, unnamable, unreadable } = &self.listing;
        if files.len() + unnamable.len() + unreadable.len() >= self.bounds.files {
            return Err(WalkError::TooMany { files: self.bounds.files });
        }
        self.path_bytes += path.len();
        if self.path_bytes > self.bounds.path_bytes {
            return Err(WalkError::TooLong { bytes: self.bounds.path_bytes });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::tree;
    use super::*;

    #[test]
    fn a_walk_finds_files_in_order_and_follows_no_link() {
        let tree = tree();
        let bounds = WalkBounds { depth: 8, files: 8, directories: 8, path_bytes: 80 };
        let listing = walk(&tree.root.find("dir").unwrap(), bounds, &|| true).unwrap();
        assert_eq!(listing.files, ["a", "deep/er/b"]);
        assert_eq!(listing.path_bytes(), 10);
        assert!(listing.unnamable.is_empty() && listing.unreadable.is_empty(), "{listing:?}");
    }

    #[test]
    fn a_walk_is_bounded() {
        let tree = tree();
        let top = tree.root.find("dir").unwrap();
        // "a" and "deep/er/b"
        let enough = WalkBounds { depth: 3, files: 2, directories: 3, path_bytes: 10 };
        let walk = |bounds| walk(&top, bounds, &|| true);
        assert!(walk(enough).is_ok());
        let shallow = walk(WalkBounds { depth: 2, ..enough });
        assert!(matches!(shallow, Err(WalkError::TooDeep { .. })), "{shallow:?}");
        let few = walk(WalkBounds { files: 1, ..enough });
        assert!(matches!(few, Err(WalkError::TooMany { files: 1 })), "{few:?}");
        let narrow = walk(WalkBounds { directories: 2, ..enough });
        assert!(matches!(narrow, Err(WalkError::TooManyDirectories { directories: 2 })), "{narrow:?}");
        let short = walk(WalkBounds { path_bytes: 9, ..enough });
        assert!(matches!(short, Err(WalkError::TooLong { bytes: 9 })), "{short:?}");
    }

    #[test]
    fn a_walk_ends_with_the_next_directory_when_nobody_wants_it() {
        let tree = tree();
        let bounds = WalkBounds { depth: 8, files: 8, directories: 8, path_bytes: 80 };
        let looks = std::cell::Cell::new(0);
        let wanted = || looks.replace(looks.get() + 1) < 1;
        let ended = walk(&tree.root.find("dir").unwrap(), bounds, &wanted);
        assert!(matches!(ended, Err(WalkError::Unwanted)) && looks.get() == 2, "{ended:?}");
    }
}
