//! What is known of a container between two commands: a directory below the state root.
//!
//! ```text
//! <root>/<id>/            locked (flock) by whoever changes the container: the monitor of `run` for as long as it
//!                         lives. Who locks it while it is empty has the claim on the id
//!     config.json         the bundle's, as it was when the container was made: what is changed there later has no effect
//!     journal             how the host's changes are undone; once PID 1 exists, a note says which it is, and once more
//!                         when it is set up
//!     start.sock          only between `create` and `start`: PID 1 listens on it
//! ```
//!
//! Whether a container runs is never stored: it is asked of PID 1, which is named by its number *and* its
//! start time, and from then on by a pidfd.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FlockOperation, Mode, OFlags, flock, fstat, openat, statat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::id::{ContainerId, ContainerIdError};
use crate::journal::{self, Journal, JournalError, Keeper};
use crate::limits::SMALL_FILE_BYTES;
use crate::open;
use crate::spec::{self, LoadError, Spec};

/// The version of the OCI runtime specification that `state` answers by.
pub const OCI_VERSION: &str = "1.2.0";

const START_SOCKET: &str = "start.sock";

/// A container's directory, open.
#[derive(Debug)]
pub struct ContainerDirectory {
    id: ContainerId,
    path: PathBuf,
    /// Holds the lock; `None` in PID 1's copy of this value.
    directory: Option<OwnedFd>,
}

/// The note in a container's journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The container's id.
    pub id: String,
    /// PID 1's number on the host.
    pub pid: i32,
    /// PID 1's start time, in clock ticks since boot: field 22 of `/proc/<pid>/stat`.
    pub start_time: u64,
    /// The inode of its pidfd: since Linux 6.9 no two processes of a boot have the same. A clock tick is
    /// long enough for a number to come round again.
    pub pidfd_inode: u64,
    /// The bundle's absolute path.
    pub bundle: PathBuf,
    /// Seconds since 1970.
    pub created: u64,
    /// Its set-up is complete: the state is written down again then.
    pub is_set_up: bool,
    /// `annotations` of the Spec. They may be large, so they are not written down again: they are in the Spec that
    /// is kept ([`ContainerDirectory::spec`]).
    #[serde(skip)]
    pub annotations: BTreeMap<String, String>,
}

/// The OCI runtime specification's status of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being set up, or what a crash while setting up left.
    Creating,
    /// Set up, its command not started.
    Created,
    /// Its command runs.
    Running,
    /// PID 1 has ended.
    Stopped,
}

/// A container, as far as the host knows it now.
#[derive(Debug)]
pub struct Known {
    /// What was written down; `None` while it is being set up.
    pub state: Option<State>,
    /// Its status.
    pub status: Status,
    /// PID 1, if it lives.
    pub init: Option<OwnedFd>,
}

/// A container's state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The id is taken.
    #[error("create container {id}: there is one of that name; `delete {id}` it first")]
    Exists {
        /// The id.
        id: ContainerId,
    },
    /// No such container.
    // The first words are those that containerd looks for.
    #[error("find it: container {id} does not exist below {}; `list` shows those that do", root.display())]
    Missing {
        /// The id.
        id: ContainerId,
        /// The state root.
        root: PathBuf,
    },
    /// Another process of ours holds the lock.
    #[error("change container {id}: its monitor or another command{} is at work on it", of_process(*holder))]
    Busy {
        /// The id.
        id: ContainerId,
        /// That process, if it can be seen from here.
        holder: Option<i32>,
    },
    /// The kernel refused.
    #[error("{call} {}", path.display())]
    Kernel {
        /// What was tried.
        call: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The journal cannot be written or read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The Spec that was kept cannot be read.
    #[error(transparent)]
    Spec(#[from] LoadError),
    /// The journal's note is not a container's.
    #[error("read the state in {}: it was not written by this program", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What JSON says.
        source: serde_json::Error,
    },
}

