//! Plans as text: they change only in a commit that says why. `UPDATE_GOLDEN=1` writes them anew.
use runtime::cgroup::Hierarchies;
use runtime::host::HostFacts;
use runtime::id::ContainerId;
use runtime::plan::plan;
use serde_json::{Value, json};
use std::path::Path;

/// Hosts as `/proc/self/mountinfo` and `/proc/self/cgroup` describe them.
fn host(version: &str) -> HostFacts {
    let (mounts, groups) = match version {
        "v1" => (
            ["pids", "devices", "freezer", "memory"]
                .map(|name| format!("30 23 0:26 / /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}"))
                .join("\n"),
            "4:pids:/\n3:devices:/\n2:freezer:/\n1:memory:/".to_owned(),
        ),
        _ => (
            "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw".to_owned(),
            "0::/system.slice/worker.service".to_owned(),
        ),
    };
    HostFacts { hierarchies: Some(Hierarchies::parse(&mounts, &groups).unwrap()) }
}

fn spec(extra: Value) -> Value {
    let mut spec = json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs" },
        "process": {
            "user": { "uid": 1000, "gid": 1000, "additionalGids": [27] },
            "args": ["sh", "-c", "echo \"one\ntwo\""],
            "env": ["PATH=/bin"],
            "cwd": "/home",
            "capabilities": { "bounding": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL"] },
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "options": ["nosuid", "nodev", "noexec"] },
            { "destination": "/dev", "type": "tmpfs", "options": ["nosuid", "mode=755"] },
            { "destination": "/cache", "type": "bind", "source": "/var/cache/x", "options": ["rbind", "ro"] },
        ],
        "linux": {
            "cgroupsPath": "/docker-worker/a",
            "namespaces": [{ "type": "mount" }, { "type": "pid" }, { "type": "network" }],
            "resources": { "memory": { "limit": 1_048_576 }, "pids": { "limit": 7 } },
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
        },
    });
    merge(&mut spec, extra);
    spec
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn check(name: &str, version: &str, extra: Value) {
    let spec = runtime::spec::parse(spec(extra)).unwrap().spec;
    let id = ContainerId::new("a").unwrap();
    let text = plan(&id, &spec, &host(version)).unwrap().to_string();
    assert_eq!(text, plan(&id, &spec, &host(version)).unwrap().to_string(), "{name}: a plan is pure");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden").join(format!("{name}.plan"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&file).unwrap(), "{name}");
}

#[test]
fn plans_read_as_they_did() {
    check("v1", "v1", json!({}));
    check("v2", "v2", json!({}));
    check(
        "everything",
        "v2",
        json!({
            "hostname": "box", "domainname": "example",
            "root": { "readonly": true },
            "process": {
                "terminal": true, "consoleSize": { "height": 24, "width": 80 }, "noNewPrivileges": true,
                "apparmorProfile": "docker-worker-default", "oomScoreAdj": 100,
                "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 10, "hard": 20 }],
            },
            "hooks": {
                "prestart": [{ "path": "/bin/true" }], "createContainer": [{ "path": "/bin/true" }],
                "startContainer": [{ "path": "/bin/true" }],
            },
            "linux": {
                "namespaces": [
                    { "type": "mount" }, { "type": "user" }, { "type": "cgroup" },
                    { "type": "pid", "path": "/proc/7/ns/pid" }, { "type": "ipc" }, { "type": "uts" },
                    { "type": "network" },
                ],
                "uidMappings": [{ "containerID": 0, "hostID": 100_000, "size": 65536 }],
                "gidMappings": [{ "containerID": 0, "hostID": 100_000, "size": 65536 }],
                "sysctl": { "net.ipv4.ip_forward": "1", "kernel.msgmax": "9" },
                "devices": [{ "path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200 }],
                "rootfsPropagation": "rslave",
                "seccomp": {
                    "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
                    "syscalls": [{ "names": ["reboot"], "action": "SCMP_ACT_ERRNO" }],
                },
            },
        }),
    );
}

#[test]
fn a_holder_parts_from_the_command_before_the_root_is_changed_and_enters_the_profile_by_itself() {
    let held = |extra: Value| {
        let spec = runtime::spec::parse(spec(extra)).unwrap().spec;
        plan(&ContainerId::new("a").unwrap(), &spec, &host("v2")).unwrap().held()
    };
    let hook = json!({ "createContainer": [{ "path": "/bin/true" }] });
    let process = json!({ "apparmorProfile": "profile", "oomScoreAdj": 500 });
    let text = held(json!({ "process": process, "hooks": hook })).unwrap().to_string();
    assert!(text.contains("  proc.open\n  hold under apparmor profile\n  oom-score 500\n"), "{text}");
    // Hooks that see the host's tree are the host's.
    let places = ["  hold", "  root.attach", "  hooks createContainer", "  root.pivot", "  apparmor profile"];
    let places = places.map(|step| text.find(step).unwrap());
    assert!(places.is_sorted(), "{text}");
    let text = held(json!({})).unwrap().to_string();
    assert!(text.contains("  proc.open\n  hold\n"), "{text}");
    for kinds in [
        json!([{ "type": "mount" }]),
        json!([{ "type": "mount" }, { "type": "pid", "path": "/proc/7/ns/pid" }]),
    ] {
        let refused = held(json!({ "linux": { "namespaces": kinds } })).unwrap_err().to_string();
        assert!(refused.contains("/linux/namespaces: --hold takes a pid namespace"), "{refused}");
    }
}
