//! Tests that need what a host may lack. They run in the virtual machine of `tests/vm` (`tests/vm/test`), with Debian's
//! kernel, cgroup v2, AppArmor, and EROFS through loop devices. What the host's tests say of a task's profile, of limits,
//! interrupts and crashes has to hold here as well: those modules are the same files.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::Path;

use it::support::{self, Worker, observe, probe_image};

mod allow_ptrace;
mod apparmor;

/// The host's tests, as far as they have to hold here.
#[path = "../it"]
mod it {
    pub mod allow_ptrace;
    mod crash;
    mod exhaustion;
    mod interrupts;
    mod processors;
    mod profile;
    #[expect(dead_code, unused_imports, reason = "the tests of images are not part of this binary")]
    pub mod support;
}

/// What the other guest tests take for granted; where it fails, the machine is at fault and not the worker.
#[test]
fn the_machine_offers_apparmor_cgroup_v2_and_loop_devices() {
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").expect("cgroup v2");
    for controller in ["cpu", "io", "memory", "pids"] {
        assert!(
            controllers.split_whitespace().any(|offered| offered == controller),
            "{controller}: {controllers}"
        );
    }
    assert_eq!(fs::read_to_string("/sys/module/apparmor/parameters/enabled").expect("AppArmor"), "Y\n");
    for path in ["/sys/kernel/security/apparmor/profiles", "/dev/loop-control", "/scratch/lost+found"] {
        assert!(Path::new(path).exists(), "{path}");
    }
}

#[test]
fn s37_a_task_is_at_the_root_of_its_control_groups_and_cannot_change_them() {
    let worker = Worker::new();
    let source = worker.image(&probe_image()).source;
    let table = [
        ("cat /proc/self/cgroup", "0::/"),
        ("/probe write /sys/fs/cgroup/cgroup.procs 1", "EROFS"),
        ("/probe write /sys/fs/cgroup/memory.max max", "EROFS"),
        ("/probe write /sys/fs/cgroup/pids.max max", "EROFS"),
        ("/probe mkdir /sys/fs/cgroup/x", "EROFS"),
        ("cat /sys/fs/cgroup/pids.max", "16384"),
        // By the shell alone: a pipeline's second process may start after the first one has read the file.
        ("n=0; while read -r _; do n=$((n+1)); done </sys/fs/cgroup/cgroup.procs; echo $n", "1"),
    ];
    observe(&worker, &source, &table);
}
