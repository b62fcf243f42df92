//! A task that prints a lot, with and without readers of its live log.
//!
//! The time is from the claim to the resolution: image, network, container, output, and the log compressed and stored.

use std::process::Stdio;
use std::time::Instant;

use serde_json::json;
use tokio::process::{Child, Command};

use crate::site::{Site, millis};
use crate::table::{heading, median, row, spread};

/// Bytes of one write of the task.
const WRITES: [u64; 2] = [64_000, 100];
const READERS: [(&str, &[&str]); 3] = [
    ("nobody reads", &[]),
    ("four readers", &["", "", "", ""]),
    ("one that reads 1 MB/s, one that stops", &["--limit-rate 1M", "stopped"]),
];

pub async fn measure(site: &Site, rounds: usize, bytes: u64) {
    for write in WRITES {
        let (bytes, write) = (bytes.to_string(), write.to_string());
        let mut bare = Vec::new();
        let mut ours = vec![(Vec::new(), Vec::new()); READERS.len()];
        for _ in 0..rounds {
            bare.push(bare_reader(site, &bytes, &write).await);
            for ((_, readers), (times, memory)) in READERS.iter().zip(&mut ours) {
                // Each round has a worker of its own: a peak is for ever.
                let worker = site.start(&json!({})).await;
                times.push(printed(site, readers, &bytes, &write).await);
                memory.push(worker.memory("VmHWM"));
                worker.stop().await;
            }
        }
        let first = format!("{bytes} bytes in writes of {write}, n={rounds}: min / median / max s");
        heading(&[&first, "peak RSS of the worker, MB", "speed of the bare reader"]);
        row("bare reader", &[&spread(&bare), &"", &"1.00"]);
        for ((name, _), (times, memory)) in READERS.iter().zip(&ours) {
            let speed = format!("{:.2}", median(&bare) / median(times));
            row(name, &[&spread(times), &format!("{:.1}", median(memory)), &speed]);
        }
    }
}

/// Seconds that `benches/terminal.c` needs for the same output.
async fn bare_reader(site: &Site, bytes: &str, write: &str) -> f64 {
    let mut command = Command::new(site.directory.join("terminal"));
    command.arg(site.directory.join("programs/print")).args([bytes, write]).stdout(Stdio::null());
    let started = Instant::now();
    assert!(command.status().await.unwrap().success());
    started.elapsed().as_secs_f64()
}

/// Seconds of a run.
async fn printed(site: &Site, readers: &[&str], bytes: &str, write: &str) -> f64 {
    let task_id = site.create(&site.payload(&["/print", bytes, write])).await;
    site.running(&task_id).await;
    let url = site.artifact_url(&task_id, "public/logs/live.log");
    let readers: Vec<Child> = readers.iter().map(|reader| read(&url, reader)).collect();
    let run = site.completed(&task_id).await;
    drop(readers);
    millis(run.started.unwrap(), run.resolved.unwrap()) / 1000.0
}

/// Starts a reader of a live log; it ends with the value.
fn read(url: &str, how: &str) -> Child {
    let curl = format!(
        "curl --silent --location --retry 20 --retry-all-errors --retry-delay 1 --output /dev/null {url}"
    );
    let script = match how {
        // The pipe is full soon, and then the connection.
        "stopped" => format!("{curl} --output - | sleep 1000"),
        options => format!("exec {curl} {options}"),
    };
    Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap()
}