impl StateError {
    fn kernel(call: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError + use<> {
        let path = path.to_owned();
        move |source| StateError::Kernel { call, path, source }
    }
}

impl ContainerDirectory {
    /// Claims `id` below `root`, which exists, and locks the new directory.
    ///
    /// # Errors
    ///
    /// [`StateError::Exists`] if the id is taken.
    pub fn create(root: &Path, id: &ContainerId) -> Result<ContainerDirectory, StateError> {
        let path = root.join(id.as_str());
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(StateError::kernel("make the directory", &path)(source));
            }
            // Whoever was killed between making it and its journal has left an empty one: it is as good as new.
            _ => {}
        }
        let directory = ContainerDirectory::open(root, id)?;
        let locked = directory.lock();
        match locked {
            Ok(()) if directory.is_empty()? => Ok(directory),
            Ok(()) | Err(StateError::Busy { .. }) => Err(StateError::Exists { id: id.clone() }),
            Err(error) => Err(error),
        }
    }

    /// [`ContainerDirectory::create`], which makes `root` if it is missing.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn create_with_root(root: &Path, id: &ContainerId) -> Result<ContainerDirectory, StateError> {
        if !root.exists() {
            let made = DirBuilder::new().mode(0o700).recursive(true).create(root);
            made.map_err(StateError::kernel("make the directory", root))?;
        }
        ContainerDirectory::create(root, id)
    }

    /// Opens the directory of a container that exists.
    ///
    /// # Errors
    ///
    /// [`StateError::Missing`] if it does not.
    pub fn open(root: &Path, id: &ContainerId) -> Result<ContainerDirectory, StateError> {
        let path = root.join(id.as_str());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(CWD, &path, flags, Mode::empty()) {
            Ok(directory) => Ok(ContainerDirectory { id: id.clone(), path, directory: Some(directory) }),
            Err(Errno::NOENT) => Err(StateError::Missing { id: id.clone(), root: root.to_owned() }),
            Err(errno) => Err(StateError::kernel("open", &path)(errno.into())),
        }
    }

    /// Locks the container until this value is dropped. Never waits.
    ///
    /// # Errors
    ///
    /// [`StateError::Busy`] if somebody else holds the lock; [`StateError::Missing`] if the container was removed
    /// since it was opened. Another one of its id is not touched.
    pub fn lock(&self) -> Result<(), StateError> {
        let directory = self.descriptor()?;
        match flock(directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if self.is_at_its_path()? => Ok(()),
            Ok(()) => Err(self.missing()),
            Err(Errno::AGAIN) => Err(StateError::Busy { id: self.id.clone(), holder: holder(directory) }),
            Err(errno) => Err(StateError::kernel("lock", &self.path)(errno.into())),
        }
    }

    fn is_empty(&self) -> Result<bool, StateError> {
        let failed = |errno: Errno| StateError::kernel("read", &self.path)(errno.into());
        for entry in Dir::read_from(self.descriptor()?).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name() != c"." && entry.file_name() != c".." {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn is_at_its_path(&self) -> Result<bool, StateError> {
        let failed = |errno: Errno| StateError::kernel("stat", &self.path)(errno.into());
        let own = fstat(self.descriptor()?).map_err(failed)?;
        match statat(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok((found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(failed(errno)),
        }
    }

    fn missing(&self) -> StateError {
        let root = self.path.parent().unwrap_or(Path::new("/")).to_owned();
        StateError::Missing { id: self.id.clone(), root }
    }

    /// Closes this process's copy of the descriptor. In PID 1 after the fork: otherwise it would hold the
    /// lock for its monitor, even a dead one.
    pub fn forget_lock(&mut self) {
        self.directory = None;
    }

    /// The container's id.
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// Starts the container's journal: from here on every change of the host is written down before it is made.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn begin_journal(&self, keeper: Keeper) -> Result<Journal, StateError> {
        Ok(Journal::create(self.descriptor()?, &self.path, keeper)?)
    }

    /// The container's journal. `None`: nothing was changed yet.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is not ours.
    pub fn journal(&self) -> Result<Option<Journal>, StateError> {
        Ok(Journal::open(self.descriptor()?, &self.path)?)
    }

    /// Keeps the text of `config.json` for the commands that come later.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn keep_config(&self, text: &[u8]) -> Result<(), StateError> {
        let failed = |error| StateError::kernel("write", &self.path.join(spec::CONFIG))(error);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(self.descriptor()?, spec::CONFIG, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| failed(errno.into()))?;
        File::from(file).write_all(text).map_err(failed)
    }

    /// The Spec that the container was made from.
    ///
    /// # Errors
    ///
    /// It was not kept, because the container was never set up, or cannot be read.
    pub fn spec(&self) -> Result<Spec, StateError> {
        let path = self.path.join(spec::CONFIG);
        let file = open::regular(self.descriptor()?, spec::CONFIG, OFlags::RDONLY | OFlags::NOFOLLOW)
            .map_err(StateError::kernel("open", &path))?;
        Ok(spec::load_text(spec::read_text(file, &path)?, &path)?.spec)
    }

    /// A path of the socket on which a created container waits for `start`. It leads through our descriptor: what is
    /// at the directory's own path may be the next container's, and a socket's address holds 108 bytes only.
    ///
    /// # Errors
    ///
    /// The lock was forgotten.
    pub fn start_socket(&self) -> Result<PathBuf, StateError> {
        let number = self.descriptor()?.as_raw_fd();
        Ok(Path::new("/proc/self/fd").join(number.to_string()).join(START_SOCKET))
    }

    fn descriptor(&self) -> Result<BorrowedFd<'_>, StateError> {
        let forgotten = || StateError::kernel("use", &self.path)(Errno::BADF.into());
        self.directory.as_ref().map(OwnedFd::as_fd).ok_or_else(forgotten)
    }

    /// What is known of the container now.
    ///
    /// # Errors
    ///
    /// The journal cannot be read or is not ours.
    pub fn look(&self) -> Result<Known, StateError> {
        let creating = Known { state: None, status: Status::Creating, init: None };
        let Some(journal) = self.journal()? else { return Ok(creating) };
        let Some(note) = journal.noted() else { return Ok(creating) };
        let path = || journal.path().to_owned();
        let state =
            State::deserialize(note).map_err(|source| StateError::Malformed { path: path(), source })?;
        let init = if journal.is_of_an_earlier_boot() {
            None
        } else {
            living(&state).map_err(StateError::kernel("look for the first process of", &self.path))?
        };
        let status = match &init {
            None => Status::Stopped,
            Some(_) if !state.is_set_up => Status::Creating,
            Some(_) if self.start_socket()?.exists() => Status::Created,
            Some(_) => Status::Running,
        };
        Ok(Known { state: Some(state), status, init })
    }

    /// Removes the directory, which is locked, and with it the claim on the id.
    ///
    /// # Errors
    ///
    /// It cannot be removed, because there is something in it that is not ours.
    pub fn remove(self) -> Result<(), StateError> {
        for name in [START_SOCKET, spec::CONFIG, journal::NAME] {
            match unlinkat(self.descriptor()?, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(StateError::kernel("remove", &self.path.join(name))(errno.into())),
            }
        }
        // Who holds the lock is the only one to remove it, so that the path still leads to it.
        std::fs::remove_dir(&self.path).map_err(StateError::kernel("remove", &self.path))
    }
}

