//! A whole container on cgroup v2 and with AppArmor, seen from inside.
use crate::bundle::Bundle;
use crate::busybox;
use serde_json::json;
use std::io::Write;
use std::process::{Command, Stdio};

#[test]
fn s37_only_the_own_group_is_seen_and_nothing_can_be_changed() {
    let mut bundle = Bundle::new();
    bundle.config["linux"]["resources"]["memory"] = json!({ "limit": 32 << 20 });
    bundle.check(&[
        ("line /proc/self/cgroup", "0::/"),
        ("line /sys/fs/cgroup/pids.max", "64"),
        ("mkdir /sys/fs/cgroup/x", "EROFS"),
        ("write /sys/fs/cgroup/cgroup.procs 0", "EROFS"),
        ("write /sys/fs/cgroup/pids.max max", "EROFS"),
        ("write /sys/fs/cgroup/memory.max max", "EROFS"),
        ("open /sys/fs/cgroup/cgroup.kill w", "EROFS"),
        ("mount cgroup2", "EPERM"),
    ]);
    assert!(bundle.control_groups().is_empty());
}

#[test]
fn limits_and_device_rules_hold_inside() {
    let mut bundle = Bundle::new();
    bundle.config["linux"]["resources"]["memory"] = json!({ "limit": 32 << 20, "swap": 32 << 20 });
    bundle.config["linux"]["resources"]["cpu"] = json!({ "quota": 50000, "shares": 512 });
    bundle.check(&[
        ("forks 200", "63 EAGAIN"),
        ("touch 8", "ok"),
        ("line /sys/fs/cgroup/memory.swap.max", "0"),
        ("line /sys/fs/cgroup/cpu.max", "50000 100000"),
        ("line /sys/fs/cgroup/cpu.weight", "20"),
        ("mknod /sda b 8 0", "open EPERM"),
        ("mknod /null c 1 3", "open ok"),
    ]);
    assert_eq!(bundle.run("touch 64").status.code(), Some(128 + 9));
    assert!(bundle.control_groups().is_empty());
}

#[test]
fn s64_no_process_outlives_the_first() {
    let mut bundle = Bundle::new();
    bundle.check(&[("linger", "ok")]);
    assert!(bundle.control_groups().is_empty());
}

#[test]
fn s63_a_task_cannot_lower_its_score_for_the_oom_killer() {
    let mut bundle = Bundle::new();
    bundle.config["process"]["oomScoreAdj"] = json!(100);
    bundle
        .check(&[("line /proc/self/oom_score_adj", "100"), ("write /proc/self/oom_score_adj 99", "EACCES")]);
}

/// Loads or removes a profile.
fn parser(action: &str, name: &str) {
    let mut parser = Command::new("apparmor_parser").arg(action).stdin(Stdio::piped()).spawn().unwrap();
    let text =
        format!("profile {name} flags=(attach_disconnected) {{ file, capability, network, signal, }}\n");
    parser.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(parser.wait().unwrap().success(), "apparmor_parser {action}");
}

#[test]
fn exec_enters_the_profile_of_the_spec_or_the_one_that_is_asked_for() {
    let (name, other) = ("docker-worker-guest-exec", "docker-worker-guest-other");
    parser("--replace", name);
    parser("--replace", other);
    let mut bundle = busybox::Bundle::shell("exec sleep 1000");
    for no_new_privileges in [false, true] {
        bundle.config["process"]["apparmorProfile"] = json!(name);
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        bundle.up();
        let label = "cat /proc/self/attr/current";
        assert_eq!(bundle.inside(&[], label), format!("{name} (enforce)\n"));
        assert_eq!(bundle.inside(&["--user", "1000:1000"], label), format!("{name} (enforce)\n"));
        assert_eq!(bundle.inside(&["--apparmor", other], label), format!("{other} (enforce)\n"));
        let ran = bundle.exec(&["--apparmor", "docker-worker-guest-absent"], &["touch", "/ran"]);
        assert!(ran.status != 0 && ran.stderr.contains("docker-worker-guest-absent"), "{ran:?}");
        assert!(!bundle.rootfs().join("ran").exists());
        bundle.down();
    }
    parser("--remove", name);
    parser("--remove", other);
}

