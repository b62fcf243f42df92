//! The steps of a plan. Each has exactly the fields that it needs, and prints as one line.
//!
//! Two enums, because only [`Step`]s change the host and outlive a crash, and only [`ChildStep`]s run
//! inside the new namespaces.

use std::fmt;
use std::path::PathBuf;

use super::devices::Device;
use super::mount_options::{Depth, Propagation};
use super::mounts::Mount;
use super::process::{Identity, Terminal};
use crate::capabilities::CapabilitySets;
use crate::cgroup::{CgroupMount, DevicePolicy, Group, Setting};
use crate::hooks::Stage;
use crate::rlimits;
use crate::spec::{Domain, IdMapping, Namespace, PosixLimit};

/// What the monitor does, in the host's namespaces. Steps are undone in reverse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Makes one of the container's control groups.
    CreateCgroup {
        /// Which. Its settings are steps of their own.
        group: Group,
    },
    /// Writes one setting of a control group.
    SetCgroup {
        /// The group's place among those that were made.
        group: usize,
        /// File and value.
        setting: Setting,
    },
    /// v2: attaches the program that decides on devices.
    AttachDeviceRules {
        /// What it is made from.
        policy: DevicePolicy,
    },
    /// Takes hold of a namespace that the container joins.
    OpenNamespace {
        /// Its kind.
        kind: Namespace,
        /// Its path.
        path: PathBuf,
        /// Later steps change what is in it, so it must not be the host's.
        changed: bool,
    },
    /// Makes the container's own copy of its root's mounts.
    CloneRoot {
        /// `root.path` of the Spec, relative to the bundle; `--root-fd` goes before it.
        path: PathBuf,
        /// Where its mount events go; nowhere if there is none.
        propagation: Option<(Propagation, Depth)>,
    },
    /// Makes the container's own copy of what a bind shows.
    CloneBind {
        /// Index of the mount in the Spec.
        mount: usize,
        /// The path on the host.
        source: PathBuf,
        /// With or without the mounts below.
        depth: Depth,
        /// Which mount events the copy takes part in: private, slave, or all of them.
        events: Propagation,
    },
    /// Makes copies of the control group directories for the container's view of them.
    CloneCgroups {
        /// What each of the groups made is called there, in their order.
        mounts: Vec<CgroupMount>,
    },
    /// Starts PID 1.
    Fork {
        /// New namespaces of the process.
        namespaces: Vec<Namespace>,
    },
    /// Writes the user namespace's maps.
    MapUsers {
        /// `linux.uidMappings`.
        users: Vec<IdMapping>,
        /// `linux.gidMappings`.
        groups: Vec<IdMapping>,
    },
    /// Runs the `createRuntime` hooks, when PID 1 says that it has come to them.
    RuntimeHooks,
}

