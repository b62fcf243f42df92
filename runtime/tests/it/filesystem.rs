//! What a hostile image can do with its file system before and while a container starts: nothing.
use crate::busybox::Bundle;
use serde_json::json;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// A directory of the host with a file in it, which must stay as it is.
fn canary(bundle: &Bundle) -> std::path::PathBuf {
    let directory = bundle.path("host");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("canary"), "alive").unwrap();
    directory
}

fn assert_alive(directory: &Path) {
    let names: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["canary"]);
    assert_eq!(std::fs::read_to_string(directory.join("canary")).unwrap(), "alive");
}

#[test]
fn s14_proc_sys_or_dev_that_is_a_link_stops_the_start() {
    for name in ["proc", "sys", "dev"] {
        for through in ["host", "second"] {
            let bundle = Bundle::shell("echo ran");
            let host = canary(&bundle);
            let rootfs = bundle.rootfs();
            symlink(&host, rootfs.join("second")).unwrap();
            let target = if through == "host" { host.clone() } else { "/second".into() };
            symlink(target, rootfs.join(name)).unwrap();
            let ran = bundle.run();
            assert_eq!((ran.status, ran.stdout.as_str()), (1, ""), "{name}: {ran:?}");
            assert!(ran.stderr.contains(&format!("/{name}")), "{ran:?}");
            assert_alive(&host);
            bundle.assert_nothing_left();
        }
    }
}

#[test]
fn a_mount_through_a_link_lands_inside_the_root() {
    let mut bundle = Bundle::shell("cat /data/x; readlink /data; cat /etc/resolv.conf");
    let host = canary(&bundle);
    let rootfs = bundle.rootfs();
    symlink(&host, rootfs.join("data")).unwrap();
    std::fs::create_dir(rootfs.join("etc")).unwrap();
    symlink("../../../../run/resolve/stub", rootfs.join("etc/resolv.conf")).unwrap();
    std::fs::create_dir(bundle.path("source")).unwrap();
    std::fs::write(bundle.path("source/x"), "inside\n").unwrap();
    std::fs::write(bundle.path("resolv"), "nameserver\n").unwrap();
    let (source, resolv) = (bundle.path("source"), bundle.path("resolv"));
    bundle.bind(&source, "/data", &["rbind", "ro"]);
    bundle.bind(&resolv, "/etc/resolv.conf", &["bind", "ro"]);
    assert_eq!(bundle.output(), format!("inside\n{}\nnameserver\n", host.display()));
    assert_alive(&host);
}

