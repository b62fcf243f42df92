//! Specs that ask for the impossible, the unknown or the host: one sentence, nothing left.
use crate::busybox::Bundle;
use serde_json::{Value, json};

fn check(pointer: &str, value: Value, named: &[&str]) {
    let mut bundle = Bundle::shell("echo ran");
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    bundle.config.pointer_mut(parent).unwrap()[last] = value.clone();
    let ran = bundle.run();
    assert_eq!((ran.status, ran.stdout.as_str()), (1, ""), "{pointer} = {value}: {ran:?}");
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    for name in named {
        assert!(ran.stderr.contains(name), "{pointer} = {value}: {name} is not in {}", ran.stderr);
    }
    bundle.assert_nothing_left();
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    check("/ociVersion", json!("2.0.0"), &["/ociVersion"]);
    check("/linux/intelRdt", json!({ "closID": "x" }), &["/linux/intelRdt"]);
    let limit = |soft: u64| json!({ "type": "RLIMIT_NOFILE", "soft": soft, "hard": 10 });
    check("/process/rlimits", json!([limit(1), limit(2)]), &["/process/rlimits/1", "RLIMIT_NOFILE"]);
    check("/process/rlimits", json!([limit(11)]), &["/process/rlimits/0", "11"]);
    check("/process/selinuxLabel", json!("x"), &["/process/selinuxLabel"]);
    check("/process/args", json!([]), &["/process/args"]);
    check("/process/args", json!(["a\0b"]), &["/process/args/0"]);
    check("/process/cwd", json!("relative"), &["/process/cwd"]);
    check("/process/user", json!({ "uid": -1, "gid": 0 }), &["/process/user/uid"]);
    check("/process/user", json!({ "uid": 4294967296_u64, "gid": 0 }), &["/process/user/uid"]);
    check("/process/user", json!({ "uid": 0, "gid": 4294967295_u64 }), &["/process/user/gid"]);
    check("/process/oomScoreAdj", json!(5000), &["/process/oomScoreAdj"]);
    check("/root/path", json!(""), &["/root/path"]);
    check("/root/path", json!("nonexistent"), &["nonexistent"]);
    check("/linux/cgroupsPath", json!("/../../x"), &["/linux/cgroupsPath"]);
    check("/linux/maskedPaths", json!(vec!["/mnt"; 4097]), &["/linux/maskedPaths", "4097 paths"]);
    check("/linux/namespaces", json!([{ "type": "pid" }]), &["/linux/namespaces", "/hostname"]);
    check("/linux/namespaces", json!([{ "type": "galaxy" }]), &["/linux/namespaces/0/type"]);
    let mixed =
        json!([{ "type": "mount" }, { "type": "user" }, { "type": "uts" }, { "type": "ipc", "path": "/x" }]);
    check("/linux/namespaces", mixed, &["joining a ipc namespace", "/linux/uidMappings"]);
    check("/linux/sysctl", json!({ "kernel.core_pattern": "|/x" }), &["kernel.core_pattern"]);
    check("/linux/sysctl", json!({ "net/../kernel": "x" }), &["/linux/sysctl/net~1..~1kernel: "]);
    check("/linux/sysctl", json!({ "kernel.x\ny": "x" }), &["/linux/sysctl/kernel.x\\ny: "]);
    check("/linux/sysctl", json!({ "net.ipv4.ip_forward\0x": "1" }), &["/linux/sysctl/", "NUL"]);
    for name in ["n".repeat(65), "é".repeat(33), "a\nb".into(), "a\0b".into()] {
        check("/hostname", json!(name), &["/hostname: "]);
        check("/domainname", json!(name), &["/domainname: "]);
    }
    check("/linux/rootfsPropagation", json!("sideways"), &["sideways"]);
    check("/linux/devices", json!([{ "path": "/etc/x", "type": "c", "major": 1, "minor": 3 }]), &["/etc/x"]);
    check("/linux/devices", json!([{ "path": "/dev/x", "type": "c", "major": -1, "minor": 3 }]), &["-1"]);
    check("/linux/devices", json!([{ "path": "/dev/x", "type": "c", "major": 4097, "minor": 3 }]), &["4097"]);
    let map = json!([{ "type": "mount" }, { "type": "user" }, { "type": "uts" }]);
    check("/linux/namespaces", map, &["/linux/uidMappings"]);
    for covered in ["relative", "/", "/..", "/proc/../"] {
        check("/linux/maskedPaths", json!([covered]), &["/linux/maskedPaths/0"]);
        check("/linux/readonlyPaths", json!(["/mnt", covered]), &["/linux/readonlyPaths/1"]);
    }
    let mappings = json!([{ "containerID": 0, "hostID": 4294967295_u64, "size": 1 }]);
    check("/linux/uidMappings", mappings, &["/linux/uidMappings/0"]);
    check("/linux/personality", json!({ "domain": "BSD" }), &["/linux/personality/domain"]);
    check("/linux/personality", json!({ "domain": "LINUX", "flags": ["X"] }), &["/linux/personality/flags"]);
    check("/linux/seccomp/listenerPath", json!("/x"), &["/linux/seccomp/listenerPath"]);
}

#[test]
fn a_mount_that_cannot_be_made_names_itself() {
    let mount = |value: Value| json!([value]);
    check("/mounts", mount(json!({ "destination": "/", "type": "tmpfs" })), &["/mounts/0/destination"]);
    check("/mounts", mount(json!({ "destination": "/x" })), &["/mounts/0"]);
    check("/mounts", mount(json!({ "destination": "/x", "type": "nonesuchfs" })), &["nonesuchfs"]);
    check(
        "/mounts",
        mount(json!({ "destination": "/x", "type": "tmpfs", "options": ["size=much"] })),
        &["tmpfs", "size"],
    );
    check(
        "/mounts",
        mount(json!({ "destination": "/x", "type": "tmpfs", "options": ["idmap", "remount"] })),
        &["/mounts/0/options/0", "/mounts/0/options/1"],
    );
    check("/mounts", mount(json!({ "destination": "/x", "options": ["bind"] })), &["/mounts/0/source"]);
}

#[test]
fn a_configuration_that_is_missing_too_large_or_no_json_is_named() {
    let bundle = Bundle::shell("echo ran");
    let mut command = bundle.command(&["run", &bundle.id]);
    for (text, named) in [
        (None, "config.json"),
        (Some("{".to_owned()), "line 1"),
        (Some("[]".to_owned()), "config.json"),
        (Some(" ".repeat(5 << 20)), "larger than"),
        (Some("{\"a\":".repeat(100_000)), "recursion"),
    ] {
        match text {
            None => std::fs::remove_file(bundle.path("config.json")).unwrap(),
            Some(text) => std::fs::write(bundle.path("config.json"), text).unwrap(),
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(named), "{named}: {said}");
        bundle.assert_nothing_left();
    }
}
