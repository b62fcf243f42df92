//! Several pulls of one process at the same time: as many tasks of one worker make them.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use images::digest::Digest;
use images::store::{Cancel, PullError, PullErrorKind, PullOptions, StreamName};
use rustix::mount::{MountFlags, mount};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::namespace::in_own_mount_namespace;
use crate::sample::{Compression, Sample, TestStore, descriptor, noise_tar, open_store};
use crate::scripted::{Body, Reply, ScriptedServer, honest, is_layer};
use crate::store::{block_on, options, pull, source};
use crate::stream::compressed_by;

const PULLS: usize = 8;

/// Failures are told soon.
fn quick() -> PullOptions {
    let mut options = options();
    options.limits.backoff = (Duration::from_millis(5), Duration::from_millis(20));
    options
}

fn sample(name: &str) -> Sample {
    Sample::of(&[noise_tar(name, 100_000), noise_tar("another", 100_000)], Compression::Gzip)
}

/// The same image as often at once; each gets the image's id, or why there is none.
fn pull_at_once(test: &TestStore, name: &str, options: &PullOptions) -> Vec<Result<String, PullError>> {
    block_on(async {
        let mut pulls = JoinSet::new();
        for _ in 0..PULLS {
            let (store, source, options) = (test.store.clone(), source(name), options.clone());
            pulls.spawn(async move {
                let lease = store.pull(&source, &options, &|_| {}).await?;
                Ok(lease.image().id.to_string())
            });
        }
        pulls.join_all().await
    })
}

/// Waits until something holds of which the server does not tell.
pub async fn await_that(holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it does not come");
}

#[test]
fn an_image_that_eight_tasks_want_is_fetched_once() {
    let sample = sample("one");
    let served = sample.clone();
    let server = ScriptedServer::start(move |request| honest(&served, request));
    let test = TestStore::new();
    for pulled in pull_at_once(&test, &server.name(), &quick()) {
        assert_eq!(pulled.unwrap(), sample.id());
    }
    let layers = server.requests().iter().filter(|request| is_layer(&sample, request)).count();
    assert_eq!(layers, sample.layers.len());
}

#[test]
fn a_layer_that_comes_at_the_second_try_comes_to_all_who_wait() {
    let sample = sample("one");
    let (served, asked) = (sample.clone(), AtomicUsize::new(0));
    let server = ScriptedServer::start(move |request| {
        match is_layer(&served, request).then(|| asked.fetch_add(1, Ordering::SeqCst)) {
            Some(0) => Reply::new(504, ""),
            _ => honest(&served, request),
        }
    });
    for pulled in pull_at_once(&TestStore::new(), &server.name(), &quick()) {
        assert_eq!(pulled.unwrap(), sample.id());
    }
}

#[test]
fn a_pull_that_fails_fails_for_all_who_wait() {
    let sample = sample("one");
    for (reply, kind) in [
        (Reply::new(504, ""), PullErrorKind::Unreachable),
        (Reply::new(200, "something else"), PullErrorKind::Refused),
    ] {
        let served = sample.clone();
        let server = ScriptedServer::start(move |request| match is_layer(&served, request) {
            true => reply.clone(),
            false => honest(&served, request),
        });
        let test = TestStore::new();
        for pulled in pull_at_once(&test, &server.name(), &quick()) {
            assert_eq!(pulled.unwrap_err().kind(), kind);
        }
        assert!(test.store.list().unwrap().is_empty());
    }
}

#[test]
fn a_damaged_blob_that_images_of_two_registries_have_keeps_neither_from_coming() {
    let sample = Sample::of(&[noise_tar("one", 1_000_000)], Compression::Gzip);
    let serve = |sample: &Sample| {
        let served = sample.clone();
        ScriptedServer::start(move |request| honest(&served, request))
    };
    let servers = [serve(&sample), serve(&sample)];
    let test = TestStore::new();
    pull(&test.store, &servers[0].name()).unwrap();
    let blob = test.root().join("blobs").join(Digest::of(&sample.layers[0]).hex());
    let mut damaged = sample.layers[0].clone();
    damaged[500_000..510_000].fill(0);
    for round in 0..20 {
        // The layer is lost, what it is made from damaged.
        let layer = entries(&test, "layers").remove(0);
        fs::rename(layer, test.directory.path().join(format!("lost-{round}"))).unwrap();
        fs::write(&blob, &damaged).unwrap();
        let pulls = servers.each_ref().map(|server| {
            let (store, name) = (test.store.clone(), server.name());
            thread::spawn(move || pull(&store, &name))
        });
        for pulled in pulls {
            assert_eq!(pulled.join().unwrap().unwrap().id.to_string(), sample.id(), "round {round}");
        }
        assert!(fs::read(&blob).unwrap() == sample.layers[0], "round {round}");
    }
}

