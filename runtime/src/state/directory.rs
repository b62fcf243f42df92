//! A container's directory below the state root: claimed, locked, read and removed.

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FlockOperation, Mode, OFlags, flock, openat, unlinkat};
use rustix::io::Errno;
use serde::Deserialize;

use super::{Known, State, Status, living, living_command};
use crate::cgroup::FreezeError;
use crate::id::{ContainerId, ContainerIdError};
use crate::journal::{self, Journal, JournalError, Keeper};
use crate::spec::{self, LoadError, Spec};
use crate::{groups, lock, open};

const START_SOCKET: &str = "start.sock";

/// A container's directory, open.
#[derive(Debug)]
pub struct ContainerDirectory {
    id: ContainerId,
    path: PathBuf,
    /// Holds the lock; `None` in PID 1's copy of this value.
    directory: Option<OwnedFd>,
}

/// A container's state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The id is taken.
    #[error("create container {id}: there is one of that name; `delete {id}` it first")]
    Exists { id: ContainerId },
    /// No such container.
    // The first words are those that containerd looks for.
    #[error("find it: container {id} does not exist below {}; `list` shows those that do", root.display())]
    Missing { id: ContainerId, root: PathBuf },
    /// Another process of ours holds the lock.
    #[error("change container {id}: its monitor or another command{} is at work on it", of_process(*holder))]
    Busy {
        id: ContainerId,
        /// That process, if it can be seen from here.
        holder: Option<i32>,
    },
    /// The kernel refused.
    #[error("{call} {}", path.display())]
    Kernel { call: &'static str, path: PathBuf, source: io::Error },
    /// The journal cannot be written or read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The Spec that was kept cannot be read.
    #[error(transparent)]
    Spec(#[from] LoadError),
    /// Nobody can say whether it stands still.
    #[error(transparent)]
    Freezer(FreezeError),
    /// The journal's note is not a container's.
    #[error("read the state in {}: it was not written by this program", path.display())]
    Malformed { path: PathBuf, source: serde_json::Error },
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
            Err(Errno::AGAIN) => {
                Err(StateError::Busy { id: self.id.clone(), holder: lock::holder(directory) })
            }
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
        lock::is_at(&self.path, self.descriptor()?).map_err(StateError::kernel("stat", &self.path))
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
    /// [`StateError::Missing`] if it is not there: it is the first that goes with the container. It cannot be read.
    pub fn spec(&self) -> Result<Spec, StateError> {
        let path = self.path.join(spec::CONFIG);
        let opened = open::regular(self.descriptor()?, spec::CONFIG, OFlags::RDONLY | OFlags::NOFOLLOW);
        let file = opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => self.missing(),
            _ => StateError::kernel("open", &path)(error),
        })?;
        Ok(spec::load_text(spec::read_text(file, &path)?, &path)?.spec)
    }

    /// A path of the socket on which a created container waits for `start`. It leads through our descriptor: what is
    /// at the directory's own path may be the next container's, and a socket's address holds 108 bytes only.
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
    /// The journal cannot be read or is not ours; [`StateError::Missing`] if the container went since it was opened.
    pub fn look(&self) -> Result<Known, StateError> {
        let creating = Known { state: None, status: Status::Creating, init: None, command: None };
        let Some(journal) = self.journal()? else {
            return if self.is_at_its_path()? { Ok(creating) } else { Err(self.missing()) };
        };
        let Some(note) = journal.noted() else { return Ok(creating) };
        let path = || journal.path().to_owned();
        let mut state =
            State::deserialize(note).map_err(|source| StateError::Malformed { path: path(), source })?;
        let init = if journal.is_of_an_earlier_boot() {
            None
        } else {
            living(&state).map_err(StateError::kernel("look for the first process of", &self.path))?
        };
        let command = match &init {
            Some(_) => living_command(&mut state)
                .map_err(StateError::kernel("look for the command of", &self.path))?,
            None => None,
        };
        let status = match &init {
            None => Status::Stopped,
            Some(_) if !state.is_set_up => Status::Creating,
            Some(_) if self.start_socket()?.exists() => Status::Created,
            Some(_) if groups::is_paused(&journal).map_err(StateError::Freezer)? => Status::Paused,
            Some(_) => Status::Running,
        };
        Ok(Known { state: Some(state), status, init, command })
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

fn of_process(holder: Option<i32>) -> String {
    holder.map(|pid| format!(" (process {pid})")).unwrap_or_default()
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
}
