use std::time::Duration;

use super::*;
use crate::queue::definition::Submission;
use crate::queue::{EmbeddedQueue, Reason, RunId, RunState, Verdict, WorkerIdentity, steady_clock};

const MINUTE: Duration = Duration::from_secs(60);

/// A queue and its tasks.
struct Play(EmbeddedQueue);

impl Play {
    fn new() -> Play {
        Play(EmbeddedQueue::in_memory(steady_clock()).unwrap())
    }

    fn definition(&self, task_id: &TaskId) -> TaskDefinition {
        let submission = Submission::parse(br#"{"image": "i", "maxRunTime": 60}"#).unwrap();
        submission.into_task(task_id, self.0.now()).unwrap().definition
    }

    async fn make(&self, requires: Requires, dependencies: &[&TaskId]) -> TaskId {
        let task_id = TaskId::random().unwrap();
        self.try_make(&task_id, requires, dependencies).await.unwrap();
        task_id
    }

    async fn try_make(
        &self,
        task_id: &TaskId,
        requires: Requires,
        dependencies: &[&TaskId],
    ) -> Result<(), QueueError> {
        let dependencies = dependencies.iter().map(|&id| id.clone()).collect();
        let task = TaskDefinition { dependencies, requires, ..self.definition(task_id) };
        self.0.create_task(task_id, &task).await.map(drop)
    }

    async fn resolve(&self, task_id: &TaskId, verdict: Verdict) {
        if verdict == Verdict::Exception(Reason::Canceled) {
            return self.0.cancel_task(task_id).await.map(drop).unwrap();
        }
        let worker = WorkerIdentity { worker_group: "g".to_owned(), worker_id: "w".to_owned() };
        let run = RunId { task_id: task_id.clone(), run_id: 0 };
        self.0.claim_run(&run, &worker).await.unwrap().queue.report(verdict).await.unwrap();
    }

    async fn state(&self, task_id: &TaskId) -> RunState {
        self.0.status(task_id).await.unwrap().state
    }
}

#[tokio::test]
async fn a_task_waits_until_its_last_dependency_is_as_it_requires() {
    use Requires::{AllCompleted, AllResolved};
    use RunState::{Pending, Unscheduled};
    use Verdict::{Completed, Exception, Failed};
    let canceled = Exception(Reason::Canceled);
    for (requires, first, second, expected) in [
        (AllCompleted, Completed, Completed, Pending),
        (AllCompleted, Completed, Failed, Unscheduled),
        (AllCompleted, canceled, Completed, Unscheduled),
        (AllResolved, Completed, Failed, Pending),
        (AllResolved, canceled, Exception(Reason::MalformedPayload), Pending),
    ] {
        let play = Play::new();
        let (one, two) = (play.make(AllCompleted, &[]).await, play.make(AllCompleted, &[]).await);
        let waiting = play.make(requires, &[&one, &two]).await;
        assert_eq!(play.state(&waiting).await, Unscheduled);
        play.resolve(&one, first).await;
        assert_eq!(play.state(&waiting).await, Unscheduled, "{first:?}");
        // A new task finds what there is by then.
        let late = play.make(requires, &[&one]).await;
        let is_enough = first == Completed || requires == AllResolved;
        assert_eq!(play.state(&late).await, if is_enough { Pending } else { Unscheduled }, "{first:?}");
        play.resolve(&two, second).await;
        assert_eq!(play.state(&waiting).await, expected, "{requires:?} {first:?} {second:?}");
    }
}

#[tokio::test]
async fn a_run_that_is_tried_again_is_no_resolution() {
    let play = Play::new();
    let required = play.make(Requires::AllCompleted, &[]).await;
    let waiting = play.make(Requires::AllResolved, &[&required]).await;
    play.resolve(&required, Verdict::Exception(Reason::WorkerShutdown)).await;
    assert_eq!(play.state(&required).await, RunState::Pending);
    assert_eq!(play.state(&waiting).await, RunState::Unscheduled);
}

#[tokio::test]
async fn dependencies_exist_and_outlive_the_deadline_or_nothing_is_made() {
    let play = Play::new();
    let (known, short) = (play.make(Requires::AllCompleted, &[]).await, TaskId::random().unwrap());
    let now = play.0.now();
    let (deadline, expires) = (now.plus(MINUTE), now.plus(2 * MINUTE));
    let task = TaskDefinition { deadline, expires, ..play.definition(&short) };
    play.0.create_task(&short, &task).await.unwrap();
    let (absent, refused) = (TaskId::random().unwrap(), TaskId::random().unwrap());
    for (dependency, expected) in [(&absent, "do not exist"), (&short, "expire before its deadline")] {
        let error = play.try_make(&refused, Requires::AllCompleted, &[&known, dependency]).await.unwrap_err();
        let QueueError::Invalid { because, .. } = error else { panic!("{error:?}") };
        assert!(because.contains(expected) && because.ends_with(dependency.as_str()), "{because}");
        assert!(matches!(play.0.status(&refused).await, Err(QueueError::NotFound { .. })));
    }
    let none = Part { after: None, most: 9 };
    assert!(play.0.list_dependents(&known, none).await.unwrap().items.is_empty());
    play.try_make(&refused, Requires::AllCompleted, &[&known]).await.unwrap();
}

#[tokio::test]
async fn a_task_that_waits_for_itself_is_scheduled_by_hand() {
    let play = Play::new();
    let task_id = TaskId::random().unwrap();
    play.try_make(&task_id, Requires::AllCompleted, &[&task_id]).await.unwrap();
    assert_eq!(play.state(&task_id).await, RunState::Unscheduled);
    for _ in 0..2 {
        let status = play.0.schedule_task(&task_id).await.unwrap();
        assert_eq!((status.state, status.runs.len()), (RunState::Pending, 1));
    }
    play.resolve(&task_id, Verdict::Completed).await;
    let status = play.0.status(&task_id).await.unwrap();
    assert_eq!((status.state, status.runs.len()), (RunState::Completed, 1));
}

#[tokio::test]
async fn the_tasks_that_depend_on_one_are_listed_in_parts() {
    let play = Play::new();
    let required = play.make(Requires::AllCompleted, &[]).await;
    let mut expected = Vec::new();
    for _ in 0..5 {
        expected.push(play.make(Requires::AllCompleted, &[&required]).await);
    }
    play.make(Requires::AllCompleted, &[&expected[0]]).await;
    expected.sort();
    let (mut found, mut after) = (Vec::new(), None);
    for size in [2, 2, 1] {
        let page = play.0.list_dependents(&required, Part { after, most: 2 }).await.unwrap();
        assert_eq!(page.items.len(), size);
        found.extend(page.items.into_iter().map(|task| task.status.task_id));
        after = page.next;
    }
    assert_eq!((found, after), (expected, None));
    let none = Part { after: None, most: 1 };
    let missing = play.0.list_dependents(&TaskId::random().unwrap(), none).await;
    assert!(matches!(missing, Err(QueueError::NotFound { .. })));
}

#[tokio::test]
async fn a_thousand_tasks_that_wait_for_one_are_all_scheduled() {
    let play = Play::new();
    let required = play.make(Requires::AllCompleted, &[]).await;
    let mut waiting = Vec::new();
    for _ in 0..1000 {
        waiting.push(play.make(Requires::AllCompleted, &[&required]).await);
    }
    let mut changes = play.0.changes();
    play.resolve(&required, Verdict::Completed).await;
    for task_id in &waiting {
        while play.state(task_id).await != RunState::Pending {
            tokio::time::timeout(MINUTE, changes.changed()).await.unwrap().unwrap();
        }
    }
}
