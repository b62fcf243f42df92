//! What a worker that was killed leaves for its successor to resolve its runs with: `<run>/claims/<task id>`.
//!
//! Written before anything else of a run happens, anew with each reclaim, gone with the resolution. There are credentials
//! in it, of that one run: nobody else may read it, and where `<run>` is in memory, as usual, a reboot forgets it.

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize, Serializer};

use crate::directories::Directories;
use crate::file_lock::{self, Hold, LockError, Patience};
use crate::queue::artifact_name::ArtifactName;
use crate::queue::task_id::TaskId;
use crate::queue::{Credentials, RunId, WorkerIdentity};
use crate::timestamp::Timestamp;

/// Largest claim file in bytes; a certificate has some thousand.
const FILE_BYTES: u64 = 1 << 20;

/// What a claim takes, as a rule at most.
const USUAL_BYTES: usize = 16 << 10;

/// Follows a file's name while it is written.
const BESIDE: &str = ".new";

/// How long others may look at the files, or write one.
const PATIENCE: Duration = Duration::from_secs(10);

/// A run that a worker has, as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldRun {
    /// Where it was claimed.
    pub root_url: String,
    /// By whom.
    #[serde(flatten)]
    pub worker: WorkerIdentity,
    /// What was claimed.
    #[serde(flatten)]
    pub run: RunId,
    /// Until when the claim holds.
    pub taken_until: Timestamp,
    /// When the task may be forgotten, and its logs with it.
    pub expires: Timestamp,
    /// When it began.
    pub began: Timestamp,
    /// The name of the run's directories.
    pub container_id: String,
    /// What its log is published as.
    pub logs: Logs,
    /// What its calls are signed with.
    #[serde(serialize_with = "reveal")]
    pub credentials: Credentials,
}

/// The names under which a run's log is published when it is over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logs {
    /// The live log's, which leads to the backing log then.
    pub live: Option<ArtifactName>,
    /// Whether there is a bulk log.
    pub bulk: bool,
}

/// One file. Clones are the same one.
#[derive(Clone, Debug)]
pub struct ClaimFile {
    claims: PathBuf,
    run: RunId,
    container_id: String,
}

