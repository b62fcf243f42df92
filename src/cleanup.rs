//! Undoing what a worker that is gone has left behind.
//!
//! What a live worker holds is told apart by the lock that its process keeps, so a clean-up is safe
//! beside running tasks; and it may be repeated, or interrupted and begun again.

use std::path::{Path, PathBuf};

use crate::cache::{CacheError, Caches};
use crate::claim_file::{self, ClaimFile, ClaimFileError, HeldRun};
use crate::directories::Directories;
use crate::net::tables::TablesError;
use crate::parent_group::{self, ParentGroupError};
use crate::run_directory::{self, Dead, RunDirectoryError, Sweep};
use crate::text::chain;
use crate::timestamp::Timestamp;

/// Why not everything could be undone.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// The places of containers cannot be looked through.
    #[error(transparent)]
    Directories(#[from] RunDirectoryError),
    /// The tables of the tasks' network are still there.
    #[error(transparent)]
    Network(#[from] TablesError),
    /// The control group above the tasks' own is still there.
    #[error(transparent)]
    ParentGroup(#[from] ParentGroupError),
    /// The caches cannot be looked through.
    #[error(transparent)]
    Caches(#[from] CacheError),
}

/// What becomes of runs that nobody has resolved and whose claims still hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claims {
    /// They wait for the next start of their worker, which tells the queue.
    Keep,
    /// They go as well. The queue notices when their claims are over.
    Forget,
}

/// What a clean-up has done.
#[derive(Debug)]
pub struct Cleaned {
    /// To the runs of workers that are gone.
    pub sweep: Sweep,
    /// What nobody has resolved, if it is kept.
    pub unfinished: Vec<Unfinished>,
    /// About claims that are lost, a sentence each.
    pub notes: Vec<String>,
}

/// A run that a worker has left unresolved. What of it could not be ended is named in [`Sweep::failed`], and may still
/// run. As long as the value lives, nobody else takes it up.
#[derive(Debug)]
pub struct Unfinished {
    /// What it is.
    pub held: HeldRun,
    /// Where that stands.
    pub file: ClaimFile,
    /// Its directories, if it came to have any.
    dead: Option<Dead>,
}

impl Unfinished {
    /// A directory of the run's on the data directory's file system, and in it the log, if it came to have one.
    #[must_use]
    pub fn log(&self) -> Option<(&Path, PathBuf)> {
        let dead = self.dead.as_ref()?;
        let log = dead.log();
        log.is_file().then_some((dead.data(), log))
    }

    /// Removes all that is left of it. Blocks.
    ///
    /// # Errors
    ///
    /// When something resists: a sentence that follows "failed to".
    pub fn remove(self) -> Result<(), String> {
        let removed = self.dead.as_ref().map_or(Ok(()), Dead::remove).map_err(|error| chain(&error));
        removed.and(self.file.remove().map_err(|error| chain(&error)))
    }
}

/// Removes everything that is left of tasks whose worker is gone. Blocks.
///
/// # Errors
///
/// [`CleanupError`] when a place cannot be looked through at all; what resists is in the [`Sweep`].
pub fn clean_up(directories: &Directories, claims: Claims) -> Result<Cleaned, CleanupError> {
    let found = claim_file::find(directories);
    let now = Timestamp::now();
    let is_kept = |held: &HeldRun| claims == Claims::Keep && held.taken_until > now;
    let is_wanted = |id: &str| found.runs.iter().any(|held| held.container_id == id && is_kept(held));
    let mut sweep = run_directory::sweep(directories, &is_wanted)?;
    crate::net::sweep(&directories.run)?;
    parent_group::remove()?;
    // Whatever resisted may still write to its caches, and whatever has begun since.
    let is_undone = |id: &String| {
        let resists = sweep.failed.iter().any(|(failed, _)| failed == id);
        !resists && (sweep.removed.contains(id) || sweep.kept.iter().any(|dead| dead.id() == id))
    };
    let there = || {
        let there = run_directory::containers_there(directories)?;
        Ok::<_, CleanupError>(there.into_iter().filter(|id| !is_undone(id)).collect())
    };
    let foreign = Caches::open(&directories.caches())?.sweep(there)?;
    sweep.foreign.extend(foreign);
    let mut cleaned = Cleaned { sweep, unfinished: Vec::new(), notes: found.notes };
    for held in found.runs {
        let is_kept = is_kept(&held);
        if let Err(error) = cleaned.sort(held, is_kept, directories) {
            cleaned.notes.push(format!("failed to {}", chain(&error)));
        }
    }
    Ok(cleaned)
}

impl Cleaned {
    /// A live worker's claim is its own; of the others those that hold are kept.
    fn sort(
        &mut self,
        held: HeldRun,
        is_kept: bool,
        directories: &Directories,
    ) -> Result<(), ClaimFileError> {
        let Sweep { alive, kept, .. } = &mut self.sweep;
        let file = held.file(directories);
        // A run that ended since the files were read has taken its own away. One that began meanwhile is alive: its
        // directories were there before anybody could look for them.
        if alive.contains(&held.container_id) || !file.is_there()? {
            return Ok(());
        }
        let dead = kept.iter().position(|dead| dead.id() == held.container_id).map(|at| kept.swap_remove(at));
        if is_kept {
            self.unfinished.push(Unfinished { held, file, dead });
            return Ok(());
        }
        file.remove()?;
        self.notes
            .push(format!("nobody has resolved {}: the queue does so when its claim is over", held.run));
        Ok(())
    }
}
