//! What the built-in taskcluster proxy costs: a task with the feature beside the same one without, in turns, and the memory of
//! the process that all tasks share.

use std::path::PathBuf;
use std::time::Duration;

use docker_worker::queue::task_id::TaskId;
use docker_worker::timestamp::Timestamp;
use serde_json::{Value, json};

use crate::site::{Site, millis, number};
use crate::table::{heading, mean, row, spread};

/// Pairs of tasks in a round.
const IN_A_ROUND: usize = 50;
/// Tasks at once while memory is looked at.
const TASKS: usize = 50;

pub async fn measure(site: &Site, rounds: usize) {
    let worker = site.start(&json!({ "capacity": TASKS })).await;
    let asleep = with_proxy(site.payload(&["/bin/sleep", "600"]));
    // It keeps the process there, and makes it.
    let first = running(site, &asleep).await;
    time(site, rounds).await;
    heading(&["PSS of the proxy's process, MB", "of it anonymous, MB"]);
    let process = proxy_process();
    let print = |name: &str| {
        let rollup = process.join("smaps_rollup");
        let [all, own] = ["Pss", "Pss_Anon"].map(|key| number(rollup.to_str().unwrap(), key) / 1024.0);
        row(name, &[&format!("{all:.2}"), &format!("{own:.2}")]);
    };
    print("one task");
    let mut sleeping = vec![first];
    while sleeping.len() < TASKS {
        sleeping.push(running(site, &asleep).await);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    print(&format!("{TASKS} tasks"));
    for task_id in &sleeping {
        site.queue.cancel_task(task_id).await.unwrap();
    }
    worker.stop().await;
}

/// The same task with the feature.
fn with_proxy(mut payload: Value) -> Value {
    payload["features"] = json!({ "taskclusterProxy": true });
    payload
}

async fn running(site: &Site, payload: &Value) -> TaskId {
    let task_id = site.create(payload).await;
    site.running(&task_id).await;
    task_id
}

async fn time(site: &Site, rounds: usize) {
    let without = site.payload(&["/stamp"]);
    let with = with_proxy(without.clone());
    let mut rows = [("without the feature", without), ("with it", with)]
        .map(|(name, payload)| (name, payload, Vec::new(), Vec::new()));
    for _ in 0..rounds * IN_A_ROUND {
        for (_, payload, before, whole) in &mut rows {
            let created = Timestamp::now();
            let task_id = site.create(payload).await;
            let run = site.completed(&task_id).await;
            before.push(millis(run.started.unwrap(), site.stamped(&task_id).await));
            whole.push(millis(created, run.resolved.unwrap()));
        }
    }
    let count = rows[0].2.len();
    heading(&[
        &format!("claimed to the command's first line, n={count}: min / median / max ms"),
        "mean ms",
        "created to resolved: min / median / max ms",
        "mean ms",
    ]);
    for (name, _, before, whole) in rows {
        let [before, whole] = [before, whole].map(|it| (spread(&it), format!("{:.2}", mean(&it))));
        row(name, &[&before.0, &before.1, &whole.0, &whole.1]);
    }
}

/// The directory in procfs of the only proxy of this pid namespace.
fn proxy_process() -> PathBuf {
    let processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let is_proxy = |process: &PathBuf| {
        let is_number = process.file_name().unwrap().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        let arguments = std::fs::read(process.join("cmdline")).unwrap_or_default();
        let mut words = arguments.split(|byte| *byte == 0);
        let is_ours = words.next().is_some_and(|word| word.ends_with(b"docker-worker"));
        is_number && is_ours && words.next() == Some(b"proxy")
    };
    let found: Vec<PathBuf> = processes.filter(is_proxy).collect();
    let [process] = found.as_slice() else { panic!("not one proxy: {found:?}") };
    process.clone()
}
