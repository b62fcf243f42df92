//! New limits for a container that is there.
//!
//! The groups are those that it was made with: on v1 a limit of a hierarchy that it is not in cannot be set any more, on v2
//! the controller is enabled above the group where it is not yet.
use super::plan::settings;
use super::remove::{RemoveError, open};
use super::tree::{self, CgroupError, OpenGroup};
use super::{CgroupPlanError, Group, Hierarchies, Setting, Version};
use crate::spec::{Cpu, Pids, Resources};
use rustix::fs::{Access, AtFlags, accessat};
use std::path::{Path, PathBuf};

/// Limits were not set, or not all of them.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// What is asked for cannot be. Nothing was changed.
    #[error("set the limits: {}", list(.0))]
    Refused(Vec<CgroupPlanError>),
    /// No group of the container has the file. No limit was changed; on v2 its controller may be on above the group now.
    #[error(
        "set {setting}: the container has no control group with that file; a limit of its kind must be in its Spec from the \
         start, or this kernel does not have it"
    )]
    NotJoined {
        /// What was to be set.
        setting: String,
    },
    /// The kernel refused one. Those that come before it are in force.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// A group cannot be looked at.
    #[error(transparent)]
    Group(#[from] RemoveError),
}

fn list(errors: &[CgroupPlanError]) -> String {
    errors.iter().map(CgroupPlanError::to_string).collect::<Vec<_>>().join("; ")
}

/// Sets those of `resources` that are given, in the groups at these paths with these inodes. Devices stay as they are.
///
/// # Errors
///
/// [`UpdateError`].
pub(crate) fn update<'a>(
    groups: impl Iterator<Item = (&'a Path, u64)>,
    hierarchies: &Hierarchies,
    resources: &Resources,
) -> Result<(), UpdateError> {
    let mut opened = Vec::new();
    for (path, inode) in groups {
        opened.extend(open_existing(path, inode, hierarchies.version())?);
    }
    let mut errors = Vec::new();
    // At a start 0 is no limit; whoever updates others says it of what is to stay.
    let resources = match resources.pids.limit {
        Some(0) => &Resources { pids: Pids { limit: None }, ..resources.clone() },
        _ => resources,
    };
    let wanted = settings(hierarchies.version(), resources, &mut |error| errors.push(error));
    if !errors.is_empty() {
        return Err(UpdateError::Refused(errors));
    }
    if let (Hierarchies::V2(unified), Some(group)) = (hierarchies, opened.first()) {
        let controllers = wanted.iter().filter_map(Setting::controller).map(str::to_owned);
        tree::enable_above(&unified.mount_point, &group.group.directory(), &controllers.collect::<Vec<_>>())?;
    }
    let mut placed = Vec::new();
    for setting in wanted {
        let place = opened.iter().position(|group| has_file(group, &setting));
        let place = place.ok_or_else(|| UpdateError::NotJoined { setting: setting.to_string() })?;
        placed.push((place, setting));
    }
    for (place, setting) in in_order(&opened, placed) {
        if let Some(group) = opened.get_mut(place) {
            group.apply(&complete(group, setting, &resources.cpu)?)?;
        }
    }
    Ok(())
}

fn open_existing(path: &Path, inode: u64, version: Version) -> Result<Option<OpenGroup>, RemoveError> {
    let Some(directory) = open(path, Some(inode))? else { return Ok(None) };
    let (mount_point, path) = (path.to_owned(), PathBuf::new());
    let group = Group { version, controllers: vec![], mount_point, path, settings: vec![] };
    Ok(Some(OpenGroup::existing(group, directory)))
}

fn has_file(group: &OpenGroup, setting: &Setting) -> bool {
    let found = accessat(group.directory(), setting.file.as_str(), Access::EXISTS, AtFlags::empty());
    found.is_ok() || setting.otherwise.as_ref().is_some_and(|otherwise| has_file(group, otherwise))
}

const V1_MEMORY: &str = "memory.limit_in_bytes";
const V1_BOTH: &str = "memory.memsw.limit_in_bytes";

/// v1 wants memory and swap together to be at least memory at any time: where both grow, they come in the other order.
fn in_order(groups: &[OpenGroup], mut placed: Vec<(usize, Setting)>) -> Vec<(usize, Setting)> {
    let at = |file| move |(_, setting): &(usize, Setting)| setting.file == file;
    let (Some(memory), Some(both)) =
        (placed.iter().position(at(V1_MEMORY)), placed.iter().position(at(V1_BOTH)))
    else {
        return placed;
    };
    let number = |text: &str| text.trim().parse::<u64>().unwrap_or(u64::MAX); // -1 is no limit.
    let current = placed.get(memory).and_then(|(place, _)| groups.get(*place));
    let current = current.and_then(|group| tree::read(group.directory(), V1_BOTH).ok());
    let wanted = placed.get(memory).map_or(0, |(_, setting)| number(&setting.value));
    if current.is_some_and(|current| wanted > number(&current)) {
        placed.swap(memory, both);
    }
    placed
}

/// v2 has quota and period in one file: what of the two is not given stays.
fn complete(group: &OpenGroup, setting: Setting, cpu: &Cpu) -> Result<Setting, CgroupError> {
    let file = "cpu.max";
    if setting.file != file {
        return Ok(setting);
    }
    let (quota, period) = setting.value.split_once(' ').unwrap_or((&setting.value, ""));
    let is_given = |value: Option<i64>| value.is_some_and(|value| value != 0);
    if cpu.period.is_none_or(|period| period == 0) {
        return Ok(Setting::new(file, quota)); // The kernel leaves the other alone.
    }
    if is_given(cpu.quota) {
        return Ok(setting);
    }
    let current = tree::read(group.directory(), file).map_err(|errno| CgroupError::Call {
        call: "read",
        path: group.group.directory().join(file),
        source: errno.into(),
    })?;
    let quota = current.split_whitespace().next().unwrap_or("max");
    Ok(Setting::new(file, format_args!("{quota} {period}")))
}
