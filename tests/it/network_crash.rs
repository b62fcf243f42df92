//! S47 for the network: whenever a worker is killed, `cleanup` removes what it had made of a task's network, and nothing
//! of a task that lives.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use docker_worker::directories::Directories;
use docker_worker::net::NetworkSettings;
use docker_worker::net::sidecar::link_containers;
use docker_worker::net::{Network, TaskNetwork};
use docker_worker::run_directory::{Beginning, RunDirectory, random_id};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::crash_walk::strace;
use crate::support::{
    Internet, OUTSIDE, Worker, await_readable, await_that, busybox_image, finish, read_until,
};

const LIMIT: Duration = Duration::from_secs(60);

/// More netlink messages than a run sends from one of its threads.
const MOST_MESSAGES: u32 = 60;

#[test]
fn s47_what_a_killed_worker_leaves_of_the_network_is_gone_after_cleanup() {
    let internet = Internet::new();
    let meeting = internet.outside.listen("0.0.0.0:8080");
    let worker = Worker::on(&internet);
    let source = worker.image(&busybox_image()).source;
    let script = format!("echo | nc {OUTSIDE} 8080; sleep 1000");
    let (mut child, _) = worker.start_run(&["--image", &source], &["/bin/sh", "-c", &script]);
    let _visit = meeting.visit();
    child.kill().unwrap();
    finish(child, LIMIT);
    assert!(internet.host.tool("nft", &["list", "tables"]).contains("docker_worker_"));
    let finished = worker.call(&["cleanup"]);
    assert!(finished.status.success(), "{finished:?}");
    internet.assert_as_before();
    assert!(!worker.run_directory().join("network/lock").exists());
}

#[test]
fn s47_a_worker_killed_at_each_netlink_message_is_cleaned_up_after() {
    let internet = Internet::new();
    let worker = Worker::on(&internet);
    let source = worker.image(&busybox_image()).source;
    // It sends something, so there are connections to forget as well.
    let script = format!("ping -c 1 -W 5 {OUTSIDE} >/dev/null");
    let task = ["run", "--image", &source, "--", "sh", "-c", &script];
    let mut number = 1;
    while number < MOST_MESSAGES && strace(&worker, "sendto", number, &task).is_some() {
        let case = format!("killed at message {number}");
        worker.scratch().await_processes(LIMIT);
        let cleaned = worker.call(&["cleanup"]);
        assert!(cleaned.status.success(), "{case}: {cleaned:?}");
        internet.assert_as_before();
        worker.assert_nothing_left(&case);
        number += 1;
    }
    assert!((15..MOST_MESSAGES).contains(&number), "{number}");
}

/// In the place of nft: says that it has begun, waits, and then does it. It has no variables, so no `PATH` either.
const SLOW_NFT: &str =
    "#!/bin/sh\necho begun >DIRECTORY/begun\nread -r _ <DIRECTORY/go\nexec DIRECTORY/nft \"$@\"\n";

