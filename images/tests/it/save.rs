//! Archives that are written: for ourselves, for skopeo, podman and dockerd; and those that cannot be written whole.
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use images::digest::Digest;
use images::reference::Reference;
use images::save::{History, Layers, SaveError, SavedImage, write_archive};
use images::store::{Cancel, GcPolicy, Lease, Store};
use serde_json::{Value, json};

use crate::layer_tar::{file, tar};
use crate::registry_server::RegistryServer;
use crate::sample::{Compression, Sample, TestStore, read_file, skopeo_copy};
use crate::store::{block_on, check_content, find_leased, options, pull, pull_leased, source};

mod missing;
mod peers;
mod split;

const FORMS: [Layers; 3] = [Layers::Plain, Layers::AsTheyCame, Layers::Common];

fn name() -> Reference {
    Reference::parse("example.com/a/b:1").unwrap()
}

fn prepare(store: &Store, lease: &Lease, layers: Layers) -> Result<SavedImage, SaveError> {
    block_on(store.prepare_save(lease, (vec![name()], layers), &options(), &|_| {}))
}

fn written(images: &[SavedImage]) -> Vec<u8> {
    let mut archive = Vec::new();
    write_archive(images, &mut archive, &AtomicBool::new(false)).unwrap();
    archive
}

fn saved(store: &Store, lease: &Lease, layers: Layers) -> Vec<u8> {
    written(&[prepare(store, lease, layers).unwrap()])
}

/// The members by name, none of them twice.
fn members(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut members = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let (name, mut content) = (entry.path().unwrap().to_str().unwrap().to_owned(), Vec::new());
        entry.read_to_end(&mut content).unwrap();
        assert!(members.insert(name.clone(), content).is_none(), "{name} twice");
    }
    members
}

fn document(members: &BTreeMap<String, Vec<u8>>, name: &str) -> Value {
    serde_json::from_slice(&members[name]).unwrap()
}

fn blob<'a>(members: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a Vec<u8> {
    let digest = descriptor["digest"].as_str().unwrap();
    let content = &members[&format!("blobs/{}", digest.replace(':', "/"))];
    assert_eq!(Digest::of(content).to_string(), digest);
    assert_eq!(descriptor["size"], content.len());
    content
}

/// What skopeo says of the archive in a file.
fn inspected(archive: &str) -> Vec<u8> {
    let mut command = Command::new("skopeo");
    let output =
        command.args(["--insecure-policy", "inspect", "--config", "--raw", archive]).output().unwrap();
    assert!(output.status.success(), "{archive}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn one_file_is_the_same_image_as_both_kinds_of_archive() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    for compression in [Compression::Gzip, Compression::Zstd, Compression::Plain] {
        let sample = Sample::small(compression);
        let layout = sample.write_layout(&directory.path().join(format!("{compression:?}")));
        let test = TestStore::new();
        let lease = pull_leased(&test.store, &layout).unwrap();
        for form in FORMS {
            let what = format!("{compression:?} {form:?}");
            let archive = saved(&test.store, &lease, form);
            assert_eq!(archive, saved(&test.store, &lease, form), "{what}: the same image, the same bytes");
            let members = members(&archive);
            let entry = &document(&members, "manifest.json")[0];
            assert_eq!(entry["RepoTags"], json!(["example.com/a/b:1"]));
            assert_eq!(members[entry["Config"].as_str().unwrap()], sample.config, "{what}");
            let listed = entry["Layers"].as_array().unwrap();
            let layers: Vec<&Vec<u8>> =
                listed.iter().map(|layer| &members[layer.as_str().unwrap()]).collect();
            let index = document(&members, "index.json");
            assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
            let annotations = &index["manifests"][0]["annotations"];
            assert_eq!(annotations["org.opencontainers.image.ref.name"], "example.com/a/b:1");
            let manifest = blob(&members, &index["manifests"][0]);
            match form {
                Layers::AsTheyCame => {
                    assert_eq!(layers, sample.layers.iter().collect::<Vec<_>>(), "{what}");
                    assert_eq!(manifest, &sample.manifest_bytes(), "{what}");
                }
                Layers::Common if compression != Compression::Zstd => {
                    assert_eq!(layers, sample.layers.iter().collect::<Vec<_>>(), "{what}");
                }
                Layers::Plain | Layers::Common => {
                    let found: Vec<_> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
                    assert_eq!(found, sample.diff_ids(), "{what}");
                }
            }
            let manifest: Value = serde_json::from_slice(manifest).unwrap();
            assert_eq!(blob(&members, &manifest["config"]), &sample.config);
            let described = manifest["layers"].as_array().unwrap().iter();
            assert!(described.map(|layer| blob(&members, layer)).eq(layers), "{what}");

            let path = directory.path().join(&what);
            fs::write(&path, &archive).unwrap();
            for transport in ["docker-archive", "oci-archive"] {
                let source = format!("{transport}:{}", path.display());
                assert_eq!(Digest::of(&inspected(&source)).to_string(), sample.id(), "{source}");
                skopeo_copy(&[], &source, &format!("dir:{}", directory.path().join("copy").display()));
                let again = TestStore::new();
                let loaded = block_on(again.store.load(&crate::store::source(&source), &options(), &|_| {}));
                let loaded = loaded.unwrap();
                assert_eq!(loaded[0].image().name, name().to_string(), "{source}");
                assert_eq!(loaded[0].image().id, lease.image().id, "{source}");
                assert_eq!(loaded[0].image().layers, lease.image().layers, "{source}");
                check_content(&again.store, &loaded[0]);
            }
        }
    }
}

