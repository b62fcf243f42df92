//! What a call costs does not grow with what else there is, nor with what a task is: it is counted in steps of SQLite's
//! machine and in pages that are written, without a clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::{Connection, Transaction};

use super::schedule::Claimant;
use super::*;
use crate::queue::definition::{Submission, TaskDefinition};
use crate::queue::{RunState, Verdict, WorkerIdentity};

const POOL: &str = "local/docker-worker";
const OTHERS: usize = 1000;

/// A database with so many tasks that wait for a worker, and up to [`OTHERS`] that wait for the first of them and that are
/// claimed.
struct Filled {
    database: Connection,
    first: TaskId,
    now: Timestamp,
    steps: Arc<AtomicU64>,
}

impl Filled {
    fn with(tasks: usize) -> Filled {
        let now = Timestamp::now();
        let mut database = open::in_memory().unwrap();
        let transaction = database.transaction().unwrap();
        let group = TaskId::random().unwrap();
        let make = |pool: &str, dependencies: &[TaskId]| {
            let (task_queue_id, dependencies) = (pool.to_owned(), dependencies.to_vec());
            make(&transaction, now, |task| TaskDefinition {
                task_queue_id,
                task_group_id: group.clone(),
                dependencies,
                ..task
            })
        };
        let first = make(POOL, &[]);
        for _ in 1..tasks {
            make(POOL, &[]);
        }
        for _ in 1..tasks.min(OTHERS) {
            make(POOL, std::slice::from_ref(&first));
            make("local/other", &[]);
        }
        while !schedule::claim_work(&transaction, "local/other", &claimant(now), 32).unwrap().is_empty() {}
        transaction.commit().unwrap();
        let steps = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&steps);
        let count = move || {
            counter.fetch_add(1, Ordering::Relaxed);
            false
        };
        database.progress_handler(1, Some(count)).unwrap();
        Filled { database, first, now, steps }
    }

    /// The steps of a call, which is not carried out; the second time, when all is prepared.
    fn steps(&mut self, call: Call) -> u64 {
        for _ in 0..2 {
            self.steps.store(0, Ordering::Relaxed);
            time::pass(&self.database, self.now).unwrap();
            time::rest(&self.database, &releases::Held::new(), self.now).unwrap();
            call(&self.database.transaction().unwrap(), &self.first, self.now);
        }
        self.steps.load(Ordering::Relaxed)
    }
}

fn claimant(now: Timestamp) -> Claimant {
    let worker = WorkerIdentity { worker_group: "g".to_owned(), worker_id: "w".to_owned() };
    Claimant { worker, now, time: Duration::from_secs(60) }
}

