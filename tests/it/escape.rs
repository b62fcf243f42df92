//! Ways out of a container that were found in runtimes before: assertions S41, S43, S44 and S46.

use std::fs;
use std::os::unix::fs::symlink as link_on_host;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Canary, Finished, Scratch, Worker, busybox_image, finish, probe_image, runtime_executable, sha256,
    symlink,
};

#[test]
fn s41_the_runtimes_executable_cannot_be_written_from_inside() {
    let worker = Worker::new();
    let image = busybox_image().layer(&[symlink("entry", "/proc/self/exe")]);
    let source = worker.image(&image).source;
    let executables = [runtime_executable(), PathBuf::from(env!("CARGO_BIN_EXE_docker-worker"))];
    let hashes = || executables.each_ref().map(|path| sha256(&fs::read(path).unwrap()));
    let before = hashes();
    for command in [
        vec!["/proc/self/exe"],
        vec!["/entry"],
        vec!["/proc/self/exe", "run", "--help"],
        vec!["/bin/sh", "-c", "for p in /proc/[0-9]*; do echo hostile > $p/exe; done"],
        vec!["/bin/sh", "-c", "exec 9< /proc/self/exe; echo hostile > /proc/self/fd/9"],
    ] {
        let run = worker.run(&source, &command);
        assert!(!run.words().contains("panicked"), "{command:?}: {run:?}");
        assert_eq!(hashes(), before, "{command:?}: {run:?}");
        worker.assert_nothing_left(&format!("{command:?}"));
    }
}

#[test]
fn s43_a_working_directory_cannot_be_a_descriptor_of_the_runtime() {
    let worker = Worker::new();
    fs::create_dir_all(worker.scratch().join("outside")).unwrap();
    let canary = Canary::place(&worker.scratch().join("outside"));
    let up = format!("{}{}", "../".repeat(12), canary.file.display());
    let script = format!("cat {up} ../../../..{}; pwd; true", canary.file.display());
    for number in 3..24 {
        let through_link = symlink("cwd", &format!("/proc/self/fd/{number}"));
        for image in [
            busybox_image().set("WorkingDir", json!(format!("/proc/self/fd/{number}"))),
            busybox_image().layer(&[through_link]).set("WorkingDir", json!("/cwd")),
        ] {
            let source = worker.image(&image).source;
            let run = worker.run(&source, &["/bin/sh", "-c", &script]);
            assert!(!run.log.contains(Canary::SECRET), "descriptor {number}: {run:?}");
            assert!(!run.log.contains("(unreachable)"), "descriptor {number}: {run:?}");
        }
    }
}

/// A bundle for the runtime alone.
struct Bundle {
    scratch: Scratch,
    spec: Value,
}

impl Bundle {
    /// A bundle that prints "ran" and holds the probe's root file system.
    fn new() -> Bundle {
        let scratch = Scratch::new();
        let layout = probe_image().write_oci(&scratch.join("image"));
        let unpacked = scratch.join("unpacked");
        let image = layout.source.trim_start_matches("oci:").to_owned();
        crate::support::tool("umoci", &["unpack", "--image", &image, unpacked.to_str().unwrap()]);
        fs::rename(unpacked.join("rootfs"), scratch.join("rootfs")).unwrap();
        let spec = json!({
            "ociVersion": "1.0.2",
            "process": { "cwd": "/", "args": ["/bin/echo", "ran"], "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } },
            "root": { "path": "rootfs" },
            "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
            "linux": { "namespaces": [{ "type": "mount" }, { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }] },
        });
        Bundle { scratch, spec }
    }

    fn run(&self) -> Finished {
        fs::write(self.scratch.join("config.json"), self.spec.to_string()).unwrap();
        let child = Command::new(runtime_executable())
            .arg("--root")
            .arg(self.scratch.join("state"))
            // The id names the control group as well: no other test's.
            .args(["run", "--bundle", self.scratch.path().to_str().unwrap(), self.scratch.name()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        finish(child, Duration::from_secs(30))
    }
}

#[test]
fn s44_a_mount_point_swapped_for_a_link_is_never_mounted_outside() {
    let mut bundle = Bundle::new();
    let canary = Canary::place(&bundle.scratch.join("outside"));
    let volume = bundle.scratch.join("rootfs/volume");
    fs::create_dir_all(volume.join("directory")).unwrap();
    let up = format!("{}{}", "../".repeat(12), canary.directory.display());
    link_on_host(&up, volume.join("link")).unwrap();
    fs::create_dir(volume.join("point")).unwrap();
    bundle.spec["mounts"].as_array_mut().unwrap().push(
        json!({ "destination": "/volume/point", "type": "tmpfs", "source": "tmpfs", "options": ["rw"] }),
    );
    // What was mounted outside the root is not among the mounts that the container sees.
    let script = "grep -c ' - tmpfs ' /proc/self/mountinfo; echo inside > /volume/point/canary; true";
    bundle.spec["process"]["args"] = json!(["/bin/sh", "-c", script]);

    let stop = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let _stop = StopOnDrop(&stop);
        threads.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for other in ["link", "directory"] {
                    // The runtime may have mounted on the directory in between: then it cannot be exchanged.
                    exchange(&volume.join("point"), &volume.join(other)).unwrap_or_default();
                }
            }
        });
        let mut started = 0;
        for round in 0..300 {
            let finished = bundle.run();
            assert!([&b""[..], b"1\n"].contains(&finished.stdout.as_slice()), "round {round}: {finished:?}");
            started += u32::from(!finished.stdout.is_empty());
            canary.assert_intact(&format!("round {round}"));
        }
        assert_ne!(started, 0, "no container ever started");
    });
}

/// Ends the other thread also when an assertion fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn exchange(one: &std::path::Path, other: &std::path::Path) -> rustix::io::Result<()> {
    rustix::fs::renameat_with(rustix::fs::CWD, one, rustix::fs::CWD, other, rustix::fs::RenameFlags::EXCHANGE)
}

/// (A capability that the kernel does not know is a warning, as the OCI specification wants it: nothing is granted.)
#[test]
fn s46_a_control_that_cannot_be_applied_ends_the_start() {
    let whole = Bundle::new();
    let finished = whole.run();
    assert_eq!(finished.stdout, b"ran\n", "the bundle as it is: {finished:?}");
    for (case, pointer, value) in [
        ("an unknown filter action", "/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_NONSENSE" })),
        (
            "an unknown architecture",
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NONSENSE"] }),
        ),
        ("a profile that is not loaded", "/process/apparmorProfile", json!("docker-worker-no-such-profile")),
        ("a label without SELinux", "/process/selinuxLabel", json!("system_u:system_r:container_t:s0")),
        ("a relative working directory", "/process/cwd", json!("relative")),
        (
            "an unknown limit",
            "/process/rlimits",
            json!([{ "type": "RLIMIT_NONSENSE", "hard": 1, "soft": 1 }]),
        ),
    ] {
        let mut bundle = Bundle { scratch: Scratch::new(), spec: whole.spec.clone() };
        bundle.spec["root"]["path"] = json!(whole.scratch.join("rootfs"));
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        bundle.spec.pointer_mut(parent).unwrap()[field] = value;
        let finished = bundle.run();
        assert!(!finished.status.success(), "{case}: {finished:?}");
        assert!(finished.stdout.is_empty() && !finished.stderr.is_empty(), "{case}: {finished:?}");
        let left = bundle.scratch.traces();
        assert!(left.is_empty(), "{case}: {left:?}");
    }
}
