//! The store from outside: pulled images are found, mounted, read, leased and collected.
use std::fs;
use std::sync::{Arc, Mutex};

use images::image::Image;
use images::registry::Access;
use images::source::Source;
use images::store::{Collected, GcPolicy, Lease, PullError, PullErrorKind, PullEvent, PullOptions, Store};

use rustix::mount::{MountFlags, mount};

use crate::namespace::in_own_mount_namespace;
use crate::registry_server::RegistryServer;
use crate::sample::{Compression, Sample, TestStore, noise_tar, open_store, read_file, skopeo_copy};
use crate::scripted::{ScriptedServer, honest};

mod damage;
mod garbage;
pub mod power_cut;
mod processes;
pub mod together;
mod usage;

pub fn options() -> PullOptions {
    let mut options = PullOptions::new(Access::operator());
    options.limits.free_disk_bytes = 0;
    options.limits.free_disk_percent = 0;
    options
}

pub fn source(text: &str) -> Source {
    Source::parse(text).unwrap()
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub fn pull(store: &Store, text: &str) -> Result<Image, PullError> {
    pull_leased(store, text).map(|lease| lease.image().clone())
}

pub fn pull_leased(store: &Store, text: &str) -> Result<Lease, PullError> {
    block_on(store.pull(&source(text), &options(), &|_| {}))
}

pub fn find(store: &Store, text: &str) -> Option<Image> {
    find_leased(store, text).map(|lease| lease.image().clone())
}

pub fn find_leased(store: &Store, text: &str) -> Option<Lease> {
    block_on(store.find(&source(text), &options())).unwrap()
}

fn pull_with_events(store: &Store, text: &str) -> (Image, Vec<PullEvent>) {
    let events = Mutex::new(Vec::new());
    let image =
        block_on(store.pull(&source(text), &options(), &|event| events.lock().unwrap().push(event))).unwrap();
    (image.image().clone(), events.into_inner().unwrap())
}

#[test]
fn every_transport_gives_the_same_image() {
    let registry = RegistryServer::start();
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    for compression in [Compression::Gzip, Compression::Zstd, Compression::Plain] {
        let sample = Sample::small(compression);
        let oci = sample.write_layout(&directory.path().join(format!("oci-{compression:?}")));
        let mut sources = vec![oci.clone(), registry.name("a/b:1")];
        skopeo_copy(&[], &oci, &registry.skopeo("a/b:1"));
        let archives = ["docker-archive:D:x/y:2", "oci-archive:O:t", "dir:F"].map(|target| {
            let (transport, rest) = target.split_at(target.find(':').unwrap() + 1);
            format!("{transport}{}", at(&format!("{compression:?}{rest}")))
        });
        // Docker's own formats have no zstd: skopeo will not convert to them.
        let convertible = archives
            .iter()
            .filter(|target| compression != Compression::Zstd || !target.starts_with("docker"));
        for target in convertible {
            skopeo_copy(&[], &oci, target);
            sources.push(target.clone());
        }
        if let Ok(archive) = fs::read(at(&format!("{compression:?}D"))) {
            fs::write(at("D.gz"), Compression::Gzip.compress(&archive)).unwrap();
            sources.push(format!("docker-archive:{}", at("D.gz")));
        }
        for text in sources {
            let test = TestStore::new();
            let lease = pull_leased(&test.store, &text).unwrap();
            let image = lease.image();
            assert_eq!(image.id.to_string(), sample.id(), "{text}");
            assert_eq!(image.config.cmd, ["/bin/sh"], "{text}");
            assert_eq!(image.layers.len(), 2, "{text}");
            check_content(&test.store, &lease);
        }
    }
}

pub fn check_content(store: &Store, lease: &Lease) {
    let passwd = read_file(store, lease, "link");
    assert_eq!(passwd.as_deref(), Some(&b"root:x:0:0::/root:/bin/sh\n"[..]));
    assert_eq!(read_file(store, lease, "/etc/passwd"), passwd);
    for absent in ["gone", "etc/group", "/etc/group", "etc"] {
        assert_eq!(read_file(store, lease, absent), None, "{absent}");
    }
    check_mounted(store, lease);
}

fn check_mounted(store: &Store, lease: &Lease) {
    let at = tempfile::tempdir().unwrap();
    in_own_mount_namespace(|| {
        store.mount(lease, at.path(), &|| true).unwrap();
        assert_eq!(fs::read(at.path().join("new")).unwrap(), vec![b'n'; 100_000]);
        assert!(!at.path().join("gone").exists());
    });
}

#[test]
fn a_pull_tells_what_docker_worker_logs() {
    let registry = RegistryServer::start();
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let sample = Sample::small(Compression::Gzip);
    skopeo_copy(&[], &sample.write_layout(directory.path()), &registry.skopeo("x:1"));
    let test = TestStore::new();
    let name = registry.name("x:1");
    assert_eq!(find(&test.store, &name), None);

    let (image, events) = pull_with_events(&test.store, &name);
    let started = events.iter().filter(|event| matches!(event, PullEvent::LayerStarted { .. })).count();
    let done = events.iter().filter(|event| matches!(event, PullEvent::LayerDone { .. })).count();
    assert_eq!((started, done), (2, 2), "{events:?}");
    let status = |text: String| PullEvent::Status(text);
    let lines = [
        status(format!("Digest: {}", image.digest)),
        status(format!("Status: Downloaded newer image for {name}")),
    ];
    assert_eq!(events[events.len() - 2..], lines);
    assert_eq!(find(&test.store, &name), Some(image.clone()));
    assert_eq!(test.store.list().unwrap(), std::slice::from_ref(&image));

    let (again, events) = pull_with_events(&test.store, &name);
    assert_eq!(again, image);
    assert_eq!(events.last(), Some(&status(format!("Status: Image is up to date for {name}"))));
    assert_eq!(events.len(), 2, "{events:?}");
    let by_digest = format!("{}@{}", registry.name("x"), image.digest);
    assert_eq!(find(&test.store, &by_digest).map(|image| image.id), Some(image.id));
}

#[test]
fn garbage_is_what_no_name_and_no_lease_needs() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let test = TestStore::new();
    let empty = test.files();
    let name = Sample::small(Compression::Gzip).write_layout(directory.path());
    let lease = pull_leased(&test.store, &name).unwrap();
    let full = test.files();

    assert_eq!(test.store.gc(GcPolicy::Unreferenced).unwrap(), Collected::default());
    assert_eq!(test.store.gc(GcPolicy::All).unwrap(), Collected::default());
    assert_eq!(test.files(), full);
    assert!(test.store.remove(&source(&name)).unwrap());
    assert!(!test.store.remove(&source(&name)).unwrap());
    assert_eq!(test.store.gc(GcPolicy::All).unwrap(), Collected::default());
    check_content(&test.store, &lease);
    drop(lease);
    let collected = test.store.gc(GcPolicy::Unreferenced).unwrap();
    assert_eq!((collected.images, collected.layers, collected.blobs), (1, 2, 4));
    assert_eq!(test.files(), empty);
}

