//! Capabilities and filters against the running kernel.
//!
//! They belong to a thread and to what it executes, so each test confines a thread of its own that ends with
//! it.
use crate::bundle;
use crate::probe::{Probe, line};
use runtime::capabilities::{self, CapabilitySets};
use runtime::seccomp::compile;
use runtime::spec::Seccomp;
use serde_json::json;
use std::process::Command;
use std::thread;

/// The fourteen of [`bundle::capabilities`] as a bit mask (capability.h).
const KEPT: &str = "00000000a80425fb";
const NONE: &str = "0000000000000000";

fn profile() -> Seccomp {
    runtime::spec::read(&bundle::profile()).unwrap()
}

/// Takes the steps that the runtime takes between `fork` and `execve`, as `user`.
fn confine(sets: serde_json::Value, profile: Option<&Seccomp>, user: u32) {
    let sets: CapabilitySets = runtime::spec::read(&sets).unwrap();
    capabilities::drop_bounding(&sets).unwrap();
    capabilities::keep_over_setuid().unwrap();
    let uid = rustix::fs::Uid::from_raw(user);
    rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
    match profile {
        None => capabilities::apply_sets(&sets).unwrap(),
        Some(profile) => {
            capabilities::apply_sets(&sets.with_administration()).unwrap();
            compile(profile).unwrap().prepare().unwrap().install().unwrap();
            rustix::thread::set_capabilities(None, sets.at_once()).unwrap();
        }
    }
}

/// Runs each probe under the filter, as root with those capabilities.
fn check(cases: &[(&str, &str)]) {
    let probe = Probe::build();
    let confined = || {
        confine(bundle::capabilities(), Some(&profile()), 0);
        for (words, expected) in cases {
            assert_eq!(line(&probe.command(words).output().unwrap()), *expected, "{words}");
        }
    };
    thread::scope(|scope| scope.spawn(confined).join()).unwrap();
}

fn status(sets: serde_json::Value, user: u32) -> String {
    let probe = Probe::build();
    let confined = || {
        confine(sets, Some(&profile()), user);
        line(&probe.command("status").output().unwrap())
    };
    thread::scope(|scope| scope.spawn(confined).join()).unwrap()
}

#[test]
fn root_keeps_fourteen_capabilities_and_a_filter() {
    let expected = format!(
        "CapInh={NONE} CapPrm={KEPT} CapEff={KEPT} CapBnd={KEPT} CapAmb={NONE} \
         NoNewPrivs=0 Seccomp=2"
    );
    assert_eq!(status(bundle::capabilities(), 0), expected);
}

#[test]
fn another_user_has_no_capability_in_effect() {
    let expected = format!(
        "CapInh={NONE} CapPrm={NONE} CapEff={NONE} CapBnd={KEPT} CapAmb={NONE} NoNewPrivs=0 Seccomp=2"
    );
    assert_eq!(status(bundle::capabilities(), 1000), expected);
}

#[test]
fn ambient_capabilities_are_for_other_users_too_when_configured() {
    let mut sets = bundle::capabilities();
    sets["inheritable"] = json!(["CAP_KILL"]);
    sets["ambient"] = json!(["CAP_KILL"]);
    let kill = "0000000000000020";
    let expected = format!(
        "CapInh={kill} CapPrm={kill} CapEff={kill} CapBnd={KEPT} CapAmb={kill} NoNewPrivs=0 Seccomp=2"
    );
    assert_eq!(status(sets, 1000), expected);
}

#[test]
fn the_kernel_answers_as_the_filter_says() {
    // Numbers as in unistd_64.h; arguments that do no harm if a call were let through.
    check(&[
        ("call 272 0x10000000", "EPERM"),     // unshare(CLONE_NEWUSER)
        ("call 56 0x10000011", "EPERM"),      // clone(CLONE_NEWUSER | SIGCHLD)
        ("call 56 0x11", "ok"),               // clone(SIGCHLD)
        ("call 165", "EPERM"),                // mount
        ("call 250 -1", "EPERM"),             // keyctl
        ("call 435", "ENOSYS"),               // clone3
        ("call 999", "ENOSYS"),               // no such call
        ("call 0x40000027", "ENOSYS"),        // x32: getpid
        ("call 61 -1 0 1 0", "ECHILD"),       // wait4: an ordinary call
        ("call 41 0x100000026 5 0", "EPERM"), // socket(AF_ALG) with a bit that the kernel does not read
        ("call 41 0x100000001 2 0", "ok"),    // socket(AF_UNIX) likewise
    ]);
}

#[test]
fn the_32_bit_entry_is_held_to_the_same_rules() {
    check(&[
        ("int80 20", "ok"),                // getpid
        ("int80 310 0x10000000", "EPERM"), // unshare(CLONE_NEWUSER)
        ("int80 120 0x10000011", "EPERM"), // clone(CLONE_NEWUSER | SIGCHLD)
        ("int80 21", "EPERM"),             // mount
        ("int80 359 38", "EPERM"),         // socket(AF_ALG)
        ("int80 102 1", "ENOSYS"),         // socketcall(SYS_SOCKET)
        ("int80 435", "ENOSYS"),           // clone3
        ("int80 999", "ENOSYS"),
    ]);
}

#[test]
fn s32_nothing_can_be_typed_on_a_terminal() {
    check(&[
        ("tiocsti", "EPERM"),
        ("call 16 0 0x100005412 0", "EPERM"), // TIOCSTI with a bit that the kernel does not read
        ("call 16 -1 0x5413 0", "EBADF"),     // TIOCGWINSZ: let through
    ]);
}

#[test]
fn s46_capabilities_that_the_runtime_lacks_are_an_error() {
    let all =
        json!({ "bounding": ["CAP_KILL", "CAP_SYS_ADMIN"], "permitted": ["CAP_KILL", "CAP_SYS_ADMIN"] });
    let fewer = json!({ "bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"] });
    let confined = || {
        confine(fewer, None, 0);
        let wanted: CapabilitySets = runtime::spec::read(&all).unwrap();
        let text = capabilities::drop_bounding(&wanted).unwrap_err().to_string();
        assert!(text.contains("keep CAP_SYS_ADMIN in the bounding set"), "{text}");
        let text = capabilities::apply_sets(&wanted).unwrap_err().to_string();
        assert!(text.contains("permitted {CAP_KILL CAP_SYS_ADMIN}"), "{text}");
        // Without CAP_SYS_ADMIN and no_new_privs there is no filter either.
        let filter = compile(&profile()).unwrap();
        let text = filter.refused(filter.prepare().unwrap().install().unwrap_err()).to_string();
        assert!(text.contains("needs CAP_SYS_ADMIN"), "{text}");
    };
    thread::scope(|scope| scope.spawn(confined).join()).unwrap();
}

#[test]
fn every_action_of_a_profile_reaches_the_kernel() {
    use std::os::unix::process::ExitStatusExt;
    // getppid is a call that nothing else makes.
    let cases = [("SCMP_ACT_KILL_PROCESS", Some(31)), ("SCMP_ACT_TRAP", Some(31)), ("SCMP_ACT_LOG", None)];
    let probe = Probe::build();
    for (action, signal) in cases {
        let profile: Seccomp = runtime::spec::read(&json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
            "syscalls": [{ "names": ["getppid"], "action": action }],
        }))
        .unwrap();
        let confined = || {
            compile(&profile).unwrap().prepare().unwrap().install().unwrap();
            Command::new(probe.path()).args(["call", "110"]).output().unwrap().status.signal()
        };
        let result = thread::scope(|scope| scope.spawn(confined).join()).unwrap();
        assert_eq!(result, signal, "{action}");
    }
}