/// What PID 1 does before it becomes the container's command. All of it goes with its namespaces.
#[derive(Debug, Clone, PartialEq)]
pub enum ChildStep {
    /// Enters the v1 control groups (on v2 the fork did).
    JoinCgroups,
    /// Makes the control groups just entered the root of what the container sees.
    UnshareCgroups,
    /// Enters a namespace that the monitor holds.
    JoinNamespace {
        /// Its kind.
        kind: Namespace,
    },
    /// Becomes uid 0 and gid 0 of the new user namespace.
    BecomeRoot,
    /// A session keyring without the caller's keys.
    NewKeyring,
    /// Cuts this mount namespace off from the host's mount events.
    PrivateMounts,
    /// Makes a procfs that only this process can reach.
    OpenProc,
    /// Sets the OOM killer's preference.
    OomScore {
        /// -1000..=1000.
        adjust: i32,
    },
    /// Writes a kernel parameter of the new namespaces.
    Sysctl {
        /// `net.ipv4.ip_forward`.
        name: String,
        /// Its value.
        value: String,
    },
    /// Sets the loopback interface up.
    LoopbackUp,
    /// Sets the host name.
    Hostname {
        /// The name.
        name: String,
    },
    /// Sets the NIS domain name.
    Domainname {
        /// The name.
        name: String,
    },
    /// Attaches the root where pivot_root(2) will find it.
    AttachRoot,
    /// Makes one mount of the Spec.
    Mount(Mount),
    /// Makes a device node in `/dev`.
    Device(Device),
    /// Makes a link in `/dev`.
    DeviceLink {
        /// Name in `/dev`.
        name: String,
        /// What it points to.
        target: String,
    },
    /// Opens a pty in the container's devpts; its other end goes to the monitor.
    OpenTerminal(Terminal),
    /// Waits until the monitor has run the `createRuntime` hooks.
    RuntimeHooks,
    /// Runs the `createContainer` hooks.
    ContainerHooks,
    /// Makes the container's root the root, and the host's tree unreachable.
    PivotRoot,
    /// Hides a file or directory.
    Mask {
        /// Its path in the container.
        path: PathBuf,
    },
    /// Makes a path read-only.
    ReadOnlyPath {
        /// Its path in the container.
        path: PathBuf,
    },
    /// Makes mounts read-only in which something was to be made before.
    ReadOnlyLast {
        /// Where they are; `/` is the root.
        targets: Vec<PathBuf>,
    },
    /// Sets where the mount events of the finished root go.
    RootPropagation {
        /// How.
        propagation: Propagation,
        /// Of the root only, or of all mounts below as well.
        depth: Depth,
    },
    /// Forks the process that goes on to the command; this one stays behind as the holder.
    Hold {
        /// The AppArmor profile that the holder enters.
        profile: Option<String>,
    },
    /// A session of its own, with the pty as its controlling terminal if there is one.
    NewSession,
    /// Chooses how the kernel takes the command's calls, such as what uname(2) says.
    Personality(Domain),
    /// Changes to the working directory.
    WorkingDirectory {
        /// Its path in the container.
        path: PathBuf,
    },
    /// Sees to it that a resource limit may be set; it is in force from the last moment before execve(2).
    Rlimit(PosixLimit),
    /// Prepares the AppArmor profile for the coming execve(2).
    Label {
        /// The profile's name.
        profile: String,
    },
    /// Shrinks the bounding set.
    DropBounding(CapabilitySets),
    /// Changes umask, groups and user.
    Become(Identity),
    /// Looks up the home directory of the user, for an environment without `HOME`. While the process may still read
    /// every file.
    FindHome {
        /// The user's number.
        uid: u32,
    },
    /// Sets the other four capability sets.
    Capabilities(CapabilitySets),
    /// Set-uid programs give nothing any more.
    NoNewPrivileges,
    /// Asks to be killed when the monitor dies.
    DieWithMonitor,
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::CreateCgroup { group } => write!(out, "cgroup.create {}", group.directory().display()),
            Step::SetCgroup { setting, .. } => write!(out, "cgroup.set {setting}"),
            Step::AttachDeviceRules { .. } => write!(out, "cgroup.devices"),
            Step::OpenNamespace { kind, path, changed } => {
                let to_change = if *changed { " to change it" } else { "" };
                write!(out, "namespace.open {kind} {}{to_change}", path.display())
            }
            Step::CloneRoot { path, propagation } => {
                let events =
                    propagation.map(|(propagation, depth)| format!(" {}", propagation.spelled(depth)));
                write!(out, "root.clone {}{}", path.display(), events.unwrap_or_default())
            }
            Step::CloneBind { source, depth, events, .. } => {
                write!(out, "bind.clone {} {}", source.display(), events.spelled(*depth))
            }
            Step::CloneCgroups { .. } => write!(out, "cgroup.clone"),
            Step::Fork { namespaces } => {
                let names: Vec<_> = namespaces.iter().map(Namespace::to_string).collect();
                write!(out, "fork {}", names.join(","))
            }
            Step::MapUsers { users, groups } => {
                write!(out, "users.map")?;
                mappings(out, "uid", users)?;
                mappings(out, "gid", groups)
            }
            Step::RuntimeHooks => write!(out, "hooks {}", Stage::CreateRuntime),
        }
    }
}

