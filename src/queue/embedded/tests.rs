//! What a queue in a file outlives, and time that passes without anybody looking.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;

use super::*;
use crate::queue::definition::Submission;
use crate::queue::{Claim, Reason, RunState, Verdict, WorkerIdentity, WorkerQueue};
use crate::text::chain;

mod endurance;
mod stuck;

const TASK_QUEUE: &str = "local/docker-worker";

/// A directory for a queue.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("queue.sqlite")
    }

    fn open(&self) -> Result<EmbeddedQueue, QueueError> {
        EmbeddedQueue::in_directory(self.0.path(), Box::new(Timestamp::now))
    }

    /// The queue, once the thread of the one before has ended.
    async fn reopen(&self) -> EmbeddedQueue {
        let begin = Instant::now();
        loop {
            match self.open() {
                Ok(queue) => return queue,
                Err(error) => assert!(begin.elapsed() < Duration::from_secs(10), "{}", chain(&error)),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Why it does not open.
    fn refusal(&self) -> String {
        chain(&self.open().unwrap_err())
    }
}

async fn create(queue: &EmbeddedQueue) -> TaskId {
    let task_id = TaskId::random().unwrap();
    let submission = Submission::parse(br#"{"image": "i", "maxRunTime": 60}"#).unwrap();
    let definition = submission.into_task(&task_id, queue.now()).unwrap().definition;
    queue.create_task(&task_id, &definition).await.unwrap();
    task_id
}

async fn claim(queue: &EmbeddedQueue) -> Claim {
    let worker = WorkerIdentity { worker_group: "g".to_owned(), worker_id: "w".to_owned() };
    let work = WorkerQueue::embedded(queue.clone()).claim_work(TASK_QUEUE, &worker, 1).await.unwrap();
    work.claims.into_iter().next().unwrap()
}

#[tokio::test]
async fn what_a_call_has_said_is_in_the_files_whenever_the_process_is_killed() {
    let place = Place::new();
    let queue = place.open().unwrap();
    let task_id = create(&queue).await;
    let claimed = claim(&queue).await;
    // As a process leaves them that is killed now: it has not closed anything.
    let copy = Place::new();
    for entry in std::fs::read_dir(place.0.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.0.path().join(entry.file_name())).unwrap();
    }
    let after = copy.open().unwrap();
    let status = after.status(&task_id).await.unwrap();
    assert_eq!(status, queue.status(&task_id).await.unwrap());
    assert_eq!(status.runs[0].taken_until, Some(claimed.taken_until));
}

#[tokio::test]
async fn a_queue_in_a_file_goes_on_where_it_ended_and_is_nobody_elses() {
    use std::os::unix::fs::MetadataExt;
    let place = Place::new();
    let queue = place.open().unwrap();
    let task_id = create(&queue).await;
    assert!(place.refusal().contains("another process has it open"), "{}", place.refusal());
    for entry in std::fs::read_dir(place.0.path()).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().mode() & 0o777, 0o600);
    }
    drop(queue);
    let queue = place.reopen().await;
    assert_eq!(claim(&queue).await.queue.run().task_id, task_id);
}

#[tokio::test]
async fn what_is_no_queue_of_this_version_is_refused_in_words() {
    let place = Place::new();
    drop(place.open().unwrap());
    drop(place.reopen().await);
    let change = |pragma, value: i64| {
        let database = Connection::open(place.path()).unwrap();
        database.busy_timeout(Duration::from_secs(10)).unwrap();
        database.pragma_update(None, pragma, value).unwrap();
    };
    change("user_version", 7);
    assert!(place.refusal().contains("version 7"), "{}", place.refusal());
    change("application_id", 5);
    assert!(place.refusal().contains("no queue of this worker's"), "{}", place.refusal());
    std::fs::write(place.path(), "something else, and not short: ".repeat(100)).unwrap();
    assert!(place.refusal().contains("not a database"), "{}", place.refusal());
    let nowhere = place.0.path().join("absent");
    assert!(EmbeddedQueue::in_directory(&nowhere, Box::new(Timestamp::now)).is_err());
}

