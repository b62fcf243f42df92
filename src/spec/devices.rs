//! Which device nodes a task may open: the runtime makes the nodes that every container has; the
//! control group decides which ones open, also those that the image brings or the task makes.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

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

/// The rules in the order in which they apply: nothing, then making nodes, then the list.
pub(super) fn rules() -> Vec<LinuxDeviceCgroup> {
    let mut rules = vec![rule(Verdict::Deny, LinuxDeviceType::A, "rwm")];
    // Archives with device nodes unpack; opening such a node is what is refused.
    rules.push(rule(Verdict::Allow, LinuxDeviceType::C, "m"));
    rules.push(rule(Verdict::Allow, LinuxDeviceType::B, "m"));
    for &(major, minor) in OPENABLE {
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
