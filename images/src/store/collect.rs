//! Garbage: what no name and no lease needs, what was not used for long, and under pressure what was used longest ago.
//!
//! Nobody has to stop for it. What is used or being made is held by a lease, and the store's lock is
//! taken for as long as it takes to read the names and to rename what goes; removing comes after.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::digest::Digest;
use crate::scratch::SCRATCH_PREFIX;

use super::catalog::NameRecord;
use super::claim::{Claim, Work};
use super::layout::{self, FRESH, GONE, PARTIAL};
use super::lock::Lock;
use super::{Store, StoreError, lease};

/// How far to go. What nothing refers to, and what killed processes have left, goes in any case.
#[derive(Clone, Copy)]
pub enum GcPolicy<'a> {
    /// No farther.
    Unreferenced,
    /// Names that nobody has used since then. An image that is leased is in use now.
    UnusedSince(SystemTime),
    /// Until there is enough: blobs that nobody fetches any more, then blobs of layers that are there, least recently
    /// used first, and after them names in the same order.
    Until(&'a dyn Fn() -> bool),
    /// Every name whose image is not leased.
    All,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Names, least recently used first.
    pub names: Vec<String>,
    /// Images that had no name left.
    pub images: usize,
    /// Layers that no image had any more.
    pub layers: usize,
    /// Blobs that no name had any more, or that were in the way.
    pub blobs: usize,
}

/// A partial blob that nobody has resumed for so long is dropped.
const PARTIAL_KEPT: Duration = Duration::from_secs(24 * 3600);

impl Store {
    /// Removes garbage. What is leased stays, whoever holds it; so does what is being pulled. May take
    /// as long as removing gigabytes does.
    ///
    /// # Errors
    ///
    /// I/O errors of the store.
    pub fn gc(&self, policy: GcPolicy<'_>) -> Result<Collected, StoreError> {
        self.gc_while(policy, &|| true)
    }

    /// The same as long as it is `wanted`, which is asked before each object and while others are waited for. What it does
    /// not come to is left to the next call.
    ///
    /// # Errors
    ///
    /// As [`Store::gc`].
    pub fn gc_while(&self, policy: GcPolicy<'_>, wanted: &dyn Fn() -> bool) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        self.recover()?;
        self.remove_unreferenced(&mut collected, wanted)?;
        let is_enough: &dyn Fn() -> bool = match policy {
            GcPolicy::Unreferenced => return Ok(collected),
            GcPolicy::UnusedSince(then) => {
                collected.names = self.forget_unused(then, wanted)?;
                if !collected.names.is_empty() {
                    self.remove_unreferenced(&mut collected, wanted)?;
                }
                return Ok(collected);
            }
            GcPolicy::Until(is_enough) => is_enough,
            GcPolicy::All => &|| false,
        };
        self.remove_under_pressure(&mut collected, is_enough, wanted)?;
        Ok(collected)
    }

    /// The names whose images are used now, by whatever process.
    ///
    /// # Errors
    ///
    /// I/O errors of the store.
    pub fn used(&self) -> Result<Vec<String>, StoreError> {
        let layout = self.layout();
        let _alone = layout.lock_exclusive(&|| true)?;
        let held = lease::held(layout)?;
        let used = self.read_names()?.into_iter().map(|(record, _)| record);
        let used = used.filter(|record| held.contains(&layout.image(&record.image)));
        Ok(used.map(|record| record.name).collect())
    }

    fn remove_under_pressure(
        &self,
        collected: &mut Collected,
        is_enough: &dyn Fn() -> bool,
        wanted: &dyn Fn() -> bool,
    ) -> Result<(), StoreError> {
        let is_enough = || !wanted() || is_enough();
        if is_enough() {
            return Ok(());
        }
        for partial in self.partials()? {
            self.remove_partial(&partial)?;
        }
        let mut names = self.read_names()?;
        names.sort_by_key(|(_, used)| *used);
        for (record, _) in &names {
            if is_enough() {
                return Ok(());
            }
            collected.blobs += self.remove_blobs_of(record, wanted)?;
        }
        for (record, _) in names {
            if is_enough() {
                break;
            }
            if self.remove_name(&record, wanted)? {
                collected.names.push(record.name);
                self.remove_unreferenced(collected, wanted)?;
            }
        }
        Ok(())
    }

