//! Integration tests: real kernel, real registry, real clients.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod architecture;
mod fixtures;
mod payload;
mod queue;
mod support;
