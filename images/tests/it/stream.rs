//! Images from archives that come as streams: any format and compression, known again, and nothing kept of one that fails.
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use hyper::body::Bytes;
use images::digest::Digest;
use images::store::{
    Encoding, GcPolicy, Lease, PullError, PullErrorKind, PullEvent, PullOptions, Store, Stream, StreamName,
    StreamSender,
};
use serde_json::json;

use crate::archive::saved;
use crate::layer_tar::{Entry, file, symlink, tar};
use crate::sample::{Compression, Sample, TestStore, noise_tar, read_file, skopeo_copy, small_tars};
use crate::store::power_cut::settled;
use crate::store::together::await_that;
use crate::store::{block_on, check_content, find, options, pull};

mod hostile;
mod processes;

/// Sends bytes in small pieces, and then says that they were all.
pub async fn send(sender: StreamSender, bytes: &[u8]) {
    for piece in bytes.chunks(10_000) {
        if !sender.send(Bytes::copy_from_slice(piece)).await {
            return;
        }
    }
    sender.finish().await;
}

/// Brings an archive in, whatever is there by that name.
pub async fn load_stream(
    store: &Store,
    name: &StreamName,
    stream: Stream,
    options: &PullOptions,
    events: &(dyn Fn(PullEvent) + Send + Sync),
) -> Result<Lease, PullError> {
    store.claim_stream(name, options).await?.load(stream, options, events).await
}

fn name(label: &str) -> StreamName {
    StreamName::new(label)
}

fn load_with(
    store: &Store,
    label: &str,
    (encoding, bytes): (Encoding, &[u8]),
    options: &PullOptions,
) -> Result<Lease, PullError> {
    block_on(async {
        let (sender, stream) = Stream::new(encoding, Some(bytes.len() as u64));
        let name = name(label);
        tokio::join!(load_stream(store, &name, stream, options, &|_| {}), send(sender, bytes)).0
    })
}

pub fn load(store: &Store, label: &str, bytes: &[u8]) -> Result<Lease, PullError> {
    load_with(store, label, (Encoding::Identity, bytes), &options())
}

pub fn find_stream(store: &Store, label: &str) -> Option<Lease> {
    block_on(store.find_stream(&name(label), &options())).unwrap()
}

/// What a tool makes of bytes.
pub fn compressed_by(tool: &str, bytes: &[u8]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x");
    fs::write(&path, bytes).unwrap();
    let output = Command::new(tool).arg("-c").arg(&path).output().unwrap();
    assert!(output.status.success(), "{tool}");
    output.stdout
}

/// As `docker save` writes it: the manifest last.
fn docker_archive() -> (Sample, Vec<Entry>) {
    let tars = small_tars();
    let sample = Sample::of(&tars, Compression::Plain);
    let mut entries = saved(&sample, &tars, "config.json", &["0/layer.tar", "1/layer.tar"]);
    let manifest = entries.remove(1);
    entries.push(manifest);
    (sample, entries)
}

/// The blobs that are kept, and nothing else that a load needs while it goes on.
fn check_kept(test: &TestStore, documents: usize) {
    let in_root = |path: &Path| path.strip_prefix(test.root()).unwrap().to_owned();
    let files: Vec<_> = test.files().iter().map(|path| in_root(path)).collect();
    let blobs = files.iter().filter(|path| path.starts_with("blobs")).count();
    let on_its_way: Vec<_> = files.iter().filter(|path| path.starts_with("work")).collect();
    assert_eq!((blobs, on_its_way.len()), (documents, 0), "{files:?}");
    assert_eq!(fs::read_dir(test.root().join("work")).unwrap().count(), 0);
}