    /// What a process that was killed has left: leases, half-built objects whose claim is free, objects
    /// that it was removing, and partial blobs that are old or whole by another claim. Run at every start as well.
    pub(super) fn recover(&self) -> Result<(), StoreError> {
        let layout = self.layout();
        lease::remove_dead(layout)?;
        for path in layout::entries(&layout.works())?.into_iter().chain(self.partials()?) {
            if path.extension().is_some_and(|extension| extension == GONE) {
                layout::remove_set_aside(&path)?;
                continue;
            }
            let Some(stem) = path.file_stem().and_then(OsStr::to_str) else { continue };
            if stem.starts_with(SCRATCH_PREFIX) {
                layout::remove_file(&path)?;
                continue;
            }
            let Some(work) = Work::of(&path) else { continue };
            let Some(claim) = Claim::try_take(layout, &work)? else { continue };
            if work.is_done(layout) || is_older(claim.path(), PARTIAL_KEPT) {
                claim.release()?;
            } else {
                claim.leave()?;
            }
        }
        Ok(())
    }

    fn partials(&self) -> Result<Vec<PathBuf>, StoreError> {
        let mut blobs = layout::entries(&self.layout().blobs())?;
        blobs.retain(|path| is_partial(path));
        Ok(blobs)
    }

    /// Removes what an interrupted pull has fetched, unless another one is going on with it.
    fn remove_partial(&self, partial: &Path) -> Result<(), StoreError> {
        let Some(work) = Work::of(partial) else { return Ok(()) };
        Claim::try_take(self.layout(), &work)?.map_or(Ok(()), Claim::release)
    }

    /// Takes back what a pull that was refused has made and fetched of an image's layers, as far as
    /// nobody else needs it. What is not `wanted` any more is left to the next collection.
    pub(super) fn take_back(
        &self,
        made: &[MadeLayer],
        blobs: &[Work],
        wanted: &dyn Fn() -> bool,
    ) -> Result<(), StoreError> {
        let layout = self.layout();
        for blob in blobs {
            self.remove_partial(&layout.partial(blob))?;
        }
        self.remove_all(
            |needed| {
                let mut gone = Vec::new();
                for layer in made {
                    let (directory, blob) = (layout.layer(&layer.diff_id), layout.blob(&layer.blob));
                    gone.extend(layer.fetched.then_some(blob).into_iter().chain([directory]));
                }
                gone.retain(|path| !needed.contains(path));
                Ok(gone)
            },
            wanted,
        )
        .map(drop)
    }

    fn remove_unreferenced(
        &self,
        collected: &mut Collected,
        wanted: &dyn Fn() -> bool,
    ) -> Result<(), StoreError> {
        let layout = self.layout();
        let add = |directory: PathBuf, needed: &HashSet<PathBuf>, gone: &mut Vec<PathBuf>| {
            let before = gone.len();
            let entries = layout::entries(&directory)?.into_iter();
            gone.extend(entries.filter(|path| !is_partial(path) && !needed.contains(path)));
            Ok::<usize, StoreError>(gone.len() - before)
        };
        self.remove_all(
            |needed| {
                let mut gone = Vec::new();
                collected.images += add(layout.images(), needed, &mut gone)?;
                collected.layers += add(layout.layers(), needed, &mut gone)?;
                collected.blobs += add(layout.blobs(), needed, &mut gone)?;
                let is_fresh = |path: &PathBuf| path.extension().is_some_and(|extension| extension == FRESH);
                gone.extend(layout::entries(&layout.names())?.into_iter().filter(is_fresh));
                Ok(gone)
            },
            wanted,
        )
        .map(drop)
    }

