//! Write-ahead undo: what a crash would leave on the host, written down before it exists.
//!
//! A journal is a file of lines. The first carries the boot id; each further one is an [`UndoStep`] as
//! a JSON object, appended before the step that it undoes is done. A line without its newline was cut
//! by a crash *before* its step began, so it is ignored. Between them may stand *notes*: what its owner
//! wants to know again later (for a container: which process is its first).
//!
//! [`Journal::undo_all`] works backwards and is idempotent: "already gone" is success, so a replay that
//! is itself killed is simply replayed again. Only when all of it succeeded is the file removed.
//!
//! Lines are not synced to disk: mounts, namespaces and control groups end with the kernel that knows
//! them. What outlives a boot (directories) is found again because the file system orders the
//! journal's creation before the directory's, or both are lost together. After a reboot control group
//! lines are skipped: a group of that path would belong to somebody else.

mod remove_tree;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cgroup;
use crate::limits::SMALL_FILE_BYTES;

pub use remove_tree::{RemoveTreeError, remove_tree};

/// How one change of the host is taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "undo", rename_all = "kebab-case")]
pub enum UndoStep {
    /// Kill whatever is in the control group and its descendants, then remove them.
    RemoveCgroup {
        /// The group's directory, in a cgroup file system.
        path: PathBuf,
        /// Its inode, which no other group of this hierarchy has had since boot: one of the same name is
        /// somebody else's.
        inode: u64,
    },
    /// Remove a control group if nothing is in it: one above a container's, which others may have come to share.
    RemoveEmptyCgroup {
        /// The group's directory, in a cgroup file system.
        path: PathBuf,
        /// Its inode; `None` if it was about to be made.
        inode: Option<u64>,
    },
    /// Remove a directory (or a single file) without following links or leaving its file system.
    RemoveTree {
        /// Where it is.
        path: PathBuf,
    },
}

/// A journal could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be opened, read or appended to.
    #[error("{call} the journal {}", path.display())]
    File {
        /// What was tried: "create", "read", "append to", "remove".
        call: &'static str,
        /// The journal.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The boot id, which tells journals of an earlier boot apart, cannot be read.
    #[error("read /proc/sys/kernel/random/boot_id: is /proc mounted?")]
    BootId(#[source] io::Error),
    /// A complete line is not one of ours.
    #[error("read line {line} of the journal {}: it was not written by this program", path.display())]
    Line {
        /// The journal.
        path: PathBuf,
        /// Counted from one.
        line: usize,
        /// What JSON says.
        source: serde_json::Error,
    },
}

/// Something a journal names is still there. The journal is kept, so that undoing can be tried again.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// A control group stays.
    #[error(transparent)]
    Cgroup(#[from] cgroup::RemoveError),
    /// A directory stays.
    #[error(transparent)]
    Tree(#[from] RemoveTreeError),
    /// Everything is gone, but the journal itself cannot be removed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

#[derive(Serialize, Deserialize)]
struct Header {
    boot: String,
}

/// A line after the header.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Undo(UndoStep),
    Note {
        note: Value,
    },
    Instead {
        // Named so that the field must be there: any other line would pass for a `None`.
        #[serde(deserialize_with = "Option::deserialize")]
        instead: Option<UndoStep>,
    },
}

/// What the undo line before it came to.
#[derive(Serialize)]
struct Instead<'a> {
    instead: Option<&'a UndoStep>,
}

#[derive(Serialize)]
struct Note<'a, T> {
    note: &'a T,
}

/// What the complete lines of a journal say.
#[derive(Debug, Default)]
struct Content {
    earlier_boot: bool,
    steps: Vec<UndoStep>,
    note: Option<Value>,
}

impl Content {
    fn amend(&mut self, step: Option<UndoStep>) {
        self.steps.pop();
        self.steps.extend(step);
    }
}

/// An open journal, and the steps that it holds so far.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    content: Content,
}

