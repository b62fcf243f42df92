//! Several workers with several claims each, whose superseders' lists overlap.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use proptest::prelude::*;

use super::*;
use crate::interrupt::{Interrupt, Notice, channel};
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
        let payload = br#"{"image": "i", "maxRunTime": 60, "supersederUrl": "http://a.example/x"}"#;
        let submission = Submission::parse(payload).unwrap();
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
    let trouble = |_: &RunId, trouble: &Trouble| {
        assert!(matches!(trouble, Trouble::Queue(QueueError::Conflict { .. })), "{trouble}");
    };
    let choosing = claims.iter().map(|(_, claim)| {
        let initial = claim.queue.run().task_id.clone();
        let mut list: Vec<_> = part.order.iter().map(|&place| tasks[place].clone()).collect();
        if !list.contains(&initial) {
            list.push(initial.clone());
        }
        let claimer = Claimer {
            queue,
            worker: &worker,
            pool,
            held: &held,
            superseder: "http://A.example/y",
            interrupts: channel().1,
            trouble: &trouble,
        };
        async move {
            let chosen = claimer.claim_all(claim.clone(), &list).await;
            (initial, list, chosen)
        }
    });
    join_all(choosing).await
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
                let queues = chosen.secondaries.iter().map(|claim| &claim.queue).chain([&chosen.primary.queue]);
                let group: Vec<_> = queues.map(|queue| queue.run().task_id.clone()).collect();
                assert!(group.contains(initial), "what was claimed is in its own group");
                let places: Vec<_> =
                    group.iter().map(|task| list.iter().position(|listed| listed == task).unwrap()).collect();
                assert_eq!(places.iter().max(), places.last(), "the primary comes after all others");
                assert_eq!(chosen.held.len(), group.len() - 1, "what was claimed besides is held");
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

#[tokio::test]
async fn whoever_lists_a_task_that_is_not_under_its_superseder_does_not_get_it() {
    let (embedded, tasks, pool) = queue_with_tasks().await;
    let queue = WorkerQueue::embedded(embedded.clone());
    let worker = WorkerIdentity { worker_group: "g".to_owned(), worker_id: "w".to_owned() };
    let claim = queue.claim_work(&pool, &worker, 1).await.unwrap().claims.remove(0);
    let (held, heard) = (HeldTasks::default(), std::cell::RefCell::new(Vec::new()));
    let _initial = held.hold(&claim.queue.run().task_id);
    let trouble = |_: &RunId, trouble: &Trouble| heard.borrow_mut().push(trouble.to_string());
    for (pool, superseder) in [(pool.as_str(), "http://b.example/x"), ("other/pool", "http://a.example/x")] {
        let interrupts = channel().1;
        let claimer = Claimer {
            queue: &queue,
            worker: &worker,
            pool,
            held: &held,
            superseder,
            interrupts,
            trouble: &trouble,
        };
        let chosen = claimer.claim_all(claim.clone(), &tasks).await;
        assert!(chosen.secondaries.is_empty() && chosen.held.is_empty());
        assert_eq!(chosen.primary.queue.run(), claim.queue.run());
    }
    assert_eq!(heard.borrow().len(), 2 * (TASKS - 1));
    for task in tasks.iter().filter(|task| **task != claim.queue.run().task_id) {
        assert!(embedded.status(task).await.unwrap().runs[0].worker.is_none(), "it has lost no try");
    }
}

#[tokio::test]
async fn after_an_interrupt_no_more_are_claimed() {
    let (embedded, tasks, pool) = queue_with_tasks().await;
    let queue = WorkerQueue::embedded(embedded.clone());
    let worker = WorkerIdentity { worker_group: "g".to_owned(), worker_id: "w".to_owned() };
    let claim = queue.claim_work(&pool, &worker, 1).await.unwrap().claims.remove(0);
    let (interrupter, interrupts) = channel();
    interrupter.interrupt(Interrupt::Shutdown, Notice::Signal);
    let claimer = Claimer {
        queue: &queue,
        worker: &worker,
        pool: &pool,
        held: &HeldTasks::default(),
        superseder: "http://a.example/x",
        interrupts,
        trouble: &|_, trouble| panic!("{trouble}"),
    };
    assert!(claimer.claim_all(claim, &tasks).await.secondaries.is_empty());
}
