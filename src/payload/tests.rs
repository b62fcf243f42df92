use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::document::finding::Severity;
use crate::task_log::refused_payload;
use crate::text::is_unprintable;

mod image_names;

const OPERATOR: Origin = Origin::Operator;

fn context(origin: Origin) -> TaskContext<'static> {
    let expires = Timestamp::parse("2027-01-01T00:00:00Z").unwrap();
    TaskContext { expires, origin, disabled_features: &[], max_task_run_time: None, pointer: "" }
}

fn parse(payload: &Value) -> (Option<Payload>, Vec<Finding>) {
    Payload::parse(payload, &context(OPERATOR))
}

/// The least payload that is valid, with `extra` fields over it.
fn payload(extra: &Value) -> Value {
    let mut payload = json!({ "image": "busybox", "maxRunTime": 60 });
    for (key, value) in extra.as_object().unwrap() {
        payload[key] = value.clone();
    }
    payload
}

#[track_caller]
fn accepted(extra: &Value) -> Payload {
    let (payload, findings) = parse(&payload(extra));
    assert_eq!(findings, [], "{extra}");
    payload.unwrap()
}

/// The findings, as `pointer: message`, errors only or warnings only.
fn lines(findings: &[Finding], severity: Severity) -> Vec<String> {
    let of_severity = findings.iter().filter(|finding| finding.severity == severity);
    of_severity.map(|finding| format!("{}: {}", finding.pointer, finding.message)).collect()
}

#[track_caller]
fn refused(extra: &Value, expected: &[&str]) {
    let (found, findings) = parse(&payload(extra));
    assert_eq!(lines(&findings, Severity::Error), expected, "{extra}");
    assert!(found.is_none(), "{extra}");
}

fn named(image: &str) -> ImageField {
    let source = images::source::Source::parse(image).unwrap();
    ImageField::Named { name: image.to_owned(), source }
}

#[test]
fn a_payload_with_nothing_but_its_two_required_fields_gets_the_defaults() {
    let payload = accepted(&json!({}));
    assert_eq!(payload.image, named("busybox"));
    assert_eq!(payload.max_run_time, Duration::from_secs(60));
    assert_eq!(payload.log.as_str(), "public/logs/live.log");
    assert!(payload.command.is_empty() && payload.env.is_empty());
    assert!(payload.cache.is_empty() && payload.artifacts.is_empty());
    assert_eq!(payload.on_exit_status, OnExitStatus::default());
    for (feature, on) in
        [("localLiveLog", true), ("artifacts", true), ("bulkLog", false), ("interactive", false)]
    {
        assert_eq!(payload.features.is_on(feature), on, "{feature}");
    }
}

#[test]
fn every_field_that_works_is_read() {
    let payload = accepted(&json!({
        "image": { "type": "docker-image", "name": "example.com:5000/a/b:1" },
        "command": ["sh", "-c", "true"],
        "env": { "A": "1", "EMPTY": "" },
        "maxRunTime": 3600.0,
        "artifacts": {
            "public/a.txt": { "type": "file", "path": "/a.txt", "expires": "2027-01-01T00:00:00.000Z" },
            "public/dir/": { "type": "directory", "path": "relative/dir" },
            "public/vol": { "type": "volume", "path": "/out//vol/" },
        },
        "cache": { "level-1 cache/x": "/cache", "nested": "/cache/below/" },
        "log": "private/mine.log",
        "features": { "localLiveLog": false, "bulkLog": true, "interactive": false },
        "onExitStatus": { "retry": [4, -1], "purgeCaches": [3.0] },
        "capabilities": { "privileged": false, "devices": { "kvm": false } },
        "encryptedEnv": [],
    }));
    assert_eq!(payload.image, named("example.com:5000/a/b:1"));
    assert_eq!(payload.command, ["sh", "-c", "true"]);
    assert_eq!(payload.env["A"], "1");
    assert_eq!(payload.max_run_time, Duration::from_secs(3600));
    let artifacts: Vec<_> = payload
        .artifacts
        .iter()
        .map(|(name, entry)| {
            (name.as_str(), entry.source.kind(), entry.source.path(), entry.expires.is_some())
        })
        .collect();
    let expected = [
        ("public/a.txt", "file", "/a.txt", true),
        ("public/dir", "directory", "relative/dir", false), // O51
        ("public/vol", "volume", "/out/vol", false),
    ];
    assert_eq!(artifacts, expected);
    let caches: Vec<_> = payload.cache.iter().map(|(name, path)| (name.as_str(), path.as_str())).collect();
    assert_eq!(caches, [("level-1 cache/x", "/cache"), ("nested", "/cache/below")]);
    assert_eq!(payload.log.backing().unwrap().as_str(), "private/mine_backing.log");
    assert!(payload.features.is_on("bulkLog") && !payload.features.is_on("localLiveLog"));
    assert_eq!(payload.on_exit_status, OnExitStatus { retry: vec![4, -1], purge_caches: vec![3] });
}

