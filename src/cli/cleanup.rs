//! `docker-worker cleanup`: undo whatever a crash left behind.

use std::process::ExitCode;

use clap::Args;

use super::{FAILED, HOST_UNFIT, complain, say};
use crate::cleanup::clean_up;
use crate::config::Config;
use crate::demo_directory;
use crate::task::error::chain;

/// Options of `cleanup`.
#[derive(Debug, Args)]
pub struct CleanupArguments {}

/// Cleans up; the status is 0 when nothing is left.
pub fn main(_options: &CleanupArguments, config: &Config) -> ExitCode {
    if !rustix::process::geteuid().is_root() {
        return complain(HOST_UNFIT, "cleanup needs root: run it with sudo");
    }
    let sweep = match clean_up(&config.directories) {
        Ok(sweep) => sweep,
        Err(error) => return complain(FAILED, &format!("failed to {}", chain(&error))),
    };
    let demos = match demo_directory::sweep() {
        Ok(demos) => demos,
        Err(error) => return complain(FAILED, &format!("failed to {}", chain(&error))),
    };
    for directory in demos {
        say(&format!("removed {}, which a demo left", directory.display()));
    }
    for id in &sweep.removed {
        say(&format!("removed what was left of container {id}"));
    }
    for (id, error) in &sweep.failed {
        say(&format!("container {id}: failed to {}", chain(error)));
    }
    for foreign in &sweep.foreign {
        say(&foreign.to_string());
    }
    if !sweep.alive.is_empty() {
        say(&format!("left {} running container(s) alone", sweep.alive.len()));
    }
    if sweep.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}