#[test]
fn images_in_one_archive_share_their_layers_and_keep_their_names() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let shared = tar(&[file("shared", vec![b's'; 50_000])]);
    let test = TestStore::new();
    let mut images = Vec::new();
    for number in ["1", "2"] {
        let sample = Sample::of(&[shared.clone(), tar(&[file(number, number)])], Compression::Gzip);
        let lease = pull_leased(&test.store, &sample.write_layout(&directory.path().join(number))).unwrap();
        let name = Reference::parse(&format!("example.com/{number}:t")).unwrap();
        images.push(prepare(&test.store, &lease, Layers::AsTheyCame).unwrap().called(vec![name]));
    }
    let path = directory.path().join("both.tar");
    fs::write(&path, written(&images)).unwrap();
    for transport in ["docker-archive", "oci-archive"] {
        let both = source(&format!("{transport}:{}", path.display()));
        let again = TestStore::new();
        let leases = block_on(again.store.load(&both, &options(), &|_| {})).unwrap();
        let names: Vec<_> = leases.iter().map(|lease| lease.image().name.as_str()).collect();
        assert_eq!(names, ["example.com/1:t", "example.com/2:t"], "{transport}");
        for (lease, number) in leases.iter().zip(["1", "2"]) {
            assert_eq!(read_file(&again.store, lease, number).as_deref(), Some(number.as_bytes()));
        }
    }
}

