//! What months of use do: much is written while copies are made, others look at the file, the clock is set.

use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use rusqlite::ErrorCode;

use super::*;

/// The write-ahead log is taken into the database from 4 MB on; a large change may leave this much of it.
const LOG_BYTES: u64 = 16 << 20;

fn log_bytes(place: &Place) -> u64 {
    std::fs::metadata(place.0.path().join("queue.sqlite-wal")).unwrap().len()
}

#[tokio::test]
async fn the_log_stays_small_beside_copies_that_take_long_and_shrinks_after_a_large_change() {
    let place = Place::new();
    let queue = place.open().unwrap();
    for number in 0..100 {
        queue.set_secret(&format!("{number}"), large_secret()).await.unwrap();
    }
    let small = (serde_json::Map::new(), Timestamp::now().plus(Duration::from_secs(600)));
    let mut largest = 0;
    let writing = async {
        for number in 0..100_000 {
            queue.set_secret(&format!("{}", number % 100), small.clone()).await.unwrap();
            if number % 1000 == 0 {
                largest = largest.max(log_bytes(&place));
            }
        }
    };
    let copying = async {
        loop {
            queue.copy().await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = writing => {}
        () = copying => {}
    }
    assert!(largest > 0 && largest < LOG_BYTES, "{largest} bytes");
    // All at once.
    let large = large_secret();
    let change = queue.ask(move |database, now| {
        (0..600)
            .try_for_each(|number| secrets::set(database, &format!("large/{number}"), &large, now).map(drop))
    });
    change.await.unwrap();
    assert!(log_bytes(&place) > 2 * LOG_BYTES, "{} bytes", log_bytes(&place));
    for _ in 0..2 {
        queue.set_secret("after", small.clone()).await.unwrap();
    }
    assert!(log_bytes(&place) <= LOG_BYTES, "{} bytes", log_bytes(&place));
}

#[tokio::test]
async fn nobody_else_reads_the_file_of_a_queue_in_use_and_so_keeps_its_log_from_shrinking() {
    let place = Place::new();
    let _queue = place.open().unwrap();
    let other = Connection::open(place.path()).unwrap();
    other.busy_timeout(Duration::ZERO).unwrap();
    let read = other.query_row("SELECT count(*) FROM tasks", [], |row| row.get::<_, i64>(0));
    assert_eq!(read.unwrap_err().sqlite_error_code(), Some(ErrorCode::DatabaseBusy));
}

#[tokio::test]
async fn copies_that_are_made_under_load_are_whole_and_have_what_was_acknowledged_before() {
    let place = Place::new();
    let queue = place.open().unwrap();
    let (acknowledged, goes_on) = (Mutex::new(Vec::new()), AtomicBool::new(true));
    let load = async {
        while goes_on.load(Ordering::Relaxed) {
            let task_id = create(&queue).await;
            acknowledged.lock().unwrap().push(task_id);
        }
    };
    let copying = async {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let before = acknowledged.lock().unwrap().clone();
            let copy = queue.copy().await.unwrap();
            assert_eq!(copies(&place), 1);
            assert_eq!(std::fs::metadata(copy.path()).unwrap().mode() & 0o7777, 0o600);
            let database = Connection::open(copy.path()).unwrap();
            let found: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(found, "ok");
            for task_id in &before {
                let find = "SELECT 1 FROM tasks JOIN definitions USING (task_id) WHERE task_id = ?1";
                assert!(database.prepare_cached(find).unwrap().exists([task_id.as_str()]).unwrap());
            }
        }
        goes_on.store(false, Ordering::Relaxed);
    };
    tokio::join!(load, copying);
    assert!(acknowledged.lock().unwrap().len() > 10);
    assert_eq!(copies(&place), 0);
}

#[tokio::test]
async fn a_secret_that_is_removed_while_a_copy_is_made_is_in_no_file_of_the_two() {
    let place = Place::new();
    let queue = place.open().unwrap();
    let (_, expires) = large_secret();
    let word = serde_json::json!("hunter2 ".repeat(2000));
    queue.set_secret("0", (std::iter::once(("value".to_owned(), word)).collect(), expires)).await.unwrap();
    for number in 1..100 {
        queue.set_secret(&format!("{number}"), large_secret()).await.unwrap();
    }
    // Both are asked for before anything is waited for, the copy first; what is removed is in its first step.
    let (copy, removed) = tokio::join!(biased; queue.copy(), queue.remove_secret("0"));
    removed.unwrap();
    let copy = std::fs::read(copy.unwrap().path()).unwrap();
    let files = contents(place.0.path()).into_iter().map(|(_, content)| content).chain([copy]);
    assert!(files.into_iter().all(|content| !content.windows(7).any(|bytes| bytes == b"hunter2")));
}

