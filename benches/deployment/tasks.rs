//! What a short task costs, and many at once.
//!
//! The command prints the time, so that what was before it and after it can be told apart: all clocks are the host's.

use docker_worker::timestamp::Timestamp;
use serde_json::json;

use crate::site::{Site, millis};
use crate::table::{heading, median, row, spread};

/// Tasks in a round, one after the other.
const IN_A_ROUND: usize = 20;
const AT_ONCE: usize = 8;

pub async fn measure(site: &Site, rounds: usize) {
    let worker = site.start(&json!({})).await;
    one_after_the_other(site, rounds).await;
    at_once(site, rounds).await;
    worker.stop().await;
}

async fn one_after_the_other(site: &Site, rounds: usize) {
    let (mut before, mut after, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds * IN_A_ROUND {
        let created = Timestamp::now();
        let (task_id, run) = site.run(&["/stamp"]).await;
        let printed = site.stamped(&task_id).await;
        let resolved = run.resolved.unwrap();
        before.push(millis(run.started.unwrap(), printed));
        after.push(millis(printed, resolved));
        whole.push(millis(created, resolved));
    }
    heading(&[&format!("one task, image present, network on, n={}: min / median / max ms", whole.len())]);
    row("claimed to the command's first line", &[&spread(&before)]);
    row("from there to the resolution, log stored", &[&spread(&after)]);
    row("created to resolved", &[&spread(&whole)]);
}

async fn at_once(site: &Site, rounds: usize) {
    let (mut one, mut eight) = (Vec::new(), Vec::new());
    for _ in 0..rounds * 5 {
        one.push(together(site, 1).await);
        eight.push(together(site, AT_ONCE).await);
    }
    heading(&[&format!("`true`, network on, n={}: min / median / max ms", one.len()), "of one"]);
    row("one", &[&spread(&one), &"1.00"]);
    row("eight at once", &[&spread(&eight), &format!("{:.2}", median(&eight) / median(&one))]);
}

/// Milliseconds from the making of so many tasks to the resolution of the last one.
async fn together(site: &Site, count: usize) -> f64 {
    let payload = site.payload(&["/bin/true"]);
    let created = Timestamp::now();
    let mut tasks = Vec::new();
    for _ in 0..count {
        tasks.push(site.create(&payload).await);
    }
    let mut last = created;
    for task_id in &tasks {
        last = last.max(site.completed(task_id).await.resolved.unwrap());
    }
    millis(created, last)
}
