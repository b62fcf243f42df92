//! `docker-worker standalone` whose disk is full for a while.

use std::fs::{self, File};
use std::io::Write;
use std::time::Duration;

use docker_worker::queue::task_id::TaskId;
use docker_worker::timestamp::Timestamp;
use serde_json::{Value, json};

use crate::support::{OwnQueue, SmallDisk, await_that, shell_payload};

/// More tasks than fit.
const MOST: usize = 2000;

#[test]
fn a_full_disk_refuses_calls_in_a_sentence_and_nothing_that_was_answered_is_lost() {
    let own = OwnQueue::new();
    let queue = own.worker.data().join("queue");
    let disk = SmallDisk::mount(&queue, "32m");
    let standalone = own.start();
    own.await_state(&own.create_script("true"), "completed");
    let filling = queue.join("filling");
    let mut file = File::create(&filling).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    // A little is left.
    file.set_len(file.metadata().unwrap().len() - (1 << 20)).unwrap();
    drop(file);
    // For workers that there are none of.
    let mut definition = own.definition(&shell_payload(&own.image, "true"));
    definition["taskQueueId"] = json!("p/elsewhere");
    definition["payload"]["env"] = json!({ "FILLING": "x".repeat(50_000) });
    let mut acknowledged = Vec::new();
    let root = own.root();
    let create = || {
        let task_id = TaskId::random().unwrap();
        let answered = own.call_as(Some(&root), &format!("PUT queue/task/{task_id}"), &definition);
        (task_id, answered)
    };
    let refused = (0..MOST).find_map(|_| {
        let (task_id, answered) = create();
        if answered.status != 200 {
            return Some(answered);
        }
        acknowledged.push(task_id);
        None
    });
    let refused = refused.expect("the disk takes all");
    assert_eq!((refused.status, &refused.body["code"]), (500, &json!("InternalServerError")));
    assert!(!acknowledged.is_empty());
    let message = refused.body["message"].as_str().unwrap();
    assert!(message.contains("database or disk is full"), "{message}");
    let known = |task_id: &TaskId| {
        own.call_as(None, &format!("GET queue/task/{task_id}/status"), &Value::Null).status == 200
    };
    assert!(acknowledged.iter().all(known));
    // A copy is made on the same disk first: it fails in the middle.
    let copy = own.worker.fresh("copy");
    let back_up = || own.worker.call(&["standalone", "--backup", copy.to_str().unwrap()]);
    let told = back_up();
    let text = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.code() == Some(1) && text.contains("disk is full"), "{text}");
    assert!(!copy.exists() && fs::read_dir(queue.join("copies")).unwrap().next().is_none());
    fs::remove_file(filling).unwrap();
    assert!(back_up().status.success() && copy.is_file());
    assert_eq!(create().1.status, 200);
    own.await_state(&own.create_script("true"), "completed");
    assert!(acknowledged.iter().all(known));
    standalone.stop();
    let database = rusqlite::Connection::open(queue.join("queue.sqlite")).unwrap();
    let found: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(found, "ok");
    drop(database);
    drop(disk);
}

#[test]
fn a_full_disk_keeps_nobody_from_reading_though_something_is_due() {
    let own = OwnQueue::new();
    let queue = own.worker.data().join("queue");
    let disk = SmallDisk::mount(&queue, "32m");
    let standalone = own.start();
    own.await_state(&own.create_script("true"), "completed");
    // For workers that there are none of; their deadlines come together.
    let mut definition = own.definition(&shell_payload(&own.image, "true"));
    definition["taskQueueId"] = json!("p/elsewhere");
    let deadline = Timestamp::now().plus(Duration::from_secs(20));
    definition["deadline"] = json!(deadline.to_string());
    let root = own.root();
    let create = |definition: &Value| {
        let task_id = TaskId::random().unwrap();
        let answered = own.call_as(Some(&root), &format!("PUT queue/task/{task_id}"), definition);
        (answered.status == 200).then_some(task_id)
    };
    let due: Vec<TaskId> = (0..60).map(|_| create(&definition).unwrap()).collect();
    let filling = queue.join("filling");
    let mut file = File::create(&filling).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    // What the queue's files have of room in them is used as well, to the last.
    let mut others = own.definition(&shell_payload(&own.image, "true"));
    others["taskQueueId"] = json!("p/elsewhere");
    let mut refused = 0;
    while refused < 5 {
        refused += usize::from(create(&others).is_none());
    }
    assert!(Timestamp::now() < deadline, "it took too long to fill the disk");
    await_that("the deadline to pass", || Timestamp::now() > deadline.plus(Duration::from_secs(1)));
    for task_id in &due {
        let status = own.call_as(None, &format!("GET queue/task/{task_id}/status"), &Value::Null);
        assert_eq!(status.status, 200, "{status:?}");
    }
    assert_eq!(create(&others), None);
    fs::remove_file(filling).unwrap();
    for task_id in &due {
        let status = own.await_state(task_id, "exception");
        assert_eq!(OwnQueue::ends(&status), ["deadline-exceeded"]);
    }
    own.await_state(&own.create_script("true"), "completed");
    let told = standalone.stop().log;
    assert!(told.contains("failed to see to what is due: ") && told.contains("disk is full"), "{told}");
    drop(disk);
}

#[test]
fn a_threshold_that_the_whole_disk_does_not_have_is_named() {
    let own = OwnQueue::new();
    let more = json!({ "capacityManagement": { "diskspaceThreshold": "4096T" } });
    let told = String::from_utf8_lossy(&own.start_with(&more, &[]).stop().finished.stderr).into_owned();
    let expected = "no task will be claimed: capacityManagement.diskspaceThreshold is 4503599627 MB, and the whole disk of";
    assert!(told.contains(expected), "{told}");
    let checked = own.worker.call(&["check", "--config", &own.config(&more)]);
    let report = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(report.contains("diskspaceThreshold, which is more than the whole disk has"), "{report}");
}