/// Onto the root nothing would be seen of it; in the kernel's directories it would stand for what the Spec does not
/// mount there, or get device nodes into a directory of the host.
#[test]
fn no_link_of_the_image_leads_a_mount_onto_the_root_or_into_proc_sys_or_dev() {
    for link in ["/", "..", "/proc", "../../proc", "/proc/self/fd", "/sys", "/dev", "/dev/net", "again"] {
        for (without, kind) in [("/none", "bind"), ("/proc", "bind"), ("/sys", "bind"), ("/none", "tmpfs")] {
            let mut bundle = Bundle::shell("echo ran");
            let (host, rootfs) = (canary(&bundle), bundle.rootfs());
            symlink(link, rootfs.join("link")).unwrap();
            symlink("dev", rootfs.join("again")).unwrap();
            for pointer in ["/linux/maskedPaths", "/linux/readonlyPaths"] {
                *bundle.config.pointer_mut(pointer).unwrap() = json!([]);
            }
            let mounts = bundle.config["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| mount["destination"] != without);
            bundle.push("/mounts", json!({ "destination": "/link", "type": kind, "source": host }));
            let ran = bundle.run();
            assert_eq!(
                (ran.status, ran.stdout.as_str()),
                (1, ""),
                "{link}, {kind} without {without}: {ran:?}"
            );
            assert!(ran.stderr.contains("/link"), "{ran:?}");
            assert_alive(&host);
            bundle.assert_nothing_left();
        }
    }
}

#[test]
fn s34_a_null_device_that_is_something_else_is_never_used_as_a_mask() {
    // /dev of our own: the image's is covered.
    let bundle = Bundle::shell("test -c /dev/null && ! cat /proc/keys | grep -q .");
    std::fs::create_dir(bundle.rootfs().join("dev")).unwrap();
    std::fs::write(bundle.rootfs().join("dev/null"), "fake").unwrap();
    bundle.output();
    assert_eq!(std::fs::read_to_string(bundle.rootfs().join("dev/null")).unwrap(), "fake");

    // The image's own /dev: a link or a regular file in the device's place stops the start.
    for fake in ["link", "file"] {
        let mut bundle = Bundle::shell("echo ran");
        let host = canary(&bundle);
        bundle.config["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        let dev = bundle.rootfs().join("dev");
        std::fs::create_dir(&dev).unwrap();
        match fake {
            "link" => symlink(host.join("canary"), dev.join("null")).unwrap(),
            _ => std::fs::write(dev.join("null"), "fake").unwrap(),
        }
        let ran = bundle.run();
        assert_eq!((ran.status, ran.stdout.as_str()), (1, ""), "{ran:?}");
        assert!(ran.stderr.contains("/dev/null"), "{ran:?}");
        assert_alive(&host);
    }
}

#[test]
fn a_mask_or_read_only_path_that_is_a_link_stops_the_start() {
    for list in ["maskedPaths", "readonlyPaths"] {
        let mut bundle = Bundle::shell("echo ran");
        symlink("/proc/sys", bundle.rootfs().join("link")).unwrap();
        bundle.push(&format!("/linux/{list}"), json!("/link"));
        let ran = bundle.run();
        assert_eq!((ran.status, ran.stdout.as_str()), (1, ""), "{ran:?}");
        bundle.assert_nothing_left();
    }
}

#[test]
fn binds_into_proc_or_sys_are_refused_by_name_and_through_links() {
    for destination in ["/proc/version", "/sys/kernel/notes", "/proc/../proc/self", "/link/version"] {
        let mut bundle = Bundle::shell("echo ran");
        symlink("/proc", bundle.rootfs().join("link")).unwrap();
        let host = canary(&bundle);
        bundle.bind(&host.join("canary"), destination, &["bind"]);
        let ran = bundle.run();
        assert_eq!((ran.status, ran.stdout.as_str()), (1, ""), "{destination}: {ran:?}");
        bundle.assert_nothing_left();
    }
}

#[test]
fn s43_a_working_directory_of_the_host_is_refused() {
    let outside = "test \"$(pwd)\" = / -o -d . && cat ../../../etc/hostname 2>/dev/null; pwd";
    let host_name = std::fs::read_to_string("/etc/hostname").unwrap_or_else(|_| "nothing".into());
    for number in 3..64 {
        let mut bundle = Bundle::shell(outside);
        let directory = format!("/proc/self/fd/{number}");
        if number % 2 == 0 {
            symlink(&directory, bundle.rootfs().join("link")).unwrap();
            bundle.config["process"]["cwd"] = json!("/link");
        } else {
            bundle.config["process"]["cwd"] = json!(directory);
        }
        let ran = bundle.run();
        assert!(ran.status == 1 || !ran.stdout.contains(host_name.trim()), "{number}: {ran:?}");
        assert!(ran.status != 0 || ran.stdout.starts_with('/'), "{number}: {ran:?}");
    }
}

#[test]
fn s44_a_mount_point_that_is_swapped_for_a_link_is_never_left_through_it() {
    let mut bundle = Bundle::shell("exit 0");
    let host = canary(&bundle);
    let shared = bundle.path("shared");
    std::fs::create_dir_all(shared.join("inner")).unwrap();
    symlink("/", shared.join("link")).unwrap();
    bundle.bind(&shared, "/shared", &["rbind", "rw"]);
    let inner = shared.join("inner").join(host.strip_prefix("/").unwrap());
    std::fs::create_dir_all(&inner).unwrap();
    // Through the link this would be the canary's directory on the host.
    let destination = format!("/shared/inner{}", host.display());
    bundle.config["mounts"].as_array_mut().unwrap().push(json!({
        "type": "tmpfs", "source": "trap", "destination": destination, "options": ["size=4k"],
    }));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let exchange = rustix::fs::RenameFlags::EXCHANGE;
            let (inner, link) = (shared.join("inner"), shared.join("link"));
            // Each exchange makes lookups everywhere on the host start again: without pauses a slow machine, as an emulated
            // one is, gets nowhere.
            let pause = rustix::event::Timespec { tv_sec: 0, tv_nsec: 200_000 };
            while !done.load(Ordering::Relaxed) {
                for _ in 0..100 {
                    rustix::fs::renameat_with(rustix::fs::CWD, &inner, rustix::fs::CWD, &link, exchange)
                        .unwrap();
                }
                rustix::event::poll(&mut [], Some(&pause)).unwrap();
            }
        });
        // Also when an assertion fails: the scope waits for the other thread.
        let _done = StoreOnDrop(&done);
        for _ in 0..60 {
            let ran = bundle.run();
            assert!(ran.status == 0 || ran.status == 1, "{ran:?}");
            assert_alive(&host);
        }
    });
    bundle.assert_nothing_left();
}

