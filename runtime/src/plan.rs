//! What will be done, before anything is: a Spec turned into a list of plain steps.
//!
//! [`plan`] is pure and total. All that it knows of the host is in [`HostFacts`], the same input gives the
//! same text, and everything that is wrong with a Spec comes at once. `docker-worker-runtime plan` prints
//! the lines; the executor is one `match` over them.
//!
//! The order of the child's steps is the order of isolation:
//!
//! ```text
//! control groups → namespaces → private mounts → own procfs → host name, sysctls, loopback
//!   → root attached → mounts → devices → pty → pivot_root: the host's tree is gone
//!   → masks, read-only paths → session, cwd, read-only mounts and root, the right to set rlimits, label
//!   → bounding set, groups, user, capabilities → command found → ready → rlimits → seccomp → execve
//! ```

mod devices;
mod exec;
pub mod mount_options;
mod mounts;
mod namespaces;
mod process;
mod step;

use std::fmt;
use std::path::{Path, PathBuf};

pub use devices::{Device, Node};
pub use exec::{ExecPlan, plan_exec};
pub use mounts::{Mount, MountKind, is_served_by_lxcfs};
pub use process::{Executable, Execution, Identity, Size, Terminal, UserName};
pub use step::{ChildStep, Step};

use crate::cgroup::{self, CgroupPlan, Joined};
use crate::hooks::{self, Stage};
use crate::host::HostFacts;
use crate::id::ContainerId;
use crate::limits::MOUNTS;
use crate::seccomp::{self, Filter};
use crate::spec::{Finding, Findings, Namespace, Spec, join, on_one_line};
use mount_options::{Depth, Propagation};
use namespaces::Choices;

/// All steps of one container.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerPlan {
    /// What the monitor does. [`Step::Fork`] is among them; what stands behind it runs while PID 1 waits
    /// or works.
    pub host: Vec<Step>,
    /// What PID 1 does.
    pub child: Vec<ChildStep>,
    /// What it does last.
    pub last: Execution,
}

impl ContainerPlan {
    /// Makes the container outlive its command: its first process becomes a holder, and its command is the second.
    ///
    /// # Errors
    ///
    /// It has no pid namespace of its own, of which the holder would be the first process.
    pub fn held(mut self) -> Result<ContainerPlan, PlanError> {
        let own_pids =
            |step: &Step| matches!(step, Step::Fork { namespaces } if namespaces.contains(&Namespace::Pid));
        if !self.host.iter().any(own_pids) {
            let message = "--hold takes a pid namespace of the container's own: add one without a path";
            let finding = Finding { pointer: "/linux/namespaces".into(), message: message.into() };
            return Err(PlanError { findings: vec![finding] });
        }
        // Each of the two enters the profile by its own execve(2): what the other one executes before that are hooks, which
        // are the host's.
        let profile = self.child.iter().find_map(|step| match step {
            ChildStep::Label { profile } => Some(profile.clone()),
            _ => None,
        });
        // While the host's tree is there: an executable that is linked dynamically, as those of tests are, must not find its
        // libraries in the image. pivot_root(2) takes the holder along. What comes from here on is the command's only: its
        // score for the OOM killer, who would end with the holder all that there is.
        let proc = self.child.iter().position(|step| *step == ChildStep::OpenProc);
        self.child.insert(proc.map_or(0, |proc| proc + 1), ChildStep::Hold { profile });
        Ok(self)
    }

    /// Whether it is [`ContainerPlan::held`].
    pub fn is_held(&self) -> bool {
        self.child.iter().any(|step| matches!(step, ChildStep::Hold { .. }))
    }
}

impl fmt::Display for ContainerPlan {
    /// Each side under its heading, one step a line.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut child = self.child.iter().map(ChildStep::to_string).chain(self.last.lines());
        writeln!(out, "host")?;
        self.host.iter().try_for_each(|step| line(out, &step.to_string()))?;
        writeln!(out, "container")?;
        child.try_for_each(|step| line(out, &step))
    }
}

/// One step: a path in it may hold a line break.
fn line(out: &mut fmt::Formatter<'_>, step: &str) -> fmt::Result {
    writeln!(out, "  {}", on_one_line(step.chars()))
}

/// A Spec that cannot be turned into steps, with everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("plan the container: {}", join(findings))]
pub struct PlanError {
    /// At least one.
    pub findings: Vec<Finding>,
}

/// Turns `spec` into steps.
///
/// # Errors
///
/// Every finding at once.
pub fn plan(id: &ContainerId, spec: &Spec, facts: &HostFacts) -> Result<ContainerPlan, PlanError> {
    plan_joined(id, spec, facts, Joined::Needed)
}

