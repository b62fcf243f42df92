//! Resource limits of the running kernel. They belong to the whole process, so these tests only set ones
//! that no other test depends on.
use crate::busybox::Bundle;
use runtime::rlimits::allow;
use runtime::spec::PosixLimit;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

fn limit(name: &str, soft: u64, hard: u64) -> PosixLimit {
    runtime::spec::read(&json!({ "type": name, "soft": soft, "hard": hard })).unwrap()
}

#[test]
fn a_limit_that_may_be_set_is_not_in_force_before_its_time() {
    let before = getrlimit(Resource::Msgqueue);
    allow(&limit("RLIMIT_MSGQUEUE", 0, 0)).unwrap();
    assert_eq!(getrlimit(Resource::Msgqueue), before);
}

#[test]
fn a_limit_that_leaves_no_room_for_anything_holds_for_the_command_and_no_sooner() {
    // Each command is built into the shell, which needs none of what is refused.
    let cases = ["NOFILE", "FSIZE", "NPROC", "MEMLOCK", "SIGPENDING", "CORE", "RSS", "LOCKS", "MSGQUEUE"];
    for (name, value) in
        cases.map(|name| (name, 0)).into_iter().chain([1, 4, 9].map(|value| ("NOFILE", value)))
    {
        let mut bundle = Bundle::shell("while read -r line; do echo \"$line\"; done");
        let name = format!("RLIMIT_{name}");
        bundle.config["process"]["rlimits"] = json!([{ "type": name, "soft": value, "hard": value }]);
        bundle.config["hooks"] =
            json!({ "startContainer": [{ "path": "/bin/sh", "args": ["sh", "-c", "true"] }] });
        for way in [&["run"][..], &["create", "start"]] {
            for command in way {
                let ran = bundle.tell(&[command, &bundle.id]);
                assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{command} with {name} {value}");
            }
            if way.len() > 1 {
                assert_eq!(bundle.tell(&["delete", "--force", &bundle.id]).status, 0);
            }
            bundle.assert_nothing_left();
        }
    }
}

#[test]
fn a_command_for_which_there_is_no_memory_is_left_to_the_kernel() {
    for name in ["RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_STACK"] {
        let mut bundle = Bundle::shell("echo ran");
        bundle.config["process"]["rlimits"] = json!([{ "type": name, "soft": 0, "hard": 0 }]);
        let ran = bundle.run();
        // It ends by SIGSEGV or SIGKILL, unless the pages that it was started with are enough for it.
        let expected = if ran.status == 0 { "ran\n" } else { "" };
        assert!(matches!(ran.status, 0 | 137 | 139), "{name}: {ran:?}");
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), (expected, ""), "{name}");
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_limit_above_the_runtimes_own_names_values_and_capability() {
    let without_resource = || {
        caps::drop(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_RESOURCE).unwrap();
        setrlimit(Resource::Locks, Rlimit { current: Some(7), maximum: Some(98) }).unwrap();
        allow(&limit("RLIMIT_LOCKS", 7, 98)).unwrap();
        allow(&limit("RLIMIT_LOCKS", 7, 99)).unwrap_err()
    };
    // Lowering it first makes the outcome independent of how the test was started.
    let error = std::thread::scope(|scope| scope.spawn(without_resource).join()).unwrap();
    assert_eq!(
        error.to_string(),
        "set RLIMIT_LOCKS to soft 7, hard 99: the runtime's own hard value is 98, and it lacks CAP_SYS_RESOURCE to \
         raise it; lower the limit in the Spec or grant that capability"
    );
}
