//! What `docker-worker start` costs: a part of `benches/worker`, which makes a host, a registry and images for it.
//!
//! `deployment SECTION WORKER DIRECTORY IMAGE ROUNDS BYTES` prints one table, or more, of one section. The worker is a
//! process of its own; queue, object storage and author of tasks are in this one.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench fails by panicking"
)]

mod artifacts;
#[expect(dead_code, reason = "only signatures are wanted here: curl makes the calls")]
#[path = "../../tests/it/support/caller.rs"]
mod caller;
mod idle;
mod images;
mod log;
mod pinned;
mod proxy;
mod site;
mod table;
mod tasks;

use std::process::ExitCode;

use site::Site;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [section, worker, directory, image, rounds, bytes] = words.as_slice() else {
        // As `cargo bench` calls it.
        eprintln!("usage: deployment SECTION WORKER DIRECTORY IMAGE ROUNDS BYTES; benches/worker calls it");
        return ExitCode::from(2);
    };
    let site = Site::new(worker, directory, image).await;
    let (rounds, bytes) = (rounds.parse().unwrap(), bytes.parse().unwrap());
    match section.as_str() {
        "tasks" => tasks::measure(&site, rounds).await,
        "idle" => idle::measure(&site).await,
        "images" => images::measure(&site, rounds).await,
        "log" => log::measure(&site, rounds, bytes).await,
        "artifacts" => artifacts::measure(&site, rounds).await,
        "proxy" => proxy::measure(&site, rounds).await,
        "pinned" => pinned::measure(&site, rounds).await,
        other => panic!("no section {other}"),
    }
    ExitCode::SUCCESS
}
