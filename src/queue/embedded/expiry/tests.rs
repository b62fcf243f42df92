use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::*;
use crate::queue::definition::{Submission, TaskDefinition};
use crate::queue::{ArtifactContent, ArtifactRequest, IndexedTask, WorkerIdentity};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A queue in a file, and by how many milliseconds its clock is ahead.
struct Play {
    queue: EmbeddedQueue,
    ahead: Arc<AtomicI64>,
    directory: tempfile::TempDir,
}

impl Play {
    fn new() -> Play {
        let directory = tempfile::tempdir().unwrap();
        let ahead = Arc::new(AtomicI64::new(0));
        let hand = Arc::clone(&ahead);
        let now = move || Timestamp::from_millis(Timestamp::now().as_millis() + hand.load(Ordering::Relaxed));
        let queue = EmbeddedQueue::in_directory(directory.path(), Box::new(now)).unwrap();
        Play { queue, ahead, directory }
    }

    fn pass(&self, days: u32) {
        let millis = i64::try_from((DAY * days).as_millis()).unwrap();
        self.ahead.fetch_add(millis, Ordering::Relaxed);
    }

    /// Makes a task that expires after so many days.
    async fn make(&self, days: u32, dependencies: &[&TaskId], payload: &str) -> TaskId {
        let task_id = TaskId::random().unwrap();
        let submission = Submission::parse(br#"{"image": "i", "maxRunTime": 60}"#).unwrap();
        let task = submission.into_task(&task_id, self.queue.now()).unwrap().definition;
        let task = TaskDefinition {
            expires: self.queue.now().plus(DAY * days),
            dependencies: dependencies.iter().map(|&id| id.clone()).collect(),
            payload: serde_json::json!({ "filling": payload }),
            ..task
        };
        self.queue.create_task(&task_id, &task).await.unwrap();
        task_id
    }

    /// Has a worker make an artifact that expires after so many days.
    async fn make_artifact(&self, task_id: &TaskId, name: &str, days: u32) {
        let worker = WorkerIdentity { worker_group: "g".to_owned(), worker_id: "w".to_owned() };
        let run = RunId { task_id: task_id.clone(), run_id: 0 };
        // It may have it already.
        self.queue.claim_run(&run, &worker).await.map(drop).unwrap_or_default();
        let content = ArtifactContent::S3 { content_type: "text/plain".to_owned() };
        let request = ArtifactRequest { expires: self.queue.now().plus(DAY * days), content };
        let name = ArtifactName::new(name).unwrap();
        self.queue.run(run).create_artifact(&name, &request).await.unwrap();
    }

    async fn forget(&self) {
        while self.queue.forget_tasks(self.queue.now()).await.unwrap() == More::Maybe {}
    }

    /// The rows of each table.
    async fn rows(&self) -> Vec<(String, i64)> {
        let rows = self.queue.ask(|database, _| {
            let names = select(
                database,
                "list tables",
                "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name",
                [],
                |row| row.get::<_, String>("name"),
            )?;
            let count = |name: &String| {
                database.query_row(&format!("SELECT count(*) FROM {name}"), [], |row| row.get(0)).unwrap()
            };
            Ok(names.iter().map(|name| (name.clone(), count(name))).collect())
        });
        rows.await.unwrap()
    }

    /// Bytes of the files.
    fn size(&self) -> u64 {
        let entries = std::fs::read_dir(self.directory.path()).unwrap();
        entries.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    }
}

#[tokio::test]
async fn nothing_is_left_of_what_has_expired() {
    let play = Play::new();
    let required = play.make(6, &[], "").await;
    for _ in 0..2 * TASKS_AT_ONCE {
        play.make(6, &[&required], "").await;
    }
    let worker = WorkerIdentity { worker_group: "g".to_owned(), worker_id: "w".to_owned() };
    let workers = crate::queue::WorkerQueue::embedded(play.queue.clone());
    workers.claim_work("local/docker-worker", &worker, 1).await.unwrap();
    let expires = play.queue.now().plus(DAY * 6);
    let (namespace, rank, data) = ("a.b".to_owned(), 0.into(), serde_json::Map::new());
    let named = IndexedTask { namespace, task_id: required, rank, data, expires };
    play.queue.insert_indexed(named).await.unwrap();
    play.queue.set_secret("a", (serde_json::Map::new(), expires)).await.unwrap();
    play.pass(5);
    // What follows from the deadlines that have passed is done before the next call.
    play.queue.count_tasks("local/docker-worker").await.unwrap();
    let before = play.rows().await;
    play.forget().await;
    let after = play.rows().await;
    assert!(
        before
            .iter()
            .all(|(name, rows)| *rows > 0 || ["artifacts", "purges", "releases"].contains(&name.as_str())),
        "{before:?}"
    );
    let workers_gone = |it: &(String, i64)| (it.0.clone(), if it.0 == "workers" { 0 } else { it.1 });
    assert_eq!(after, before.iter().map(workers_gone).collect::<Vec<_>>());
    play.pass(2);
    play.forget().await;
    assert!(play.rows().await.iter().all(|(_, rows)| *rows == 0), "{:?}", play.rows().await);
}

#[tokio::test]
async fn a_task_stays_as_long_as_an_artifact_of_it_whose_bytes_are_there() {
    let play = Play::new();
    let task_id = play.make(6, &[], "").await;
    for (name, days) in [("public/early", 1), ("public/late", 5)] {
        play.make_artifact(&task_id, name, days).await;
    }
    let expired = |before| {
        let found = play.queue.expired_artifacts(before, None);
        async move { found.await.unwrap().items.into_iter().map(|(_, name)| name.to_string()).collect::<Vec<_>>() }
    };
    assert!(expired(play.queue.now()).await.is_empty());
    play.pass(2);
    let now = play.queue.now();
    assert_eq!(expired(now).await, ["public/early"]);
    play.pass(5);
    play.forget().await;
    play.queue.status(&task_id).await.unwrap();
    let early = play.queue.expired_artifacts(now, None).await.unwrap().items;
    play.queue.forget_artifacts(now, early).await.unwrap();
    assert_eq!(expired(play.queue.now()).await, ["public/late"]);
    let all = play.queue.expired_artifacts(play.queue.now(), None).await.unwrap().items;
    // Whoever has looked at another time keeps what has not expired by then.
    play.queue.forget_artifacts(now, all.clone()).await.unwrap();
    assert_eq!(expired(play.queue.now()).await, ["public/late"]);
    play.queue.forget_artifacts(play.queue.now(), all).await.unwrap();
    play.forget().await;
    assert!(matches!(play.queue.status(&task_id).await, Err(QueueError::NotFound { .. })));
}

#[tokio::test]
async fn the_file_is_small_again_once_much_is_forgotten() {
    let play = Play::new();
    let kept = play.make(300, &[], "").await;
    let filling = "x".repeat(1 << 20);
    for _ in 0..40 {
        play.make(6, &[], &filling).await;
    }
    let full = play.size();
    play.pass(7);
    play.forget().await;
    let mut pieces = 0;
    while play.queue.shrink().await.unwrap() == More::Maybe {
        pieces += 1;
    }
    assert!(full > 40 << 20 && pieces > 5, "{full} bytes, {pieces} pieces");
    assert_eq!(play.queue.status(&kept).await.unwrap().task_id, kept);
    let Play { queue, directory, .. } = play;
    drop(queue);
    let left = std::fs::metadata(directory.path().join("queue.sqlite")).unwrap().len();
    assert!(left < 1 << 20, "{left} bytes");
}

#[tokio::test]
async fn expired_artifacts_and_all_others_are_listed_in_pieces() {
    let play = Play::new();
    let task_id = play.make(6, &[], "").await;
    let all = ARTIFACTS_AT_ONCE + 5;
    for number in 0..all {
        play.make_artifact(&task_id, &format!("public/{number}"), 1).await;
    }
    play.make_artifact(&task_id, "public/late", 5).await;
    play.pass(2);
    let now = play.queue.now();
    let first = play.queue.expired_artifacts(now, None).await.unwrap();
    let second = play.queue.expired_artifacts(now, first.next).await.unwrap();
    assert_eq!((first.items.len(), second.items.len()), (ARTIFACTS_AT_ONCE, 5));
    assert!(second.next.is_none() && second.items.iter().all(|key| !first.items.contains(key)));
    let first = play.queue.artifacts(None).await.unwrap();
    let second = play.queue.artifacts(first.next).await.unwrap();
    assert_eq!((first.items.len(), second.items.len()), (ARTIFACTS_AT_ONCE, 6));
    assert!(second.next.is_none() && second.items.iter().all(|key| !first.items.contains(key)));
}

#[tokio::test]
async fn a_group_is_known_as_long_as_a_task_of_it() {
    let play = Play::new();
    let task_id = play.make(6, &[], "").await;
    play.make_artifact(&task_id, "public/a", 5).await;
    play.pass(8);
    play.forget().await;
    let group = play.queue.status(&task_id).await.unwrap().task_group_id;
    play.queue.task_group(&group).await.unwrap();
    let all = play.queue.expired_artifacts(play.queue.now(), None).await.unwrap().items;
    play.queue.forget_artifacts(play.queue.now(), all).await.unwrap();
    play.forget().await;
    assert!(matches!(play.queue.task_group(&group).await, Err(QueueError::NotFound { .. })));
}

#[tokio::test]
async fn a_task_on_which_thousands_depend_is_forgotten_in_pieces() {
    let play = Play::new();
    let required = play.make(6, &[], "").await;
    for _ in 0..DEPENDENCIES_AT_ONCE + 5 {
        play.make(6, &[&required], "").await;
    }
    play.pass(8);
    let dependencies = async || {
        let rows = play.rows().await;
        usize::try_from(rows.iter().find(|(name, _)| name == "dependencies").unwrap().1).unwrap()
    };
    let before = dependencies().await;
    assert_eq!(play.queue.forget_tasks(play.queue.now()).await.unwrap(), More::Maybe);
    assert_eq!(before - dependencies().await, DEPENDENCIES_AT_ONCE);
    play.forget().await;
    assert!(play.rows().await.iter().all(|(_, rows)| *rows == 0), "{:?}", play.rows().await);
}

#[tokio::test]
async fn a_secret_that_has_expired_is_in_no_file_once_it_is_forgotten() {
    let play = Play::new();
    let secret = serde_json::Map::from_iter([("value".to_owned(), "hunter2 ".repeat(2000).into())]);
    play.queue.set_secret("a", (secret, play.queue.now().plus(DAY))).await.unwrap();
    let is_in_a_file = || {
        std::fs::read_dir(play.directory.path()).unwrap().any(|entry| {
            let content = std::fs::read(entry.unwrap().path()).unwrap();
            content.windows(7).any(|bytes| bytes == b"hunter2")
        })
    };
    assert!(is_in_a_file());
    play.pass(2);
    play.forget().await;
    assert!(!is_in_a_file());
}

#[tokio::test]
async fn workers_names_and_secrets_are_forgotten_in_pieces() {
    let play = Play::new();
    let fill = format!(
        "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {})",
        FORGOTTEN_AT_ONCE + 5
    );
    for insert in [
        "INSERT INTO workers SELECT 'p/w', 'g', n, 0, 0, NULL, '[]' FROM numbers",
        "INSERT INTO indexed_tasks SELECT n, 0, '{}' FROM numbers",
        "INSERT INTO secrets SELECT n, 0, '{}' FROM numbers",
    ] {
        let insert = format!("{fill} {insert}");
        play.queue.ask(move |database, _| execute(database, "fill a table", &insert, [])).await.unwrap();
    }
    let left =
        async || play.rows().await.iter().map(|(_, rows)| *rows).filter(|rows| *rows > 0).collect::<Vec<_>>();
    assert_eq!(play.queue.forget_tasks(play.queue.now()).await.unwrap(), More::Maybe);
    assert_eq!(left().await, [5; 3]);
    assert_eq!(play.queue.forget_tasks(play.queue.now()).await.unwrap(), More::No);
    assert!(left().await.is_empty());
}
