//! Several workers with several claims each, whose superseders' lists overlap.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::queue::definition::Submission;
use crate::queue::{EmbeddedQueue, steady_clock};

/// Tasks in one queue.
const TASKS: usize = 8;
/// Workers of its pool.
const WORKERS: usize = 3;

/// One worker's part: how many tasks it claims at first, and by which lists it is told who stands for whom.
#[derive(Clone, Debug)]
struct Part {
    claims: usize,
    /// Places of tasks, in the order of a superseder.
    order: Vec<usize>,
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let order = proptest::sample::subsequence((0..TASKS).collect::<Vec<_>>(), 0..=TASKS).prop_shuffle();
    let part = (0..=3usize, order).prop_map(|(claims, order)| Part { claims, order });
    proptest::collection::vec(part, WORKERS)
}

/// A queue with tasks, and what they are called.
async fn queue_with_tasks() -> (EmbeddedQueue, Vec<TaskId>, String) {
    let queue = EmbeddedQueue::in_memory(steady_clock()).unwrap();
    let (mut tasks, mut pool) = (Vec::new(), String::new());
    for _ in 0..TASKS {
        let task_id = TaskId::random().unwrap();
        let submission = Submission::parse(br#"{"image": "i", "maxRunTime": 60}"#).unwrap();
        let definition = submission.into_task(&task_id, queue.now()).unwrap().definition;
        queue.create_task(&task_id, &definition).await.unwrap();
        pool = definition.task_queue_id;
        tasks.push(task_id);
    }
    (queue, tasks, pool)
}

/// What one worker makes of its part.
async fn chosen_by(
    queue: &WorkerQueue,
    (name, part): (usize, &Part),
    tasks: &[TaskId],
    pool: &str,
) -> Vec<(TaskId, Vec<TaskId>, Chosen)> {
    let worker = WorkerIdentity { worker_group: "g".to_owned(), worker_id: format!("w{name}") };
    let held = HeldTasks::default();
    let claims = queue.claim_work(pool, &worker, part.claims).await.unwrap().claims;
    let claims: Vec<_> =
        claims.into_iter().map(|claim| (held.hold(&claim.queue.run().task_id), claim)).collect();
    let failures = RefCell::new(0);
    let failed = |_: &RunId, error: &QueueError| {
        assert!(matches!(error, QueueError::Conflict { .. }), "{error}");
        *failures.borrow_mut() += 1;
    };
    let choosing = claims.iter().map(|(_, claim)| {
        let initial = claim.queue.run().task_id.clone();
        let mut list: Vec<_> = part.order.iter().map(|&place| tasks[place].clone()).collect();
        if !list.contains(&initial) {
            list.push(initial.clone());
        }
        let (worker, held, failed) = (&worker, &held, &failed);
        async move {
            let chosen = claim_all((queue, worker, held), claim.clone(), &list, failed).await;
            (initial, list, chosen)
        }
    });
    join_all(choosing).await
}

fn id(claim: &Claim) -> TaskId {
    claim.queue.run().task_id.clone()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_task_is_carried_out_twice_or_lost_and_the_last_one_stands_for_the_others(parts in parts()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (embedded, tasks, pool) = queue_with_tasks().await;
            let queue = WorkerQueue::embedded(embedded.clone());
            let at_work = parts.iter().enumerate().map(|part| chosen_by(&queue, part, &tasks, &pool));
            let all: Vec<_> = join_all(at_work).await.into_iter().flatten().collect();
            let mut seen = BTreeMap::new();
            for (initial, list, chosen) in &all {
                let group: Vec<_> = chosen.secondaries.iter().chain([&chosen.primary]).map(id).collect();
                assert!(group.contains(initial), "what was claimed is in its own group");
                let places: Vec<_> =
                    group.iter().map(|task| list.iter().position(|listed| listed == task).unwrap()).collect();
                assert!(places.iter().max() == places.last(), "the primary comes after all others: {places:?}");
                let held: BTreeSet<_> = chosen.held.iter().map(|hold| hold.task_id().clone()).collect();
                let others: BTreeSet<_> = group.iter().filter(|task| *task != initial).cloned().collect();
                assert_eq!(held, others, "what was claimed besides is held, and nothing else");
                for task in group {
                    *seen.entry(task).or_insert(0) += 1;
                }
            }
            assert!(seen.values().all(|&times| times == 1), "no task is in two groups: {seen:?}");
            for task in &tasks {
                let is_claimed = embedded.status(task).await.unwrap().runs[0].worker.is_some();
                assert_eq!(is_claimed, seen.contains_key(task), "what the queue gave out is in a group");
            }
        });
    }
}

#[test]
fn a_task_is_held_until_the_last_one_lets_go() {
    let (tasks, task) = (HeldTasks::default(), TaskId::random().unwrap());
    let (first, second) = (tasks.hold(&task), tasks.hold(&task));
    assert!(tasks.hold_if_free(&task).is_none());
    drop(first);
    assert!(tasks.hold_if_free(&task).is_none());
    drop(second);
    assert!(tasks.hold_if_free(&task).is_some());
}
