//! What the end-to-end tests are written with: images made for one test, the real registry, a worker with directories
//! of its own, and a canary that shows whether anything left its place.

mod answering_server;
mod broken_disk;
mod caller;
mod canary;
mod certificate;
mod deployment;
mod dockerd;
mod fixtures;
mod groups;
mod image;
mod internet;
mod layer;
mod nginx;
mod observe;
mod own_queue;
mod pid_namespace;
mod process;
mod registry;
mod scratch;
mod scripted_server;
mod site;
mod small_disk;
mod stalled_opening;
mod stand_in;
mod store;
mod watched_registry;
mod way_to_queue;
mod wire;
mod worker;

pub use answering_server::{AnsweringServer, Request, refusal};
pub use broken_disk::BrokenDisk;
pub use caller::{Answered, Signer, call, call_signed_for, put};
pub use canary::Canary;
pub use certificate::certify;
pub use deployment::{ALL, Deployment, POOL, Terms};
pub use dockerd::Dockerd;
pub use fixtures::{
    busybox_image, clients, clients_image, compiled, compiled_probe, debian_image, probe_image,
};
pub use groups::groups_named;
pub use image::{Image, WrittenImage};
pub use internet::{Internet, OUTSIDE, answer_one, await_readable};
pub use layer::{
    Compression, Entry, Layer, block, character, dir, fifo, file, hardlink, sha256, symlink, tar,
};
pub use nginx::Nginx;
pub use observe::observe;
pub use own_queue::OwnQueue;
pub use pid_namespace::PidNamespace;
pub use process::{Finished, await_end, await_path, await_that, await_written, finish, read_until, tool};
pub use registry::Registry;
pub use scratch::Scratch;
pub use scripted_server::ScriptedServer;
pub use site::{Site, Started};
pub use small_disk::SmallDisk;
pub use stalled_opening::StalledOpening;
pub use stand_in::StandIn;
pub use store::assert_holds_one_image;
pub use watched_registry::WatchedRegistry;
pub use way_to_queue::WayToQueue;
pub use wire::Fault;
pub use worker::{Run, Worker, runtime_executable, shell_payload, task_definition};