#[test]
fn all_findings_come_at_once() {
    let (found, findings) = parse(&json!({
        "maxRuntime": 60, "command": "true", "env": { "A": null }, "features": { "chainOfTrsut": true },
        "onExitStatus": { "retry": [1.5] }, "graphs": [],
    }));
    assert!(found.is_none());
    let expected = [
        "/maxRuntime: \"maxRuntime\" is not a field that exists here",
        ": must have the field \"image\"",
        ": must have the field \"maxRunTime\"",
        "/command: must be a list of strings, not a string",
        "/env/A: must be a string, not null",
        "/features/chainOfTrsut: chainOfTrsut is not part of valid features",
        "/onExitStatus/retry/0: must be a whole number below 2^53",
    ];
    assert_eq!(lines(&findings, Severity::Error), expected);
    assert_eq!(lines(&findings, Severity::Warning).len(), 1);
    let hints: Vec<_> = findings.iter().filter_map(|finding| finding.hint.as_deref()).collect();
    let expected = [
        "did you mean \"maxRunTime\"?",
        "for a shell: [\"/bin/sh\", \"-c\", \"…\"]",
        "leave the field out",
        "did you mean \"chainOfTrust\"?",
    ];
    assert_eq!(hints, expected);
    assert!(
        refused_payload(&findings).starts_with("`task.payload` format is invalid json schema errors:\n [\n")
    );
}

#[test]
fn what_is_no_object_is_refused_as_a_whole() {
    for (value, kind) in [(json!([]), "a list"), (json!("image: x"), "a string"), (json!(null), "null")] {
        let (found, findings) = parse(&value);
        assert!(found.is_none());
        assert_eq!(lines(&findings, Severity::Error), [format!(": must be an object, not {kind}")]);
    }
}

#[test]
fn pointers_begin_where_the_payload_is_in_its_document() {
    let at = TaskContext { pointer: "/payload", ..context(OPERATOR) };
    let (_, findings) = Payload::parse(&json!({ "image": 1 }), &at);
    let expected = [
        "/payload/image: must be the name of an image, or an object with its \"type\", not a number",
        "/payload: must have the field \"maxRunTime\"",
    ];
    assert_eq!(lines(&findings, Severity::Error), expected);
}

#[test]
fn max_run_time_is_a_whole_number_of_seconds_from_1_on() {
    let cases = [
        (json!(0), "must be at least 1 (seconds)"),
        (json!(-5), "must be at least 1 (seconds)"),
        (json!(1.5), "must be a whole number below 2^53"),
        (json!("60"), "must be a whole number, not a string"),
        (json!(null), "must be a whole number, not null"),
    ];
    for (value, expected) in cases {
        refused(&json!({ "maxRunTime": value }), &[&format!("/maxRunTime: {expected}")]);
    }
}

#[test]
fn a_worker_may_bound_max_run_time() {
    let bounded = TaskContext { max_task_run_time: Some(3600), pointer: "/payload", ..context(OPERATOR) };
    let read = |seconds| Payload::parse(&payload(&json!({ "maxRunTime": seconds })), &bounded);
    let (found, findings) = read(3600);
    assert_eq!((found.unwrap().max_run_time, findings), (Duration::from_secs(3600), vec![]));
    for (seconds, expected) in [(3601, "at most 3600 (seconds) on this worker"), (0, "at least 1 (seconds)")]
    {
        let (found, findings) = read(seconds);
        assert_eq!(lines(&findings, Severity::Error), [format!("/payload/maxRunTime: must be {expected}")]);
        assert!(found.is_none(), "{seconds}");
    }
}

#[test]
fn o20_a_long_max_run_time_does_not_wrap_around() {
    for (seconds, expected) in [
        (2_147_484_u64, 2_147_484),
        (4_294_967_297, limits::MAX_RUN_TIME_SECONDS),
        (1 << 53, limits::MAX_RUN_TIME_SECONDS),
    ] {
        let payload = accepted(&json!({ "maxRunTime": seconds }));
        assert_eq!(payload.max_run_time, Duration::from_secs(expected), "{seconds}");
    }
}

