//! Mounts as the container's `mountinfo` and its files show them.
use crate::busybox::Bundle;
use serde_json::{Value, json};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

fn tmpfs(target: &str, options: &[&str]) -> Value {
    json!({ "destination": target, "type": "tmpfs", "source": "tmpfs", "options": options })
}

/// A bundle with `mounts` behind the usual ones.
fn bundle(script: &str, mounts: Vec<Value>) -> Bundle {
    let mut bundle = Bundle::shell(script);
    mounts.into_iter().for_each(|mount| bundle.push("/mounts", mount));
    bundle
}

#[test]
fn an_option_that_means_nothing_to_a_bind_or_to_control_groups_is_refused_by_name() {
    for option in ["roo", "sync", "dirsync", "huge=always", "lazytime", "mand"] {
        let mut bundle = Bundle::shell("echo ran");
        let source = bundle.path("");
        bundle.bind(&source, "/x", &["bind", option]);
        let ran = bundle.run();
        assert_eq!((ran.status, ran.stdout.as_str()), (1, ""), "{option}: {ran:?}");
        let key = option.split('=').next().unwrap();
        assert!(ran.stderr.contains("/options/1") && ran.stderr.contains(key), "{ran:?}");
    }
    let mut bundle = Bundle::shell("echo ran");
    let source = bundle.path("");
    bundle.bind(&source, "/x", &["bind", "ro", "size=1m", "mode=755"]);
    assert_eq!(bundle.run().stdout, "ran\n", "what is for a tmpfs is passed on with every mount");
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    let cgroup = mounts.iter_mut().find(|mount| mount["type"] == "cgroup").unwrap();
    cgroup["options"] = json!(["ro", "nsdelegate", "memory"]);
    let ran = bundle.run();
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("\"nsdelegate\"") && ran.stderr.contains("\"memory\""), "{ran:?}");
}

#[test]
fn every_option_that_is_advertised_can_be_mounted_with() {
    let features: Value = serde_json::from_str(&Bundle::shell("").tell(&["features"]).stdout).unwrap();
    let options = features["mountOptions"].as_array().unwrap().clone();
    let mut bundle = Bundle::shell("grep -c ' /every/' /proc/self/mountinfo");
    let source = bundle.path("source");
    std::fs::create_dir(&source).unwrap();
    for (index, option) in options.iter().chain([&json!("rnorelatime")]).enumerate() {
        let target = format!("/every/{index}");
        match option.as_str().unwrap() {
            option @ ("bind" | "rbind") => bundle.bind(&source, &target, &[option]),
            option => bundle.push("/mounts", tmpfs(&target, &[option])),
        }
    }
    assert_eq!(bundle.output().trim(), (options.len() + 1).to_string());
}

#[test]
fn only_a_procfs_is_mounted_on_proc_by_whatever_name() {
    let fakes = [
        tmpfs("/proc", &[]),
        tmpfs("/proc/../proc/", &[]),
        tmpfs("/link", &[]),
        tmpfs("/link/sys", &[]),
        tmpfs("/proc/sys", &[]),
        json!({ "destination": "/proc", "type": "sysfs", "source": "sysfs" }),
        json!({ "destination": "/proc", "type": "bind", "source": "fake", "options": ["rbind"] }),
        json!({ "destination": "/link", "type": "bind", "source": "fake", "options": ["rbind"] }),
        json!({ "destination": "/proc", "type": "bind", "source": "/proc/sys", "options": ["rbind"] }),
        json!({ "destination": "/link", "type": "proc", "source": "proc" }),
    ];
    for fake in fakes {
        let bundle = bundle("echo ran", vec![fake.clone()]);
        symlink("/proc", bundle.rootfs().join("link")).unwrap();
        std::fs::create_dir_all(bundle.path("fake/self")).unwrap();
        let ran = bundle.run();
        assert_eq!((ran.status, ran.stdout.as_str()), (1, ""), "{fake}: {ran:?}");
        bundle.assert_nothing_left();
    }
    let hosts = json!({ "destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"] });
    let real = bundle("test -d /proc/self && echo ran", vec![hosts]);
    assert_eq!(real.output(), "ran\n");
}

#[test]
fn a_regular_file_may_stand_for_what_lxcfs_serves_and_nothing_else() {
    let mut lxcfs = Bundle::shell("cat /proc/uptime /proc/meminfo");
    for name in ["uptime", "meminfo"] {
        let source = lxcfs.path(name);
        std::fs::write(&source, format!("{name}\n")).unwrap();
        lxcfs.bind(&source, &format!("/proc/{name}"), &["bind"]);
    }
    assert_eq!(lxcfs.output(), "uptime\nmeminfo\n");
    for (source, target) in [("/dev/null", "/proc/uptime"), ("/etc/hostname", "/proc/version")] {
        let mut bundle = Bundle::shell("echo ran");
        bundle.bind(Path::new(source), target, &["bind"]);
        assert_eq!(bundle.run().status, 1, "{target}");
    }
}

