//! Images whose layers are written again from their files' contents and what was between them.
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use images::digest::Digest;
use images::save::{Layers, SaveError, write_archive};
use images::store::{Cancel, Lease, StoreError};

use crate::sample::{Compression, Sample, TestStore, small_tars};
use crate::store::{check_content, pull, pull_leased};
use crate::stream::{find_stream, load};

use super::{FORMS, document, members, prepare, saved, stored, written};

/// An archive of an image, and the image in a store that has no blob of it.
fn streamed(directory: &Path, compression: Compression) -> (Sample, TestStore, Lease) {
    let sample = Sample::small(compression);
    let layout = sample.write_layout(&directory.join("layout"));
    let archive = directory.join("archive");
    crate::sample::skopeo_copy(&[], &layout, &format!("oci-archive:{}", archive.display()));
    let test = TestStore::new();
    let lease = load(&test.store, "a", &fs::read(archive).unwrap()).unwrap();
    assert!(sample.layers.iter().all(|layer| !stored(&test, layer).exists()));
    (sample, test, lease)
}

/// The files of a layer in the store.
fn files(test: &TestStore, tar: &[u8]) -> [PathBuf; 2] {
    let layer = test.root().join("layers").join(format!("{}.v2", Digest::of(tar).hex()));
    ["data", "split"].map(|name| layer.join(name))
}

fn flip(path: &Path, at: u64) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn an_image_that_came_as_a_stream_is_saved_with_the_layers_it_came_with() {
    for compression in [Compression::Gzip, Compression::Plain] {
        let directory = tempfile::tempdir_in(crate::DISK).unwrap();
        let (sample, test, lease) = streamed(directory.path(), compression);
        for form in FORMS {
            let archive = saved(&test.store, &lease, form);
            let members = members(&archive);
            let entry = &document(&members, "manifest.json")[0];
            let layers =
                entry["Layers"].as_array().unwrap().iter().map(|layer| &members[layer.as_str().unwrap()]);
            assert!(layers.eq(small_tars().iter()), "{compression:?} {form:?}");
            assert_eq!(Digest::of(&members[entry["Config"].as_str().unwrap()]).to_string(), sample.id());
            let path = directory.path().join("saved");
            fs::write(&path, archive).unwrap();
            for transport in ["docker-archive", "oci-archive"] {
                let source = format!("{transport}:{}", path.display());
                assert_eq!(super::inspected(&source), sample.config, "{source}");
                let again = TestStore::new();
                let loaded = pull_leased(&again.store, &source).unwrap();
                assert_eq!(loaded.image().layers, lease.image().layers, "{source}");
                check_content(&again.store, &loaded);
            }
        }
    }
}

#[test]
fn a_layer_whose_files_are_damaged_cuts_the_archive_and_is_made_again() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    // In the contents, between them, and in the length that stands in front.
    for (file, at) in [(0, 50_000), (1, 100), (1, 16), (1, 0)] {
        let what = format!("file {file} at {at}");
        let place = directory.path().join(format!("{file}-{at}"));
        let (_, test, lease) = streamed(&place, Compression::Gzip);
        let images = [prepare(&test.store, &lease, Layers::Plain).unwrap()];
        let whole = written(&images);
        flip(&files(&test, &small_tars()[1])[file], at);
        let mut cut = Vec::new();
        let error = write_archive(&images, &mut cut, &AtomicBool::new(false)).unwrap_err();
        assert!(matches!(error, SaveError::Content { .. } | SaveError::Read { .. }), "{what}: {error:?}");
        assert!(!String::from_utf8_lossy(&cut).contains("manifest.json"), "{what}");
        let is_whole = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
            entry.is_ok_and(|mut entry| std::io::copy(&mut entry, &mut std::io::sink()).is_ok())
        };
        assert!(!tar::Archive::new(cut.as_slice()).entries().unwrap().all(is_whole), "{what}");
        drop(images);
        test.store.drop_damaged(&error, &Cancel::default()).unwrap();
        // Nothing is left to make it of: it has to come again, and then is what it was.
        assert!(find_stream(&test.store, "a").is_none(), "{what}");
        drop(lease);
        let archive = fs::read(place.join("archive")).unwrap();
        let lease = load(&test.store, "a", &archive).unwrap();
        assert!(saved(&test.store, &lease, Layers::Plain) == whole, "{what}");
    }
}

#[test]
fn a_damaged_layer_is_made_again_from_its_blob_and_others_are_left_alone() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let test = TestStore::new();
    let layout = Sample::small(Compression::Gzip).write_layout(directory.path());
    let lease = pull_leased(&test.store, &layout).unwrap();
    let images = [prepare(&test.store, &lease, Layers::Plain).unwrap()];
    let whole = written(&images);
    let [lower, upper] = [0, 1].map(|layer| files(&test, &small_tars()[layer]));
    flip(&upper[0], 50_000);
    let error = write_archive(&images, &mut Vec::new(), &AtomicBool::new(false)).unwrap_err();
    drop(images);
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let [lower_before, upper_before] = [&lower[1], &upper[1]].map(|path| inode(path));
    test.store.drop_damaged(&error, &Cancel::default()).unwrap();
    let lease = pull_leased(&test.store, &layout).unwrap();
    assert!(saved(&test.store, &lease, Layers::Plain) == whole);
    assert_eq!(inode(&lower[1]), lower_before);
    assert_ne!(inode(&upper[1]), upper_before);
    // What is whole stays, whatever somebody says of it.
    let upper_now = inode(&upper[1]);
    test.store.drop_damaged(&error, &Cancel::default()).unwrap();
    drop(lease);
    pull_leased(&test.store, &layout).unwrap();
    assert_eq!(inode(&upper[1]), upper_now);
}

