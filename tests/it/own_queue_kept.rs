//! What an operator of `docker-worker standalone` does beside it: clients that come and go, copies of the queue.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Child;
use std::time::{Duration, SystemTime};

use docker_worker::queue::task_id::TaskId;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{Finished, OwnQueue, Signer, await_that, finish, shell_payload};

/// More than any command here takes.
const LIMIT: Duration = Duration::from_secs(60);

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
fn a_client_may_do_what_its_scopes_say_from_its_adding_until_its_removal() {
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

#[test]
fn no_client_is_made_whose_credentials_nobody_has_or_which_no_server_looks_for() {
    let own = OwnQueue::new();
    let (add, list) =
        (["standalone", "client", "add", "ci", "--scope", "a"], ["standalone", "client", "list"]);
    for words in [&add[..], &list] {
        assert!(refused(&own.worker.call(words)).contains("there is no queue in "), "{words:?}");
        assert!(!own.worker.data().exists(), "{words:?}");
    }
    own.start().stop();
    for (place, status, words) in [
        ("/dev/full", 1, "the client ci was not added, as nobody would have its credentials"),
        ("/dev/null", 2, "standard output leads nowhere"),
    ] {
        let mut command = own.worker.command(&add);
        command.stdout(fs::File::options().write(true).open(place).unwrap());
        let finished = finish(command.spawn().unwrap(), LIMIT);
        assert_eq!(finished.status.code(), Some(status), "{place}: {finished:?}");
        assert!(String::from_utf8_lossy(&finished.stderr).contains(words), "{place}: {finished:?}");
        assert_eq!(printed(&own.worker.call(&list))["clients"], json!([]), "{place}");
    }
}

/// The tasks in a copy, and what SQLite finds wrong with it.
fn look_into(copy: &Path) -> (i64, String) {
    let database = rusqlite::Connection::open(copy).unwrap();
    let number = database.query_row("SELECT count(*) FROM tasks", [], |row| row.get(0)).unwrap();
    (number, database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap())
}

/// The command that copies the queue.
fn start_backup(own: &OwnQueue, file: &Path) -> Child {
    own.worker.command(&["standalone", "--backup"]).arg(file).spawn().unwrap()
}

#[test]
fn a_copy_has_all_that_was_acknowledged_whether_or_not_the_queue_is_served() {
    let own = OwnQueue::new();
    let copies = own.worker.fresh("copies");
    fs::create_dir(&copies).unwrap();
    let copy = copies.join("queue.sqlite");
    let back_up = |file: &Path| finish(start_backup(&own, file), LIMIT);
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
    // A name is bytes.
    let odd = copies.join(OsStr::from_bytes(b"queue\xff"));
    assert!(back_up(&odd).status.success());
    fs::remove_file(odd).unwrap();
    let names: Vec<_> = fs::read_dir(&copies).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!((names, look_into(&copy).0), (vec!["queue.sqlite".into()], 5));
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o7777, 0o600);
    // It takes the queue's place: here that of another data directory.
    let place = own.worker.fresh("restored");
    let [data, from] = [&place, &copy].map(|path| path.to_str().unwrap());
    let restored = own.worker.call(&["standalone", "--restore", from, "--data", data]);
    assert!(restored.status.success(), "{restored:?}");
    fs::copy(own.credentials_file(), place.join("credentials.json")).unwrap();
    let standalone = own.start_with(&json!({}), &["--data", data]);
    own.await_state(&own.create_script("true"), "completed");
    standalone.stop();
    assert_eq!(look_into(&place.join("queue/queue.sqlite")).0, 6);
}

#[test]
fn a_copy_is_restored_after_a_kill_and_what_was_acknowledged_later_is_gone() {
    let own = OwnQueue::new();
    let copies = own.worker.fresh("copies");
    fs::create_dir(&copies).unwrap();
    let copy = copies.join("queue.sqlite");
    let restore = || own.worker.call(&["standalone", "--restore", copy.to_str().unwrap()]);
    let standalone = own.start();
    let kept = own.create_script("true");
    own.await_state(&kept, "completed");
    assert!(finish(start_backup(&own, &copy), LIMIT).status.success());
    let lost = own.create_script("sleep 1000");
    own.await_state(&lost, "running");
    let told = refused(&restore());
    assert!(told.contains("another process has it open") && told.lines().count() == 1, "{told}");
    standalone.signal(Signal::KILL);
    standalone.ended();
    // What the killed one has not brought into its file would be replayed onto the copy.
    let log = own.worker.data().join("queue/queue.sqlite-wal");
    assert_ne!(fs::metadata(&log).unwrap().len(), 0);
    let finished = restore();
    assert!(finished.status.success(), "{finished:?}");
    assert!(!log.exists());
    let standalone = own.start();
    assert_eq!(own.status(&kept)["state"], "completed");
    let asked = own.call_as(None, &format!("GET queue/task/{lost}/status"), &Value::Null);
    assert_eq!(asked.status, 404, "{asked:?}");
    own.await_state(&own.create_script("true"), "completed");
    standalone.stop();
    assert_eq!(look_into(&own.worker.data().join("queue/queue.sqlite")), (2, "ok".to_owned()));
}

