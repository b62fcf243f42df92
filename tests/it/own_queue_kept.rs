//! What an operator of `docker-worker standalone` does beside it: clients that come and go, copies of the queue.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use docker_worker::queue::task_id::TaskId;
use serde_json::{Value, json};

use crate::support::{Finished, OwnQueue, Signer, shell_payload};

/// What a command prints that succeeds.
fn printed(finished: &Finished) -> Value {
    assert!(finished.status.success(), "{finished:?}");
    serde_json::from_slice(&finished.stdout).unwrap_or_default()
}

/// What a command says that does not.
fn refused(finished: &Finished) -> String {
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    String::from_utf8_lossy(&finished.stderr).into_owned()
}

#[test]
fn s_a_client_may_do_what_its_scopes_say_from_its_adding_until_its_removal() {
    let own = OwnQueue::new();
    let standalone = own.start();
    let scopes = ["--scope", "queue:create-task:*", "--scope", "queue:scheduler-id:-"];
    let add = [&["standalone", "client", "add", "team/ci"][..], &scopes].concat();
    let made = printed(&own.worker.call(&add));
    let text = |key: &str| made[key].as_str().unwrap().to_owned();
    let ci = Signer { client_id: text("clientId"), access_token: text("accessToken"), certificate: None };
    let create = |more: &Value| {
        let mut definition = own.definition(&shell_payload(&own.image, "echo by ci"));
        definition.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let task_id = TaskId::random().unwrap();
        (own.call_as(Some(&ci), &format!("PUT queue/task/{task_id}"), &definition).status, task_id)
    };
    let (status, task_id) = create(&json!({}));
    assert_eq!(status, 200);
    own.await_state(&task_id, "completed");
    assert_eq!(create(&json!({ "scopes": ["docker-worker:cache:x"] })).0, 403);
    assert!(refused(&own.worker.call(&add)).contains("there is one"));
    let listed = printed(&own.worker.call(&["standalone", "client", "list"]));
    let expected =
        json!([{ "clientId": "team/ci", "scopes": ["queue:create-task:*", "queue:scheduler-id:-"] }]);
    assert_eq!(listed["clients"], expected);
    let remove = ["standalone", "client", "remove", "team/ci"];
    assert!(own.worker.call(&remove).status.success());
    assert_eq!(create(&json!({})).0, 401);
    assert!(refused(&own.worker.call(&remove)).contains("there is none"));
    standalone.stop();
}

/// The tasks in a copy, and what SQLite finds wrong with it.
fn look_into(copy: &Path) -> (i64, String) {
    let database = rusqlite::Connection::open(copy).unwrap();
    let number = database.query_row("SELECT count(*) FROM tasks", [], |row| row.get(0)).unwrap();
    (number, database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap())
}

#[test]
fn a_copy_has_all_that_was_acknowledged_whether_or_not_the_queue_is_served() {
    let own = OwnQueue::new();
    let copies = own.worker.fresh("copies");
    fs::create_dir(&copies).unwrap();
    let copy = copies.join("queue.sqlite");
    let back_up = |file: &Path| own.worker.call(&["standalone", "--backup", file.to_str().unwrap()]);
    let told = refused(&back_up(&copy));
    assert!(told.contains("there is no queue in") && told.lines().count() == 1, "{told}");
    let standalone = own.start();
    for number in 1..=5 {
        own.create_script("true");
        let finished = back_up(&copy);
        assert!(finished.status.success(), "{finished:?}");
        assert_eq!(look_into(&copy), (number, "ok".to_owned()));
    }
    let told = refused(&back_up(&copies.join("nowhere/queue.sqlite")));
    assert!(told.contains("No such file or directory") && told.lines().count() == 1, "{told}");
    standalone.stop();
    assert!(back_up(&copy).status.success());
    let names: Vec<_> = fs::read_dir(&copies).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!((names, look_into(&copy).0), (vec!["queue.sqlite".into()], 5));
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o7777, 0o600);
    // It takes the queue's place: here that of another data directory.
    let place = own.worker.fresh("restored");
    fs::create_dir_all(place.join("queue")).unwrap();
    fs::copy(&copy, place.join("queue/queue.sqlite")).unwrap();
    fs::copy(own.credentials_file(), place.join("credentials.json")).unwrap();
    let standalone = own.start_with(&json!({}), &["--data", place.to_str().unwrap()]);
    own.await_state(&own.create_script("true"), "completed");
    standalone.stop();
    assert_eq!(look_into(&place.join("queue/queue.sqlite")).0, 6);
}
