//! Images of tasks over a way that breaks, from a storage that is at fault, with content that changes meanwhile; and workers
//! that are interrupted or killed in the middle.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use docker_worker::queue::task_id::TaskId;
use docker_worker::queue::{Reason, RunState, Verdict};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Deployment, Fault, Image, Site, Worker, await_that, file, finish};
use crate::task_images::{made_image, payload_of, write_archives};

pub const ARTIFACT: &str = "public/image.tar.zst";
const ZSTD: &str = "application/zstd";
const STORAGE: &str = "GET /storage/";

/// An image that no compression makes small.
fn large_image(marker: &str) -> Image {
    let mut noise = vec![0; 4 << 20];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    made_image(marker).layer(&[file("noise", noise)])
}

fn archive_of(worker: &Worker, image: &Image) -> PathBuf {
    let directory = worker.fresh("archives");
    write_archives(worker, image, "docker-archive", &directory);
    directory.join("docker-archive.tar.zst")
}

/// A task of another pool, which nobody runs but the test, and whose run has the artifact.
pub struct Maker {
    task_id: TaskId,
}

impl Maker {
    /// Makes it, claims its run and publishes the file.
    pub fn publish(deployment: &Deployment, archive: &Path, media_type: &str) -> Maker {
        let mut definition = deployment.definition(&json!({}));
        definition["taskQueueId"] = json!("proj-x/makers");
        let task_id = deployment.create_task(definition);
        let maker = Maker { task_id };
        let claim = json!({ "workerGroup": "tests", "workerId": "maker" });
        maker.call(deployment, &format!("POST queue/task/{}/runs/0/claim", maker.task_id), &claim);
        maker.put(deployment, archive, media_type);
        maker
    }

    pub fn task_id(&self) -> &TaskId {
        &self.task_id
    }

    fn call(&self, deployment: &Deployment, request: &str, payload: &Value) -> Value {
        let (root_url, signer) = (deployment.root_url.clone(), deployment.signer("root"));
        let (request, payload) = (request.to_owned(), payload.clone());
        let answered = deployment
            .within(async move { crate::support::call(&root_url, Some(&signer), &request, &payload).await });
        assert!((200..300).contains(&answered.status), "{answered:?}");
        answered.body
    }

    /// Puts other bytes in the place of those that are there.
    fn put(&self, deployment: &Deployment, archive: &Path, media_type: &str) {
        let path = ARTIFACT.replace('/', "%2F");
        let request = json!({
            "storageType": "s3", "contentType": media_type,
            "expires": deployment.queue.now().plus(std::time::Duration::from_secs(3600)),
        });
        let created = self.call(
            deployment,
            &format!("POST queue/task/{}/runs/0/artifacts/{path}", self.task_id),
            &request,
        );
        let url = created["putUrl"].as_str().unwrap();
        let upload = [
            "--silent",
            "--show-error",
            "--fail",
            "--header",
            &format!("content-type: {media_type}"),
            "--upload-file",
            archive.to_str().unwrap(),
            url,
        ];
        let finished = finish(deployment.program("curl", &upload).spawn().unwrap(), LIMIT);
        assert!(finished.status.success(), "{finished:?}");
    }

    /// From now on its artifacts stay as they are.
    pub fn complete(&self, deployment: &Deployment) {
        self.call(deployment, &format!("POST queue/task/{}/runs/0/completed", self.task_id), &json!({}));
    }
}

const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

fn quickly(attempts: u32) -> Value {
    json!({ "dockerConfig": { "delayFactor": 50, "maxAttempts": attempts } })
}

/// How it ended, its log, and how often storage was asked for bytes.
fn log_of(site: &Site, payload: &Value) -> (RunState, String, usize) {
    let before = site.deployment.wire.asked(STORAGE);
    let task = site.deployment.create(payload);
    let status = site.deployment.await_resolved(&task);
    // The log lies in storage, too.
    let asked = site.deployment.wire.asked(STORAGE) - before;
    (status.state, site.deployment.log(&task), asked)
}

