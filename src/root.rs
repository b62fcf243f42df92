//! A task's root file system, seen through a descriptor: the only door to names that a task chose.
//!
//! No path with a component of the task's is ever resolved in the worker's own root. Links resolve
//! within the container's root (`openat2(2)` with `RESOLVE_IN_ROOT`), those of procfs not at all.
//! What is found is looked at by descriptor before it is opened for reading, so a device node, a
//! fifo or a file that the kernel makes up is never opened.

mod walk;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

pub use self::walk::{Listing, WalkBounds, WalkError, walk};

/// Attempts at a lookup that a rename somewhere above keeps from finishing.
const LOOKUP_ATTEMPTS: u32 = 32;

/// `f_type` of file systems whose files the kernel makes up: reading there tells about the host, may
/// never end, and has no size. Values of `linux/magic.h`.
const KERNEL_FILE_SYSTEMS: &[u32] = &[
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x1cd1,      // devpts
    0x1980_0202, // mqueue
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0xcafe_4a11, // bpf
];

/// The root directory of one task's container.
#[derive(Debug)]
pub struct ContainerRoot {
    root: OwnedFd,
}

/// What a name in the container turned out to be, held by a descriptor that can read nothing yet.
#[derive(Debug)]
pub struct Found {
    handle: OwnedFd,
    status: Stat,
}

/// The kinds of things that a name can stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file with contents of its own.
    File,
    /// A directory.
    Directory,
    /// A symbolic link that was not followed.
    Link,
    /// A device node, fifo, socket, or anything that the kernel makes up.
    Special,
}

impl Kind {
    /// The word for it in the task log.
    pub fn word(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::Directory => "directory",
            Kind::Link => "symlink",
            Kind::Special => "special file",
        }
    }
}

impl ContainerRoot {
    /// `root` is a descriptor of the container's `/`.
    pub fn new(root: OwnedFd) -> ContainerRoot {
        ContainerRoot { root }
    }

    /// Finds `path` (relative ones start at `/`), links followed within the container.
    ///
    /// # Errors
    ///
    /// Those of `openat2(2)`: not there, a loop of links, a name too long.
    pub fn find(&self, path: &str) -> io::Result<Found> {
        Ok(Found::new(self.open(path, OFlags::PATH)?)?)
    }

    /// Makes `path` and what is missing above it, owned by root with mode 0755. What is there stays
    /// as it is.
    ///
    /// # Errors
    ///
    /// Those of `mkdirat(2)` and `openat2(2)`: a component is no directory, or the disk is full.
    pub fn make_directories(&self, path: &str) -> io::Result<()> {
        let mut made = String::new();
        for component in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
            let parent = self.open(&made, OFlags::PATH | OFlags::DIRECTORY)?;
            made.push('/');
            made.push_str(component);
            if self.open(&made, OFlags::PATH).is_ok() || component == ".." {
                continue;
            }
            fs::mkdirat(&parent, component, Mode::empty())?;
            // By a descriptor of what was just made: the process's umask would take bits away.
            let new = fs::openat(&parent, component, directory_flags(), Mode::empty())?;
            fs::fchmod(&new, Mode::from_raw_mode(0o755))?;
        }
        self.open(path, OFlags::PATH | OFlags::DIRECTORY).map(drop)?;
        Ok(())
    }

    /// Opens within the root. A leading `/` and none mean the same; the empty path is the root.
    fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = match path.trim_start_matches('/') {
            "" => ".",
            relative => relative,
        };
        let flags = flags | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut attempts = LOOKUP_ATTEMPTS;
        loop {
            attempts -= 1;
            match fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::XDEV) if attempts > 0 => {}
                result => return result,
            }
        }
    }
}

impl Found {
    fn new(handle: OwnedFd) -> Result<Found, Errno> {
        let status = fs::fstat(&handle)?;
        Ok(Found { handle, status })
    }

    /// What it is. Files and directories of procfs, sysfs and the like are special.
    pub fn kind(&self) -> Kind {
        match kind_of(&self.status) {
            kind @ (Kind::File | Kind::Directory) if !is_made_up(self.handle.as_fd()) => kind,
            Kind::File | Kind::Directory => Kind::Special,
            other => other,
        }
    }

    /// How long it is, holes included.
    pub fn bytes(&self) -> u64 {
        u64::try_from(self.status.st_size).unwrap_or(u64::MAX)
    }

