//! Groups on the host: made, written to, joined.
//!
//! A path is opened once, component by component and without links, from a mount point whose file system
//! is checked; from then on everything goes by descriptor.
use super::{DevicePolicy, Group, Setting, Version};
use crate::journal::{Journal, JournalError, UndoStep};
use crate::limits::SMALL_FILE_BYTES;
use crate::sys;
use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, fstatfs, mkdirat, open, openat, openat2};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// How often a group may vanish between making its parent and making it: the last container of a parent
/// takes that along.
const RETRIES: usize = 16;

pub(super) const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_XDEV);

/// Why a group could not be made or set up.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// Something else is mounted where the hierarchy was.
    #[error("use the hierarchy at {}: it is not a cgroup file system of the expected version", .mount_point.display())]
    NotACgroup {
        /// Where.
        mount_point: PathBuf,
    },
    /// It is somebody else's, or another container's: sharing it they would share limits, and die together.
    #[error(
        "make the group {}: there is one of that name; give each container a cgroupsPath of its own, `delete` the \
         container that it is of, or remove it (rmdir) if it is nobody's", .directory.display()
    )]
    Exists {
        /// Which.
        directory: PathBuf,
    },
    /// v2: the controller is not offered in a group above the container's.
    #[error(
        "enable the {controller} controller in {}: only \"{available}\" are available there; enable it in the \
         groups above (under systemd: Delegate=yes), at boot, or take the limit out of the Spec", .directory.display()
    )]
    NoController {
        /// Which one.
        controller: String,
        /// The group above.
        directory: PathBuf,
        /// Its `cgroup.controllers`.
        available: String,
    },
    /// v2: groups with processes of their own cannot pass controllers on.
    #[error(
        "enable the {controller} controller in {}: the group has processes of its own; move them into a child group, \
         or choose another cgroupsPath", .directory.display()
    )]
    Occupied {
        /// Which one.
        controller: String,
        /// The group above.
        directory: PathBuf,
    },
    /// The kernel has the controller but not this limit.
    #[error("write {value:?} to {}: this kernel has no such file; take the limit out of the Spec", .file.display())]
    NoFile {
        /// Which.
        file: PathBuf,
        /// What for.
        value: String,
    },
    /// The kernel refused a value.
    #[error("write {value:?} to {}", .file.display())]
    Write {
        /// Which.
        file: PathBuf,
        /// The text.
        value: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// v2: the device rules were refused. Without them the container must not start.
    #[error("attach the device rules to {}; it needs CAP_SYS_ADMIN and a kernel with CONFIG_CGROUP_BPF", .directory.display())]
    Devices {
        /// Which group.
        directory: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Any other call.
    #[error("{call} {}", .path.display())]
    Call {
        /// The call.
        call: &'static str,
        /// What with.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// What is not noted first is not done.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// A group that exists, held by its descriptor.
#[derive(Debug)]
pub struct OpenGroup {
    /// What it was made from.
    pub group: Group,
    directory: OwnedFd,
    /// The file that was written last: one rule of v1's `devices.allow` comes after the other.
    written: Option<(String, OwnedFd)>,
}

/// Makes a group, and the groups above it that are missing. Each is noted in the journal first.
///
/// The container's own group must not exist: mkdir(2) is the claim on it. What is found there may be a stranger's,
/// with processes in it or in groups below, and at its end everything in a container's group is killed. Even an
/// empty one may be about to be used, or be named by the journal of a container that was not deleted.
///
/// # Errors
///
/// [`CgroupError`]; what was made until then is in the journal.
pub fn create(group: &Group, journal: &mut Journal) -> Result<OpenGroup, CgroupError> {
    let mut vanished = 0;
    loop {
        match walk(group, journal) {
            Err(error) if has_vanished(&error) && vanished < RETRIES => vanished += 1,
            other => return other,
        }
    }
}

/// Whether a group above the container's went while it was looked at, with the last container that was in it: its name
/// is gone then (`ENOENT`), and its open files answer `ENODEV`.
fn has_vanished(error: &CgroupError) -> bool {
    match error {
        CgroupError::Call { source, .. } | CgroupError::Write { source, .. } => {
            [Errno::NOENT, Errno::NODEV].iter().any(|gone| source.raw_os_error() == Some(gone.raw_os_error()))
        }
        _ => false,
    }
}

fn walk(group: &Group, journal: &mut Journal) -> Result<OpenGroup, CgroupError> {
    let mut path = group.mount_point.clone();
    let mut directory = open_hierarchy(group)?;
    let mut parts = group.path.iter().peekable();
    while let Some(part) = parts.next() {
        if group.version == Version::V2 {
            enable(directory.as_fd(), &path, &group.controllers)?;
        }
        let parent = directory;
        path.push(part);
        directory = match parts.peek() {
            Some(_) => open_or_make(parent.as_fd(), part, &path, journal)?,
            None => match make(parent.as_fd(), part, &path, journal)? {
                Some((own, inode)) => {
                    journal.amend(Some(&UndoStep::RemoveCgroup { path: path.clone(), inode }))?;
                    own
                }
                None => return Err(CgroupError::Exists { directory: path }),
            },
        };
        if group.has("cpuset") && group.version == Version::V1 {
            inherit_cpuset(parent.as_fd(), directory.as_fd(), &path)?;
        }
    }
    Ok(OpenGroup { group: group.clone(), directory, written: None })
}

/// A group above the container's, which others may come to share: it goes only when nothing is in it.
fn open_or_make(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    path: &Path,
    journal: &mut Journal,
) -> Result<OwnedFd, CgroupError> {
    let opened = match open_child(parent, name) {
        Err(Errno::NOENT) => match make(parent, name, path, journal)? {
            Some((made, inode)) => {
                let inode = Some(inode);
                journal.amend(Some(&UndoStep::RemoveEmptyCgroup { path: path.to_owned(), inode }))?;
                Ok(made)
            }
            None => open_child(parent, name), // Somebody else was faster.
        },
        opened => opened,
    };
    opened.map_err(|errno| call("open", path, errno))
}

/// Makes a group, and tells its inode; the caller amends the journal by it. `None` if there is one: then nothing was
/// changed, and the journal says so.
fn make(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    path: &Path,
    journal: &mut Journal,
) -> Result<Option<(OwnedFd, u64)>, CgroupError> {
    // What a crash leaves right behind mkdir(2) is empty; and if it came before, a stranger's is not.
    journal.record(&UndoStep::RemoveEmptyCgroup { path: path.to_owned(), inode: None })?;
    match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) => {}
        Err(errno) => {
            journal.amend(None)?;
            return if errno == Errno::EXIST { Ok(None) } else { Err(call("mkdir", path, errno)) };
        }
    }
    let made = open_child(parent, name).map_err(|errno| call("open", path, errno))?;
    let inode = fstat(&made).map_err(|errno| call("stat", path, errno))?.st_ino;
    Ok(Some((made, inode)))
}

fn open_hierarchy(group: &Group) -> Result<OwnedFd, CgroupError> {
    let at = &group.mount_point;
    let directory = open(at, DIRECTORY, Mode::empty()).map_err(|errno| call("open", at, errno))?;
    if version(directory.as_fd()).map_err(|errno| call("statfs", at, errno))? == Some(group.version) {
        Ok(directory)
    } else {
        Err(CgroupError::NotACgroup { mount_point: at.clone() })
    }
}

/// Which cgroup file system a directory is in, if any (linux/magic.h).
pub(super) fn version(directory: BorrowedFd<'_>) -> Result<Option<Version>, Errno> {
    Ok(match u32::try_from(fstatfs(directory)?.f_type) {
        Ok(0x0027_e0eb) => Some(Version::V1), // CGROUP_SUPER_MAGIC
        Ok(0x6367_7270) => Some(Version::V2), // CGROUP2_SUPER_MAGIC
        _ => None,
    })
}

fn open_child(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    openat2(parent, name, DIRECTORY, Mode::empty(), BENEATH)
}

/// v2: enables `controllers` in all groups from the hierarchy at `mount_point` down to the one above `group`.
pub(super) fn enable_above(
    mount_point: &Path,
    group: &Path,
    controllers: &[String],
) -> Result<(), CgroupError> {
    let mut path = mount_point.to_owned();
    let below = group.strip_prefix(mount_point).ok().and_then(Path::parent).unwrap_or(Path::new(""));
    let mut directory = open(&path, DIRECTORY, Mode::empty()).map_err(|errno| call("open", &path, errno))?;
    enable(directory.as_fd(), &path, controllers)?;
    for part in below {
        path.push(part);
        directory = open_child(directory.as_fd(), part).map_err(|errno| call("open", &path, errno))?;
        enable(directory.as_fd(), &path, controllers)?;
    }
    Ok(())
}

/// v2: a controller has files in a group only if the one above passes it on.
fn enable(directory: BorrowedFd<'_>, path: &Path, controllers: &[String]) -> Result<(), CgroupError> {
    if controllers.is_empty() {
        return Ok(());
    }
    let words = |file| read(directory, file).map_err(|errno| call("read controllers of", path, errno));
    let (available, enabled) = (words("cgroup.controllers")?, words("cgroup.subtree_control")?);
    let listed = |words: &str, name: &String| words.split_whitespace().any(|word| word == name);
    for controller in controllers.iter().filter(|name| !listed(&enabled, name)) {
        let (controller, directory_path) = (controller.clone(), path.to_owned());
        if !listed(&available, &controller) {
            let available = available.trim().to_owned();
            return Err(CgroupError::NoController { controller, directory: directory_path, available });
        }
        let value = format!("+{controller}");
        match write(directory, "cgroup.subtree_control", &value) {
            Ok(()) => {}
            Err(Errno::BUSY) => return Err(CgroupError::Occupied { controller, directory: directory_path }),
            Err(errno) => {
                let file = path.join("cgroup.subtree_control");
                return Err(CgroupError::Write { file, value, source: errno.into() });
            }
        }
    }
    Ok(())
}

/// v1: a new cpuset is empty, and nothing can run in it until it has CPUs and memory nodes.
fn inherit_cpuset(parent: BorrowedFd<'_>, child: BorrowedFd<'_>, path: &Path) -> Result<(), CgroupError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = read(child, file).map_err(|errno| call("read the cpuset of", path, errno))?;
        if own.trim().is_empty() {
            let value = read(parent, file).map_err(|errno| call("read the cpuset above", path, errno))?;
            write(child, file, value.trim()).map_err(|errno| CgroupError::Write {
                file: path.join(file),
                value,
                source: errno.into(),
            })?;
        }
    }
    Ok(())
}