/// Half of the layer is there, and the disk has no room for another one.
#[test]
fn a_pull_asks_for_no_room_for_what_another_one_has_fetched() {
    const LAYER: usize = 5_000_000;
    let (large, small) = (noise_tar("large", LAYER), noise_tar("small", 1000));
    let first = Sample::of(std::slice::from_ref(&large), Compression::Plain);
    let second = Sample::of(&[large, small], Compression::Plain);
    let (served, own) = (first.clone(), second.clone());
    let (let_go, held) = std::sync::mpsc::channel::<()>();
    let held = Mutex::new(held);
    // Both are of one registry.
    let halting = ScriptedServer::start(move |request| match honest(&served, request) {
        _ if request.path.starts_with("/v2/other/") => honest(&own, request),
        Reply { body: Body::Whole(layer), .. } if is_layer(&served, request) && request.from() == 0 => {
            // Then the connection breaks.
            Reply::body(200, Body::Announced(layer[..LAYER / 10 * 9].to_vec(), layer.len()))
        }
        reply => {
            if is_layer(&served, request) {
                held.lock().unwrap().recv().unwrap();
            }
            reply
        }
    });
    let at = tempfile::tempdir().unwrap();
    in_own_mount_namespace(|| {
        // Blob and data of the large layer, and little more.
        let size = std::ffi::CString::new("size=12m").unwrap();
        mount("tmpfs", at.path(), "tmpfs", MountFlags::empty(), Some(size.as_c_str())).unwrap();
        let store = open_store(&at.path().join("images"));
        block_on(async {
            let pull = |name: &str| {
                let (store, name) = (store.clone(), source(name));
                tokio::spawn(async move { store.pull(&name, &quick(), &|_| {}).await.map(drop) })
            };
            let asked = |of_other: bool, sample: &Sample| {
                let requests = halting.requests().into_iter();
                let requests = requests.filter(|request| request.path.starts_with("/v2/other/") == of_other);
                requests.filter(|request| is_layer(sample, request)).count()
            };
            let fetching = pull(&halting.name());
            await_that(|| {
                assert!(!fetching.is_finished(), "{:?}", halting.requests());
                asked(false, &first) >= 2
            })
            .await;
            let waiting = pull(&format!("{}/other/x:1", halting.address));
            // It has looked for room when it fetches its own layer.
            await_that(|| asked(true, &second) >= 1 || waiting.is_finished()).await;
            let_go.send(()).unwrap();
            for pull in [fetching, waiting] {
                pull.await.unwrap().unwrap();
            }
            assert_eq!((store.list().unwrap().len(), asked(true, &second)), (2, 1));
        });
    });
}

#[test]
fn a_registry_that_hangs_keeps_no_other_image_waiting() {
    let [present, absent, stuck] = ["present", "absent", "stuck"].map(sample);
    let serve = |sample: &Sample| {
        let sample = sample.clone();
        ScriptedServer::start(move |request| honest(&sample, request))
    };
    let servers = [serve(&present), serve(&absent)];
    let served = stuck.clone();
    let hanging = ScriptedServer::start(move |request| match honest(&served, request) {
        Reply { body: Body::Whole(layer), .. } if is_layer(&served, request) => {
            Reply::body(200, Body::Stalled(layer[..100].to_vec(), layer.len()))
        }
        reply => reply,
    });
    let test = TestStore::new();
    pull(&test.store, &servers[0].name()).unwrap();
    block_on(async {
        let cancel = Cancel::default();
        let (store, options) = (test.store.clone(), PullOptions { cancel: cancel.clone(), ..options() });
        let name = source(&hanging.name());
        let hangs = tokio::spawn(async move { store.pull(&name, &options, &|_| {}).await.map(drop) });
        await_that(|| hanging.requests().iter().any(|request| is_layer(&stuck, request))).await;
        let found = test.store.find(&source(&servers[0].name()), &quick()).await.unwrap().unwrap();
        assert_eq!(found.image().id.to_string(), present.id());
        let pulled = test.store.pull(&source(&servers[1].name()), &quick(), &|_| {}).await.unwrap();
        assert_eq!(pulled.image().id.to_string(), absent.id());
        assert!(!hangs.is_finished());
        cancel.cancel();
        assert_eq!(hangs.await.unwrap().unwrap_err().kind(), PullErrorKind::Cancelled);
    });
}

