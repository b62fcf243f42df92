//! Leases: what keeps an image in the store while it is used.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
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
        loop {
            let number = TAKEN.fetch_add(1, Ordering::Relaxed);
            let path = layout.leases().join(format!("{}-{number}", std::process::id()));
            let failed = |action| {
                let path = path.clone();
                move |source| StoreError::File { action, path, source }
            };
            let mut file = lock::open(&path)?;
            // In another pid namespace there may be a process of the same number; and what is not locked yet looks
            // like a dead one's.
            let is_ours = lock::try_lock(&file).map_err(failed("lock"))?
                && lock::is_still_at(&file, &path).map_err(failed("look at"))?;
            if !is_ours {
                continue;
            }
            file.set_len(0).map_err(failed("truncate"))?;
            file.write_all(image.id.to_string().as_bytes()).map_err(failed("write"))?;
            return Ok(Lease { image: image.clone(), path, _file: file });
        }
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
    remove_dead(layout)?;
    let mut images = Vec::new();
    for path in layout::entries(&layout.leases())? {
        // It may have been given back just now.
        let Some(text) = layout::read_small(&path)? else { continue };
        let image = Digest::parse(&String::from_utf8_lossy(&text));
        images.push(image.map_err(|source| StoreError::Lease { path, source })?);
    }
    Ok(images)
}

/// Removes the leases of processes that were killed.
pub(super) fn remove_dead(layout: &Layout) -> Result<(), StoreError> {
    for path in layout::entries(&layout.leases())? {
        let failed = |action, source| StoreError::File { action, path: path.clone(), source };
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened.map_err(|source| failed("open", source))?,
        };
        let is_dead = lock::try_lock(&file)
            .and_then(|locked| Ok(locked && lock::is_still_at(&file, &path)?))
            .map_err(|source| failed("lock", source))?;
        if is_dead {
            layout::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::image::ImageConfig;

    use super::*;

    #[test]
    fn dead_leases_go_live_ones_stay_and_a_name_that_is_taken_is_no_obstacle() {
        let parent = tempfile::tempdir().unwrap();
        let layout = Layout::open(&parent.path().join("images")).unwrap();
        let id = Digest::of(b"x");
        let image = Image {
            name: "x".into(),
            id: id.clone(),
            digest: id.clone(),
            config: ImageConfig::default(),
            layers: Vec::new(),
            size_bytes: 0,
        };
        // Of a process with our number in another pid namespace, and of a dead one.
        let taken = layout.leases().join(format!("{}-0", std::process::id()));
        let foreign = lock::open(&taken).unwrap();
        assert!(lock::try_lock(&foreign).unwrap());
        std::fs::write(&taken, id.to_string()).unwrap();
        std::fs::write(layout.leases().join("1-0"), id.to_string()).unwrap();

        let lease = Lease::take(&layout, &image).unwrap();
        assert_eq!(leased(&layout).unwrap(), [id.clone(), id.clone()]);
        drop(lease);
        assert_eq!(leased(&layout).unwrap(), [id]);
        drop(foreign);
        assert_eq!(layout::entries(&layout.leases()).unwrap().len(), 1);
        remove_dead(&layout).unwrap();
        assert_eq!(layout::entries(&layout.leases()).unwrap().len(), 0);
    }
}
