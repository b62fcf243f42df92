//! The rules as the head of the runtime's `seccomp` says that they are read. That its filters decide so is
//! tested there, that the kernel does in `tests/it/profile.rs`.

use super::*;
use crate::spec::security::CAPABILITIES;

const ALLOW: &str = "allow";
const EPERM: &str = "EPERM";
const ENOSYS: &str = "ENOSYS";

/// A call's name, its first arguments, and the verdict.
type Row = (&'static str, &'static [u64], &'static str);

fn check(capabilities: &[Capability], cases: &[Row]) {
    let profile = profile(&capabilities.iter().copied().collect(), SocketCall::Absent);
    for &(name, arguments, expected) in cases {
        assert_eq!(verdict(&profile, name, arguments), expected, "{name} {arguments:x?}");
    }
}

fn verdict(profile: &LinuxSeccomp, name: &str, arguments: &[u64]) -> &'static str {
    let rules = profile.syscalls().as_deref().unwrap();
    let matches = |rule: &&LinuxSyscall| {
        rule.names().iter().any(|listed| listed == name)
            && rule.args().iter().flatten().all(|condition| {
                // All arguments that the profile looks at are read as 32 bits by the kernel.
                let given = arguments[condition.index()] & 0xffff_ffff;
                match condition.op() {
                    Operator::ScmpCmpLt => given < condition.value(),
                    Operator::ScmpCmpEq => given == condition.value(),
                    Operator::ScmpCmpGt => given > condition.value(),
                    Operator::ScmpCmpMaskedEq => given & condition.value() == condition.value_two().unwrap(),
                    other => panic!("{other:?}"),
                }
            })
    };
    match rules.iter().find(matches).map(|rule| (rule.action(), rule.errno_ret())) {
        Some((Action::ScmpActAllow, _)) => ALLOW,
        Some((Action::ScmpActErrno, Some(38))) => ENOSYS,
        None => EPERM,
        other => panic!("{other:?}"),
    }
}

