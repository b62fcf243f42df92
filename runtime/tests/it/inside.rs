//! A whole container, seen from inside.
use crate::bundle::Bundle;
use crate::probe::line;
use serde_json::json;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::Command;

#[test]
fn s28_every_namespace_but_the_users_is_its_own() {
    let inside = line(&Bundle::new().run("namespaces"));
    let here = |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    for (kind, inside) in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"].iter().zip(inside.split(' '))
    {
        assert_eq!(here(kind).to_str() == Some(inside), *kind == "user", "{kind}: {inside}");
    }
}

#[test]
fn capabilities_and_filter_are_those_of_the_spec() {
    let none = "0000000000000000";
    let kept = "00000000a80425fb";
    let status = |prm: &str| {
        format!("CapInh={none} CapPrm={prm} CapEff={prm} CapBnd={kept} CapAmb={none} NoNewPrivs=0 Seccomp=2")
    };
    let mut bundle = Bundle::new();
    bundle.check(&[("status", &status(kept))]);
    bundle.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    bundle.check(&[("status", &status(none))]);
}

#[test]
fn no_new_privs_is_set_when_asked_for() {
    let mut bundle = Bundle::new();
    bundle.config["process"]["noNewPrivileges"] = json!(true);
    assert!(line(&bundle.run("status")).ends_with("NoNewPrivs=1 Seccomp=2"));
}

#[test]
fn s32_the_filter_holds_inside() {
    Bundle::new().check(&[
        ("call 272 0x10000000", "EPERM"), // unshare(CLONE_NEWUSER)
        ("call 435", "ENOSYS"),           // clone3
        ("call 999", "ENOSYS"),
        ("socket 38 5", "EPERM"), // AF_ALG
        ("socket 1", "ok"),
        ("tiocsti", "EPERM"),
    ]);
}

#[test]
fn s33_masked_and_read_only_paths() {
    let cases = [
        ("read", "/proc/kcore", "", "0"),
        ("read", "/proc/keys", "", "0"),
        ("read", "/proc/interrupts", "", "0"),
        ("read", "/proc/timer_list", "", "0"),
        ("list", "/sys/firmware", "", ""),
        ("mkdir", "/sys/firmware/x", "", "EROFS"),
        ("write", "/proc/sysrq-trigger", "x", "EROFS"),
        ("write", "/proc/sys/kernel/core_pattern", "x", "EROFS"),
        ("write", "/proc/irq/default_smp_affinity", "1", "EROFS"),
        ("write", "/sys/kernel/mm/ksm/run", "1", "EROFS"),
    ];
    let mut bundle = Bundle::new();
    for (probe, path, text, expected) in cases {
        // What this kernel does not have is not there inside either.
        let here = path.trim_end_matches("/x");
        let expected = if std::path::Path::new(here).exists() { expected } else { "ENOENT" };
        bundle.check(&[(&format!("{probe} {path} {text}"), expected)]);
    }
}

#[test]
fn s35_dev_holds_the_listed_nodes_and_opens_no_others() {
    Bundle::new().check(&[
        (
            "list /dev",
            "fd full=c1:7 mqueue null=c1:3 ptmx pts random=c1:8 shm stderr stdin stdout tty=c5:0 urandom=c1:9 zero=c1:5",
        ),
        ("mknod /sda b 8 0", "open EPERM"),
        ("mknod /null c 1 3", "open ok"),
        ("open /dev/kmsg", "ENOENT"),
        ("open /dev/mem", "ENOENT"),
        ("open /dev/fuse", "ENOENT"),
    ]);
}

#[test]
fn s36_the_control_groups_cannot_be_changed() {
    Bundle::new().check(&[
        ("list /sys/fs/cgroup", "devices freezer pids"),
        ("mkdir /sys/fs/cgroup/devices/x", "EROFS"),
        ("mkdir /sys/fs/cgroup/x", "EROFS"),
        ("write /sys/fs/cgroup/devices/notify_on_release 1", "EROFS"),
        ("write /sys/fs/cgroup/devices/devices.allow a", "EROFS"),
        ("write /sys/fs/cgroup/pids/cgroup.procs 0", "EROFS"),
        ("write /sys/fs/cgroup/pids/../pids/pids.max max", "EROFS"),
        ("open /sys/fs/cgroup/devices/release_agent w", "ENOENT"),
        ("mount cgroup memory", "EPERM"),
    ]);
}

