//! What this host offers to tasks, and what it lacks: looked at once, explained in sentences.

mod apparmor;
mod controllers;
mod facts;
mod space;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use runtime::scheduling::{ProcessorSet, Scheduling};
use serde::Serialize;

pub use apparmor::{profile_item, without_profile};
pub use controllers::Controllers;
pub use facts::{Facts, find_runtime, free_bytes};
pub use space::{MeasureError, Space, measure};

use crate::net::NetworkSettings;
use crate::net::survey;
use crate::processors::Processors;
use crate::spec::SocketCall;
use crate::spec::process::{self, RlimitCeilings};
use crate::spec::resources::memory_for_tasks;

/// How well something is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Works,
    /// Tasks run, with less than they could have.
    Degraded,
    /// No task can run.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// What it is.
    pub name: &'static str,
    /// How well it is there.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What to do about it; absent when it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<Cow<'static, str>>,
}

/// This host cannot run tasks: what is missing, and the remedy.
#[derive(Debug, thiserror::Error)]
#[error("this host cannot run tasks: {found}; {remedy}")]
pub struct Unfit {
    found: String,
    remedy: Cow<'static, str>,
}

/// Everything that `docker-worker check` shows.
pub fn items(facts: &Facts) -> Vec<Item> {
    vec![
        privileges(facts),
        kernel(facts),
        file_system("erofs", facts.has_erofs, "load the kernel module: modprobe erofs"),
        file_system("overlay", facts.has_overlay, "load the kernel module: modprobe overlay"),
        namespaces(facts),
        control_groups(&facts.controllers),
        seccomp(facts),
        apparmor::apparmor(facts),
        resource_capability(facts),
        runtime(facts),
        file_size(facts),
        disk_space(facts),
        data_file_system(facts),
        firewall(facts),
    ]
}

/// What stands in the way of the tasks' network, which `docker-worker check` shows as well.
pub fn network_items(settings: &NetworkSettings) -> Vec<Item> {
    let obstacle = |found: String, remedy: Cow<'static, str>| Item {
        name: "network",
        status: Status::Degraded,
        found,
        remedy: Some(remedy),
    };
    match survey::obstacles(settings) {
        Ok(found) => found.into_iter().map(|it| obstacle(it.found, it.remedy.into())).collect(),
        Err(error) => vec![obstacle(
            format!("the kernel does not say what its packet filter holds: {error}"),
            "run docker-worker as root, on a kernel with nf_tables".into(),
        )],
    }
}

/// Whether tasks can run here.
///
/// # Errors
///
/// [`Unfit`] with the first thing that is missing.
pub fn require(facts: &Facts) -> Result<(), Unfit> {
    let missing = items(facts).into_iter().find(|item| item.status == Status::Missing);
    match missing {
        Some(Item { found, remedy, .. }) => {
            Err(Unfit { found, remedy: remedy.unwrap_or("see docker-worker check".into()) })
        }
        None => Ok(()),
    }
}

/// Whether tasks can have a network here.
///
/// # Errors
///
/// [`Unfit`] with what is missing.
pub fn require_network(facts: &Facts) -> Result<(), Unfit> {
    if facts.has_nft {
        return Ok(());
    }
    Err(Unfit {
        found: "nft is not there".to_owned(),
        remedy: "install the package nftables, or run the task with --network none".into(),
    })
}

/// One processor for each task: those that this process may run on.
///
/// # Errors
///
/// [`Unfit`]: no group can be bound to a processor here.
pub fn processor_for_each(facts: &Facts) -> Result<Arc<Processors>, Unfit> {
    let processors = ProcessorSet::own().ok().filter(|_| facts.controllers.cpuset);
    processors.map(|own| Processors::of(&own)).ok_or_else(|| Unfit {
        found: "restrictCPU is set, and no control group can be bound to a processor".to_owned(),
        remedy: "mount the controller cpuset, or leave restrictCPU out".into(),
    })
}

/// What this host is, as far as runs depend on it.
#[derive(Clone, Debug)]
pub struct Host {
    /// The executable `docker-worker-runtime`.
    pub runtime: PathBuf,
    /// The program `apparmor_parser`, where profiles can be used.
    pub parser: Option<PathBuf>,
    /// The host's own name.
    pub name: String,
    /// Which rlimits the worker may set.
    pub ceilings: RlimitCeilings,
    /// The container limits of this worker's policy, as far as this host can enforce them.
    pub limits: crate::spec::Limits,
    /// Memory that all tasks on this host may use together, in bytes; `None` without a memory controller.
    pub memory_for_all: Option<u64>,
    /// Lines for each task's log about what this host lacks.
    pub notices: Vec<String>,
    /// Processors, for paths that exist once for each.
    pub processors: usize,
    /// One processor for each task, if it is to have no more.
    pub processor_for_each: Option<Arc<Processors>>,
    /// What containers get where the worker restricts itself.
    pub scheduling: Option<Scheduling>,
}

/// A line for the log of a task whose 32-bit programs cannot make sockets.
pub const NO_SOCKETCALL: &str = "isolation: 32-bit programs cannot make sockets here";