impl OpenGroup {
    /// A group that was made before.
    pub(super) fn existing(group: Group, directory: OwnedFd) -> OpenGroup {
        OpenGroup { group, directory, written: None }
    }

    /// For `CLONE_INTO_CGROUP`, and to be kept while the container lives.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Writes one setting.
    ///
    /// # Errors
    ///
    /// [`CgroupError::NoFile`] or [`CgroupError::Write`], with file and value.
    pub fn apply(&mut self, setting: &Setting) -> Result<(), CgroupError> {
        let file = self.group.directory().join(&setting.file);
        let value = setting.value.clone();
        match (self.write(&setting.file, &value), &setting.otherwise) {
            (Ok(()), _) => Ok(()),
            (Err(Errno::NOENT), Some(otherwise)) => self.apply(otherwise),
            (Err(Errno::NOENT), None) => Err(CgroupError::NoFile { file, value }),
            (Err(errno), _) => Err(CgroupError::Write { file, value, source: errno.into() }),
        }
    }

    fn write(&mut self, name: &str, value: &str) -> Result<(), Errno> {
        let file = match self.written.take() {
            Some((written, file)) if written == name => file,
            _ => open_to_write(self.directory(), name)?,
        };
        let (_, file) = self.written.insert((name.to_owned(), file));
        rustix::io::write(&*file, value.as_bytes()).map(drop)
    }

