//! The payload of a docker-worker task: read, checked, and turned into types that need no second check.
//!
//! Payloads of every age (2015–2026) are accepted. A field that works here becomes part of [`Payload`]; one that some
//! age knew and that has lost its meaning gives a warning; one that this version cannot honour yet is refused by its
//! name; one that none knew is refused with the nearest known name. All findings come at once.

mod artifacts;
mod capabilities;
mod command;
pub mod env;
pub mod features;
mod image;
mod mounts;
mod outdated;
pub mod superseder;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

pub use artifacts::{ArtifactEntry, ArtifactSource, reserved_names};
pub use capabilities::DeviceWishes;
pub use features::FeatureSwitches;
pub use image::{ArtifactImage, ImageField, TaskName, meant_by};
pub use mounts::{CacheName, CacheNameError, MountPoint, MountPointError};

use crate::document::finding::{Finding, Findings};
use crate::document::reader::{Object, Place};
use crate::limits;
use crate::queue::artifact_name::ArtifactName;
use crate::timestamp::Timestamp;

/// Follows the name of what a later version will do.
const NOT_YET: &str = "is not there yet in this version of docker-worker";

/// Every field that some age knew, for the check of unknown ones.
const FIELDS: &[&str] = &[
    "image",
    "command",
    "env",
    "maxRunTime",
    "artifacts",
    "cache",
    "log",
    "features",
    "onExitStatus",
    "capabilities",
    "encryptedEnv",
    "supersederUrl",
    "coalescer",
    "graphs",
];

/// A payload that can be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The image that the container is made of.
    pub image: ImageField,
    /// What follows the image's entry point; empty: the image's own command.
    pub command: Vec<String>,
    /// Variables over the image's.
    pub env: BTreeMap<String, String>,
    /// How long the container may run.
    pub max_run_time: Duration,
    /// Caches and where they appear; no two at one place. Nested ones want mounting in the order of their paths.
    pub cache: BTreeMap<CacheName, MountPoint>,
    /// What is kept, and under which names.
    pub artifacts: BTreeMap<ArtifactName, ArtifactEntry>,
    /// The live log's name; its [`ArtifactName::backing`] exists as well.
    pub log: ArtifactName,
    /// Which features run.
    pub features: FeatureSwitches,
    /// Devices that it asks for, if it speaks of any.
    pub devices: Option<DeviceWishes>,
    /// Exit codes with a special meaning.
    pub on_exit_status: OnExitStatus,
    /// Whether it says who knows which tasks it stands for.
    pub names_superseder: bool,
}

/// `payload.onExitStatus`: exit codes with a special meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnExitStatus {
    /// The run is to be tried again. −1 means: no status of the command (O47).
    pub retry: Vec<i64>,
    /// The task's caches are to be thrown away.
    pub purge_caches: Vec<i64>,
}

/// What a check of a payload has to know of the task and the worker.
#[derive(Clone, Copy, Debug)]
pub struct TaskContext<'a> {
    /// When the task expires: no artifact may outlive it.
    pub expires: Timestamp,
    /// Who wrote the task.
    pub origin: Origin,
    /// Features that this worker's configuration switches off.
    pub disabled_features: &'a [&'a str],
    /// The most seconds that this worker lets a task ask for, if there is such a bound.
    pub max_task_run_time: Option<u64>,
    /// Where the payload is in the document that findings point into: `/payload`, or empty.
    pub pointer: &'a str,
}

/// Who wrote a task, and so what it may name on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The operator: images may come from files and directories of this host.
    Operator,
    /// Somebody who could put it into a queue: images come from registries only.
    Queue,
}

impl Payload {
    /// Checks a payload. There is a [`Payload`] exactly when no finding is an error.
    #[must_use]
    pub fn parse(payload: &Value, context: &TaskContext<'_>) -> (Option<Payload>, Vec<Finding>) {
        let mut findings = Findings::default();
        let read = Place::root(payload, context.pointer)
            .object(&mut findings)
            .and_then(|object| read_fields(&object, context, &mut findings));
        let payload = read.filter(|_| !findings.has_errors());
        (payload, findings.into_list())
    }
}

fn read_fields(object: &Object<'_>, context: &TaskContext<'_>, findings: &mut Findings) -> Option<Payload> {
    object.refuse_unknown(FIELDS, findings);
    outdated::look_at(object, findings);
    let image =
        object.required("image", findings).and_then(|place| image::read(&place, context.origin, findings));
    let max_run_time = object
        .required("maxRunTime", findings)
        .and_then(|place| read_max_run_time(&place, context.max_task_run_time, findings));
    let command = command::read_command(object.member("command"), findings);
    let env = command::read_env(object.member("env"), findings);
    let features = features::read(object.member("features"), context, findings);
    let devices = capabilities::read(object.member("capabilities"), &features, findings);
    let mut taken = mounts::Taken::new();
    let cache = mounts::read(object.member("cache"), &mut taken, findings);
    let artifacts = artifacts::read(object.member("artifacts"), context, &mut taken, findings);
    if let Some(place) = object.member("cache") {
        artifacts::refuse_unsaved(&cache, &features, &place, findings);
    }
    let log = artifacts::read_log(object.member("log"), findings);
    let superseder = object.member("supersederUrl");
    if let Some(place) = &superseder {
        superseder::check(place, context.origin, findings);
    }
    let names_superseder = superseder.is_some();
    if let (Some(log), Some(place)) = (&log, object.member("artifacts")) {
        let reserved = reserved_names(log, &features, (names_superseder, cache.keys()));
        artifacts::refuse_reserved(&artifacts, &reserved, &place, findings);
    }
    let on_exit_status = read_on_exit_status(object.member("onExitStatus"), findings);
    Some(Payload {
        image: image?,
        command,
        env,
        max_run_time: max_run_time?,
        cache,
        artifacts,
        log: log?,
        features,
        devices,
        on_exit_status,
        names_superseder,
    })
}

/// Seconds, at least 1. Where the worker has no maximum, a century is as good as for ever.
fn read_max_run_time(place: &Place<'_>, most: Option<u64>, findings: &mut Findings) -> Option<Duration> {
    let seconds = place.integer(findings)?;
    let seconds = u64::try_from(seconds).unwrap_or(0);
    match most {
        _ if seconds == 0 => place.refuse("must be at least 1 (seconds)", findings),
        Some(most) if seconds > most => {
            place.refuse(format!("must be at most {most} (seconds) on this worker"), findings);
        }
        Some(_) | None => return Some(Duration::from_secs(seconds.min(limits::MAX_RUN_TIME_SECONDS))),
    }
    None
}

fn read_on_exit_status(place: Option<Place<'_>>, findings: &mut Findings) -> OnExitStatus {
    let Some(object) = place.and_then(|place| place.object(findings)) else {
        return OnExitStatus::default();
    };
    object.refuse_unknown(&["retry", "purgeCaches"], findings);
    let mut codes = |key| {
        let list = object.member(key).and_then(|place| place.list(findings)).unwrap_or_default();
        list.iter().filter_map(|code| code.integer(findings)).collect()
    };
    OnExitStatus { retry: codes("retry"), purge_caches: codes("purgeCaches") }
}

#[cfg(test)]
mod tests;
