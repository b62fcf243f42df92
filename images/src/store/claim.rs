//! The claim on a blob: whoever holds it fetches the blob and makes what comes of it.
//!
//! The claim is the lock on `blobs/HEX.partial` itself. Other pulls of this host, in this process
//! or another, wait for it and then find the work done. A process that is killed leaves the file
//! without a lock: the next claimant goes on where it ends.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::digest::Digest;

use super::StoreError;
use super::layout::{self, Layout};
use super::lock::{self, Waiting};

/// A held claim. To end it, [`Claim::commit`] or [`Claim::release`]; a claim that is only dropped
/// leaves its partial file, as a crash does.
#[derive(Debug)]
pub(crate) struct Claim {
    file: File,
    partial: PathBuf,
    blob: PathBuf,
    work: PathBuf,
}

impl Claim {
    /// Waits until no one else has it. Blocks.
    pub(crate) fn take(layout: &Layout, digest: &Digest, waiting: Waiting<'_>) -> Result<Claim, StoreError> {
        loop {
            let partial = layout.partial(digest);
            let file = lock::open(&partial)?;
            lock::wait_alone(&partial, &file, waiting)?;
            if lock::is_still_at(&file, &partial).map_err(StoreError::file("lock", &partial))? {
                return Ok(Claim { file, partial, blob: layout.blob(digest), work: layout.work(digest) });
            }
        }
    }

    /// Takes the claim if nobody holds it.
    pub(crate) fn try_take(layout: &Layout, digest: &Digest) -> Result<Option<Claim>, StoreError> {
        let partial = layout.partial(digest);
        let file = lock::open(&partial)?;
        let failed = StoreError::file("lock", &partial);
        if !lock::try_lock(&file).map_err(failed)? || !lock::is_still_at(&file, &partial).map_err(failed)? {
            return Ok(None);
        }
        Ok(Some(Claim { file, partial, blob: layout.blob(digest), work: layout.work(digest) }))
    }

    /// The partial file, open for reading and writing.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Where the partial file lies.
    pub(crate) fn path(&self) -> &Path {
        &self.partial
    }

    /// Bytes that an earlier, interrupted claimant has left.
    pub(crate) fn partial_bytes(&self) -> Result<u64, StoreError> {
        let failed = StoreError::file("look at", &self.partial);
        self.file.metadata().map(|metadata| metadata.len()).map_err(failed)
    }

    /// Forgets those bytes.
    pub(crate) fn truncate(&self) -> Result<(), StoreError> {
        let failed = StoreError::file("truncate", &self.partial);
        self.file.set_len(0).map_err(failed)
    }

    /// An empty directory to build in, which only this claim uses.
    pub(crate) fn fresh_work(&self) -> Result<&Path, StoreError> {
        layout::remove_tree(&self.work)?;
        layout::make_directory(&self.work)?;
        Ok(&self.work)
    }

    /// Makes the partial file the blob: it has been verified.
    pub(crate) fn commit(self) -> Result<(), StoreError> {
        layout::remove_tree(&self.work)?;
        layout::commit(&self.partial, &self.blob)
    }

    /// Gives the claim up and removes what was being built; what the partial file holds stays for
    /// the next one.
    pub(crate) fn leave(self) -> Result<(), StoreError> {
        if self.partial_bytes()? == 0 {
            return self.release();
        }
        layout::remove_tree(&self.work)
    }

    /// Gives the claim up and removes what it made, but a blob that is there.
    pub(crate) fn release(self) -> Result<(), StoreError> {
        // The file goes while its lock is held: a waiter then sees that it locked a file without a name.
        layout::remove_tree(&self.work)?;
        layout::remove_file(&self.partial)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    fn store() -> (tempfile::TempDir, Layout, Digest) {
        let parent = tempfile::tempdir().unwrap();
        let (layout, _) = Layout::open(&parent.path().join("images"), |_| None).unwrap();
        (parent, layout, Digest::of(b"x"))
    }

    fn take(layout: &Layout, digest: &Digest) -> Claim {
        Claim::take(layout, digest, layout.moments(&|| true)).unwrap()
    }

    #[test]
    fn a_second_claimant_waits_and_then_finds_the_blob() {
        let (_parent, layout, digest) = store();
        let claim = take(&layout, &digest);
        assert!(Claim::try_take(&layout, &digest).unwrap().is_none());
        let second = {
            let (layout, digest) = (layout.clone(), digest.clone());
            std::thread::spawn(move || {
                let claim = take(&layout, &digest);
                let seen = layout.blob(&digest).exists();
                claim.release().unwrap();
                seen
            })
        };
        claim.file().write_all(b"x").unwrap();
        claim.commit().unwrap();
        assert!(second.join().unwrap());
        assert_eq!(fs::read(layout.blob(&digest)).unwrap(), b"x");
        assert!(!layout.partial(&digest).exists());
    }

    #[test]
    fn a_dropped_claim_can_be_resumed_and_a_released_one_leaves_nothing() {
        let (_parent, layout, digest) = store();
        let claim = take(&layout, &digest);
        claim.file().write_all(b"abc").unwrap();
        claim.fresh_work().unwrap();
        drop(claim);
        let claim = Claim::try_take(&layout, &digest).unwrap().unwrap();
        assert_eq!(claim.partial_bytes().unwrap(), 3);
        claim.release().unwrap();
        assert!(!layout.partial(&digest).exists() && !layout.work(&digest).exists());
    }
}
