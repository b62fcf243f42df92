//! What is damaged in the store is made again, and wedges nothing.
use std::fs;

use images::digest::Digest;

use crate::sample::{Compression, Sample, TestStore, noise_tar};
use crate::scripted::{ScriptedServer, honest, is_layer};
use crate::store::power_cut::{forget_marks, settled};
use crate::store::{check_content, pull};

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
    assert_eq!(pull(&test.store, &honest_server.name()).unwrap(), image);
    check_content(&test.store, &image);
}
