//! `taskclusterProxy`: what a task asks its deployment for by way of the worker, and what is not for it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use docker_worker::queue::task_id::TaskId;
use docker_worker::queue::{Reason, RunState, Verdict};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{
    Fault, OwnQueue, Site, Terms, Worker, await_end, await_that, busybox_image, groups_named, shell_payload,
};

/// `get PATH`; `post PATH JSON`; `ask "METHOD PATH" BODY`, which shows the whole response.
pub const TOOLS: &str = r#"
get() { wget -q -O - "$TASKCLUSTER_PROXY_URL$1"; echo; }
post() { wget -S -O - --header 'Content-Type: application/json' --post-data "$2" "$TASKCLUSTER_PROXY_URL$1" 2>&1; echo; }
ask() {
    printf '%s HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: %s\r\n\r\n%s' "$1" ${#2} "$2" | nc taskcluster 80
    echo
}
"#;

/// Makes an artifact of the run that asks.
const MAKE_ARTIFACT: &str = r#"
post /api/queue/v1/task/$TASK_ID/runs/$RUN_ID/artifacts/public%2Fmade "{
    \"storageType\": \"reference\", \"contentType\": \"text/plain\", \"expires\": \"$EXPIRES\", \"url\": \"https://example.com/made\"
}"
"#;

/// The definition of a task that has the proxy.
pub fn definition(site: &Site, script: &str, scopes: &[String]) -> Value {
    let mut payload = site.payload(&format!("{TOOLS}{script}"));
    payload["features"] = json!({ "taskclusterProxy": true });
    let mut definition = site.deployment.definition(&payload);
    definition["payload"]["env"] = json!({ "EXPIRES": definition["expires"] });
    definition["scopes"] = json!(scopes);
    definition
}

/// The same with a cache, in which it finds a file when [`Site::release`] is called.
pub fn waiting_definition(site: &Site, script: &str) -> Value {
    let mut definition = definition(site, script, &["docker-worker:cache:x".to_owned()]);
    definition["payload"]["cache"] = json!({ "x": "/x" });
    definition
}

/// Waits for that file.
pub const AWAIT_RELEASE: &str = "until [ -e /x/go ]; do sleep 0.1; done";

/// The process that serves the tasks of a worker, once there is one. Nothing in its arguments or variables says whose it
/// is, but for those of its parent.
pub fn proxy_of(worker: &Worker) -> Pid {
    let mut found = None;
    await_that("a proxy", || {
        found = worker.processes("docker-worker-r").into_iter().find_map(child_that_is_a_proxy);
        found.is_some()
    });
    found.unwrap()
}

fn child_that_is_a_proxy(parent: Pid) -> Option<Pid> {
    let parent = parent.as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    let children = children.split_whitespace().map(|child| Pid::from_raw(child.parse().unwrap()).unwrap());
    children.into_iter().find(|child| of(*child, "cmdline") == "/docker-worker\0proxy\0")
}

