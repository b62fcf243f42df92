//! What survives a power cut.
//!
//! Nothing is fsync'ed on the way: that costs more than the pull. A committed layer or image holds
//! a `mark` with the id of the boot that committed it; a `syncfs` in the background adds a link to it,
//! `durable`. After a crash an object with the mark of an earlier boot and without that file
//! may be damaged, and is made again from its verified blobs before it is used.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use rustix::fs::{AtFlags, linkat};
use rustix::io::Errno;

use super::StoreError;
use super::layout::{self, Layout};

const MARK: &str = "mark";
const DURABLE: &str = "durable";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// How far an object in the store can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Soundness {
    /// Complete: committed in this boot or on disk since.
    Sound,
    /// Committed in an earlier boot that may have ended before it was on disk.
    Doubtful,
    /// Not there.
    Absent,
}

/// The id of this boot.
#[derive(Clone, Debug)]
pub(crate) struct Boot {
    id: Vec<u8>,
}

impl Boot {
    pub(crate) fn current() -> Result<Boot, StoreError> {
        let path = Path::new(BOOT_ID);
        let absent = || StoreError::file("read", path)(Errno::NOENT.into());
        let id = layout::read_small(path)?.ok_or_else(absent)?;
        Ok(Boot { id: id.trim_ascii().to_vec() })
    }

    /// Marks an object as made in this boot, before it is committed.
    pub(crate) fn mark(&self, object: &Path) -> Result<(), StoreError> {
        let path = object.join(MARK);
        let written = layout::create_file(&path)?.write_all(&self.id);
        written.map_err(StoreError::file("write", &path))
    }

    /// Looks at an object's mark. One that is empty or odd did not reach the disk whole.
    pub(crate) fn soundness(&self, object: &Path) -> Result<Soundness, StoreError> {
        Ok(match layout::read_small(&object.join(MARK))? {
            Some(mark) if mark == self.id => Soundness::Sound,
            _ if Boot::is_durable(object) => Soundness::Sound,
            None if !object.exists() => Soundness::Absent,
            _ => Soundness::Doubtful,
        })
    }

    /// Whether an object is on disk for certain.
    pub(crate) fn is_durable(object: &Path) -> bool {
        object.join(DURABLE).exists()
    }

    /// Takes an object's marks: it is doubtful from now on, and made again before it is used. The mark first, so that no
    /// `settle` that goes on makes the other one again.
    pub(crate) fn distrust(object: &Path) -> Result<(), StoreError> {
        [MARK, DURABLE].iter().try_for_each(|name| layout::remove_file(&object.join(name)))
    }

    /// Brings everything to disk and marks what this boot has committed so far. Takes a while.
    pub(crate) fn settle(&self, layout: &Layout) -> Result<(), StoreError> {
        let mut fresh = Vec::new();
        // Images first: so no image is marked whose layers came too late to be.
        for directory in [layout.images(), layout.layers()] {
            for object in layout::entries(&directory)? {
                let is_ours = layout::read_small(&object.join(MARK))?.is_some_and(|mark| mark == self.id);
                if is_ours && !Boot::is_durable(&object) {
                    // Opened before the sync: its name may lead to another one afterwards.
                    fresh.extend(File::open(&object).ok());
                }
            }
        }
        if fresh.is_empty() {
            return Ok(());
        }
        let root = layout.root();
        let failed = StoreError::file("sync", root);
        let file = File::open(root).map_err(failed)?;
        rustix::fs::syncfs(&file).map_err(|errno| failed(errno.into()))?;
        for object in fresh {
            match linkat(&object, MARK, &object, DURABLE, AtFlags::empty()) {
                // One that was removed or distrusted meanwhile has no mark to link to; another `settle` may have been first.
                Ok(()) | Err(Errno::NOENT | Errno::EXIST) => {}
                Err(errno) => {
                    return Err(StoreError::file("create", &root.join(DURABLE))(errno.into()));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_marks_of_this_boot_and_durable_ones_are_trusted() {
        let parent = tempfile::tempdir().unwrap();
        let (layout, _) = Layout::open(&parent.path().join("images"), |_| None).unwrap();
        let boot = Boot::current().unwrap();
        let object = layout.layer(&crate::digest::Digest::of(b"x"));
        assert_eq!(boot.soundness(&object).unwrap(), Soundness::Absent);
        fs::create_dir(&object).unwrap();
        assert_eq!(boot.soundness(&object).unwrap(), Soundness::Doubtful);
        boot.mark(&object).unwrap();
        assert_eq!(boot.soundness(&object).unwrap(), Soundness::Sound);
        boot.settle(&layout).unwrap();
        let next = Boot { id: b"another".to_vec() };
        assert_eq!(next.soundness(&object).unwrap(), Soundness::Sound);
        fs::remove_file(object.join(DURABLE)).unwrap();
        for mark in [&b""[..], b"yet another"] {
            fs::write(object.join(MARK), mark).unwrap();
            assert_eq!(next.soundness(&object).unwrap(), Soundness::Doubtful);
        }
        boot.mark(&object).unwrap();
        Boot::distrust(&object).unwrap();
        assert_eq!(boot.soundness(&object).unwrap(), Soundness::Doubtful);
    }

    #[test]
    fn what_is_distrusted_while_it_is_brought_to_disk_stays_so() {
        let parent = tempfile::tempdir().unwrap();
        let (layout, _) = Layout::open(&parent.path().join("images"), |_| None).unwrap();
        let boot = Boot::current().unwrap();
        let object = layout.layer(&crate::digest::Digest::of(b"x"));
        fs::create_dir(&object).unwrap();
        for _ in 0..200 {
            boot.mark(&object).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| boot.settle(&layout).unwrap());
                std::thread::yield_now();
                Boot::distrust(&object).unwrap();
            });
            assert_eq!(boot.soundness(&object).unwrap(), Soundness::Doubtful);
        }
    }
}
