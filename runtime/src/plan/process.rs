//! `process` → who PID 1 becomes, and what it executes.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;

use super::{ChildStep, Findings};
use crate::capabilities::CapabilitySets;
use crate::hooks::{self, Stage};
use crate::rlimits;
use crate::seccomp::Filter;
use crate::spec::{Process, Spec};

/// User, groups and umask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// In the container's user namespace.
    pub uid: u32,
    /// In the container's user namespace.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// 0022 unless the Spec says otherwise.
    pub umask: u32,
}

/// A user, and perhaps a group, by name or number, of whom the container's own files tell more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserName {
    /// The user.
    pub user: String,
    /// The group, if it is not to be the user's.
    pub group: Option<String>,
}

/// A command with its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executable {
    /// The command and its arguments; at least one.
    pub arguments: Vec<String>,
    /// `NAME=value`.
    pub environment: Vec<String>,
}

/// What PID 1 does last. The steps before end with a process that may do no more than its command may, but for two
/// things that nothing can be done after: a filter that may forbid everything, and execve(2).
#[derive(Debug, Clone, PartialEq)]
pub struct Execution {
    /// What it becomes.
    pub executable: Executable,
    /// `startContainer` hooks, bound by the same filter, come before it.
    pub has_hooks: bool,
    /// The system call filter.
    pub filter: Option<Filter>,
    /// The capability sets after the filter's installation, if that needed more.
    pub capabilities: Option<CapabilitySets>,
}

impl Executable {
    /// The directories that a command without a slash is looked up in: `PATH` of the container's own
    /// environment, or the usual ones.
    pub fn search_path(&self) -> &str {
        let path = self.environment.iter().rev().find_map(|entry| entry.strip_prefix("PATH="));
        path.unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    }
}

/// A pseudo terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// Its first size, if the Spec gives one.
    pub size: Option<Size>,
}

/// In characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

impl fmt::Display for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "uid={} gid={} groups={:?} umask={:04o}", self.uid, self.gid, self.groups, self.umask)
    }
}

impl fmt::Display for Executable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?} with {} variables", self.arguments, self.environment.len())
    }
}

impl Execution {
    /// Its lines, one for each point at which it can fail.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.find(), Execution::READY.to_owned()];
        lines.extend(self.has_hooks.then(|| format!("hooks {}", Stage::StartContainer)));
        lines.extend(
            self.filter.as_ref().map(|filter| format!("seccomp {} instructions", filter.instructions())),
        );
        lines.extend(self.capabilities.as_ref().map(|sets| format!("capabilities.set {}", sets.effective())));
        lines.push("execute".into());
        lines
    }

    /// The line of the command being found.
    pub fn find(&self) -> String {
        format!("command.find {}", self.executable)
    }

    /// The line of telling the monitor that all is set up, and of waiting for `start`.
    pub const READY: &str = "ready";
}

impl fmt::Display for Terminal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.size {
            Some(size) => write!(out, "{}x{}", size.columns, size.rows),
            None => write!(out, "of the default size"),
        }
    }
}

/// Checks what cannot be turned into a step.
pub(super) fn check<'a>(spec: &'a Spec, findings: &mut Findings) -> Option<&'a Process> {
    let Some(process) = &spec.process else {
        findings.add("/process", "there is no command to run: add it");
        return None;
    };
    check_process(process, findings);
    Some(process)
}

/// The same for the process of `exec`.
pub(super) fn check_process(process: &Process, findings: &mut Findings) {
    if process.args.first().is_none_or(String::is_empty) {
        findings.add("/process/args", "there is no command to run: give its name");
    }
    if !process.cwd.is_absolute() {
        findings.add("/process/cwd", format!("{:?} is not absolute", process.cwd));
    }
    for (index, limit) in process.rlimits.iter().enumerate() {
        let (pointer, name) = (format!("/process/rlimits/{index}"), rlimits::name(limit.resource));
        if process.rlimits.iter().take(index).any(|earlier| earlier.resource == limit.resource) {
            findings.add(pointer, format!("{name} is listed twice: keep one"));
        } else if limit.soft > limit.hard {
            let message = format!(
                "{name} is {} and at most {}: swap them or lower the soft one",
                limit.soft, limit.hard
            );
            findings.add(pointer, message);
        }
    }
    if let Some(adjust) = process.oom_score_adj.filter(|adjust| !(-1000..=1000).contains(adjust)) {
        findings.add("/process/oomScoreAdj", format!("{adjust} is not between -1000 and 1000"));
    }
}

