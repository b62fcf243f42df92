//! Integration tests: real kernel, real registry, real clients.
mod layer_tar;
mod namespace;
mod round_trip;
mod snapshot;