/// All containers below `root`.
///
/// # Errors
///
/// The directory cannot be read. That it does not exist means that there are none.
pub fn list(root: &Path) -> Result<Vec<ContainerId>, StateError> {
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(StateError::kernel("read", root)(source)),
    };
    let mut ids = Vec::new();
    for entry in entries {
        let name = entry.map_err(StateError::kernel("read", root))?.file_name();
        // What has no container's name is not ours.
        let id: Result<ContainerId, ContainerIdError> = ContainerId::new(&name.to_string_lossy());
        ids.extend(id.ok());
    }
    ids.sort();
    Ok(ids)
}

impl State {
    /// The state of a container whose PID 1 is `init`: its number and its pidfd. It is a child of this process that is
    /// not yet reaped.
    ///
    /// # Errors
    ///
    /// `/proc` does not know the process.
    pub fn new(
        id: &ContainerId,
        init: (i32, BorrowedFd<'_>),
        bundle: &Path,
        spec: &Spec,
    ) -> io::Result<State> {
        let (pid, pidfd) = init;
        let (start_time, _) = stat(pid)?;
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Ok(State {
            id: id.to_string(),
            pid,
            start_time,
            pidfd_inode: fstat(pidfd)?.st_ino,
            bundle: bundle.to_owned(),
            created: since_1970.map_or(0, |duration| duration.as_secs()),
            is_set_up: false,
            annotations: spec.annotations.clone(),
        })
    }

    /// The JSON that `state` prints and that hooks read. Source: OCI runtime specification, runtime.md,
    /// "State".
    pub fn to_oci(&self, status: Status) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct OciState<'a> {
            oci_version: &'a str,
            id: &'a str,
            status: Status,
            #[serde(skip_serializing_if = "Option::is_none")]
            pid: Option<i32>,
            bundle: &'a Path,
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            annotations: &'a BTreeMap<String, String>,
        }
        let state = OciState {
            oci_version: OCI_VERSION,
            id: &self.id,
            status,
            pid: (status != Status::Stopped).then_some(self.pid),
            bundle: &self.bundle,
            annotations: &self.annotations,
        };
        // Strings, numbers and paths that came from JSON: they go back into it.
        serde_json::to_string_pretty(&state).unwrap_or_default()
    }
}

/// Who has locked a directory, by the kernel's own list. Source: proc_locks(5).
fn holder(directory: BorrowedFd<'_>) -> Option<i32> {
    let status = fstat(directory).ok()?;
    let (major, minor) = (rustix::fs::major(status.st_dev), rustix::fs::minor(status.st_dev));
    let place = format!("{major:02x}:{minor:02x}:{}", status.st_ino);
    let mut list = String::new();
    File::open("/proc/locks").ok()?.take(SMALL_FILE_BYTES).read_to_string(&mut list).ok()?;
    // "1: FLOCK  ADVISORY  WRITE 4711 fe:01:12345 0 EOF"; who waits has an arrow after the number.
    list.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let is_lock = fields.next() == Some("FLOCK");
        let pid = fields.nth(2)?;
        (is_lock && fields.next() == Some(&place)).then(|| pid.parse().ok())?
    })
}

