use serde_json::json;

use super::*;

fn minimal(extra: &Value) -> Value {
    let mut spec = json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/"},
        "linux": {},
    });
    merge(&mut spec, extra);
    spec
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn pointers(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|finding| finding.pointer.as_str()).collect()
}

/// What is refused, or if nothing is, what is not known.
fn check(extra: Value, refused: &[&str], ignored: &[&str]) {
    match parse(minimal(&extra)) {
        Ok(loaded) => {
            assert_eq!(refused, [""; 0], "{extra}");
            assert_eq!(pointers(&loaded.unknown), ignored, "{extra}");
        }
        Err(findings) => assert_eq!(pointers(&findings), refused, "{extra}: {findings:?}"),
    }
}

fn refused(extra: Value, pointers: &[&str]) {
    check(extra, pointers, &[]);
}

fn ignored(extra: Value, pointers: &[&str]) {
    check(extra, &[], pointers);
}

#[test]
fn an_unknown_property_is_a_warning_wherever_it_stands() {
    ignored(json!({}), &[]);
    ignored(json!({"readOnly": true}), &["/readOnly"]);
    ignored(json!({"linux": {"readonlyPath": ["/proc/sys"]}}), &["/linux/readonlyPath"]);
    ignored(json!({"process": {"noNewPrivilege": true}}), &["/process/noNewPrivilege"]);
    ignored(json!({"mounts": [{"destination": "/x", "optoins": ["ro"]}]}), &["/mounts/0/optoins"]);
    ignored(json!({"linux": {"resources": {"blockIO": {"x": 1}}}}), &["/linux/resources/blockIO/x"]);
    ignored(json!({"linux": {"resources": {"rdma": {"mlx": {"y": 1}}}}}), &["/linux/resources/rdma/mlx/y"]);
    ignored(json!({"hooks": {"poststop": [{"path": "/x", "when": 1}]}}), &["/hooks/poststop/0/when"]);
}

#[test]
fn a_known_property_that_is_not_carried_out_is_refused_unless_it_asks_for_nothing() {
    refused(json!({"process": {"selinuxLabel": "system_u:x"}}), &["/process/selinuxLabel"]);
    let nothing = json!({
        "process": {"selinuxLabel": "", "ioPriority": null},
        "linux": {"intelRdt": null, "netDevices": {}, "resources": {"memory": {
            "kernel": 0, "kernelTCP": -1, "checkBeforeUpdate": false, "useHierarchy": true,
        }}},
    });
    ignored(nothing, &[]);
    let memory = "/linux/resources/memory";
    for (name, value) in [
        ("kernel", json!(4096)),
        ("kernelTCP", json!(4096)),
        ("checkBeforeUpdate", json!(true)),
        ("useHierarchy", json!(false)),
    ] {
        refused(
            json!({"linux": {"resources": {"memory": {name: value}}}}),
            &[format!("{memory}/{name}").as_str()],
        );
    }
    let leaf = json!({"linux": {"resources": {"blockIO": {"leafWeight": 10}}}});
    refused(leaf, &["/linux/resources/blockIO/leafWeight"]);
}

#[test]
fn what_is_for_another_platform_is_passed_over() {
    ignored(json!({"windows": {"x": 1}, "vm": {}, "process": {"user": {"username": "u"}}}), &[]);
}

#[test]
fn an_unknown_value_is_refused_by_name() {
    refused(json!({"linux": {"namespaces": [{"type": "galaxy"}]}}), &["/linux/namespaces/0/type"]);
    let limit = json!({"type": "RLIMIT_LUCK", "soft": 1, "hard": 1});
    refused(json!({"process": {"rlimits": [limit]}}), &["/process/rlimits/0/type"]);
    let seccomp = json!({"defaultAction": "SCMP_ACT_MAYBE", "flags": ["X"], "architectures": ["Y"]});
    refused(
        json!({"linux": {"seccomp": seccomp}}),
        &["/linux/seccomp/defaultAction", "/linux/seccomp/architectures/0", "/linux/seccomp/flags/0"],
    );
}

#[test]
fn a_value_of_a_wrong_type_or_out_of_range_is_refused() {
    refused(json!({"linux": []}), &["/linux"]);
    refused(json!({"root": ["/", false]}), &["/root"]);
    refused(json!({"mounts": [["/x"]]}), &["/mounts/0"]);
    refused(json!({"mounts": {}}), &["/mounts"]);
    refused(
        json!({"process": {"terminal": "yes", "args": ["a\0b"]}}),
        &["/process/terminal", "/process/args/0"],
    );
    refused(
        json!({"process": {"consoleSize": {"height": 65536, "width": 1}}}),
        &["/process/consoleSize/height"],
    );
    assert_eq!(pointers(&parse(json!([])).unwrap_err()), ["/"]);
    assert_eq!(pointers(&parse(json!({})).unwrap_err()), ["/ociVersion"]);
}

#[test]
fn nobody_is_called_4294967295() {
    let user = |uid: i64| json!({"process": {"user": {"uid": uid, "gid": uid, "additionalGids": [0, uid]}}});
    let everywhere = ["/process/user/uid", "/process/user/gid", "/process/user/additionalGids/1"];
    for uid in [-1, 1 << 31, (1 << 32) - 1, 1 << 32] {
        refused(user(uid), &everywhere);
        let device = json!({"path": "/dev/x", "type": "p", "uid": uid, "gid": uid});
        refused(json!({"linux": {"devices": [device]}}), &["/linux/devices/0/uid", "/linux/devices/0/gid"]);
    }
    ignored(user((1 << 31) - 1), &[]);
}