/// Why there is no claim file, or still one.
#[derive(Debug, thiserror::Error)]
pub enum ClaimFileError {
    /// It cannot be read, written or removed.
    #[error("{call} {}", path.display())]
    Io {
        /// What was tried.
        call: &'static str,
        /// Which file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Somebody else looks at the files, and goes on doing so.
    #[error("lock {}: {lock}", path.display())]
    Locked {
        /// Which directory.
        path: PathBuf,
        /// Who.
        lock: LockError,
    },
}

impl ClaimFileError {
    /// Whether there is nothing of that name.
    fn is_absence(&self) -> bool {
        matches!(self, ClaimFileError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

fn failed(call: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ClaimFileError {
    move |source| ClaimFileError::Io { call, path: path.to_owned(), source }
}

impl HeldRun {
    /// Its file.
    #[must_use]
    pub fn file(&self, directories: &Directories) -> ClaimFile {
        ClaimFile {
            claims: directories.claims(),
            run: self.run.clone(),
            container_id: self.container_id.clone(),
        }
    }

    /// Whether this is the worker that has claimed it.
    #[must_use]
    pub fn is_of(&self, root_url: &str, worker: &WorkerIdentity) -> bool {
        let plain = |url: &str| url.trim_end_matches('/').to_owned();
        plain(&self.root_url) == plain(root_url) && self.worker == *worker
    }
}

impl ClaimFile {
    /// Writes down that a run is this worker's. Blocks.
    ///
    /// # Errors
    ///
    /// [`ClaimFileError`]. The file may be there all the same, where a disk fails at last.
    pub fn create(directories: &Directories, held: &HeldRun) -> Result<ClaimFile, ClaimFileError> {
        let alone = make_and_lock(&directories.claims())?;
        let file = held.file(directories);
        file.write(held, &alone)?;
        Ok(file)
    }

    /// Writes down until when the claim holds, and with which credentials. Nothing if the task's next run has taken the
    /// file's place. Blocks.
    ///
    /// # Errors
    ///
    /// [`ClaimFileError`].
    pub fn renew(&self, taken_until: Timestamp, credentials: Credentials) -> Result<(), ClaimFileError> {
        let alone = lock(&self.claims)?;
        match self.read()? {
            Some(held) => self.write(&HeldRun { taken_until, credentials, ..held }, &alone),
            None => Ok(()),
        }
    }

    /// Removes the file if it is there, unless the task's next run has taken its place. Blocks.
    ///
    /// # Errors
    ///
    /// [`ClaimFileError`].
    pub fn remove(&self) -> Result<(), ClaimFileError> {
        let _alone = match lock(&self.claims) {
            Err(error) if error.is_absence() => return Ok(()),
            locked => locked?,
        };
        let path = self.path();
        match self.read()? {
            Some(_) => std::fs::remove_file(&path).map_err(failed("remove", &path)),
            None => Ok(()),
        }
    }

    /// Whether it is there, and this run's. Blocks.
    ///
    /// # Errors
    ///
    /// [`ClaimFileError`].
    pub fn is_there(&self) -> Result<bool, ClaimFileError> {
        let _alone = lock(&self.claims)?;
        Ok(self.read()?.is_some())
    }

    fn path(&self) -> PathBuf {
        self.claims.join(self.run.task_id.as_str())
    }

    /// What stands there, if that is this run's.
    fn read(&self) -> Result<Option<HeldRun>, ClaimFileError> {
        let path = self.path();
        match read(&path) {
            Ok(held) => {
                Ok(Some(held).filter(|it| it.run == self.run && it.container_id == self.container_id))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    /// Beside its place first, so that it is whole or absent, and on the disk, if that is where it lies.
    fn write(&self, held: &HeldRun, claims: &File) -> Result<(), ClaimFileError> {
        let (path, beside) = (self.path(), beside(&self.claims, &self.run.task_id));
        let write = || {
            write_down(&beside, &serde_json::to_vec(held)?)?;
            std::fs::rename(&beside, &path)?;
            claims.sync_data()
        };
        write().map_err(failed("write", &path))
    }
}

/// Whether a claim could be written down now: writes a file that is none, as one that a crash has cut short, of a claim's
/// size, and removes it. Blocks.
///
/// # Errors
///
/// [`ClaimFileError`].
pub fn rehearse(directories: &Directories) -> Result<(), ClaimFileError> {
    let claims = directories.claims();
    let _alone = make_and_lock(&claims)?;
    let task_id = TaskId::random().map_err(failed("name a file in", &claims))?;
    let path = beside(&claims, &task_id);
    let written = write_down(&path, &[0; USUAL_BYTES]).map_err(failed("write", &path));
    let removed = std::fs::remove_file(&path).map_err(failed("remove", &path));
    written.and(removed)
}

/// Where a file is until it is whole.
fn beside(claims: &Path, task_id: &TaskId) -> PathBuf {
    claims.join(format!("{task_id}{BESIDE}"))
}

fn write_down(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_data()
}

fn make_and_lock(claims: &Path) -> Result<File, ClaimFileError> {
    match DirBuilder::new().mode(0o700).create(claims) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed("make the directory", claims)(error));
        }
        Ok(()) | Err(_) => {}
    }
    lock(claims)
}

/// Keeps others from the files as long as the result lives.
fn lock(claims: &Path) -> Result<File, ClaimFileError> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let opened = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(claims);
    let directory = opened.map_err(failed("open", claims))?;
    file_lock::lock(&directory, Hold::Exclusive, Patience::of(PATIENCE))
        .map_err(|lock| ClaimFileError::Locked { path: claims.to_owned(), lock })?;
    Ok(directory)
}

fn read(path: &Path) -> io::Result<HeldRun> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let mut text = Vec::new();
    file.take(FILE_BYTES).read_to_end(&mut text)?;
    // Where the text is wrong, and not what stands there: that may be a secret.
    serde_json::from_slice(&text).map_err(|error| {
        let why = format!("it is no claim (line {}, column {})", error.line(), error.column());
        io::Error::new(io::ErrorKind::InvalidData, why)
    })
}

/// What lies among the claim files.
#[derive(Debug, Default)]
pub struct Found {
    /// The runs of all workers with these directories, those that live included.
    pub runs: Vec<HeldRun>,
    /// Some claim could not be read: there may be more of them.
    pub is_partial: bool,
    /// What is no claim, a sentence each, for the operator.
    pub notes: Vec<String>,
}

/// Reads all claim files. What is no claim is removed where its name is of the worker's making. Blocks.
#[must_use]
pub fn find(directories: &Directories) -> Found {
    let claims = directories.claims();
    let mut found = Found::default();
    if let Err(error) = look(&claims, &mut found)
        && !error.is_absence()
    {
        found.is_partial = true;
        found.notes.push(format!("failed to {}", crate::text::chain(&error)));
    }
    found
}

fn look(claims: &Path, found: &mut Found) -> Result<(), ClaimFileError> {
    let _alone = lock(claims)?;
    for entry in std::fs::read_dir(claims).map_err(failed("list", claims))? {
        let path = entry.map_err(failed("list", claims))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Ok(task_id) = TaskId::parse(name.trim_end_matches(BESIDE)) else {
            found.notes.push(format!("left alone: {}, which docker-worker did not make", path.display()));
            continue;
        };
        match read(&path) {
            // The claim itself lies beside it, or was never there.
            _ if name.ends_with(BESIDE) => found.discard(&path, "removed", "it was not written to its end"),
            Ok(held) if held.run.task_id == task_id => found.runs.push(held),
            Ok(_) => found.discard(&path, "lost the claim in", "it is another task's"),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                found.discard(&path, "lost the claim in", &error.to_string());
            }
            // It may be a worker's that lives.
            Err(error) => {
                found.is_partial = true;
                found.notes.push(format!("failed to read the claim in {}: {error}", path.display()));
            }
        }
    }
    Ok(())
}

impl Found {
    fn discard(&mut self, path: &Path, what: &str, why: &str) {
        let removed = std::fs::remove_file(path);
        let end = removed.err().map(|error| format!("; failed to remove it: {error}")).unwrap_or_default();
        self.notes.push(format!("{what} {}: {why}{end}", path.display()));
    }
}

/// The one place where credentials are written down.
fn reveal<S: Serializer>(credentials: &Credentials, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Revealed<'a> {
        client_id: &'a str,
        access_token: &'a str,
        certificate: Option<&'a str>,
    }
    let Credentials { client_id, access_token, certificate } = credentials;
    Revealed { client_id, access_token, certificate: certificate.as_deref() }.serialize(serializer)
}

#[cfg(test)]
mod tests;