fn make(
    database: &Transaction<'_>,
    now: Timestamp,
    change: impl FnOnce(TaskDefinition) -> TaskDefinition,
) -> TaskId {
    let task_id = TaskId::random().unwrap();
    let submission = Submission::parse(br#"{"image": "i", "maxRunTime": 60}"#).unwrap();
    let task = change(submission.into_task(&task_id, now).unwrap().definition);
    schedule::create_task(database, &task_id, &task, now).unwrap();
    task_id
}

fn first_run(task_id: &TaskId) -> RunId {
    RunId { task_id: task_id.clone(), run_id: 0 }
}

fn claim(database: &Transaction<'_>, task_id: &TaskId, now: Timestamp) {
    schedule::claim_run(database, &first_run(task_id), &claimant(now)).unwrap();
}

fn reclaim(database: &Transaction<'_>, task_id: &TaskId, now: Timestamp) {
    let mut status = store::load_status(database, task_id).unwrap();
    runs::reclaim(&mut status, &first_run(task_id), now, Duration::from_secs(60)).unwrap();
    schedule::settle(database, &status).unwrap();
}

fn report(database: &Transaction<'_>, task_id: &TaskId, now: Timestamp) {
    schedule::report(database, &first_run(task_id), Verdict::Completed, now).unwrap();
}

fn cancel(database: &Transaction<'_>, task_id: &TaskId, now: Timestamp) {
    let mut status = store::load_status(database, task_id).unwrap();
    runs::cancel(&mut status, now);
    schedule::settle(database, &status).unwrap();
}

type Call = fn(&Transaction<'_>, &TaskId, Timestamp);

#[test]
fn a_call_costs_no_more_where_there_are_ten_thousand_tasks_than_where_there_are_ten() {
    let calls: [(&str, Call); 13] = [
        ("claim_work", |database, _, now| {
            assert_eq!(schedule::claim_work(database, POOL, &claimant(now), 4).unwrap().len(), 4);
        }),
        ("claim_work of nothing", |database, _, now| {
            assert!(schedule::claim_work(database, "local/none", &claimant(now), 4).unwrap().is_empty());
        }),
        ("status", |database, first, _| drop(store::load_status(database, first).unwrap())),
        ("list_pending", |database, _, _| {
            let part = Part { after: None, most: 5 };
            assert_eq!(pools::list(database, (POOL, RunState::Pending), part).unwrap().items.len(), 5);
        }),
        ("list_claimed", |database, _, _| {
            let part = Part { after: None, most: 5 };
            assert_eq!(
                pools::list(database, ("local/other", RunState::Running), part).unwrap().items.len(),
                5
            );
        }),
        ("list_dependents", |database, first, _| {
            let part = Part { after: None, most: 5 };
            assert_eq!(dependencies::list(database, first, &part).unwrap().items.len(), 5);
        }),
        ("list_task_group", |database, first, _| {
            let group = store::load_status(database, first).unwrap().task_group_id;
            let part = Part { after: None, most: 5 };
            assert_eq!(groups::list(database, &group, &part).unwrap().items.len(), 5);
        }),
        ("create_task", |database, _, now| drop(make(database, now, |task| task))),
        ("create_task that depends on one", |database, first, now| {
            make(database, now, |task| TaskDefinition { dependencies: vec![first.clone()], ..task });
        }),
        ("claim, reclaim, report", |database, first, now| {
            claim(database, first, now);
            reclaim(database, first, now);
            report(database, first, now);
        }),
        ("cancel_task", cancel),
        ("list_recent", |database, _, _| {
            let part = Part { after: None, most: 5 };
            assert_eq!(recent::list(database, &part).unwrap().items.len(), 5);
        }),
        ("forget_tasks", |database, _, now| assert!(expiry::list_tasks(database, now).unwrap().is_empty())),
    ];
    let (mut few, mut many) = (Filled::with(10), Filled::with(10_000));
    for (name, call) in calls {
        let (few, many) = (few.steps(call), many.steps(call));
        assert!(few > 0 && many <= few + few / 10, "{name}: {few} steps, with ten thousand {many}");
    }
}

#[test]
fn a_piece_of_a_release_costs_no_more_where_a_thousand_tasks_wait_than_where_two_hundred_do() {
    let call: Call = |database, first, now| {
        claim(database, first, now);
        report(database, first, now);
        let held = releases::Held::new();
        assert!(releases::release_piece(database, &held).is_ok());
        assert!(releases::are_open(database, &held).unwrap());
    };
    let [few, many] = [200, 1000].map(|tasks| Filled::with(tasks).steps(call));
    assert!(few > 0 && many <= few + few / 10, "{few} steps, with a thousand {many}");
}

/// The pages that each call writes about a task whose payload has so many bytes, from its creation on.
fn written(payload_bytes: usize) -> Vec<i64> {
    let directory = tempfile::tempdir().unwrap();
    let mut database = open::in_file(&directory.path().join("queue.sqlite")).unwrap();
    let now = Timestamp::now();
    let mut made = [None, None];
    let mut pages = Vec::new();
    for created in &mut made {
        pages.push(count_pages(&mut database, |database| {
            let payload = serde_json::json!({ "filling": "x".repeat(payload_bytes) });
            *created = Some(make(database, now, |task| TaskDefinition { payload, ..task }));
        }));
    }
    let [first, second] = made.map(Option::unwrap);
    let calls: [(&TaskId, Call); 4] =
        [(&first, claim), (&first, reclaim), (&first, report), (&second, cancel)];
    for (task_id, call) in calls {
        pages.push(count_pages(&mut database, |database| call(database, task_id, now)));
    }
    pages
}

/// The pages that something writes, as there are in the write-ahead log then.
fn count_pages(database: &mut Connection, work: impl FnOnce(&Transaction<'_>)) -> i64 {
    let log = |database: &Connection, mode| {
        let checkpoint = format!("PRAGMA wal_checkpoint({mode})");
        database.query_row(&checkpoint, [], |row| row.get::<_, i64>("log")).unwrap()
    };
    assert_eq!(log(database, "TRUNCATE"), 0);
    let transaction = database.transaction().unwrap();
    work(&transaction);
    transaction.commit().unwrap();
    log(database, "PASSIVE")
}

#[test]
fn only_the_creation_of_a_task_writes_what_it_is() {
    let (small, large) = (written(20), written(20_000));
    for (name, (small, large)) in
        ["create", "create", "claim", "reclaim", "report", "cancel"].iter().zip(small.into_iter().zip(large))
    {
        let more = if *name == "create" { 20_000 / 4096 + 3 } else { 0 };
        assert!(small > 0 && large <= small + more, "{name}: {small} pages, with 20 KB {large}");
    }
}
