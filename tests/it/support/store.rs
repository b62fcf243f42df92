//! What a worker's image store may hold.

use std::fs;

use images::store::{GcPolicy, Store};

use super::worker::Worker;

/// Fails the test unless the store holds exactly one image of so many layers, under one name, after what no name needs
/// was collected; and nothing of a pull that was killed, nor of a process that used an image.
pub fn assert_holds_one_image(worker: &Worker, layers: usize, case: &str) {
    let root = worker.data().join("images");
    let store = Store::open(&root).unwrap();
    store.gc(GcPolicy::Unreferenced).unwrap();
    let count = |directory: &str| {
        let entries = fs::read_dir(root.join(directory)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    for (directory, expected) in [
        ("work", 0),
        ("leases", 0),
        ("images", 1),
        ("names", 1),
        ("layers", layers),
        // Manifest and configuration beside the layers.
        ("blobs", layers + 2),
    ] {
        let found = count(directory);
        assert_eq!(found.len(), expected, "{case}: {directory}: {found:?}");
    }
    assert_eq!(store.list().unwrap().len(), 1, "{case}");
}
