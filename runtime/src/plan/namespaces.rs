//! `linux.namespaces` → which namespaces the fork makes, and which PID 1 joins.

use std::fmt;
use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::{Findings, list};

/// A kind of namespace that this runtime handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Users and groups.
    User,
    /// Mounts.
    Mount,
    /// Processes.
    Pid,
    /// Network.
    Network,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host name.
    Uts,
    /// Control group root.
    Cgroup,
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Kind::User => "user",
            Kind::Mount => "mount",
            Kind::Pid => "pid",
            Kind::Network => "network",
            Kind::Ipc => "ipc",
            Kind::Uts => "uts",
            Kind::Cgroup => "cgroup",
        })
    }
}

/// What becomes of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    /// The caller's, because the Spec does not list it.
    Inherited,
    /// A new one.
    New,
    /// The one at this path.
    Join(PathBuf),
}

/// The choice for every kind.
pub(super) struct Choices(Vec<(Kind, Choice)>);

impl Choices {
    pub fn of(&self, kind: Kind) -> &Choice {
        self.0.iter().find(|(listed, _)| *listed == kind).map_or(&Choice::Inherited, |(_, choice)| choice)
    }

    pub fn is_new(&self, kind: Kind) -> bool {
        *self.of(kind) == Choice::New
    }

    pub fn is_own(&self, kind: Kind) -> bool {
        *self.of(kind) != Choice::Inherited
    }

    /// What clone3(2) makes. The cgroup namespace is left to [`super::ChildStep::UnshareCgroups`]: it is
    /// rooted in the groups of its maker, and those of v1 are entered after the fork.
    pub fn for_fork(&self) -> Vec<Kind> {
        let new = self.0.iter().filter(|(kind, choice)| *choice == Choice::New && *kind != Kind::Cgroup);
        let mut kinds: Vec<Kind> = new.map(|(kind, _)| *kind).collect();
        kinds.sort();
        kinds
    }

    pub fn joined(&self) -> impl Iterator<Item = (Kind, &PathBuf)> {
        self.0.iter().filter_map(|(kind, choice)| match choice {
            Choice::Join(path) => Some((*kind, path)),
            Choice::New | Choice::Inherited => None,
        })
    }
}

/// Reads the Spec's list.
pub(super) fn choose(spec: &Spec, findings: &mut Findings) -> Choices {
    let mut choices = Choices(Vec::new());
    let linux = spec.linux().as_ref();
    for (index, namespace) in list(linux.and_then(|linux| linux.namespaces().as_ref())).iter().enumerate() {
        let pointer = format!("/linux/namespaces/{index}");
        let Some(kind) = kind_of(namespace.typ()) else {
            findings.add(pointer, "time namespaces are not there yet: leave it out");
            continue;
        };
        if choices.is_own(kind) {
            findings.add(pointer, format!("the {kind} namespace is listed twice: keep one"));
            continue;
        }
        let path = namespace.path().clone().filter(|path| !path.as_os_str().is_empty());
        let choice = path.map_or(Choice::New, Choice::Join);
        check(&pointer, kind, &choice, findings);
        choices.0.push((kind, choice));
    }
    if !choices.is_own(Kind::Mount) {
        findings.add(
            "/linux/namespaces",
            "a container needs a mount namespace of its own: add {\"type\": \"mount\"}",
        );
    }
    check_users(spec, &choices, findings);
    check_names(spec, &choices, findings);
    choices
}

fn kind_of(typ: LinuxNamespaceType) -> Option<Kind> {
    match typ {
        LinuxNamespaceType::User => Some(Kind::User),
        LinuxNamespaceType::Mount => Some(Kind::Mount),
        LinuxNamespaceType::Pid => Some(Kind::Pid),
        LinuxNamespaceType::Network => Some(Kind::Network),
        LinuxNamespaceType::Ipc => Some(Kind::Ipc),
        LinuxNamespaceType::Uts => Some(Kind::Uts),
        LinuxNamespaceType::Cgroup => Some(Kind::Cgroup),
        LinuxNamespaceType::Time => None,
    }
}