/// The pty, if one is asked for.
pub(super) fn terminal(process: &Process) -> Option<Terminal> {
    let size = process.console_size.as_ref().map(|size| Size { rows: size.height, columns: size.width });
    process.terminal.then_some(Terminal { size })
}

/// The steps from the pivot to the command, in the order in which privileges are dropped: each comes as late as what it
/// forbids allows, and as early as its failure can be told to `create`. `read_only` comes behind the working directory,
/// which may have to be made.
pub(super) fn steps(process: &Process, administers: Administers, read_only: Vec<PathBuf>) -> Vec<ChildStep> {
    let sets = process.capabilities.clone();
    let identity = identity(process);
    let mut steps = vec![
        ChildStep::NewSession,
        // Before the user changes: the directory may be one that only root can create.
        ChildStep::WorkingDirectory { path: process.cwd.clone() },
    ];
    if !read_only.is_empty() {
        steps.push(ChildStep::ReadOnlyLast { targets: read_only });
    }
    steps.extend(process.rlimits.iter().cloned().map(ChildStep::Rlimit));
    if let Some(profile) = process.apparmor_profile.clone() {
        steps.push(ChildStep::Label { profile });
    }
    if needs_home(process) {
        steps.push(ChildStep::FindHome { uid: identity.uid });
    }
    steps.push(ChildStep::DropBounding(sets.clone()));
    steps.push(ChildStep::Become(identity));
    // After the user has changed: the kernel forgets it then (prctl(2), PR_SET_PDEATHSIG).
    steps.push(ChildStep::DieWithMonitor);
    // Before the command is looked for, which may take a capability to be executed.
    steps.push(ChildStep::Capabilities(match administers {
        Administers::Yes => sets.with_administration(),
        Administers::No => sets,
    }));
    if process.no_new_privileges {
        steps.push(ChildStep::NoNewPrivileges);
    }
    steps
}

/// Whether PID 1 needs CAP_SYS_ADMIN to the end: installing a filter does, without no_new_privs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Administers {
    Yes,
    No,
}

pub(super) fn administers(process: &Process, filter: Option<&Filter>) -> Administers {
    match filter {
        Some(_) if !process.no_new_privileges => Administers::Yes,
        _ => Administers::No,
    }
}

/// What comes after the steps.
pub(super) fn execution(
    spec: &Spec,
    process: &Process,
    administers: Administers,
    filter: Option<Filter>,
) -> Execution {
    let sets = process.capabilities.clone();
    Execution {
        executable: Executable { arguments: process.args.clone(), environment: environment(process) },
        has_hooks: hooks::has(spec, Stage::StartContainer),
        filter,
        capabilities: (administers == Administers::Yes && sets != sets.with_administration()).then_some(sets),
    }
}

/// Whether the environment leaves the user's home directory to be looked up.
pub(super) fn needs_home(process: &Process) -> bool {
    !environment(process).iter().any(|entry| entry.starts_with("HOME="))
}

/// Each variable once, as the last entry of its name says. An empty `HOME` is none, as in runc.
pub(super) fn environment(process: &Process) -> Vec<String> {
    let name = |entry: &str| entry.split_once('=').map_or(entry, |(name, _)| name).to_owned();
    let mut seen = HashSet::new();
    let mut kept: Vec<String> =
        process.env.iter().rev().filter(|entry| seen.insert(name(entry))).cloned().collect();
    kept.retain(|entry| entry != "HOME=");
    kept.reverse();
    kept
}

pub(super) fn identity(process: &Process) -> Identity {
    let user = &process.user;
    Identity {
        uid: user.uid.0,
        gid: user.gid.0,
        groups: user.additional_gids.iter().map(|group| group.0).collect(),
        umask: user.umask.unwrap_or(0o022),
    }
}

/// Paths that the monitor must know before there is a child: where `root.path` is.
pub(super) fn root_path(spec: &Spec, findings: &mut Findings) -> PathBuf {
    match &spec.root {
        Some(root) if !root.path.as_os_str().is_empty() => root.path.clone(),
        _ => {
            findings.add("/root/path", "a container needs a root file system: give its directory");
            PathBuf::new()
        }
    }
}
