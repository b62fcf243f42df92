//! What time does to tasks cannot be written, or not to all of them.

use super::*;
use crate::queue::embedded::store::failed;

/// A queue whose clock is set by tests.
struct Play {
    queue: EmbeddedQueue,
    ahead: Arc<AtomicI64>,
    _place: Place,
}

impl Play {
    fn new() -> Play {
        let (place, ahead) = (Place::new(), Arc::new(AtomicI64::new(0)));
        let millis = Arc::clone(&ahead);
        let clock: Clock = Box::new(move || {
            Timestamp::from_millis(Timestamp::now().as_millis() + millis.load(Ordering::Relaxed))
        });
        let queue = EmbeddedQueue::in_directory(place.0.path(), clock).unwrap();
        Play { queue, ahead, _place: place }
    }

    async fn change(&self, sql: String) {
        let change =
            self.queue.ask(move |database, _| database.execute_batch(&sql).map_err(failed("change it")));
        change.await.unwrap();
    }

    /// Lets all claims run out, of which nobody is told.
    fn wait_for_claims(&self) {
        self.ahead.store(30 * 60 * 1000, Ordering::Relaxed);
    }

    async fn await_fault(&self) -> String {
        let mut faults = self.queue.faults();
        let told = tokio::time::timeout(Duration::from_secs(60), faults.wait_for(Option::is_some));
        told.await.unwrap().unwrap().clone().unwrap()
    }

    async fn await_no_fault(&self) {
        let mut faults = self.queue.faults();
        tokio::time::timeout(Duration::from_secs(60), faults.wait_for(Option::is_none))
            .await
            .unwrap()
            .unwrap();
    }
}

#[tokio::test]
async fn where_nothing_can_be_written_of_what_is_due_whoever_reads_is_answered_and_whoever_changes_is_refused()
 {
    let play = Play::new();
    let task_id = create(&play.queue).await;
    claim(&play.queue).await;
    let full =
        "CREATE TRIGGER full BEFORE UPDATE ON tasks BEGIN SELECT RAISE(ABORT, 'the disk is full'); END";
    play.change(full.to_owned()).await;
    play.wait_for_claims();
    // What the sweep begins with on a full disk, and what a page shows of it.
    play.queue.expired_artifacts(play.queue.now(), None).await.unwrap();
    assert_eq!(play.queue.status(&task_id).await.unwrap().state, RunState::Running);
    // This has nothing to do with tasks, but other changes have.
    let told = chain(&play.queue.set_secret("a", secret("b")).await.unwrap_err());
    assert!(told.contains("the disk is full"), "{told}");
    assert_eq!(play.queue.secret("a").await.unwrap(), None);
    let fault = play.await_fault().await;
    assert!(
        fault.contains("failed to see to what is due: ") && fault.contains("the disk is full"),
        "{fault}"
    );
    play.change("DROP TRIGGER full".to_owned()).await;
    play.await_no_fault().await;
    assert_eq!(play.queue.status(&task_id).await.unwrap().state, RunState::Pending);
    play.queue.set_secret("a", secret("b")).await.unwrap();
}

#[tokio::test]
async fn a_task_that_is_due_and_cannot_be_read_stands_in_no_others_way() {
    let play = Play::new();
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(create(&play.queue).await);
        claim(&play.queue).await;
    }
    // The one that is due first.
    let broken = format!("UPDATE tasks SET status = '{{}}' WHERE task_id = '{}'", ids[0]);
    play.change(broken).await;
    play.wait_for_claims();
    for other in &ids[1..] {
        assert_eq!(play.queue.status(other).await.unwrap().state, RunState::Pending);
    }
    play.queue.set_secret("a", secret("b")).await.unwrap();
    let fault = play.await_fault().await;
    assert!(fault.starts_with(&format!("failed to see to what is due of task {}: ", ids[0])), "{fault}");
    play.queue.status(&ids[0]).await.unwrap_err();
}