/// A file of a process's; empty if that is gone.
pub fn of(process: Pid, file: &str) -> String {
    let bytes = fs::read(format!("/proc/{}/{file}", process.as_raw_nonzero())).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The group of a process.
pub fn group_of(process: Pid) -> u32 {
    let status = of(process, "status");
    let line = status.lines().find_map(|line| line.strip_prefix("Gid:\t")).unwrap();
    line.split('\t').next().unwrap().parse().unwrap()
}

/// Waits for a task's end; gives its log.
pub fn completed(site: &Site, task: &TaskId) -> String {
    let status = site.deployment.await_resolved(task);
    let log = site.deployment.log(task);
    assert_eq!(status.state, RunState::Completed, "{log}");
    log
}

/// A task that nobody takes.
fn left_alone(site: &Site) -> TaskId {
    let mut definition = site.deployment.definition(&site.payload("true"));
    definition["taskQueueId"] = json!("proj-x/nobody");
    site.deployment.create_task(definition)
}

#[test]
fn a_request_may_do_what_the_task_may_and_no_more() {
    let site = Site::new();
    let worker = site.start(&json!({}));
    let (own, foreign) = (left_alone(&site), left_alone(&site));
    let script = format!(
        r#"set -e
        get /api/queue/v1/task/$TASK_ID
        get /queue/v1/task/$TASK_ID/status
        {MAKE_ARTIFACT}
        ask "GET /api/queue/v1/task/$TASK_ID/runs/$RUN_ID/artifacts/public%2Fmade"
        post /api/queue/v1/task/{own}/cancel ''
        post /api/queue/v1/task/{foreign}/cancel '' || true
        "#
    );
    let scopes = [format!("queue:cancel-task:-/{own}/{own}")];
    let task = site.deployment.create_task(definition(&site, &script, &scopes));
    let log = completed(&site, &task);
    for expected in ["\"what a test needs\"", "\"runs\":", "303", "https://example.com/made", "403 Forbidden"]
    {
        assert!(log.contains(expected), "{expected}: {log}");
    }
    let scopes = json!([scopes[0], format!("queue:create-artifact:{task}/0")]).to_string();
    assert!(log.contains(&format!("x-taskcluster-authorized-scopes: {scopes}")), "{log}");
    let artifacts = site.deployment.artifacts(&task);
    assert!(artifacts.contains(&("public/made".to_owned(), "reference".to_owned())), "{artifacts:?}");
    let canceled = site.deployment.status(&own).runs.last().and_then(|run| run.reason_resolved);
    assert_eq!(canceled, Some(Verdict::Exception(Reason::Canceled)), "{log}");
    assert_eq!(site.deployment.status(&foreign).state, RunState::Pending, "{log}");
    worker.stop();
}

#[test]
fn a_request_after_a_reclaim_is_signed_with_the_new_credentials() {
    let site = Site::with(Terms { claim_time: Duration::from_secs(20), ..Terms::default() });
    let worker = site.start(&json!({}));
    let ping = "ask 'GET /api/queue/v1/ping' ''";
    let script = format!("{ping}; sleep 25; {ping}; {MAKE_ARTIFACT}");
    let task = site.deployment.create_task(definition(&site, &script, &[]));
    let log = completed(&site, &task);
    let exchanges = site.deployment.wire.exchanges();
    let reclaimed = exchanges.iter().filter(|exchange| exchange.request.ends_with("/reclaim"));
    let known: Vec<&str> =
        reclaimed.filter_map(|exchange| exchange.reply["credentials"]["clientId"].as_str()).collect();
    // Old credentials would do for some minutes more, so their name tells.
    let named = log.lines().filter_map(|line| line.strip_prefix("x-taskcluster-proxy-temp-clientid: "));
    let [old, new] = named.collect::<Vec<_>>()[..] else { panic!("{log}") };
    assert!(
        old != new && known.contains(&new.trim_end()) && !known.contains(&old.trim_end()),
        "{known:?} {log}"
    );
    let artifacts = site.deployment.artifacts(&task);
    assert!(artifacts.contains(&("public/made".to_owned(), "reference".to_owned())), "{artifacts:?} {log}");
    worker.stop();
}

#[test]
fn s49_of_two_tasks_each_has_a_proxy_of_its_own_by_the_same_name() {
    let site = Site::new();
    let worker = site.start(&json!({ "capacity": 2 }));
    let script = "for _ in 1 2 3 4; do ask 'GET /api/queue/v1/ping' ''; sleep 1; done";
    let tasks = [(); 2].map(|()| site.deployment.create_task(definition(&site, script, &[])));
    let logs = tasks.each_ref().map(|task| completed(&site, task));
    for (own, other) in [(0, 1), (1, 0)] {
        let label = |task: &TaskId| format!("[\"queue:create-artifact:{task}/0\"]");
        assert_eq!(logs[own].matches(&label(&tasks[own])).count(), 4, "{}", logs[own]);
        assert!(!logs[own].contains(&label(&tasks[other])), "{}", logs[own]);
    }
    worker.stop();
}

#[test]
fn a_request_is_judged_by_its_path_and_leads_neither_to_the_host_nor_beside_it() {
    let site = Site::new();
    let worker = site.start(&json!({}));
    let cases = [
        ("GET /api/queue/v1/ping", "", 200),
        ("GET /queue/v1/ping", "", 200),
        ("GET http://elsewhere.example/api/queue/v1/ping", "", 200),
        ("GET /api/queue/v1/task//x", "", 404),
        ("GET /api/queue", "", 404),
        ("GET /foo_bar/v1/x", "", 404),
        ("CONNECT elsewhere.example:443", "", 405),
        ("GET /127.0.0.1/", "", 403),
        ("GET /169.254.169.254/latest/meta-data", "", 403),
        ("GET /192.0.2.2/", "", 403),
        ("GET /203.0.113.5/", "", 403),
        ("POST /bewit", "http://tc/x", 303),
        ("POST /bewit", "nonsense", 500),
        ("GET /credentials", "", 405),
        ("PUT /credentials", "{", 403),
        ("PUT /credentials", "{}", 403),
        ("NONSENSE", "", 400),
    ];
    let asks = cases.map(|(request, body, _)| format!("ask '{request}' '{body}' | head -n 1\n"));
    let task = site.deployment.create_task(definition(&site, &asks.concat(), &[]));
    let log = completed(&site, &task);
    let statuses = log.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 "));
    let statuses: Vec<u16> = statuses.map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    for (case, (request, _, expected)) in cases.iter().enumerate() {
        assert_eq!(statuses.get(case), Some(expected), "{request}: {log}");
    }
    worker.stop();
}

#[test]
fn a_request_is_sent_again_while_the_service_is_at_fault() {
    let site = Site::new();
    let wire = &site.deployment.wire;
    wire.fail("/ping", Fault::Status(500), 2);
    wire.fail("/ping", Fault::Reset, 1);
    let worker = site.start(&json!({}));
    let task = site.deployment.create_task(definition(&site, "get /api/queue/v1/ping", &[]));
    let log = completed(&site, &task);
    assert!(log.contains("\"alive\":true"), "{log}");
    assert_eq!(wire.asked("/ping"), 4, "{log}");
    worker.stop();
}

#[test]
fn a_proxy_that_is_killed_comes_back_and_a_request_finds_it() {
    let site = Site::new();
    let wire = &site.deployment.wire;
    let mut worker = site.start(&json!({}));
    let other = left_alone(&site);
    let script = format!(
        r#"get /api/queue/v1/ping; echo first; {AWAIT_RELEASE}; get /api/queue/v1/ping; echo second
        until wget -q -O /x/third $TASKCLUSTER_PROXY_URL/api/queue/v1/task/{other}; do echo once more; sleep 0.1; done"#
    );
    let task = site.deployment.create_task(waiting_definition(&site, &script));
    site.deployment.await_printed(&task, "first");
    // Between two requests: nobody notices.
    let killed = proxy_of(&site.worker);
    kill_process(killed, Signal::KILL).unwrap();
    await_end(killed);
    // In the midst of one: that is lost, and asked again.
    let third = format!("GET /api/queue/v1/task/{other}");
    wire.fail(&third, Fault::Held, 1);
    site.release();
    wire.await_asked(&third, 1);
    let next = proxy_of(&site.worker);
    assert_ne!(next, killed);
    kill_process(next, Signal::KILL).unwrap();
    let log = completed(&site, &task);
    wire.let_go();
    for (expected, times) in [("{\"alive\":true", 2), ("second", 1), ("once more", 1)] {
        let lines = log.lines().filter(|line| line.starts_with(expected));
        assert_eq!(lines.count(), times, "{expected}: {log}");
    }
    worker.await_logged("the proxy for tasks has ended");
    worker.stop();
}

#[test]
fn a_proxy_that_does_not_answer_is_replaced_and_all_tasks_have_the_new_one() {
    let site = Site::new();
    let mut worker = site.start(&json!({ "capacity": 2 }));
    let script = format!("get /api/queue/v1/ping; echo first; {AWAIT_RELEASE}; get /api/queue/v1/ping");
    let waiting = site.deployment.create_task(waiting_definition(&site, &script));
    site.deployment.await_printed(&waiting, "first");
    let silent = proxy_of(&site.worker);
    kill_process(silent, Signal::STOP).unwrap();
    let next = site.deployment.create_task(definition(&site, "get /api/queue/v1/ping", &[]));
    assert!(completed(&site, &next).contains("\"alive\":true"));
    assert_ne!(proxy_of(&site.worker), silent);
    site.release();
    assert_eq!(completed(&site, &waiting).matches("\"alive\":true").count(), 2);
    worker.await_logged("it does not answer");
    worker.stop();
}

#[test]
fn of_a_worker_that_is_killed_no_proxy_stays_and_the_next_run_has_one_again() {
    let site = Site::new();
    let worker = site.start(&json!({}));
    let script = "get /api/queue/v1/ping; echo run $RUN_ID; [ $RUN_ID != 0 ] || sleep 1000";
    let task = site.deployment.create_task(definition(&site, script, &[]));
    site.deployment.await_printed(&task, "run 0");
    let (proxy, containers) = (proxy_of(&site.worker), site.worker.containers());
    assert_eq!(containers.len(), 2);
    worker.signal(Signal::KILL);
    worker.ended();
    await_end(proxy);
    let worker = site.start(&json!({}));
    let log = completed(&site, &task);
    assert!(log.contains("\"alive\":true"), "{log}");
    assert_eq!(groups_named(&containers), Vec::<std::path::PathBuf>::new());
    worker.stop();
}

#[test]
fn a_proxy_ends_with_its_worker_and_leaves_nothing() {
    let site = Site::new();
    let worker = site.start(&json!({}));
    let task = site.deployment.create_task(definition(&site, "get /api/queue/v1/ping", &[]));
    completed(&site, &task);
    // It is there for the next task.
    let (proxy, containers) = (proxy_of(&site.worker), site.worker.containers());
    worker.stop();
    assert_eq!(of(proxy, "cmdline"), "");
    assert_eq!(groups_named(&containers), Vec::<std::path::PathBuf>::new());
    site.worker.assert_nothing_left("after the worker's end");
}

#[test]
fn s59_who_serves_tasks_is_nobody_and_credentials_are_where_nobody_looks() {
    let site = Site::new();
    let worker = site.start(&json!({}));
    let script = format!("get /api/queue/v1/ping; echo first; cat /proc/*/environ; {AWAIT_RELEASE}");
    let task = site.deployment.create_task(waiting_definition(&site, &script));
    site.deployment.await_printed(&task, "first");
    let proxy = proxy_of(&site.worker);
    let status = of(proxy, "status");
    // Its group is its run directory's own; the rules that confine it go by both.
    let group = group_of(proxy);
    assert!((0x7000_0000..0x7100_0000).contains(&group), "{group}");
    let none = "0000000000000000";
    for line in [
        "Uid:\t65533\t65533\t65533\t65533".to_owned(),
        format!("Gid:\t{group}\t{group}\t{group}\t{group}"),
        format!("Groups:\t{group} "),
        format!("CapInh:\t{none}\nCapPrm:\t{none}\nCapEff:\t{none}\nCapBnd:\t{none}\nCapAmb:\t{none}"),
        "NoNewPrivs:\t1".to_owned(),
        "Seccomp:\t2".to_owned(),
    ] {
        assert!(status.contains(&line), "{line}: {status}");
    }
    let limits = of(proxy, "limits");
    let limits: Vec<Vec<&str>> = limits.lines().map(|line| line.split_whitespace().collect()).collect();
    for expected in
        [["Max", "core", "file", "size", "0", "0"], ["Max", "open", "files", "16384", "16384", "files"]]
    {
        assert!(limits.iter().any(|limit| limit.starts_with(&expected)), "{expected:?}: {limits:?}");
    }
    assert_eq!(of(proxy, "environ"), "SSL_CERT_FILE=/etc/certificates.pem\0HOME=/\0");
    // Its container has the bounds that it is to have, wherever this host counts memory.
    let bounds = groups_named(&site.worker.containers()).into_iter().filter_map(|group| {
        let limit = ["memory.max", "memory.limit_in_bytes"].map(|file| fs::read_to_string(group.join(file)));
        limit.into_iter().find_map(Result::ok)
    });
    assert!(bounds.into_iter().any(|bound| bound.trim() == (256 << 20).to_string()));
    // It sees a program, what that is linked with, and nothing of the worker's.
    let root = format!("/proc/{}/root", proxy.as_raw_nonzero());
    let mut seen: Vec<String> =
        fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    seen.retain(|name| !["lib", "lib64"].contains(&name.as_str()));
    seen.sort();
    assert_eq!(seen, ["dev", "docker-worker", "etc", "proc", "usr"]);
    let mounts = of(proxy, "mountinfo");
    let is_open = |line: &&str| !line.contains(" ro,") && !line.contains(" /proc");
    assert_eq!(mounts.lines().filter(is_open).collect::<Vec<_>>(), Vec::<&str>::new());
    // Who is not its owner may not look into it, nor may others of the same name.
    assert_eq!(fs::metadata(format!("/proc/{}/mem", proxy.as_raw_nonzero())).map(owner).unwrap(), 0);
    let secret = token(&site.worker.run_directory().join("claims"));
    for entry in fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        for file in ["cmdline", "environ"] {
            let bytes = fs::read(path.join(file)).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&bytes).contains(&secret), "{} {file}", path.display());
        }
    }
    site.release();
    let log = completed(&site, &task);
    assert!(!log.contains(&secret), "{log}");
    let ended = worker.stop();
    assert!(!ended.log.contains(&secret), "{ended:?}");
}

