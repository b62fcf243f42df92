//! A disk that is full in each phase of a task: exit status, resolution and the sentence that names it.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Run, SmallDisk, Worker, busybox_image, file, shell_payload, tool};

/// A worker that asks for no free space before the start, on disks that are full later.
struct Site {
    worker: Worker,
    config: String,
}

impl Site {
    fn new() -> Site {
        let worker = Worker::new();
        let config = worker.fresh("config").with_extension("yml");
        fs::write(&config, "capacityManagement: {diskspaceThreshold: 1}\n").unwrap();
        Site { config: config.to_str().unwrap().to_owned(), worker }
    }

    fn task(&self, payload: &Value) -> Run {
        self.worker.task_with(payload, &["--config", &self.config])
    }

    /// The task with so much room at `at`.
    fn task_on(&self, at: &Path, size: &str, payload: &Value) -> Run {
        let disk = SmallDisk::mount(at, size);
        let run = self.task(payload);
        assert_eq!(
            (self.worker.containers().len(), self.worker.data_of_task()),
            (0, None),
            "{size}: {run:?}"
        );
        drop(disk);
        self.worker.assert_nothing_left(size);
        run
    }

    fn on_data(size: &str, payload: &Value) -> Run {
        let site = Site::new();
        site.task_on(&site.worker.data(), size, payload)
    }
}

/// The task is `resource-unavailable`, and author or operator reads `sentence`.
fn check(case: &str, run: Run, sentence: &str) {
    let run = run.expect(122, case);
    assert_eq!(run.resolution["state"], "exception", "{case}: {run:?}");
    assert_eq!(run.resolution["reason"], "resource-unavailable", "{case}: {run:?}");
    assert!(run.words().contains(sentence), "{case}: {run:?}");
}

#[test]
fn a_disk_that_is_full_in_the_pull_is_named_by_what_did_not_fit() {
    let source = Worker::new();
    let image = source.image(&busybox_image()).source;
    // Forty megabytes that compress to almost nothing.
    let bulky = busybox_image().layer(&[file("bulky", vec![b'x'; 40 << 20])]);
    let bulky = source.image(&bulky).source;
    for (size, image, sentence) in [
        ("4k", &image, "Failed to keep the whole log of the task: No space left on device"),
        ("1m", &image, "free some space, or remove images"),
        ("2m", &image, "failed to take in layer sha256:"),
        ("20m", &bulky, "failed to take in layer sha256:"),
    ] {
        check(size, Site::on_data(size, &shell_payload(image, "true")), sentence);
    }
}

#[test]
fn a_disk_that_is_full_while_the_task_runs_ends_it() {
    let source = Worker::new();
    let image = source.image(&busybox_image()).source;
    for (case, size, script) in [
        ("upper directory", "80m", "dd if=/dev/zero of=/big bs=1M; sleep 60"),
        ("log", "80m", "yes 0123456789 | head -c 500000000; sleep 60"),
        // Nothing is left for the log's last lines: the operator reads them.
        ("both", "300m", "dd if=/dev/zero of=/big bs=1M; yes 0123456789 | head -c 3000000; sleep 60"),
    ] {
        let run = Site::on_data(size, &shell_payload(&image, script));
        check(case, run, "The task was ended because the worker's disk is full: ");
    }
}

/// Page by page from where nothing but the image fits to where all does: whichever file it is that does not fit, the end
/// is the same.
#[test]
fn a_disk_that_is_full_at_any_page_is_named_and_nothing_is_left() {
    let source = Worker::new();
    let payload = shell_payload(&source.image(&busybox_image()).source, "sleep 60");
    let whole = Site::new();
    whole.worker.run(payload["image"].as_str().unwrap(), &["true"]).expect(0, "the image is fetched");
    let kilobytes: u64 = tool("du", &["-sk", whole.worker.data().to_str().unwrap()])
        .split_whitespace()
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap();
    let begin = kilobytes.next_multiple_of(4) - 80;
    for size in (begin..begin + 120).step_by(4) {
        let size = format!("{size}k");
        let run = Site::on_data(&size, &payload);
        assert!(!run.words().contains("panicked"), "{size}: {run:?}");
        let sentences = ["No space left", "disk is full", "free some space, or remove images"];
        let said = sentences.into_iter().find(|sentence| run.words().contains(sentence));
        check(&size, run, said.unwrap_or("a full disk"));
    }
}

#[test]
fn a_run_directory_that_is_full_is_named() {
    let site = Site::new();
    let image = site.worker.image(&busybox_image()).source;
    site.worker.run(&image, &["true"]).expect(0, "the image is fetched");
    let at = site.worker.run_directory();
    check(
        "files",
        site.task_on(&at, "16k", &shell_payload(&image, "true")),
        "/config.json: No space left on device",
    );
}

#[test]
fn an_artifacts_directory_that_cannot_be_written_is_named_and_nothing_is_left() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    worker.run(&image, &["true"]).expect(0, "the image is fetched");
    let place = worker.fresh("small");
    let disk = SmallDisk::mount(&place, "64k");
    let mut payload = shell_payload(&image, "dd if=/dev/urandom of=/big bs=1M count=4");
    payload["artifacts"] = json!({ "public/big": { "type": "file", "path": "/big" } });
    let at = place.to_str().unwrap();
    let failed = "Error uploading \"public/big\" artifact. Failed to store it: ";
    let full = worker.task_with(&payload, &["--artifacts", at]).expect(123, "full");
    assert!(full.log.contains(&format!("{failed}the disk is full: ")), "{full:?}");
    assert_eq!(full.resolution["reason"], "failed", "what did not fit makes room: {full:?}");
    let remount = |how: &str| tool("mount", &["-o", &format!("remount,{how}"), at]);
    remount("ro");
    let stale = worker.task_with(&payload, &["--artifacts", at]).expect(2, "an earlier run's resolution");
    assert!(stale.stderr.contains("the old resolution.json"), "{stale:?}");
    remount("rw");
    fs::remove_file(full.artifacts.join("resolution.json")).unwrap();
    remount("ro");
    let read_only = worker.task_with(&payload, &["--artifacts", at]).expect(123, "read-only");
    assert!(read_only.log.contains(&format!("{failed}Read-only file system")), "{read_only:?}");
    drop(disk);
}
