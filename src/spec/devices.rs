//! Which device nodes a task may open: the runtime makes the nodes that every container has; the
//! control group decides which ones open, also those that the image brings or the task makes.

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

/// The character devices that open: major, minor (`None` = any).
const OPENABLE: &[(i64, Option<i64>)] = &[
    (1, Some(3)), // null
    (1, Some(5)), // zero
    (1, Some(7)), // full
    (1, Some(8)), // random
    (1, Some(9)), // urandom
    (5, Some(0)), // tty
    (5, Some(1)), // console
    (5, Some(2)), // ptmx
    (136, None),  // pts/*
];

/// A character device of the host's that a container has beside those. Only whoever makes the container may choose
/// the numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Where the container sees it, in `/dev`.
    pub path: String,
    /// Which driver.
    pub major: i64,
    /// Which of its devices.
    pub minor: i64,
    /// The node's permissions.
    pub mode: u32,
}

/// The nodes themselves, root's; nothing where there are none.
pub(super) fn nodes(more: &[Device]) -> Option<Vec<LinuxDevice>> {
    let node = |device: &Device| {
        let mut node = LinuxDevice::default();
        node.set_path(device.path.clone().into())
            .set_typ(LinuxDeviceType::C)
            .set_major(device.major)
            .set_minor(device.minor)
            .set_file_mode(Some(device.mode))
            .set_uid(Some(0))
            .set_gid(Some(0));
        node
    };
    (!more.is_empty()).then(|| more.iter().map(node).collect())
}

/// The rules in the order in which they apply: nothing, then making nodes, then the list and what is beside it.
pub(super) fn rules(more: &[Device]) -> Vec<LinuxDeviceCgroup> {
    let mut rules = vec![rule(Verdict::Deny, LinuxDeviceType::A, "rwm")];
    // Archives with device nodes unpack; opening such a node is what is refused.
    rules.push(rule(Verdict::Allow, LinuxDeviceType::C, "m"));
    rules.push(rule(Verdict::Allow, LinuxDeviceType::B, "m"));
    let more = more.iter().map(|device| (device.major, Some(device.minor)));
    for (major, minor) in OPENABLE.iter().copied().chain(more) {
        let mut open = rule(Verdict::Allow, LinuxDeviceType::C, "rwm");
        open.set_major(Some(major)).set_minor(minor);
        rules.push(open);
    }
    rules
}

enum Verdict {
    Allow,
    Deny,
}

fn rule(verdict: Verdict, kind: LinuxDeviceType, access: &str) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(matches!(verdict, Verdict::Allow)).set_typ(Some(kind)).set_access(Some(access.to_owned()));
    rule
}
