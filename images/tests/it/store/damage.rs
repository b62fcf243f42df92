//! What is damaged in the store is made again, and wedges nothing.
use std::fs;
use std::path::Path;

use images::digest::Digest;

use crate::sample::{Compression, Sample, TestStore, noise_tar};
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
