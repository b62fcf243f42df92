//! Hooks: when they run, with what, and what becomes of a container when one fails.
use crate::busybox::Bundle;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;

/// A hook of the host's that runs a shell script.
fn hook(script: &str) -> Value {
    json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"] })
}

/// A bundle that shares a directory with the host, under `/shared`.
fn sharing(command: &str) -> (Bundle, PathBuf) {
    let mut bundle = Bundle::shell(command);
    let shared = bundle.path("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::set_permissions(&shared, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    bundle.bind(&shared, "/shared", &["rbind", "rw"]);
    (bundle, shared)
}

fn text(path: PathBuf) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn hooks_run_at_their_points_with_the_state_on_standard_input() {
    let mut bundle = Bundle::shell("echo command >> /shared/order");
    std::fs::create_dir(bundle.path("shared")).unwrap();
    let shared = bundle.path("shared");
    bundle.bind(&shared, "/shared", &["rbind", "rw"]);
    let order = shared.join("order");
    let outside = |name: &str| {
        let script = format!("grep -q '\"id\": \"{}\"' && echo {name} >> {}", bundle.id, order.display());
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"] }])
    };
    let inside = |name: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("echo {name} >> /shared/order")] }]);
    bundle.config["hooks"] = json!({
        "prestart": outside("prestart"),
        "createRuntime": outside("createRuntime"),
        "createContainer": outside("createContainer"),
        "startContainer": inside("startContainer"),
        "poststop": outside("poststop"),
    });
    bundle.output();
    let expected = "prestart\ncreateRuntime\ncreateContainer\nstartContainer\ncommand\npoststop\n";
    assert_eq!(std::fs::read_to_string(&order).unwrap(), expected);
}

#[test]
fn a_hook_that_fails_or_hangs_ends_the_start() {
    for (stage, script) in
        [("createRuntime", "exit 3"), ("createContainer", "exit 3"), ("createRuntime", "exec sleep 1000")]
    {
        let mut bundle = Bundle::shell("echo should not run");
        let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"], "timeout": 1 }]);
        bundle.config["hooks"] = json!({ stage: hook });
        let ran = bundle.run();
        assert_eq!((ran.status, ran.stdout.as_str()), (1, ""), "{stage} {script}: {ran:?}");
        assert!(ran.stderr.contains(stage), "{ran:?}");
        bundle.assert_nothing_left();
    }
}