/// What a load that goes on has in the store.
fn on_its_way(site: &Site) -> usize {
    let work = site.worker.data().join("images/work");
    let directories = fs::read_dir(work).into_iter().flatten();
    directories.map(|directory| fs::read_dir(directory.unwrap().path()).map_or(0, Iterator::count)).sum()
}

fn layers(site: &Site) -> usize {
    fs::read_dir(site.worker.data().join("images/layers")).unwrap().count()
}

#[test]
fn a_download_that_breaks_is_gone_on_with_and_a_storage_that_is_at_fault_is_asked_again() {
    let site = Site::new();
    let maker = Maker::publish(&site.deployment, &archive_of(&site.worker, &large_image("made here")), ZSTD);
    maker.complete(&site.deployment);
    let worker = site.start(&quickly(3));
    // More often than there are attempts: each time it has got on.
    site.deployment.wire.fail(STORAGE, Fault::Cut(1_200_000), 3);
    let payload = payload_of(&maker.task_id, ARTIFACT, "cat /marker; wc -c </noise");
    let (state, log, asked) = log_of(&site, &payload);
    assert_eq!((state, asked), (RunState::Completed, 4), "{log}");
    assert!(log.contains("made here") && log.contains("4194304"), "{log}");
    let retry = format!("Error downloading \"{ARTIFACT}\" from task ID \"{}\". ", maker.task_id);
    assert_eq!(log.matches(&retry).count(), 3, "{log}");
    assert_eq!(log.matches("Downloading artifact").count(), 1, "it goes on: {log}");
    worker.stop();
}

#[test]
fn what_passes_is_tried_again_as_often_as_it_may_and_what_stays_is_not() {
    let site = Site::new();
    let maker = Maker::publish(&site.deployment, &archive_of(&site.worker, &made_image("made here")), ZSTD);
    maker.complete(&site.deployment);
    let worker = site.start(&quickly(3));
    let payload = payload_of(&maker.task_id, ARTIFACT, "cat /marker");
    let artifact = format!("GET /api/queue/v1/task/{}/runs/0/artifacts", maker.task_id);
    let before = layers(&site);
    for (part, fault, times, attempts) in [
        (STORAGE, Fault::Status(503), 3, Some(3)),
        (STORAGE, Fault::Reset, 3, Some(3)),
        (STORAGE, Fault::Cut(1), 3, Some(3)),
        (STORAGE, Fault::Status(404), 1, Some(1)),
        (STORAGE, Fault::Status(403), 1, Some(1)),
        (artifact.as_str(), Fault::Refusal(403), 1, Some(1)),
        (STORAGE, Fault::Status(429), 2, None),
        (artifact.as_str(), Fault::Status(502), 1, None),
    ] {
        site.deployment.wire.fail(part, fault, times);
        let (state, log, asked) = log_of(&site, &payload);
        let Some(attempts) = attempts else {
            assert_eq!(state, RunState::Completed, "{fault:?}: {log}");
            // The next one is to be downloaded as well.
            let images = site.worker.data().join("images");
            worker_forgets(&images);
            continue;
        };
        assert_eq!(state, RunState::Failed, "{fault:?}: {log}");
        let given_up = format!(
            "Could not download artifact \"{ARTIFACT}\" from task \"{}\" after {attempts} attempt(s). Error: ",
            maker.task_id
        );
        assert!(log.contains(&given_up), "{fault:?}: {log}");
        assert_eq!(asked, if part == STORAGE { attempts } else { 0 }, "{fault:?}: {log}");
        assert_eq!((on_its_way(&site), layers(&site)), (0, before), "{fault:?}");
    }
    worker.stop();
}

