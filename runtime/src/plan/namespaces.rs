//! `linux.namespaces` → which namespaces the fork makes, and which PID 1 joins.

use std::path::PathBuf;

use super::Findings;
use crate::limits::NAME_BYTES;
use crate::spec::{IdMapping, Namespace, Spec, segment};

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
pub(super) struct Choices(Vec<(Namespace, Choice)>);

impl Choices {
    pub fn of(&self, kind: Namespace) -> &Choice {
        self.0.iter().find(|(listed, _)| *listed == kind).map_or(&Choice::Inherited, |(_, choice)| choice)
    }

    pub fn is_new(&self, kind: Namespace) -> bool {
        *self.of(kind) == Choice::New
    }

    pub fn is_own(&self, kind: Namespace) -> bool {
        *self.of(kind) != Choice::Inherited
    }

    /// What clone3(2) makes. The cgroup namespace is left to [`super::ChildStep::UnshareCgroups`]: it is
    /// rooted in the groups of its maker, and those of v1 are entered after the fork.
    pub fn for_fork(&self) -> Vec<Namespace> {
        let new = self.0.iter().filter(|(kind, choice)| *choice == Choice::New && *kind != Namespace::Cgroup);
        let mut kinds: Vec<Namespace> = new.map(|(kind, _)| *kind).collect();
        kinds.sort();
        kinds
    }

    pub fn joined(&self) -> impl Iterator<Item = (Namespace, &PathBuf)> {
        self.0.iter().filter_map(|(kind, choice)| match choice {
            Choice::Join(path) => Some((*kind, path)),
            Choice::New | Choice::Inherited => None,
        })
    }
}

/// Reads the Spec's list.
pub(super) fn choose(spec: &Spec, findings: &mut Findings) -> Choices {
    let mut choices = Choices(Vec::new());
    for (index, namespace) in spec.linux.namespaces.iter().enumerate() {
        let pointer = format!("/linux/namespaces/{index}");
        let kind = namespace.kind;
        if choices.is_own(kind) {
            findings.add(pointer, format!("the {kind} namespace is listed twice: keep one"));
            continue;
        }
        let choice = namespace.path.clone().map_or(Choice::New, Choice::Join);
        check(&pointer, kind, &choice, findings);
        choices.0.push((kind, choice));
    }
    if !choices.is_own(Namespace::Mount) {
        findings.add(
            "/linux/namespaces",
            "a container needs a mount namespace of its own: add {\"type\": \"mount\"}",
        );
    }
    check_users(spec, &choices, findings);
    check_names(spec, &choices, findings);
    choices
}

fn check(pointer: &str, kind: Namespace, choice: &Choice, findings: &mut Findings) {
    let Choice::Join(path) = choice else { return };
    if matches!(kind, Namespace::User | Namespace::Mount) {
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
    let (users, groups) = (&spec.linux.uid_mappings, &spec.linux.gid_mappings);
    check_mappings("/linux/uidMappings", users, findings);
    check_mappings("/linux/gidMappings", groups, findings);
    match choices.is_new(Namespace::User) {
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
    let foreign =
        choices.joined().find(|(kind, _)| choices.is_new(Namespace::User) && *kind != Namespace::Pid);
    if let Some((kind, _)) = foreign {
        let message = format!("joining a {kind} namespace from a new user namespace is not there yet");
        findings.add("/linux/namespaces", message);
    }
}

/// Host ids from 2³¹ on are allowed: directories hand them out as subordinate ids. What goes past the last
/// id, the kernel refuses without a word.
fn check_mappings(pointer: &str, mappings: &[IdMapping], findings: &mut Findings) {
    for (index, map) in mappings.iter().enumerate() {
        let goes_past = |first: u32| first.checked_add(map.size).is_none();
        if map.size == 0 || goes_past(map.container_id) || goes_past(map.host_id) {
            let message = "it is empty or goes past 4294967294, the last id: correct its size";
            findings.add(format!("{pointer}/{index}"), message);
        }
    }
}

fn check_names(spec: &Spec, choices: &Choices, findings: &mut Findings) {
    for (pointer, name) in [("/hostname", &spec.hostname), ("/domainname", &spec.domainname)] {
        let Some(name) = name else { continue };
        if !choices.is_own(Namespace::Uts) {
            findings.add(pointer, "this would rename the host: add {\"type\": \"uts\"} to linux.namespaces");
        }
        if name.len() > NAME_BYTES || name.contains(char::is_control) {
            let message =
                format!("it is longer than {NAME_BYTES} bytes or holds a control character: correct it");
            findings.add(pointer, message);
        }
    }
    for name in spec.linux.sysctl.keys() {
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
            findings.add(format!("/linux/sysctl/{}", segment(name)), advice);
        }
    }
}

/// Whether the Spec sets something in the container's namespace of this kind.
pub(super) fn is_changed(spec: &Spec, kind: Namespace) -> bool {
    let is_named = kind == Namespace::Uts && (spec.hostname.is_some() || spec.domainname.is_some());
    is_named || spec.linux.sysctl.keys().any(|name| sysctl_owner(name) == Some(kind))
}

/// Which namespace holds a kernel parameter: sysctl(8) names under `kernel`, `fs/mqueue` and `net`.
fn sysctl_owner(name: &str) -> Option<Namespace> {
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
        Some(Namespace::Ipc)
    } else if dotted.starts_with("net.") {
        Some(Namespace::Network)
    } else if dotted == "kernel.domainname" || dotted == "kernel.hostname" {
        Some(Namespace::Uts)
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
            ("net.ipv4.ip_forward", Some(Namespace::Network)),
            ("net/ipv4/conf/eth0.1/forwarding", Some(Namespace::Network)),
            ("kernel.shmmax", Some(Namespace::Ipc)),
            ("fs.mqueue.msg_max", Some(Namespace::Ipc)),
            ("kernel.hostname", Some(Namespace::Uts)),
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
