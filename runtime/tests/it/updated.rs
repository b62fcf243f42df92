//! New limits for a container that runs.
use crate::busybox::{Bundle, Ran, is_v2};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Stdio;

fn limited() -> Bundle {
    let mut bundle = Bundle::shell("exec sleep 1000");
    bundle.config["linux"]["resources"] = json!({
        "memory": { "limit": 64 << 20, "swap": 64 << 20 }, "pids": { "limit": 32 }, "cpu": { "quota": 50_000, "shares": 512 },
    });
    // Wherever the test itself is.
    bundle.config["linux"]["cgroupsPath"] = format!("/{}", bundle.id).into();
    bundle.up();
    bundle
}

/// What stands in a file of the container's groups: the first of these names that there is.
fn limit(bundle: &Bundle, v1: &str, v2: &str) -> String {
    let name = if is_v2() { v2 } else { v1 };
    let file: PathBuf =
        bundle.groups().into_iter().map(|group| group.join(name)).find(|file| file.exists()).unwrap();
    std::fs::read_to_string(file).unwrap().trim().to_owned()
}

fn memory(bundle: &Bundle) -> String {
    limit(bundle, "memory.limit_in_bytes", "memory.max")
}

fn update(bundle: &Bundle, options: &[&str]) -> Ran {
    bundle.tell(&[&["update"], options, &[bundle.id.as_str()]].concat())
}

fn ok(ran: Ran) {
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{ran:?}");
}

#[test]
fn each_option_sets_its_limit_and_leaves_the_others() {
    let bundle = limited();
    ok(update(&bundle, &["--memory", "32M", "--memory-swap", "32M"]));
    assert_eq!(memory(&bundle), (32 << 20).to_string());
    // Up again, over what both together may be: the other order.
    ok(update(&bundle, &["--memory", "128M", "--memory-swap", "128M"]));
    assert_eq!(memory(&bundle), (128 << 20).to_string());
    ok(update(&bundle, &["--pids-limit", "7"]));
    assert_eq!(limit(&bundle, "pids.max", "pids.max"), "7");
    ok(update(&bundle, &["--cpu-period", "50000"]));
    let cpu = |bundle: &Bundle| {
        let v1 = || {
            format!("{} {}", limit(bundle, "cpu.cfs_quota_us", ""), limit(bundle, "cpu.cfs_period_us", ""))
        };
        if is_v2() { limit(bundle, "", "cpu.max") } else { v1() }
    };
    assert_eq!(cpu(&bundle), "50000 50000");
    ok(update(&bundle, &["--cpu-quota", "20000"]));
    assert_eq!(cpu(&bundle), "20000 50000");
    ok(update(&bundle, &["--cpu-share", "1024"]));
    assert_eq!(limit(&bundle, "cpu.shares", "cpu.weight"), if is_v2() { "39" } else { "1024" });
    // As those say it who update something else.
    ok(update(&bundle, &["--pids-limit", "0"]));
    assert_eq!(limit(&bundle, "pids.max", "pids.max"), "7");
    ok(update(&bundle, &["--pids-limit", "-1"]));
    assert_eq!(limit(&bundle, "pids.max", "pids.max"), "max");
    bundle.down();
}

#[test]
fn limits_are_read_as_a_spec_has_them_and_devices_stay() {
    let bundle = limited();
    let resources =
        json!({ "memory": { "limit": 48 << 20 }, "devices": [{ "allow": true, "access": "rwm" }] });
    let file = bundle.path("resources.json");
    std::fs::write(&file, resources.to_string()).unwrap();
    let log = bundle.path("log");
    ok(bundle.tell(&[
        "--log",
        log.to_str().unwrap(),
        "update",
        "--resources",
        file.to_str().unwrap(),
        &bundle.id,
    ]));
    assert!(std::fs::read_to_string(log).unwrap().contains("the device rules stay those"));
    assert_eq!(memory(&bundle), (48 << 20).to_string());
    let mut command = bundle.command(&["update", "-r", "-", &bundle.id]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let text = json!({ "memory": { "limit": 40 << 20 } }).to_string();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(memory(&bundle), (40 << 20).to_string());
    let open = bundle.exec(&[], &["sh", "-c", "mknod /kmsg c 1 11 && head -c 1 /kmsg"]);
    assert!(open.status != 0 && open.stderr.contains("Operation not permitted"), "{open:?}");
    bundle.down();
}

#[test]
fn what_cannot_be_set_is_told_and_changes_nothing() {
    let bundle = limited();
    let file = bundle.path("resources.json");
    let wrong: [(Value, &str); 4] = [
        (json!({ "memory": { "limit": "much" } }), "/memory/limit"),
        (json!({ "memory": { "kernel": 5 } }), "/memory/kernel"),
        (json!({ "memory": { "limit": -7 } }), "/memory/limit"),
        (json!({ "memory": { "limit": 1 << 20 }, "network": { "classID": 7 } }), "net"),
    ];
    for (resources, said) in wrong {
        std::fs::write(&file, resources.to_string()).unwrap();
        let ran = update(&bundle, &["-r", file.to_str().unwrap()]);
        assert!(ran.status == 1 && ran.stderr.contains(said) && ran.stderr.lines().count() == 1, "{ran:?}");
    }
    for (options, status, said) in [
        (&[][..], 2, "give --resources"),
        (&["--memory", "much"], 2, "--memory takes a number"),
        (&["--sideways", "1"], 2, "--sideways"),
        (&["--cpuset-cpus", "9999"], 1, "cpuset"),
        (&["-r", "/nonesuch.json"], 1, "/nonesuch.json"),
    ] {
        let ran = update(&bundle, options);
        assert!(
            ran.status == status && ran.stderr.contains(said) && ran.stderr.lines().count() == 1,
            "{ran:?}"
        );
    }
    assert_eq!(memory(&bundle), (64 << 20).to_string());
    assert_eq!(bundle.tell(&["kill", &bundle.id, "KILL"]).status, 0);
    bundle.down();
    let ran = update(&bundle, &["--memory", "1G"]);
    assert!(ran.status == 1 && ran.stderr.contains("does not exist"), "{ran:?}");
}

#[test]
fn a_container_that_was_created_can_be_limited_in_what_its_spec_says_nothing_of() {
    let mut bundle = Bundle::shell("echo ready; exec sleep 1000");
    bundle.config["linux"]["resources"] = json!({});
    bundle.config["linux"]["cgroupsPath"] = format!("/{}", bundle.id).into();
    bundle.up();
    ok(update(&bundle, &["--memory", "32M", "--pids-limit", "9"]));
    assert_eq!(memory(&bundle), (32 << 20).to_string());
    assert_eq!(limit(&bundle, "pids.max", "pids.max"), "9");
    bundle.down();
    // One of `run` is in no hierarchy of v1 that it does not need.
    let mut running = bundle.command(&["run", &bundle.id]).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Read::read_exact(running.stdout.as_mut().unwrap(), &mut [0; 6]).unwrap();
    let ran = update(&bundle, &["--memory", "32M"]);
    match is_v2() {
        true => ok(ran),
        false => {
            assert!(ran.status == 1 && ran.stderr.contains("no control group with that file"), "{ran:?}")
        }
    }
    assert_eq!(bundle.tell(&["delete", "--force", &bundle.id]).status, 0);
    running.wait().unwrap();
    bundle.assert_nothing_left();
}
