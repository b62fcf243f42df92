//! A worker of a deployment that is killed in the middle of a task, and started again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use docker_worker::queue::task_id::TaskId;
use docker_worker::queue::{RunState, TaskStatus};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Fault, Site, Started, finish, read_until};

const LIMIT: Duration = Duration::from_secs(60);

/// A task whose first run goes on for ever, and whose second one does not.
const SCRIPT: &str = "echo from run $RUN_ID; [ $RUN_ID != 0 ] || sleep 1000";

/// Starts a worker, and kills it when the task's first run has printed its line.
fn kill_in_the_middle(site: &Site, task_id: &TaskId) {
    let worker = site.start(&json!({}));
    site.deployment.await_running(task_id);
    await_line(site, task_id, "from run 0");
    assert_file_is_secret(site, task_id);
    worker.signal(Signal::KILL);
    worker.ended();
}

/// Waits until the live log of a running task has that line.
fn await_line(site: &Site, task_id: &TaskId, line: &str) {
    site.deployment.wire.await_asked("public%2Flogs%2Flive.log", 1);
    let url = site.deployment.artifact_url(task_id, "public/logs/live.log");
    let options = [
        "--silent",
        "--location",
        "--no-buffer",
        "--retry",
        "20",
        "--retry-delay",
        "1",
        "--retry-all-errors",
    ];
    let mut curl =
        site.deployment.program("curl", &[&options[..], &["--fail", &url]].concat()).spawn().unwrap();
    let rest = read_until(&mut curl, line);
    curl.kill().unwrap();
    curl.wait().unwrap();
    rest.join().unwrap();
}

fn assert_file_is_secret(site: &Site, task_id: &TaskId) {
    let claims = site.worker.run_directory().join("claims");
    for (path, mode) in [(claims.clone(), 0o700), (claims.join(task_id.as_str()), 0o600)] {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode, "{}", path.display());
    }
    let claim: Value = serde_json::from_slice(&fs::read(claims.join(task_id.as_str())).unwrap()).unwrap();
    assert_eq!((&claim["runId"], &claim["rootUrl"]), (&json!(0), &json!(site.deployment.root_url)));
    let token = claim["credentials"]["accessToken"].as_str().unwrap();
    let found = finish(grep(site, token), LIMIT);
    assert_eq!(
        String::from_utf8_lossy(&found.stdout),
        format!("{}\n", claims.join(task_id.as_str()).display())
    );
}

/// Looks for a secret in all of the worker's directories.
fn grep(site: &Site, secret: &str) -> std::process::Child {
    let places = [site.worker.run_directory(), site.worker.data()];
    let mut command = Command::new("grep");
    command.args([
        "--recursive",
        "--files-with-matches",
        "--devices=skip",
        "--exclude-dir=root",
        "--",
        secret,
    ]);
    command.args(places).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

fn ends(status: &TaskStatus) -> Vec<(RunState, String)> {
    let ends =
        status.runs.iter().map(|run| (run.state, json!(run)["reasonResolved"].as_str().unwrap().to_owned()));
    ends.collect()
}

/// The log of a task's first run, as it was stored.
fn first_log(site: &Site, task_id: &TaskId) -> String {
    let name = "public%2Flogs%2Flive.log";
    let url = format!("{}/api/queue/v1/task/{task_id}/runs/0/artifacts/{name}", site.deployment.root_url);
    let options = ["--silent", "--show-error", "--fail", "--location", "--compressed", &url];
    let got = finish(site.deployment.program("curl", &options).spawn().unwrap(), LIMIT);
    assert!(got.status.success(), "{got:?}");
    String::from_utf8_lossy(&got.stdout).into_owned()
}

fn assert_ran_again(site: &Site, task_id: &TaskId) {
    let status = site.deployment.await_resolved(task_id);
    let expected =
        [(RunState::Exception, "worker-shutdown".to_owned()), (RunState::Completed, "completed".to_owned())];
    assert_eq!(ends(&status), expected, "{status:#?}");
    let log = first_log(site, task_id);
    assert!(log.contains("from run 0\r\n") && log.contains("The worker died"), "{log}");
    assert!(log.trim_end().ends_with("seconds"), "{log}");
    assert!(site.deployment.log(task_id).contains("from run 1"));
}

#[test]
fn a_task_whose_worker_was_killed_runs_again_as_soon_as_it_is_back() {
    let site = Site::new();
    let task_id = site.deployment.create(&site.payload(SCRIPT));
    kill_in_the_middle(&site, &task_id);
    let worker = site.start(&json!({}));
    assert_ran_again(&site, &task_id);
    worker.stop();
    site.worker.assert_nothing_left("after the second worker's end");
}

#[test]
fn a_host_that_was_booted_anew_is_no_hindrance() {
    let site = Site::new();
    let task_id = site.deployment.create(&site.payload(SCRIPT));
    kill_in_the_middle(&site, &task_id);
    let boot_id = site.worker.fresh("boot-id");
    fs::write(&boot_id, "01234567-89ab-cdef-0123-456789abcdef\n").unwrap();
    let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id; exec \"$@\"";
    let worker = site.worker.command(&["start", "--config", &site.config(&json!({}))]);
    let mut booted = Command::new("unshare");
    booted.args(["--mount", "--propagation", "private", "sh", "-ec", script]).arg(&boot_id);
    booted.arg(worker.get_program()).args(worker.get_args());
    booted.envs(worker.get_envs().filter_map(|(name, value)| Some((name, value?))));
    booted.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let worker = Started::of(booted.spawn().unwrap());
    assert_ran_again(&site, &task_id);
    worker.stop();
    site.worker.assert_nothing_left("after the second worker's end");
}

#[test]
fn a_queue_that_cannot_be_told_keeps_no_other_task_from_running() {
    let site = Site::new();
    let task_id = site.deployment.create(&site.payload(SCRIPT));
    kill_in_the_middle(&site, &task_id);
    site.deployment.wire.fail(&format!("{task_id}/runs/0/"), Fault::Status(503), 20);
    let other = site.deployment.create(&site.payload("echo other"));
    let worker = site.start(&json!({}));
    assert_eq!(site.deployment.await_resolved(&other).state, RunState::Completed);
    assert_ran_again(&site, &task_id);
    worker.stop();
}

#[test]
fn another_worker_and_a_single_run_leave_the_claim_to_its_own_worker() {
    let site = Site::new();
    let task_id = site.deployment.create(&site.payload(SCRIPT));
    kill_in_the_middle(&site, &task_id);
    let other = site.start(&json!({"workerId": "other"}));
    let ended = other.stop();
    let said = String::from_utf8_lossy(&ended.finished.stderr).into_owned();
    assert_eq!(
        said.lines().filter(|line| line.starts_with("docker-worker: left alone: run 0 of task")).count(),
        1,
        "{said}"
    );
    let image = site.worker.image(&crate::support::busybox_image()).source;
    site.worker.run(&image, &["true"]).expect(0, "beside a run that waits for its worker");
    assert_eq!(site.deployment.status(&task_id).state, RunState::Running);
    let worker = site.start(&json!({}));
    assert_ran_again(&site, &task_id);
    worker.stop();
}
