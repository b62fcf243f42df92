//! Whether AppArmor confines tasks here.

use std::path::Path;

use apparmor::parser;
use apparmor::policy::Unusable;
use apparmor::profile::{self, OwnName};

use super::{Facts, Item, Status, item};
use crate::text::chain;

/// A line for each task's log about what it does without.
pub(super) fn notice(facts: &Facts) -> Option<String> {
    let why = facts.apparmor.as_ref().err()?;
    Some(without_profile(&why.to_string()))
}

/// The line of the log of a task that has no profile.
pub fn without_profile(why: &str) -> String {
    format!("isolation: {why}; the task runs without a profile")
}

pub(super) fn apparmor(facts: &Facts) -> Item {
    let remedy = match &facts.apparmor {
        Err(Unusable::NoParser) => "install the package apparmor",
        Err(Unusable::NotMounted) => "mount securityfs: mount -t securityfs securityfs /sys/kernel/security",
        Err(Unusable::NotWritable { .. }) => {
            "mount securityfs writable, and run docker-worker with CAP_MAC_ADMIN and in no profile that denies it"
        }
        Err(Unusable::Lacks { .. }) => {
            "boot a kernel whose AppArmor mediates mounts, signals, ptrace and sockets"
        }
        Err(Unusable::Off | Unusable::Unknown { .. }) | Ok(_) => {
            "boot with apparmor=1 security=apparmor if tasks are to be confined by it as well, or leave requireAppArmor out"
        }
    };
    match &facts.apparmor {
        Ok(parser) => {
            let found = format!("enabled; profiles are compiled by {}", parser.display());
            item("AppArmor", Status::Works, found, remedy)
        }
        Err(why) => item("AppArmor", without(facts), format!("{why}: tasks run without a profile"), remedy),
    }
}

fn without(facts: &Facts) -> Status {
    if facts.requires_apparmor { Status::Missing } else { Status::Degraded }
}

/// Whether the profile can be compiled here, for `docker-worker check`: it is tried, and not loaded.
pub fn profile_item(facts: &Facts) -> Option<Item> {
    let parser = facts.apparmor.as_ref().ok()?;
    let (status, found) = match compile(parser) {
        Ok(bytes) => (Status::Works, format!("the profile of tasks compiles to {bytes} bytes")),
        Err(why) => (without(facts), format!("failed to {why}")),
    };
    Some(item(
        "AppArmor profile",
        status,
        found,
        "install the package apparmor of your distribution anew, version 3.0 or later",
    ))
}

/// The size of the compiled profile.
fn compile(parser: &Path) -> Result<usize, String> {
    let outer =
        ::apparmor::own_profile().map_err(|error| format!("read the worker's own profile: {error}"))?;
    let name = OwnName::new("docker-worker-check").map_err(|error| chain(&error))?;
    let text = profile::text(&name, outer.as_deref()).map_err(|error| chain(&error))?;
    let scratch = tempfile::tempdir().map_err(|error| format!("make a directory: {error}"))?;
    let compiled = parser::compile(parser, &text, scratch.path(), &|| true).map_err(|error| chain(&error))?;
    Ok(compiled.len())
}
