//! What takes longer than everybody wants to wait: `make acceptance`.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod directory;
mod log;
mod support;
