//! The container's file system, built by descriptor.
//!
//! No path with a component of the image's choosing is ever resolved in the host's root: every lookup goes
//! through [`Root`], whose descriptor confines it, and everything found is acted on through the descriptor
//! that was found. A link that somebody swaps in between makes the lookup land elsewhere *inside*.
//!
//! Kernel interfaces: openat2(2) (Linux 5.6), open_tree(2), fsopen(2), fsmount(2), move_mount(2) (5.2),
//! mount_setattr(2) (5.12).

pub mod copy_up;
pub mod device;
pub mod mask;
pub mod mount;
pub mod pivot;

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat};
use rustix::io::Errno;

use crate::limits::LOOKUP_RETRIES;

/// Links followed while a mount point is made: as many as the kernel follows itself.
const LINKS: usize = 40;

/// The root of a container's tree: whatever is looked up through it is in it.
#[derive(Debug)]
pub struct Root(OwnedFd);

/// What a mount point must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A directory.
    Directory,
    /// Anything else: a file is mounted over a file.
    File,
}

/// Which links a lookup follows. Magic links of procfs are never followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Those that an image may have, resolved inside the root.
    Inside,
    /// None: a link is an error.
    Refused,
}

/// A path of the container cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// A link where only the real thing will do. The last words are those that tests of runtimes look for.
    #[error(
        "use {} of the container: it is or lies behind a symbolic link, but must be mounted on ordinary directory",
        path.display()
    )]
    Link {
        /// The path in the container.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("{call} {} in the container", path.display())]
    Kernel {
        /// What was tried.
        call: &'static str,
        /// The path in the container.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl RootError {
    pub(crate) fn at(call: &'static str, path: &Path) -> impl FnOnce(Errno) -> RootError {
        move |errno| match errno {
            Errno::LOOP => RootError::Link { path: path.to_owned() },
            errno => RootError::Kernel { call, path: path.to_owned(), source: errno.into() },
        }
    }
}

impl Root {
    /// The tree below `directory`.
    pub fn new(directory: OwnedFd) -> Root {
        Root(directory)
    }

    /// Opens `path`.
    ///
    /// # Errors
    ///
    /// The kernel's answer; `ELOOP` for a link that `links` refuses.
    pub fn open(&self, path: &Path, flags: OFlags, links: Links) -> Result<OwnedFd, Errno> {
        let resolve = match links {
            Links::Inside => ResolveFlags::NO_MAGICLINKS,
            Links::Refused => ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS,
        };
        let mut tries = 0;
        loop {
            let opened = rustix::fs::openat2(
                &self.0,
                path,
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::IN_ROOT | resolve,
            );
            match opened {
                // A concurrent rename somewhere on the way; the kernel wants the lookup repeated.
                Err(Errno::AGAIN | Errno::INTR) if tries < LOOKUP_RETRIES => tries += 1,
                opened => return opened,
            }
        }
    }

    /// Finds `path` without opening it.
    ///
    /// # Errors
    ///
    /// As [`Root::open`].
    pub fn find(&self, path: &Path, links: Links) -> Result<OwnedFd, Errno> {
        self.open(path, OFlags::PATH, links)
    }

    /// Finds `path`, or makes it with the directories above it.
    ///
    /// A link that leads nowhere is made to lead somewhere, as images expect whose `/etc/resolv.conf` is a
    /// link into `/run`.
    ///
    /// # Errors
    ///
    /// A link where `links` refuses one, or the kernel's answer, `EROFS` in a read-only root.
    pub fn find_or_make(&self, path: &Path, shape: Shape, links: Links) -> Result<OwnedFd, RootError> {
        let mut wanted = path.to_owned();
        for _ in 0..LINKS {
            match self.find(&wanted, links) {
                Ok(found) => return Ok(found),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(RootError::at("find", path)(errno)),
            }
            match self.make(&wanted, shape, links)? {
                Made::Done => {}
                Made::LinkTo(target) if links == Links::Inside => wanted = target,
                Made::LinkTo(_) => return Err(RootError::Link { path: path.to_owned() }),
            }
        }
        Err(RootError::at("find", path)(Errno::LOOP))
    }

    /// Makes the last component of `path`, which was not found.
    fn make(&self, path: &Path, shape: Shape, links: Links) -> Result<Made, RootError> {
        let Some(name) = path.file_name() else {
            return Err(RootError::at("make", path)(Errno::NOENT));
        };
        let above = path.parent().unwrap_or(Path::new("/"));
        let parent = if above.parent().is_none() {
            self.find(above, links).map_err(RootError::at("find", above))?
        } else {
            self.find_or_make(above, Shape::Directory, links)?
        };
        let made = match shape {
            Shape::Directory => rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)),
            Shape::File => {
                rustix::fs::mknodat(&parent, name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0)
            }
        };
        match made {
            Ok(()) => Ok(Made::Done),
            Err(Errno::EXIST) => Ok(link_target(&parent, name, above).map_or(Made::Done, Made::LinkTo)),
            Err(errno) => Err(RootError::at("make", path)(errno)),
        }
    }
}

