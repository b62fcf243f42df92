//! The process that serves tasks, when it does not do what it should or those around it do not: whose monitor hangs, whose
//! worker ends.

use std::fs;
use std::thread;
use std::time::Duration;

use docker_worker::queue::task_id::TaskId;
use docker_worker::queue::{Reason, Verdict};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::crash::assert_no_groups;
use crate::support::{Site, Terms, Worker, await_end, compiled, tool};
use crate::taskcluster_proxy::{
    AWAIT_RELEASE, clients_named, completed, definition, of, proxy_of, waiting_definition,
};

/// More than a worker needs that runs one task.
const MEMORY_BYTES: u64 = 128 << 20;

/// More than a worker says of a process that does not do what it should, its last words included.
const LOG_BYTES: usize = 8 << 10;

/// A task that has asked for something by its proxy, and asks again when it is let go.
fn asking(site: &Site) -> TaskId {
    let script = format!("get /api/queue/v1/ping; echo first; {AWAIT_RELEASE}; get /api/queue/v1/ping");
    let task = site.deployment.create_task(waiting_definition(site, &script));
    site.deployment.await_printed(&task, "first");
    task
}

/// The monitor of the proxy's container, which a test has to let go in the end.
fn monitor_of(proxy: Pid) -> Pid {
    let status = of(proxy, "status");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    Pid::from_raw(parent.trim().parse().unwrap()).unwrap()
}

fn is_dead(process: Pid) -> bool {
    let status = of(process, "status");
    status.is_empty() || status.contains("State:\tZ")
}

/// A process that hangs as long as this lives: of a test that fails none is left.
#[must_use]
struct Hanging(Pid);

impl Hanging {
    fn from_now_on(process: Pid) -> Hanging {
        kill_process(process, Signal::STOP).unwrap();
        Hanging(process)
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        // It may have been killed.
        kill_process(self.0, Signal::CONT).unwrap_or_default();
    }
}

/// Kills a monitor that hung; a clean-up then leaves nothing.
fn clean_up_after(monitor: Pid, worker: &Worker, containers: &[String]) {
    kill_process(monitor, Signal::KILL).unwrap();
    await_end(monitor);
    worker.scratch().await_processes(Duration::from_secs(10));
    let cleaned = worker.call(&["cleanup"]);
    assert!(cleaned.status.success(), "{cleaned:?}");
    worker.assert_nothing_left("after the clean-up");
    assert_no_groups(containers, "after the clean-up");
}

/// A program that is found in the place of the worker's own by that worker.
struct Stranger {
    namespace: String,
}

/// Where it is.
const PLACE: &str = env!("CARGO_BIN_EXE_docker-worker");

impl Stranger {
    /// One of `tests/hostile_proxy.c`, for all processes that a worker starts from now on.
    fn in_place_of_the_proxy(worker: &Worker, manner: u32) -> Stranger {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hostile_proxy.c");
        let source = fs::read_to_string(source).unwrap().replace("MANNER", &manner.to_string());
        let own = worker.processes("docker-worker")[0].as_raw_nonzero();
        let stranger = Stranger { namespace: format!("--mount=/proc/{own}/ns/mnt") };
        stranger.within(&["mount", "--bind", compiled("hostile", &source).to_str().unwrap(), PLACE]);
        stranger
    }

    fn leave(self) {
        self.within(&["umount", "--lazy", PLACE]);
    }

    fn within(&self, command: &[&str]) {
        tool("nsenter", &[&[self.namespace.as_str(), "--"], command].concat());
    }
}

#[test]
fn a_proxy_that_hangs_is_noticed_while_nobody_has_anything_to_say_to_it() {
    let site = Site::new();
    let mut worker = site.start(&json!({}));
    let task = asking(&site);
    let silent = proxy_of(&site.worker);
    let _hanging = Hanging::from_now_on(silent);
    worker.await_logged("it does not answer");
    await_end(silent);
    site.release();
    assert_eq!(completed(&site, &task).matches("\"alive\":true").count(), 2);
    worker.stop();
}

#[test]
fn of_a_task_that_has_ended_no_proxy_lives_even_if_its_monitor_hangs() {
    let site = Site::new();
    let mut worker = site.start(&json!({}));
    let script = format!("get /api/queue/v1/ping; echo first; {AWAIT_RELEASE}");
    let task = site.deployment.create_task(waiting_definition(&site, &script));
    site.deployment.await_printed(&task, "first");
    let (proxy, containers) = (proxy_of(&site.worker), site.worker.containers());
    let monitor = monitor_of(proxy);
    let _hanging = [monitor, proxy].map(Hanging::from_now_on);
    site.release();
    completed(&site, &task);
    assert!(is_dead(proxy), "{}", of(proxy, "status"));
    // What there is of it besides is told, and kept for the clean-up.
    worker.await_logged("failed to end the proxy");
    worker.stop();
    clean_up_after(monitor, &site.worker, &containers);
    site.internet.assert_as_before();
}

#[test]
fn a_worker_that_is_told_twice_does_not_wait_for_a_monitor_that_hangs() {
    let site = Site::new();
    let worker = site.start(&json!({}));
    let task = site.deployment.create_task(definition(&site, "get /api/queue/v1/ping", &[]));
    completed(&site, &task);
    let (proxy, containers) = (proxy_of(&site.worker), site.worker.containers());
    let monitor = monitor_of(proxy);
    let _hanging = Hanging::from_now_on(monitor);
    worker.signal(Signal::TERM);
    // It is killed in any case, and first of all.
    await_end(proxy);
    worker.signal(Signal::TERM);
    let ended = worker.stop();
    assert!(ended.finished.took < Duration::from_secs(5), "{ended:?}");
    clean_up_after(monitor, &site.worker, &containers);
    site.internet.assert_as_before();
}