#[tokio::test]
async fn a_claim_runs_out_though_nobody_looks() {
    let place = Place::new();
    let ahead = Arc::new(AtomicI64::new(0));
    let millis = Arc::clone(&ahead);
    let clock: Clock = Box::new(move || {
        Timestamp::from_millis(Timestamp::now().as_millis() + millis.load(Ordering::Relaxed))
    });
    let queue = EmbeddedQueue::in_directory(place.0.path(), clock).unwrap();
    let task_id = create(&queue).await;
    claim(&queue).await;
    // Of its twenty minutes a part of a second is left.
    ahead.store(20 * 60 * 1000 - 500, Ordering::Relaxed);
    assert_eq!(queue.status(&task_id).await.unwrap().state, RunState::Running);
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(queue);
    // By this clock it would not be due.
    let status = place.reopen().await.status(&task_id).await.unwrap();
    assert_eq!(status.runs[0].reason_resolved, Some(Verdict::Exception(Reason::ClaimExpired)));
    assert_eq!((status.runs.len(), status.state), (2, RunState::Pending));
}

#[tokio::test]
async fn who_has_gone_when_it_is_their_turn_is_given_nothing() {
    let queue = EmbeddedQueue::in_memory(steady_clock()).unwrap();
    let task_id = create(&queue).await;
    let (go_on, held) = std::sync::mpsc::channel::<()>();
    let holding = queue.ask(move |_, _| {
        held.recv().unwrap_or_default();
        Ok(())
    });
    let mut holding = Box::pin(holding);
    let mut claiming = Box::pin(claim(&queue));
    // Both are asked for now; the second one's caller goes before it is its turn.
    assert!((&mut holding).now_or_never().is_none() && (&mut claiming).now_or_never().is_none());
    drop(claiming);
    drop(go_on);
    holding.await.unwrap();
    assert_eq!(queue.status(&task_id).await.unwrap().state, RunState::Pending);
}

#[tokio::test]
async fn one_answer_holds_no_more_definitions_than_fit() {
    let queue = EmbeddedQueue::in_memory(steady_clock()).unwrap();
    for _ in 0..4 {
        let task_id = TaskId::random().unwrap();
        let submission = Submission::parse(br#"{"image": "i", "maxRunTime": 60}"#).unwrap();
        let mut definition = submission.into_task(&task_id, queue.now()).unwrap().definition;
        definition.payload = serde_json::json!({ "filling": "x".repeat(7 << 20) });
        queue.create_task(&task_id, &definition).await.unwrap();
    }
    let worker = WorkerIdentity { worker_group: "g".to_owned(), worker_id: "w".to_owned() };
    let worker_queue = WorkerQueue::embedded(queue);
    for expected in [3, 1, 0] {
        let work = worker_queue.claim_work(TASK_QUEUE, &worker, 9).await.unwrap();
        assert_eq!(work.claims.len(), expected);
    }
}

#[tokio::test]
async fn claims_of_many_are_made_without_reading_all() {
    let queue = EmbeddedQueue::in_memory(steady_clock()).unwrap();
    let mut ids = Vec::new();
    for _ in 0..300 {
        ids.push(create(&queue).await);
    }
    for id in ids {
        assert_eq!(claim(&queue).await.queue.run().task_id, id);
    }
}

/// A secret of 64 KiB.
fn large_secret() -> Secret {
    let filling = serde_json::json!("x".repeat(64 << 10));
    (
        std::iter::once(("filling".to_owned(), filling)).collect(),
        Timestamp::now().plus(Duration::from_secs(600)),
    )
}

/// The files that a directory of copies has.
fn copies(place: &Place) -> usize {
    std::fs::read_dir(place.0.path().join("copies")).unwrap().count()
}

#[tokio::test]
async fn calls_are_answered_while_a_copy_is_made_and_it_has_what_they_did() {
    let place = Place::new();
    let queue = place.open().unwrap();
    for number in 0..100 {
        queue.set_secret(&format!("{number}"), large_secret()).await.unwrap();
    }
    // Both are asked for before anything is waited for, the copy first.
    let (copy, task_id) = tokio::join!(biased; queue.copy(), create(&queue));
    let copy = copy.unwrap();
    let database = Connection::open(copy.path()).unwrap();
    let text = |sql| database.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(text("SELECT task_id FROM tasks"), task_id.to_string());
    assert_eq!(text("PRAGMA integrity_check"), "ok");
    // Where it lies nothing has to be written to read it.
    assert_eq!(text("PRAGMA journal_mode"), "delete");
    drop(copy);
    assert_eq!(copies(&place), 0);
}

#[tokio::test]
async fn a_copy_that_nobody_waits_for_any_more_is_given_up() {
    let place = Place::new();
    let queue = place.open().unwrap();
    for number in 0..100 {
        queue.set_secret(&format!("{number}"), large_secret()).await.unwrap();
    }
    let waiting = [queue.copy().now_or_never(), queue.copy().now_or_never()];
    assert!(waiting.iter().all(Option::is_none));
    drop(queue);
    assert_eq!(copies(&place), 0);
}

#[tokio::test]
async fn what_a_killed_process_left_of_a_copy_goes_when_the_queue_is_opened() {
    let place = Place::new();
    let left = place.0.path().join("copies");
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("0123456789abcdef"), "not whole").unwrap();
    drop(place.open().unwrap());
    assert!(!left.exists());
}

