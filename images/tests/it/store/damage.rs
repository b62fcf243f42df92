//! What is damaged in the store is made again, and wedges nothing.
use std::fs;
use std::path::Path;

use images::digest::Digest;
use images::store::{GcPolicy, Store, StoreError};
use rustix::fs::{CWD, FileType, FlockOperation, flock, mknodat};

use crate::namespace::in_own_mount_namespace;
use crate::sample::{Compression, Sample, TestStore, noise_tar, open_store};
use crate::scripted::{ScriptedServer, honest, is_layer};
use crate::store::power_cut::{children, forget_marks, settled};
use crate::store::{check_content, check_mounted, find_leased, pull, pull_leased};

#[test]
fn a_damaged_blob_is_fetched_again() {
    for compression in [Compression::Gzip, Compression::Zstd, Compression::Plain] {
        let sample = Sample::of(&[noise_tar("noise", 300_000)], compression);
        let served = sample.clone();
        let server = ScriptedServer::start(move |request| honest(&served, request));
        let test = TestStore::new();
        let image = pull(&test.store, &server.name()).unwrap();
        let blob = test.root().join("blobs").join(Digest::of(&sample.layers[0]).hex());
        let whole = fs::read(&blob).unwrap();
        let mut zeroed = whole.clone();
        zeroed[100_000..165_536].fill(0);
        for (damage, content) in [
            ("zeroed", zeroed),
            ("longer", [&whole[..], b"x"].concat()),
            ("shorter", whole[..200_000].to_vec()),
            ("empty", Vec::new()),
        ] {
            settled(&test.root());
            forget_marks(&test.root());
            fs::write(&blob, content).unwrap();
            let before = server.requests().iter().filter(|request| is_layer(&sample, request)).count();
            assert_eq!(pull(&test.store, &server.name()).unwrap(), image, "{compression:?} {damage}");
            let after = server.requests().iter().filter(|request| is_layer(&sample, request)).count();
            assert_eq!((after - before, fs::read(&blob).unwrap() == whole), (1, true), "{damage}");
        }
    }
}

#[test]
fn a_manifest_that_lies_about_a_size_costs_no_sound_blob() {
    let sample = Sample::small(Compression::Gzip);
    let mut lying = sample.clone();
    let size = lying.manifest.pointer_mut("/layers/1/size").unwrap();
    *size = serde_json::json!(size.as_u64().unwrap() + 1);
    let (served, lie) = (sample.clone(), lying.clone());
    let honest_server = ScriptedServer::start(move |request| honest(&served, request));
    let liar = ScriptedServer::start(move |request| honest(&lie, request));
    let test = TestStore::new();
    let image = pull(&test.store, &honest_server.name()).unwrap();
    let blob = test.root().join("blobs").join(Digest::of(&sample.layers[1]).hex());
    settled(&test.root());
    forget_marks(&test.root());
    pull(&test.store, &liar.name()).unwrap_err();
    assert!(blob.exists());
    let lease = pull_leased(&test.store, &honest_server.name()).unwrap();
    assert_eq!(*lease.image(), image);
    check_content(&test.store, &lease);
}

/// Has the image merged again from its layers.
fn doubt_image(root: &Path) {
    settled(root);
    let image = children(&root.join("images")).remove(0);
    fs::remove_file(image.join("durable")).unwrap();
    fs::write(image.join("mark"), "another boot").unwrap();
}

/// Damages a store in which one image lies, and takes away what a find or pull could cling to.
fn check(what: &str, damage: impl Fn(&Path)) {
    let sample = Sample::small(Compression::Gzip);
    let served = sample.clone();
    let server = ScriptedServer::start(move |request| honest(&served, request));
    let test = TestStore::new();
    let image = pull(&test.store, &server.name()).unwrap();
    settled(&test.root());
    damage(&test.root());
    // The damage shows when the image is made, or made use of, the next time.
    if let Some(lease) = find_leased(&test.store, &server.name()) {
        assert_eq!(*lease.image(), image, "{what}");
        check_mounted(&test.store, &lease);
    }
    doubt_image(&test.root());
    let lease = find_leased(&test.store, &server.name()).unwrap_or_else(|| panic!("{what}"));
    assert_eq!(*lease.image(), image, "{what}");
    check_content(&test.store, &lease);
    drop(lease);
    damage(&test.root());
    doubt_image(&test.root());
    let lease = pull_leased(&test.store, &server.name()).unwrap();
    assert_eq!(*lease.image(), image, "{what}");
    check_content(&test.store, &lease);
}