    /// Opens a regular file for reading: exactly the one that was looked at.
    ///
    /// # Errors
    ///
    /// `EINVAL` for anything else, or what opening says.
    pub fn open_file(&self) -> io::Result<File> {
        if self.kind() != Kind::File {
            return Err(Errno::INVAL.into());
        }
        Ok(File::from(self.reopen(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?))
    }

    /// Finds what lies below this directory, following no link on the way.
    ///
    /// # Errors
    ///
    /// Those of `openat2(2)`; `ELOOP` where a component is a link.
    pub fn find_below(&self, path: &str) -> io::Result<Found> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = fs::openat2(&self.handle, path, flags, Mode::empty(), resolve)?;
        Ok(Found::new(handle)?)
    }

    /// A descriptor for reading the names in a directory.
    fn open_directory(&self) -> Result<OwnedFd, Errno> {
        self.reopen(OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Opens what an `O_PATH` descriptor stands for, by the worker's own procfs.
    fn reopen(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = format!("/proc/thread-self/fd/{}", self.handle.as_raw_fd());
        fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
    }
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn kind_of(status: &Stat) -> Kind {
    match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Link,
        _ => Kind::Special,
    }
}

/// Whether a descriptor lies on a file system of [`KERNEL_FILE_SYSTEMS`]. What cannot be told counts
/// as one: it is left alone.
fn is_made_up(handle: BorrowedFd<'_>) -> bool {
    match fs::fstatfs(handle) {
        Ok(status) => KERNEL_FILE_SYSTEMS.iter().any(|magic| i64::from(*magic) == status.f_type),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    pub(super) struct Tree {
        _directory: tempfile::TempDir,
        pub(super) root: ContainerRoot,
    }

    /// A root with links of every kind, and a canary beside it.
    pub(super) fn tree() -> Tree {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path();
        std::fs::write(top.join("canary"), "outside").unwrap();
        let root = top.join("root");
        std::fs::create_dir_all(root.join("dir/deep/er")).unwrap();
        std::fs::write(root.join("file"), "inside").unwrap();
        std::fs::write(root.join("dir/a"), "a").unwrap();
        std::fs::write(root.join("dir/deep/er/b"), "b").unwrap();
        std::fs::write(root.join("canary"), "own").unwrap();
        symlink("../canary", root.join("up")).unwrap();
        symlink("/canary", root.join("absolute")).unwrap();
        symlink("/", root.join("dir/top")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("/proc/self/root/etc", root.join("magic")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            root.join("fifo"),
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let handle = fs::open(&root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        Tree { _directory: directory, root: ContainerRoot::new(handle) }
    }

    fn read(root: &ContainerRoot, path: &str) -> io::Result<String> {
        io::read_to_string(root.find(path)?.open_file()?)
    }

    #[test]
    fn s55_links_resolve_within_the_root() {
        let tree = tree();
        for (path, expected) in [
            ("file", "inside"),
            ("/file", "inside"),
            ("up", "own"),
            ("absolute", "own"),
            ("../../canary", "own"),
            ("dir/top/file", "inside"),
        ] {
            assert_eq!(read(&tree.root, path).unwrap(), expected, "{path}");
        }
        for path in ["loop", "magic", "missing", "file/below"] {
            assert!(tree.root.find(path).is_err(), "{path}");
        }
    }

    #[test]
    fn s56_what_is_no_regular_file_is_never_opened() {
        let tree = tree();
        for (path, kind) in [("fifo", Kind::Special), ("dir", Kind::Directory), ("file", Kind::File)] {
            let found = tree.root.find(path).unwrap();
            assert_eq!(found.kind(), kind, "{path}");
            assert_eq!(found.open_file().is_ok(), kind == Kind::File, "{path}");
        }
        let host = fs::open("/", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let host = ContainerRoot::new(host);
        for path in ["/proc/kmsg", "/proc/version", "/sys", "/dev/null"] {
            assert_eq!(host.find(path).unwrap().kind(), Kind::Special, "{path}");
        }
    }

    #[test]
    fn directories_are_made_within_the_root_with_mode_0755() {
        let tree = tree();
        tree.root.make_directories("/made/up/../x").unwrap();
        tree.root.make_directories("/dir/top/again").unwrap();
        for path in ["made/x", "again"] {
            let found = tree.root.find(path).unwrap();
            assert_eq!(found.kind(), Kind::Directory, "{path}");
            assert_eq!(found.status.st_mode & 0o7777, 0o755, "{path}");
        }
        assert!(tree.root.make_directories("/file/x").is_err());
    }
}
