//! What a worker costs that has nothing to do, and what a sleeping task adds.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use serde_json::json;

use crate::site::{Site, number};
use crate::table::{heading, row};

/// Longer than a long poll, whose end is a wake-up as well.
const WATCHED: Duration = Duration::from_secs(60);

pub async fn measure(site: &Site) {
    let worker = site.start(&json!({})).await;
    // What the task before left to do is done.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = wake_ups(worker.pid);
    tokio::time::sleep(WATCHED).await;
    let rate = between(&before, &wake_ups(worker.pid)) / WATCHED.as_secs_f64();
    heading(&["RSS, MB", "of it anonymous, MB", "wake-ups a second"]);
    let print = |name: &str, rate: &str| {
        let (all, own) = (worker.memory("VmRSS"), worker.memory("RssAnon"));
        row(name, &[&format!("{all:.1}"), &format!("{own:.1}"), &rate]);
    };
    print("after a task, idle", &format!("{rate:.2}"));
    let mut tasks = Vec::new();
    for _ in 0..8 {
        tasks.push(site.create(&site.payload(&["/bin/sleep", "15"])).await);
    }
    for task_id in &tasks {
        site.running(task_id).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    print("with eight sleeping tasks", "");
    for task_id in &tasks {
        site.completed(task_id).await;
    }
    worker.stop().await;
}

/// How often each thread of a process has been given a processor, so far.
fn wake_ups(pid: u32) -> BTreeMap<OsString, f64> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let switches = threads.filter_map(|thread| {
        let thread = thread.unwrap();
        let status = thread.path().join("status");
        let status = status.to_str().unwrap();
        // It may have ended since it was listed.
        std::fs::exists(status).unwrap().then(|| {
            let of_its_own = number(status, "voluntary_ctxt_switches");
            (thread.file_name(), of_its_own + number(status, "nonvoluntary_ctxt_switches"))
        })
    });
    switches.collect()
}

/// How often any of them was between two looks. What a thread did that ended meanwhile is not known.
fn between(before: &BTreeMap<OsString, f64>, after: &BTreeMap<OsString, f64>) -> f64 {
    after.iter().map(|(thread, switches)| switches - before.get(thread).unwrap_or(&0.0)).sum()
}
