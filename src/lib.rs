//! The worker.
#![forbid(unsafe_code)]
pub mod artifact;
pub mod cache;
pub mod cleanup;
pub mod cli;
pub mod config;
pub mod event;
pub mod features;
pub mod queue;
pub mod readiness;
pub mod root;
pub mod run_directory;
pub mod scopes;
pub mod spec;
pub mod task;
pub mod timestamp;