/// Becomes true when this goes.
struct StoreOnDrop<'a>(&'a AtomicBool);

impl Drop for StoreOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The installed executable, which a test gives a copy of, so that a success of the attack hurts nobody.
fn own_copy(bundle: &Bundle) -> std::path::PathBuf {
    let copy = bundle.path("runtime");
    std::fs::copy(env!("CARGO_BIN_EXE_docker-worker-runtime"), &copy).unwrap();
    copy
}

#[test]
fn s41_the_executable_cannot_be_written_from_inside() {
    let attacks = [
        // Executed by its own name: the runtime's help, and nothing to write to.
        (vec!["/proc/self/exe", "--help"], "usage"),
        // A script whose interpreter is the runtime itself (CVE-2019-5736).
        (vec!["/attack", "--help"], ""),
    ];
    for (arguments, expected) in attacks {
        let mut bundle = Bundle::new(&arguments);
        let attack = bundle.rootfs().join("attack");
        std::fs::write(&attack, "#!/proc/self/exe\n").unwrap();
        std::fs::set_permissions(&attack, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        // A dynamic executable finds its libraries only if the image has them.
        for library in ["/lib", "/lib64", "/usr/lib"] {
            bundle.bind(Path::new(library), library, &["rbind", "ro"]);
        }
        let copy = own_copy(&bundle);
        let before = std::fs::read(&copy).unwrap();
        drop(bundle.command(&[])); // Writes config.json.
        let output = Command::new(&copy)
            .arg("--root")
            .arg(bundle.path("state"))
            .args(["run", "--bundle"])
            .arg(bundle.path(""))
            .arg(&bundle.id)
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains(expected), "{output:?}");
        assert_eq!(std::fs::read(&copy).unwrap(), before);
        bundle.assert_nothing_left();
    }
}

