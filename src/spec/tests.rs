//! The golden Spec: what every task's container is like, down to the last flag.

use images::image::ImageConfig;
use oci_spec::runtime::{PosixRlimitType, Spec};
use runtime::id::ContainerId;
use serde_json::Value;

use super::*;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A request that each test changes in one place.
struct Fixture {
    id: ContainerId,
    profile: Profile,
    image: ImageConfig,
    user: ResolvedUser,
    command: Vec<String>,
    environment: Vec<String>,
    binds: Vec<Bind>,
    devices: Vec<Device>,
    capabilities: Vec<Capability>,
    network: NetworkChoice,
    limits: Limits,
    ceilings: RlimitCeilings,
}

fn fixture() -> Fixture {
    let image = ImageConfig {
        entrypoint: vec!["/entry".to_owned()],
        cmd: vec!["image".to_owned(), "command".to_owned()],
        working_dir: "/work".to_owned(),
        ..ImageConfig::default()
    };
    Fixture {
        id: ContainerId::new(ID).unwrap(),
        profile: Profile::Task,
        image,
        user: ResolvedUser { uid: 0, gid: 0, additional_gids: Vec::new(), home: "/root".to_owned() },
        command: Vec::new(),
        environment: vec!["HOME=/root".to_owned(), "TASK_ID=t".to_owned()],
        binds: vec![
            Bind {
                source: "/data/caches/x/content".into(),
                destination: "/builds/cache".to_owned(),
                kind: BindSource::Volume,
            },
            Bind {
                source: "/run/x/hosts".into(),
                destination: "/etc/hosts".to_owned(),
                kind: BindSource::WorkerFile,
            },
        ],
        devices: Vec::new(),
        capabilities: Vec::new(),
        network: NetworkChoice::Loopback,
        limits: Limits { memory_bytes: Some(1 << 30), ..Limits::default() },
        ceilings: RlimitCeilings::default(),
    }
}

impl Fixture {
    fn spec(&self) -> Result<Spec, process::ProcessError> {
        write_spec(ContainerRequest {
            id: &self.id,
            profile: self.profile,
            image: &self.image,
            user: &self.user,
            command: &self.command,
            environment: self.environment.clone(),
            binds: self.binds.clone(),
            devices: self.devices.clone(),
            capabilities: self.capabilities.clone(),
            network: self.network,
            limits: &self.limits,
            ceilings: &self.ceilings,
            processors: 2,
            socketcall: SocketCall::Absent,
            apparmor: None,
        })
    }
}

/// As JSON, with what has no order in order, and without the filter, which has tests of its own.
fn readable(spec: &Spec) -> Value {
    let mut value = serde_json::to_value(spec).unwrap();
    value["linux"]["seccomp"] = Value::Null;
    for set in value["process"]["capabilities"].as_object_mut().unwrap().values_mut() {
        set.as_array_mut().unwrap().sort_by_key(|name| name.to_string());
    }
    value
}

/// The filter, with the names of each of its rules in a line.
fn readable_filter(spec: &Spec) -> Value {
    let mut filter = serde_json::to_value(spec.linux().clone().unwrap().seccomp()).unwrap();
    for rule in filter["syscalls"].as_array_mut().unwrap() {
        let names = rule["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
        rule["names"] = names.collect::<Vec<_>>().join(" ").into();
    }
    filter
}

#[test]
fn the_container_of_a_task_is_as_the_golden_file_shows() {
    let golden: Value = serde_json::from_str(include_str!("../../tests/golden/spec.json")).unwrap();
    let written = readable(&fixture().spec().unwrap());
    let text = serde_json::to_string_pretty(&written).unwrap();
    assert!(written == golden, "if this is meant, it is the new tests/golden/spec.json:\n{text}");
}

#[test]
fn the_container_of_the_proxy_is_as_the_golden_file_shows() {
    let golden: Value = serde_json::from_str(include_str!("../../tests/golden/proxy.json")).unwrap();
    let mut fixture = Fixture { profile: Profile::Proxy, network: NetworkChoice::Host, ..fixture() };
    fixture.image = ImageConfig::default();
    // Its group is one of those that run directories have.
    fixture.user =
        ResolvedUser { uid: 65_533, gid: 0x7000_0000, additional_gids: Vec::new(), home: "/".to_owned() };
    fixture.command = vec!["/docker-worker".to_owned(), "proxy".to_owned()];
    fixture.binds = vec![Bind {
        source: "/usr/bin/docker-worker".into(),
        destination: "/docker-worker".to_owned(),
        kind: BindSource::ReadOnlyFile,
    }];
    fixture.limits = Limits { pids: Some(64), memory_bytes: Some(256 << 20), processor: None, shm_bytes: 0 };
    fixture.environment = vec!["SSL_CERT_FILE=/etc/certificates.pem".to_owned()];
    let spec = fixture.spec().unwrap();
    let mut written = readable(&spec);
    written["linux"]["seccomp"] = readable_filter(&spec);
    let text = serde_json::to_string_pretty(&written).unwrap();
    assert!(written == golden, "if this is meant, it is the new tests/golden/proxy.json:\n{text}");
}

#[test]
fn a_command_follows_the_entry_point_and_replaces_the_images_command() {
    type Words = &'static [&'static str];
    let cases: [(Words, Words, Words, Option<Words>); 11] = [
        (&["/entry"], &["image"], &[], Some(&["/entry", "image"])),
        (&["/entry"], &["image"], &["own", "x"], Some(&["/entry", "own", "x"])),
        (&[], &["image"], &[], Some(&["image"])),
        (&[], &[], &["own"], Some(&["own"])),
        (&[], &[], &[], None),
        // One empty word drops the entry point of a base image; nothing else is dropped.
        (&[""], &["echo", "ran"], &[], Some(&["echo", "ran"])),
        (&[""], &["image"], &["own"], Some(&["own"])),
        (&[""], &[], &[], None),
        (&["", "x"], &["image"], &[], None),
        (&[], &[], &["", "x"], None),
        (&["/entry"], &[], &[""], Some(&["/entry", ""])),
    ];
    let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    for (entrypoint, cmd, command, expected) in cases {
        let mut fixture = fixture();
        fixture.image.entrypoint = owned(entrypoint);
        fixture.image.cmd = owned(cmd);
        fixture.command = owned(command);
        let args = fixture.spec().ok().and_then(|spec| spec.process().clone()?.args().clone());
        assert_eq!(args, expected.map(owned), "{entrypoint:?} {cmd:?} {command:?}");
    }
}