#[test]
fn a_worker_that_ends_does_not_wait_for_a_process_that_does_not_come_to_serve() {
    let site = Site::new();
    let worker = site.start(&json!({}));
    let silent = Stranger::in_place_of_the_proxy(&site.worker, 0);
    let task = site.deployment.create_task(definition(&site, "true", &[]));
    let proxy = proxy_of(&site.worker);
    let ended = worker.stop();
    assert!(ended.finished.took < Duration::from_secs(15), "{ended:?}");
    assert!(is_dead(proxy));
    let status = site.deployment.status(&task);
    assert_eq!(status.runs[0].reason_resolved, Some(Verdict::Exception(Reason::WorkerShutdown)));
    // It has gone with the worker's mounts.
    drop(silent);
    site.worker.assert_nothing_left("after the worker's end");
    site.internet.assert_as_before();
}

#[test]
fn tasks_begin_and_end_while_a_process_is_being_undone() {
    let site = Site::new();
    let mut worker = site.start(&json!({ "capacity": 2 }));
    let script = format!("get /api/queue/v1/ping; echo first; {AWAIT_RELEASE}");
    let ending = site.deployment.create_task(waiting_definition(&site, &script));
    site.deployment.await_printed(&ending, "first");
    let proxy = proxy_of(&site.worker);
    let monitor = monitor_of(proxy);
    let hanging = Hanging::from_now_on(monitor);
    kill_process(proxy, Signal::KILL).unwrap();
    worker.await_logged("the proxy for tasks has ended");
    site.release();
    completed(&site, &ending);
    let next = site.deployment.create_task(definition(&site, "get /api/queue/v1/ping", &[]));
    site.deployment.await_running(&next);
    drop(hanging);
    assert!(completed(&site, &next).contains("\"alive\":true"));
    worker.stop();
    site.worker.assert_nothing_left("after the worker's end");
    site.internet.assert_as_before();
}

#[test]
fn credentials_that_change_while_there_is_no_process_are_those_of_the_next_one() {
    let site = Site::with(Terms { claim_time: Duration::from_secs(20), ..Terms::default() });
    let mut worker = site.start(&json!({}));
    let ping = "ask 'GET /api/queue/v1/ping' ''";
    let script = format!("{ping}; echo first; {AWAIT_RELEASE}; {ping}");
    let task = site.deployment.create_task(waiting_definition(&site, &script));
    site.deployment.await_printed(&task, "first");
    let proxy = proxy_of(&site.worker);
    let monitor = monitor_of(proxy);
    let hanging = Hanging::from_now_on(monitor);
    kill_process(proxy, Signal::KILL).unwrap();
    worker.await_logged("the proxy for tasks has ended");
    let reclaims = site.deployment.wire.asked("/reclaim");
    site.deployment.wire.await_asked("/reclaim", reclaims + 1);
    drop(hanging);
    site.release();
    let log = completed(&site, &task);
    let [old, new] = clients_named(&log)[..] else { panic!("{log}") };
    assert_ne!(old, new, "{log}");
    worker.stop();
}

#[test]
fn of_a_worker_that_is_killed_the_next_clean_up_leaves_no_proxy_and_no_rules() {
    let site = Site::new();
    let worker = site.start(&json!({}));
    asking(&site);
    let (proxy, containers) = (proxy_of(&site.worker), site.worker.containers());
    let monitor = monitor_of(proxy);
    // Its monitor is killed as well, and nobody starts another one: nothing is undone.
    worker.signal(Signal::STOP);
    kill_process(monitor, Signal::KILL).unwrap();
    worker.signal(Signal::KILL);
    worker.ended();
    await_end(proxy);
    site.worker.scratch().await_processes(Duration::from_secs(10));
    let cleaned = site.worker.call(&["cleanup"]);
    assert!(cleaned.status.success(), "{cleaned:?}");
    site.worker.assert_nothing_left("after the clean-up");
    assert_no_groups(&containers, "after the clean-up");
    site.internet.assert_as_before();
}

#[test]
fn a_process_that_says_what_nobody_asked_for_costs_neither_memory_nor_log_and_may_be_replaced() {
    let site = Site::new();
    for (manner, said) in
        [(1, "nobody has asked"), (2, "nobody has asked"), (3, "a message that is too long")]
    {
        let mut worker = site.start(&json!({}));
        let stranger = Stranger::in_place_of_the_proxy(&site.worker, manner);
        let task = site.deployment.create_task(definition(&site, "get /api/queue/v1/ping", &[]));
        worker.await_logged(said);
        // It is started again meanwhile, and is no better.
        thread::park_timeout(Duration::from_secs(5));
        assert!(worker.most_memory() < MEMORY_BYTES, "{manner}: {} bytes", worker.most_memory());
        stranger.leave();
        assert!(completed(&site, &task).contains("\"alive\":true"), "{manner}");
        let ended = worker.stop();
        let told = ended.log.lines().filter(|line| line.contains("the proxy for tasks"));
        assert!(told.map(str::len).sum::<usize>() < LOG_BYTES, "{manner}: {}", ended.log);
    }
    site.internet.assert_as_before();
}
