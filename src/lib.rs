//! A Taskcluster docker-worker without a Docker daemon: the worker.
//!
//! The worker decides policy: which task runs, with which image, what its container may see and do,
//! and what becomes of its log and artifacts. Carrying that out is the work of two other crates:
//! `images` brings an image into the store and mounts it, `runtime` executes an OCI Spec.
//!
//! ```text
//!   cli ──► task: Claimed ► Validated ► ImageReady ► Running ► Resolving ► Resolved
//!             │        │         │           │           │          │
//!           queue   payload,   images,     spec ──►   runtime    artifacts,
//!                   scopes     caches    (OCI Spec)   (monitor)  log, queue
//! ```
//!
//! # Terminology
//!
//! * **Task**, **run**: a task is defined once and may be run several times; a run is what a worker
//!   claims and resolves.
//! * **Resolution**: how a run ended: completed, failed, or an exception with a reason.
//! * **Log**: what the task printed between the worker's own lines; one file while the task runs.
//! * **Artifact**: a file that outlives its run, under a name.
//! * **Cache**: a named directory that outlives its run and serves the next task that names it.
//! * **Feature**: something a task can have beside its command; one file in `features/`.
//! * **Monitor**: the process of the runtime that watches over one container.
#![forbid(unsafe_code)]
// The future of a run holds that of its pull, and this one all the way to a proxy's TLS: deeper than the compiler follows by
// itself.
#![recursion_limit = "256"]

pub mod apparmor_profiles;
pub mod artifact;
pub mod background;
pub mod cache;
pub mod claim_file;
pub mod cleanup;
pub mod cli;
pub mod config;
pub mod container;
pub mod demo_directory;
pub mod directories;
pub mod document;
pub mod download;
pub mod draft;
mod elf;
pub mod event;
pub mod features;
pub mod file_lock;
pub mod gc;
pub mod host;
pub mod interrupt;
pub mod known_features;
pub mod limits;
pub mod line_writer;
pub mod live_log;
pub mod net;
pub mod own_directory;
pub mod parent_group;
mod patience;
pub mod payload;
pub mod processors;
pub mod proxy;
pub mod queue;
pub mod random;
pub mod readiness;
pub mod registry;
pub mod remove_tree;
pub mod root;
pub mod root_file_system;
pub mod run_directory;
pub mod scopes;
pub mod sidecar;
pub mod signing_key;
pub mod spec;
pub mod standalone;
mod suggestion;
pub mod task;
pub mod task_log;
pub mod text;
pub mod timestamp;
pub mod tree_size;
pub mod undo_containers;
pub mod units;
pub mod worker;
pub mod yaml;
