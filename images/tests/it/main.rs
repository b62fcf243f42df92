//! Integration tests: real kernel, real registry, real clients.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod hostile_layers;
mod layer_tar;
mod merge_model;
mod mount;
mod namespace;
mod round_trip;
mod snapshot;
