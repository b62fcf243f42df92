use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::queue::artifact_name::ArtifactName;
use crate::queue::definition::{Submission, TaskDefinition};
use crate::queue::task_id::TaskId;
use crate::queue::{ArtifactContent, ArtifactRequest, RunId, WorkerIdentity};

/// A queue whose clock is set by hand, with a task that a worker has, and the bytes of artifacts.
struct Play {
    hour: Arc<AtomicI64>,
    queue: EmbeddedQueue,
    run: RunId,
    storage: Storage,
    directory: tempfile::TempDir,
}

fn after(hours: u64) -> Timestamp {
    Timestamp::from_millis(0).plus(Duration::from_secs(hours * 3600))
}

impl Play {
    async fn new() -> Play {
        let hour = Arc::new(AtomicI64::new(0));
        let hand = Arc::clone(&hour);
        let clock = move || Timestamp::from_millis(hand.load(Ordering::Relaxed) * 3_600_000);
        let queue = EmbeddedQueue::in_memory(Box::new(clock)).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::open(directory.path().to_owned(), "secret").unwrap();
        let run = RunId { task_id: TaskId::random().unwrap(), run_id: 0 };
        let submission = Submission::parse(br#"{"image": "i", "maxRunTime": 60}"#).unwrap();
        let task = submission.into_task(&run.task_id, queue.now()).unwrap().definition;
        let task = TaskDefinition { deadline: after(2), expires: after(48), ..task };
        queue.create_task(&run.task_id, &task).await.unwrap();
        let worker = WorkerIdentity { worker_group: "g".to_owned(), worker_id: "w".to_owned() };
        queue.claim_run(&run, &worker).await.unwrap();
        Play { hour, queue, run, storage, directory }
    }

    /// Makes an artifact; gives where its bytes are to be.
    async fn make(&self, name: &str, expires: u64) -> PathBuf {
        let name = ArtifactName::new(name).unwrap();
        let content = ArtifactContent::S3 { content_type: "text/plain".to_owned() };
        let request = ArtifactRequest { expires: after(expires), content };
        self.queue.run(self.run.clone()).create_artifact(&name, &request).await.unwrap();
        self.storage.path(&object_name(&self.run, &name))
    }

    async fn sweep_at(&self, hour: i64) -> Result<(), SweepError> {
        self.hour.store(hour, Ordering::Relaxed);
        sweep(&self.queue, &self.storage, None).await
    }

    async fn is_known(&self) -> bool {
        self.queue.status(&self.run.task_id).await.is_ok()
    }
}

#[tokio::test]
async fn the_bytes_of_an_artifact_go_a_day_after_it_has_expired_and_its_task_when_all_have_gone() {
    let play = Play::new().await;
    for (name, expires) in [("public/early", 24), ("public/late", 48)] {
        fs::write(play.make(name, expires).await, "bytes").unwrap();
    }
    let files = || fs::read_dir(play.directory.path()).unwrap().count();
    for (hour, left, is_known) in [(0, 2, true), (48, 2, true), (49, 1, true), (72, 1, true), (73, 0, false)]
    {
        play.sweep_at(hour).await.unwrap();
        assert_eq!((files(), play.is_known().await), (left, is_known), "after {hour} hours");
    }
}

#[tokio::test]
async fn what_cannot_be_removed_is_named_and_keeps_nothing_else() {
    let play = Play::new().await;
    // Directories are in the way of more artifacts than are looked at together.
    let mut in_the_way = Vec::new();
    for number in 0..501 {
        let path = play.make(&format!("public/{number}"), 24).await;
        fs::create_dir(&path).unwrap();
        in_the_way.push(path);
    }
    let last = play.make("public/last", 48).await;
    fs::write(&last, "bytes").unwrap();
    let error = play.sweep_at(73).await.unwrap_err();
    let told = chain(&error);
    assert!(
        told.contains("501 artifacts") && told.contains(play.directory.path().to_str().unwrap()),
        "{told}"
    );
    assert!(!last.exists() && play.is_known().await);
    for path in in_the_way {
        fs::remove_dir(path).unwrap();
    }
    play.sweep_at(74).await.unwrap();
    assert!(!play.is_known().await);
}

#[tokio::test]
async fn old_bytes_of_which_the_queue_knows_nothing_go_and_nothing_else() {
    let play = Play::new().await;
    let now = SystemTime::now();
    let [old, new] = [2, 0].map(|days| now - KEPT * days);
    let within = |name: &str| play.directory.path().join(name);
    let stray = |name: &str| play.storage.path(&format!("t/{}/0/public/{name}", TaskId::random().unwrap()));
    let known = play.make("public/known", 48).await;
    let (gone, young) = (stray("old"), stray("new"));
    let being_put = gone.with_extension("0123456789abcdef");
    for (path, modified) in [
        (&gone, old),
        (&young, new),
        (&known, old),
        (&being_put, old),
        (&within("README"), old),
        (&within(&"A0".repeat(32)), old),
    ] {
        fs::write(path, "bytes").unwrap();
        File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
    }
    sweep(&play.queue, &play.storage, now.checked_sub(KEPT)).await.unwrap();
    assert!(!gone.exists());
    for path in [young, known, being_put, within("README"), within(&"A0".repeat(32))] {
        assert!(path.exists(), "{path:?}");
    }
}