#[test]
fn all_findings_come_at_once_and_in_the_order_of_the_specification() {
    let spec = json!({
        "linux": {"intelRdt": {"closID": "x"}, "sysctl": {"a": 5}, "namespaces": [{"type": 1}, {}]},
        "process": {"cwd": 5, "user": {"uid": "root"}},
    });
    refused(
        spec,
        &[
            "/process/user/uid",
            "/process/cwd",
            "/linux/intelRdt",
            "/linux/sysctl/a",
            "/linux/namespaces/0/type",
            "/linux/namespaces/1/type",
        ],
    );
}

#[test]
fn an_unknown_capability_is_a_warning_and_not_granted() {
    let sets = json!({"bounding": ["CAP_KILL", "CAP_FLY", "chown", "CAP_SWIM", "CAP_FLY"]});
    let loaded = parse(minimal(&json!({"process": {"capabilities": sets}}))).unwrap();
    let warned: Vec<String> = loaded.warnings.iter().map(Finding::to_string).collect();
    let names = "ignoring unknown or unavailable capabilities: [CAP_FLY CAP_SWIM]";
    assert_eq!(warned, [format!("/process/capabilities/bounding: {names}")]);
    assert_eq!(loaded.spec.process.unwrap().capabilities.bounding(), "CAP_CHOWN CAP_KILL");
}

#[test]
fn findings_are_bounded_in_number_and_length_and_stay_on_one_line() {
    let many: serde_json::Map<String, Value> = (0..1000).map(|n| (format!("x\n{n}"), json!(0))).collect();
    let loaded = parse(minimal(&Value::Object(many))).unwrap();
    assert_eq!(loaded.unknown.len(), FINDINGS + 1);
    assert_eq!(loaded.unknown.last().unwrap().to_string(), "/: and 968 more");
    assert!(loaded.unknown.iter().all(|unknown| !unknown.to_string().contains('\n')));

    let long = "é".repeat(100_000);
    let findings = parse(minimal(&json!({"process": {"terminal": long}, "hooks": long}))).unwrap_err();
    assert!(
        findings.iter().all(|finding| finding.to_string().len() < 2 * FINDING_CHARACTERS),
        "{findings:?}"
    );
}

/// Everything that another reading of the specification writes is read here.
#[test]
fn what_oci_spec_writes_loads_without_a_finding() {
    use oci_spec::runtime as oci;
    let written = serde_json::to_value(oci::Spec::default()).unwrap();
    let loaded = parse(written).unwrap();
    assert!(loaded.warnings.is_empty() && loaded.unknown.is_empty());

    let rich = json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "h", "domainname": "d", "annotations": {"a": "b"},
        "mounts": [{"destination": "/x", "type": "tmpfs", "source": "t", "options": ["ro"]}],
        "hooks": {"prestart": [{"path": "/h", "args": ["h"], "env": ["A=b"], "timeout": 5}], "poststop": []},
        "process": {
            "terminal": true, "consoleSize": {"height": 1, "width": 2}, "cwd": "/", "args": ["a"], "env": ["A=b"],
            "user": {"uid": 1, "gid": 2, "umask": 18, "additionalGids": [3]},
            "capabilities": {"bounding": ["CAP_KILL", "CAP_PERFMON"], "ambient": []},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": u64::MAX}],
            "noNewPrivileges": true, "apparmorProfile": "p", "oomScoreAdj": -5,
        },
        "linux": {
            "uidMappings": [{"containerID": 0, "hostID": 1, "size": 2}],
            "gidMappings": [{"containerID": 0, "hostID": 1, "size": 2}],
            "sysctl": {"net.x": "1"}, "cgroupsPath": "/x", "rootfsPropagation": "rslave",
            "namespaces": [{"type": "mount"}, {"type": "network", "path": "/n"}],
            "devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 2, "fileMode": 438, "uid": 0, "gid": 0}],
            "maskedPaths": ["/m"], "readonlyPaths": ["/r"],
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "flags": ["SECCOMP_FILTER_FLAG_LOG"],
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
                "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [
                    {"index": 0, "value": u64::MAX, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"},
                ]}],
            },
            "resources": {
                "devices": [{"allow": false, "type": "a", "major": 1, "minor": 2, "access": "rwm"}],
                "memory": {"limit": 1, "swap": -1, "reservation": 3, "swappiness": 4, "disableOOMKiller": true},
                "cpu": {"shares": 1, "quota": 2, "period": 3, "cpus": "0", "mems": "0", "idle": 1, "burst": 4,
                        "realtimeRuntime": 5, "realtimePeriod": 6},
                "pids": {"limit": 1},
                "blockIO": {"weight": 10, "weightDevice": [{"major": 1, "minor": 2, "weight": 10}],
                            "throttleReadBpsDevice": [{"major": 1, "minor": 2, "rate": 3}]},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
                "network": {"classID": 1, "priorities": [{"name": "lo", "priority": 1}]},
                "rdma": {"m": {"hcaHandles": 1, "hcaObjects": 2}}, "unified": {"memory.high": "1"},
            },
        },
    });
    let theirs: oci::Spec = serde_json::from_value(rich.clone()).unwrap();
    let written = serde_json::to_value(theirs).unwrap();
    let [rich, written] = [rich, written].map(|value| parse(value).unwrap());
    for loaded in [&rich, &written] {
        assert_eq!((&loaded.warnings, &loaded.unknown), (&vec![], &vec![]));
    }
    assert_eq!(written.spec, rich.spec);
}