#[test]
fn s40_nothing_of_the_host_or_of_other_tasks_is_found() {
    let name = format!("docker-worker-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    let shared = tempfile::Builder::new().prefix("docker-worker-").tempfile_in("/dev/shm").unwrap();
    let segment = Segment::create();

    let mut bundle = Bundle::new();
    bundle.check(&[
        ("call 103 10", "EPERM"),     // syslog: dmesg
        ("call 250 0 -3 0", "EPERM"), // keyctl(GET_KEYRING_ID, session)
        ("read /proc/keys", "0"),
        (&format!("open {}", shared.path().display()), "ENOENT"),
        (&format!("abstract {name}"), "ECONNREFUSED"),
        (&format!("shm {}", segment.key), "ENOENT"),
    ]);
    drop(listener);
}

/// A System V shared memory segment on the host.
struct Segment {
    key: u32,
}

impl Segment {
    fn create() -> Self {
        let made = Command::new("ipcmk").args(["--shmem", "4096"]).output().unwrap();
        let text = String::from_utf8(made.stdout).unwrap(); // "Shared memory id: 7"
        let id = text.trim_end().rsplit(' ').next().unwrap();
        let table = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
        let mut rows = table.lines().map(|row| row.split_ascii_whitespace().collect::<Vec<_>>());
        let row = rows.find(|row| row[1] == id).unwrap();
        Self { key: row[0].parse::<i32>().unwrap().cast_unsigned() }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let removed = Command::new("ipcrm").args(["--shmem-key", &self.key.to_string()]).status();
        assert!(removed.unwrap().success());
    }
}

#[test]
fn s62_a_fork_bomb_and_a_memory_hog_end_at_their_limits() {
    let mut bundle = Bundle::new();
    bundle.config["linux"]["resources"]["memory"] = json!({ "limit": 32 << 20 });
    bundle.check(&[("forks 200", "63 EAGAIN"), ("touch 8", "ok")]);
    assert_eq!(bundle.run("touch 64").status.code(), Some(128 + 9));
}

#[test]
fn s63_a_task_cannot_hide_from_the_oom_killer() {
    let mut bundle = Bundle::new();
    bundle.config["process"]["oomScoreAdj"] = json!(100);
    // Back to what the runtime was started with is possible where that lacks CAP_SYS_RESOURCE, below never.
    bundle
        .check(&[("line /proc/self/oom_score_adj", "100"), ("write /proc/self/oom_score_adj -1", "EACCES")]);
}

#[test]
fn s64_no_process_outlives_the_first() {
    let mut bundle = Bundle::new();
    bundle.check(&[("linger", "ok")]);
    assert!(bundle.control_groups().is_empty());
}

#[test]
fn s46_what_cannot_be_applied_stops_the_start() {
    let cases = [
        ("/linux/seccomp/defaultAction", json!("SCMP_ACT_NOTIFY"), "SCMP_ACT_NOTIFY is not supported"),
        ("/process/rlimits/0", json!({ "type": "RLIMIT_CORE", "soft": 2, "hard": 1 }), "RLIMIT_CORE"),
        ("/linux/resources/devices/0", json!({ "allow": true, "access": "q" }), "\"q\" is not made of r"),
        ("/linux/resources/unified", json!({ "nosuch.file": "1" }), "unified"),
    ];
    for (pointer, value, expected) in cases {
        let mut bundle = Bundle::new();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match bundle.config.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => bundle.config.pointer_mut(parent).unwrap()[key] = value,
        }
        assert_refused(&bundle.run("mkdir /ran"), &bundle, expected);
    }
}

#[test]
fn s46_a_capability_that_the_runtime_lacks_stops_the_start() {
    let mut bundle = Bundle::new();
    for set in ["bounding", "permitted"] {
        bundle.config["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_LEASE"));
    }
    let without_lease = || {
        caps::drop(None, caps::CapSet::Bounding, caps::Capability::CAP_LEASE).unwrap();
        bundle.run("mkdir /ran")
    };
    let output = std::thread::scope(|scope| scope.spawn(without_lease).join()).unwrap();
    assert_refused(&output, &bundle, "CAP_LEASE");
}

fn assert_refused(output: &std::process::Output, bundle: &Bundle, expected: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(expected), "{}: {said}", output.status);
    assert!(!bundle.directory().join("rootfs/ran").exists(), "the command ran: {said}");
}