#[test]
fn numbers_and_booleans_in_env_become_their_text_with_a_warning() {
    let (found, findings) = parse(&payload(&json!({ "env": { "A": 1, "B": true, "C": 1.5 } })));
    let env = found.unwrap().env;
    assert_eq!((env["A"].as_str(), env["B"].as_str(), env["C"].as_str()), ("1", "true", "1.5"));
    let expected = [
        "/env/A: is not a string; the variable gets the text \"1\"",
        "/env/B: is not a string; the variable gets the text \"true\"",
        "/env/C: is not a string; the variable gets the text \"1.5\"",
    ];
    assert_eq!(lines(&findings, Severity::Warning), expected);
}

#[test]
fn a_variable_that_only_the_worker_sets_gives_a_warning() {
    let env = json!({ "TASKCLUSTER_ROOT_URL": "forged", "RUN_ID": "1", "TASKCLUSTER_PROXY_URL": "own" });
    let (_, findings) = parse(&payload(&json!({ "env": env })));
    let unused = "is not passed on: only the worker sets this variable, where its configuration has a value";
    let expected = [format!("/env/RUN_ID: {unused}"), format!("/env/TASKCLUSTER_ROOT_URL: {unused}")];
    assert_eq!(lines(&findings, Severity::Warning), expected);
}

#[test]
fn what_execve_would_refuse_is_refused_here() {
    refused(&json!({ "command": ["a\0b"] }), &["/command/0: must not have NUL characters"]);
    refused(&json!({ "command": [1] }), &["/command/0: must be a string, not a number"]);
    refused(&json!({ "env": { "A=B": "" } }), &["/env/A=B: \"A=B\" cannot be the name of a variable"]);
    refused(&json!({ "env": { "": "" } }), &["/env/: \"\" cannot be the name of a variable"]);
    refused(&json!({ "env": { "A": "\0" } }), &["/env/A: must not have NUL characters"]);
    let longest = "x".repeat(limits::EXEC_STRING_BYTES - 1);
    accepted(&json!({ "command": [longest] }));
    refused(
        &json!({ "command": [format!("{longest}x")] }),
        &["/command/0: must be shorter than 131072 bytes"],
    );
    refused(
        &json!({ "command": vec![longest; 17] }),
        &["/command: must be at most 2097152 bytes long in all"],
    );
}

#[test]
fn s54_a_cache_name_or_mount_point_that_could_leave_its_place_is_refused() {
    let long = "x".repeat(300);
    let printable =
        "the name of a cache must not have control characters, line ends or bidirectional controls";
    let names = [
        ("../../x", "the name of a cache must not have \"..\" as a segment"),
        ("a::b", "Invalid key name was provided.  Ensure that the cache name does not contain \"::\"."),
        ("", "the name of a cache must have at least one character"),
        (long.as_str(), "the name of a cache must be at most 255 bytes long"),
        ("a\nb", printable),
        ("\u{1b}[31m", printable),
        ("\u{202e}x", printable),
    ];
    for (name, expected) in names {
        let (found, findings) = parse(&payload(&json!({ "cache": { name: "/cache" } })));
        assert!(found.is_none(), "{name:?}");
        let messages: Vec<_> = findings.iter().map(|finding| finding.message.as_str()).collect();
        assert_eq!(messages, [expected], "{name:?}");
    }
    let paths = [
        ("/", "not be the root of the container"),
        ("//", "not be the root of the container"),
        ("/proc", "not lie in /proc, /sys or /dev"),
        ("/sys/x", "not lie in /proc, /sys or /dev"),
        ("//dev//shm/", "not lie in /proc, /sys or /dev"),
        ("rel", "be an absolute path"),
        ("", "be an absolute path"),
        ("/a/../etc", "not have \".\" or \"..\" as a component"),
        ("/a/.", "not have \".\" or \"..\" as a component"),
    ];
    for (path, expected) in paths {
        let message = format!("/cache/a: the mount point \"{path}\" must {expected}");
        refused(&json!({ "cache": { "a": path } }), &[&message]);
    }
    accepted(&json!({ "cache": { "a/b": "/process/dev", "..c": "/system" } }));
}

#[test]
fn o30_two_uses_of_one_mount_point_are_refused() {
    refused(
        &json!({ "cache": { "a": "/x", "b": "/x/" } }),
        &["/cache/b: /x is the mount point of the cache \"a\" already"],
    );
    refused(
        &json!({ "cache": { "a": "/x" }, "artifacts": { "p": { "type": "volume", "path": "/x" } } }),
        &["/artifacts/p: /x is the mount point of the cache \"a\" already"],
    );
}