/// As a collection does it.
fn worker_forgets(images: &Path) {
    for name in fs::read_dir(images.join("names")).unwrap() {
        let path = name.unwrap().path();
        if fs::read_to_string(&path).unwrap().contains("\"archive ") {
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn content_that_changes_between_two_attempts_is_taken_from_its_beginning() {
    let site = Site::new();
    let [first, second] = ["the first", "the second"].map(|it| archive_of(&site.worker, &large_image(it)));
    let maker = Maker::publish(&site.deployment, &first, ZSTD);
    let worker = site.start(&json!({ "dockerConfig": { "delayFactor": 3000, "maxAttempts": 5 } }));
    site.deployment.wire.fail(STORAGE, Fault::Cut(2_000_000), 1);
    let task = site.deployment.create(&payload_of(&maker.task_id, ARTIFACT, "cat /marker"));
    site.deployment.wire.await_asked(STORAGE, 1);
    await_that("a part of it to be there", || on_its_way(&site) > 0);
    maker.put(&site.deployment, &second, ZSTD);
    let status = site.deployment.await_resolved(&task);
    let log = site.deployment.log(&task);
    assert_eq!(status.state, RunState::Completed, "{log}");
    assert!(log.contains("the second") && log.contains("has other content by now"), "{log}");
    assert_eq!(log.matches("Downloading artifact").count(), 2, "{log}");
    // As long as it may change, nothing is taken for it that is here.
    maker.put(&site.deployment, &first, ZSTD);
    let (_, log, _) = log_of(&site, &payload_of(&maker.task_id, ARTIFACT, "cat /marker"));
    assert!(log.contains("the first") && log.contains("Downloading"), "{log}");
    maker.complete(&site.deployment);
    for downloads in [1, 0] {
        let (_, log, _) = log_of(&site, &payload_of(&maker.task_id, ARTIFACT, "cat /marker"));
        assert_eq!(log.matches("Downloading artifact").count(), downloads, "{log}");
        assert!(log.contains("the first"), "{log}");
    }
    worker.stop();
}

#[test]
fn whoever_is_cancelled_or_killed_in_the_middle_of_a_download_leaves_nothing_of_it() {
    let site = Site::new();
    let maker = Maker::publish(&site.deployment, &archive_of(&site.worker, &large_image("made here")), ZSTD);
    maker.complete(&site.deployment);
    // Nobody waits for the next attempt.
    let slowly = json!({ "dockerConfig": { "delayFactor": 600_000 } });
    let worker = site.start(&slowly);
    let payload = payload_of(&maker.task_id, ARTIFACT, "cat /marker");
    let half = || {
        site.deployment.wire.fail(STORAGE, Fault::Cut(2_000_000), 1);
        let task = site.deployment.create(&payload);
        await_that("a part of it to be there", || on_its_way(&site) > 0);
        task
    };
    let before = layers(&site);
    let cancelled = half();
    site.deployment.cancel(&cancelled);
    await_that("the part to be gone", || on_its_way(&site) == 0);
    assert_eq!(layers(&site), before);
    let killed = half();
    worker.signal(Signal::KILL);
    worker.ended();
    assert!(on_its_way(&site) > 0);
    let worker = site.start(&quickly(3));
    let status = site.deployment.await_resolved(&killed);
    assert_eq!(on_its_way(&site), 0);
    let ends: Vec<_> = status.runs.iter().map(|run| run.reason_resolved).collect();
    assert_eq!(ends, [Some(Verdict::Exception(Reason::WorkerShutdown)), Some(Verdict::Completed)]);
    worker.stop();
}

/// Two tasks at once, of one image that is not here.
#[test]
fn several_tasks_that_want_the_same_image_download_it_once() {
    let site = Site::new();
    let maker = Maker::publish(&site.deployment, &archive_of(&site.worker, &large_image("made here")), ZSTD);
    maker.complete(&site.deployment);
    site.deployment.wire.fail(STORAGE, Fault::Late(std::time::Duration::from_secs(2)), 1);
    let worker = site.start(&json!({ "capacity": 3 }));
    let payload = payload_of(&maker.task_id, ARTIFACT, "cat /marker");
    let tasks = [0; 3].map(|_| site.deployment.create(&payload));
    let states = tasks.each_ref().map(|task| site.deployment.await_resolved(task).state);
    assert_eq!(states, [RunState::Completed; 3]);
    assert_eq!(site.deployment.wire.asked(STORAGE), 1);
    worker.stop();
}
