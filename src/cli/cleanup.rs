//! `docker-worker cleanup`: undo whatever a crash left behind.

use std::process::ExitCode;

use clap::Args;

use super::operator::Operator;
use super::{FAILED, HOST_UNFIT};
use crate::cleanup::{Claims, clean_up};
use crate::config::Config;
use crate::demo_directory;
use crate::text::chain;

/// Options of `cleanup`.
#[derive(Debug, Args)]
pub struct CleanupArguments {}

/// Cleans up; the status is 0 when nothing is left but what lives.
pub(super) fn main(_options: &CleanupArguments, config: &Config, operator: &Operator) -> ExitCode {
    if !rustix::process::geteuid().is_root() {
        return operator.refuse(HOST_UNFIT, "cleanup needs root: run it with sudo");
    }
    // One after the other, and each in any case: what resists here is no reason to leave the rest.
    let (tasks, demos) = (clean_up(&config.directories, Claims::Forget), demo_directory::sweep());
    let (mut done, mut resisted) = (Vec::new(), Vec::new());
    match tasks {
        Ok(cleaned) => {
            let sweep = cleaned.sweep;
            done.extend(cleaned.notes);
            done.extend(sweep.removed.iter().map(|id| format!("removed what was left of container {id}")));
            done.extend(sweep.foreign.iter().map(ToString::to_string));
            if !sweep.alive.is_empty() {
                done.push(format!("left alone, as their workers live: {}", sweep.alive.join(", ")));
            }
            resisted.extend(
                sweep.failed.iter().map(|(id, error)| format!("container {id}: failed to {}", chain(error))),
            );
        }
        Err(error) => resisted.push(format!("failed to {}", chain(&error))),
    }
    match demos {
        Ok(demos) => {
            done.extend(demos.iter().map(|path| format!("removed {}, which a demo left", path.display())));
        }
        Err(error) => resisted.push(format!("failed to {}", chain(&error))),
    }
    for line in done.iter().chain(&resisted) {
        operator.note(line);
    }
    match (resisted.len(), done.is_empty()) {
        (0, true) => operator.note("there was nothing to undo"),
        (0, false) => {}
        (count, _) => {
            return operator
                .refuse(FAILED, &format!("not everything could be undone: {count} left, see above"));
        }
    }
    ExitCode::SUCCESS
}
