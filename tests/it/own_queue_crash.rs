//! `docker-worker standalone` that is killed, at one moment after the other, and started again.

use rustix::process::Signal;
use serde_json::json;

use crate::support::{OwnQueue, shell_payload};

#[test]
fn whenever_it_is_killed_the_next_start_brings_each_task_to_one_good_end() {
    let own = OwnQueue::new();
    // What its log says last before it is killed.
    let moments = [
        r#""type":"start""#,
        r#""type":"claimed task""#,
        r#""type":"task run""#,
        r#""type":"Uploading public/r.txt""#,
        r#""type":"task resolved""#,
    ];
    let mut tasks = Vec::new();
    for moment in moments {
        let mut standalone = own.start();
        let mut payload = shell_payload(&own.image, "echo $TASK_ID > /tmp/r.txt");
        payload["artifacts"] = json!({ "public/r.txt": { "type": "file", "path": "/tmp/r.txt" } });
        tasks.push(own.create(&payload));
        standalone.await_logged(moment);
        standalone.signal(Signal::KILL);
        standalone.ended();
    }
    let standalone = own.start();
    for (task_id, moment) in tasks.iter().zip(moments) {
        let status = own.await_state(task_id, "completed");
        let mut ends = OwnQueue::ends(&status);
        assert_eq!(ends.pop(), Some("completed"), "{moment}: {status}");
        assert!(ends.iter().all(|end| *end == "worker-shutdown"), "{moment}: {status}");
        assert_eq!(own.artifact(task_id, "public/r.txt"), format!("{task_id}\n"), "{moment}");
        assert!(own.log(task_id).contains("exit code: 0"), "{moment}");
    }
    standalone.stop();
}