    /// v2: makes `policy` the group's device rules.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Devices`].
    pub fn attach_devices(&self, policy: &DevicePolicy) -> Result<(), CgroupError> {
        sys::bpf::set_device_program(self.directory(), &policy.program())
            .map_err(|source| CgroupError::Devices { directory: self.group.directory(), source })
    }

    /// v1: opens `tasks`, for [`join_tasks`] in the child.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Call`].
    pub fn open_tasks(&self) -> Result<OwnedFd, CgroupError> {
        openat(&self.directory, "tasks", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| call("open", &self.group.directory().join("tasks"), errno))
    }
}

/// v1: moves the calling thread into the group. Before the cgroup namespace is unshared: that makes the
/// groups of the moment its roots.
///
/// # Errors
///
/// `ENOSPC` for a cpuset without CPUs, `EINVAL` for a group without real-time budget.
pub fn join_tasks(tasks: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::io::write(tasks, b"0").map(drop)?)
}

pub(super) fn write(directory: BorrowedFd<'_>, file: &str, value: &str) -> Result<(), Errno> {
    rustix::io::write(open_to_write(directory, file)?, value.as_bytes()).map(drop)
}

/// Opening with O_TRUNC or O_CREAT would say the same of a file that is not there.
fn open_to_write(directory: BorrowedFd<'_>, file: &str) -> Result<OwnedFd, Errno> {
    openat2(directory, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), BENEATH)
}

pub(super) fn read(directory: BorrowedFd<'_>, file: &str) -> Result<String, Errno> {
    let file = openat2(directory, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), BENEATH)?;
    let mut text = String::new();
    std::fs::File::from(file)
        .take(SMALL_FILE_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(text)
}

fn call(call: &'static str, path: &Path, errno: Errno) -> CgroupError {
    CgroupError::Call { call, path: path.to_owned(), source: errno.into() }
}
