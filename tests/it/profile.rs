//! The default profile of a task, seen from inside by a static probe: assertions S28 to S36, S40, S42 and S45.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use serde_json::json;

use crate::support::{Worker, file, observe, probe_image, shell_payload, symlink};

const KINDS: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// Refused by a read-only mount, by permission or by the filter; or not part of this kernel.
const REFUSED_OR_ABSENT: &str = "|EROFS|EACCES|EPERM";

/// What a 32-bit program gets that asks for a socket by `socketcall`, which hides the family from the filter: with an
/// AppArmor profile, which does see it, the kernel's own answer to arguments at 0.
fn socketcall() -> &'static str {
    if apparmor::policy::usable().is_ok() { "EFAULT" } else { "ENOSYS" }
}

fn probe_worker() -> (Worker, String) {
    let worker = Worker::new();
    let source = worker.image(&probe_image()).source;
    (worker, source)
}

#[test]
fn s28_every_namespace_but_the_users_is_the_tasks_own() {
    let (worker, source) = probe_worker();
    let inside = worker.run(&source, &["/probe", "namespaces"]).expect(0, "namespaces").output();
    for (kind, inside) in KINDS.iter().zip(inside.split_whitespace()) {
        let host = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_eq!(inside == host.to_str().unwrap(), *kind == "user", "{kind}: {inside}");
    }
    assert_eq!(inside.split_whitespace().count(), KINDS.len());
}

#[test]
fn s29_the_fourteen_capabilities_are_kept_and_a_user_has_none() {
    let (worker, source) = probe_worker();
    let kept = "00000000a80425fb";
    let none = "0000000000000000";
    let line = |effective: &str| {
        format!(
            "CapInh={none} CapPrm={effective} CapEff={effective} CapBnd={kept} CapAmb={none} NoNewPrivs=0 Seccomp=2\n"
        )
    };
    assert_eq!(worker.run(&source, &["/probe", "status"]).output(), line(kept));
    let by_user = worker.image(&probe_image().set("User", json!("1000"))).source;
    assert_eq!(worker.run(&by_user, &["/probe", "status"]).output(), line(none));
}

#[test]
fn s30_the_filter_answers_as_the_table_says() {
    let (worker, source) = probe_worker();
    let table = [
        ("/probe call 272 0x10000000", "EPERM"),    // unshare(CLONE_NEWUSER)
        ("/probe call 272 0x20000", "EPERM"),       // unshare(CLONE_NEWNS)
        ("/probe call 56 0x10000011", "EPERM"),     // clone(CLONE_NEWUSER | SIGCHLD)
        ("/probe call 56 0x10000111", "EPERM"), // the same with another flag: the mask is looked at, not the value
        ("/probe call 56 17", "ok"),            // clone(SIGCHLD), as fork
        ("/probe call 308 -1 0", "EPERM"),      // setns
        ("/probe call 165", "EPERM"),           // mount
        ("/probe call 166 0", "EPERM"),         // umount2
        ("/probe call 155", "EPERM"),           // pivot_root
        ("/probe call 428", "EPERM"),           // open_tree
        ("/probe call 429", "EPERM"),           // move_mount
        ("/probe call 430", "EPERM"),           // fsopen
        ("/probe call 442", "EPERM"),           // mount_setattr
        ("/probe call 321", "EPERM"),           // bpf
        ("/probe call 425", "EPERM"),           // io_uring_setup
        ("/probe call 323", "EPERM"),           // userfaultfd
        ("/probe call 298", "EPERM"),           // perf_event_open
        ("/probe call 250", "EPERM"),           // keyctl
        ("/probe call 248", "EPERM"),           // add_key
        ("/probe call 246", "EPERM"),           // kexec_load
        ("/probe call 313 -1", "EPERM"),        // finit_module
        ("/probe call 304 -1", "EPERM"),        // open_by_handle_at
        ("/probe call 103 3", "EPERM"),         // syslog
        ("/probe call 169", "EPERM"),           // reboot
        ("/probe call 435", "ENOSYS"),          // clone3
        ("/probe call 999", "ENOSYS"),          // no call yet
        ("/probe call 0x40000027", "ENOSYS|EPERM"), // getpid by its x32 number
        ("/probe call 39", "ok"),               // getpid
        ("/probe call 135 0x20000", "ok"),      // personality(UNAME26)
        ("/probe call 135 0x40000", "EPERM"),   // personality(ADDR_NO_RANDOMIZE)
        ("/probe call 135 0xffffffff", "ok"),   // personality: which one?
        ("/probe call 61 -1 0 1 0", "ECHILD"),  // wait4: an ordinary call
        ("/probe int80 20", "ok"),              // getpid, by the 32-bit entry
        ("/probe int80 310 0x10000000", "EPERM"), // unshare(CLONE_NEWUSER)
        ("/probe int80 120 0x10000011", "EPERM"), // clone(CLONE_NEWUSER | SIGCHLD)
        ("/probe int80 21", "EPERM"),           // mount
        ("/probe int80 435", "ENOSYS"),         // clone3
        ("/probe int80 999", "ENOSYS"),
    ];
    observe(&worker, &source, &table);
}

