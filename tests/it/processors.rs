//! Which processors are whose: the worker's own work and its tasks keep out of each other's way.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, getpriority_process};
use serde_json::Value;

use crate::support::{Run, Worker, busybox_image, finish, read_until};

const LIMIT: Duration = Duration::from_secs(60);

/// Where a thread may run and how nice it is, by its directory in /proc.
fn scheduling(thread: &Path) -> (String, i32) {
    let status = fs::read_to_string(thread.join("status")).unwrap();
    let processors = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let stat = fs::read_to_string(thread.join("stat")).unwrap();
    // The name, which may hold anything, ends with the last parenthesis; the niceness is the nineteenth field.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    (processors.trim().to_owned(), fields.split_whitespace().nth(16).unwrap().parse().unwrap())
}

fn own() -> (String, i32) {
    scheduling(Path::new("/proc/self"))
}

fn threads(process: Pid) -> Vec<std::path::PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.as_raw_nonzero())).unwrap();
    tasks.map(|thread| thread.unwrap().path()).collect()
}

fn config(worker: &Worker, text: &str) -> String {
    let path = worker.fresh("config").with_extension("yml");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The lowest processor that this process may run on.
fn first() -> String {
    own().0.split([',', '-']).next().unwrap().to_owned()
}

#[test]
fn the_workers_processors_and_niceness_are_not_its_tasks() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let config = config(&worker, &format!("worker: {{cpus: {}, nice: 7}}\n", first()));
    let script = "grep Cpus_allowed_list /proc/self/status; cat /proc/self/stat; echo up; sleep 3";
    let (mut child, artifacts) =
        worker.start_run(&["--image", &image, "--config", &config], &["sh", "-c", script]);
    let log = read_until(&mut child, "\nup");
    let [monitor] = worker.processes("docker-worker-r")[..] else { panic!("not one monitor") };
    let all = [threads(Pid::from_child(&child)), threads(monitor)].concat();
    for thread in &all {
        assert_eq!(scheduling(thread), (first(), 7), "{}", thread.display());
    }
    assert!(all.len() > 2, "the worker has a thread at least beside its first: {all:?}");
    Run::collect(finish(child, LIMIT), artifacts).expect(0, "the task");
    let log = log.join().unwrap().replace('\r', "");
    let (processors, niceness) = own();
    assert!(log.contains(&format!("\nCpus_allowed_list:\t{processors}\n")), "{log}");
    let stat = log.lines().find(|line| line.contains("(cat) ")).unwrap();
    assert_eq!(stat.split_whitespace().nth(18), Some(niceness.to_string().as_str()), "{log}");
    assert_eq!(niceness, getpriority_process(None).unwrap());
}

#[test]
fn processors_that_the_worker_does_not_have_are_refused_at_the_start() {
    let worker = Worker::new();
    let config = config(&worker, "worker: {cpus: 1023}\n");
    let options = ["--config", &config, "--image", "registry.invalid/never/pulled"];
    let run = worker.run_with(&options, &["true"]).expect(2, "processor 1023");
    let sentence = format!(
        "failed to run the worker on the processors 1023: worker.cpus names them, and this process may run on {} only",
        own().0
    );
    assert!(run.stderr.contains(&sentence), "{run:?}");
}

#[test]
fn a_task_has_one_processor_where_the_configuration_says_so() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let config = config(&worker, "restrictCPU: true\ncapacity: 77\n");
    let script = "grep Cpus_allowed_list /proc/self/status; nproc";
    let run = worker.run_with(&["--image", &image, "--config", &config], &["sh", "-c", script]);
    let run = run.expect(0, "one processor");
    assert_eq!(run.output(), format!("Cpus_allowed_list:\t{}\n1\n", first()), "{run:?}");
    // There are as many tasks at once.
    let printed = worker.call(&["start", "--config", &config, "--print-config", "--capacity", "78"]);
    let printed: Value = serde_json::from_slice(&printed.stdout).unwrap();
    let count = std::thread::available_parallelism().unwrap().get();
    assert_eq!((&printed["capacity"], &printed["restrictCPU"]), (&count.into(), &true.into()));
}
