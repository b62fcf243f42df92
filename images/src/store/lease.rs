//! Leases: what keeps an image in the store while it is used.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::digest::Digest;
use crate::image::Image;

use super::layout::{self, Layout};
use super::{StoreError, lock};

/// Holds an image in the store while it is used, against `gc` of any process.
///
/// It is a locked file that names the image. The lock goes with the process, so a crash ends the
/// lease; `gc` removes the file then.
#[derive(Debug)]
pub struct Lease {
    image: Image,
    path: PathBuf,
    _file: File,
}

impl Lease {
    /// The image that is held.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Makes and locks the file. The caller holds the store's lock, so that no `gc` falls between.
    pub(super) fn take(layout: &Layout, image: &Image) -> Result<Lease, StoreError> {
        static TAKEN: AtomicU64 = AtomicU64::new(0);
        let number = TAKEN.fetch_add(1, Ordering::Relaxed);
        let path = layout.leases().join(format!("{}-{number}", std::process::id()));
        let failed = |action, source| StoreError::File { action, path: path.clone(), source };
        let mut file = lock::open(&path)?;
        lock::lock_exclusive(&file).map_err(|source| failed("lock", source))?;
        file.set_len(0).map_err(|source| failed("truncate", source))?;
        file.write_all(image.id.to_string().as_bytes()).map_err(|source| failed("write", source))?;
        Ok(Lease { image: image.clone(), path, _file: file })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Best effort: closing the descriptor ends the lease, `gc` removes a file that stays.
        drop(layout::remove_file(&self.path));
    }
}

/// The images under live leases. Dead leases are removed. The caller holds the store exclusively.
pub(super) fn leased(layout: &Layout) -> Result<Vec<Digest>, StoreError> {
    let mut images = Vec::new();
    for path in layout::entries(&layout.leases())? {
        match holder(&path)? {
            Holder::Dead => layout::remove_file(&path)?,
            Holder::Alive(image) => images.push(image),
        }
    }
    Ok(images)
}

enum Holder {
    Alive(Digest),
    Dead,
}

fn holder(path: &Path) -> Result<Holder, StoreError> {
    if lock::try_exclusive(path)?.is_some() {
        return Ok(Holder::Dead);
    }
    let text = layout::read_small(path)?.unwrap_or_default();
    let image = Digest::parse(&String::from_utf8_lossy(&text));
    image.map(Holder::Alive).map_err(|source| StoreError::Lease { path: path.to_owned(), source })
}