#[test]
fn s41_the_executing_copy_is_on_a_read_only_mount() {
    // Until it executes the command, PID 1 is the runtime; its monitor stays it.
    let bundle = Bundle::new(&["sh", "-c", "exec sleep 1000"]);
    assert_eq!(bundle.tell(&["create", &bundle.id]).status, 0);
    let state: serde_json::Value = serde_json::from_str(&bundle.tell(&["state", &bundle.id]).stdout).unwrap();
    let exe = format!("/proc/{}/exe", state["pid"]);
    let opened = std::fs::OpenOptions::new().write(true).open(&exe);
    let errno = opened.unwrap_err().raw_os_error();
    assert!([30, 26, 1, 13].contains(&errno.unwrap()), "EROFS, ETXTBSY, EPERM or EACCES: {errno:?}");
    assert!(rustix::fs::statvfs(&exe).unwrap().f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    assert_eq!(bundle.tell(&["delete", "-f", &bundle.id]).status, 0);
}

#[test]
fn the_executable_is_protected_before_libc_has_started() {
    let bundle = Bundle::shell("exit 3");
    let trace = bundle.path("trace");
    let mut command = Command::new("strace");
    command
        .args(["--trace", "open_tree,mount_setattr,execve,execveat,prctl,rt_sigaction", "--output"])
        .arg(&trace);
    let run = bundle.command(&["run", &bundle.id]);
    command.arg(run.get_program()).args(run.get_args()).current_dir(run.get_current_dir().unwrap());
    assert_eq!(command.status().unwrap().code(), Some(3));
    let calls = std::fs::read_to_string(&trace).unwrap();
    let names = calls.lines().filter_map(|line| line.split('(').next()).take(5).collect::<Vec<_>>();
    // Rust's start ignores SIGPIPE, so a signal is the first that it sets.
    assert_eq!(names, ["execve", "open_tree", "mount_setattr", "execveat", "rt_sigaction"], "{calls}");
    bundle.assert_nothing_left();
}

#[test]
fn s45_the_first_process_shows_nothing_of_the_runtime() {
    let mut bundle = Bundle::shell(
        "cat /proc/1/environ /proc/1/cmdline | tr '\\0' '\\n'; grep -c docker-worker /proc/1/maps; \
         ls -d /proc/[0-9]* | grep -v -e /proc/1$ -e \"/proc/$$\" | wc -l; ls -l /proc/1/fd | grep -c runtime",
    );
    bundle.push("/process/env", json!("OWN=yes"));
    let ran = bundle.run();
    assert!(!ran.stdout.contains("docker-worker-runtime"), "{ran:?}");
    assert!(ran.stdout.contains("OWN=yes") && !ran.stdout.contains("CARGO"), "{ran:?}");
}

#[test]
fn a_read_only_root_and_read_only_binds_cannot_be_written() {
    let mut bundle = Bundle::shell(
        "for path in /x /ro/x /ro/below/x /proc/sys/x; do touch $path 2>/dev/null && echo wrote $path; done; \
         touch /rw/x && echo wrote /rw/x",
    );
    let source = bundle.path("source");
    std::fs::create_dir_all(source.join("below")).unwrap();
    bundle.config["root"]["readonly"] = json!(true);
    for name in ["ro", "rw", "proc", "dev", "sys"] {
        std::fs::create_dir(bundle.rootfs().join(name)).unwrap();
    }
    bundle.bind(&source, "/ro", &["rbind", "rro"]);
    bundle.bind(&source, "/rw", &["rbind", "rw", "nosuid", "nodev"]);
    assert_eq!(bundle.output(), "wrote /rw/x\n");
}

#[test]
fn a_user_gets_its_numbers_groups_umask_and_directory() {
    let mut bundle = Bundle::shell("id -u; id -g; id -G; umask; pwd; touch made; stat -c '%u %a' made");
    bundle.config["process"]["user"] =
        json!({ "uid": 1000, "gid": 100, "additionalGids": [5, 6], "umask": 0o027 });
    bundle.config["process"]["cwd"] = json!("/home/of/user");
    std::fs::create_dir_all(bundle.rootfs().join("home/of/user")).unwrap();
    std::os::unix::fs::chown(bundle.rootfs().join("home/of/user"), Some(1000), Some(100)).unwrap();
    assert_eq!(bundle.output(), "1000\n100\n100 5 6\n0027\n/home/of/user\n1000 640\n");
}

#[test]
fn a_user_namespace_maps_users_and_shows_the_hosts_devices() {
    let mut bundle = Bundle::shell("cat /proc/self/uid_map; id -u; echo x > /dev/null && echo null works");
    bundle.push("/linux/namespaces", json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    bundle.config["linux"]["uidMappings"] = map.clone();
    bundle.config["linux"]["gidMappings"] = map;
    for entry in ["", "bin", "bin/busybox"] {
        std::os::unix::fs::chown(bundle.rootfs().join(entry), Some(100_000), Some(100_000)).unwrap();
    }
    let output = bundle.output();
    let words: Vec<_> = output.split_whitespace().collect();
    assert_eq!(words, ["0", "100000", "65536", "0", "null", "works"]);
}

#[test]
fn namespaces_are_joined_by_their_paths() {
    let holder = Bundle::shell("exec sleep 1000");
    assert_eq!(holder.tell(&["create", &holder.id]).status, 0);
    let state: serde_json::Value = serde_json::from_str(&holder.tell(&["state", &holder.id]).stdout).unwrap();
    let namespace = |kind: &str| format!("/proc/{}/ns/{kind}", state["pid"]);
    let mut bundle =
        Bundle::shell("for kind in net ipc uts; do readlink /proc/self/ns/$kind; done; ls -d /proc/1");
    bundle.config["hostname"] = json!("");
    bundle.config["linux"]["namespaces"] = json!([
        { "type": "mount" },
        { "type": "pid", "path": namespace("pid") },
        { "type": "network", "path": namespace("net") },
        { "type": "ipc", "path": namespace("ipc") },
        { "type": "uts", "path": namespace("uts") },
    ]);
    let link = |kind: &str| std::fs::read_link(namespace(kind)).unwrap().display().to_string();
    let expected = format!("{}\n{}\n{}\n/proc/1\n", link("net"), link("ipc"), link("uts"));
    assert_eq!(bundle.output(), expected);
    assert_eq!(holder.tell(&["delete", "-f", &holder.id]).status, 0);
}

#[test]
fn the_new_network_has_a_loopback_that_is_up_and_sysctls_of_its_own() {
    let mut bundle = Bundle::shell(
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start; hostname; ip addr show lo | grep -c 127.0.0.1",
    );
    bundle.config["linux"]["sysctl"] = json!({ "net.ipv4.ip_unprivileged_port_start": "7" });
    assert_eq!(bundle.output(), "7\ninside\n1\n");
}

#[test]
fn nodes_of_the_spec_get_their_owner_and_mode() {
    let mut bundle = Bundle::shell("stat -c '%t:%T %u %g %a' /dev/net/tun; stat -c '%F %a' /dev/pipe");
    bundle.config["linux"]["devices"] = json!([
        { "path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o640, "uid": 5, "gid": 6 },
        { "path": "/dev/pipe", "type": "p", "fileMode": 0o600 },
    ]);
    assert_eq!(bundle.output(), "a:c8 5 6 640\nfifo 600\n");
    assert_eq!(std::fs::metadata("/dev").unwrap().uid(), 0);
}