/// A directory as a process leaves it that is killed while it has the queue: with a log that is newer than the database.
async fn killed(ids: &mut Vec<TaskId>) -> Place {
    let (place, left) = (Place::new(), Place::new());
    let queue = place.open().unwrap();
    ids.push(create(&queue).await);
    for entry in std::fs::read_dir(place.0.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), left.0.path().join(entry.file_name())).unwrap();
    }
    assert_ne!(std::fs::metadata(left.0.path().join("queue.sqlite-wal")).unwrap().len(), 0);
    left
}

#[tokio::test]
async fn a_restored_queue_has_what_the_copy_has_whatever_a_kill_left_before_or_in_the_middle() {
    let other = Place::new();
    let queue = other.open().unwrap();
    let kept = create(&queue).await;
    let copy = queue.copy().await.unwrap();
    let has = |place: &Place| {
        let (place, kept) = (place.open().unwrap(), kept.clone());
        async move { place.status(&kept).await.is_ok() }
    };
    let mut lost = Vec::new();
    let place = killed(&mut lost).await;
    EmbeddedQueue::restore(place.0.path(), copy.path()).unwrap();
    assert!(has(&place).await);
    assert!(place.reopen().await.status(&lost[0]).await.is_err());
    // Killed after each step of it.
    for removed in [&[][..], &["queue.sqlite-wal"], &["queue.sqlite-wal", "queue.sqlite"]] {
        let place = killed(&mut lost).await;
        std::fs::copy(copy.path(), place.0.path().join("restored.sqlite")).unwrap();
        for name in removed {
            std::fs::remove_file(place.0.path().join(name)).unwrap();
        }
        assert!(EmbeddedQueue::is_in(place.0.path()));
        assert!(has(&place).await, "{removed:?}");
        assert!(!place.0.path().join("restored.sqlite").exists());
    }
}

#[tokio::test]
async fn what_is_no_whole_copy_is_not_restored_nor_is_one_over_a_queue_in_use() {
    let place = Place::new();
    let queue = place.open().unwrap();
    let task_id = create(&queue).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let refusal = || chain(&EmbeddedQueue::restore(place.0.path(), file.path()).unwrap_err());
    assert!(refusal().contains("another process has it open"), "{}", refusal());
    let copy = std::fs::read(queue.copy().await.unwrap().path()).unwrap();
    drop(queue);
    let cut = copy[..copy.len() - 4096].to_vec();
    for (content, expected) in [
        (Vec::new(), "no queue of this worker's"),
        (b"something else, and not short: ".repeat(100), "not a database"),
        (cut, "malformed"),
    ] {
        std::fs::write(file.path(), content).unwrap();
        assert!(refusal().contains(expected), "{}", refusal());
        assert!(refusal().contains(file.path().to_str().unwrap()), "{}", refusal());
    }
    assert!(place.open().unwrap().status(&task_id).await.is_ok());
}

/// The names in a directory and what is at them, in order.
fn contents(place: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.is_file());
    let mut found: Vec<_> = files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    found.sort();
    found
}

