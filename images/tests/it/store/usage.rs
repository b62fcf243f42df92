//! How much room images take.
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use images::store::{ImageUsage, StoreError};

use crate::sample::{Compression, Sample, TestStore, noise_tar};
use crate::store::{pull, pull_leased};

/// What lies in a directory takes on the disk.
fn room_in(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let room = entries.map(|entry| {
        let status = entry.metadata().unwrap();
        let inside = if status.is_dir() { room_in(&entry.path()) } else { 0 };
        status.blocks() * 512 + inside
    });
    room.sum()
}

#[test]
fn what_images_have_alone_what_they_share_and_the_rest_are_all_that_is_there() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let test = TestStore::new();
    let base = noise_tar("base", 400_000);
    let [small, large] = [("small", 100_000), ("large", 200_000)].map(|(name, bytes)| {
        let sample = Sample::of(&[base.clone(), noise_tar(name, bytes)], Compression::Gzip);
        sample.write_layout(&directory.path().join(name))
    });
    pull(&test.store, &small).unwrap();
    let lease = pull_leased(&test.store, &large).unwrap();
    fs::write(test.root().join("work/1.2.gone"), [1; 5000]).unwrap();

    let usage = test.store.usage(&|| true).unwrap();
    let seen: Vec<_> = usage.images.iter().map(|image| (&image.names[0], image.is_used)).collect();
    assert_eq!(seen, [(&large, true), (&small, false)]);
    assert!(usage.images.iter().all(|image| image.shared_bytes == usage.shared_bytes), "{usage:?}");
    // Its layer's data, and the blob that it came as.
    assert!((800_000..900_000).contains(&usage.shared_bytes), "{usage:?}");
    let own: u64 = usage.images.iter().map(|image| image.own_bytes).sum();
    let parts = ["blobs", "work", "layers", "images", "names", "leases"];
    let all: u64 = parts.map(|part| room_in(&test.root().join(part))).iter().sum();
    assert_eq!(own + usage.shared_bytes + usage.other_bytes, all);

    drop(lease);
    let usage = test.store.usage(&|| true).unwrap();
    assert!(usage.images.iter().all(|ImageUsage { is_used, .. }| !is_used));
    assert!(matches!(test.store.usage(&|| false), Err(StoreError::Unwanted { .. })));
}
