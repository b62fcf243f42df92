//! What a call costs does not grow with what else there is: it is counted in steps of SQLite's machine, without a clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::{Connection, Transaction};

use super::*;
use crate::queue::RunState;
use crate::queue::definition::Submission;

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
            let task_id = TaskId::random().unwrap();
            let submission = Submission::parse(br#"{"image": "i", "maxRunTime": 60}"#).unwrap();
            let task = submission.into_task(&task_id, now).unwrap().definition;
            let (task_queue_id, dependencies) = (pool.to_owned(), dependencies.to_vec());
            let task = TaskDefinition { task_queue_id, task_group_id: group.clone(), dependencies, ..task };
            schedule::create_task(&transaction, &task_id, &task, now).unwrap();
            task_id
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
            time::rest(&self.database, self.now).unwrap();
            call(&self.database.transaction().unwrap(), &self.first, self.now);
        }
        self.steps.load(Ordering::Relaxed)
    }
}

fn claimant(now: Timestamp) -> Claimant {
    let worker = WorkerIdentity { worker_group: "g".to_owned(), worker_id: "w".to_owned() };
    Claimant { worker, now, time: Duration::from_secs(60) }
}

type Call = fn(&Transaction<'_>, &TaskId, Timestamp);

#[test]
fn a_call_costs_no_more_where_there_are_ten_thousand_tasks_than_where_there_are_ten() {
    let calls: [(&str, Call); 8] = [
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
        ("forget_tasks", |database, _, now| assert!(expiry::list_tasks(database, now).unwrap().is_empty())),
    ];
    let (mut few, mut many) = (Filled::with(10), Filled::with(10_000));
    for (name, call) in calls {
        let (few, many) = (few.steps(call), many.steps(call));
        assert!(few > 0 && many <= few + few / 10, "{name}: {few} steps, with ten thousand {many}");
    }
}
