//! `regex-lite` under the name of `regex`; Cargo.toml says why.
#![forbid(unsafe_code)]

pub use regex_lite::*;