#[test]
fn a_new_layer_stands_on_top_and_the_others_stay_as_they_came() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let sample = Sample::small(Compression::Gzip);
    let test = TestStore::new();
    let lease = pull_leased(&test.store, &sample.write_layout(directory.path())).unwrap();
    let top = tar(&[file("top", "of all"), file(".wh.new", "")]);
    let content = top.clone();
    let history =
        History { created: "2026-05-04T10:00:00Z".into(), created_by: "task".into(), comment: String::new() };
    let image = prepare(&test.store, &lease, Layers::AsTheyCame).unwrap();
    let image = image
        .with_layer(Box::new(move |out: &mut dyn Write| out.write_all(&content)), &history, |config| {
            config.insert("Cmd".to_owned(), json!(["true"]));
        })
        .unwrap();
    let path = directory.path().join("x.tar");
    fs::write(&path, written(&[image])).unwrap();
    let members = members(&fs::read(&path).unwrap());
    let layers = document(&members, "manifest.json")[0]["Layers"].clone();
    for (layer, expected) in
        layers.as_array().unwrap().iter().zip([&sample.layers[0], &sample.layers[1], &top])
    {
        assert_eq!(&members[layer.as_str().unwrap()], expected);
    }
    for transport in ["docker-archive", "oci-archive"] {
        let archive = format!("{transport}:{}", path.display());
        let config: Value = serde_json::from_slice(&inspected(&archive)).unwrap();
        assert_eq!(config["history"].as_array().unwrap().len(), 3);
        let again = TestStore::new();
        let loaded = pull_leased(&again.store, &archive).unwrap();
        assert_eq!(loaded.image().config.cmd, ["true"]);
        assert_eq!(read_file(&again.store, &loaded, "top").as_deref(), Some(&b"of all"[..]));
        assert_eq!(read_file(&again.store, &loaded, "new"), None);
        assert!(read_file(&again.store, &loaded, "etc/passwd").is_some());
    }
}

/// Takes so many bytes, and then no more.
struct Full<'a>(&'a mut Vec<u8>, usize);

impl Write for Full<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = bytes.len().min(self.1 - self.0.len());
        if room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.extend_from_slice(&bytes[..room]);
        Ok(room)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_archive_that_was_cut_is_an_image_to_nobody() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let test = TestStore::new();
    let lease =
        pull_leased(&test.store, &Sample::small(Compression::Gzip).write_layout(directory.path())).unwrap();
    let images = [prepare(&test.store, &lease, Layers::AsTheyCame).unwrap()];
    let whole = written(&images);
    let path = directory.path().join("cut.tar");
    // Behind the last document there are only its padding and the end.
    let last = members(&whole)["manifest.json"].len();
    let needed = whole.len() - 1024 - last.next_multiple_of(512) + last;
    for room in (1..needed).step_by(307).chain([needed - 1]) {
        let mut cut = Vec::new();
        let error = write_archive(&images, &mut Full(&mut cut, room), &AtomicBool::new(false)).unwrap_err();
        assert!(matches!(error, SaveError::Write(_)), "{room}: {error:?}");
        assert_eq!(cut, whole[..room]);
        fs::write(&path, &cut).unwrap();
        let again = TestStore::new();
        let docker = pull(&again.store, &format!("docker-archive:{}", path.display()));
        assert!(docker.is_err(), "{room} of {needed} bytes are an image");
        if room % 7 == 0 {
            let archive = format!("docker-archive:{}", path.display());
            let output =
                Command::new("skopeo").args(["inspect", "--config", "--raw", &archive]).output().unwrap();
            assert!(!output.status.success(), "{room} of {needed} bytes are an image to skopeo");
        }
    }
}

#[test]
fn nothing_more_is_written_once_it_is_cancelled() {
    struct Cancelling<'a>(&'a AtomicBool, usize);
    impl Write for Cancelling<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 += bytes.len();
            self.0.store(self.1 > 1 << 20, Ordering::Release);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let test = TestStore::new();
    let sample = Sample::of(&[crate::sample::noise_tar("x", 8 << 20)], Compression::Plain);
    let lease = pull_leased(&test.store, &sample.write_layout(directory.path())).unwrap();
    let images = [prepare(&test.store, &lease, Layers::Plain).unwrap()];
    let cancelled = AtomicBool::new(false);
    let mut out = Cancelling(&cancelled, 0);
    let error = write_archive(&images, &mut out, &cancelled).unwrap_err();
    assert!(matches!(error, SaveError::Cancelled), "{error:?}");
    assert!(out.1 < 2 << 20, "{} bytes were written", out.1);
}

/// Where the store has a blob.
fn stored(test: &TestStore, blob: &[u8]) -> std::path::PathBuf {
    test.root().join("blobs").join(Digest::of(blob).hex())
}