/// [`plan`] of a container that is in these control group hierarchies.
///
/// # Errors
///
/// Every finding at once.
pub fn plan_joined(
    id: &ContainerId,
    spec: &Spec,
    facts: &HostFacts,
    joined: Joined,
) -> Result<ContainerPlan, PlanError> {
    let mut findings = Findings::default();
    if !spec.version.starts_with("1.") {
        findings.add("/ociVersion", format!("{:?} is not a version 1 of the specification", spec.version));
    }
    let choices = namespaces::choose(spec, &mut findings);
    let mounts = mounts::mounts(spec, &mut findings);
    let filter = filter(spec, &mut findings);
    let cgroups = cgroups((id, spec), facts, joined, &mut findings);
    let root_path = process::root_path(spec, &mut findings);

    let mut child = opening_steps(spec, &choices);
    child.extend(mounts.iter().cloned().map(ChildStep::Mount));
    // If something of the host lies at /dev, it is not ours to fill.
    let is_bound_dev =
        |mount: &Mount| mount.target == Path::new("/dev") && matches!(mount.kind, MountKind::Bind { .. });
    if !mounts.iter().any(is_bound_dev) {
        child.extend(devices::steps(spec, &mut findings));
    }
    let process = process::check(spec, &mut findings);
    child.extend(process.and_then(process::terminal).map(ChildStep::OpenTerminal));
    child.extend(closing_steps(spec, &mut findings));
    hooks::check(spec, |pointer, message| findings.add(pointer, message));
    let mut host = host_steps(&choices, &mounts, root_path, spec);
    if mounts.iter().any(|mount| mount.kind == MountKind::Cgroup) {
        host.insert(0, Step::CloneCgroups { mounts: cgroups.mounts() });
    }
    host.splice(0..0, cgroup_steps(cgroups));
    match (process, findings.into_list()) {
        (Some(process), findings) if findings.is_empty() => {
            let administers = process::administers(process, filter.as_ref());
            child.extend(process::steps(process, administers, read_only_last(spec, &mounts)));
            Ok(ContainerPlan { host, child, last: process::execution(spec, process, administers, filter) })
        }
        (_, findings) => Err(PlanError { findings }),
    }
}

/// The groups of the Spec's `cgroupsPath`; without one, a group named for the container, beside the
/// caller's own on v2 and below it on v1.
fn cgroups(
    (id, spec): (&ContainerId, &Spec),
    facts: &HostFacts,
    joined: Joined,
    findings: &mut Findings,
) -> CgroupPlan {
    let none = CgroupPlan { groups: Vec::new(), device_program: None };
    let Some(hierarchies) = &facts.hierarchies else {
        findings
            .add("/linux/resources", "this host has no cgroup file system: mount cgroup2 on /sys/fs/cgroup");
        return none;
    };
    let path = spec.linux.cgroups_path.clone().unwrap_or_else(|| PathBuf::from(id.as_str()));
    match cgroup::plan(hierarchies, &path, &spec.linux.resources, joined) {
        Ok(plan) => plan,
        Err(errors) => {
            for error in errors {
                let pointer = match error {
                    cgroup::CgroupPlanError::Path { .. } => "/linux/cgroupsPath",
                    _ => "/linux/resources",
                };
                findings.add(pointer, error.to_string());
            }
            none
        }
    }
}

fn cgroup_steps(plan: CgroupPlan) -> Vec<Step> {
    let mut steps = Vec::new();
    for (group, mut planned) in plan.groups.into_iter().enumerate() {
        let settings = std::mem::take(&mut planned.settings);
        steps.push(Step::CreateCgroup { group: planned });
        steps.extend(settings.into_iter().map(|setting| Step::SetCgroup { group, setting }));
    }
    steps.extend(plan.device_program.map(|policy| Step::AttachDeviceRules { policy }));
    steps
}

/// What the monitor does, with the undo of each step in [`Step::undo`].
fn host_steps(choices: &Choices, mounts: &[Mount], root: PathBuf, spec: &Spec) -> Vec<Step> {
    let mut steps = Vec::new();
    steps.extend(choices.joined().map(|(kind, path)| {
        let changed = namespaces::is_changed(spec, kind);
        Step::OpenNamespace { kind, path: path.clone(), changed }
    }));
    let propagation = spec.linux.rootfs_propagation.as_deref().and_then(Propagation::parse);
    steps.push(Step::CloneRoot { path: root, propagation });
    let in_user_namespace = choices.is_new(Namespace::User);
    let is_shared = matches!(propagation, Some((Propagation::Shared, _))) && !in_user_namespace;
    steps.extend(mounts.iter().filter_map(|mount| bind_step(mount, in_user_namespace, is_shared)));
    steps.push(Step::Fork { namespaces: choices.for_fork() });
    if choices.is_new(Namespace::User) {
        let (users, groups) = (spec.linux.uid_mappings.clone(), spec.linux.gid_mappings.clone());
        steps.push(Step::MapUsers { users, groups });
    }
    if hooks::has(spec, Stage::CreateRuntime) {
        steps.push(Step::RuntimeHooks);
    }
    steps
}