enum Made {
    Done,
    /// The name is a link to this path, which does not exist.
    LinkTo(PathBuf),
}

/// Where the link `name` in `above` leads, as a path in the container; `None` if it is no link.
fn link_target(parent: &OwnedFd, name: &OsStr, above: &Path) -> Option<PathBuf> {
    let target = rustix::fs::readlinkat(parent, name, Vec::new()).ok()?;
    let target = Path::new(OsStr::new(target.to_str().ok()?)).to_owned();
    // `..` is left in: openat2 stops it at the root, and takes it after any link, as the kernel does.
    Some(if target.is_absolute() { target } else { above.join(target) })
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Where the kernel's own file systems are.
const KERNELS_OWN: [&str; 3] = ["/proc", "/sys", "/dev"];

/// How links are treated on the way to a mount point: the kernel's own directories must be the real ones
/// (CVE-2019-19921: an image whose `/proc` is a link has the runtime's writes land elsewhere).
pub fn links_to(target: &Path) -> Links {
    let kernel = KERNELS_OWN.iter().any(|directory| target.starts_with(directory));
    if kernel { Links::Refused } else { Links::Inside }
}

/// What kind of mount point fits `source`.
///
/// # Errors
///
/// The kernel's answer.
pub fn shape_of(source: BorrowedFd<'_>) -> Result<Shape, Errno> {
    match FileType::from_raw_mode(fstat(source)?.st_mode) {
        FileType::Directory => Ok(Shape::Directory),
        _ => Ok(Shape::File),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Scratch {
        directory: tempfile::TempDir,
        root: Root,
    }

    fn scratch() -> Scratch {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("root")).unwrap();
        std::fs::create_dir(directory.path().join("host")).unwrap();
        let root = std::fs::File::open(directory.path().join("root")).unwrap();
        Scratch { root: Root::new(root.into()), directory }
    }

    #[test]
    fn a_mount_point_is_made_where_links_lead_inside_the_root() {
        for (link, target, wanted, lands) in [
            ("etc/resolv.conf", "../run/x/stub", "/etc/resolv.conf", "run/x/stub"),
            ("etc/resolv.conf", "/run/stub", "/etc/resolv.conf", "run/stub"),
            ("data", "/host", "/data/deep/er", "host/deep/er"),
            ("data", "../../../../../host", "/data/x", "host/x"),
            ("data", "/nowhere", "/data", "nowhere"),
        ] {
            let scratch = scratch();
            let root = scratch.directory.path().join("root");
            std::fs::create_dir(root.join("etc")).unwrap();
            symlink(target, root.join(link)).unwrap();
            scratch.root.find_or_make(Path::new(wanted), Shape::File, Links::Inside).unwrap();
            assert!(root.join(lands).is_file(), "{wanted} through {link} -> {target}");
            assert_eq!(std::fs::read_dir(scratch.directory.path().join("host")).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_link_is_refused_where_only_the_real_directory_will_do() {
        for target in ["/host", "../host", "nowhere", "real"] {
            let scratch = scratch();
            let root = scratch.directory.path().join("root");
            std::fs::create_dir(root.join("real")).unwrap();
            symlink(target, root.join("proc")).unwrap();
            let error =
                scratch.root.find_or_make(Path::new("/proc"), Shape::Directory, Links::Refused).unwrap_err();
            assert!(matches!(error, RootError::Link { .. }), "{target}: {error}");
        }
    }

    #[test]
    fn links_that_run_in_a_circle_end() {
        let scratch = scratch();
        let root = scratch.directory.path().join("root");
        symlink("b", root.join("a")).unwrap();
        symlink("a", root.join("b")).unwrap();
        scratch.root.find_or_make(Path::new("/a"), Shape::File, Links::Inside).unwrap_err();
    }
}