impl Journal {
    /// Starts a journal at `path`, which must not exist.
    ///
    /// # Errors
    ///
    /// The file exists or cannot be written, or the boot id cannot be read.
    pub fn create(path: &Path) -> Result<Journal, JournalError> {
        let boot = current_boot()?;
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| JournalError::File { call: "create", path: path.to_owned(), source })?;
        let mut journal = Journal { path: path.to_owned(), file, content: Content::default() };
        journal.append(&Header { boot })?;
        Ok(journal)
    }

    /// Opens the journal that a process, perhaps killed, left at `path`.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a complete line in it is not ours.
    pub fn open(path: &Path) -> Result<Journal, JournalError> {
        let failed = |source| JournalError::File { call: "read", path: path.to_owned(), source };
        let file = OpenOptions::new().read(true).append(true).open(path).map_err(failed)?;
        let mut text = String::new();
        (&file).take(SMALL_FILE_BYTES).read_to_string(&mut text).map_err(failed)?;
        let content = parse(&text, path)?;
        Ok(Journal { path: path.to_owned(), file, content })
    }

    /// Appends `step`. Call this before the change that it undoes.
    ///
    /// # Errors
    ///
    /// The line cannot be written: then the change must not be made.
    pub fn record(&mut self, step: &UndoStep) -> Result<(), JournalError> {
        self.append(step)?;
        self.content.steps.push(step.clone());
        Ok(())
    }

    /// Replaces the last recorded step, once it is known what it came to; `None`: nothing was changed.
    ///
    /// # Errors
    ///
    /// The line cannot be written: the step stays as it was recorded.
    pub fn amend(&mut self, step: Option<&UndoStep>) -> Result<(), JournalError> {
        self.append(&Instead { instead: step })?;
        self.content.amend(step.cloned());
        Ok(())
    }

    /// Appends something to be read again by [`Journal::noted`].
    ///
    /// # Errors
    ///
    /// The line cannot be written.
    pub fn note(&mut self, note: &impl Serialize) -> Result<(), JournalError> {
        self.append(&Note { note })
    }

    /// The newest note that the file held when it was opened.
    pub fn noted(&self) -> Option<&Value> {
        self.content.note.as_ref()
    }

    /// The journal was written before this boot: what it speaks of has ended.
    pub fn is_of_an_earlier_boot(&self) -> bool {
        self.content.earlier_boot
    }

    /// The steps that were recorded and not yet undone, oldest first.
    pub fn steps(&self) -> &[UndoStep] {
        &self.content.steps
    }

    /// Undoes every step, the newest first, then removes the journal.
    ///
    /// A step that fails does not keep the older ones from being undone.
    ///
    /// # Errors
    ///
    /// The first failure. The journal stays, and calling again tries what failed once more.
    pub fn undo_all(&mut self) -> Result<(), UndoError> {
        self.undo_each(|| ())
    }

    /// [`Journal::undo_all`], which calls `undone` after each step and when the journal is gone.
    ///
    /// # Errors
    ///
    /// As there.
    pub(crate) fn undo_each(&mut self, mut undone: impl FnMut()) -> Result<(), UndoError> {
        let mut first_failure = None;
        let mut kept = Vec::new();
        for step in std::mem::take(&mut self.content.steps).into_iter().rev() {
            if let Err(error) = self.undo(&step) {
                first_failure.get_or_insert(error);
                kept.insert(0, step);
            }
            undone();
        }
        self.content.steps = kept;
        match first_failure {
            Some(error) => Err(error),
            None => {
                self.remove()?;
                undone();
                Ok(())
            }
        }
    }

    fn undo(&self, step: &UndoStep) -> Result<(), UndoError> {
        match step {
            UndoStep::RemoveCgroup { .. } | UndoStep::RemoveEmptyCgroup { .. }
                if self.content.earlier_boot =>
            {
                Ok(())
            }
            UndoStep::RemoveCgroup { path, inode } => Ok(cgroup::remove(path, *inode)?),
            UndoStep::RemoveEmptyCgroup { path, inode } => Ok(cgroup::remove_if_empty(path, *inode)?),
            UndoStep::RemoveTree { path } => Ok(remove_tree(path)?),
        }
    }

    fn append(&mut self, line: &impl Serialize) -> Result<(), JournalError> {
        let failed = |source| JournalError::File { call: "append to", path: self.path.clone(), source };
        let mut text = serde_json::to_string(line).map_err(|error| failed(error.into()))?;
        text.push('\n');
        self.file.write_all(text.as_bytes()).map_err(failed)
    }

    fn remove(&self) -> Result<(), JournalError> {
        match std::fs::remove_file(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(JournalError::File { call: "remove", path: self.path.clone(), source })
            }
            _ => Ok(()),
        }
    }
}