fn mappings(out: &mut fmt::Formatter<'_>, name: &str, list: &[IdMapping]) -> fmt::Result {
    list.iter()
        .try_for_each(|map| write!(out, " {name} {}..+{} = {}", map.container_id, map.size, map.host_id))
}

impl fmt::Display for ChildStep {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChildStep::JoinCgroups => write!(out, "cgroup.join"),
            ChildStep::UnshareCgroups => write!(out, "cgroup.unshare"),
            ChildStep::JoinNamespace { kind } => write!(out, "namespace.join {kind}"),
            ChildStep::BecomeRoot => write!(out, "users.become-root"),
            ChildStep::NewKeyring => write!(out, "keyring.new"),
            ChildStep::PrivateMounts => write!(out, "mounts.private"),
            ChildStep::OpenProc => write!(out, "proc.open"),
            ChildStep::OomScore { adjust } => write!(out, "oom-score {adjust}"),
            ChildStep::Sysctl { name, value } => write!(out, "sysctl {name} = {value:?}"),
            ChildStep::LoopbackUp => write!(out, "loopback.up"),
            ChildStep::Hostname { name } => write!(out, "hostname {name:?}"),
            ChildStep::Domainname { name } => write!(out, "domainname {name:?}"),
            ChildStep::AttachRoot => write!(out, "root.attach"),
            ChildStep::Mount(mount) => write!(out, "mount {mount}"),
            ChildStep::Device(device) => write!(out, "device {device}"),
            ChildStep::DeviceLink { name, target } => write!(out, "device.link {name} -> {target}"),
            ChildStep::OpenTerminal(terminal) => write!(out, "terminal.open {terminal}"),
            ChildStep::RuntimeHooks => write!(out, "hooks {}", Stage::CreateRuntime),
            ChildStep::ContainerHooks => write!(out, "hooks {}", Stage::CreateContainer),
            ChildStep::PivotRoot => write!(out, "root.pivot"),
            ChildStep::Mask { path } => write!(out, "mask {}", path.display()),
            ChildStep::ReadOnlyPath { path } => write!(out, "read-only {}", path.display()),
            ChildStep::ReadOnlyLast { targets } => {
                write!(out, "read-only")?;
                targets.iter().try_for_each(|target| write!(out, " {}", target.display()))
            }
            ChildStep::RootPropagation { propagation, depth } => {
                write!(out, "root.propagation {}", propagation.spelled(*depth))
            }
            ChildStep::Personality(domain) => write!(out, "personality {domain}"),
            ChildStep::Hold { profile: None } => write!(out, "hold"),
            ChildStep::Hold { profile: Some(profile) } => write!(out, "hold under apparmor {profile}"),
            ChildStep::NewSession => write!(out, "session.new"),
            ChildStep::WorkingDirectory { path } => write!(out, "cwd {}", path.display()),
            ChildStep::Rlimit(limit) => {
                write!(out, "rlimit {} {}:{}", rlimits::name(limit.resource), limit.soft, limit.hard)
            }
            ChildStep::Label { profile } => write!(out, "apparmor {profile}"),
            ChildStep::DropBounding(sets) => write!(out, "capabilities.bounding {}", sets.bounding()),
            ChildStep::Become(identity) => write!(out, "become {identity}"),
            ChildStep::FindHome { uid } => write!(out, "home.find of uid {uid}"),
            ChildStep::Capabilities(sets) => write!(out, "capabilities.set {}", sets.effective()),
            ChildStep::NoNewPrivileges => write!(out, "no-new-privileges"),
            ChildStep::DieWithMonitor => write!(out, "die-with-monitor"),
        }
    }
}