#[test]
fn s31_socket_families_of_the_kernels_own_are_refused() {
    let (worker, source) = probe_worker();
    let table = [
        ("/probe socket 38 5", "EPERM"),             // AF_ALG
        ("/probe socket 40 1", "EPERM"),             // AF_VSOCK
        ("/probe socket 1", "ok"),                   // AF_UNIX
        ("/probe socket 2", "ok"),                   // AF_INET
        ("/probe socket 10", "ok"),                  // AF_INET6
        ("/probe socket 16 3", "ok"),                // AF_NETLINK
        ("/probe call 41 0x100000026 5 0", "EPERM"), // socket(AF_ALG) with a bit that the kernel does not read
        ("/probe call 41 0x100000001 2 0", "ok"),    // socket(AF_UNIX) likewise
        ("/probe int80 359 38", "EPERM"),            // socket(AF_ALG), by the 32-bit entry
        ("/probe int80 102 1", socketcall()),
    ];
    observe(&worker, &source, &table);
}

#[test]
fn s31_sockets_of_32_bit_programs_are_the_operators_to_allow() {
    let (worker, source) = probe_worker();
    let notice = "32-bit programs cannot make sockets";
    let task = shell_payload(&source, "/probe int80 102 1"); // socketcall(SYS_SOCKET), its arguments at 0
    let run = worker.task_with(&task, &[]);
    let told = usize::from(socketcall() == "ENOSYS");
    assert_eq!((run.output().trim(), run.words().matches(notice).count()), (socketcall(), told), "{run:?}");
    let config = worker.fresh("config").with_extension("yml");
    fs::write(&config, "dockerConfig: {allowSocketcall: true}\n").unwrap();
    let run = worker.task_with(&task, &["--config", config.to_str().unwrap()]);
    assert_eq!((run.output().trim(), run.words().matches(notice).count()), ("EFAULT", 0), "{run:?}");
}

#[test]
fn s32_a_task_cannot_type_into_its_terminal() {
    let (worker, source) = probe_worker();
    observe(&worker, &source, &[("tty", "/dev/pts/0|/dev/console"), ("/probe tiocsti", "EPERM")]);
}

#[test]
fn s33_masked_paths_are_empty_and_read_only_ones_refuse() {
    let (worker, source) = probe_worker();
    let mut table = Vec::new();
    for path in ["/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/latency_stats"] {
        // The profile denies what is masked as well.
        table.push((format!("/probe read {path}"), "0|ENOENT|EACCES"));
    }
    for path in ["/proc/acpi", "/proc/scsi", "/proc/asound", "/sys/firmware", "/sys/devices/virtual/powercap"]
    {
        table.push((format!("/probe list {path}"), "|ENOENT"));
        table.push((format!("/probe mkdir {path}/x"), "EROFS|ENOENT"));
    }
    for path in ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/vm/panic_on_oom"] {
        table.push((format!("[ ! -e {path} ] || /probe write {path} 0"), REFUSED_OR_ABSENT));
    }
    table.push((
        "for f in $(find /proc/irq -type f); do /probe open $f w; done | sort -u".to_owned(),
        "EROFS",
    ));
    table.push((
        "for f in $(find /sys/kernel -type f -perm -200 | head -50); do /probe open $f w; done | sort -u"
            .to_owned(),
        "EROFS",
    ));
    table.push(("/probe mkdir /proc/sys/x".to_owned(), "EROFS|ENOENT|EACCES|EPERM"));
    let table: Vec<(&str, &str)> =
        table.iter().map(|(command, expected)| (command.as_str(), *expected)).collect();
    observe(&worker, &source, &table);
}

#[test]
fn s34_masks_are_the_real_null_whatever_the_image_has_there() {
    let worker = Worker::new();
    for entry in [
        file("dev/null", "not the device"),
        symlink("dev/null", "/proc/1/environ"),
        file("proc/kcore", "image"),
    ] {
        let source = worker
            .image(&probe_image().layer(&[crate::support::dir("dev"), crate::support::dir("proc"), entry]))
            .source;
        let table = [
            ("/probe read /proc/kcore", "0|ENOENT|EACCES"),
            ("/probe read /proc/interrupts", "0"),
            ("stat -c '%F %t:%T' /dev/null", "character special file 1:3"),
            ("grep -c ' /proc/1/environ ' /proc/self/mountinfo", "0"),
        ];
        observe(&worker, &source, &table);
    }
}