#[test]
fn a_damaged_index_or_tree_is_made_again() {
    let each_index = |root: &Path, damage: &dyn Fn(&mut Vec<u8>)| {
        for layer in children(&root.join("layers")) {
            let mut index = fs::read(layer.join("index")).unwrap();
            damage(&mut index);
            fs::write(layer.join("index"), index).unwrap();
        }
    };
    check("nothing", |_| {});
    check("an index cut short", |root| each_index(root, &|index| index.truncate(60)));
    check("an index of another version", |root| each_index(root, &|index| index[8] ^= 0x40));
    check("an index that is none", |root| each_index(root, &|index| index.fill(b'x')));
    check("an index that is not there", |root| {
        children(&root.join("layers")).iter().for_each(|layer| fs::remove_file(layer.join("index")).unwrap())
    });
    check("a tree that is none", |root| {
        fs::write(children(&root.join("images"))[0].join("tree.erofs"), [b'x'; 8192]).unwrap()
    });
    check("an empty tree", |root| {
        fs::write(children(&root.join("images"))[0].join("tree.erofs"), "").unwrap()
    });
    check("a tree that is not there", |root| {
        fs::remove_file(children(&root.join("images"))[0].join("tree.erofs")).unwrap()
    });
    check("a record that is none", |root| {
        fs::write(children(&root.join("images"))[0].join("image.json"), "{").unwrap()
    });
}

#[test]
fn what_others_keep_in_the_store_s_directories_is_left_alone() {
    let odd = format!("{}.jpg", Digest::of(b"theirs").hex());
    let names = ["holiday.jpg", "archive-2025", "old.gone/x", "a.new", "a.json", "1.partial", "v2/x", &odd];
    let directories = ["blobs", "work", "layers", "images", "names", "leases"];
    let test = TestStore::new();
    let paths =
        directories.iter().flat_map(|directory| names.map(|name| test.root().join(directory).join(name)));
    let theirs: Vec<_> = paths.collect();
    for path in &theirs {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "theirs").unwrap();
    }
    let store = open_store(&test.root());
    pull(&store, &Sample::small(Compression::Gzip).write_layout(&test.directory.path().join("layout")))
        .unwrap();
    store.gc(GcPolicy::All).unwrap();
    fs::write(test.root().join("version"), "1\n").unwrap();
    assert_eq!(open_store(&test.root()).discarded_version(), Some(1));
    for path in theirs {
        assert_eq!(fs::read(&path).unwrap(), b"theirs", "{path:?}");
    }
}

/// What may stand where the store wants a file.
const OTHERS: [FileType; 3] = [FileType::Directory, FileType::Fifo, FileType::Symlink];

fn put(kind: FileType, path: &Path) {
    drop(fs::remove_file(path));
    match kind {
        FileType::Directory => fs::create_dir(path).unwrap(),
        FileType::Symlink => std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
        other => mknodat(CWD, path, other, 0o600.into(), 0).unwrap(),
    }
}

#[test]
fn what_is_no_file_in_the_place_of_one_is_refused_at_once_or_made_again() {
    let sample = Sample::small(Compression::Gzip);
    let partial = format!("blobs/{}.partial", "a".repeat(64));
    for (name, kind) in ["version", "lock", &partial].iter().flat_map(|name| OTHERS.map(|kind| (name, kind)))
    {
        let test = TestStore::new();
        put(kind, &test.root().join(name));
        match Store::open(&test.root()).and_then(|store| store.list()) {
            Err(error @ StoreError::File { .. }) => {
                let text = format!("{error}: {}", std::error::Error::source(&error).unwrap());
                assert!(text.contains("move it away"), "{text}");
            }
            // A lock may be any file.
            other => assert!(other.is_ok() && kind == FileType::Fifo, "{name} {kind:?}: {other:?}"),
        }
    }
    for (name, kind) in ["data", "index"].iter().flat_map(|name| OTHERS.map(|kind| (name, kind))) {
        let served = sample.clone();
        let server = ScriptedServer::start(move |request| honest(&served, request));
        let test = TestStore::new();
        let lease = pull_leased(&test.store, &server.name()).unwrap();
        settled(&test.root());
        children(&test.root().join("layers")).iter().for_each(|layer| put(kind, &layer.join(name)));
        doubt_image(&test.root());
        if *name == "data" {
            let at = tempfile::tempdir().unwrap();
            let mounted = in_own_mount_namespace(|| test.store.mount(&lease, at.path(), &|| true).map(drop));
            assert!(matches!(mounted, Err(StoreError::Gone { .. })), "{kind:?}: {mounted:?}");
        }
        let again = find_leased(&test.store, &server.name()).unwrap();
        check_content(&test.store, &again);
    }
}

#[test]
fn a_mount_that_nobody_wants_any_more_waits_for_no_one_who_makes_its_image() {
    let sample = Sample::small(Compression::Gzip);
    let served = sample.clone();
    let server = ScriptedServer::start(move |request| honest(&served, request));
    let test = TestStore::new();
    let lease = pull_leased(&test.store, &server.name()).unwrap();
    settled(&test.root());
    let image = children(&test.root().join("images")).remove(0);
    fs::remove_file(image.join("tree.erofs")).unwrap();
    let claim = test.root().join("blobs").join(format!("{}.image.partial", lease.image().id.hex()));
    let claimed = fs::File::create(claim).unwrap();
    flock(&claimed, FlockOperation::NonBlockingLockExclusive).unwrap();
    let at = tempfile::tempdir().unwrap();
    let mounted = test.store.mount(&lease, at.path(), &|| false);
    assert!(matches!(mounted, Err(StoreError::Unwanted { .. })), "{mounted:?}");
}
