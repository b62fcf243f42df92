//! Write-ahead undo: what a crash would leave on the host, written down before it exists.
//!
//! A journal is a file of lines. The first carries the boot id; each further one is an [`UndoStep`] as
//! a JSON object, appended before the step that it undoes is done. A line without its newline was cut
//! by a crash *before* its step began, so it is ignored. Between them may stand *notes*: what its owner
//! wants to know again later (for a container: which process is its first).
//!
//! The journal is text and nothing more: [`crate::undo`] carries out what it says, backwards. A line that
//! this version does not know is kept as it is, and what is known is undone all the same.
//!
//! Lines are not synced to disk: what they name (control groups, profiles) ends with the kernel that knows it. After a
//! reboot they are skipped: a group of that path would belong to somebody else.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, openat};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::limits::{FOREIGN_LINE_BYTES, SMALL_FILE_BYTES};
use crate::open;

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
    /// Take an AppArmor profile from the kernel, once nothing runs in it any more: what does is unconfined from then on.
    UnloadProfile {
        /// Its name, which nobody else has by chance.
        name: String,
        /// Which one of that name; `None` if it was about to be loaded.
        identity: Option<String>,
    },
}

/// A line that says what to undo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// One of ours.
    Step(UndoStep),
    /// Another version's, or damaged: its first [`FOREIGN_LINE_BYTES`].
    Foreign(String),
}

/// A journal could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be opened, read or appended to.
    #[error("{call} the journal {}", path.display())]
    File {
        /// What was tried: "create", "read", "append to".
        call: &'static str,
        /// The journal.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// More than can be read again.
    #[error("keep the journal {}: it would be larger than {SMALL_FILE_BYTES} bytes", path.display())]
    TooLarge {
        /// The journal.
        path: PathBuf,
    },
    /// The boot id, which tells journals of an earlier boot apart, cannot be read.
    #[error("read /proc/sys/kernel/random/boot_id: is /proc mounted?")]
    BootId(#[source] io::Error),
    /// The first line is not one of ours.
    #[error("read the journal {}: it was not written by this program", path.display())]
    Header {
        /// The journal.
        path: PathBuf,
        /// What JSON says.
        source: serde_json::Error,
    },
}

/// Who sees to the undoing of what a journal records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keeper {
    /// The process that writes it, to the container's end: what a dead one leaves is anybody's to undo.
    Monitor,
    /// Whoever says `delete`, once the container is set up.
    #[default]
    Caller,
}

#[derive(Serialize, Deserialize)]
struct Header {
    boot: String,
    #[serde(default)]
    keeper: Keeper,
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

#[derive(Serialize)]
struct Note<'a, T> {
    note: &'a T,
}

/// What the undo line before it came to.
#[derive(Serialize)]
struct Instead<'a> {
    instead: Option<&'a UndoStep>,
}

/// What the complete lines of a journal say.
#[derive(Debug, Default)]
struct Content {
    earlier_boot: bool,
    keeper: Keeper,
    steps: Vec<Recorded>,
    note: Option<Value>,
}

/// An open journal, and the steps that it holds so far.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
    content: Content,
}

/// Its name in its directory.
pub(crate) const NAME: &str = "journal";

impl Journal {
    /// Starts a journal in `directory`, which has none. `place` is that directory's name, for messages.
    ///
    /// # Errors
    ///
    /// The file exists or cannot be written, or the boot id cannot be read.
    pub fn create(directory: BorrowedFd<'_>, place: &Path, keeper: Keeper) -> Result<Journal, JournalError> {
        let boot = current_boot()?;
        let path = place.join(NAME);
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(directory, NAME, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| {
            JournalError::File { call: "create", path: path.clone(), source: errno.into() }
        })?;
        let mut journal =
            Journal { path, file: file.into(), length: 0, content: Content { keeper, ..Content::default() } };
        journal.append(&Header { boot, keeper })?;
        Ok(journal)
    }