#[test]
fn a_registry_that_names_what_others_want_and_hangs_keeps_nobody_waiting() {
    let sample = sample("one");
    let served = sample.clone();
    let server = ScriptedServer::start(move |request| honest(&served, request));
    let stream = StreamName::new("a");
    // The layers' digests, the image's, and that of another's name.
    let stream_name = stream.to_string().into_bytes();
    let wanted = [&sample.layers[0], &sample.layers[1], &sample.config, &stream_name];
    let test = TestStore::new();
    block_on(async {
        let (cancel, mut hang, mut hanging) = (Cancel::default(), JoinSet::new(), Vec::new());
        // As many as one image fetches at once in any case.
        for pair in wanted.chunks(2) {
            let ids = [Digest::of(b"1").to_string(), Digest::of(b"2").to_string()];
            let config = json!({ "os": "linux", "rootfs": { "type": "layers", "diff_ids": ids } });
            let mut named = Sample::with_config(&config, Vec::new(), Compression::Gzip);
            let layers: Vec<_> =
                pair.iter().map(|blob| descriptor(Compression::Gzip.media_type(), blob)).collect();
            named.manifest["layers"] = json!(layers);
            let server = ScriptedServer::start(move |request| match is_layer(&named, request) {
                true => Reply::body(200, Body::Silence),
                false => honest(&named, request),
            });
            let (store, name) = (test.store.clone(), source(&server.name()));
            let options = PullOptions { cancel: cancel.clone(), ..options() };
            hang.spawn(async move { store.pull(&name, &options, &|_| {}).await.map(drop) });
            let is_asked = |blob: &&Vec<u8>| {
                let digest = Digest::of(blob).to_string();
                server.requests().iter().any(|request| request.path.ends_with(&digest))
            };
            await_that(|| pair.iter().all(is_asked)).await;
            hanging.push(server);
        }
        let (options, name, tell) = (quick(), source(&server.name()), |_| {});
        let wanted = async {
            let claim = test.store.claim_stream(&stream, &options).await.unwrap();
            drop(claim);
            test.store.pull(&name, &options, &tell).await.unwrap()
        };
        let pulled = timeout(Duration::from_secs(60), wanted).await.expect("it waits");
        assert_eq!(pulled.image().id.to_string(), sample.id());
        cancel.cancel();
        for ended in hang.join_all().await {
            assert_eq!(ended.unwrap_err().kind(), PullErrorKind::Cancelled);
        }
    });
}

/// An image whose layer is compressed by xz, whose decoders may take large windows.
fn sample_of_xz(name: &str) -> Sample {
    let tar = noise_tar(name, 3_000_000);
    let diff_ids = Sample::of(std::slice::from_ref(&tar), Compression::Plain).diff_ids();
    let config = json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    Sample::with_config(&config, vec![compressed_by("xz", &tar)], Compression::Plain)
}

