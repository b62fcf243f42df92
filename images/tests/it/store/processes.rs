//! Several processes, some of which are killed: the test starts itself as a child that pulls.
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use images::store::PullEvent;

use crate::sample::{Compression, Sample, TestStore, noise_tar, open_store, read_file};
use crate::scripted::{Body, Reply, Request, ScriptedServer, honest, is_layer};
use crate::store::{block_on, options, pull, pull_leased, source};

/// Names the store, for a child.
const STORE: &str = "IMAGES_TEST_STORE";
/// Names the image, for a child.
const IMAGE: &str = "IMAGES_TEST_IMAGE";

/// In a child: pulls, prints what happens, and is true.
fn pulled_as_child() -> bool {
    let (Some(root), Ok(name)) = (std::env::var_os(STORE), std::env::var(IMAGE)) else { return false };
    let store = open_store(Path::new(&root));
    let tell = |event: PullEvent| match event {
        PullEvent::LayerStarted { .. } => println!("started"),
        PullEvent::LayerProgress { bytes, .. } => println!("progress {bytes}"),
        _ => {}
    };
    let image = block_on(store.pull(&source(&name), &options(), &tell)).unwrap();
    println!("pulled {}", image.image().id);
    true
}

fn start_child(test: &str, root: &PathBuf, name: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(STORE, root)
        .env(IMAGE, name)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn layers() -> Sample {
    let tars: Vec<_> = ["a", "b", "c", "d"].iter().map(|name| noise_tar(name, 2_000_000)).collect();
    Sample::of(&tars, Compression::Gzip)
}

fn layer_requests(server: &ScriptedServer, sample: &Sample) -> Vec<Request> {
    server.requests().into_iter().filter(|request| is_layer(sample, request)).collect()
}

#[test]
fn two_processes_fetch_each_layer_once() {
    if pulled_as_child() {
        return;
    }
    let sample = layers();
    let served = sample.clone();
    let server = ScriptedServer::start(move |request| honest(&served, request));
    let test = TestStore::new();
    let me = "store::processes::two_processes_fetch_each_layer_once";
    let children: Vec<_> = (0..2).map(|_| start_child(me, &test.root(), &server.name())).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(&format!("pulled {}", sample.id())), "{text}");
    }
    let requests = layer_requests(&server, &sample);
    assert_eq!(requests.len(), sample.layers.len(), "{requests:?}");
    no_leftovers(&test);
}

#[test]
fn a_pull_that_was_killed_is_gone_on_with() {
    if pulled_as_child() {
        return;
    }
    let sample = layers();
    let (served, stall) = (sample.clone(), Arc::new(AtomicBool::new(true)));
    let stalls = Arc::clone(&stall);
    let server = ScriptedServer::start(move |request| match honest(&served, request) {
        // Half of each layer comes; the rest only for the second process.
        Reply { body: Body::Whole(body), .. }
            if is_layer(&served, request) && stalls.load(Ordering::SeqCst) =>
        {
            Reply::body(200, Body::Stalled(body[..1_000_000].to_vec(), body.len()))
        }
        reply => reply,
    });
    let test = TestStore::new();
    let me = "store::processes::a_pull_that_was_killed_is_gone_on_with";
    let mut child = start_child(me, &test.root(), &server.name());
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    // Chunks are kept when they are full, so somewhat less than what came.
    let mut halves = lines.filter(|line| {
        line.strip_prefix("progress ").is_some_and(|bytes| bytes.parse::<u64>().unwrap() > 800_000)
    });
    halves.next().expect("progress of a layer");
    child.kill().unwrap();
    child.wait().unwrap();
    stall.store(false, Ordering::SeqCst);
    assert!(test.files().iter().any(|path| path.to_string_lossy().ends_with(".partial")));

    let before = layer_requests(&server, &sample).len();
    let store = open_store(&test.root());
    assert_eq!(fs::read_dir(test.root().join("work")).unwrap().count(), 0);
    let lease = pull_leased(&store, &server.name()).unwrap();
    assert_eq!(lease.image().id.to_string(), sample.id());
    assert!(read_file(&store, &lease, "d").unwrap() == noise_content("d"));
    let resumed = layer_requests(&server, &sample).split_off(before);
    assert!(resumed.iter().any(|request| request.from() > 800_000), "{resumed:?}");
    no_leftovers(&test);
}

#[test]
fn a_damaged_partial_blob_is_fetched_anew() {
    let sample = Sample::small(Compression::Gzip);
    let served = sample.clone();
    let server = ScriptedServer::start(move |request| honest(&served, request));
    let test = TestStore::new();
    let digest = images::digest::Digest::of(&sample.layers[1]);
    let registry = images::digest::Digest::of(server.address.to_string().as_bytes());
    let partial = test.root().join("blobs").join(format!("{}.{}.partial", digest.hex(), registry.hex()));
    for damage in [vec![0; 100], sample.layers[1].iter().map(|byte| !byte).collect(), vec![0; 1_000_000]] {
        fs::write(&partial, damage).unwrap();
        let image = pull(&test.store, &server.name()).unwrap();
        assert_eq!(image.id.to_string(), sample.id());
        no_leftovers(&test);
        test.store.gc(images::store::GcPolicy::All).unwrap();
    }
}

fn noise_content(name: &str) -> Vec<u8> {
    let tar = noise_tar(name, 2_000_000);
    tar[512..512 + 2_000_000].to_vec()
}

fn no_leftovers(test: &TestStore) {
    let leftovers: Vec<_> = test
        .files()
        .into_iter()
        .filter(|path| {
            path.strip_prefix(test.root()).unwrap().starts_with("work")
                || path.extension().is_some_and(|end| end == "partial" || end == "new")
        })
        .collect();
    assert_eq!(leftovers, Vec::<PathBuf>::new());
}
