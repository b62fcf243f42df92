//! What the end-to-end tests have, and this program needs as well.
#![expect(dead_code, reason = "the end-to-end tests need more of it")]

#[path = "../../it/support/answering_server.rs"]
mod answering_server;
#[path = "../../it/support/fixtures.rs"]
mod fixtures;
#[path = "../../it/support/image.rs"]
mod image;
#[path = "../../it/support/internet.rs"]
mod internet;
#[path = "../../it/support/layer.rs"]
mod layer;
#[path = "../../it/support/process.rs"]
mod process;
#[path = "../../it/support/scratch.rs"]
mod scratch;
#[path = "../../it/support/watched_registry.rs"]
mod watched_registry;
#[path = "../../it/support/way_to_queue.rs"]
mod way_to_queue;
#[path = "../../it/support/wire.rs"]
mod wire;

pub use fixtures::busybox_image;
pub use internet::Internet;
pub use process::tool;
pub use scratch::Scratch;
pub use watched_registry::WatchedRegistry;
pub use way_to_queue::WayToQueue;
pub use wire::{Fault, Wire};