/// What runs have to know of this host.
pub fn part(facts: &Facts, limits: crate::spec::Limits, socketcall: SocketCall) -> Host {
    let mut notices = Vec::new();
    notices.extend(apparmor::notice(facts));
    // A profile stands in for the filter there.
    if socketcall == SocketCall::Absent && facts.apparmor.is_err() {
        notices.push(NO_SOCKETCALL.to_owned());
    }
    notices.extend(clamped_limits(&facts.ceilings));
    let limits = enforceable(limits, facts, &mut notices);
    Host {
        runtime: facts.runtime.clone().unwrap_or_else(|| PathBuf::from(facts::RUNTIME)),
        parser: facts.apparmor.clone().ok(),
        name: facts.name.clone(),
        ceilings: facts.ceilings.clone(),
        limits,
        memory_for_all: facts.controllers.memory.then(|| memory_for_tasks(facts.memory_bytes)),
        notices,
        processors: facts.processors,
        processor_for_each: None,
        scheduling: None,
    }
}

/// One line of a task's log for all limits that are lower than they should be.
fn clamped_limits(ceilings: &RlimitCeilings) -> Option<String> {
    let limits: Vec<String> = process::clamped(ceilings)
        .iter()
        .map(|limit| format!("{} {} instead of {}", limit.name, shown(limit.given), shown(limit.wanted)))
        .collect();
    (!limits.is_empty()).then(|| {
        format!(
            "limits: {}, as this host does not let the worker set more (CAP_SYS_RESOURCE)",
            limits.join(" and ")
        )
    })
}

fn shown(limit: u64) -> String {
    if limit == u64::MAX { "unlimited".to_owned() } else { limit.to_string() }
}

/// The limits of the worker's policy that this host can enforce.
fn enforceable(
    mut limits: crate::spec::Limits,
    facts: &Facts,
    notices: &mut Vec<String>,
) -> crate::spec::Limits {
    if facts.controllers.memory {
        let all = i64::try_from(memory_for_tasks(facts.memory_bytes)).unwrap_or(i64::MAX);
        limits.memory_bytes = Some(limits.memory_bytes.unwrap_or(all).min(all));
    } else {
        limits.memory_bytes = None;
        notices.push("limit memory: none, as this host has no memory controller".to_owned());
    }
    if !facts.controllers.pids {
        limits.pids = None;
        notices.push("limit pids: none, as this host has no pids controller".to_owned());
    }
    limits
}

fn item(name: &'static str, status: Status, found: impl Into<String>, remedy: &'static str) -> Item {
    let remedy = (status != Status::Works).then_some(remedy.into());
    Item { name, status, found: found.into(), remedy }
}

/// Works, or else tasks cannot run.
fn vital(works: bool) -> Status {
    if works { Status::Works } else { Status::Missing }
}

/// Works, or else tasks get by.
fn useful(works: bool) -> Status {
    if works { Status::Works } else { Status::Degraded }
}

fn privileges(facts: &Facts) -> Item {
    let found = match (facts.is_root, facts.has_sys_admin) {
        (true, true) => "running as root",
        (true, false) => "running as root without CAP_SYS_ADMIN",
        (false, _) => "not running as root",
    };
    item(
        "privileges",
        vital(facts.is_root && facts.has_sys_admin),
        found,
        "run docker-worker as root, in a container with CAP_SYS_ADMIN",
    )
}

fn kernel(facts: &Facts) -> Item {
    // EROFS device tables came with 5.16.
    let (major, minor) = facts.kernel_version;
    item(
        "kernel",
        vital((major, minor) >= (5, 16)),
        format!("Linux {}", facts.kernel_release),
        "boot Linux 5.16 or newer: image layers are mounted as extra devices of EROFS",
    )
}

fn file_system(name: &'static str, there: bool, remedy: &'static str) -> Item {
    let found = if there { "the kernel has" } else { "the kernel lacks" };
    item(name, vital(there), format!("{found} the file system {name}"), remedy)
}

fn namespaces(facts: &Facts) -> Item {
    let found = match facts.missing_namespaces.as_slice() {
        [] => "mount, pid, network, ipc, uts and cgroup namespaces".to_owned(),
        missing => format!("the kernel lacks the namespaces {}", missing.join(", ")),
    };
    let works = facts.missing_namespaces.is_empty();
    item("namespaces", vital(works), found, "boot a kernel that is configured with all namespaces")
}

fn control_groups(controllers: &Controllers) -> Item {
    let found = controllers.describe();
    let remedy = "mount the control groups, and enable the controllers memory, pids and cpu (kernel command line: cgroup_enable=memory)";
    let status = match (controllers.is_there(), controllers.memory && controllers.pids) {
        (false, _) => Status::Missing,
        (true, false) => Status::Degraded,
        (true, true) => Status::Works,
    };
    item("control groups", status, found, remedy)
}

fn seccomp(facts: &Facts) -> Item {
    let found = if facts.has_seccomp {
        "the kernel filters system calls"
    } else {
        "the kernel cannot filter system calls (seccomp)"
    };
    item("seccomp", vital(facts.has_seccomp), found, "boot a kernel with CONFIG_SECCOMP_FILTER")
}