/// A bind whose source only the monitor can copy: a process in a user namespace of its own may not get there,
/// and mount events come from the host's namespace. Others are copied by PID 1 when their turn comes, so that
/// they show what was mounted before.
///
/// A shared one sends its events to the host only if the whole root is shared too, as in runc; and never from
/// a user namespace.
fn bind_step(mount: &Mount, in_user_namespace: bool, is_shared: bool) -> Option<Step> {
    let MountKind::Bind { source, depth } = &mount.kind else { return None };
    let events = match mount.propagation {
        Some((Propagation::Shared, _)) if is_shared => Propagation::Shared,
        Some((Propagation::Shared | Propagation::Slave, _)) => Propagation::Slave,
        Some((Propagation::Private | Propagation::Unbindable, _)) | None => Propagation::Private,
    };
    let by_monitor = in_user_namespace || events != Propagation::Private;
    by_monitor.then(|| Step::CloneBind { mount: mount.index, source: source.clone(), depth: *depth, events })
}

/// What becomes read-only when everything in it is made.
fn read_only_last(spec: &Spec, mounts: &[Mount]) -> Vec<PathBuf> {
    let last = mounts.iter().filter(|mount| mount.read_only_last).map(|mount| mount.target.clone());
    let root = spec.root.as_ref().filter(|root| root.readonly).map(|_| PathBuf::from("/"));
    last.chain(root).collect()
}

/// From the new process to its attached root.
fn opening_steps(spec: &Spec, choices: &Choices) -> Vec<ChildStep> {
    let mut steps = vec![ChildStep::JoinCgroups];
    steps.extend(
        choices
            .joined()
            .filter(|(kind, _)| *kind != Namespace::Pid)
            .map(|(kind, _)| ChildStep::JoinNamespace { kind }),
    );
    if choices.is_new(Namespace::User) {
        steps.push(ChildStep::BecomeRoot);
    }
    if choices.is_new(Namespace::Cgroup) {
        // After the groups were joined: where the process is becomes the root of its view.
        steps.push(ChildStep::UnshareCgroups);
    }
    steps.extend([ChildStep::NewKeyring, ChildStep::PrivateMounts, ChildStep::OpenProc]);
    let adjust = spec.process.as_ref().and_then(|process| process.oom_score_adj);
    steps.extend(adjust.map(|adjust| ChildStep::OomScore { adjust }));
    if choices.is_new(Namespace::Network) {
        steps.push(ChildStep::LoopbackUp);
    }
    steps.extend(spec.hostname.clone().map(|name| ChildStep::Hostname { name }));
    steps.extend(spec.domainname.clone().map(|name| ChildStep::Domainname { name }));
    let sysctls = spec.linux.sysctl.clone().into_iter();
    steps.extend(sysctls.map(|(name, value)| ChildStep::Sysctl { name, value }));
    steps.push(ChildStep::AttachRoot);
    steps
}

/// From the last hook that sees the host's tree to a root that is finished.
fn closing_steps(spec: &Spec, findings: &mut Findings) -> Vec<ChildStep> {
    let mut steps = Vec::new();
    if hooks::has(spec, Stage::CreateRuntime) {
        steps.push(ChildStep::RuntimeHooks);
    }
    if hooks::has(spec, Stage::CreateContainer) {
        steps.push(ChildStep::ContainerHooks);
    }
    steps.push(ChildStep::PivotRoot);
    let (read_only, masked) = (&spec.linux.readonly_paths, &spec.linux.masked_paths);
    for (pointer, listed) in [("/linux/readonlyPaths", read_only), ("/linux/maskedPaths", masked)] {
        if listed.len() > MOUNTS {
            findings.add(pointer, format!("{} paths: at most {MOUNTS} are taken", listed.len()));
            return Vec::new();
        }
        for (index, path) in listed.iter().enumerate() {
            if !path.is_absolute() {
                findings.add(format!("{pointer}/{index}"), format!("{path:?} is not absolute"));
            } else if mounts::normal(path) == Path::new("/") {
                let message = "nothing can cover the root, where processes are already: set root.readonly";
                findings.add(format!("{pointer}/{index}"), message);
            }
        }
    }
    steps.extend(read_only.iter().cloned().map(|path| ChildStep::ReadOnlyPath { path }));
    steps.extend(masked.iter().cloned().map(|path| ChildStep::Mask { path }));
    if let Some(text) = &spec.linux.rootfs_propagation {
        match Propagation::parse(text) {
            // It forbids copies, of which masks are made: so it comes behind them.
            Some((propagation @ Propagation::Unbindable, depth)) => {
                steps.push(ChildStep::RootPropagation { propagation, depth });
            }
            // pivot_root(2) wants a root that is not. Each mount in it has its own propagation.
            Some((propagation @ Propagation::Shared, _)) => {
                steps.push(ChildStep::RootPropagation { propagation, depth: Depth::One });
            }
            Some((Propagation::Private | Propagation::Slave, _)) => {} // It came so: `Step::CloneRoot`.
            None => {
                findings.add("/linux/rootfsPropagation", format!("{text:?} is not a kind of propagation"));
            }
        }
    }
    steps.extend(spec.linux.personality.as_ref().map(|wanted| ChildStep::Personality(wanted.domain)));
    steps
}

fn filter(spec: &Spec, findings: &mut Findings) -> Option<Filter> {
    match seccomp::compile(spec.linux.seccomp.as_ref()?) {
        Ok(filter) => Some(filter),
        Err(errors) => {
            errors.iter().for_each(|error| findings.add("/linux/seccomp", error.to_string()));
            None
        }
    }
}