#[test]
fn a_user_other_than_root_holds_no_capability_and_can_gain_the_kept_ones_by_set_uid() {
    let mut fixture = fixture();
    fixture.user = ResolvedUser { uid: 1000, gid: 7, additional_gids: vec![50], home: "/".to_owned() };
    let written = readable(&fixture.spec().unwrap());
    let capabilities = &written["process"]["capabilities"];
    assert_eq!(capabilities["effective"], serde_json::json!([]));
    assert_eq!(capabilities["permitted"], serde_json::json!([]));
    assert_eq!(capabilities["bounding"].as_array().unwrap().len(), 14);
    let user = serde_json::json!({"uid": 1000, "gid": 7, "additionalGids": [7, 50]});
    assert_eq!(written["process"]["user"], user);
}

#[test]
fn a_device_has_a_node_and_opens_and_a_capability_is_held_beside_the_kept_ones() {
    let mut fixture = fixture();
    fixture.devices = vec![Device { path: "/dev/kvm".to_owned(), major: 10, minor: 232, mode: 0o666 }];
    fixture.capabilities = vec![Capability::SysPtrace];
    let written = readable(&fixture.spec().unwrap());
    let node = serde_json::json!([{
        "path": "/dev/kvm", "type": "c", "major": 10, "minor": 232, "fileMode": 0o666, "uid": 0, "gid": 0
    }]);
    assert_eq!(written["linux"]["devices"], node);
    let rules = written["linux"]["resources"]["devices"].as_array().unwrap();
    let opens = serde_json::json!({"allow": true, "type": "c", "major": 10, "minor": 232, "access": "rwm"});
    assert_eq!(rules.last(), Some(&opens));
    let capabilities = &written["process"]["capabilities"];
    for set in ["bounding", "permitted", "effective"] {
        let names = capabilities[set].as_array().unwrap();
        assert!(names.len() == 15 && names.contains(&"CAP_SYS_PTRACE".into()), "{set}: {names:?}");
    }
}

#[test]
fn a_sidecar_has_no_terminal_and_outlives_its_task_where_memory_is_short_and_is_else_like_it() {
    let mut fixture = fixture();
    let mut task = readable(&fixture.spec().unwrap());
    fixture.profile = Profile::Sidecar;
    let sidecar = readable(&fixture.spec().unwrap());
    task["process"]["terminal"] = false.into();
    task["process"]["oomScoreAdj"] = 50.into();
    assert_eq!(sidecar, task);
}

#[test]
fn limits_that_the_host_does_not_let_us_set_are_clamped_and_named() {
    let mut fixture = fixture();
    fixture.ceilings = RlimitCeilings {
        hard: vec![(PosixRlimitType::RlimitNofile, 20_000), (PosixRlimitType::RlimitMemlock, 1 << 40)],
    };
    let clamped = process::clamped(&fixture.ceilings);
    let expected = process::Clamped { name: "NOFILE", wanted: 1_048_576, given: 20_000 };
    assert_eq!(clamped, [expected]);
    let written = readable(&fixture.spec().unwrap());
    let nofile = serde_json::json!({"type": "RLIMIT_NOFILE", "hard": 20_000, "soft": 20_000});
    assert_eq!(written["process"]["rlimits"][0], nofile);
}

#[test]
fn the_host_name_is_the_ids_beginning() {
    assert_eq!(hostname(&ContainerId::new(ID).unwrap()), "0123456789ab");
}