fn owner(file: fs::Metadata) -> u32 {
    use std::os::unix::fs::MetadataExt;
    file.uid()
}

/// What the one running task's requests are signed with.
fn token(claims: &Path) -> String {
    let files = fs::read_dir(claims).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()));
    let claim = files.map(Result::unwrap).find(|text| text.contains("accessToken")).unwrap();
    let (_, rest) = claim.split_once("\"accessToken\":\"").unwrap();
    rest.split('"').next().unwrap().to_owned()
}

#[test]
fn a_host_process_does_not_reach_a_tasks_proxy() {
    let site = Site::new();
    let worker = site.start(&json!({}));
    let script = format!("get /api/queue/v1/ping; echo first; {AWAIT_RELEASE}");
    let task = site.deployment.create_task(waiting_definition(&site, &script));
    site.deployment.await_printed(&task, "first");
    let asked = site.deployment.wire.asked("/ping");
    let mut curl = site.internet.host.command("setpriv");
    curl.args(["--reuid=65534", "--regid=65534", "--clear-groups", "curl", "--silent", "--max-time", "2"]);
    let answered = curl.arg("http://169.254.1.1/api/queue/v1/ping").output().unwrap();
    assert_eq!((answered.status.code(), answered.stdout.len()), (Some(28), 0), "{answered:?}");
    assert_eq!(site.deployment.wire.asked("/ping"), asked);
    site.release();
    completed(&site, &task);
    worker.stop();
}