#[test]
fn an_artifact_has_a_kind_a_path_and_nothing_unknown() {
    let entry = |entry: Value| json!({ "artifacts": { "p": entry } });
    refused(
        &entry(json!({})),
        &["/artifacts/p: must have the field \"type\"", "/artifacts/p: must have the field \"path\""],
    );
    refused(
        &entry(json!({ "type": "link", "path": "/x" })),
        &["/artifacts/p/type: must be \"file\", \"directory\" or \"volume\", not \"link\""],
    );
    refused(&entry(json!({ "type": "file", "path": "" })), &["/artifacts/p/path: must not be empty"]);
    refused(
        &entry(json!({ "type": "volume", "path": "rel" })),
        &["/artifacts/p/path: the mount point \"rel\" must be an absolute path"],
    );
    refused(
        &entry(json!({ "type": "file", "path": "/x", "expire": "2026-12-01T00:00:00Z" })),
        &["/artifacts/p/expire: \"expire\" is not a field that exists here"],
    );
    refused(
        &entry(json!({ "type": "file", "path": "/x", "expires": "tomorrow" })),
        &["/artifacts/p/expires: \"tomorrow\" is not a date and time"],
    );
}

#[test]
fn an_artifact_may_not_outlive_its_task() {
    refused(
        &json!({ "artifacts": { "p": { "type": "file", "path": "/x", "expires": "2027-01-01T00:00:00.001Z" } } }),
        &["/artifacts/p/expires: Artifact expiration for 'p' must not be greater than task expiration. \
           Artifact expiration is '2027-01-01T00:00:00.001Z' but task expiration is '2027-01-01T00:00:00.000Z'"],
    );
}

#[test]
fn s57_an_artifact_name_stays_below_its_directory() {
    for name in ["../x", "/x", "a//b", "a/../b", "a\nb", "a/./b"] {
        let entry = json!({ "artifacts": { name: { "type": "file", "path": "/x" } } });
        let (found, findings) = parse(&payload(&entry));
        assert!(found.is_none(), "{name:?}");
        assert!(findings[0].message.starts_with("the artifact name \""), "{name:?}: {findings:?}");
    }
}

#[test]
fn an_artifact_cannot_take_a_name_that_a_log_needs() {
    let file = json!({ "type": "file", "path": "/x" });
    let cases = [
        ("public/logs/live.log", json!({}), Some("live log")),
        ("public/logs/live_backing.log", json!({}), Some("finished log")),
        ("public/logs/terminal_bulk.log.gz", json!({}), None),
        ("public/logs/terminal_bulk.log.gz", json!({ "features": { "bulkLog": true } }), Some("bulk log")),
        ("public/logs/live.log", json!({ "features": { "localLiveLog": false } }), None),
        ("public/logs/live.log", json!({ "log": "other.log" }), None),
        ("other_backing.log", json!({ "log": "other.log" }), Some("finished log")),
    ];
    for (name, mut extra, owner) in cases {
        extra["artifacts"] = json!({ name: file });
        let (found, findings) = parse(&payload(&extra));
        let expected = owner.map(|owner| format!("\"{name}\" is the name of this task's {owner}"));
        assert_eq!(findings.first().map(|finding| finding.message.clone()), expected, "{extra}");
        assert_eq!(found.is_some(), owner.is_none(), "{extra}");
    }
}

#[test]
fn two_names_that_differ_by_a_slash_at_the_end_are_refused() {
    let directory = json!({ "type": "directory", "path": "/x" });
    refused(
        &json!({ "artifacts": { "p": directory, "p/": directory } }),
        &["/artifacts/p~1: \"p\" is there twice, with and without a slash at its end"],
    );
}

#[test]
fn what_is_saved_of_a_task_has_names_that_are_no_others() {
    let saved = |cache: &str, artifact: &str| {
        let artifacts = json!({ artifact: { "type": "file", "path": "/x" } });
        json!({ "features": { "dockerSave": true }, "cache": { cache: "/c" }, "artifacts": artifacts })
    };
    accepted(&saved("a/b", "public/cache/a.tar"));
    for (artifact, owner) in [("public/dockerImage.tar", "image"), ("public/cache/a/b.tar", "cache")] {
        let pointer = format!("/artifacts/{}", artifact.replace('/', "~1"));
        let expected = format!("{pointer}: \"{artifact}\" is the name of this task's saved {owner}");
        refused(&saved("a/b", artifact), &[&expected]);
    }
    let expected = "/cache/a~1~1b: the name of this cache's artifact, \"public/cache/a//b.tar\", must not have empty components";
    refused(&saved("a//b", "public/x"), &[expected]);
    accepted(&json!({ "cache": { "a//b": "/c" } }));
}

