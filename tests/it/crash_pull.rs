//! Workers that are killed while they bring an image, and crowds that want the same one: the work is done once, nothing
//! is left over, and the image is what it should be.

use std::fs::{self, FileTimes};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, SystemTime};

use crate::support::{
    Run, WatchedRegistry, Worker, WrittenImage, assert_holds_one_image, await_that, busybox_image, file,
    finish, sha256,
};

const LIMIT: Duration = Duration::from_secs(60);

/// Bytes that do not compress: a layer of them takes a while and is kept in several pieces.
fn noise() -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let words = (0..200_000).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    });
    words.flat_map(u64::to_le_bytes).collect()
}

fn image(worker: &Worker) -> WrittenImage {
    worker.image(&busybox_image().layer(&[file("noise", noise())]))
}

/// The image works, and its content is what was put in.
fn verify(worker: &Worker, name: &str, case: &str) {
    let run = worker.run(name, &["sha256sum", "/noise"]).expect(0, case);
    assert_eq!(
        run.output(),
        format!("{}  /noise\n", sha256(&noise()).trim_start_matches("sha256:")),
        "{case}"
    );
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    let finished = finish(child, LIMIT);
    assert_eq!(finished.status.signal(), Some(9), "{finished:?}");
}

/// Where what has come of a blob is kept: each registry's is by itself.
fn partial(worker: &Worker, registry: &WatchedRegistry, digest: &str) -> PathBuf {
    let host = registry.name.split('/').next().unwrap();
    let [blob, host] =
        [digest, &sha256(host.as_bytes())].map(|it| it.trim_start_matches("sha256:").to_owned());
    worker.data().join("images/blobs").join(format!("{blob}.{host}.partial"))
}

/// Starts a run and kills it when it has kept a part of the image's second layer.
fn killed_in_a_blob(worker: &Worker, registry: &WatchedRegistry, layer: &str) {
    registry.hold_layers_at(1_000_000);
    let (child, _) = worker.start_run(&["--image", &registry.name], &["true"]);
    registry.await_held();
    await_that("a part of the layer to be kept", || {
        partial(worker, registry, layer).metadata().is_ok_and(|file| file.len() >= 500_000)
    });
    kill(child);
    registry.let_go();
    assert!(partial(worker, registry, layer).exists());
}

#[test]
fn s47_a_pull_killed_in_a_blob_is_gone_on_with_by_the_next_run() {
    let worker = Worker::new();
    let written = image(&worker);
    let registry = WatchedRegistry::serve(&written);
    killed_in_a_blob(&worker, &registry, &written.layers[1]);
    verify(&worker, &registry.name, "after the kill");
    let asked = registry.asked_for(&written.layers[1]);
    assert!(asked.len() == 2 && asked[0].from == 0 && asked[1].from >= 500_000, "{asked:?}");
    assert_holds_one_image(&worker, 2, "after the kill");
}

#[test]
fn s47_a_part_of_a_blob_that_nobody_goes_on_with_is_dropped_after_a_day() {
    let worker = Worker::new();
    let written = image(&worker);
    let registry = WatchedRegistry::serve(&written);
    killed_in_a_blob(&worker, &registry, &written.layers[1]);
    let other = worker.image(&busybox_image().layer(&[file("other", "x")])).source;
    worker.run(&other, &["true"]).expect(0, "another image");
    let partial = partial(&worker, &registry, &written.layers[1]);
    assert!(partial.exists());
    let long_ago = FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(25 * 3600));
    fs::File::options().write(true).open(&partial).unwrap().set_times(long_ago).unwrap();
    worker.run(&other, &["true"]).expect(0, "another image, a day later");
    assert_holds_one_image(&worker, 2, "a day later");
}

#[test]
fn eight_runs_at_once_fetch_each_layer_of_an_absent_image_once() {
    let worker = Worker::new();
    let written = image(&worker);
    let registry = WatchedRegistry::serve(&written);
    registry.hold_layers_at(100_000);
    let options = ["--image", &registry.name];
    let runs: Vec<_> = (0..8).map(|_| worker.start_run(&options, &["sha256sum", "/noise"])).collect();
    // All are at it before any layer is there.
    registry.await_asked("manifest", 8);
    registry.let_go();
    for (child, artifacts) in runs {
        let run = Run::collect(finish(child, LIMIT), artifacts).expect(0, "one of eight");
        assert!(run.output().starts_with(sha256(&noise()).trim_start_matches("sha256:")), "{run:?}");
    }
    for layer in &written.layers {
        assert_eq!(registry.asked_for(layer).len(), 1, "{:?}", registry.asked());
    }
    assert_holds_one_image(&worker, 2, "after eight runs");
}

#[test]
fn one_of_two_pulls_of_an_image_that_is_killed_leaves_its_work_to_the_other() {
    let worker = Worker::new();
    let written = image(&worker);
    let registry = WatchedRegistry::serve(&written);
    registry.hold_layers_at(1_000_000);
    let options = ["--image", &registry.name];
    let (first, _) = worker.start_run(&options, &["true"]);
    registry.await_held();
    let (second, artifacts) = worker.start_run(&options, &["sha256sum", "/noise"]);
    registry.await_asked("manifest", 2);
    kill(first);
    registry.let_go();
    Run::collect(finish(second, LIMIT), artifacts).expect(0, "the other");
    verify(&worker, &registry.name, "after both");
    assert_holds_one_image(&worker, 2, "after both");
}

#[test]
fn an_archive_is_loaded_while_another_image_is_pulled() {
    let worker = Worker::new();
    let written = image(&worker);
    let registry = WatchedRegistry::serve(&written);
    // The layer that both have: whoever brings it has the other wait.
    worker.run(&worker.image(&busybox_image()).source, &["true"]).expect(0, "their common layer");
    let archive = worker.fresh("archive");
    let loaded = busybox_image()
        .layer(&[file("other", "x"), file("noise", noise())])
        .write_docker_archive(&archive, "loaded:1");
    registry.hold_layers_at(100_000);
    let (pulling, artifacts) = worker.start_run(&["--image", &registry.name], &["sha256sum", "/noise"]);
    registry.await_held();
    let runs: Vec<_> =
        (0..3).map(|_| worker.start_run(&["--image", &loaded], &["sha256sum", "/noise"])).collect();
    for (child, artifacts) in runs {
        Run::collect(finish(child, LIMIT), artifacts).expect(0, "the archive's, beside a pull");
    }
    registry.let_go();
    Run::collect(finish(pulling, LIMIT), artifacts).expect(0, "the pull");
    verify(&worker, &loaded, "the archive");
    verify(&worker, &registry.name, "the pulled image");
}