/// Reads complete lines only. An empty journal was cut before its first line, so before any step.
fn parse(text: &str, path: &Path) -> Result<Content, JournalError> {
    let bad = |line: usize, source| JournalError::Line { path: path.to_owned(), line, source };
    let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let Some(first) = lines.next() else { return Ok(Content::default()) };
    let header: Header = serde_json::from_str(first).map_err(|source| bad(1, source))?;
    let mut content = Content { earlier_boot: header.boot != current_boot()?, ..Content::default() };
    for (index, line) in lines.enumerate() {
        match serde_json::from_str(line).map_err(|source| bad(index + 2, source))? {
            Line::Undo(step) => content.steps.push(step),
            Line::Note { note } => content.note = Some(note),
            Line::Instead { instead } => content.amend(instead),
        }
    }
    Ok(content)
}

fn current_boot() -> Result<String, JournalError> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(JournalError::BootId)?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(path: &Path) -> UndoStep {
        UndoStep::RemoveTree { path: path.to_owned() }
    }

    #[test]
    fn a_replay_after_a_crash_removes_what_was_recorded_and_the_journal() {
        let scratch = tempfile::tempdir().unwrap();
        let journal_path = scratch.path().join("journal");
        let (made, never_made) = (scratch.path().join("made"), scratch.path().join("never-made"));
        let mut journal = Journal::create(&journal_path).unwrap();
        journal.record(&tree(&made)).unwrap();
        std::fs::create_dir(&made).unwrap();
        journal.record(&tree(&never_made)).unwrap();
        drop(journal); // The crash.

        let mut replay = Journal::open(&journal_path).unwrap();
        assert_eq!(replay.steps(), [tree(&made), tree(&never_made)]);
        replay.undo_all().unwrap();
        replay.undo_all().unwrap(); // Idempotent.
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_newest_note_is_read_again_and_undoes_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("journal");
        let mut journal = Journal::create(&path).unwrap();
        journal.note(&1).unwrap();
        journal.record(&tree(&scratch.path().join("never-made"))).unwrap();
        journal.note(&"two").unwrap();
        let read = Journal::open(&path).unwrap();
        assert_eq!((read.noted().unwrap().as_str(), read.steps().len()), (Some("two"), 1));
        assert!(!read.is_of_an_earlier_boot());
    }

    #[test]
    fn a_line_cut_by_a_crash_is_ignored_and_a_foreign_line_is_refused() {
        let path = Path::new("/journal");
        let header = format!("{{\"boot\":\"{}\"}}\n", current_boot().unwrap());
        let step = "{\"undo\":\"remove-tree\",\"path\":\"/x\"}";
        let cases = [
            (String::new(), Some(0)),
            (header.trim_end().to_owned(), Some(0)),
            (header.clone(), Some(0)),
            (format!("{header}{step}\n"), Some(1)),
            (format!("{header}{step}\n{step}"), Some(1)),
            (format!("{header}{step}\n{{\"instead\":null}}\n"), Some(0)),
            (format!("{header}{step}\n{{\"instead\":{step}}}\n"), Some(1)),
            (format!("{header}{step}\nrm -rf /\n"), None),
            (format!("{header}{{\"undo\":\"remove-everything\"}}\n"), None),
        ];
        for (text, steps) in cases {
            assert_eq!(parse(&text, path).ok().map(|content| content.steps.len()), steps, "{text:?}");
        }
    }

    #[test]
    fn after_a_reboot_control_groups_are_left_to_their_new_owner() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("journal");
        // The path is no cgroup, so removing it would be refused.
        let group = "{\"undo\":\"remove-cgroup\",\"path\":\"/\",\"inode\":1}";
        std::fs::write(&path, format!("{{\"boot\":\"another\"}}\n{group}\n")).unwrap();
        Journal::open(&path).unwrap().undo_all().unwrap();
    }
}