#[test]
fn under_pressure_blobs_go_first_and_then_what_was_used_longest_ago() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let test = TestStore::new();
    let names = [1, 2].map(|number: usize| {
        let sample = Sample::of(&[noise_tar(&number.to_string(), 10_000)], Compression::Gzip);
        sample.write_layout(&directory.path().join(number.to_string()))
    });
    let _used = pull_leased(&test.store, &names[0]).unwrap();
    pull(&test.store, &names[1]).unwrap();
    let partial = test.root().join("blobs").join(format!("{}.partial", "0".repeat(64)));
    fs::write(&partial, "begun").unwrap();
    assert_eq!(test.store.gc(GcPolicy::Until(&|| true)).unwrap(), Collected::default());
    assert!(partial.exists());
    let collected = test.store.gc(GcPolicy::Until(&|| false)).unwrap();
    let expected = Collected { names: vec![names[1].clone()], images: 1, layers: 1, blobs: 3 };
    assert_eq!(collected, expected);
    assert!(!partial.exists());
    assert_eq!(test.store.list().unwrap().len(), 1);
}

#[test]
fn a_full_disk_is_emptied_of_what_nobody_uses() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let layout = |name: &str, bytes: usize| {
        let sample = Sample::of(&[noise_tar(name, bytes)], Compression::Plain);
        sample.write_layout(&directory.path().join(name))
    };
    let (old, new, large) = (layout("old", 4_000_000), layout("new", 4_000_000), layout("large", 8_000_000));
    let at = tempfile::tempdir().unwrap();
    in_own_mount_namespace(|| {
        // Room for one of them: blob and data take as much again each.
        let size = std::ffi::CString::new("size=14m").unwrap();
        let none = MountFlags::empty();
        mount("tmpfs", at.path(), "tmpfs", none, Some(size.as_c_str())).unwrap();
        let store = open_store(&at.path().join("images"));
        pull(&store, &old).unwrap();
        let lease = pull_leased(&store, &new).unwrap();
        assert_eq!(lease.image().name, new);
        assert_eq!(store.list().unwrap().len(), 1);
        // What does not fit at all is not in the way afterwards.
        assert_eq!(pull(&store, &large).unwrap_err().kind(), PullErrorKind::DiskFull);
        let blobs = fs::read_dir(at.path().join("images/blobs")).unwrap();
        assert_eq!(blobs.count(), 3);
    });
}

#[test]
fn garbage_of_another_version_is_spared_while_it_is_leased() {
    let test = TestStore::new();
    let names = ["images", "layers"].map(|kind| format!("{kind}/{}.v999", "a".repeat(64)));
    let theirs = names.each_ref().map(|path| test.root().join(path));
    theirs.iter().for_each(|path| fs::create_dir(path).unwrap());
    let path = test.root().join("leases/1-0");
    fs::write(&path, names.join("\n")).unwrap();
    let lease = fs::File::open(&path).unwrap();
    rustix::fs::flock(&lease, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(test.store.gc(GcPolicy::All).unwrap(), Collected::default());
    drop(lease);
    let collected = test.store.gc(GcPolicy::All).unwrap();
    assert_eq!((collected.images, collected.layers), (1, 1));
}

#[test]
fn garbage_is_collected_while_others_pull() {
    let sample = Sample::of(&[noise_tar("a", 100_000), noise_tar("b", 100_000)], Compression::Gzip);
    let (served, test) = (sample.clone(), TestStore::new());
    let (store, collected) = (test.store.clone(), Arc::new(Mutex::new(Vec::new())));
    let seen = Arc::clone(&collected);
    let server = ScriptedServer::start(move |request| {
        // In the midst of the pull, once the other layer may be there.
        seen.lock().unwrap().push(store.gc(GcPolicy::All).unwrap());
        honest(&served, request)
    });
    let lease = pull_leased(&test.store, &server.name()).unwrap();
    assert_eq!(lease.image().id.to_string(), sample.id());
    let collected = collected.lock().unwrap();
    assert_eq!((collected.len(), collected.iter().all(|one| *one == Collected::default())), (4, true));
}
