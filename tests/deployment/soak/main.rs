//! Many tasks in a short time, against a real deployment, by a worker that is killed with SIGKILL now and then:
//! `make soak CONFIG=FILE`. FILE is the configuration of a worker, `TASKCLUSTER_CLIENT_ID` and
//! `TASKCLUSTER_ACCESS_TOKEN` name a client that may make and cancel tasks in its pool, with the scope
//! `docker-worker:cache:soak-*`. Nobody else should claim from that pool.
//!
//! In the end each task has exactly one resolution, the expected one, log and artifacts of its last run are there and
//! whole, and nothing is left on the host; a sentence says what is not so, and the status is 1.
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
mod report;
mod run;
mod support;
mod verify;
mod worker;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use self::deployment::Deployment;
use self::faults::Faults;
use self::kinds::KINDS;
use self::report::Report;
use self::run::Soak;
use self::support::{Scratch, WatchedRegistry, busybox_image, tool};
use self::verify::{Ended, verify};
use self::worker::{Worker, configuration};

/// Runs many tasks, and kills their worker now and then.
#[derive(Debug, Parser)]
struct Options {
    /// The configuration of a worker of the deployment.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
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

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = Options::parse();
    let scratch = Scratch::new();
    let image = busybox_image().write_oci(&scratch.join("image"));
    let image = WatchedRegistry::serve(&image).name;
    let config = configuration(&options.config, options.capacity, &image);
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join("soak.log");
    let (worker, mut entries) = Worker::new(&options.worker, scratch.path(), &config, &log);
    let deployment = Deployment::new(&config);
    let before = host_state();
    let began = Instant::now();
    let mut tasks = Vec::new();
    for kind in KINDS.iter().cycle().take(options.tasks) {
        let payload = kind.payload(&image);
        tasks.push((*kind, deployment.create(kind.name(), kind.scopes(), &payload).await));
    }
    println!("{} tasks; the worker's log is in {}", tasks.len(), log.display());
    let faults =
        Faults { of_the_proxy: options.faults.clone(), of_the_storage: options.storage_faults.clone() };
    let mut soak = Soak::new(&deployment, worker, faults, tasks);
    let ended: Vec<Ended> = soak.run(options.kills, &mut entries).await;
    let took = began.elapsed();
    let (mut problems, most_memory) = soak.end(&mut entries).await;
    problems.extend(left_behind(&scratch, &before));
    let wrong = verify(&deployment, &soak.journal, &ended).await;
    let kills = soak.kills;
    let report = Report { ended: &ended, wrong: &wrong, journal: &soak.journal, kills, most_memory, took };
    report.print();
    for problem in wrong.iter().map(|(_, problem)| problem).chain(&problems) {
        println!("{problem}");
    }
    if wrong.is_empty() && problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a container worker could leave behind on this host.
fn host_state() -> String {
    tool(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/host-state"), &[])
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