#[test]
fn many_tasks_one_after_the_other_are_served_by_one_process() {
    let site = Site::new();
    let worker = site.start(&json!({ "capacity": 4 }));
    let script = "for _ in 1 2 3; do get /api/queue/v1/ping; done";
    let tasks: Vec<TaskId> =
        (0..8).map(|_| site.deployment.create_task(definition(&site, script, &[]))).collect();
    let mut proxy = None;
    for task in &tasks {
        let log = completed(&site, task);
        assert_eq!(log.matches("\"alive\":true").count(), 3, "{log}");
        let now = proxy_of(&site.worker);
        assert_eq!(*proxy.get_or_insert(now), now);
    }
    worker.stop();
}

#[test]
fn a_task_without_a_deployment_is_told_so() {
    let worker = Worker::new();
    let source = worker.image(&busybox_image()).source;
    let run = worker.run_with(&["--image", &source, "--feature", "taskclusterProxy"], &["true"]);
    assert!(run.log.contains("This worker has no deployment to call."), "{run:?}");
}

#[test]
fn a_task_of_a_queue_of_its_own_reaches_it_on_the_hosts_loopback() {
    let queue = OwnQueue::new();
    let started = queue.start();
    let script = format!("{TOOLS} get /api/queue/v1/task/$TASK_ID");
    let mut payload = shell_payload(&queue.image, &script);
    payload["features"] = json!({ "taskclusterProxy": true });
    let task = queue.create(&payload);
    queue.await_state(&task, "completed");
    assert!(queue.log(&task).contains("\"what a test needs\""), "{}", queue.log(&task));
    started.stop();
}