const STAGES: [&str; 5] = ["createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

#[test]
fn a_hook_may_have_more_time_than_a_clock_can_count() {
    for stage in STAGES {
        let mut bundle = Bundle::shell("true");
        bundle.config["hooks"] = json!({ stage: [{ "path": "/bin/true", "timeout": i64::MAX }] });
        let ran = bundle.run();
        assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{stage}: {ran:?}");
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_hook_gets_the_state_of_its_moment_however_long_it_is() {
    let (mut bundle, shared) = sharing("sleep 0.2");
    bundle.config["annotations"] = json!({ "long": "x".repeat(300_000) });
    let script = |place: &str, name: &str| format!("sed 's/xx*/x/' > {place}/{name}");
    let mut hooks = serde_json::Map::new();
    for stage in STAGES {
        let place = if stage == "startContainer" { "/shared" } else { shared.to_str().unwrap() };
        // The first of each stage closes its input unread.
        let unread = json!({ "path": "/bin/sh", "args": ["sh", "-c", "exec <&-"] });
        hooks.insert(stage.into(), json!([unread, hook(&script(place, stage))]));
    }
    bundle.config["hooks"] = Value::Object(hooks);
    bundle.output();
    let statuses = ["creating", "creating", "created", "running", "stopped"];
    for (stage, status) in STAGES.into_iter().zip(statuses) {
        let state: Value = serde_json::from_str(&text(shared.join(stage))).unwrap();
        assert_eq!(
            (&state["status"], &state["annotations"]["long"]),
            (&json!(status), &json!("x")),
            "{stage}"
        );
    }
}

#[test]
fn a_hooks_surroundings_are_those_of_its_process() {
    let (mut bundle, shared) = sharing("sleep 0.2");
    bundle.config["process"]["env"] = json!(["PATH=/bin", "INSIDE=yes"]);
    bundle.config["process"]["user"]["umask"] = json!(0o027);
    let script = "umask; grep -E '^Sig(Blk|Ign)' /proc/self/status; echo $HOME $INSIDE $OUTSIDE";
    let mut hooks = serde_json::Map::new();
    for stage in STAGES {
        let place = if stage == "startContainer" { "/shared" } else { shared.to_str().unwrap() };
        let script = format!("PATH=/bin:/usr/bin; {{ {script}; }} > {place}/{stage}");
        hooks.insert(stage.into(), json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]));
    }
    bundle.config["hooks"] = Value::Object(hooks);
    let mut run = bundle.command(&["run", &bundle.id]);
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let status = run.env_clear().envs([("HOME", "/outside"), ("OUTSIDE", "yes")]).status().unwrap();
    rustix::process::umask(mask);
    assert_eq!(status.code(), Some(0));
    let none = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n";
    for (stage, umask, variables) in [
        ("createRuntime", "0022", "/outside yes"),
        ("createContainer", "0022", "yes"), // Not yet a home: it is looked up in the container.
        ("startContainer", "0027", "/ yes"),
        ("poststart", "0022", "/outside yes"),
        ("poststop", "0022", "/outside yes"),
    ] {
        assert_eq!(text(shared.join(stage)), format!("{umask}\n{none}{variables}\n"), "{stage}");
    }
}

#[test]
fn a_hook_before_the_command_is_bound_as_the_command_is() {
    for no_new_privileges in [true, false] {
        let (mut bundle, shared) =
            sharing("grep -E 'NoNew|Seccomp:|Cap[EPB]' /proc/self/status > /shared/command");
        bundle.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        let inside = "grep -E 'NoNew|Seccomp:|Cap[EPB]' /proc/self/status > /shared/hook";
        bundle.config["hooks"] = json!({ "startContainer": [{ "path": "/bin/sh", "args": ["sh", "-c", inside], "env": ["PATH=/bin"] }] });
        bundle.output();
        let (command, hook) = (text(shared.join("command")), text(shared.join("hook")));
        assert_eq!(hook, command);
        assert!(
            hook.contains("Seccomp:\t2")
                && hook.contains(&format!("NoNewPrivs:\t{}", i32::from(no_new_privileges)))
        );
    }
}

#[test]
fn a_hook_without_an_absolute_path_or_any_time_is_refused() {
    for (pointer, hook) in [
        ("/hooks/poststop/0/path", json!({ "path": "true" })),
        ("/hooks/poststop/0/timeout", json!({ "path": "/bin/true", "timeout": 0 })),
        ("/hooks/poststop/0/timeout", json!({ "path": "/bin/true", "timeout": -1 })),
    ] {
        let mut bundle = Bundle::shell("echo ran");
        bundle.config["hooks"] = json!({ "poststop": [hook] });
        let ran = bundle.run();
        assert_eq!((ran.status, ran.stdout.as_str()), (1, ""), "{ran:?}");
        assert!(ran.stderr.contains(pointer), "{ran:?}");
    }
}

/// How a test brings a container to its command.
fn ways() -> [&'static [&'static str]; 3] {
    [&["run"], &["run", "--detach"], &["create", "start"]]
}

/// Takes the way until something fails; the last status and what was said.
fn take(bundle: &Bundle, way: &[&str]) -> (i32, String) {
    if way.contains(&"--detach") {
        let ran = bundle.tell(&["run", "--detach", &bundle.id]);
        return (ran.status, ran.stderr);
    }
    let mut last = (0, String::new());
    for step in way {
        let ran = bundle.tell(&[step, &bundle.id]);
        last = (ran.status, ran.stderr);
        if last.0 != 0 {
            break;
        }
    }
    last
}

#[test]
fn a_hook_that_fails_undoes_the_container_and_the_last_hooks_follow() {
    for way in ways() {
        for stage in ["createRuntime", "createContainer", "startContainer", "poststart"] {
            let (mut bundle, shared) = sharing("exec sleep 1000");
            let failing =
                if stage == "startContainer" { json!({ "path": "/bin/false" }) } else { hook("exit 3") };
            let proof = hook(&format!("echo gone >> {}", shared.join("proof").display()));
            bundle.config["hooks"] = json!({ stage: [failing], "poststop": [hook("exit 5"), proof] });
            let (status, said) = take(&bundle, way);
            assert_eq!(status, 1, "{way:?} {stage}: {said}");
            assert!(said.contains(stage) && said.contains("Exited(5)"), "{way:?} {stage}: {said}");
            assert_eq!(text(shared.join("proof")), "gone\n", "{way:?} {stage}");
            bundle.assert_nothing_left();
        }
    }
}