    /// The layers' blobs of a name: its image runs without them, and is pulled again if it has to be
    /// repaired.
    fn remove_blobs_of(&self, record: &NameRecord, wanted: &dyn Fn() -> bool) -> Result<usize, StoreError> {
        let layout = self.layout();
        let blobs: Vec<PathBuf> = record.blobs.iter().map(|blob| layout.blob(&blob.digest)).collect();
        let alone = layout.lock_exclusive(wanted)?;
        let held = lease::held(layout)?;
        let gone: Vec<PathBuf> = blobs.into_iter().filter(|path| !held.contains(path)).collect();
        self.set_aside_and_remove(&gone, alone, wanted)
    }

    /// Forgets the names that nobody has used since `then`, and notes of those that are used that they are.
    fn forget_unused(&self, then: SystemTime, wanted: &dyn Fn() -> bool) -> Result<Vec<String>, StoreError> {
        let layout = self.layout();
        let _alone = layout.lock_exclusive(wanted)?;
        let held = lease::held(layout)?;
        let mut forgotten = Vec::new();
        for (record, used) in self.read_names()? {
            if held.contains(&layout.image(&record.image)) {
                self.touch_name(&record.name)?;
            } else if used < then {
                layout::remove_file(&layout.name(&record.name))?;
                forgotten.push((used, record.name));
            }
        }
        forgotten.sort();
        Ok(forgotten.into_iter().map(|(_, name)| name).collect())
    }

    /// Forgets a name whose image nobody uses.
    fn remove_name(&self, record: &NameRecord, wanted: &dyn Fn() -> bool) -> Result<bool, StoreError> {
        let layout = self.layout();
        let _alone = layout.lock_exclusive(wanted)?;
        // It may lead to another image by now, which a pull has just brought.
        let is_same = self.read_name(&record.name)?.is_some_and(|now| now.image == record.image);
        if !is_same || lease::held(layout)?.contains(&layout.image(&record.image)) {
            return Ok(false);
        }
        layout::remove_file(&layout.name(&record.name)).map(|()| true)
    }

    /// Removes what `choose` takes of the store, knowing what names and leases need.
    fn remove_all(
        &self,
        choose: impl FnOnce(&HashSet<PathBuf>) -> Result<Vec<PathBuf>, StoreError>,
        wanted: &dyn Fn() -> bool,
    ) -> Result<usize, StoreError> {
        let alone = self.layout().lock_exclusive(wanted)?;
        let gone = choose(&self.needed()?)?;
        self.set_aside_and_remove(&gone, alone, wanted)
    }

    /// Renames under the lock, removes after it, as long as that is wanted.
    fn set_aside_and_remove(
        &self,
        objects: &[PathBuf],
        alone: Lock,
        wanted: &dyn Fn() -> bool,
    ) -> Result<usize, StoreError> {
        let mut aside = Vec::new();
        for object in objects {
            aside.extend(layout::set_aside(self.layout(), object)?);
        }
        drop(alone);
        aside.iter().take_while(|_| wanted()).try_for_each(|path| layout::remove_set_aside(path))?;
        Ok(aside.len())
    }

    /// The paths that names and leases lead to.
    fn needed(&self) -> Result<HashSet<PathBuf>, StoreError> {
        let mut needed = lease::held(self.layout())?;
        for (record, _) in self.read_names()? {
            needed.extend(self.objects_of(&record)?);
        }
        Ok(needed)
    }
}

/// A layer that a pull has committed.
#[derive(Debug)]
pub(super) struct MadeLayer {
    pub diff_id: Digest,
    pub blob: Digest,
    /// Whether the blob came with it.
    pub fetched: bool,
}

fn is_partial(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == PARTIAL)
}

fn is_older(path: &Path, age: Duration) -> bool {
    let modified = path.metadata().and_then(|metadata| metadata.modified()).ok();
    modified.and_then(|time| time.elapsed().ok()).is_some_and(|elapsed| elapsed > age)
}
