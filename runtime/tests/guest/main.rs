//! What this host's kernel has on v1, on a kernel that has it on v2. Run by `tests/vm/test`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "../support/bundle.rs"]
mod bundle;
#[path = "../support/busybox.rs"]
mod busybox;
#[path = "../support/groups.rs"]
mod groups;
#[path = "../support/probe.rs"]
mod probe;

mod full;
mod inside;

// Whole containers, whose first process is forked into its group here.
#[path = "../it/callers.rs"]
mod callers;
#[path = "../it/crash.rs"]
mod crash;
#[path = "../it/exec.rs"]
mod exec;
#[path = "../it/exec_hostile.rs"]
mod exec_hostile;
#[path = "../it/exec_terminal.rs"]
mod exec_terminal;
#[path = "../it/filesystem.rs"]
mod filesystem;
#[path = "../it/hold.rs"]
mod hold;
#[path = "../it/hold_ends.rs"]
mod hold_ends;
#[path = "../it/hold_hostile.rs"]
mod hold_hostile;
#[path = "../it/launch.rs"]
mod launch;
#[path = "../it/lifecycle.rs"]
mod lifecycle;
#[path = "../it/paused.rs"]
mod paused;
#[path = "../it/terminal.rs"]
mod terminal;
#[path = "../it/updated.rs"]
mod updated;

#[test]
fn a_controller_that_the_host_lacks_is_named() {
    let resources = serde_json::json!({ "unified": { "perf_event.max": "1" } });
    let text =
        groups::Container::try_create(&resources).err().expect("there is no such controller").to_string();
    assert!(
        text.starts_with("enable the perf_event controller in /sys/fs/cgroup: only \"cpuset cpu io"),
        "{text}"
    );
}

#[test]
fn new_device_rules_take_the_place_of_the_old_ones() {
    let container = groups::Container::create(&serde_json::json!({}));
    assert_eq!(probe::line(&container.run("open /dev/kmsg")), "EPERM");
    let everything = runtime::spec::read(&serde_json::json!({ "allow": true })).unwrap();
    let policy = runtime::cgroup::DevicePolicy::from_spec(&[everything]).unwrap();
    container.groups[0].attach_devices(&policy).unwrap();
    assert_eq!(probe::line(&container.run("open /dev/kmsg")), "ok");
}