#[test]
fn the_bytes_of_artifacts_outlive_a_start_with_the_wrong_copy() {
    let own = OwnQueue::new();
    let copies = own.worker.fresh("copies");
    fs::create_dir(&copies).unwrap();
    let [early, late] = ["early", "late"].map(|name| copies.join(name));
    let standalone = own.start();
    own.await_state(&own.create_script("true"), "completed");
    assert!(finish(start_backup(&own, &early), LIMIT).status.success());
    let task_id = own.create_script("echo of late");
    own.await_state(&task_id, "completed");
    assert!(finish(start_backup(&own, &late), LIMIT).status.success());
    standalone.stop();
    let artifacts = own.worker.data().join("queue/artifacts");
    let files = || fs::read_dir(&artifacts).unwrap().map(|entry| entry.unwrap().path());
    for file in files() {
        let long_ago = SystemTime::now() - Duration::from_secs(365 * 24 * 60 * 60);
        File::options().write(true).open(file).unwrap().set_modified(long_ago).unwrap();
    }
    let start_with = |copy: &Path| {
        let restored = own.worker.call(&["standalone", "--restore", copy.to_str().unwrap()]);
        assert!(restored.status.success(), "{restored:?}");
        own.start()
    };
    let are_marked = || files().any(|file| file.extension().is_some_and(|it| it == "stray"));
    let standalone = start_with(&early);
    await_that("what the copy does not know to be marked", are_marked);
    standalone.stop();
    let standalone = start_with(&late);
    assert!(own.log(&task_id).contains("of late"));
    await_that("what the copy knows not to be marked", || !are_marked());
    standalone.stop();
}

#[test]
fn a_copy_takes_the_place_of_nothing_that_the_queue_is_in_nor_is_that_a_copy() {
    let own = OwnQueue::new();
    let elsewhere = own.worker.fresh("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let standalone = own.start();
    let queue = own.worker.data().join("queue");
    let [directory, alias] = ["directory", "alias"].map(|name| elsewhere.join(name));
    symlink(&queue, &directory).unwrap();
    fs::hard_link(queue.join("queue.sqlite"), &alias).unwrap();
    let own_files = [&queue.join("queue.sqlite"), &queue.join("new"), &directory.join("new"), &alias];
    for file in own_files {
        let told = refused(&finish(start_backup(&own, file), LIMIT));
        assert!(told.contains("that is where the queue itself is") && told.lines().count() == 1, "{told}");
    }
    for (file, reason) in [("/dev/null", "that is no file"), ("/", "it is a directory")] {
        let told = refused(&finish(start_backup(&own, Path::new(file)), LIMIT));
        assert!(told.contains(reason) && told.lines().count() == 1, "{told}");
    }
    standalone.stop();
    for file in [&queue.join("queue.sqlite"), &alias] {
        let told = refused(&own.worker.call(&["standalone", "--restore", file.to_str().unwrap()]));
        assert!(told.contains("that is where the queue itself is") && told.lines().count() == 1, "{told}");
    }
    let raw = elsewhere.join("raw");
    fs::copy(queue.join("queue.sqlite"), &raw).unwrap();
    let told = refused(&own.worker.call(&["standalone", "--restore", raw.to_str().unwrap()]));
    assert!(told.contains("standalone --backup") && told.lines().count() == 1, "{told}");
}

/// Whether a process hears SIGTERM, instead of being ended by it.
fn hears_termination(process: &Child) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << (Signal::TERM.as_raw() - 1)) != 0
}

#[test]
fn a_queue_whose_process_is_stopped_is_not_waited_for_nor_is_a_copy_that_is_not_wanted_any_more() {
    let own = OwnQueue::new();
    let copies = own.worker.fresh("copies");
    fs::create_dir(&copies).unwrap();
    let standalone = own.start();
    standalone.signal(Signal::STOP);
    let copy = copies.join("queue.sqlite");
    let [waits, is_ended] = [(); 2].map(|()| start_backup(&own, &copy));
    await_that("signals to be heard", || hears_termination(&is_ended));
    kill_process(Pid::from_child(&is_ended), Signal::TERM).unwrap();
    let told = refused(&finish(is_ended, LIMIT));
    assert!(told.contains("it was interrupted") && told.lines().count() == 1, "{told}");
    let told = refused(&finish(waits, LIMIT));
    assert!(told.contains("it does not answer within 10 seconds") && told.lines().count() == 1, "{told}");
    standalone.signal(Signal::CONT);
    assert_eq!(fs::read_dir(&copies).unwrap().count(), 0);
    standalone.stop();
}