#[test]
fn s47_cleanup_waits_for_an_nft_that_outlives_its_worker() {
    let internet = Internet::new();
    let scratch = tempfile::tempdir().unwrap();
    let place = |name| scratch.path().join(name);
    let slow = SLOW_NFT.replace("DIRECTORY", scratch.path().to_str().unwrap());
    fs::write(place("slow"), slow).unwrap();
    fs::set_permissions(place("slow"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy("/usr/sbin/nft", place("nft")).unwrap();
    let fifo = |name| {
        mknodat(CWD, place(name), FileType::Fifo, Mode::RWXU, 0).unwrap();
        File::options().read(true).write(true).open(place(name)).unwrap()
    };
    let (begun, mut go) = (fifo("begun"), fifo("go"));
    let slow = place("slow");
    let worker = Worker::on_changed(&internet, "mount --bind \"$0\" /usr/sbin/nft", slow.to_str().unwrap());
    let (mut child, _) = worker.start_run(&["--image", &worker.image(&busybox_image()).source], &["true"]);
    await_readable(&begun, "nft");
    child.kill().unwrap();
    finish(child, LIMIT);
    let mut cleanup = worker.command(&["cleanup"]).spawn().unwrap();
    // It has come to the lock of the host's network, which nft still holds.
    let files = format!("/proc/{}/fd", cleanup.id());
    let waits = || {
        let files = fs::read_dir(&files).into_iter().flatten();
        let mut names = files.filter_map(|file| fs::read_link(file.unwrap().path()).ok());
        names.any(|name| name.ends_with("net/ipv4/ip_forward"))
    };
    await_that("the clean-up to come to the lock", || {
        assert!(cleanup.try_wait().unwrap().is_none(), "it did not wait");
        waits()
    });
    go.write_all(b"\n").unwrap();
    let cleaned = finish(cleanup, LIMIT);
    assert!(cleaned.status.success(), "{cleaned:?}");
    internet.assert_as_before();
}

/// The variable that makes a process of this test the one that is killed.
const VICTIM: &str = "DOCKER_WORKER_TEST_VICTIM";

#[test]
fn s47_a_listener_and_a_link_between_containers_are_gone_after_cleanup_and_other_tasks_keep_theirs() {
    if let Some(run) = env::var_os(VICTIM) {
        return live(&run);
    }
    let internet = Internet::new();
    let worker = Worker::on(&internet);
    let other = Site::new(worker.scratch().path());
    let (task, directory, listener) = internet.host.within(|| {
        let (mut task, directory) = other.attach();
        let listener = other.network.listen(&task.listening(80, &directory.task().network())).unwrap();
        (task, directory, listener)
    });
    let before = state(&internet);
    // Recorded only; bound, and not admitted yet; all of it made.
    for stage in [Some("bind"), Some("listen"), None] {
        kill_at(stage, &internet, &worker);
        let cleaned = worker.call(&["cleanup"]);
        assert!(cleaned.status.success(), "{stage:?}: {cleaned:?}");
        assert_eq!(state(&internet), before, "{stage:?}");
    }
    drop(listener);
    internet.host.within(|| other.network.release(Some(task), &directory.task().network()).unwrap());
    directory.remove().unwrap();
    internet.assert_as_before();
}

/// The networks of a worker's tasks, without their containers.
struct Site {
    directories: Directories,
    network: Network,
}

impl Site {
    /// With the directories of the [`Worker`] whose scratch directory that is.
    fn new(scratch: &Path) -> Site {
        let directories =
            Directories { data: scratch.join("data"), run: scratch.join("run"), volume_caches: None };
        let network = Network::new(&directories, &NetworkSettings::default());
        Site { directories, network }
    }

    fn attach(&self) -> (TaskNetwork, RunDirectory) {
        let id = random_id().unwrap();
        let directory =
            RunDirectory::create(&Beginning::of_a_run(&self.directories, &|| true).unwrap(), &id).unwrap();
        (self.network.attach(&id, &directory.task().network(), &|| true).unwrap(), directory)
    }
}

/// What a worker has made on a host.
fn state(internet: &Internet) -> String {
    let list = |program, arguments: &[&str]| internet.host.tool(program, arguments);
    let (links, routes) = (list("ip", &["-o", "link"]), list("ip", &["route"]));
    links + &routes + &list("nft", &["--stateless", "list", "ruleset"])
}

/// Two tasks of a worker, a listener for one of them, and a link between both; then waits to be killed.
fn live(run: &OsStr) {
    let site = Site::new(Path::new(run));
    let [(mut task, directory), (other, _kept)] = [site.attach(), site.attach()];
    let _listener = site.network.listen(&task.listening(8080, &directory.task().network())).unwrap();
    link_containers([task.namespace(), other.namespace()], 0).unwrap();
    println!("all is made");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// Kills a process of this test in [`live`], at a system call or at its end.
fn kill_at(call: Option<&str>, internet: &Internet, worker: &Worker) {
    let mut command = internet.host.command(call.map_or("env", |_| "strace"));
    if let Some(call) = call {
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
        command.args(["-e", &format!("inject={call}:signal=KILL")]);
    }
    let name = "network_crash::s47_a_listener_and_a_link_between_containers_are_gone_after_cleanup_and_other_tasks_keep_theirs";
    command.arg(env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]);
    command.env(VICTIM, worker.scratch().path());
    let mut victim = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    if call.is_none() {
        let output = read_until(&mut victim, "all is made");
        victim.kill().unwrap();
        output.join().unwrap();
    }
    let finished = finish(victim, LIMIT);
    assert!(!finished.status.success(), "{call:?}: {finished:?}");
}