/// The rows of the table in the security model, in its order.
const ROWS: &[Row] = &[
    ("openat", &[], ALLOW),
    ("landlock_create_ruleset", &[], ALLOW),
    ("pidfd_open", &[], ALLOW),
    ("openat2", &[], ALLOW),
    ("close_range", &[], ALLOW),
    ("statx", &[], ALLOW),
    ("rseq", &[], ALLOW),
    ("memfd_create", &[], ALLOW),
    ("chroot", &[], ALLOW),
    ("clone", &[0x0100_0011], ALLOW),
    ("clone", &[0x1000_0000], EPERM),
    ("clone", &[0x0002_0000 | 0x11], EPERM),
    ("clone", &[0x0200_0000], EPERM),
    ("unshare", &[], EPERM),
    ("setns", &[], EPERM),
    ("clone3", &[], ENOSYS),
    ("mount", &[], EPERM),
    ("umount2", &[], EPERM),
    ("pivot_root", &[], EPERM),
    ("fsopen", &[], EPERM),
    ("fsconfig", &[], EPERM),
    ("fsmount", &[], EPERM),
    ("fspick", &[], EPERM),
    ("open_tree", &[], EPERM),
    ("open_tree_attr", &[], EPERM),
    ("move_mount", &[], EPERM),
    ("mount_setattr", &[], EPERM),
    ("bpf", &[], EPERM),
    ("perf_event_open", &[], EPERM),
    ("userfaultfd", &[], EPERM),
    ("io_uring_setup", &[], EPERM),
    ("io_uring_enter", &[], EPERM),
    ("io_uring_register", &[], EPERM),
    ("kexec_load", &[], EPERM),
    ("init_module", &[], EPERM),
    ("finit_module", &[], EPERM),
    ("delete_module", &[], EPERM),
    ("iopl", &[], EPERM),
    ("ioperm", &[], EPERM),
    ("acct", &[], EPERM),
    ("swapon", &[], EPERM),
    ("swapoff", &[], EPERM),
    ("reboot", &[], EPERM),
    ("settimeofday", &[], EPERM),
    ("clock_settime", &[], EPERM),
    ("quotactl", &[], EPERM),
    ("lookup_dcookie", &[], EPERM),
    ("nfsservctl", &[], EPERM),
    ("uselib", &[], EPERM),
    ("ustat", &[], EPERM),
    ("sysfs", &[], EPERM),
    ("_sysctl", &[], EPERM),
    ("mbind", &[], EPERM),
    ("move_pages", &[], EPERM),
    ("migrate_pages", &[], EPERM),
    ("keyctl", &[], EPERM),
    ("add_key", &[], EPERM),
    ("request_key", &[], EPERM),
    ("open_by_handle_at", &[], EPERM),
    ("fanotify_init", &[], EPERM),
    ("syslog", &[], EPERM),
    ("ptrace", &[], ALLOW),
    ("process_vm_readv", &[], ALLOW),
    ("kcmp", &[], EPERM),
    ("pidfd_getfd", &[], EPERM),
    ("process_madvise", &[], EPERM),
    ("personality", &[0], ALLOW),
    ("personality", &[8], ALLOW),
    ("personality", &[0x20000], ALLOW),
    ("personality", &[0x20008], ALLOW),
    ("personality", &[0xffff_ffff], ALLOW),
    ("personality", &[u64::MAX], ALLOW), // (int) -1, sign-extended by the caller
    ("personality", &[ADDR_NO_RANDOMIZE], EPERM),
    ("personality", &[0x0040_0000], EPERM), // READ_IMPLIES_EXEC
    ("socket", &[1], ALLOW),
    ("socket", &[16], ALLOW),
    ("socket", &[37], ALLOW),
    ("socket", &[38], EPERM),
    ("socket", &[39], ALLOW),
    ("socket", &[40], EPERM),
    ("socket", &[41], ALLOW),
    ("socket", &[1 << 32 | 38], EPERM), // the kernel reads the lower half
    ("socket", &[1 << 63 | 40], EPERM),
    ("ioctl", &[0, 0x5401], ALLOW),
    ("ioctl", &[0, 0x5411], ALLOW),
    ("ioctl", &[0, 0x5412], EPERM),
    ("ioctl", &[0, 0x5413], ALLOW),
    ("ioctl", &[0, 0x541b], ALLOW),
    ("ioctl", &[0, 0x541c], EPERM),
    ("ioctl", &[0, 0x541d], ALLOW),
    ("ioctl", &[0, 0x8004_5430], ALLOW),
    ("ioctl", &[0, 0xffff_ffff_8004_5430], ALLOW), // TIOCGPTN, sign-extended by the caller
    ("ioctl", &[0, 1 << 32 | 0x5412], EPERM),
    ("ioctl", &[0, u64::MAX << 32 | 0x541c], EPERM),
    ("mknod", &[], ALLOW),
];

#[test]
fn the_proxy_makes_sockets_to_speak_to_others_and_none_to_speak_to_the_host() {
    let profile = proxy_profile();
    let (unix, inet, inet6, netlink, packet, alg) = (1, 2, 10, 16, 17, 38);
    let (stream, datagram, raw, sequenced) = (1, 2, 3, 5);
    let flags = 0x8_0800; // SOCK_CLOEXEC and SOCK_NONBLOCK
    for (name, arguments, expected) in [
        ("socket", [inet, stream | flags, 6], ALLOW),
        ("socket", [inet, datagram | 0x800, 0], ALLOW),
        ("socket", [inet6, stream, 0], ALLOW),
        ("socket", [inet6, datagram | 0x8_0000, 0], ALLOW),
        ("socket", [inet, datagram, 17], ALLOW),
        ("socket", [inet, stream, 256], EPERM),  // IPPROTO_SMC
        ("socket", [inet6, stream, 262], EPERM), // IPPROTO_MPTCP
        ("socket", [inet, raw, 1], EPERM),
        ("socket", [inet6, sequenced, 132], EPERM),
        ("socket", [netlink, raw | 0x8_0000, 0], ALLOW),
        ("socket", [netlink, raw, 15], EPERM), // NETLINK_KOBJECT_UEVENT
        ("socket", [netlink, raw, 1 << 32 | 4], EPERM), // NETLINK_SOCK_DIAG: who listens where
        ("socket", [unix, stream, 0], EPERM),
        ("socket", [unix, datagram, 0], EPERM),
        ("socket", [packet, raw, 0], EPERM),
        ("socket", [alg, sequenced, 0], EPERM),
        ("socketpair", [unix, stream | flags, 0], ALLOW),
        ("socketpair", [unix, datagram, 0], EPERM),
        ("socketpair", [unix, datagram | flags, 0], EPERM),
        ("socketpair", [unix, sequenced, 0], EPERM),
        ("socketpair", [inet, stream, 0], EPERM),
        ("socketcall", [1, 0, 0], ENOSYS),
        ("accept4", [0; 3], ALLOW),
        ("bind", [0; 3], ALLOW),
        ("connect", [0; 3], ALLOW),
        ("listen", [0; 3], EPERM),
        ("ptrace", [0; 3], EPERM),
        ("chroot", [0; 3], EPERM),
        ("unshare", [0; 3], EPERM),
    ] {
        assert_eq!(verdict(&profile, name, &arguments), expected, "{name} {arguments:?}");
    }
    // The runtime reads it so too.
    let written = serde_json::to_value(&profile).unwrap();
    runtime::seccomp::compile(&runtime::spec::read(&written).unwrap()).unwrap();
}