fn of_process(holder: Option<i32>) -> String {
    holder.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

/// The process that the state was written for, unless it has ended. That it cannot be looked at is no end.
fn living(state: &State) -> io::Result<Option<OwnedFd>> {
    let Some(pidfd) = unless_gone(open_pidfd(state.pid))? else { return Ok(None) };
    // Looked at after the pidfd was opened: if it is still the one, the pidfd is of it.
    let Some((start_time, is_zombie)) = unless_gone(stat(state.pid))? else { return Ok(None) };
    let same = start_time == state.start_time && fstat(&pidfd)?.st_ino == state.pidfd_inode;
    Ok((same && !is_zombie).then_some(pidfd))
}

/// `None` if the process, or its directory in procfs, is not there.
fn unless_gone<T>(looked: io::Result<T>) -> io::Result<Option<T>> {
    match looked {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

fn open_pidfd(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Start time, and whether the process has ended and not been reaped. Source: proc_pid_stat(5).
fn stat(pid: i32) -> io::Result<(u64, bool)> {
    let mut text = String::with_capacity(1 << 10);
    File::open(format!("/proc/{pid}/stat"))?.take(SMALL_FILE_BYTES).read_to_string(&mut text)?;
    // The second field is the program's name, in parentheses, and may hold anything.
    let (_, fields) = text.rsplit_once(") ").ok_or(io::ErrorKind::InvalidData)?;
    let mut fields = fields.split(' ');
    let is_zombie = matches!(fields.next(), Some("Z" | "X"));
    let start_time = fields.nth(18).and_then(|field| field.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok((start_time, is_zombie))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_claimed_once_and_free_again_after_removal() {
        let root = tempfile::tempdir().unwrap();
        let id = ContainerId::new("a").unwrap();
        let held = ContainerDirectory::create(root.path(), &id).unwrap();
        assert!(matches!(ContainerDirectory::create(root.path(), &id), Err(StateError::Exists { .. })));
        let other = ContainerDirectory::open(root.path(), &id).unwrap();
        assert!(matches!(other.lock(), Err(StateError::Busy { .. })));
        assert_eq!(other.look().unwrap().status, Status::Creating);
        held.remove().unwrap();
        assert!(matches!(ContainerDirectory::open(root.path(), &id), Err(StateError::Missing { .. })));
    }

    #[test]
    fn a_lock_is_never_had_on_a_later_container_of_the_same_id() {
        let root = tempfile::tempdir().unwrap();
        let id = ContainerId::new("a").unwrap();
        let first = ContainerDirectory::create(root.path(), &id).unwrap();
        let opened = ContainerDirectory::open(root.path(), &id).unwrap();
        let refused = opened.lock().unwrap_err().to_string();
        assert!(refused.contains(&format!("(process {})", std::process::id())), "{refused}");
        first.remove().unwrap();
        assert!(matches!(opened.lock(), Err(StateError::Missing { .. })));
        let second = ContainerDirectory::create(root.path(), &id).unwrap();
        drop(second);
        assert!(matches!(opened.lock(), Err(StateError::Missing { .. })));
    }

    #[test]
    fn an_id_whose_claim_was_cut_short_by_a_crash_can_be_used_and_one_with_anything_in_it_cannot() {
        let root = tempfile::tempdir().unwrap();
        let id = ContainerId::new("a").unwrap();
        std::fs::create_dir(root.path().join("a")).unwrap();
        ContainerDirectory::create(root.path(), &id).unwrap().begin_journal(Keeper::Caller).unwrap();
        assert!(matches!(ContainerDirectory::create(root.path(), &id), Err(StateError::Exists { .. })));
    }

    #[test]
    fn a_process_of_the_same_number_but_another_start_is_not_ours() {
        let id = ContainerId::new("a").unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let pidfd = open_pidfd(own).unwrap();
        let state = State::new(&id, (own, pidfd.as_fd()), Path::new("/bundle"), &Spec::default()).unwrap();
        assert!(living(&state).unwrap().is_some());
        for stranger in [
            State { start_time: state.start_time + 1, ..state.clone() },
            State { pidfd_inode: state.pidfd_inode + 1, ..state.clone() },
            State { pid: i32::MAX, ..state },
        ] {
            assert!(living(&stranger).unwrap().is_none(), "{stranger:?}");
        }
    }
}