#[test]
fn what_a_later_version_will_do_is_refused_by_name_when_it_is_asked_for() {
    let not_yet = "is not there yet in this version of docker-worker";
    let features = ["interactive", "dind"];
    for feature in features {
        accepted(&json!({ "features": { feature: false } }));
        refused(
            &json!({ "features": { feature: true } }),
            &[&format!("/features/{feature}: the feature {feature} {not_yet}")],
        );
    }
    for name in ["privileged", "disableSeccomp"] {
        accepted(&json!({ "capabilities": { name: false } }));
        refused(
            &json!({ "capabilities": { name: true } }),
            &[&format!("/capabilities/{name}: the capability {name} {not_yet}")],
        );
    }
    for name in ["loopbackVideo", "loopbackAudio", "hostSharedMemory", "kvm"] {
        accepted(&json!({ "capabilities": { "devices": { name: false } } })); // O1
        refused(
            &json!({ "capabilities": { "devices": { name: true } } }),
            &[&format!("/capabilities/devices/{name}: the device {name} {not_yet}")],
        );
    }
    refused(&json!({ "encryptedEnv": ["x"] }), &[&format!("/encryptedEnv: encryptedEnv {not_yet}")]);
    refused(
        &json!({ "capabilities": { "devices": { "gpu": true } } }),
        &["/capabilities/devices/gpu: \"gpu\" is not a field that exists here"],
    );
}

#[test]
fn a_superseder_is_named_by_a_url() {
    for url in ["http://a", "https://example.com/build/linux?x=y z"] {
        let named = payload(&json!({ "supersederUrl": url }));
        let (found, findings) = Payload::parse(&named, &context(Origin::Queue));
        assert!(found.unwrap().names_superseder && findings.is_empty(), "{findings:?}");
        let (_, findings) = parse(&named);
        assert_eq!(
            lines(&findings, Severity::Warning),
            ["/supersederUrl: is not looked at: this task came from no queue"]
        );
    }
    refused(
        &json!({
            "supersederUrl": "http://a",
            "artifacts": { "public/supersedes.json": { "type": "file", "path": "/x" } },
        }),
        &[
            "/artifacts/public~1supersedes.json: \"public/supersedes.json\" is the name of this task's list of the tasks that it supersedes",
        ],
    );
    for url in ["ftp://a", "https:/a", "https://ä", "HTTP://a", ""] {
        let finding =
            "/supersederUrl: must be a URL that begins with http:// or https://, in printable ASCII";
        refused(&json!({ "supersederUrl": url }), &[finding]);
    }
}

#[test]
fn a_phone_is_described_in_full_and_is_for_its_feature() {
    let phone = json!({ "type": "flame", "sims": "1", "build": "b", "memory": "319" });
    let with = |phone: &Value, is_on: bool| json!({ "capabilities": { "devices": { "phone": phone } }, "features": { "testdroidProxy": is_on } });
    let (found, findings) = parse(&payload(&with(&phone, true)));
    assert_eq!((found.unwrap().devices.unwrap().phone, findings.len()), (Some(phone.clone()), 0));
    let (found, findings) = parse(&payload(&with(&phone, false)));
    assert!(found.is_some());
    assert_eq!(
        findings[0].to_string(),
        "/capabilities/devices/phone: is for the feature testdroidProxy only, which is not on"
    );
    accepted(&json!({ "capabilities": { "devices": { "phone": false } } }));
    let mut other = phone.clone();
    other["memory"] = json!(319);
    refused(&with(&other, true), &["/capabilities/devices/phone/memory: must be a string, not a number"]);
    let (found, findings) = parse(&payload(&with(&json!({ "type": "a" }), true)));
    assert!(found.is_none() && findings.len() == 3, "{findings:?}");
}