#[test]
fn every_format_in_every_compression_is_the_same_image_and_no_copy_of_it_is_kept() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let sample = Sample::small(Compression::Gzip);
    let layout = sample.write_layout(&directory.path().join("layout"));
    let mut archives = vec![("by hand".to_owned(), tar(&docker_archive().1))];
    for transport in ["docker-archive", "oci-archive"] {
        let path = at(transport);
        skopeo_copy(&[], &layout, &format!("{transport}:{path}"));
        archives.push((transport.to_owned(), fs::read(&path).unwrap()));
    }
    for (format, archive) in &archives {
        for tool in ["", "gzip", "zstd", "xz", "bzip2", "lz4"] {
            let bytes = if tool.is_empty() { archive.clone() } else { compressed_by(tool, archive) };
            let test = TestStore::new();
            let lease =
                load(&test.store, "a", &bytes).unwrap_or_else(|error| panic!("{format} {tool}: {error:?}"));
            let image = lease.image();
            assert_eq!(image.id.to_string(), sample.id(), "{format} {tool}");
            assert_eq!(image.resolved, Digest::of(&bytes), "{format} {tool}");
            assert_eq!(image.name, "archive a");
            check_content(&test.store, &lease);
            check_kept(&test, 2);
        }
    }
}

#[test]
fn what_is_compressed_for_the_way_has_the_digest_of_what_was_sent() {
    let (sample, entries) = docker_archive();
    let archive = compressed_by("zstd", &tar(&entries));
    let sent = Compression::Gzip.compress(&archive);
    let test = TestStore::new();
    let lease = load_with(&test.store, "a", (Encoding::Gzip, &sent), &options()).unwrap();
    assert_eq!((lease.image().id.to_string(), &lease.image().resolved), (sample.id(), &Digest::of(&archive)));
    for wrong in [&archive, &sent[..sent.len() - 5], b"" as &[u8]] {
        let error = load_with(&test.store, "b", (Encoding::Gzip, wrong), &options()).unwrap_err();
        assert_eq!(error.kind(), PullErrorKind::Refused, "{error:?}");
    }
}

#[test]
fn an_image_is_known_again_by_the_callers_name_and_by_no_other() {
    let (sample, mut entries) = docker_archive();
    let names = json!([{ "Config": "config.json", "RepoTags": ["busybox:latest", "localhost/a:1"],
        "Layers": ["0/layer.tar", "1/layer.tar"] }]);
    *entries.last_mut().unwrap() = file("manifest.json", names.to_string());
    let archive = tar(&entries);
    let test = TestStore::new();
    assert!(find_stream(&test.store, "a").is_none());
    let id = load(&test.store, "a", &archive).unwrap().image().id.clone();
    assert_eq!(id.to_string(), sample.id());
    let found = find_stream(&test.store, "a").unwrap();
    assert_eq!((&found.image().id, &found.image().resolved), (&id, &Digest::of(&archive)));
    assert!(find_stream(&test.store, "b").is_none());
    for name in ["busybox", "busybox:latest", "localhost/a:1", "a", "archive/a"] {
        assert_eq!(find(&test.store, name), None, "{name}");
    }
    assert!(images::source::Source::parse(&name("a").to_string()).is_err());
    // Another archive by that name takes its place, as long as nobody uses it the first one stays.
    let other = Sample::of(&small_tars()[..1], Compression::Plain);
    let archive = tar(&saved(&other, &small_tars()[..1], "config.json", &["0/layer.tar"]));
    assert_eq!(load(&test.store, "a", &archive).unwrap().image().id.to_string(), other.id());
    assert_eq!(find_stream(&test.store, "a").unwrap().image().id.to_string(), other.id());
    check_content(&test.store, &found);
}

