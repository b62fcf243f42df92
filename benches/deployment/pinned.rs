//! What a benchmark on a processor of its own notices of a worker that is busy with something else: `gaps.c` on the last
//! processor, the worker told to stay on the first one. Processors share caches, memory and a host: beside nothing but
//! `gzip` on the first one it is seen what no worker can spare the benchmark.

use std::fs::File;
use std::thread::available_parallelism;

use serde_json::json;
use tokio::process::Command;

use crate::site::Site;
use crate::table::{heading, median, row, spread};

const SECONDS: &str = "10";
/// Text that compresses, so that the worker has much to do. Nothing of it is left to be written to the disk.
const PRINTED: [&str; 2] = ["1000000000", "64000"];

pub async fn measure(site: &Site, rounds: usize) {
    let last = (available_parallelism().unwrap().get() - 1).to_string();
    let much = format!("/print {} >/much.txt && sync", PRINTED.join(" "));
    let mut rows =
        ["no worker", "no worker, gzip", "idle worker", "busy worker"].map(|name| (name, Vec::new()));
    for _ in 0..rounds {
        rows[0].1.push(alone(site, &last).await);
        rows[1].1.push(beside_gzip(site, &last).await);
        let worker = site.start(&json!({ "worker": { "cpus": "0" } })).await;
        rows[2].1.push(in_a_task(site, &last).await);
        let mut payload = site.payload(&["/bin/sh", "-c", &much]);
        payload["artifacts"] = json!({ "public/much.txt": { "type": "file", "path": "/much.txt" } });
        let busy = site.create(&payload).await;
        site.running(&busy).await;
        site.resolving().await;
        rows[3].1.push(in_a_task(site, &last).await);
        site.completed(&busy).await;
        worker.stop().await;
    }
    let head = format!("processor time lost in {SECONDS} s, n={rounds}: min / median / max ms");
    heading(&[
        &head,
        "gaps over 20 µs, median",
        "largest, median µs",
        "times that others ran, median",
        "kept by the machine's host: min / median / max ms",
    ]);
    for (name, gaps) in rows {
        let column = |index: usize| gaps.iter().map(|gap: &[f64; 5]| gap[index]).collect::<Vec<f64>>();
        let milliseconds = |index: usize| column(index).iter().map(|it| it / 1000.0).collect::<Vec<f64>>();
        let [lost, kept] = [1, 4].map(|index| spread(&milliseconds(index)));
        row(name, &[&lost, &median(&column(0)), &median(&column(2)), &median(&column(3)), &kept]);
    }
}

async fn alone(site: &Site, processor: &str) -> [f64; 5] {
    let mut command = Command::new(site.directory.join("programs/gaps"));
    let output = command.args([processor, SECONDS]).output().await.unwrap();
    read(&String::from_utf8(output.stdout).unwrap())
}

/// Beside somebody who does what the busy worker does, with Debian's tools: what the kernel does for a file that is read
/// and one that is written is done on any processor, whoever asked for it.
async fn beside_gzip(site: &Site, processor: &str) -> [f64; 5] {
    let much = site.directory.join("much.txt");
    let file = File::create(&much).unwrap();
    let mut print = Command::new(site.directory.join("programs/print"));
    assert!(print.args(PRINTED).stdout(file).status().await.unwrap().success());
    File::open(&much).unwrap().sync_all().unwrap();
    let mut gzip = Command::new("taskset");
    gzip.args(["--cpu-list", "0", "nice", "-n", "5", "gzip", "--stdout"]).arg(&much);
    // Each of the programs becomes the next: what is killed is gzip itself.
    let stored = File::create(much.with_extension("gz")).unwrap();
    let busy = gzip.stdout(stored).kill_on_drop(true).spawn().unwrap();
    let gaps = alone(site, processor).await;
    drop(busy);
    std::fs::remove_file(&much).unwrap();
    gaps
}

async fn in_a_task(site: &Site, processor: &str) -> [f64; 5] {
    let (task_id, _) = site.run(&["/gaps", processor, SECONDS]).await;
    read(&site.log(&task_id).await)
}

fn read(text: &str) -> [f64; 5] {
    let line = text.lines().find_map(|line| line.strip_prefix("gaps ")).unwrap();
    let numbers: Vec<f64> = line.split_whitespace().map(|word| word.parse().unwrap()).collect();
    numbers.try_into().unwrap()
}
