//! Tests that need what a host may lack. They run in the virtual machine of `tests/vm` (`tests/vm/test`).

use std::fs;
use std::path::Path;

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