#[test]
fn what_has_lost_its_meaning_gives_a_warning_and_the_task_runs() {
    let cases = [
        (json!({ "graphs": ["/graph.json"] }), "/graphs"),
        (json!({ "coalescer": { "url": "x", "routePrefix": "y" } }), "/coalescer"),
        (json!({ "features": { "azureLiveLog": true } }), "/features/azureLiveLog"),
        (json!({ "features": { "generateCertificate": true } }), "/features/generateCertificate"),
    ];
    for (extra, pointer) in cases {
        let (found, findings) = parse(&payload(&extra));
        assert!(found.is_some(), "{extra}");
        let found: Vec<_> =
            findings.iter().map(|finding| (finding.pointer.as_str(), finding.severity)).collect();
        assert_eq!(found, [(pointer, Severity::Warning)], "{extra}");
    }
    accepted(&json!({ "features": { "azureLiveLog": false } }));
}

#[test]
fn o4_a_feature_that_the_worker_switches_off_is_refused_only_when_asked_for() {
    let without_bulk = TaskContext { disabled_features: &["bulkLog", "localLiveLog"], ..context(OPERATOR) };
    let (found, findings) =
        Payload::parse(&payload(&json!({ "features": { "bulkLog": true } })), &without_bulk);
    assert!(found.is_none());
    assert_eq!(
        lines(&findings, Severity::Error),
        ["/features/bulkLog: bulkLog is not enabled on this worker"]
    );
    let (found, findings) =
        Payload::parse(&payload(&json!({ "features": { "bulkLog": false } })), &without_bulk);
    assert_eq!(findings, []);
    assert!(!found.unwrap().features.is_on("localLiveLog"));
}

#[test]
fn s60_no_finding_carries_a_character_that_could_break_or_reorder_a_line() {
    let evil = "\u{1b}[31m\n\u{202e}[taskcluster:error] x";
    let payloads = [
        json!({ evil: 1, "image": evil, "maxRunTime": 1 }),
        json!({ "image": { "type": evil }, "features": { evil: true }, "log": evil, "env": { format!("{evil}="): 1 } }),
        json!({ "artifacts": { evil: { "type": evil, "path": "x", "expires": evil } }, "cache": { evil: evil } }),
        json!({ "artifacts": { "a": { "type": "volume", "path": evil } }, "capabilities": { evil: true } }),
    ];
    for payload in payloads {
        let (_, findings) = parse(&payload);
        assert!(!findings.is_empty());
        for finding in &findings {
            let line = finding.to_string();
            assert!(!line.chars().any(is_unprintable), "{line:?}");
        }
    }
}

#[test]
fn the_number_of_caches_and_artifacts_is_bounded() {
    let many = |count: usize, entry: &dyn Fn(usize) -> Value| -> Value {
        (0..count).map(|index| (index.to_string(), entry(index))).collect::<serde_json::Map<_, _>>().into()
    };
    let cache = |index: usize| json!(format!("/c{index}"));
    accepted(&json!({ "cache": many(limits::CACHES, &cache) }));
    refused(
        &json!({ "cache": many(limits::CACHES + 1, &cache) }),
        &["/cache: must have at most 1000 caches"],
    );
    let artifact = |_| json!({ "type": "file", "path": "/x" });
    accepted(&json!({ "artifacts": many(limits::ARTIFACTS, &artifact) }));
    refused(
        &json!({ "artifacts": many(limits::ARTIFACTS + 1, &artifact) }),
        &["/artifacts: must have at most 10000 artifacts"],
    );
}

/// Any JSON that is not too large, often with names and words that the payload knows.
fn arbitrary_json() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just("file"),
        Just("volume"),
        Just("docker-image"),
        Just("busybox"),
        Just("/x"),
        Just("2026-12-01T00:00:00Z"),
        Just("type"),
        Just("path"),
        Just("name"),
        Just("retry"),
        Just("devices"),
        Just("kvm"),
        Just("bulkLog"),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    let key = prop_oneof![any::<String>(), word.prop_map(str::to_owned)];
    leaf.prop_recursive(3, 24, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key.clone(), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn there_is_a_payload_exactly_when_no_finding_is_an_error(
        fields in proptest::collection::vec((proptest::sample::select(FIELDS), arbitrary_json()), 0..6),
    ) {
        let mut document = json!({ "image": "busybox", "maxRunTime": 60 });
        for (name, value) in fields {
            document[name] = value;
        }
        let (found, findings) = parse(&document);
        prop_assert_eq!(found.is_some(), findings.iter().all(|finding| finding.severity == Severity::Warning));
        for finding in &findings {
            prop_assert!(!finding.to_string().chars().any(is_unprintable), "{}", finding);
            let place = document.pointer(&finding.pointer);
            prop_assert!(place.is_some(), "{} points nowhere", finding.pointer);
        }
    }
}