#[test]
fn each_row_of_the_security_model_holds() {
    check(&CAPABILITIES, ROWS);
}

#[test]
fn programs_of_32_bits_are_held_to_the_same_rules() {
    check(
        &CAPABILITIES,
        &[
            ("mmap2", &[], ALLOW),
            ("_llseek", &[], ALLOW),
            ("clock_gettime64", &[], ALLOW),
            ("socketcall", &[1], ENOSYS),
            ("umount", &[], EPERM),
            ("vm86", &[], EPERM),
            ("stime", &[], EPERM),
        ],
    );
    let lifted = profile(&CAPABILITIES.into(), SocketCall::Allowed);
    assert_eq!(verdict(&lifted, "socketcall", &[1]), ALLOW);
    assert_eq!(verdict(&lifted, "socket", &[38]), EPERM);
}

#[test]
fn a_capability_brings_the_calls_that_it_is_for() {
    let cases: [(Capability, &[Row]); 4] = [
        (
            Capability::SysAdmin,
            &[("mount", &[], ALLOW), ("clone3", &[], ALLOW), ("clone", &[1 << 28], ALLOW)],
        ),
        (Capability::SysPtrace, &[("kcmp", &[], ALLOW), ("personality", &[ADDR_NO_RANDOMIZE], ALLOW)]),
        (Capability::Syslog, &[("syslog", &[], ALLOW), ("mount", &[], EPERM)]),
        (Capability::SysNice, &[("mbind", &[], ALLOW)]),
    ];
    for (capability, calls) in cases {
        check(&[capability], calls);
    }
    check(&[], &[("chroot", &[], EPERM)]);
}

#[test]
fn every_name_is_a_call_and_is_listed_once() {
    let all: Capabilities = WITH_CAPABILITY.iter().map(|(capability, _)| *capability).collect();
    let profile = profile(&all, SocketCall::Absent);
    let mut seen = std::collections::HashSet::new();
    for rule in profile.syscalls().iter().flatten().filter(|rule| rule.args().is_none()) {
        for name in rule.names() {
            assert!(runtime::seccomp::has_call(name), "{name} is no call");
            let shared = ["bpf", "perf_event_open", "syslog"].contains(&name.as_str());
            assert!(seen.insert(name.clone()) || shared, "{name} is there twice");
        }
    }
}

#[test]
fn the_runtime_takes_the_profile_and_searches_few_instructions() {
    for socketcall in [SocketCall::Allowed, SocketCall::Absent] {
        let written = serde_json::to_value(profile(&CAPABILITIES.into(), socketcall)).unwrap();
        let read = runtime::spec::read(&written).unwrap();
        let filter = runtime::seccomp::compile(&read).unwrap();
        assert!(filter.instructions() < 600, "{}", filter.instructions());
    }
}
