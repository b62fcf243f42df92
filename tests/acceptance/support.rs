//! What the end-to-end tests have, and these need as well.
#![expect(dead_code, clippy::expect_used, reason = "the end-to-end tests need more of it")]

#[path = "../it/support/answering_server.rs"]
mod answering_server;
#[path = "../it/support/caller.rs"]
mod caller;
#[path = "../it/support/deployment.rs"]
mod deployment;
#[path = "../it/support/fixtures.rs"]
mod fixtures;
#[path = "../it/support/image.rs"]
mod image;
#[path = "../it/support/internet.rs"]
mod internet;
#[path = "../it/support/layer.rs"]
mod layer;
#[path = "../it/support/own_queue.rs"]
mod own_queue;
#[path = "../it/support/process.rs"]
mod process;
#[path = "../it/support/scratch.rs"]
mod scratch;
#[path = "../it/support/site.rs"]
mod site;
#[path = "../it/support/watched_registry.rs"]
mod watched_registry;
#[path = "../it/support/wire.rs"]
mod wire;
#[path = "../it/support/worker.rs"]
mod worker;

pub use own_queue::OwnQueue;
pub use process::finish;
pub use worker::shell_payload;
