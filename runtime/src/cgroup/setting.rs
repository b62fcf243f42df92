//! One file of a group and what to write into it, and the limits that need no more than that.
use std::collections::BTreeMap;
use std::fmt;

use super::Version;
use crate::spec::{HugePageLimit, NetworkClass, Pids, RdmaLimits};

/// A file of a group and the text to write into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// `memory.max`, `pids.max`, …
    pub file: String,
    /// One write.
    pub value: String,
    /// What to write if the kernel does not have `file`.
    pub otherwise: Option<Box<Setting>>,
}

/// Why a resource of the Spec cannot be set. `at` is a JSON pointer below `/linux/resources`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SettingError {
    /// The interface of this host has no such limit.
    #[error("set {at}: cgroup {} has no such limit; remove it from the Spec", match .version { Version::V1 => "v1", Version::V2 => "v2" })]
    NotInThisVersion {
        /// Where.
        at: &'static str,
        /// What the host uses.
        version: Version,
    },
    /// The kernel would refuse the value, or take it for something else.
    #[error("set {at}: {value} is out of range; {allowed}")]
    Range {
        /// Where.
        at: &'static str,
        /// As given.
        value: i64,
        /// What is allowed.
        allowed: &'static str,
    },
    /// A name that would lead out of the group's directory, or is no cgroup file.
    #[error("set {at}/{name:?}: not a control group file's name, which is like `memory.high`")]
    Name {
        /// Where.
        at: &'static str,
        /// As given.
        name: String,
    },
}

impl Setting {
    /// A file that every kernel with the controller has.
    pub(super) fn new(file: impl Into<String>, value: impl fmt::Display) -> Self {
        Self { file: file.into(), value: value.to_string(), otherwise: None }
    }

    /// The controller that the file belongs to; `None` for a file of the group itself.
    pub fn controller(&self) -> Option<&str> {
        self.file.split('.').next().filter(|&name| name != "cgroup")
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}={:?}", self.file, self.value)
    }
}

/// `pids.max`. Below 0 is no limit, and so is 0, as in runc at a start.
pub(super) fn pids(pids: &Pids) -> Vec<Setting> {
    match pids.limit {
        None => vec![],
        Some(limit) if limit <= 0 => vec![Setting::new("pids.max", "max")],
        Some(limit) => vec![Setting::new("pids.max", limit)],
    }
}

/// One limit for each page size, in bytes; below 0 is no limit.
pub(super) fn huge_pages(version: Version, limits: &[HugePageLimit]) -> Result<Vec<Setting>, SettingError> {
    let at = "/hugepageLimits";
    limits
        .iter()
        .map(|limit| {
            let size = &limit.page_size;
            if !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                return Err(SettingError::Name { at, name: size.clone() });
            }
            let bytes = limit.limit;
            Ok(match version {
                Version::V1 => Setting::new(format!("hugetlb.{size}.limit_in_bytes"), bytes),
                Version::V2 if bytes < 0 => Setting::new(format!("hugetlb.{size}.max"), "max"),
                Version::V2 => Setting::new(format!("hugetlb.{size}.max"), bytes),
            })
        })
        .collect()
}

/// Classes for packet schedulers and filters: v1 only. On v2 they match the group itself.
pub(super) fn network(version: Version, network: &NetworkClass) -> Result<Vec<Setting>, SettingError> {
    let class = network.class_id.map(|class| Setting::new("net_cls.classid", class));
    let priorities = network.priorities.iter();
    let priorities = priorities
        .map(|one| Setting::new("net_prio.ifpriomap", format_args!("{} {}", one.name, one.priority)));
    let settings: Vec<Setting> = class.into_iter().chain(priorities).collect();
    match version {
        Version::V2 if !settings.is_empty() => {
            Err(SettingError::NotInThisVersion { at: "/network", version })
        }
        _ => Ok(settings),
    }
}

/// Handles and objects of one RDMA device each.
pub(super) fn rdma(devices: &BTreeMap<String, RdmaLimits>) -> Vec<Setting> {
    devices
        .iter()
        .map(|(device, limits)| {
            let part =
                |name: &str, limit: Option<u32>| limit.map(|n| format!(" {name}={n}")).unwrap_or_default();
            let handles = part("hca_handle", limits.handles);
            let objects = part("hca_object", limits.objects);
            Setting::new("rdma.max", format_args!("{device}{handles}{objects}"))
        })
        .collect()
}

/// Files of v2 by name. The kernel checks the values.
pub(super) fn unified(
    version: Version,
    files: &BTreeMap<String, String>,
) -> Result<Vec<Setting>, SettingError> {
    let at = "/unified";
    if version == Version::V1 && !files.is_empty() {
        return Err(SettingError::NotInThisVersion { at, version });
    }
    let mut settings = Vec::new();
    for (name, value) in files {
        if !name.contains('.') || name.contains('/') || name.starts_with('.') {
            return Err(SettingError::Name { at, name: name.clone() });
        }
        settings.push(Setting::new(name, value));
    }
    Ok(settings)
}
