use std::fs::{self, File};
use std::path::{Path, PathBuf};
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
        Play::until(2, 48).await
    }

    /// Its task has a deadline and expires at such hours.
    async fn until(deadline: u64, expires: u64) -> Play {
        let hour = Arc::new(AtomicI64::new(0));
        let hand = Arc::clone(&hour);
        let clock = move || Timestamp::from_millis(hand.load(Ordering::Relaxed) * 3_600_000);
        let queue = EmbeddedQueue::in_memory(Box::new(clock)).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::open(directory.path().to_owned(), "secret").unwrap();
        let run = RunId { task_id: TaskId::random().unwrap(), run_id: 0 };
        let submission = Submission::parse(br#"{"image": "i", "maxRunTime": 60}"#).unwrap();
        let task = submission.into_task(&run.task_id, queue.now()).unwrap().definition;
        let task = TaskDefinition { deadline: after(deadline), expires: after(expires), ..task };
        queue.create_task(&run.task_id, &task).await.unwrap();
        let worker = WorkerIdentity { worker_group: "g".to_owned(), worker_id: "w".to_owned() };
        queue.clone().with_claim_time(KEPT * 5).claim_run(&run, &worker).await.unwrap();
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
        sweep(&self.queue, &self.storage, Strays::Leave).await
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
async fn what_is_put_for_an_artifact_that_is_made_anew_while_it_is_swept_stays() {
    let play = Play::until(72, 96).await;
    // Others that are removed before it.
    for number in 0..300 {
        fs::write(play.make(&format!("public/{number}"), 24).await, "old").unwrap();
    }
    let path = play.make("public/last", 24).await;
    fs::write(&path, "old").unwrap();
    // Its task goes on; it is made anew once the sweep has asked for what has expired.
    let make_anew = async {
        play.make("public/last", 72).await;
        let _names = play.storage.hold_names().await;
        fs::write(&path, "new").unwrap();
    };
    let (swept, ()) = tokio::join!(biased; play.sweep_at(49), make_anew);
    swept.unwrap();
    assert_eq!(fs::read_to_string(path).unwrap(), "new");
}

/// Has a file be as if it were from so many hours ago.
fn age(path: &Path, hours: u32) {
    let modified = SystemTime::now() - Duration::from_secs(3600) * hours;
    File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
}

impl Play {
    /// A path for bytes of which the queue knows nothing.
    fn stray(&self, name: &str) -> PathBuf {
        self.storage.path(&format!("t/{}/0/public/{name}", TaskId::random().unwrap()))
    }

    async fn see_to_strays(&self, round: u64) {
        sweep(&self.queue, &self.storage, strays_of(round, SystemTime::now())).await.unwrap();
    }
}

#[tokio::test]
async fn bytes_of_which_the_queue_knows_nothing_go_a_day_after_they_were_first_seen_and_nothing_else() {
    let play = Play::new().await;
    let within = |name: &str| play.directory.path().join(name);
    let known = play.make("public/known", 48).await;
    let [gone, put_again] = ["gone", "again"].map(|name| play.stray(name));
    let others = [known, gone.with_extension("0123456789abcdef"), within("README"), within(&"A0".repeat(32))];
    for path in others.iter().chain([&gone, &put_again]) {
        fs::write(path, "bytes").unwrap();
        age(path, 24 * 365);
    }
    let all_are_there = || others.iter().chain([&put_again]).all(|path| path.exists());
    // However often it is started: a restored copy may be the wrong one.
    for round in [0, 1, 0, 1, 0] {
        play.see_to_strays(round).await;
        assert!(gone.exists() && all_are_there(), "{round}");
    }
    let marks = [&gone, &put_again].map(|path| path.with_extension("stray"));
    for (hours, is_there) in [(23, true), (25, false)] {
        marks.iter().filter(|mark| mark.exists()).for_each(|mark| age(mark, hours));
        age(&put_again, 1);
        play.see_to_strays(0).await;
        assert!(gone.exists() && all_are_there(), "a start, after {hours} hours");
        play.see_to_strays(1).await;
        assert!(gone.exists() == is_there && all_are_there(), "after {hours} hours");
    }
    assert!(!marks[0].exists());
}

#[tokio::test]
async fn bytes_that_the_queue_knows_again_are_strays_from_anew_if_it_forgets_them() {
    let play = Play::new().await;
    let name = ArtifactName::new("public/known").unwrap();
    let path = play.storage.path(&object_name(&play.run, &name));
    let mark = path.with_extension("stray");
    fs::write(&path, "bytes").unwrap();
    age(&path, 24 * 365);
    play.see_to_strays(0).await;
    age(&mark, 25);
    // As with the right copy in the queue's place.
    play.make("public/known", 48).await;
    play.see_to_strays(0).await;
    assert!(path.exists() && !mark.exists());
    // A mark whose bytes have gone otherwise goes as well.
    let other = play.stray("other").with_extension("stray");
    fs::write(&other, "").unwrap();
    play.see_to_strays(1).await;
    assert!(path.exists() && !other.exists());
}

#[tokio::test]
async fn a_mark_that_cannot_be_taken_off_keeps_no_other_one() {
    let play = Play::new().await;
    // Their bytes have gone. Directories are in the way of half of them: whatever the order, some come before others.
    let marks: Vec<_> =
        (0..40).map(|number| play.stray(&number.to_string()).with_extension("stray")).collect();
    let (in_the_way, others) = marks.split_at(20);
    in_the_way.iter().for_each(|mark| fs::create_dir(mark).unwrap());
    others.iter().for_each(|mark| fs::write(mark, "").unwrap());
    let unmarked = play.stray("unmarked");
    fs::write(&unmarked, "bytes").unwrap();
    let swept = sweep(&play.queue, &play.storage, strays_of(1, SystemTime::now())).await;
    let told = chain(&swept.unwrap_err());
    assert!(
        told.contains("20 artifacts") && told.contains(play.directory.path().to_str().unwrap()),
        "{told}"
    );
    assert!(!others.iter().any(|mark| mark.exists()));
    assert!(unmarked.exists() && unmarked.with_extension("stray").exists());
}

#[test]
fn bytes_are_removed_once_a_day_and_never_at_a_start() {
    let now = SystemTime::now();
    let removing = |round| strays_of(round, now) == Strays::RemoveMarkedBefore(now - KEPT);
    assert_eq!(strays_of(0, now), Strays::Mark);
    assert_eq!((0..60).filter(|round| removing(*round)).collect::<Vec<_>>(), [1, 25, 49]);
}