#[test]
fn what_is_read_only_gets_mount_points_nodes_and_directories_first() {
    let mut bundle = bundle(
        "for path in /ro /dev / ; do touch $path/x 2>/dev/null && echo wrote $path; done; \
         touch /ro/in/x && ls /ro/file && pwd && stat -c %a . && test -c /dev/null && echo done",
        vec![tmpfs("/ro", &["ro"]), tmpfs("/ro/in/x/..", &["mode=700"])],
    );
    let source = bundle.path("source");
    std::fs::write(&source, "").unwrap();
    bundle.bind(&source, "/ro/file", &["bind"]);
    bundle.config["root"]["readonly"] = json!(true);
    bundle.config["process"]["cwd"] = json!("/made/here");
    for mount in bundle.config["mounts"].as_array_mut().unwrap() {
        if mount["destination"] == "/dev" {
            mount["options"].as_array_mut().unwrap().push(json!("ro"));
        }
    }
    assert_eq!(bundle.output(), "/ro/file\n/made/here\n755\ndone\n");
}

#[test]
fn a_bind_shows_what_was_mounted_before_it() {
    for (options, of_root) in
        [(&["rbind"][..], "rprivate"), (&["rbind", "rslave"], "rprivate"), (&["rbind"], "rslave")]
    {
        let mut bundle = bundle("ls /shown", vec![tmpfs("/early", &[])]);
        let source = bundle.path("source");
        std::fs::write(&source, "").unwrap();
        bundle.bind(&source, "/early/file", &["bind"]);
        let early = bundle.rootfs().join("early");
        bundle.bind(&early, "/shown", options);
        bundle.config["linux"]["rootfsPropagation"] = of_root.into();
        assert_eq!(bundle.output(), "file\n", "{options:?} {of_root}");
    }
}

#[test]
fn a_bind_from_inside_the_root_follows_no_link_out_of_it() {
    let mut bundle = Bundle::shell("cat /shown/file");
    let host = bundle.path("host");
    std::fs::create_dir_all(&host).unwrap();
    std::fs::write(host.join("file"), "of the host\n").unwrap();
    let inside = bundle.rootfs().join(host.strip_prefix("/").unwrap());
    std::fs::create_dir_all(&inside).unwrap();
    std::fs::write(inside.join("file"), "of the image\n").unwrap();
    symlink(&host, bundle.rootfs().join("link")).unwrap();
    let link = bundle.rootfs().join("link");
    bundle.bind(&link, "/shown", &["rbind"]);
    assert_eq!(bundle.output(), "of the image\n");
    // By its name it is still the host's.
    let climbing = bundle.rootfs().join("../host");
    bundle.config["mounts"].as_array_mut().unwrap().pop();
    bundle.bind(&climbing, "/shown", &["rbind"]);
    assert_eq!(bundle.output(), "of the host\n");
}

#[test]
fn a_mount_is_listed_behind_the_one_that_it_is_on() {
    let mut bundle = bundle(
        "awk '$5 ~ \"^/a\" && seen[$2] { count++ } { seen[$1] = 1 } END { print count }' /proc/self/mountinfo",
        vec![tmpfs("/a", &[])],
    );
    let source = bundle.path("");
    bundle.bind(&source, "/a/b", &["rbind"]);
    bundle.push("/mounts", tmpfs("/a/b/c", &[]));
    assert_eq!(bundle.output(), "3\n");
}

#[test]
fn a_tmpfs_takes_the_mode_of_its_mount_point() {
    let mounts = vec![tmpfs("/there", &[]), tmpfs("/new", &[]), tmpfs("/given", &["mode=1777"])];
    let bundle = bundle("stat -c %a /there /new /given", mounts);
    for name in ["there", "given"] {
        let path = bundle.rootfs().join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o711)).unwrap();
    }
    assert_eq!(bundle.output(), "711\n1777\n1777\n");
}

