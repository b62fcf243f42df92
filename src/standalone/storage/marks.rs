//! Marks beside the bytes of names that nobody knows: files without content, made when the bytes were seen first.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tokio::fs::OpenOptions;

use super::{NameDigest, Storage, at, hex, named_digest};

/// What a mark's file name has after the digest.
const MARK: &str = "stray";

/// What the directory has, by the digests of names.
#[derive(Debug, Default)]
pub(in crate::standalone) struct Listing {
    /// Those whose bytes are there.
    pub(in crate::standalone) bytes: HashSet<NameDigest>,
    /// Those that are marked.
    pub(in crate::standalone) marks: HashSet<NameDigest>,
}

impl Storage {
    /// All that there is.
    pub(in crate::standalone) async fn list(&self) -> io::Result<Listing> {
        let mut entries = tokio::fs::read_dir(&self.directory).await.map_err(at(&self.directory))?;
        let mut listing = Listing::default();
        while let Some(entry) = entries.next_entry().await? {
            let file_name = entry.file_name();
            let Some(file_name) = file_name.to_str() else { continue };
            let (name, extension) =
                file_name.split_once('.').map_or((file_name, None), |(a, b)| (a, Some(b)));
            match (named_digest(name), extension) {
                (Some(digest), None) if entry.file_type().await?.is_file() => listing.bytes.insert(digest),
                (Some(digest), Some(MARK)) => listing.marks.insert(digest),
                _ => continue,
            };
        }
        Ok(listing)
    }

    /// Marks a name whose bytes nobody knows.
    pub(in crate::standalone) async fn mark(&self, digest: &NameDigest) -> io::Result<()> {
        let path = self.mark_of(digest);
        // One that is there already says since when.
        let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).await;
        opened.map(drop).map_err(at(&path))
    }

    /// Takes the mark off.
    pub(in crate::standalone) async fn unmark(&self, digest: &NameDigest) -> io::Result<()> {
        let path = self.mark_of(digest);
        tokio::fs::remove_file(&path).await.map_err(at(&path))
    }

    /// Removes the bytes of a name that has been marked since before a point in time, unless others have taken their place
    /// after it; and the mark then.
    pub(in crate::standalone) async fn remove_marked(
        &self,
        digest: &NameDigest,
        before: SystemTime,
    ) -> io::Result<()> {
        let path = self.directory.join(hex(digest));
        let _names = self.hold_names().await;
        if !is_older(&path, before).await? || !is_older(&self.mark_of(digest), before).await? {
            return Ok(());
        }
        tokio::fs::remove_file(&path).await.map_err(at(&path))?;
        self.unmark(digest).await
    }

    fn mark_of(&self, digest: &NameDigest) -> PathBuf {
        self.directory.join(hex(digest)).with_extension(MARK)
    }
}

/// Whether a file was last written before a point in time.
async fn is_older(path: &Path, before: SystemTime) -> io::Result<bool> {
    let found = tokio::fs::symlink_metadata(path).await.map_err(at(path))?;
    Ok(found.modified()? < before)
}