fn check(pointer: &str, kind: Kind, choice: &Choice, findings: &mut Findings) {
    let Choice::Join(path) = choice else { return };
    if matches!(kind, Kind::User | Kind::Mount) {
        findings.add(
            pointer.to_owned(),
            format!("joining a {kind} namespace is not there yet: leave its path out"),
        );
    }
    if !path.is_absolute() {
        findings.add(pointer.to_owned(), format!("path {path:?} is not absolute"));
    }
}

fn check_users(spec: &Spec, choices: &Choices, findings: &mut Findings) {
    let linux = spec.linux().as_ref();
    let users = list(linux.and_then(|linux| linux.uid_mappings().as_ref()));
    let groups = list(linux.and_then(|linux| linux.gid_mappings().as_ref()));
    match choices.is_new(Kind::User) {
        true if users.is_empty() || groups.is_empty() => {
            findings.add("/linux/uidMappings", "a new user namespace needs uidMappings and gidMappings");
        }
        false if !users.is_empty() || !groups.is_empty() => {
            findings
                .add("/linux/uidMappings", "mappings need a new user namespace: add {\"type\": \"user\"}");
        }
        _ => {}
    }
    // A process in a user namespace of its own may not enter what belongs to the host's.
    let foreign = choices.joined().find(|(kind, _)| choices.is_new(Kind::User) && *kind != Kind::Pid);
    if let Some((kind, _)) = foreign {
        let message = format!("joining a {kind} namespace from a new user namespace is not there yet");
        findings.add("/linux/namespaces", message);
    }
}

fn check_names(spec: &Spec, choices: &Choices, findings: &mut Findings) {
    for (pointer, name) in [("/hostname", spec.hostname()), ("/domainname", spec.domainname())] {
        if name.as_deref().is_some_and(|name| !name.is_empty()) && !choices.is_own(Kind::Uts) {
            findings.add(pointer, "this would rename the host: add {\"type\": \"uts\"} to linux.namespaces");
        }
    }
    let sysctls = spec.linux().as_ref().and_then(|linux| linux.sysctl().as_ref());
    for name in sysctls.into_iter().flatten().map(|(name, _)| name) {
        let owner = sysctl_owner(name);
        if !owner.is_some_and(|kind| choices.is_own(kind)) {
            let advice = match owner {
                Some(kind) => {
                    format!("this would change the host: add {{\"type\": \"{kind}\"}} to linux.namespaces")
                }
                None => {
                    "no namespace has this parameter of its own, so it would change the host: leave it out"
                        .into()
                }
            };
            findings.add(format!("/linux/sysctl/{name}"), advice);
        }
    }
}

/// Which namespace holds a kernel parameter: sysctl(8) names under `kernel`, `fs/mqueue` and `net`.
fn sysctl_owner(name: &str) -> Option<Kind> {
    const IPC: [&str; 10] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
        "kernel.msg_next_id",
        "kernel.auto_msgmni",
    ];
    // A `/` may stand for the dot and the other way round (sysctl(8)); a component may not climb out.
    let dotted = name.replace('/', ".");
    if dotted.split('.').any(str::is_empty) {
        return None;
    }
    if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
        Some(Kind::Ipc)
    } else if dotted.starts_with("net.") {
        Some(Kind::Network)
    } else if dotted == "kernel.domainname" || dotted == "kernel.hostname" {
        Some(Kind::Uts)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_parameter_without_a_namespace_of_its_own_has_no_owner() {
        for (name, owner) in [
            ("net.ipv4.ip_forward", Some(Kind::Network)),
            ("net/ipv4/conf/eth0.1/forwarding", Some(Kind::Network)),
            ("kernel.shmmax", Some(Kind::Ipc)),
            ("fs.mqueue.msg_max", Some(Kind::Ipc)),
            ("kernel.hostname", Some(Kind::Uts)),
            ("kernel.core_pattern", None),
            ("vm.overcommit_memory", None),
            ("net.../kernel.core_pattern", None),
            ("netx.y", None),
            ("", None),
        ] {
            assert_eq!(sysctl_owner(name), owner, "{name}");
        }
    }
}