#[tokio::test]
async fn a_copy_that_fails_leaves_no_file_and_the_queue_as_it_is() {
    let place = Place::new();
    let queue = place.open().unwrap();
    let task_id = create(&queue).await;
    std::fs::write(place.0.path().join("copies"), "in the way").unwrap();
    let names = || contents(place.0.path()).into_iter().map(|(path, _)| path).collect::<Vec<_>>();
    let before = names();
    let told = chain(&queue.copy().await.unwrap_err());
    assert!(told.contains("copies") && told.contains("Not a directory"), "{told}");
    assert_eq!(names(), before);
    assert!(queue.status(&task_id).await.is_ok());
}

#[tokio::test]
async fn a_clock_that_is_set_back_or_forth_ends_no_claim_before_its_time_and_loses_no_task() {
    let minutes = Arc::new(AtomicI64::new(0));
    let hand = Arc::clone(&minutes);
    let begin = Timestamp::now().as_millis();
    let clock = move || Timestamp::from_millis(begin + hand.load(Ordering::Relaxed) * 60_000);
    let queue = EmbeddedQueue::in_memory(Box::new(clock)).unwrap();
    let set = |to| minutes.store(to, Ordering::Relaxed);
    let state = async |task_id: &TaskId| queue.status(task_id).await.unwrap().state;
    let first = create(&queue).await;
    let held = claim(&queue).await;
    set(-120);
    assert_eq!(state(&first).await, RunState::Running);
    let until = held.queue.reclaim().await.unwrap();
    assert_eq!(until, queue.now().plus(Duration::from_secs(20 * 60)));
    // Made before the first one, by this clock, and claimed all the same.
    let second = create(&queue).await;
    assert_eq!(claim(&queue).await.queue.run().task_id, second);
    held.queue.report(Verdict::Completed).await.unwrap();
    set(120);
    assert_eq!((state(&first).await, state(&second).await), (RunState::Completed, RunState::Pending));
    let ends = queue.status(&second).await.unwrap().runs;
    assert_eq!(ends[0].reason_resolved, Some(Verdict::Exception(Reason::ClaimExpired)));
    assert_eq!(claim(&queue).await.queue.run(), &RunId { task_id: second, run_id: 1 });
}

#[tokio::test]
async fn a_clock_that_jumps_a_day_back_or_a_year_forth_ends_what_its_time_has_come_for_and_nothing_stands_still()
 {
    const DAY: i64 = 24 * 60;
    let place = Place::new();
    let minutes = Arc::new(AtomicI64::new(0));
    let hand = Arc::clone(&minutes);
    let clock =
        move || Timestamp::from_millis(Timestamp::now().as_millis() + hand.load(Ordering::Relaxed) * 60_000);
    let queue = EmbeddedQueue::in_directory(place.0.path(), Box::new(clock)).unwrap();
    let set = |to| minutes.store(to, Ordering::Relaxed);
    let state = async |task_id: &TaskId| queue.status(task_id).await.unwrap().state;
    let running = create(&queue).await;
    let held = claim(&queue).await;
    let pending = create(&queue).await;
    set(-DAY);
    assert_eq!((state(&running).await, state(&pending).await), (RunState::Running, RunState::Pending));
    held.queue.reclaim().await.unwrap();
    let back = create(&queue).await;
    assert_eq!(claim(&queue).await.queue.run().task_id, back);
    assert_eq!(claim(&queue).await.queue.run().task_id, pending);
    set(365 * DAY);
    for task_id in [&running, &pending, &back] {
        let status = queue.status(task_id).await.unwrap();
        let ends: Vec<_> = status.runs.iter().map(|run| run.reason_resolved.unwrap()).collect();
        let expected = [Reason::ClaimExpired, Reason::DeadlineExceeded].map(Verdict::Exception);
        assert_eq!((status.state, &ends[..]), (RunState::Exception, &expected[..]));
    }
    assert!(matches!(held.queue.report(Verdict::Completed).await, Err(QueueError::Conflict { .. })));
    let [ahead, left] = [create(&queue).await, create(&queue).await];
    claim(&queue).await.queue.report(Verdict::Completed).await.unwrap();
    set(0);
    assert_eq!((state(&ahead).await, state(&left).await), (RunState::Completed, RunState::Pending));
    let last = create(&queue).await;
    for expected in [last, left] {
        let claimed = claim(&queue).await;
        assert_eq!(claimed.queue.run().task_id, expected);
        claimed.queue.report(Verdict::Completed).await.unwrap();
    }
}
