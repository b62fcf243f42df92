//! `docker-worker standalone` whose worker has trouble to reach its queue: no result depends on it.

use std::time::Duration;

use serde_json::json;

use crate::support::{Fault, OwnQueue, WayToQueue, shell_payload};

#[test]
fn whatever_is_wrong_between_worker_and_queue_each_task_has_its_one_resolution() {
    let own = OwnQueue::new();
    let way = WayToQueue::lay(&own.internet);
    let late = Fault::Late(Duration::from_secs(3));
    for (part, fault) in [
        ("/claim-work/", Fault::Status(500)),
        ("/claim-work/", Fault::Reset),
        ("/completed", Fault::Status(503)),
        ("/completed", Fault::LostReply),
        ("/completed", Fault::Page),
        ("/completed", Fault::Refusal(409)),
        ("/failed", Fault::Reset),
        ("/failed", Fault::LostReply),
        ("/failed", late),
        ("/artifacts/", Fault::Status(500)),
        ("/artifacts/", Fault::LostReply),
        ("/artifacts/", Fault::Reset),
        ("PUT /storage/", Fault::Status(502)),
        ("PUT /storage/", Fault::Reset),
        ("PUT /storage/", Fault::LostReply),
    ] {
        way.wire.fail(part, fault, 1);
    }
    let standalone = own.start_with(&json!({ "capacity": 3, "taskQueue": { "pollInterval": 100 } }), &[]);
    let mut tasks = Vec::new();
    for number in 0..6 {
        let script = format!("echo number {number} > /tmp/r.txt; exit {}", number % 2);
        let mut payload = shell_payload(&own.image, &script);
        payload["artifacts"] = json!({ "public/r.txt": { "type": "file", "path": "/tmp/r.txt" } });
        tasks.push(own.create(&payload));
    }
    for (number, task_id) in tasks.iter().enumerate() {
        let expected = if number % 2 == 0 { "completed" } else { "failed" };
        let status = own.await_state(task_id, expected);
        assert_eq!(OwnQueue::ends(&status), [expected], "{number}");
        assert_eq!(own.artifact(task_id, "public/r.txt"), format!("number {number}\n"));
        assert!(own.log(task_id).contains(&format!("exit code: {}", number % 2)), "{number}");
    }
    let failed: usize = way.wire.failed().values().sum();
    assert_eq!(failed, 15, "{:?}", way.wire.failed());
    way.wire.fail_no_more();
    standalone.stop();
}