fn resource_capability(facts: &Facts) -> Item {
    let found = if facts.has_sys_resource {
        "the worker may raise limits".to_owned()
    } else {
        let names: Vec<_> = process::clamped(&facts.ceilings).iter().map(|it| it.name).collect();
        format!("the worker may not raise limits; tasks get less of: {}", names.join(", "))
    };
    item("CAP_SYS_RESOURCE", useful(facts.has_sys_resource), found, "start the worker with CAP_SYS_RESOURCE")
}

fn runtime(facts: &Facts) -> Item {
    let found = match &facts.runtime {
        Some(path) => path.display().to_string(),
        None => format!("{} is not there", facts::RUNTIME),
    };
    item(
        "runtime",
        vital(facts.runtime.is_some()),
        found,
        "install docker-worker-runtime beside docker-worker, or name it in DOCKER_WORKER_RUNTIME",
    )
}

fn file_size(facts: &Facts) -> Item {
    let limit = facts.ceilings.of(oci_spec::runtime::PosixRlimitType::RlimitFsize);
    let found = match limit {
        u64::MAX => "files may be as large as the disk".to_owned(),
        bytes => format!("files may have {bytes} bytes at most, and layers and logs with more fail"),
    };
    item(
        "file size",
        useful(limit == u64::MAX),
        found,
        "start the worker without that limit: ulimit -f unlimited",
    )
}

fn disk_space(facts: &Facts) -> Item {
    let (path, free) = (facts.data.display(), facts.free_bytes);
    let (status, found) = match free {
        None => (Status::Missing, format!("{path} is on no file system that can be looked at")),
        Some(free) => (
            vital(free >= facts.wanted_free_bytes),
            format!(
                "{} MB are free for {path}, {} MB are wanted",
                free / 1_000_000,
                facts.wanted_free_bytes / 1_000_000
            ),
        ),
    };
    let remedy = if facts.disk_is_too_small() {
        "set capacityManagement.diskspaceThreshold, which is more than the whole disk has, or choose another place with --data"
    } else {
        "free space, choose another place with --data, or set capacityManagement.diskspaceThreshold"
    };
    item("disk space", status, found, remedy)
}

fn data_file_system(facts: &Facts) -> Item {
    let name = &facts.data_file_system;
    let path = facts.data.display();
    let remedy = "choose a directory on ext4, xfs or btrfs with --data";
    match name.as_str() {
        "overlay" => {
            let found = format!("{path} is on an overlay, which cannot hold the upper directory of another");
            item("data directory", Status::Missing, found, remedy)
        }
        "tmpfs" => {
            let found =
                format!("{path} is on a tmpfs: images take memory and are mounted through loop devices");
            item("data directory", Status::Degraded, found, remedy)
        }
        other => item("data directory", Status::Works, format!("{path} is on {other}"), remedy),
    }
}

fn firewall(facts: &Facts) -> Item {
    let found = match (facts.has_nft, facts.forwards) {
        (true, true) => "nft is there, and the kernel forwards packets",
        (true, false) => "nft is there; the kernel is told to forward packets while tasks run",
        (false, _) => "nft is not there: tasks run with --network none only",
    };
    item("network", useful(facts.has_nft), found, "install the package nftables")
}

/// Rlimits that the worker may not raise: its own hard limits, if it lacks CAP_SYS_RESOURCE.
fn ceilings(has_sys_resource: bool) -> RlimitCeilings {
    use oci_spec::runtime::PosixRlimitType as Kind;
    use rustix::process::{Resource, getrlimit};
    if has_sys_resource {
        return RlimitCeilings::default();
    }
    let resources = [
        (Kind::RlimitNofile, Resource::Nofile),
        (Kind::RlimitCore, Resource::Core),
        (Kind::RlimitNproc, Resource::Nproc),
        (Kind::RlimitMemlock, Resource::Memlock),
        (Kind::RlimitStack, Resource::Stack),
        (Kind::RlimitAs, Resource::As),
        (Kind::RlimitCpu, Resource::Cpu),
        (Kind::RlimitData, Resource::Data),
        (Kind::RlimitFsize, Resource::Fsize),
    ];
    let hard = resources
        .into_iter()
        .filter_map(|(kind, resource)| Some((kind, getrlimit(resource).maximum?)))
        .collect();
    RlimitCeilings { hard }
}

/// The nearest directory that exists, itself or above.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::PosixRlimitType;

    use super::*;

    #[test]
    fn limits_of_the_host_are_one_line() {
        for (hard, expected) in [
            (vec![], None),
            (
                vec![(PosixRlimitType::RlimitNofile, 4096), (PosixRlimitType::RlimitNproc, 100)],
                Some(
                    "limits: NOFILE 4096 instead of 1048576 and NPROC 100 instead of unlimited, as this host \
                     does not let the worker set more (CAP_SYS_RESOURCE)",
                ),
            ),
        ] {
            assert_eq!(clamped_limits(&RlimitCeilings { hard }).as_deref(), expected);
        }
    }
}
