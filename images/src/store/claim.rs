//! The claim on a piece of work: a blob as one registry has it, an image, an archive that comes as a stream. Whoever holds
//! it fetches the blob and makes what comes of it.
//!
//! The claim is the lock on `blobs/NAME.partial` itself. Others of this host, in this process or another, who want the same
//! wait for it and then find the work done. A process that is killed leaves the file without a lock: the next claimant
//! goes on where it ends.
//!
//! Why not one claim for a digest: anybody's manifest may name it, and then nothing comes. So whoever fetches a blob
//! waits for those only who fetch it from the same registry, and what a registry can name is no name of another kind.
//! Where two registries have the same, both are fetched, and what is complete first does for both.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::digest::Digest;

use super::StoreError;
use super::layout::{self, Layout, PARTIAL};
use super::lock::{self, Waiting};
use super::stream::StreamName;

const LOCAL: &str = "local";
const IMAGE: &str = "image";
const STREAM: &str = "stream";

/// What is claimed, as its files are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Work(String);

impl Work {
    /// A blob that comes from a registry.
    pub(crate) fn blob(digest: &Digest, registry: &str) -> Work {
        Work(format!("{}.{}", digest.hex(), Digest::of(registry.as_bytes()).hex()))
    }

    /// A blob that is on this host.
    pub(crate) fn local_blob(digest: &Digest) -> Work {
        Work(format!("{}.{LOCAL}", digest.hex()))
    }

    /// The image of a configuration.
    pub(crate) fn image(id: &Digest) -> Work {
        Work(format!("{}.{IMAGE}", id.hex()))
    }

    /// An archive that comes as a stream.
    pub(crate) fn stream(name: &StreamName) -> Work {
        Work(format!("{}.{STREAM}", Digest::of(name.to_string().as_bytes()).hex()))
    }

    /// Whose a partial file or a directory in `work` is, if it is of a claim.
    pub(crate) fn of(path: &Path) -> Option<Work> {
        let name = path.file_name()?.to_str()?;
        let name = name.strip_suffix(PARTIAL).and_then(|name| name.strip_suffix('.')).unwrap_or(name);
        is_work(name).then(|| Work(name.to_owned()))
    }

    /// Whether the blob is there, whoever has brought it: then what has come of it by this claim is of no use.
    pub(super) fn is_done(&self, layout: &Layout) -> bool {
        let digest = self.0.split('.').next().map(Digest::from_hex);
        digest.is_some_and(|digest| digest.is_ok_and(|digest| layout.blob(&digest).exists()))
    }

    pub(super) fn name(&self) -> &str {
        &self.0
    }
}

/// Whether a claim's files are called so. Older programs had claims on digests alone.
pub(super) fn is_work(name: &str) -> bool {
    let (digest, kind) = name.split_once('.').unwrap_or((name, LOCAL));
    Digest::from_hex(digest).is_ok()
        && (matches!(kind, LOCAL | IMAGE | STREAM) || Digest::from_hex(kind).is_ok())
}

/// A held claim. To end it, [`Claim::commit`] or [`Claim::release`]; a claim that is only dropped
/// leaves its partial file, as a crash does.
#[derive(Debug)]
pub(crate) struct Claim {
    file: File,
    partial: PathBuf,
    work: PathBuf,
}

impl Claim {
    /// Waits until no one else has it. Blocks. Whoever does not want it any more makes nothing to wait for.
    pub(crate) fn take(layout: &Layout, of: &Work, waiting: Waiting<'_>) -> Result<Claim, StoreError> {
        loop {
            let partial = layout.partial(of);
            if !(waiting.wanted)() {
                return Err(StoreError::Unwanted { path: partial });
            }
            let file = lock::open(&partial)?;
            lock::wait_alone(&partial, &file, waiting)?;
            if lock::is_still_at(&file, &partial).map_err(StoreError::file("lock", &partial))? {
                return Ok(Claim { file, partial, work: layout.work(of) });
            }
        }
    }

    /// Takes the claim if nobody holds it.
    pub(crate) fn try_take(layout: &Layout, of: &Work) -> Result<Option<Claim>, StoreError> {
        let partial = layout.partial(of);
        let file = lock::open(&partial)?;
        let failed = StoreError::file("lock", &partial);
        if !lock::try_lock(&file).map_err(failed)? || !lock::is_still_at(&file, &partial).map_err(failed)? {
            return Ok(None);
        }
        Ok(Some(Claim { file, partial, work: layout.work(of) }))
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

    /// Makes the partial file the blob at that path: it has been verified.
    pub(crate) fn commit(self, blob: &Path) -> Result<(), StoreError> {
        layout::remove_tree(&self.work)?;
        layout::commit(&self.partial, blob)
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

    fn store() -> (tempfile::TempDir, Layout, Digest, Work) {
        let parent = tempfile::tempdir().unwrap();
        let (layout, _) = Layout::open(&parent.path().join("images"), |_| None).unwrap();
        let digest = Digest::of(b"x");
        (parent, layout, digest.clone(), Work::blob(&digest, "h:5000"))
    }

    fn take(layout: &Layout, of: &Work) -> Claim {
        Claim::take(layout, of, layout.moments(&|| true)).unwrap()
    }

    #[test]
    fn a_second_claimant_waits_and_then_finds_the_blob() {
        let (_parent, layout, digest, work) = store();
        let claim = take(&layout, &work);
        assert!(Claim::try_take(&layout, &work).unwrap().is_none());
        let second = {
            let (layout, digest, work) = (layout.clone(), digest.clone(), work.clone());
            std::thread::spawn(move || {
                let claim = take(&layout, &work);
                let seen = layout.blob(&digest).exists();
                claim.release().unwrap();
                seen
            })
        };
        claim.file().write_all(b"x").unwrap();
        claim.commit(&layout.blob(&digest)).unwrap();
        assert!(second.join().unwrap());
        assert_eq!(fs::read(layout.blob(&digest)).unwrap(), b"x");
        assert!(!layout.partial(&work).exists());
    }

    #[test]
    fn a_dropped_claim_can_be_resumed_and_a_released_one_leaves_nothing() {
        let (_parent, layout, _, work) = store();
        let claim = take(&layout, &work);
        claim.file().write_all(b"abc").unwrap();
        claim.fresh_work().unwrap();
        drop(claim);
        let claim = Claim::try_take(&layout, &work).unwrap().unwrap();
        assert_eq!(claim.partial_bytes().unwrap(), 3);
        claim.release().unwrap();
        assert!(!layout.partial(&work).exists() && !layout.work(&work).exists());
    }

    #[test]
    fn what_one_registry_claims_is_nothing_that_others_wait_for() {
        let (_parent, layout, digest, work) = store();
        let name = StreamName::new("x");
        let of_name = Digest::of(name.to_string().as_bytes());
        let all = [
            work,
            Work::blob(&digest, "h"),
            Work::local_blob(&digest),
            Work::image(&digest),
            Work::blob(&of_name, "h:5000"),
            Work::stream(&name),
        ];
        let held = all.each_ref().map(|work| Claim::try_take(&layout, work).unwrap().unwrap());
        for (work, claim) in all.iter().zip(held) {
            assert_eq!(Work::of(claim.path()).as_ref(), Some(work));
            assert_eq!(Work::of(claim.fresh_work().unwrap()).as_ref(), Some(work));
            claim.release().unwrap();
        }
        assert_eq!(Work::of(Path::new("/blobs/12.0.gone")), None);
        assert_eq!(Work::of(&layout.layer(&digest)), None);
    }
}