    /// Opens the journal that a process, perhaps killed, left in `directory`. `None`: nothing was changed yet.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is not ours.
    pub fn open(directory: BorrowedFd<'_>, place: &Path) -> Result<Option<Journal>, JournalError> {
        let path = place.join(NAME);
        let failed = |source| JournalError::File { call: "read", path: path.clone(), source };
        let file = match open::regular(directory, NAME, OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut text = Vec::new();
        (&file).take(SMALL_FILE_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
        let length = text.len() as u64;
        if length > SMALL_FILE_BYTES {
            return Err(JournalError::TooLarge { path });
        }
        let content = parse(&String::from_utf8_lossy(&text), &path)?;
        Ok(Some(Journal { path, file, length, content }))
    }

    /// Appends `step`. Call this before the change that it undoes.
    ///
    /// # Errors
    ///
    /// The line cannot be written: then the change must not be made.
    pub fn record(&mut self, step: &UndoStep) -> Result<(), JournalError> {
        self.append(step)?;
        self.content.steps.push(Recorded::Step(step.clone()));
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

    /// Who sees to its undoing.
    pub fn keeper(&self) -> Keeper {
        self.content.keeper
    }

    /// What was recorded, oldest first.
    pub fn steps(&self) -> &[Recorded] {
        &self.content.steps
    }

    /// The file's path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn append(&mut self, line: &impl Serialize) -> Result<(), JournalError> {
        let failed = |source| JournalError::File { call: "append to", path: self.path.clone(), source };
        let mut text = serde_json::to_string(line).map_err(|error| failed(error.into()))?;
        text.push('\n');
        self.length += text.len() as u64;
        if self.length > SMALL_FILE_BYTES {
            return Err(JournalError::TooLarge { path: self.path.clone() });
        }
        self.file.write_all(text.as_bytes()).map_err(failed)
    }
}

impl Content {
    fn amend(&mut self, step: Option<UndoStep>) {
        self.steps.pop();
        self.steps.extend(step.map(Recorded::Step));
    }
}

/// Reads complete lines only. An empty journal was cut before its first line, so before any step.
fn parse(text: &str, path: &Path) -> Result<Content, JournalError> {
    let mut lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    let Some(first) = lines.next() else { return Ok(Content::default()) };
    let header: Header = serde_json::from_str(first)
        .map_err(|source| JournalError::Header { path: path.to_owned(), source })?;
    let earlier_boot = header.boot != current_boot()?;
    let mut content = Content { earlier_boot, keeper: header.keeper, ..Content::default() };
    for line in lines {
        match serde_json::from_str(line) {
            Ok(Line::Undo(step)) => content.steps.push(Recorded::Step(step)),
            Ok(Line::Note { note }) => content.note = Some(note),
            Ok(Line::Instead { instead }) => content.amend(instead),
            Err(_) => {
                let end = line.floor_char_boundary(FOREIGN_LINE_BYTES);
                content.steps.push(Recorded::Foreign(line.get(..end).unwrap_or_default().to_owned()));
            }
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
    use std::os::fd::AsFd;

    use super::*;

    fn step(inode: u64) -> UndoStep {
        UndoStep::RemoveCgroup { path: "/x".into(), inode }
    }

    fn check(lines: &str, expected: Option<&[Recorded]>) {
        let header = format!("{{\"boot\":\"{}\"}}\n", current_boot().unwrap());
        let text = lines.replace("HEADER\n", &header);
        let steps = parse(&text, Path::new("/journal")).ok().map(|content| content.steps);
        assert_eq!(steps.as_deref(), expected, "{lines:?}");
    }

    const STEP: &str = "{\"undo\":\"remove-cgroup\",\"path\":\"/x\",\"inode\":1}\n";

    #[test]
    fn a_line_cut_by_a_crash_is_ignored() {
        check("", Some(&[]));
        check("HEAD", Some(&[]));
        check("HEADER\n", Some(&[]));
        check(&format!("HEADER\n{STEP}"), Some(&[Recorded::Step(step(1))]));
        check(&format!("HEADER\n{STEP}{}", STEP.trim_end()), Some(&[Recorded::Step(step(1))]));
    }

    #[test]
    fn a_foreign_line_is_kept_and_hides_no_other_but_a_foreign_file_is_refused() {
        for foreign in ["rm -rf /", "{\"undo\":\"unload-nothing\",\"name\":\"x\"}", "{}", "\u{fffd}"] {
            let expected =
                [Recorded::Step(step(1)), Recorded::Foreign(foreign.into()), Recorded::Step(step(1))];
            check(&format!("HEADER\n{STEP}{foreign}\n{STEP}"), Some(&expected));
        }
        let long = "ä".repeat(FOREIGN_LINE_BYTES);
        let kept = "ä".repeat(FOREIGN_LINE_BYTES / 2);
        check(&format!("HEADER\n{long}\n"), Some(&[Recorded::Foreign(kept)]));
        check("rm -rf /\n", None);
    }

    #[test]
    fn a_step_is_what_it_came_to_at_last() {
        check(&format!("HEADER\n{STEP}{{\"instead\":null}}\n"), Some(&[]));
        let instead = STEP.trim_end().replace(":1}", ":2}");
        check(
            &format!("HEADER\n{STEP}{STEP}{{\"instead\":{instead}}}\n"),
            Some(&[Recorded::Step(step(1)), Recorded::Step(step(2))]),
        );
    }

    #[test]
    fn what_was_written_is_read_again_by_whoever_comes_after_a_crash() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = File::open(scratch.path()).unwrap();
        assert!(Journal::open(directory.as_fd(), scratch.path()).unwrap().is_none());
        let mut journal = Journal::create(directory.as_fd(), scratch.path(), Keeper::Caller).unwrap();
        journal.note(&1).unwrap();
        journal.record(&step(1)).unwrap();
        journal.record(&step(2)).unwrap();
        journal.amend(None).unwrap();
        journal.note(&"two").unwrap();
        let read = Journal::open(directory.as_fd(), scratch.path()).unwrap().unwrap();
        assert_eq!(read.noted().unwrap().as_str(), Some("two"), "the newest note");
        assert_eq!(read.steps(), [Recorded::Step(step(1))]);
        assert!(!read.is_of_an_earlier_boot());
    }

    #[test]
    fn nothing_is_written_that_could_not_be_read_again() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = File::open(scratch.path()).unwrap();
        let mut journal = Journal::create(directory.as_fd(), scratch.path(), Keeper::Caller).unwrap();
        let large = "x".repeat(usize::try_from(SMALL_FILE_BYTES).unwrap());
        assert!(matches!(journal.note(&large), Err(JournalError::TooLarge { .. })));
        assert!(Journal::open(directory.as_fd(), scratch.path()).unwrap().unwrap().noted().is_none());

        std::fs::write(scratch.path().join(NAME), large + "\n").unwrap();
        let read = Journal::open(directory.as_fd(), scratch.path());
        assert!(matches!(read, Err(JournalError::TooLarge { .. })));
    }
}
