use std::path::Path;
use std::time::Duration;

use super::super::schedule::{self, Claimant};
use super::super::{EmbeddedQueue, open};
use super::*;
use crate::queue::definition::{Requires, Submission, TaskDefinition};
use crate::queue::{Verdict, WorkerIdentity, runs};

const MINUTE: Duration = Duration::from_secs(60);

/// The database of a queue whose thread does not run: nothing goes on by itself.
struct Play(Connection);

impl Play {
    fn in_memory() -> Play {
        Play(open::in_memory().unwrap())
    }

    fn at(directory: &Path) -> Play {
        Play(open::in_file(&directory.join("queue.sqlite")).unwrap())
    }

    fn transact<T>(&self, work: impl FnOnce(&Transaction<'_>, Timestamp) -> T) -> T {
        let transaction = self.0.unchecked_transaction().unwrap();
        let done = work(&transaction, Timestamp::now());
        transaction.commit().unwrap();
        done
    }

    fn make(&self, requires: Requires, dependencies: &[&TaskId]) -> TaskId {
        let task_id = TaskId::random().unwrap();
        self.transact(|database, now| {
            let submission = Submission::parse(br#"{"image": "i", "maxRunTime": 60}"#).unwrap();
            let task = submission.into_task(&task_id, now).unwrap().definition;
            let dependencies = dependencies.iter().map(|&id| id.clone()).collect();
            let task = TaskDefinition { requires, dependencies, ..task };
            schedule::create_task(database, &task_id, &task, now).unwrap();
        });
        task_id
    }

    fn resolve(&self, task_id: &TaskId, verdict: Verdict) {
        self.resolve_at(task_id, verdict, Timestamp::now());
    }

    fn resolve_at(&self, task_id: &TaskId, verdict: Verdict, now: Timestamp) {
        self.transact(|database, _| {
            let worker = WorkerIdentity { worker_group: "g".to_owned(), worker_id: "w".to_owned() };
            let run_id = store::load_status(database, task_id).unwrap().runs.last().unwrap().run_id;
            let run = crate::queue::RunId { task_id: task_id.clone(), run_id };
            schedule::claim_run(database, &run, &Claimant { worker, now, time: MINUTE }).unwrap();
            schedule::report(database, &run, verdict, now).unwrap();
        });
    }

    /// How many tasks wait for a worker.
    fn pending(&self) -> usize {
        let count = "SELECT count(*) FROM tasks WHERE state = 'pending'";
        let count: u32 = self.0.query_row(count, [], |row| row.get(0)).unwrap();
        count.try_into().unwrap()
    }

    fn is_open(&self) -> bool {
        are_open(&self.0, &Held::new()).unwrap()
    }

    fn go_on(&self) -> usize {
        assert!(go_on(&self.0, &Held::new()).is_ok());
        self.pending()
    }
}

#[test]
fn what_waits_is_released_a_piece_at_a_time_whichever_tasks_it_waits_for() {
    let play = Play::in_memory();
    let required = [(); 3].map(|()| play.make(Requires::AllCompleted, &[]));
    for (required, waiting) in required.iter().zip([2 * AT_ONCE, 1, AT_ONCE / 2]) {
        for _ in 0..waiting {
            play.make(Requires::AllCompleted, &[required]);
        }
    }
    for required in &required {
        play.resolve(required, Verdict::Completed);
    }
    assert_eq!(play.pending(), 0);
    let (all, mut released) = (2 * AT_ONCE + 1 + AT_ONCE / 2, 0);
    for _ in 0..4 {
        let before = released;
        released = play.go_on();
        assert!(released - before <= AT_ONCE, "{before}, then {released}");
    }
    assert_eq!((released, play.is_open()), (all, false));
}

#[tokio::test]
async fn a_release_that_was_cut_off_by_a_kill_goes_on_at_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let play = Play::at(directory.path());
    let required = play.make(Requires::AllCompleted, &[]);
    let waiting: Vec<TaskId> =
        (0..3 * AT_ONCE).map(|_| play.make(Requires::AllCompleted, &[&required])).collect();
    play.resolve(&required, Verdict::Completed);
    assert_eq!(play.go_on(), AT_ONCE);
    // As a process leaves the files that is killed now.
    let left = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), left.path().join(entry.file_name())).unwrap();
    }
    let queue = EmbeddedQueue::in_directory(left.path(), Box::new(Timestamp::now)).unwrap();
    let mut changes = queue.changes();
    for task_id in &waiting {
        while queue.status(task_id).await.unwrap().state != RunState::Pending {
            tokio::time::timeout(MINUTE, changes.changed()).await.unwrap().unwrap();
        }
    }
}

#[test]
fn a_task_that_completes_while_its_failure_is_being_told_releases_those_that_need_that_too() {
    let play = Play::in_memory();
    let required = play.make(Requires::AllCompleted, &[]);
    for requires in [Requires::AllCompleted, Requires::AllResolved] {
        for _ in 0..AT_ONCE {
            play.make(requires, &[&required]);
        }
    }
    play.resolve(&required, Verdict::Failed);
    let resolved = play.go_on();
    assert!(resolved < AT_ONCE, "{resolved} of those that wait for a completion, too");
    play.transact(|database, now| schedule::rerun_task(database, &required, now).unwrap());
    play.resolve(&required, Verdict::Completed);
    for _ in 0..4 {
        play.go_on();
    }
    assert_eq!((play.pending(), play.is_open()), (2 * AT_ONCE, false));
}

