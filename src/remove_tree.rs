//! Removes a directory tree that somebody hostile may have filled, and may still be filling.
//!
//! Every step is relative to an open directory. No link is followed (a link is unlinked), no mount is
//! entered (`RESOLVE_NO_XDEV`), and depth costs no memory: directories deeper than
//! [`TREE_DEPTH`] are moved up to the top of the tree and removed from there.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Directories opened below one another; deeper ones are first moved up.
const TREE_DEPTH: usize = 64;

/// A tree is still there, or in part.
#[derive(Debug, thiserror::Error)]
pub enum RemoveTreeError {
    /// A mount lies inside; it is not ours to unmount, and what it shows not ours to delete.
    #[error("remove {}: {name:?} in it is a mount point, unmount that first", path.display())]
    MountPoint {
        /// The tree.
        path: PathBuf,
        /// The mount point's name.
        name: CString,
    },
    /// The kernel refused a step.
    #[error("remove {}: {call} {name:?}", path.display())]
    Kernel {
        /// The tree.
        path: PathBuf,
        /// Which call failed.
        call: &'static str,
        /// On which name.
        name: CString,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Where one removal stands: the tree's own path (for messages) and its top directory.
struct Tree<'a> {
    path: &'a Path,
    top: BorrowedFd<'a>,
}

/// Removes what is at `path`, directory or not. Nothing there is success.
///
/// # Errors
///
/// A mount point inside, or a call that the kernel refused; what could be removed is removed.
pub fn remove_tree(path: &Path) -> Result<(), RemoveTreeError> {
    let name = CString::new(path.as_os_str().as_encoded_bytes()).unwrap_or_default();
    let failed = |call, errno| RemoveTreeError::Kernel {
        path: path.to_owned(),
        call,
        name: name.clone(),
        source: io::Error::from(errno),
    };
    match rustix::fs::unlinkat(CWD, &*name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(errno) => return Err(failed("unlink", errno)),
    }
    let top = rustix::fs::open(&*name, DIRECTORY, Mode::empty()).map_err(|errno| failed("open", errno))?;
    Tree { path, top: top.as_fd() }.empty(top.as_fd(), 0)?;
    match rustix::fs::unlinkat(CWD, &*name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed("rmdir", errno)),
    }
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Tree<'_> {
    /// Removes all entries of `directory`. Entries that were moved up meanwhile are caught by
    /// reading again until a pass finds nothing.
    fn empty(&self, directory: BorrowedFd<'_>, depth: usize) -> Result<(), RemoveTreeError> {
        loop {
            let names = self.names(directory)?;
            if names.is_empty() {
                return Ok(());
            }
            for name in &names {
                self.remove(directory, name, depth)?;
            }
        }
    }

    fn names(&self, directory: BorrowedFd<'_>) -> Result<Vec<CString>, RemoveTreeError> {
        let failed = |errno| self.failed("read", c".", errno);
        let mut names = Vec::new();
        for entry in Dir::read_from(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name() != c"." && entry.file_name() != c".." {
                names.push(entry.file_name().to_owned());
            }
        }
        Ok(names)
    }

    fn remove(&self, parent: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<(), RemoveTreeError> {
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR) => {}
            Err(Errno::BUSY) => return Err(self.mount_point(name)),
            Err(errno) => return Err(self.failed("unlink", name, errno)),
        }
        // An empty directory needs no opening.
        match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(Errno::BUSY) => return Err(self.mount_point(name)),
            Err(errno) => return Err(self.failed("rmdir", name, errno)),
        }
        if depth >= TREE_DEPTH {
            return self.move_up(parent, name);
        }
        let Some(directory) = self.enter(parent, name)? else { return Ok(()) };
        self.empty(directory.as_fd(), depth + 1)?;
        match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.failed("rmdir", name, errno)),
        }
    }

    fn enter(&self, parent: BorrowedFd<'_>, name: &CStr) -> Result<Option<OwnedFd>, RemoveTreeError> {
        let inside = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        match rustix::fs::openat2(parent, name, DIRECTORY, Mode::empty(), inside) {
            Ok(directory) => Ok(Some(directory)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::XDEV) => Err(self.mount_point(name)),
            Err(errno) => Err(self.failed("openat2", name, errno)),
        }
    }

    /// Gives a directory that lies too deep a free name at the top, where the next pass finds it.
    fn move_up(&self, parent: BorrowedFd<'_>, name: &CStr) -> Result<(), RemoveTreeError> {
        for number in 0..u32::MAX {
            let target = format!(".deep-{number}");
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(parent, name, self.top, target.as_str(), flags) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::EXIST) => {}
                Err(Errno::BUSY) => return Err(self.mount_point(name)),
                Err(errno) => return Err(self.failed("renameat2", name, errno)),
            }
        }
        Err(self.failed("renameat2", name, Errno::EXIST))
    }

    fn mount_point(&self, name: &CStr) -> RemoveTreeError {
        RemoveTreeError::MountPoint { path: self.path.to_owned(), name: name.to_owned() }
    }

    fn failed(&self, call: &'static str, name: &CStr, errno: Errno) -> RemoveTreeError {
        let (path, name) = (self.path.to_owned(), name.to_owned());
        RemoveTreeError::Kernel { path, call, name, source: errno.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A scratch directory with a canary beside the tree that is to go.
    fn check(fill: impl FnOnce(&Path, &Path)) {
        let scratch = tempfile::tempdir().unwrap();
        let (tree, canary) = (scratch.path().join("tree"), scratch.path().join("canary"));
        std::fs::create_dir(&canary).unwrap();
        std::fs::write(canary.join("file"), "alive").unwrap();
        fill(&tree, &canary);
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && tree.symlink_metadata().is_err());
        assert_eq!(std::fs::read_to_string(canary.join("file")).unwrap(), "alive");
    }

    #[test]
    fn nothing_a_file_and_a_link_are_removed_without_looking_further() {
        check(|_, _| ());
        check(|tree, _| std::fs::write(tree, "x").unwrap());
        check(|tree, canary| symlink(canary, tree).unwrap());
    }

    #[test]
    fn links_inside_are_removed_and_not_followed() {
        check(|tree, canary| {
            std::fs::create_dir_all(tree.join("a/b")).unwrap();
            symlink(canary, tree.join("a/link")).unwrap();
            symlink("../../canary", tree.join("a/b/up")).unwrap();
        });
    }

    #[test]
    fn a_tree_deeper_than_any_descriptor_limit_goes() {
        check(|tree, _| {
            std::fs::create_dir(tree).unwrap();
            let mut directory = rustix::fs::open(tree, DIRECTORY, Mode::empty()).unwrap();
            for _ in 0..3000 {
                rustix::fs::mkdirat(&directory, c"d", Mode::RWXU).unwrap();
                directory = rustix::fs::openat(&directory, c"d", DIRECTORY, Mode::empty()).unwrap();
            }
        });
    }
}