#[test]
fn s35_dev_holds_the_listed_nodes_and_no_other_can_be_opened() {
    let (worker, source) = probe_worker();
    let devices = "console=c136:0 fd full=c1:7 mqueue null=c1:3 ptmx pts random=c1:8 shm stderr stdin stdout tty=c5:0 \
                   urandom=c1:9 zero=c1:5";
    let table = [
        ("/probe list /dev", devices),
        ("readlink /dev/ptmx", "pts/ptmx"),
        ("/probe mknod /sda b 8 0", "open EPERM"),
        ("/probe mknod /mem c 1 1", "open EPERM"),
        ("/probe mknod /kmsg c 1 11", "open EPERM"),
        ("/probe mknod /fuse c 10 229", "open EPERM"),
        ("/probe mknod /kvm c 10 232", "open EPERM"),
        ("/probe mknod /vda b 254 0", "open EPERM"),
        ("/probe mknod /null c 1 3", "open ok"),
        ("/probe mknod /zero c 1 5", "open ok"),
    ];
    observe(&worker, &source, &table);
}

#[test]
fn s36_a_tasks_view_of_its_control_groups_is_read_only() {
    let (worker, source) = probe_worker();
    let each = |probe: &str| {
        format!("for d in /sys/fs/cgroup/*/ /sys/fs/cgroup/; do [ ! -d $d ] || {probe}; done | sort -u")
    };
    let table = [
        (each("/probe mkdir ${d}x"), "EROFS"),
        (each("[ ! -e ${d}release_agent ] || /probe write ${d}release_agent /x"), "|EROFS|EACCES"),
        (each("[ ! -e ${d}notify_on_release ] || /probe write ${d}notify_on_release 1"), "|EROFS"),
        (each("[ ! -e ${d}cgroup.procs ] || /probe write ${d}cgroup.procs 1"), "EROFS"),
        ("/probe mount cgroup memory".to_owned(), "EPERM"),
        ("/probe mount cgroup2".to_owned(), "EPERM"),
        ("grep -vc ':/$' /proc/self/cgroup".to_owned(), "0"),
        ("find /sys/fs/cgroup -mindepth 2 -type d | wc -l".to_owned(), "0"),
    ];
    let table: Vec<(&str, &str)> =
        table.iter().map(|(command, expected)| (command.as_str(), *expected)).collect();
    observe(&worker, &source, &table);
}

#[test]
fn s40_nothing_of_the_kernels_log_keys_or_other_tasks_ipc_is_seen() {
    let (worker, source) = probe_worker();
    let name = worker.scratch().name().to_owned();
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let shared = format!("/dev/shm/{name}");
    fs::write(&shared, "of the host").unwrap();
    let abstract_probe = format!("/probe abstract {name}");
    let table = [
        ("dmesg 2>&1 | head -1", "dmesg: klogctl: Operation not permitted"),
        ("/probe read /proc/keys", "0|ENOENT"),
        ("/probe call 250 0 -3 0", "EPERM"), // keyctl(KEYCTL_GET_KEYRING_ID, SESSION)
        (abstract_probe.as_str(), "ECONNREFUSED"),
        ("/probe list /dev/shm", ""),
        ("/probe list /dev/mqueue", ""),
        ("wc -l < /proc/sysvipc/shm", "1"),
    ];
    observe(&worker, &source, &table);
    fs::remove_file(&shared).unwrap();
}

#[test]
fn s42_the_command_has_no_descriptor_but_its_three() {
    let (worker, source) = probe_worker();
    assert_eq!(worker.run(&source, &["/probe", "fds"]).expect(0, "fds").output(), "0 1 2\n");
}

#[test]
fn s45_a_task_sees_nothing_of_the_worker() {
    let (worker, source) = probe_worker();
    let script = "tr '\\0' '\\n' < /proc/1/environ; tr '\\0' ' ' < /proc/1/cmdline; echo; cat /proc/1/maps; ls -l /proc/1/exe
                  readlink /proc/1/cwd; ls /proc | grep -c '^[0-9]'; hostname";
    let output = worker.run(&source, &["/bin/sh", "-c", script]).expect(0, "a look around").output();
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let secrets =
        ["DOCKER_WORKER_RUN", "DOCKER_WORKER_DATA", "docker-worker-runtime", worker.data().to_str().unwrap()]
            .map(str::to_owned);
    for secret in secrets
        .iter()
        .map(String::as_str)
        .chain([env!("CARGO_MANIFEST_DIR"), env!("CARGO_BIN_EXE_docker-worker")])
    {
        assert!(!output.contains(secret), "{secret}: {output}");
    }
    assert!(!output.ends_with(&format!("\n{host}")), "the host's name is seen: {output}");
    // The shell, and ls and grep beside it.
    assert!(output.contains("\n3\n") || output.contains("\n2\n"), "{output}");
}