#[test]
fn layers_are_known_again_wherever_they_came_from() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let (sample, entries) = docker_archive();
    let layout = Sample::small(Compression::Gzip).write_layout(&directory.path().join("layout"));
    let test = TestStore::new();
    let inodes = || {
        use std::os::unix::fs::MetadataExt;
        let layers = fs::read_dir(test.root().join("layers")).unwrap().map(|layer| layer.unwrap().path());
        let mut inodes: Vec<_> =
            layers.map(|layer| fs::metadata(layer.join("data")).unwrap().ino()).collect();
        inodes.sort_unstable();
        inodes
    };
    pull(&test.store, &layout).unwrap();
    let before = inodes();
    let lease = load(&test.store, "a", &tar(&entries)).unwrap();
    assert_eq!((lease.image().id.to_string(), inodes()), (sample.id(), before.clone()));
    // And the other way round.
    drop(lease);
    test.store.remove(&images::source::Source::parse(&layout).unwrap()).unwrap();
    test.store.gc(GcPolicy::Unreferenced).unwrap();
    pull(&test.store, &layout).unwrap();
    assert_eq!(inodes(), before);
}

#[test]
fn documents_may_come_first_or_last_and_one_image_may_have_several_names() {
    let (sample, entries) = docker_archive();
    let mut reversed = entries.clone();
    reversed.reverse();
    let mut twice = entries.clone();
    let entry = |name: &str| json!({ "Config": "config.json", "RepoTags": [name], "Layers": ["0/layer.tar", "./1//layer.tar"] });
    twice.pop();
    twice.push(file("manifest.json", json!([entry("a:1"), entry("a:2")]).to_string()));
    let mut with_others = entries.clone();
    with_others.insert(0, file("0/VERSION", "1.0"));
    with_others.insert(0, file("0/json", "{}"));
    with_others.insert(0, file("repositories", "{}"));
    with_others.insert(0, file("large.json", ["{", &" ".repeat(9 << 20)].concat()));
    with_others.insert(0, file("notes", vec![b'x'; 3 << 20]));
    for (what, entries) in [("reversed", reversed), ("twice", twice), ("with others", with_others)] {
        let image = load(&TestStore::new().store, "a", &tar(&entries));
        let lease = image.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert_eq!(lease.image().id.to_string(), sample.id(), "{what}");
    }
}

#[test]
fn a_layer_that_the_archive_links_or_holds_twice_is_one() {
    let lower = small_tars().remove(0);
    let sample = Sample::of(&[lower.clone(), lower.clone()], Compression::Plain);
    let mut linked =
        saved(&sample, std::slice::from_ref(&lower), "config.json", &["0/layer.tar", "1/layer.tar"]);
    linked.push(symlink("1/layer.tar", "../0/layer.tar"));
    let twice = saved(&sample, &[lower.clone(), lower], "config.json", &["0/layer.tar", "1/layer.tar"]);
    for entries in [linked, twice] {
        let test = TestStore::new();
        let lease = load(&test.store, "a", &tar(&entries)).unwrap();
        assert_eq!((lease.image().layers.len(), lease.image().id.to_string()), (2, sample.id()));
        assert!(read_file(&test.store, &lease, "gone").is_some());
        assert_eq!(fs::read_dir(test.root().join("layers")).unwrap().count(), 1);
        check_kept(&test, 2);
    }
}

#[test]
fn layers_may_be_compressed_within_an_archive_that_is_compressed_too() {
    let tars = small_tars();
    let sample = Sample::of(&tars, Compression::Plain);
    // A decoder of xz waits for other large ones, whatever the preset: the archive's own is at work all the time.
    for inner in ["gzip", "zstd", "xz"] {
        let layers: Vec<_> = tars.iter().map(|tar| compressed_by(inner, tar)).collect();
        let entries = saved(&sample, &layers, "config.json", &["0/layer.tar", "1/layer.tar"]);
        for outer in ["", "xz", "zstd"] {
            let archive = tar(&entries);
            let bytes = if outer.is_empty() { archive } else { compressed_by(outer, &archive) };
            let test = TestStore::new();
            let lease =
                load(&test.store, "a", &bytes).unwrap_or_else(|error| panic!("{inner} {outer}: {error:?}"));
            assert_eq!(lease.image().id.to_string(), sample.id(), "{inner} {outer}");
            check_content(&test.store, &lease);
        }
    }
}