#[test]
fn a_holder_and_its_command_are_in_the_profile_and_hooks_of_the_host_are_not() {
    let name = "docker-worker-guest-hold";
    parser("--replace", name);
    let mut bundle = busybox::Bundle::shell("exec sleep 1000");
    bundle.config["process"]["apparmorProfile"] = json!(name);
    let hook = |stage: &str| {
        let file = bundle.path(stage);
        let script = format!("cat /proc/self/attr/current >{}", file.display());
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"] }])
    };
    let stages = ["createRuntime", "createContainer"];
    bundle.config["hooks"] = stages.iter().map(|stage| (*stage, hook(stage))).collect();
    for options in [&["create"][..], &["create", "--hold"]] {
        for words in [options, &["start"]] {
            let ran = bundle.tell(&[words, &[&bundle.id]].concat());
            assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{words:?}");
        }
        for stage in stages {
            let label = std::fs::read_to_string(bundle.path(stage)).unwrap();
            assert_eq!(label, "unconfined\n", "{options:?} {stage}");
            std::fs::remove_file(bundle.path(stage)).unwrap();
        }
        let listed = bundle.tell(&["ps", "-f", "json", &bundle.id]).stdout;
        let pids: Vec<i32> = serde_json::from_str(&listed).unwrap();
        assert_eq!(pids.len(), options.len(), "{options:?}");
        for pid in pids {
            let label = std::fs::read_to_string(format!("/proc/{pid}/attr/current")).unwrap();
            assert_eq!(label, format!("{name} (enforce)\n"), "{options:?}");
        }
        bundle.down();
    }
    parser("--remove", name);
}

#[test]
fn exec_goes_where_the_first_process_is_if_that_has_made_groups_of_its_own() {
    let bundle = busybox::Bundle::shell("exec sleep 1000");
    bundle.up();
    let group = bundle.groups().into_iter().find(|group| group.exists()).unwrap();
    let below = group.join("init.scope");
    std::fs::create_dir(&below).unwrap();
    std::fs::write(below.join("cgroup.procs"), bundle.pid().to_string()).unwrap();
    std::fs::write(group.join("cgroup.subtree_control"), "+pids").unwrap();
    assert_eq!(bundle.inside(&[], "cat /proc/self/cgroup; :"), bundle.inside(&[], "cat /proc/1/cgroup; :"));
    assert_eq!(bundle.tell(&["pause", &bundle.id]).status, 0);
    assert_eq!(bundle.tell(&["resume", &bundle.id]).status, 0);
    let listed = bundle.tell(&["ps", "-f", "json", &bundle.id]).stdout;
    assert_eq!(listed, format!("[{}]\n", bundle.pid()));
    bundle.down();
}

#[test]
fn the_profile_of_the_spec_is_entered() {
    let name = "docker-worker-guest-inside";
    parser("--replace", name);
    let mut bundle = Bundle::new();
    bundle.config["process"]["apparmorProfile"] = json!(name);
    let seen = crate::probe::line(&bundle.run("line /proc/self/attr/current"));
    parser("--remove", name);
    assert_eq!(seen, format!("{name} (enforce)"));
}

#[test]
fn s46_a_profile_that_is_not_loaded_stops_the_start() {
    let mut bundle = Bundle::new();
    bundle.config["process"]["apparmorProfile"] = json!("docker-worker-guest-absent");
    let output = bundle.run("mkdir /ran");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("docker-worker-guest-absent"), "{said}");
    assert!(!bundle.directory().join("rootfs/ran").exists(), "the command ran: {said}");
}
