//! What a benchmark on a processor of its own notices of a worker that is busy with something else: `gaps.c` on the last
//! processor, the worker told to stay on the first one. Processors share caches, memory and a host: beside nothing but
//! `gzip` on the first one it is seen what no worker can spare the benchmark.

use std::process::Stdio;
use std::thread::available_parallelism;

use serde_json::json;
use tokio::process::Command;

use crate::site::Site;
use crate::table::{heading, median, row, spread};

const SECONDS: &str = "10";
/// Text that compresses, so that the worker has much to do. Nothing of it is left to be written to the disk.
const MUCH: &str = "/print 1000000000 64000 >/much.txt && sync";

pub async fn measure(site: &Site, rounds: usize) {
    let last = (available_parallelism().unwrap().get() - 1).to_string();
    let mut rows =
        ["no worker", "no worker, gzip", "idle worker", "busy worker"].map(|name| (name, Vec::new()));
    for _ in 0..rounds {
        rows[0].1.push(alone(site, &last).await);
        rows[1].1.push(beside_gzip(site, &last).await);
        let worker = site.start(&json!({ "worker": { "cpus": "0" } })).await;
        rows[2].1.push(in_a_task(site, &last).await);
        let mut payload = site.payload(&["/bin/sh", "-c", MUCH]);
        payload["artifacts"] = json!({ "public/much.txt": { "type": "file", "path": "/much.txt" } });
        let busy = site.create(&payload).await;
        site.running(&busy).await;
        site.resolving().await;
        rows[3].1.push(in_a_task(site, &last).await);
        site.completed(&busy).await;
        worker.stop().await;
    }
    let head = format!("processor time lost in {SECONDS} s, n={rounds}: min / median / max ms");
    heading(&[&head, "gaps over 20 µs, median", "largest, median µs"]);
    for (name, gaps) in rows {
        let column = |index: usize| gaps.iter().map(|gap: &[f64; 3]| gap[index]).collect::<Vec<f64>>();
        let lost: Vec<f64> = column(1).iter().map(|lost| lost / 1000.0).collect();
        row(name, &[&spread(&lost), &median(&column(0)), &median(&column(2))]);
    }
}

async fn alone(site: &Site, processor: &str) -> [f64; 3] {
    let mut command = Command::new(site.directory.join("programs/gaps"));
    let output = command.args([processor, SECONDS]).output().await.unwrap();
    read(&String::from_utf8(output.stdout).unwrap())
}

async fn beside_gzip(site: &Site, processor: &str) -> [f64; 3] {
    let mut gzip = Command::new("taskset");
    gzip.args(["--cpu-list", "0", "nice", "-n", "5", "gzip", "--stdout", "/dev/zero"]);
    // Each of the programs becomes the next: what is killed is gzip itself.
    let busy = gzip.stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let gaps = alone(site, processor).await;
    drop(busy);
    gaps
}

async fn in_a_task(site: &Site, processor: &str) -> [f64; 3] {
    let (task_id, _) = site.run(&["/gaps", processor, SECONDS]).await;
    read(&site.log(&task_id).await)
}

fn read(text: &str) -> [f64; 3] {
    let line = text.lines().find_map(|line| line.strip_prefix("gaps ")).unwrap();
    let numbers: Vec<f64> = line.split_whitespace().map(|word| word.parse().unwrap()).collect();
    numbers.try_into().unwrap()
}