#[test]
fn a_tmpfs_may_start_with_what_the_image_has_there() {
    let script = "cd /data && find . | sort | xargs stat -c '%n %F %a %u %Y' && cat a/file && readlink link && \
                  touch new 2>/dev/null || echo read-only";
    let mut bundle =
        bundle(script, vec![tmpfs("/data", &["tmpcopyup", "ro"]), tmpfs("/none", &["tmpcopyup"])]);
    let data = bundle.rootfs().join("data");
    std::fs::create_dir_all(data.join("a")).unwrap();
    std::fs::write(data.join("a/file"), "text\n").unwrap();
    std::fs::set_permissions(data.join("a/file"), PermissionsExt::from_mode(0o4751)).unwrap();
    symlink("/etc/shadow", data.join("link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, data.join("pipe"), rustix::fs::Mode::RUSR).unwrap();
    for entry in ["", "a", "a/file", "link", "pipe"] {
        std::os::unix::fs::lchown(data.join(entry), Some(7), Some(7)).unwrap();
    }
    std::fs::set_permissions(data.join("a/file"), PermissionsExt::from_mode(0o4751)).unwrap();
    let epoch = std::time::SystemTime::UNIX_EPOCH;
    std::fs::File::open(data.join("a/file")).unwrap().set_modified(epoch).unwrap();
    let output = bundle.output();
    let lines: Vec<&str> = output.lines().collect();
    assert!(lines.contains(&"./a/file regular file 4751 7 0"), "{output}");
    for start in
        [". directory 755 7 ", "./a directory 755 7 ", "./link symbolic link 777 7 ", "./pipe fifo 400 7 "]
    {
        assert!(lines.iter().any(|line| line.starts_with(start)), "{start}: {output}");
    }
    assert!(output.ends_with("text\n/etc/shadow\nread-only\n"), "{output}");
    // What the container changes stays its own.
    assert!(!data.join("new").exists());

    bundle.config["mounts"].as_array_mut().unwrap().push(json!({
        "destination": "/x", "type": "proc", "options": ["tmpcopyup"],
    }));
    assert!(bundle.run().stderr.contains("/options/0"));
}

#[test]
fn what_is_too_long_for_the_kernel_is_said_with_its_place() {
    let long = "x".repeat(256);
    let options = format!("uid={long}");
    for (mount, named) in [
        (json!({ "destination": "/x", "type": "tmpfs", "source": long }), "/source"),
        (tmpfs("/x", &[&options]), "/options/0"),
    ] {
        let ran = bundle("echo ran", vec![mount]).run();
        assert_eq!(ran.status, 1);
        assert!(ran.stderr.contains(named) && ran.stderr.contains("255"), "{ran:?}");
    }
}

/// The optional fields of each `/mnt*` in the container: `shared:7 master:3`.
fn events(root: &str, options: &[&str]) -> Vec<String> {
    let mut bundle = Bundle::shell("grep ' /mnt' /proc/self/mountinfo | sort -k5");
    bundle.config["linux"]["rootfsPropagation"] = json!(root);
    let host = SharedMount::new();
    for (index, option) in options.iter().enumerate() {
        let options: Vec<&str> = ["rbind", *option].into_iter().filter(|option| !option.is_empty()).collect();
        bundle.bind(&host.path, &format!("/mnt{index}"), &options);
    }
    let fields = |line: &str| {
        let fields = line.split(' ').skip(6).take_while(|field| *field != "-");
        // Of a group only whether it is the host's counts.
        fields.map(|field| field.replace(&format!(":{}", host.group), ":host")).collect::<Vec<_>>().join(" ")
    };
    let kinds = |field: String| match field.as_str() {
        own if own.starts_with("shared:") && !own.starts_with("shared:host") => {
            own.split_once(' ').map_or("shared".to_owned(), |(_, master)| format!("shared {master}"))
        }
        _ => field,
    };
    bundle.output().lines().map(fields).map(kinds).collect()
}

/// A shared tmpfs of the host's; gone with this.
struct SharedMount {
    path: std::path::PathBuf,
    group: String,
    _directory: tempfile::TempDir,
}

impl SharedMount {
    fn new() -> SharedMount {
        use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        mount("test", path, "tmpfs", MountFlags::empty(), None).unwrap();
        mount_change(path, MountPropagationFlags::SHARED).unwrap();
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = table.lines().find(|line| line.contains(&format!(" {} ", path.display()))).unwrap();
        let group = line.split(' ').find_map(|field| field.strip_prefix("shared:")).unwrap().to_owned();
        SharedMount { path: path.to_owned(), group, _directory: directory }
    }
}

impl Drop for SharedMount {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.path, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn mount_events_go_where_the_options_and_the_roots_propagation_say() {
    let options = ["rshared", "rslave", "rprivate", ""];
    for (root, expected) in [
        ("", ["shared master:host", "master:host", "", ""]),
        ("rprivate", ["shared master:host", "master:host", "", ""]),
        ("rslave", ["shared master:host", "master:host", "", "master:host"]),
        ("rshared", ["shared:host", "master:host", "", "shared:host"]),
    ] {
        assert_eq!(events(root, &options), expected, "{root}");
    }
}

#[test]
fn a_mount_of_the_hosts_appears_in_a_slave_and_one_inside_stays_there() {
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
    let mut bundle = Bundle::shell("exit 0");
    let host = SharedMount::new();
    let late = host.path.join("late");
    std::fs::create_dir(&late).unwrap();
    std::fs::create_dir(host.path.join("inside")).unwrap();
    bundle.bind(&host.path, "/mnt", &["rbind", "rslave"]);
    bundle.push("/mounts", tmpfs("/mnt/inside", &[]));
    assert_eq!(bundle.tell(&["create", &bundle.id]).status, 0);
    let state: Value = serde_json::from_str(&bundle.tell(&["state", &bundle.id]).stdout).unwrap();
    mount("test", &late, "tmpfs", MountFlags::empty(), None).unwrap();
    let seen = std::fs::read_to_string(format!("/proc/{}/mountinfo", state["pid"])).unwrap();
    unmount(&late, UnmountFlags::DETACH).unwrap();
    let here = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert_eq!(bundle.tell(&["delete", "-f", &bundle.id]).status, 0);
    assert!(seen.contains(" /mnt/late ") && seen.contains(" /mnt/inside "), "{seen}");
    assert!(!here.contains("/inside "), "{here}");
}

#[test]
fn the_roots_own_propagation_never_reaches_the_host() {
    for (root, expected) in [("rshared", true), ("shared", true), ("rslave", false), ("private", false)] {
        let mut bundle = Bundle::shell("grep ' / / \\| / rw\\| / ro' /proc/self/mountinfo | grep -c shared:");
        bundle.config["linux"]["rootfsPropagation"] = json!(root);
        let shared = bundle.run().stdout.trim() == "1";
        assert_eq!(shared, expected, "{root}");
        // Nothing of what was mounted in the container came out.
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let own = bundle.rootfs().display().to_string();
        assert!(!mounts.contains(&own), "{mounts}");
    }
}

#[test]
fn the_hosts_own_namespace_is_not_changed_even_if_it_is_given_by_path() {
    for (kind, file) in [("uts", "uts"), ("network", "net")] {
        let mut bundle = Bundle::shell("echo ran");
        let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
        let namespace = namespaces.iter_mut().find(|namespace| namespace["type"] == kind).unwrap();
        namespace["path"] = json!(format!("/proc/self/ns/{file}"));
        bundle.config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "0" });
        let ran = bundle.run();
        assert_eq!((ran.status, ran.stdout.as_str()), (1, ""), "{kind}: {ran:?}");
        assert!(ran.stderr.contains("this host's own"), "{ran:?}");
        bundle.assert_nothing_left();
    }
}

#[test]
fn the_multiplexer_of_ptys_is_the_containers_own() {
    let mut bundle = Bundle::shell("readlink /dev/ptmx");
    bundle.config["linux"]["devices"] = json!([{ "path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2 }]);
    assert_eq!(bundle.output(), "pts/ptmx\n");
}

#[test]
fn a_user_namespace_gets_no_other_node_than_the_one_asked_for() {
    let mut bundle = Bundle::shell("echo ran");
    bundle.push("/linux/namespaces", json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    bundle.config["linux"]["uidMappings"] = map.clone();
    bundle.config["linux"]["gidMappings"] = map;
    bundle.config["linux"]["devices"] = json!([{ "path": "/dev/zero", "type": "c", "major": 1, "minor": 8 }]);
    for entry in ["", "bin", "bin/busybox"] {
        std::os::unix::fs::chown(bundle.rootfs().join(entry), Some(100_000), Some(100_000)).unwrap();
    }
    let ran = bundle.run();
    assert_eq!((ran.status, ran.stdout.as_str()), (1, ""), "{ran:?}");
    assert!(ran.stderr.contains("/dev/zero"), "{ran:?}");
}

#[test]
fn a_node_of_the_images_own_gets_the_mode_that_is_asked_for() {
    let mut bundle = Bundle::shell("stat -c %a /dev/null");
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    let dev = bundle.rootfs().join("dev");
    std::fs::create_dir(&dev).unwrap();
    let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::from_raw_mode(0o600));
    let number = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(rustix::fs::CWD, dev.join("null"), kind, mode, number).unwrap();
    assert_eq!(bundle.output(), "666\n");
}
