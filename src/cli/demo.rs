//! `docker-worker demo`: a guided offline run of the main features.

use std::process::ExitCode;

use clap::Args;

use super::{FAILED, complain};
use crate::config::Config;

/// Options of `demo`.
#[derive(Debug, Args)]
pub struct DemoArguments {}

/// The command.
pub fn main(_options: &DemoArguments, _config: &Config) -> ExitCode {
    complain(FAILED, "demo is not there yet in this version of docker-worker")
}