#[test]
fn a_compressed_blob_is_not_needed_for_a_tar_stream() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let sample = Sample::small(Compression::Gzip);
    let test = TestStore::new();
    let lease = pull_leased(&test.store, &sample.write_layout(directory.path())).unwrap();
    let whole = saved(&test.store, &lease, Layers::Plain);
    for layer in &sample.layers {
        flip(&stored(&test, layer), 20);
    }
    assert!(saved(&test.store, &lease, Layers::Plain) == whole);
}

#[test]
fn a_record_that_names_another_blob_for_a_layer_is_passed_over() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let test = TestStore::new();
    let sample = Sample::small(Compression::Gzip);
    let lease = pull_leased(&test.store, &sample.write_layout(&directory.path().join("own"))).unwrap();
    let whole = saved(&test.store, &lease, Layers::Plain);
    super::forget_splits(&test);
    for layer in &sample.layers {
        fs::remove_file(stored(&test, layer)).unwrap();
    }
    // In the order of names: two that say something wrong, then one that is right.
    let other = crate::layer_tar::tar(&[crate::layer_tar::file("other", "x")]);
    let strangers =
        [(Compression::Plain, "a", true), (Compression::Gzip, "b", true), (Compression::Zstd, "c", false)];
    for (compression, name, is_wrong) in strangers {
        let stranger = Sample::of(&small_tars(), compression);
        let layout = stranger.write_layout(&directory.path().join(name));
        let own = TestStore::new();
        pull(&own.store, &layout).unwrap();
        let record = fs::read_dir(own.root().join("names")).unwrap().next().unwrap().unwrap();
        let mut text: serde_json::Value = serde_json::from_slice(&fs::read(record.path()).unwrap()).unwrap();
        for (number, layer) in stranger.layers.iter().enumerate() {
            let blob = if is_wrong { compression.compress(&other) } else { layer.clone() };
            fs::write(stored(&test, &blob), &blob).unwrap();
            text["blobs"][number] = serde_json::json!({ "digest": Digest::of(&blob), "size": blob.len() });
        }
        fs::write(test.root().join("names").join(record.file_name()), text.to_string()).unwrap();
    }
    assert!(saved(&test.store, &lease, Layers::Plain) == whole);
    let wrong = Compression::Gzip.compress(&other);
    assert!(stored(&test, &wrong).exists(), "it is another layer's, and whole");
}

#[test]
fn a_layer_is_not_taken_for_damaged_because_of_another_version_or_for_who_was_cancelled() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let (_, test, lease) = streamed(directory.path(), Compression::Gzip);
    let diff_id = Digest::of(&small_tars()[1]);
    let said = SaveError::Content { blob: diff_id, found: None };
    let [data, split] = files(&test, &small_tars()[1]);
    // The version stands behind the magic.
    flip(&split, 12);
    test.store.drop_damaged(&said, &Cancel::default()).unwrap();
    let error = prepare(&test.store, &lease, Layers::Plain).unwrap_err();
    assert!(matches!(error, SaveError::NotKept { .. }), "as good as none: {error:?}");
    assert!(find_stream(&test.store, "a").is_some());
    flip(&split, 12);
    flip(&data, 50_000);
    let cancelled = Cancel::default();
    cancelled.cancel();
    let error = test.store.drop_damaged(&said, &cancelled).unwrap_err();
    assert!(matches!(error, StoreError::Unwanted { .. }), "{error:?}");
    assert!(find_stream(&test.store, "a").is_some());
    test.store.drop_damaged(&said, &Cancel::default()).unwrap();
    assert!(find_stream(&test.store, "a").is_none());
}

#[test]
fn a_blob_that_is_whole_and_cannot_be_inflated_here_is_not_said_to_be_missing() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let (sample, test) = (Sample::small(Compression::Gzip), TestStore::new());
    let lease = pull_leased(&test.store, &sample.write_layout(directory.path())).unwrap();
    super::forget_splits(&test);
    let mut options = crate::store::options();
    options.limits.unpacked_bytes = 1000;
    let saved = test.store.prepare_save(&lease, (vec![super::name()], Layers::Plain), &options, &|_| {});
    let error = crate::store::block_on(saved).unwrap_err();
    let SaveError::Read { source, .. } = &error else { panic!("{error:?}") };
    assert!(source.to_string().contains("more than 1000 bytes"), "{source}");
    assert!(sample.layers.iter().all(|layer| stored(&test, layer).exists()));
}