#[test]
fn an_image_of_another_architecture_is_taken_with_a_warning() {
    let tars = small_tars();
    let config = json!({ "architecture": "s390x", "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": Sample::small(Compression::Plain).diff_ids() } });
    let sample = Sample::with_config(&config, tars.clone(), Compression::Plain);
    let archive = tar(&saved(&sample, &tars, "config.json", &["0/layer.tar", "1/layer.tar"]));
    let told = Mutex::new(Vec::new());
    let test = TestStore::new();
    let lease = block_on(async {
        let (sender, stream) = Stream::new(Encoding::Identity, None);
        let (name, options, tell) = (name("a"), options(), |event| told.lock().unwrap().push(event));
        let loading = load_stream(&test.store, &name, stream, &options, &tell);
        tokio::join!(loading, send(sender, &archive)).0
    });
    assert_eq!(lease.unwrap().image().id.to_string(), sample.id());
    assert!(
        matches!(&told.into_inner().unwrap()[..], [PullEvent::Status(text)] if text.contains("s390x")),
        "one warning"
    );
}

#[test]
fn an_image_that_is_leased_stays_and_one_that_is_not_comes_again() {
    let (_, entries) = docker_archive();
    let test = TestStore::new();
    let lease = load(&test.store, "a", &tar(&entries)).unwrap();
    test.store.gc(GcPolicy::All).unwrap();
    check_content(&test.store, &lease);
    drop(lease);
    let collected = test.store.gc(GcPolicy::All).unwrap();
    assert_eq!(collected.names, ["archive a"]);
    assert!(find_stream(&test.store, "a").is_none());
    load(&test.store, "a", &tar(&entries)).unwrap();
}

#[test]
fn for_what_no_disk_could_hold_nothing_makes_room() {
    let test = TestStore::new();
    drop(load(&test.store, "kept", &tar(&docker_archive().1)).unwrap());
    let name = name("announced as larger than any disk");
    let (_sender, stream) = Stream::new(Encoding::Identity, Some(1 << 60));
    let full = block_on(load_stream(&test.store, &name, stream, &options(), &|_| {})).unwrap_err();
    assert_eq!(full.kind(), PullErrorKind::DiskFull);
    assert!(!block_on(test.store.make_room_for(&name, &options(), &full)).unwrap());
    assert!(find_stream(&test.store, "kept").is_some());
}

#[test]
fn a_layer_that_is_damaged_makes_the_image_unknown_until_it_comes_again() {
    let (_, entries) = docker_archive();
    let archive = tar(&entries);
    let test = TestStore::new();
    drop(load(&test.store, "a", &archive).unwrap());
    settled(&test.root());
    let layers = || fs::read_dir(test.root().join("layers")).unwrap().map(|layer| layer.unwrap().path());
    for layer in layers() {
        fs::write(layer.join("index"), "damaged").unwrap();
        fs::remove_file(layer.join("mark")).unwrap();
        fs::remove_file(layer.join("durable")).unwrap();
    }
    assert!(find_stream(&test.store, "a").is_none());
    let lease = load(&test.store, "a", &archive).unwrap();
    check_content(&test.store, &lease);
    drop(lease);
    // Damage that nobody has seen yet.
    for layer in layers() {
        fs::write(layer.join("index"), "damaged").unwrap();
    }
    let other = Sample::of(&small_tars()[..1], Compression::Plain);
    let archive = tar(&saved(&other, &small_tars()[..1], "config.json", &["0/layer.tar"]));
    let lease = load(&test.store, "b", &archive).unwrap();
    assert!(read_file(&test.store, &lease, "gone").is_some());
}