#[tokio::test]
async fn what_a_queue_itself_is_in_is_no_copy_of_it_and_a_refusal_changes_nothing() {
    let other = Place::new();
    let queue = other.open().unwrap();
    create(&queue).await;
    let copy = queue.copy().await.unwrap();
    let (elsewhere, mut lost) = (Place::new(), Vec::new());
    let place = killed(&mut lost).await;
    let within = |name: &str| place.0.path().join(name);
    let beside = |name: &str| elsewhere.0.path().join(name);
    // Whole copies all of them, and what another process was about to restore.
    std::fs::create_dir(within("copies")).unwrap();
    for name in ["copies/0123456789abcdef", "kept.sqlite", "restored.sqlite"] {
        std::fs::copy(copy.path(), within(name)).unwrap();
    }
    std::fs::hard_link(place.path(), beside("hard")).unwrap();
    std::os::unix::fs::symlink(within("kept.sqlite"), beside("symbolic")).unwrap();
    std::fs::copy(place.path(), beside("without-its-log")).unwrap();
    let before = contents(place.0.path());
    let own = "that is where the queue itself is";
    for (file, expected) in [
        (place.path(), own),
        (within("queue.sqlite-wal"), own),
        (within("restored.sqlite"), own),
        (within("kept.sqlite"), own),
        (within("copies/0123456789abcdef"), own),
        (beside("hard"), own),
        (beside("symbolic"), own),
        (beside("without-its-log"), "make a copy with docker-worker standalone --backup"),
        (elsewhere.0.path().to_owned(), "that is no file"),
        (beside("absent"), "No such file"),
    ] {
        let told = chain(&EmbeddedQueue::restore(place.0.path(), &file).unwrap_err());
        assert!(told.contains(expected) && told.contains(file.to_str().unwrap()), "{told}");
        assert!(contents(place.0.path()) == before, "{file:?} changes the queue");
        assert!(within("copies/0123456789abcdef").exists());
    }
    std::fs::remove_file(within("restored.sqlite")).unwrap();
    assert!(place.open().unwrap().status(&lost[0]).await.is_ok());
}

/// A secret that says a word so often that it fills pages.
fn secret(word: &str) -> Secret {
    let (_, expires) = large_secret();
    let value = serde_json::json!(format!("{word} ").repeat(2000));
    (std::iter::once(("value".to_owned(), value)).collect(), expires)
}

#[tokio::test]
async fn a_file_keeps_nothing_of_a_secret_that_is_removed_or_replaced() {
    let place = Place::new();
    let queue = place.open().unwrap();
    for (name, word) in [("removed", "hunter2"), ("replaced", "swordfish"), ("replaced", "letmein")] {
        queue.set_secret(name, secret(word)).await.unwrap();
    }
    queue.remove_secret("removed").await.unwrap();
    let look = || {
        for (path, content) in contents(place.0.path()) {
            let has = |word: &str| content.windows(word.len()).any(|bytes| bytes == word.as_bytes());
            assert!(!has("hunter2") && !has("swordfish"), "{path:?}");
            assert!(has("letmein") || !path.ends_with("queue.sqlite"));
        }
    };
    // At once, its log included; and when it is closed.
    assert!(contents(place.0.path()).iter().any(|(path, _)| path.ends_with("queue.sqlite-wal")));
    look();
    drop(queue);
    drop(place.reopen().await);
    look();
}

#[tokio::test]
async fn whoever_sets_a_secret_again_that_a_process_had_when_it_was_killed_leaves_nothing_of_the_one_before()
{
    let (place, left) = (Place::new(), Place::new());
    let database = open::in_file(&place.path()).unwrap();
    for word in ["hunter2", "letmein"] {
        let transaction = database.unchecked_transaction().unwrap();
        secrets::set(&transaction, "a", &secret(word), Timestamp::now()).unwrap();
        transaction.commit().unwrap();
    }
    // Before it has emptied the log.
    for (path, content) in contents(place.0.path()) {
        std::fs::write(left.0.path().join(path.file_name().unwrap()), content).unwrap();
    }
    let has = |word: &str| {
        let files = contents(left.0.path());
        files.iter().any(|(_, content)| content.windows(word.len()).any(|bytes| bytes == word.as_bytes()))
    };
    assert!(has("hunter2"));
    let queue = left.open().unwrap();
    queue.set_secret("a", secret("letmein")).await.unwrap();
    assert!(has("letmein") && !has("hunter2"));
}
