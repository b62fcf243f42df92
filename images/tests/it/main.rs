//! Integration tests: real kernel, real registry, real clients.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod archive;
mod certificates;
mod docker;
mod hostile_layers;
mod layer_split;
mod layer_tar;
mod memory;
mod merge_model;
mod mount;
mod namespace;
mod one_file;
mod registry;
mod registry_server;
mod round_trip;
mod round_trip_blocks;
mod round_trip_large;
mod round_trip_packages;
mod sample;
mod save;
mod scripted;
mod snapshot;
mod store;
mod stream;
mod tinyproxy;
mod token_server;
mod umoci;
mod upper;
mod written;

/// Where umoci unpacks: not a tmpfs, which keeps no `user.` attributes before Linux 6.6.
const DISK: &str = "/var/tmp";
