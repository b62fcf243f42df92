//! `update`: new limits for a container that is there.

use std::path::{Path, PathBuf};

use lexopt::{Arg, ValueExt};
use serde_json::{Map, Value, json};

use super::{Global, Problem};
use crate::execute::sentence;
use crate::groups;
use crate::host::HostFacts;
use crate::id::ContainerId;
use crate::spec::{self, Resources};
use crate::state::{ContainerDirectory, Status};

/// The options for one limit each: where it stands below `linux.resources`, and its kind.
const LIMITS: [(&str, &str, &str, Kind); 15] = [
    ("blkio-weight", "blockIO", "weight", Kind::Number),
    ("cpu-period", "cpu", "period", Kind::Number),
    ("cpu-quota", "cpu", "quota", Kind::Number),
    ("cpu-burst", "cpu", "burst", Kind::Number),
    ("cpu-share", "cpu", "shares", Kind::Number),
    ("cpu-rt-period", "cpu", "realtimePeriod", Kind::Number),
    ("cpu-rt-runtime", "cpu", "realtimeRuntime", Kind::Number),
    ("cpu-idle", "cpu", "idle", Kind::Number),
    ("cpuset-cpus", "cpu", "cpus", Kind::Text),
    ("cpuset-mems", "cpu", "mems", Kind::Text),
    ("memory", "memory", "limit", Kind::Bytes),
    ("memory-reservation", "memory", "reservation", Kind::Bytes),
    ("memory-swap", "memory", "swap", Kind::Bytes),
    ("memory-swappiness", "memory", "swappiness", Kind::Number),
    ("pids-limit", "pids", "limit", Kind::Number),
];

/// How a limit is written.
#[derive(Clone, Copy)]
enum Kind {
    Number,
    Text,
    /// A number, or one with a unit: `512M`.
    Bytes,
}

pub(super) fn update(global: &Global, arguments: lexopt::Parser) -> Result<u8, Problem> {
    let (id, resources) = parse(global, arguments)?;
    let because = |error: &dyn std::error::Error| Problem::because(&format!("update {id}"), error);
    let refused = |why: &str| Problem::Failed(format!("failed to update {id}: {why}"));
    let directory = ContainerDirectory::open(&global.root, &id).map_err(|error| because(&error))?;
    match directory.look().map_err(|error| because(&error))?.status {
        Status::Created | Status::Running | Status::Paused => {}
        Status::Stopped => return Err(refused("container not running")),
        Status::Creating => return Err(refused("it is being created")),
    }
    let journal = directory.journal().map_err(|error| because(&error))?;
    let facts = HostFacts::gather().map_err(|error| because(&error))?;
    let (Some(journal), Some(hierarchies)) = (journal, facts.hierarchies) else {
        return Err(refused("it has just ended, or this host has no cgroup file system"));
    };
    groups::update(&journal, &hierarchies, &resources).map_err(|error| because(&error))?;
    Ok(0)
}

fn parse(global: &Global, mut arguments: lexopt::Parser) -> Result<(ContainerId, Resources), Problem> {
    let (mut id, mut file) = (None, None::<PathBuf>);
    let mut given = Map::new();
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("resources") | Arg::Short('r') => file = Some(arguments.value()?.into()),
            Arg::Value(text) if id.is_none() => id = Some(ContainerId::new(&text.to_string_lossy())?),
            Arg::Long(name) => {
                let known = LIMITS.iter().find(|(option, ..)| *option == name);
                let Some((option, section, property, kind)) = known else {
                    return Err(Arg::Long(name).unexpected().into());
                };
                let text = arguments.value()?.string()?;
                let value = value(&text, *kind)
                    .ok_or_else(|| Problem::Usage(format!("--{option} takes a number, not {text:?}")))?;
                let section = given.entry(*section).or_insert_with(|| json!({}));
                section[property] = value;
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let id = id.ok_or_else(|| Problem::Usage("give the container's id".into()))?;
    let resources = match (file, given.is_empty()) {
        (Some(path), true) => read_file(global, &path)?,
        (None, false) => spec::read(&Value::Object(given)).map_err(|findings| {
            Problem::Usage(findings.first().map(ToString::to_string).unwrap_or_default())
        })?,
        _ => return Err(Problem::Usage("give --resources, or one limit or more".into())),
    };
    Ok((id, resources))
}

fn value(text: &str, kind: Kind) -> Option<Value> {
    match kind {
        Kind::Text => Some(json!(text)),
        Kind::Number => text.parse::<i64>().ok().map(Value::from),
        Kind::Bytes => bytes(text).map(Value::from),
    }
}

/// Whole numbers, and units of 1024 as runc takes them: `-1`, `1048576`, `512k`, `2GiB`.
fn bytes(text: &str) -> Option<i64> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.trim_end_matches('b').trim_end_matches('i');
    let digits = lower.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let shift = match lower.get(digits.len()..)? {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    digits.parse::<i64>().ok()?.checked_mul(1 << shift)
}

/// What `linux.resources` is in a Spec.
fn read_file(global: &Global, path: &Path) -> Result<Resources, Problem> {
    let because = |error: &dyn std::error::Error| {
        Problem::because(&format!("read the limits {}", path.display()), error)
    };
    let text = super::read_text(path).map_err(|error| because(&error))?;
    let loaded = spec::load_resources(&text, path)
        .map_err(|error| Problem::Failed(format!("failed to {}", sentence(&error))))?;
    for unknown in loaded.unknown {
        global.log.remark(&unknown.to_string());
    }
    // Engines pass on what they have written into the Spec.
    if !loaded.value.devices.is_empty() {
        global.log.remark(
            "the device rules stay those that the container was made with: update changes limits only",
        );
    }
    Ok(loaded.value)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_may_have_a_unit() {
        for (text, expected) in [
            ("-1", Some(-1)),
            ("1048576", Some(1 << 20)),
            ("512k", Some(512 << 10)),
            ("64M", Some(64 << 20)),
            ("2GiB", Some(2 << 30)),
            ("1tb", Some(1 << 40)),
            ("9999999999t", None),
            ("1.5G", None),
            ("k", None),
            ("", None),
            ("1x", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }
}
