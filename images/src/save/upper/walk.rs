//! All names of a tree, each opened below its directory, in the order of their bytes.
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, RawDir, ResolveFlags, Stat, fstat, openat, openat2};
use rustix::io::Errno;

use super::output::too_large;
use super::{SaveUpperError, unread};
use crate::layer::{EntryName, EntryProblem};
use crate::limits::Limits;

/// What the kernel resolves in one call.
const LONGEST_PATH: usize = 4095;
/// As many directories on the way down stay open; deeper trees have theirs opened again on the way up.
const KEPT_OPEN: usize = 32;
const LISTING_BYTES: usize = 1 << 16;

/// Never out of the tree, never through a link or into another mount.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// One name, opened as `O_PATH`.
pub struct Found {
    pub node: OwnedFd,
    pub stat: Stat,
}

impl Found {
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// Goes through a tree, a directory's entries right behind it if it is entered.
pub struct Walk<'a> {
    root: BorrowedFd<'a>,
    limits: &'a Limits,
    levels: Vec<Level>,
    path: Vec<u8>,
    held: u64,
}

struct Level {
    /// `None` while far deeper ones are gone through.
    directory: Option<OwnedFd>,
    names: Names,
    /// Bytes of the path in front of the names.
    prefix: usize,
}

impl<'a> Walk<'a> {
    /// Stands before the root, which is to be entered first.
    pub fn new(root: BorrowedFd<'a>, limits: &'a Limits) -> Result<Walk<'a>, SaveUpperError> {
        Ok(Walk { root, limits, levels: Vec::new(), path: Vec::new(), held: 0 })
    }

    /// The root itself.
    pub fn root(&self) -> Result<Found, SaveUpperError> {
        let node = openat(self.root, ".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let node = node.map_err(|error| unread(b".", "open it", error))?;
        let stat = fstat(&node).map_err(|error| unread(b".", "stat", error))?;
        Ok(Found { node, stat })
    }

    /// Of what was found last, below the root.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Its last component.
    pub fn name(&self) -> &[u8] {
        let prefix = self.levels.last().map_or(0, |level| level.prefix);
        self.path.get(prefix..).unwrap_or_default()
    }

    /// Bytes of memory.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Opens the next name.
    pub fn next(&mut self) -> Result<Option<Found>, SaveUpperError> {
        loop {
            let Some(level) = self.levels.last_mut() else { return Ok(None) };
            self.path.truncate(level.prefix);
            let Some(name) = level.names.next() else {
                self.held -= level.names.bytes();
                self.levels.pop();
                continue;
            };
            let length = level.prefix + name.to_bytes().len();
            let limit = self.limits.path_bytes.min(LONGEST_PATH);
            if length > limit {
                let entry = EntryName::new(&[&self.path, name.to_bytes()].concat());
                let what = "path";
                let problem = EntryProblem::TooLong { what, length, limit };
                return Err(SaveUpperError::Entry { entry, problem });
            }
            let directory = match level.directory.take() {
                Some(directory) => directory,
                None => open_directory(self.root, &self.path)?,
            };
            self.path.extend_from_slice(name.to_bytes());
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let node = openat2(&directory, name, flags, Mode::empty(), BENEATH);
            let node = node.map_err(|error| unread(&self.path, "open", error))?;
            level.directory = Some(directory);
            let stat = fstat(&node).map_err(|error| unread(&self.path, "stat", error))?;
            return Ok(Some(Found { node, stat }));
        }
    }

    /// Goes into the directory that was found last. `others_held` is the memory that is taken elsewhere.
    pub fn enter(&mut self, found: &Found, others_held: u64) -> Result<(), SaveUpperError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(&found.node, ".", flags, Mode::empty());
        let directory = directory.map_err(|error| unread(&self.path, "open the directory", error))?;
        let limit = self.limits.index_bytes;
        let room = limit.saturating_sub(self.held + others_held);
        let names = Names::of(&directory, room).map_err(|error| unread(&self.path, "list", error))?;
        let names = names.ok_or_else(|| too_large(&self.path, "bytes of names in memory", limit))?;
        self.held += names.bytes();
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.levels.push(Level { directory: Some(directory), names, prefix: self.path.len() });
        if let Some(far) = self.levels.len().checked_sub(1 + KEPT_OPEN)
            && let Some(level) = self.levels.get_mut(far)
        {
            level.directory = None;
        }
        Ok(())
    }
}

/// A directory by its whole path, with a slash behind it.
fn open_directory(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, SaveUpperError> {
    let name = path.strip_suffix(b"/").unwrap_or(b".");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(root, name, flags, Mode::empty(), BENEATH)
        .map_err(|error| unread(path, "open the directory again", error))
}

/// What is at a path, if anything.
pub fn find(root: BorrowedFd<'_>, path: &[u8]) -> Result<Option<Found>, SaveUpperError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = match openat2(root, path, flags, Mode::empty(), BENEATH) {
        Ok(node) => node,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(unread(path, "open", error)),
    };
    let stat = fstat(&node).map_err(|error| unread(path, "stat", error))?;
    Ok(Some(Found { node, stat }))
}

/// A directory's names, in order, in two allocations.
struct Names {
    /// Each with its zero byte.
    text: Vec<u8>,
    starts: Vec<u32>,
    next: usize,
}

impl Names {
    /// `None` if they take more memory than there is room for.
    fn of(directory: &OwnedFd, room: u64) -> Result<Option<Names>, Errno> {
        let mut names = Names { text: Vec::new(), starts: Vec::new(), next: 0 };
        let mut buffer = vec![MaybeUninit::uninit(); LISTING_BYTES];
        let mut listing = RawDir::new(directory.as_fd(), &mut buffer);
        while let Some(entry) = listing.next() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            // The room is below 4 GiB: it fits.
            names.starts.push(u32::try_from(names.text.len()).unwrap_or(u32::MAX));
            names.text.extend_from_slice(name.to_bytes_with_nul());
            if names.bytes() > room {
                return Ok(None);
            }
        }
        let Names { text, starts, .. } = &mut names;
        starts.sort_unstable_by_key(|start| name_at(text, *start));
        Ok(Some(names))
    }

    fn bytes(&self) -> u64 {
        (self.text.capacity() + self.starts.capacity() * size_of::<u32>()) as u64
    }

    fn next(&mut self) -> Option<&CStr> {
        let start = self.starts.get(self.next)?;
        self.next += 1;
        Some(name_at(&self.text, *start))
    }
}

fn name_at(text: &[u8], start: u32) -> &CStr {
    let name = text.get(start as usize..).unwrap_or_default();
    CStr::from_bytes_until_nul(name).unwrap_or_default()
}