#[test]
fn registries_that_hang_keep_no_large_windows_from_others() {
    let stuck = ["1", "2", "3", "4", "5"].map(sample_of_xz);
    let hanging = stuck.clone().map(|served| {
        ScriptedServer::start(move |request| match honest(&served, request) {
            // Enough for a decoder to be at work.
            Reply { body: Body::Whole(layer), .. } if is_layer(&served, request) => {
                Reply::body(200, Body::Stalled(layer[..2_500_000].to_vec(), layer.len()))
            }
            reply => reply,
        })
    });
    let honest_one = sample_of_xz("6");
    let served = honest_one.clone();
    let server = ScriptedServer::start(move |request| honest(&served, request));
    let test = TestStore::new();
    block_on(async {
        let cancel = Cancel::default();
        let mut hang = JoinSet::new();
        for server in &hanging {
            let (store, name) = (test.store.clone(), source(&server.name()));
            let options = PullOptions { cancel: cancel.clone(), ..options() };
            hang.spawn(async move { store.pull(&name, &options, &|_| {}).await.map(drop) });
        }
        let has_data = |work: &PathBuf| fs::metadata(work.join("data")).is_ok_and(|data| data.len() > 0);
        await_that(|| entries(&test, "work").iter().any(has_data)).await;
        await_that(|| {
            let begun = |path: &PathBuf| fs::metadata(path).is_ok_and(|partial| partial.len() >= 500_000);
            entries(&test, "blobs").iter().filter(|path| begun(path)).count() == hanging.len()
        })
        .await;
        let name = source(&server.name());
        let (options, tell) = (quick(), |_| {});
        let pulling = test.store.pull(&name, &options, &tell);
        let pulled = timeout(Duration::from_secs(60), pulling).await.expect("it still waits");
        assert_eq!(pulled.unwrap().image().id.to_string(), honest_one.id());
        assert_eq!(hang.try_join_next().map(Result::unwrap).map(|ended| ended.is_ok()), None);
        cancel.cancel();
        for ended in hang.join_all().await {
            assert_eq!(ended.unwrap_err().kind(), PullErrorKind::Cancelled);
        }
    });
}

/// Cancels a pull as soon as something `is_so`; gives what it ends with, which is soon.
fn cancelled_when(test: &TestStore, name: &str, is_so: impl Fn() -> bool) -> PullErrorKind {
    let until = Instant::now() + Duration::from_secs(30);
    block_on(async {
        let cancel = Cancel::default();
        let (store, name) = (test.store.clone(), source(name));
        let options = PullOptions { cancel: cancel.clone(), ..quick() };
        let pull = tokio::spawn(async move { store.pull(&name, &options, &|_| {}).await.map(drop) });
        while !is_so() {
            assert!(Instant::now() < until && !pull.is_finished(), "the pull does not come so far");
            tokio::task::yield_now().await;
        }
        cancel.cancel();
        let ended = timeout(Duration::from_secs(30), pull).await.expect("it still waits");
        ended.unwrap().unwrap_err().kind()
    })
}

/// What lies in a directory of the store.
fn entries(test: &TestStore, directory: &str) -> Vec<PathBuf> {
    fs::read_dir(test.root().join(directory)).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_cancelled_pull_does_not_wait_to_commit_a_layer() {
    let sample = sample("one");
    let server = ScriptedServer::start(move |request| honest(&sample, request));
    let test = TestStore::new();
    let layers = File::open(test.root().join("layers")).unwrap();
    layers.lock().unwrap();
    // The mark is the last thing that a layer gets.
    let is_made = || entries(&test, "work").iter().any(|work| work.join("mark").exists());
    assert_eq!(cancelled_when(&test, &server.name(), is_made), PullErrorKind::Cancelled);
}

#[test]
fn a_cancelled_pull_does_not_wait_to_take_back_what_was_refused() {
    let sample = sample("one");
    let asked = Arc::new(AtomicUsize::new(0));
    let (served, count) = (sample.clone(), Arc::clone(&asked));
    let server = ScriptedServer::start(move |request| match is_layer(&served, request) {
        true => {
            count.fetch_add(1, Ordering::SeqCst);
            Reply::new(200, "something else")
        }
        false => honest(&served, request),
    });
    let test = TestStore::new();
    // Somebody uses the store, as a pull does.
    let lock = File::options().create(true).append(true).open(test.root().join("lock")).unwrap();
    lock.lock_shared().unwrap();
    let is_partial = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "partial");
    let is_refused = || asked.load(Ordering::SeqCst) > 0 && !entries(&test, "blobs").iter().any(is_partial);
    assert_eq!(cancelled_when(&test, &server.name(), is_refused), PullErrorKind::Cancelled);
}
