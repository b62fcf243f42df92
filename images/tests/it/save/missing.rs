//! Layers that are not in the store as they came: who is asked for them, and for how long.
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use images::digest::Digest;
use images::reference::Reference;
use images::save::{Layers, SaveError};

use crate::sample::{Compression, Sample, TestStore};
use crate::scripted::{Body, Reply, ScriptedServer, honest, is_layer};
use crate::store::{block_on, options, pull_leased, source};

use super::{FORMS, document, forget_splits, members, name, prepare, saved, stored, written};

#[test]
fn whatever_an_archive_calls_its_image_no_registry_is_asked_for_it() {
    let registry = ScriptedServer::start(|_| Reply::new(404, ""));
    let called = Reference::parse(&registry.name()).unwrap();
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let (sample, test) = (Sample::small(Compression::Gzip), TestStore::new());
    let pulled = pull_leased(&test.store, &sample.write_layout(&directory.path().join("layout"))).unwrap();
    let image = prepare(&test.store, &pulled, Layers::AsTheyCame).unwrap().called(vec![called]);
    let path = directory.path().join("archive");
    fs::write(&path, written(&[image])).unwrap();
    let test = TestStore::new();
    let archive = source(&format!("oci-archive:{}", path.display()));
    let leases = block_on(test.store.load(&archive, &options(), &|_| {})).unwrap();
    assert_eq!(leases[0].image().name, registry.name());
    for layer in &sample.layers {
        fs::remove_file(stored(&test, layer)).unwrap();
    }
    let members = members(&saved(&test.store, &leases[0], Layers::AsTheyCame));
    let entry = &document(&members, "manifest.json")[0];
    for (layer, tar) in entry["Layers"].as_array().unwrap().iter().zip(crate::sample::small_tars()) {
        assert_eq!(members[layer.as_str().unwrap()], tar);
    }
    forget_splits(&test);
    for form in FORMS {
        let error = prepare(&test.store, &leases[0], form).unwrap_err();
        assert!(matches!(&error, SaveError::NotKept { .. }), "{form:?}: {error:?}");
    }
    assert_eq!(registry.requests(), []);
}

#[test]
fn all_layers_that_are_missing_come_within_one_time_for_a_pull() {
    let (limit, first) = (Duration::from_secs(4), Duration::from_secs(3));
    let sample = Sample::small(Compression::Gzip);
    let saving = Arc::new(AtomicBool::new(false));
    let (served, is_slow) = (sample.clone(), Arc::clone(&saving));
    let slow = Digest::of(&sample.layers[0]).to_string();
    let registry = ScriptedServer::start(move |request| match is_slow.load(Ordering::SeqCst) {
        true if request.path.ends_with(&slow) => {
            std::thread::park_timeout(first);
            honest(&served, request)
        }
        true if is_layer(&served, request) => Reply::body(200, Body::Silence),
        _ => honest(&served, request),
    });
    let test = TestStore::new();
    let lease = pull_leased(&test.store, &registry.name()).unwrap();
    for layer in &sample.layers {
        fs::remove_file(stored(&test, layer)).unwrap();
    }
    saving.store(true, Ordering::SeqCst);
    let mut hurried = options();
    hurried.limits.pull = limit;
    let began = Instant::now();
    let saved = test.store.prepare_save(&lease, (vec![name()], Layers::AsTheyCame), &hurried, &|_| {});
    let error = block_on(saved).unwrap_err();
    assert!(matches!(&error, SaveError::TimeLimit { .. }), "{error:?}");
    assert!(began.elapsed() < first + limit, "the second layer has what the first one left of it");
    assert!(stored(&test, &sample.layers[0]).exists());
}
