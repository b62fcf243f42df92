//! Many tasks in a short time, by a worker that is killed with SIGKILL now and then, and whose queue misbehaves: `make soak`.
//!
//! Without a configuration they are tasks of `docker-worker standalone`, on a host of its own, whose worker and clients reach
//! the queue by way of a wire that answers with errors, resets connections and loses or holds back replies. With
//! `CONFIG=FILE`, the configuration of a worker, they are a real deployment's: `TASKCLUSTER_CLIENT_ID` and
//! `TASKCLUSTER_ACCESS_TOKEN` name a client that may make and cancel tasks in its pool, with the scope
//! `docker-worker:cache:soak-*`. Nobody else should claim from that pool.
//!
//! In the end each task has exactly one resolution, the expected one, log and artifacts of its last run are there and
//! whole, the worker's memory has not grown, and nothing is left on the host; a sentence says what is not so, and the status
//! is 1.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod deployment;
mod faults;
mod journal;
mod kinds;
mod memory;
mod report;
mod run;
mod support;
mod verify;
mod worker;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::{Value, json};

use self::deployment::Deployment;
use self::faults::Faults;
use self::kinds::{KINDS, MOSTLY_SHORT};
use self::report::Report;
use self::run::Soak;
use self::support::{Internet, Scratch, WatchedRegistry, WayToQueue, busybox_image, tool};
use self::verify::{Ended, verify};
use self::worker::{Worker, configuration};

/// Runs many tasks, and kills their worker now and then.
#[derive(Debug, Parser)]
struct Options {
    /// The configuration of a worker of a deployment.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How many tasks.
    #[arg(long, value_name = "N", default_value_t = 500)]
    tasks: usize,
    /// How often the worker is killed.
    #[arg(long, value_name = "N", default_value_t = 10)]
    kills: usize,
    /// Tasks at once.
    #[arg(long, value_name = "N", default_value_t = 8)]
    capacity: u32,
    /// The executable, beside its runtime.
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_docker-worker"))]
    worker: PathBuf,
    /// A proxy before the deployment that takes a JSON list of faults (`faults.rs` says which).
    #[arg(long, value_name = "URL")]
    faults: Option<String>,
    /// The same of the deployment's storage.
    #[arg(long, value_name = "URL")]
    storage_faults: Option<String>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let problems = match &options.config {
        Some(config) => {
            let faults = Faults::Told {
                of_the_proxy: options.faults.clone(),
                of_the_storage: options.storage_faults.clone(),
            };
            let problems = block_on(soak(&options, ("start", worker::read(config)), faults));
            tell(&problems);
            problems
        }
        None => {
            let internet = Internet::new();
            let way = WayToQueue::lay(&internet);
            let faults = Faults::OnTheWay(Arc::clone(&way.wire));
            let problems = internet.host.within(|| block_on(soak(&options, ("standalone", own()), faults)));
            // The last look may end the program.
            tell(&problems);
            drop(way);
            internet.assert_as_before();
            problems
        }
    };
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(problems: &[String]) {
    problems.iter().for_each(|problem| println!("{problem}"));
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// The configuration of `standalone`.
fn own() -> Value {
    json!({ "capacityManagement": { "diskspaceThreshold": 0 }, "taskStatusPollSeconds": 1 })
}

/// Gives what is not as it should be, in sentences.
async fn soak(options: &Options, (kind, config): (&'static str, Value), faults: Faults) -> Vec<String> {
    let scratch = Scratch::new();
    let image = busybox_image().write_oci(&scratch.join("image"));
    let image = WatchedRegistry::serve(&image).name;
    let config = configuration(config, options.capacity, &image);
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join("soak.log");
    let (mut worker, mut entries) = Worker::new((kind, &options.worker), scratch.path(), &config, &log);
    let before = settled_host_state();
    worker.start();
    let (deployment, kinds) = match &faults {
        Faults::Told { .. } => (Deployment::new(&config), KINDS),
        Faults::OnTheWay(_) => (Deployment::own(&worker.data()).await, MOSTLY_SHORT),
    };
    let began = Instant::now();
    let mut tasks = Vec::new();
    for kind in kinds.iter().cycle().take(options.tasks) {
        let payload = kind.payload(&image);
        tasks.push((*kind, deployment.create(kind.name(), kind.scopes(), &payload).await));
    }
    println!("{} tasks; the worker's log is in {}", tasks.len(), log.display());
    let mut soak = Soak::new(&deployment, worker, faults.clone(), tasks);
    let ended: Vec<Ended> = soak.run(options.kills, &mut entries).await;
    let took = began.elapsed();
    faults.end().await;
    let wrong = verify(&deployment, &soak.journal, &ended).await;
    let (mut problems, most_memory) = soak.end(&mut entries).await;
    problems.extend(left_behind(&scratch, &before));
    problems.extend(soak.memory.problem());
    let Soak { kills, ref journal, ref memory, .. } = soak;
    Report { ended: &ended, wrong: &wrong, journal, memory, faults: &faults, kills, most_memory, took }
        .print();
    wrong.into_iter().map(|(_, problem)| problem).chain(problems).collect()
}

/// What a container worker could leave behind on this host.
fn host_state() -> String {
    tool(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/host-state"), &[])
}

/// The same once nobody takes anything away any more: what has run here just before may still be at it. The group above all
/// containers that a killed worker has left goes with the next one's last task, which is ours otherwise.
fn settled_host_state() -> String {
    docker_worker::parent_group::remove().unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    let mut state = host_state();
    loop {
        std::thread::park_timeout(Duration::from_secs(1));
        let next = host_state();
        if next == state || Instant::now() > until {
            return next;
        }
        state = next;
    }
}

/// What there is now and was not before, or the other way round, and what bears the name of the worker's directory.
fn left_behind(scratch: &Scratch, before: &str) -> Vec<String> {
    let after = host_state();
    let only = |one: &str, other: &str, said: &str| {
        let lines = one.lines().filter(|line| !other.lines().any(|known| known == *line));
        lines.map(|line| format!("the host {said}: {line}")).collect::<Vec<_>>()
    };
    let mut left = only(&after, before, "has now");
    left.extend(only(before, &after, "has no more"));
    left.extend(scratch.traces().into_iter().map(|trace| format!("left behind: {trace}")));
    left
}
