//! Integration tests: real kernel, real registry, real clients.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "../support/bundle.rs"]
mod bundle;
#[path = "../support/busybox.rs"]
mod busybox;
#[path = "../support/groups.rs"]
mod groups;
#[path = "../support/probe.rs"]
mod probe;

mod callers;
mod cgroup;
mod crash;
mod exec;
mod exec_hostile;
mod exec_terminal;
mod execution;
mod filesystem;
mod golden;
mod hold;
mod hold_ends;
mod hold_hostile;
mod hooks;
mod hostile_spec;
mod inside;
mod launch;
mod launch_exec;
mod lifecycle;
mod mounts;
mod paused;
mod profile;
mod rlimits;
mod sentences;
mod terminal;
mod updated;
