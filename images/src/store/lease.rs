//! Leases: what keeps objects in the store while they are used, or while they are being made.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::image::Image;

use super::layout::{self, Layout};
use super::{StoreError, lock};

/// Holds an image in the store while it is used, against `gc` of any process.
#[derive(Debug)]
pub struct Lease {
    image: Image,
    /// Several names of one image may share it.
    hold: Arc<Hold>,
}

impl Lease {
    pub(super) fn new(image: Image, hold: Arc<Hold>) -> Lease {
        Lease { image, hold }
    }

    /// What holds it, and its blobs.
    pub(super) fn hold(&self) -> Arc<Hold> {
        Arc::clone(&self.hold)
    }

    /// The image that is held.
    pub fn image(&self) -> &Image {
        &self.image
    }
}

/// Holds objects of the store, present or to come: a locked file that lists their paths.
///
/// They are listed as they lie there, so that a program of another version, which has other paths
/// for the same image, spares them too. The lock goes with the process, so a crash ends the hold;
/// the file is removed then by whoever comes next.
#[derive(Debug)]
pub(crate) struct Hold {
    path: PathBuf,
    _file: File,
}

impl Hold {
    /// Makes and locks the file. The caller holds the store's lock, so that no `gc` falls between.
    pub(super) fn take(layout: &Layout, objects: &[PathBuf]) -> Result<Hold, StoreError> {
        static TAKEN: AtomicU64 = AtomicU64::new(0);
        let mut list = Vec::new();
        for object in objects {
            let object = object.strip_prefix(layout.root()).unwrap_or(object);
            list.extend_from_slice(object.as_os_str().as_bytes());
            list.push(b'\n');
        }
        loop {
            let number = TAKEN.fetch_add(1, Ordering::Relaxed);
            let path = layout.leases().join(format!("{}-{number}", std::process::id()));
            let failed = |action| StoreError::file(action, &path);
            let mut file = lock::open(&path)?;
            // In another pid namespace there may be a process of the same number; and what is not locked yet looks
            // like a dead one's.
            let is_ours = lock::try_lock(&file).map_err(failed("lock"))?
                && lock::is_still_at(&file, &path).map_err(failed("look at"))?;
            if !is_ours {
                continue;
            }
            file.set_len(0).map_err(failed("truncate"))?;
            file.write_all(&list).map_err(failed("write"))?;
            return Ok(Hold { path, _file: file });
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // Best effort: closing the descriptor ends the hold, `gc` removes a file that stays.
        drop(layout::remove_file(&self.path));
    }
}

/// The paths under live holds. Dead ones are removed. The caller holds the store exclusively.
pub(super) fn held(layout: &Layout) -> Result<HashSet<PathBuf>, StoreError> {
    remove_dead(layout)?;
    let mut held = HashSet::new();
    for path in layout::entries(&layout.leases())? {
        // It may have been given back just now.
        let Some(list) = layout::read_small(&path)? else { continue };
        let lines = list.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        held.extend(lines.map(|line| layout.root().join(Path::new(OsStr::from_bytes(line)))));
    }
    Ok(held)
}

/// Removes the leases of processes that were killed.
pub(super) fn remove_dead(layout: &Layout) -> Result<(), StoreError> {
    for path in layout::entries(&layout.leases())? {
        let file = match layout::open_regular(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened.map_err(StoreError::file("open", &path))?,
        };
        let is_dead = lock::try_lock(&file)
            .and_then(|locked| Ok(locked && lock::is_still_at(&file, &path)?))
            .map_err(StoreError::file("lock", &path))?;
        if is_dead {
            layout::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_leases_go_live_ones_stay_and_a_name_that_is_taken_is_no_obstacle() {
        let parent = tempfile::tempdir().unwrap();
        let (layout, _) = Layout::open(&parent.path().join("images"), |_| None).unwrap();
        let object = |name: &str| layout.layers().join(name);
        // Of a process with our number in another pid namespace, and of a dead one.
        let taken = layout.leases().join(format!("{}-0", std::process::id()));
        let foreign = lock::open(&taken).unwrap();
        assert!(lock::try_lock(&foreign).unwrap());
        std::fs::write(&taken, "layers/foreign\n").unwrap();
        std::fs::write(layout.leases().join("1-0"), "layers/dead\n").unwrap();

        let hold = Hold::take(&layout, &[object("ours"), object("too")]).unwrap();
        let expected = ["foreign", "ours", "too"].map(object);
        assert_eq!(held(&layout).unwrap(), expected.into());
        drop(hold);
        assert_eq!(held(&layout).unwrap(), [object("foreign")].into());
        drop(foreign);
        assert_eq!(layout::entries(&layout.leases()).unwrap().len(), 1);
        remove_dead(&layout).unwrap();
        assert_eq!(layout::entries(&layout.leases()).unwrap().len(), 0);
    }
}
