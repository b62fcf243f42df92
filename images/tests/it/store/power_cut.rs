//! What a power cut may leave: objects that were committed in another boot and never synced.
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::registry_server::RegistryServer;
use crate::sample::{Compression, Sample, TestStore, open_store, skopeo_copy};
use crate::store::{find_leased, pull, pull_leased};

/// Makes every mark one of an earlier boot.
pub(super) fn forget_marks(root: &Path) {
    for directory in ["layers", "images"] {
        for object in children(&root.join(directory)) {
            fs::remove_file(object.join("durable")).unwrap();
            fs::write(object.join("mark"), "another boot").unwrap();
        }
    }
}

pub(super) fn children(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Waits for the background sync, which would make good what the test damages.
pub fn settled(root: &Path) {
    let marks = || {
        let objects = [children(&root.join("layers")), children(&root.join("images"))].concat();
        objects.iter().all(|object| object.join("durable").exists())
    };
    let until = Instant::now() + Duration::from_secs(30);
    while !marks() {
        assert!(Instant::now() < until, "nobody brings the store to disk");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

#[test]
fn doubtful_layers_and_images_are_made_again_from_blobs() {
    let registry = RegistryServer::start();
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let sample = Sample::small(Compression::Gzip);
    skopeo_copy(&[], &sample.write_layout(directory.path()), &registry.skopeo("x:1"));
    let name = registry.name("x:1");
    let blob = |layer: usize| {
        let digest = images::digest::Digest::of(&sample.layers[layer]);
        move |root: &Path| root.join("blobs").join(digest.hex())
    };
    // What the power cut took, and whether the image can be made whole without the registry.
    type Damage<'a> = (&'a str, Box<dyn Fn(&Path) + 'a>, bool);
    let each = |root: &Path, file: &str, content: &[u8]| {
        for layer in children(&root.join("layers")) {
            fs::write(layer.join(file), content).unwrap();
        }
    };
    let damages: [Damage; 6] = [
        ("nothing", Box::new(|_: &Path| {}), true),
        ("empty data", Box::new(move |root: &Path| each(root, "data", b"")), true),
        ("empty index", Box::new(move |root: &Path| each(root, "index", b"")), true),
        (
            "an image's tree",
            Box::new(|root: &Path| {
                fs::write(children(&root.join("images"))[0].join("tree.erofs"), "").unwrap()
            }),
            true,
        ),
        ("a blob", Box::new(|root: &Path| fs::write(blob(0)(root), "").unwrap()), false),
        (
            "a whole layer and its blob",
            Box::new(|root: &Path| {
                fs::remove_file(blob(1)(root)).unwrap();
                children(&root.join("layers")).iter().for_each(|layer| fs::remove_dir_all(layer).unwrap());
            }),
            false,
        ),
    ];
    for (what, damage, can_be_repaired) in damages {
        let test = TestStore::new();
        let image = pull(&test.store, &name).unwrap();
        settled(&test.root());
        forget_marks(&test.root());
        damage(&test.root());
        let store = open_store(&test.root());
        let found = find_leased(&store, &name);
        assert_eq!(found.is_some(), can_be_repaired, "{what}");
        let again = found.unwrap_or_else(|| pull_leased(&store, &name).unwrap());
        assert_eq!(*again.image(), image, "{what}");
        super::check_content(&store, &again);
        // So that the next boot has nothing to do again.
        settled(&test.root());
    }
}