#[test]
fn a_task_is_scheduled_when_the_last_that_it_has_waited_for_was_resolved_whichever_is_looked_at_first() {
    // The ids are random: each may be the first by its id.
    for _ in 0..8 {
        let play = Play::in_memory();
        let [early, late] = [(); 2].map(|()| play.make(Requires::AllCompleted, &[]));
        let waiting = play.make(Requires::AllCompleted, &[&late, &early]);
        play.resolve(&early, Verdict::Completed);
        play.resolve_at(&late, Verdict::Completed, Timestamp::now().plus(MINUTE));
        play.go_on();
        let status = |task_id| play.transact(|database, _| store::load_status(database, task_id).unwrap());
        assert_eq!(Some(status(&waiting).runs[0].scheduled), runs::resolved(&status(&late)));
    }
}

#[test]
fn whoever_says_again_that_a_task_is_resolved_begins_no_release() {
    let play = Play::in_memory();
    let required = play.make(Requires::AllCompleted, &[]);
    play.make(Requires::AllCompleted, &[&required]);
    play.resolve(&required, Verdict::Completed);
    assert_eq!((play.go_on(), play.is_open()), (1, false));
    play.transact(|database, now| {
        let mut status = store::load_status(database, &required).unwrap();
        runs::cancel(&mut status, now);
        schedule::settle(database, &status).unwrap();
        let run = crate::queue::RunId { task_id: required.clone(), run_id: 0 };
        schedule::report(database, &run, Verdict::Completed, now).unwrap();
    });
    assert!(!play.is_open());
}

#[tokio::test]
async fn what_cannot_be_released_is_told_once_and_nothing_else_waits_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let play = Play::at(directory.path());
    let required = [(); 3].map(|()| play.make(Requires::AllCompleted, &[]));
    let waiting = required.each_ref().map(|required| play.make(Requires::AllCompleted, &[required]));
    for required in &required {
        play.resolve(required, Verdict::Completed);
    }
    // The first two of them.
    for task_id in &waiting[..2] {
        play.0.execute("UPDATE tasks SET status = '{' WHERE task_id = ?1", [task_id.as_str()]).unwrap();
    }
    drop(play);
    let queue = EmbeddedQueue::in_directory(directory.path(), Box::new(Timestamp::now)).unwrap();
    let (mut changes, mut faults) = (queue.changes(), queue.faults());
    while queue.status(&waiting[2]).await.unwrap().state != RunState::Pending {
        tokio::time::timeout(MINUTE, changes.changed()).await.unwrap().unwrap();
    }
    let told = faults.borrow_and_update().clone().unwrap();
    let names = |required: &TaskId| told.contains(&format!("what waits for task {required}: "));
    assert!(required[..2].iter().any(names), "{told}");
    // Others come and go, and it is not told again.
    for _ in 0..3 {
        queue.status(&waiting[2]).await.unwrap();
    }
    assert!(!faults.has_changed().unwrap());
}

#[tokio::test]
async fn what_could_not_be_released_for_a_while_goes_on_by_itself_with_the_first_call_that_finds_it_can() {
    let directory = tempfile::tempdir().unwrap();
    let play = Play::at(directory.path());
    let required = play.make(Requires::AllCompleted, &[]);
    for _ in 0..4 * AT_ONCE {
        play.make(Requires::AllCompleted, &[&required]);
    }
    play.resolve(&required, Verdict::Completed);
    play.0.execute_batch("ALTER TABLE releases RENAME TO gone").unwrap();
    drop(play);
    let queue = EmbeddedQueue::in_directory(directory.path(), Box::new(Timestamp::now)).unwrap();
    let mut faults = queue.faults();
    queue.status(&required).await.unwrap();
    let soon = MINUTE / 6;
    let told = tokio::time::timeout(soon, faults.wait_for(Option::is_some)).await.unwrap().unwrap().clone();
    assert!(told.unwrap().contains("failed to release what waits for tasks"));
    let back = "ALTER TABLE gone RENAME TO releases";
    queue.ask(move |database, _| database.execute_batch(back).map_err(failed("put it back"))).await.unwrap();
    tokio::time::timeout(soon, faults.wait_for(Option::is_none)).await.unwrap().unwrap();
    let mut changes = queue.changes();
    // Each piece follows the one before; nobody calls.
    while tokio::time::timeout(MINUTE / 60, changes.changed()).await.is_ok() {}
    let pending = "SELECT count(*) FROM tasks WHERE state = 'pending'";
    let count = queue
        .ask(move |database, _| database.query_row(pending, [], |row| row.get(0)).map_err(failed("count")));
    let count: usize = count.await.map(|count: i64| count.try_into().unwrap()).unwrap();
    assert_eq!(count, 4 * AT_ONCE);
}
