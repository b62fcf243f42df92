use super::*;
use crate::queue::definition::{Requires, Submission};
use crate::queue::{Reason, RunState, Verdict, steady_clock};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn queue() -> EmbeddedQueue {
    EmbeddedQueue::in_memory(steady_clock()).unwrap()
}

/// The definition of a task of a group that expires after so many days.
fn definition(queue: &EmbeddedQueue, task_id: &TaskId, group: &TaskId, days: u32) -> TaskDefinition {
    let submission = Submission::parse(br#"{"image": "i", "maxRunTime": 60}"#).unwrap();
    let task = submission.into_task(task_id, queue.now()).unwrap().definition;
    TaskDefinition { task_group_id: group.clone(), expires: queue.now().plus(DAY * days), ..task }
}

async fn make(queue: &EmbeddedQueue, group: &TaskId, days: u32) -> TaskId {
    let task_id = TaskId::random().unwrap();
    queue.create_task(&task_id, &definition(queue, &task_id, group, days)).await.unwrap();
    task_id
}

#[tokio::test]
async fn a_group_has_one_scheduler_and_outlives_its_tasks() {
    let (queue, group) = (queue(), TaskId::random().unwrap());
    assert!(matches!(queue.task_group(&group).await, Err(QueueError::NotFound { .. })));
    let mut expiries = Vec::new();
    for days in [8, 6, 9] {
        let task_id = make(&queue, &group, days).await;
        let known = queue.task_group(&group).await.unwrap();
        assert_eq!((known.scheduler_id.as_str(), known.sealed), ("-", None));
        assert!(known.expires > queue.status(&task_id).await.unwrap().expires);
        expiries.push(known.expires);
    }
    assert!(expiries[0] == expiries[1] && expiries[1] < expiries[2], "{expiries:?}");
    let other = TaskId::random().unwrap();
    let task = definition(&queue, &other, &group, 8);
    let task = TaskDefinition { scheduler_id: "another".to_owned(), ..task };
    assert!(matches!(queue.create_task(&other, &task).await, Err(QueueError::Conflict { .. })));
}

#[tokio::test]
async fn a_sealed_group_takes_no_tasks_and_keeps_the_time_of_its_seal() {
    let (queue, group) = (queue(), TaskId::random().unwrap());
    assert!(matches!(queue.seal_task_group(&group).await, Err(QueueError::NotFound { .. })));
    let task_id = make(&queue, &group, 8).await;
    let sealed = queue.seal_task_group(&group).await.unwrap();
    assert!(sealed.sealed.is_some());
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(queue.seal_task_group(&group).await.unwrap(), sealed);
    let known =
        serde_json::from_str::<TaskDefinition>(queue.definition(&task_id).await.unwrap().text()).unwrap();
    // As in the real queue: not even those that it has.
    for id in [&task_id, &TaskId::random().unwrap()] {
        assert!(matches!(queue.create_task(id, &known).await, Err(QueueError::Conflict { .. })));
    }
}

#[tokio::test]
async fn the_tasks_of_a_group_are_listed_in_parts() {
    let (queue, group) = (queue(), TaskId::random().unwrap());
    let mut expected = Vec::new();
    for _ in 0..4 {
        expected.push(make(&queue, &group, 8).await);
    }
    make(&queue, &TaskId::random().unwrap(), 8).await;
    expected.sort();
    let (mut found, mut after) = (Vec::new(), None);
    for size in [3, 1] {
        let (known, page) = queue.list_task_group(&group, Part { after, most: 3 }).await.unwrap();
        assert_eq!((known.task_group_id, page.items.len()), (group.clone(), size));
        found.extend(page.items.into_iter().map(|task| task.status.task_id));
        after = page.next;
    }
    assert_eq!((found, after), (expected, None));
    let none = queue.list_task_group(&group, Part { after: None, most: 0 }).await.unwrap().1;
    assert!(none.items.is_empty() && none.next.is_none());
}

#[tokio::test]
async fn a_page_of_large_tasks_ends_early() {
    let (queue, group) = (queue(), TaskId::random().unwrap());
    for _ in 0..4 {
        let task_id = TaskId::random().unwrap();
        let mut task = definition(&queue, &task_id, &group, 8);
        task.payload = serde_json::json!({ "filling": "x".repeat(7 << 20) });
        queue.create_task(&task_id, &task).await.unwrap();
    }
    let (_, page) = queue.list_task_group(&group, Part { after: None, most: 1000 }).await.unwrap();
    assert_eq!(page.items.len(), 3);
    let (_, page) = queue.list_task_group(&group, Part { after: page.next, most: 1000 }).await.unwrap();
    assert_eq!((page.items.len(), page.next), (1, None));
}

#[tokio::test]
async fn a_sealed_group_is_cancelled_as_far_as_it_is_not_resolved() {
    let (queue, group) = (queue(), TaskId::random().unwrap());
    let (done, waited_for) = (make(&queue, &group, 8).await, make(&queue, &group, 8).await);
    queue.cancel_task(&done).await.unwrap();
    let mut waiting = Vec::new();
    for group in [&group, &TaskId::random().unwrap()] {
        let task_id = TaskId::random().unwrap();
        let task = definition(&queue, &task_id, group, 8);
        let dependencies = vec![waited_for.clone()];
        let task = TaskDefinition { dependencies, requires: Requires::AllResolved, ..task };
        queue.create_task(&task_id, &task).await.unwrap();
        waiting.push(task_id);
    }
    assert!(matches!(queue.cancel_task_group(&group).await, Err(QueueError::Conflict { .. })));
    queue.seal_task_group(&group).await.unwrap();
    let mut cancelled = vec![waited_for, waiting[0].clone()];
    cancelled.sort();
    for cancelled in [cancelled, Vec::new()] {
        assert_eq!(queue.cancel_task_group(&group).await.unwrap(), CancelledGroup { size: 3, cancelled });
    }
    let status = queue.status(&waiting[0]).await.unwrap();
    assert_eq!(status.runs[0].reason_resolved, Some(Verdict::Exception(Reason::Canceled)));
    assert_eq!(
        (status.runs.len(), status.runs[0].reason_created),
        (1, crate::queue::ReasonCreated::Exception)
    );
    // Of another group: what it waited for is resolved.
    assert_eq!(queue.status(&waiting[1]).await.unwrap().state, RunState::Pending);
}