/// The layers as programs have left them that kept nothing to write them again from.
fn forget_splits(test: &TestStore) {
    for layer in fs::read_dir(test.root().join("layers")).unwrap() {
        fs::remove_file(layer.unwrap().path().join("split")).unwrap();
    }
}

/// An image in a registry and in a store.
fn pulled(
    registry: &RegistryServer,
    directory: &Path,
    compression: Compression,
) -> (Sample, TestStore, String) {
    let sample = Sample::small(compression);
    skopeo_copy(&["--all"], &sample.write_layout(directory), &registry.skopeo("a/b:1"));
    let test = TestStore::new();
    let name = registry.name("a/b:1");
    pull(&test.store, &name).unwrap();
    (sample, test, name)
}

#[test]
fn a_blob_that_was_damaged_after_it_was_looked_at_cuts_the_archive_and_is_fetched_for_the_next() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let registry = RegistryServer::start();
    for form in FORMS {
        let (sample, test, name) =
            pulled(&registry, &directory.path().join(format!("{form:?}")), Compression::Gzip);
        forget_splits(&test);
        let lease = find_leased(&test.store, &name).unwrap();
        let whole = saved(&test.store, &lease, form);
        let images = [prepare(&test.store, &lease, form).unwrap()];
        let path = stored(&test, &sample.layers[1]);
        let mut blob = fs::read(&path).unwrap();
        // The last bytes of gzip are the length: it inflates to the very end.
        let last = blob.len() - 1;
        blob[last] ^= 1;
        fs::write(&path, &blob).unwrap();
        let mut cut = Vec::new();
        let error = write_archive(&images, &mut cut, &AtomicBool::new(false)).unwrap_err();
        assert!(matches!(error, SaveError::Content { .. } | SaveError::Read { .. }), "{form:?}: {error:?}");
        assert!(
            tar::Archive::new(cut.as_slice()).entries().unwrap().any(|entry| {
                entry.map_or(true, |mut entry| io::copy(&mut entry, &mut io::sink()).is_err())
            })
        );
        assert!(!String::from_utf8_lossy(&cut).contains("manifest.json"));
        // Whoever prepares the next one finds it out, or is told.
        test.store.drop_damaged(&error, &Cancel::default()).unwrap();
        drop(images);
        assert_eq!(saved(&test.store, &lease, form), whole, "{form:?}");
        assert_eq!(fs::read(&path).unwrap(), sample.layers[1]);
    }
}

#[test]
fn layers_whose_blobs_were_collected_come_from_their_registry_or_not_at_all() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let registry = RegistryServer::start();
    let (sample, test, name) = pulled(&registry, &directory.path().join("a"), Compression::Gzip);
    let before = saved(&test.store, &find_leased(&test.store, &name).unwrap(), Layers::AsTheyCame);
    let collect = || {
        let is_there = || sample.layers.iter().any(|layer| stored(&test, layer).exists());
        test.store.gc(GcPolicy::Until(&|| !is_there())).unwrap();
        assert!(!is_there());
    };
    collect();
    let lease = find_leased(&test.store, &name).unwrap();
    assert_eq!(saved(&test.store, &lease, Layers::AsTheyCame), before);
    // What is held by a lease is not collected.
    let mut looks = 0;
    let counted = std::cell::RefCell::new(&mut looks);
    test.store
        .gc(GcPolicy::Until(&|| {
            **counted.borrow_mut() += 1;
            **counted.borrow_mut() > 20
        }))
        .unwrap();
    assert!(sample.layers.iter().all(|layer| stored(&test, layer).exists()));
    drop(lease);
    collect();
    // Another image has the layers in other clothes: good enough for their tar streams.
    let plain = Sample::of(&crate::sample::small_tars(), Compression::Zstd);
    let lease = find_leased(&test.store, &name).unwrap();
    drop(registry);
    let plain_of_itself = saved(&test.store, &lease, Layers::Plain);
    forget_splits(&test);
    let error = prepare(&test.store, &lease, Layers::Plain).unwrap_err();
    assert!(matches!(error, SaveError::Lost { .. }), "{error:?}");
    let other = TestStore::new();
    pull(&other.store, &plain.write_layout(&directory.path().join("z"))).unwrap();
    for layer in &plain.layers {
        fs::copy(stored(&other, layer), stored(&test, layer)).unwrap();
    }
    for name in fs::read_dir(other.root().join("names")).unwrap() {
        let name = name.unwrap();
        fs::copy(name.path(), test.root().join("names").join(name.file_name())).unwrap();
    }
    let plain_of_another = saved(&test.store, &lease, Layers::Plain);
    assert!(plain_of_another == plain_of_itself);
    let members = members(&plain_of_another);
    let entry = &document(&members, "manifest.json")[0];
    for (layer, tar) in entry["Layers"].as_array().unwrap().iter().zip(crate::sample::small_tars()) {
        assert_eq!(members[layer.as_str().unwrap()], tar);
    }
    // As they came they are nowhere any more: the tar stream is written of them as well.
    let as_they_came = saved(&test.store, &lease, Layers::AsTheyCame);
    assert!(self::members(&as_they_came) == members);
}