#[test]
fn a_last_hook_that_fails_is_a_warning_and_the_others_run() {
    let (mut bundle, shared) = sharing("exit 4");
    let proof = hook(&format!("echo ran >> {}", shared.join("proof").display()));
    bundle.config["hooks"] =
        json!({ "poststop": [hook("exit 3"), proof.clone(), { "path": "/nonesuch" }, proof] });
    let ran = bundle.run();
    assert_eq!(ran.status, 4);
    assert!(ran.stderr.contains("Exited(3)") && ran.stderr.contains("/nonesuch"), "{ran:?}");
    assert_eq!(take(&bundle, &["create", "start"]).0, 0);
    let deleted = bundle.tell(&["delete", "--force", &bundle.id]);
    assert_eq!(deleted.status, 0, "{deleted:?}");
    assert!(deleted.stderr.contains("Exited(3)"), "{deleted:?}");
    assert_eq!(text(shared.join("proof")), "ran\n".repeat(4));
    bundle.assert_nothing_left();
}

#[test]
fn a_signal_ends_a_container_while_a_hook_of_it_hangs() {
    for (command, stage) in [
        ("run", "createRuntime"),
        ("run", "createContainer"),
        ("create", "createRuntime"),
        ("run", "poststart"),
    ] {
        let (mut bundle, _) = sharing("exec sleep 1000");
        // It says that it is there, and reads nothing of a state that no pipe holds.
        bundle.config["annotations"] = json!({ "long": "x".repeat(300_000) });
        let (mut reader, writer) = std::io::pipe().unwrap();
        let script = format!(
            "echo here > /proc/{}/fd/{}; exec sleep 1000",
            std::process::id(),
            std::os::fd::AsRawFd::as_raw_fd(&writer)
        );
        bundle.config["hooks"] = json!({ stage: [hook(&script)] });
        let mut child = bundle.command(&[command, &bundle.id]).stderr(Stdio::null()).spawn().unwrap();
        reader.read_exact(&mut [0; 5]).unwrap();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1), "{command} {stage}");
        bundle.assert_nothing_left();
    }
}

#[test]
fn what_failed_first_is_told_also_where_undoing_fails_after_it() {
    for (stage, commands) in
        [("createRuntime", &["run"][..]), ("createRuntime", &["create"]), ("poststart", &["create", "start"])]
    {
        let mut bundle = Bundle::shell("exec sleep 1000");
        let strange = bundle.path("state").join(&bundle.id).join("strange");
        let script = format!("touch {}; exit 3", strange.display());
        bundle.config["hooks"] = json!({ stage: [hook(&script)] });
        let told: Vec<_> = commands.iter().map(|command| bundle.tell(&[command, &bundle.id])).collect();
        let ran = told.last().unwrap();
        let (first, then) = (
            format!("failed to run the {stage} hook"),
            format!("remove {}", strange.parent().unwrap().display()),
        );
        assert!(
            ran.status == 1 && ran.stderr.contains(&first) && ran.stderr.contains(&then),
            "{commands:?}: {ran:?}"
        );
        std::fs::remove_file(&strange).unwrap();
        let deleted = bundle.tell(&["delete", "--force", &bundle.id]);
        assert_eq!(deleted.status, 0, "{deleted:?}");
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_first_process_that_is_killed_while_a_hook_runs_is_what_is_told() {
    let (mut bundle, _) = sharing("echo should not run");
    let script = r#"kill -9 $(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p'); exec sleep 1000"#;
    for (stage, commands) in
        [("createRuntime", [&["run"][..], &["create"]]), ("prestart", [&["run"], &["create"]])]
    {
        bundle.config["hooks"] = json!({ stage: [hook(script)] });
        for command in commands {
            let (status, told) = take(&bundle, command);
            assert!(status == 1 && told.contains("first process was killed by signal 9"), "{stage}: {told}");
            bundle.assert_nothing_left();
        }
    }
}