#[test]
fn collections_take_nothing_from_a_load_that_goes_on() {
    let (sample, entries) = docker_archive();
    let archive = tar(&entries);
    let test = TestStore::new();
    let made = |directory: &str| fs::read_dir(test.root().join(directory)).unwrap().count();
    // Whoever makes that image already: so the load stops between its layers and its image.
    let hex = sample.id().replace("sha256:", "");
    let claim = fs::File::create(test.root().join(format!("blobs/{hex}.image.partial"))).unwrap();
    claim.lock().unwrap();
    let lease = block_on(async {
        let (sender, stream) = Stream::new(Encoding::Identity, None);
        let (name, options) = (name("a"), options());
        let loading = load_stream(&test.store, &name, stream, &options, &|_| {});
        let collecting = async {
            let (sent, rest) = archive.split_at(archive.len() * 3 / 4);
            for piece in sent.chunks(20_000) {
                assert!(sender.send(Bytes::copy_from_slice(piece)).await);
            }
            await_that(|| made("work") == 1).await;
            test.store.gc(GcPolicy::All).unwrap();
            assert_eq!((made("work"), made("layers")), (1, 0), "what is being made stays");
            send(sender, rest).await;
            await_that(|| made("layers") == 2).await;
            let collected = test.store.gc(GcPolicy::All).unwrap();
            assert_eq!((collected.layers, made("layers")), (0, 2), "what waits for its image stays");
            claim.unlock().unwrap();
        };
        tokio::join!(loading, collecting).0
    });
    assert_eq!(lease.unwrap().image().id.to_string(), sample.id());
}

/// As a worker does it: looks, waits for its turn, looks again.
async fn find_or_load(store: &Store, label: &str, archive: &[u8]) -> (Lease, bool) {
    let (name, options) = (name(label), options());
    let claim = store.claim_stream(&name, &options).await.unwrap();
    if let Some(lease) = store.find_stream(&name, &options).await.unwrap() {
        return (lease, false);
    }
    let (sender, stream) = Stream::new(Encoding::Identity, None);
    let loading = claim.load(stream, &options, &|_| {});
    (tokio::join!(loading, send(sender, archive)).0.unwrap(), true)
}

#[test]
fn whoever_wants_what_another_one_brings_waits_for_that() {
    let tars = [noise_tar("x", 1_000_000)];
    let sample = Sample::of(&tars, Compression::Plain);
    let archive = tar(&saved(&sample, &tars, "config.json", &["0/layer.tar"]));
    let test = TestStore::new();
    let loaded = std::thread::scope(|scope| {
        let loads: Vec<_> = ["a", "a", "b", "a"]
            .map(|label| scope.spawn(|| block_on(find_or_load(&test.store, label, &archive)).1))
            .into();
        loads.into_iter().map(|load| load.join().unwrap()).filter(|was_loaded| *was_loaded).count()
    });
    assert_eq!(loaded, 2, "once for each name");
    check_kept(&test, 2);
    assert_eq!(fs::read_dir(test.root().join("layers")).unwrap().count(), 1);
}

#[test]
fn a_claim_that_comes_to_nothing_leaves_nothing() {
    let test = TestStore::new();
    let before = test.files();
    // Who does not want it any more begins nothing.
    for _ in 0..100 {
        let cancelled = options();
        cancelled.cancel.cancel();
        let refused = block_on(test.store.claim_stream(&name("c"), &cancelled)).unwrap_err();
        assert_eq!((refused.kind(), test.files()), (PullErrorKind::Cancelled, before.clone()));
    }
    // Who waits can be called back, and may see that only when somebody else has given the claim up.
    let claim = block_on(test.store.claim_stream(&name("c"), &options())).unwrap();
    let waiting = options();
    let refused = block_on(async {
        let call_back = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            waiting.cancel.cancel();
        };
        let (options, name) = (waiting.clone(), name("c"));
        tokio::join!(test.store.claim_stream(&name, &options), call_back).0
    });
    assert_eq!(refused.unwrap_err().kind(), PullErrorKind::Cancelled);
    drop(claim);
    block_on(await_that(|| test.files() == before));
}