#[test]
fn an_archives_image_without_its_blobs_says_that_it_has_to_be_loaded_again() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let sample = Sample::small(Compression::Gzip);
    let test = TestStore::new();
    let lease = pull_leased(&test.store, &sample.write_layout(directory.path())).unwrap();
    let [plain, mut as_they_came, _] = FORMS.map(|form| members(&saved(&test.store, &lease, form)));
    fs::remove_file(stored(&test, &sample.layers[0])).unwrap();
    assert_eq!(members(&saved(&test.store, &lease, Layers::Plain)), plain);
    // There is no other place for the blob: its tar stream is written, and the other blob as it came.
    let mixed = members(&saved(&test.store, &lease, Layers::AsTheyCame));
    let entry = &document(&mixed, "manifest.json")[0];
    let layers = entry["Layers"].as_array().unwrap().iter().map(|layer| &mixed[layer.as_str().unwrap()]);
    assert!(layers.eq([&crate::sample::small_tars()[0], &sample.layers[1]]));
    as_they_came.retain(|name, _| mixed.contains_key(name));
    assert_eq!(as_they_came.len(), mixed.len() - 2, "a layer and the manifest are others");
    forget_splits(&test);
    for form in FORMS {
        let error = prepare(&test.store, &lease, form).unwrap_err();
        assert!(matches!(&error, SaveError::NotKept { .. }), "{form:?}: {error:?}");
        assert!(error.to_string().ends_with("load it again"), "{error}");
    }
}

/// Ends another thread, also where this one panics.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn what_is_being_saved_stays_while_its_name_is_removed_and_garbage_collected() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let sample = Sample::of(&[crate::sample::noise_tar("x", 4 << 20)], Compression::Gzip);
    let layout = sample.write_layout(directory.path());
    let test = TestStore::new();
    let expected = saved(&test.store, &pull_leased(&test.store, &layout).unwrap(), Layers::AsTheyCame);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ends = Ends(&ended);
        scope.spawn(|| {
            while !ended.load(Ordering::Acquire) {
                test.store.remove(&source(&layout)).unwrap();
                test.store.gc(GcPolicy::Unreferenced).unwrap();
                // The lock is for moments, and a pull wants it as well.
                std::thread::park_timeout(std::time::Duration::from_millis(5));
            }
        });
        for _ in 0..20 {
            let lease = pull_leased(&test.store, &layout).unwrap();
            let image = prepare(&test.store, &lease, Layers::AsTheyCame).unwrap();
            // The image alone holds it.
            drop(lease);
            assert!(written(&[image]) == expected);
        }
    });
    test.store.remove(&source(&layout)).unwrap();
    test.store.gc(GcPolicy::All).unwrap();
    assert!(!stored(&test, &sample.layers[0]).exists());
}
