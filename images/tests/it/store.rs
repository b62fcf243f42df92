//! The store from outside: pulled images are found, mounted, read, leased and collected.
use std::fs;
use std::sync::Mutex;

use images::image::Image;
use images::registry::Access;
use images::source::Source;
use images::store::{GcPolicy, PullError, PullEvent, PullOptions, Store};

use crate::namespace::in_own_mount_namespace;
use crate::registry_server::RegistryServer;
use crate::sample::{Compression, Sample, TestStore, skopeo_copy};

mod damage;
mod power_cut;
mod processes;

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
    block_on(store.pull(&source(text), &options(), &|_| {}))
}

fn pull_with_events(store: &Store, text: &str) -> (Image, Vec<PullEvent>) {
    let events = Mutex::new(Vec::new());
    let image =
        block_on(store.pull(&source(text), &options(), &|event| events.lock().unwrap().push(event))).unwrap();
    (image, events.into_inner().unwrap())
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
            let image = pull(&test.store, &text).unwrap();
            assert_eq!(image.id.to_string(), sample.id(), "{text}");
            assert_eq!(image.config.cmd, ["/bin/sh"], "{text}");
            assert_eq!(image.layers.len(), 2, "{text}");
            check_content(&test.store, &image);
        }
    }
}

/// By the index and by the mounted image.
fn check_content(store: &Store, image: &Image) {
    let passwd = store.read_file(image, "link").unwrap();
    assert_eq!(passwd.as_deref(), Some(&b"root:x:0:0::/root:/bin/sh\n"[..]));
    assert_eq!(store.read_file(image, "/etc/passwd").unwrap(), passwd);
    for absent in ["gone", "etc/group", "/etc/group", "etc"] {
        assert_eq!(store.read_file(image, absent).unwrap(), None, "{absent}");
    }
    let lease = store.lease(image).unwrap();
    let at = tempfile::tempdir().unwrap();
    in_own_mount_namespace(|| {
        store.mount(&lease, at.path()).unwrap();
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
    assert_eq!(test.store.find(&source(&name)).unwrap(), None);

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
    assert_eq!(test.store.find(&source(&name)).unwrap(), Some(image.clone()));
    assert_eq!(test.store.list().unwrap(), std::slice::from_ref(&image));

    let (again, events) = pull_with_events(&test.store, &name);
    assert_eq!(again, image);
    assert_eq!(events.last(), Some(&status(format!("Status: Image is up to date for {name}"))));
    assert_eq!(events.len(), 2, "{events:?}");
    let by_digest = source(&format!("{}@{}", registry.name("x"), image.digest));
    assert_eq!(test.store.find(&by_digest).unwrap().map(|image| image.id), Some(image.id));
}

#[test]
fn garbage_is_what_no_name_and_no_lease_needs() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let test = TestStore::new();
    let empty = test.files();
    let name = Sample::small(Compression::Gzip).write_layout(directory.path());
    let image = pull(&test.store, &name).unwrap();
    let full = test.files();

    assert_eq!(test.store.gc(GcPolicy::Unreferenced).unwrap().layers, 0);
    assert_eq!(test.files(), full);
    let lease = test.store.lease(&image).unwrap();
    assert_eq!(test.store.gc(GcPolicy::All).unwrap().names, Vec::<String>::new());
    assert!(test.store.remove(&source(&name)).unwrap());
    assert!(!test.store.remove(&source(&name)).unwrap());
    let collected = test.store.gc(GcPolicy::All).unwrap();
    assert_eq!((collected.images, collected.layers, collected.blobs), (0, 0, 4));
    check_content(&test.store, &image);
    drop(lease);
    let collected = test.store.gc(GcPolicy::Unreferenced).unwrap();
    assert_eq!((collected.images, collected.layers), (1, 2));
    assert_eq!(test.files(), empty);
}
