//! A namespace for one test: what it mounts, or has as addresses, is gone with its thread, and no one else sees it.
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::mount::{MountPropagationFlags, mount_change};

/// Runs `work` in a thread that has mounts of its own. Panics go on to the caller.
pub fn in_own_mount_namespace<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let thread = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("tests that mount need root");
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).unwrap();
        work()
    };
    let result = std::thread::scope(|scope| scope.spawn(thread).join());
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Runs `work` in a thread, with the processes that it starts, on a network of its own: this host's loopback, and one more
/// address on it.
pub fn in_own_network<T: Send>(address: &str, work: impl FnOnce() -> T + Send) -> T {
    let thread = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("tests with a network need root");
        let block = format!("{address}/32");
        for words in [&["link", "set", "lo", "up"][..], &["address", "add", &block, "dev", "lo"]] {
            let output = Command::new("ip").args(words).output().expect("iproute2 is installed");
            assert!(output.status.success(), "ip: {output:?}");
        }
        work()
    };
    let result = std::thread::scope(|scope| scope.spawn(thread).join());
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Whether something comes true within ten seconds: mounts of a namespace, and the loop devices
/// below them, go a moment after its last process, and sysfs gives no event for that.
pub fn comes_true(condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    true
}
