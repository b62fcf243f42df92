//! Exit statuses, signals, and the commands of a container's life.
use crate::busybox::{Bundle, Ran};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde_json::{Value, json};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Stdio};

#[test]
fn the_status_is_the_commands_own() {
    for (command, expected) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("sh -c 'kill -9 $$'; exit $?", 137),
        ("kill -9 $$; exit 3", 3), // A pid namespace's first process cannot be killed from within.
    ] {
        let bundle = Bundle::shell(command);
        assert_eq!(bundle.run().status, expected, "{command}");
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_command_that_is_missing_or_not_executable_has_a_status_of_its_own() {
    let cases: [(&[&str], i32, &str); 7] = [
        (&["nonesuch"], 127, "nonesuch"),
        (&["/bin/nonesuch"], 127, "/bin/nonesuch"),
        (&["/bin/busybox/x"], 127, "/bin/busybox/x"),
        (&["/etc"], 126, "/etc"),
        (&["/plain"], 126, "/plain"),
        (&["/no-interpreter"], 126, "/no-interpreter"),
        (&["/empty"], 126, "/empty"),
    ];
    for (arguments, expected, named) in cases {
        let bundle = Bundle::new(arguments);
        let write = |name: &str, text: &str, mode| {
            let path = bundle.rootfs().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        };
        std::fs::create_dir(bundle.rootfs().join("etc")).unwrap();
        write("plain", "#!/bin/sh\n", 0o644);
        write("no-interpreter", "#!/bin/nonesuch\n", 0o755);
        write("empty", "", 0o755);
        let ran = bundle.run();
        assert_eq!(ran.status, expected, "{ran:?}");
        assert!(ran.stderr.contains(named) && ran.stderr.lines().count() == 1, "{ran:?}");
        bundle.assert_nothing_left();
    }
}

/// A container in the foreground that has said that it is ready.
fn started(bundle: &Bundle) -> Child {
    let mut child = bundle.command(&["run", &bundle.id]).stdout(Stdio::piped()).spawn().unwrap();
    let mut word = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut word).unwrap();
    assert_eq!(&word, b"ready\n");
    child
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
}

#[test]
fn a_signal_reaches_a_command_that_handles_it() {
    let bundle = Bundle::shell("trap 'exit 42' TERM; echo ready; while :; do sleep 0.05; done");
    let mut child = started(&bundle);
    signal(&child, rustix::process::Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(42));
    bundle.assert_nothing_left();
}

#[test]
fn a_signal_that_asks_to_end_ends_a_command_that_does_not_handle_it() {
    for sent in [rustix::process::Signal::INT, rustix::process::Signal::TERM, rustix::process::Signal::HUP] {
        let bundle = Bundle::new(&["yes", "ready"]); // A shell would handle SIGINT.
        let mut child = started(&bundle);
        signal(&child, sent);
        assert_eq!(child.wait().unwrap().code(), Some(137), "{sent:?}");
        bundle.assert_nothing_left();
    }
}

#[test]
fn s64_processes_that_fork_twice_ignore_signals_or_stop_themselves_are_gone_with_the_command() {
    let hide = "(trap '' TERM HUP INT; setsid sh -c 'sleep 1000 & sleep 1000' & ) & \
                sh -c 'kill -STOP $$' & sleep 0.1; exit 5";
    for namespaces in ["pid", "none"] {
        let mut bundle = Bundle::shell(hide);
        if namespaces == "none" {
            let list = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
            list.retain(|namespace| namespace["type"] != "pid");
        }
        assert_eq!(bundle.run().status, 5, "{namespaces}");
        bundle.assert_nothing_left();
    }
}

fn status(bundle: &Bundle) -> String {
    let ran = bundle.tell(&["state", &bundle.id]);
    assert_eq!(ran.status, 0, "{ran:?}");
    let state: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(state["id"], bundle.id);
    assert_eq!(state["bundle"].as_str(), bundle.path("").to_str().map(|path| path.trim_end_matches('/')));
    state["status"].as_str().unwrap().to_owned()
}

fn ok(ran: Ran) {
    assert_eq!(ran.status, 0, "{ran:?}");
}

/// Waits for the end of a container that no process of this test is the parent of.
fn wait_for_end(bundle: &Bundle) {
    let state: Value = serde_json::from_str(&bundle.tell(&["state", &bundle.id]).stdout).unwrap();
    let Some(pid) = state["pid"].as_i64() else { return };
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else { return };
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(pidfd.as_fd(), rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 })).unwrap();
}

#[test]
fn a_created_container_waits_for_start_and_stays_until_it_is_deleted() {
    let mut bundle = Bundle::shell("echo started > /shared/proof; exec sleep 1000");
    std::fs::create_dir(bundle.path("shared")).unwrap();
    let shared = bundle.path("shared");
    bundle.bind(&shared, "/shared", &["rbind", "rw"]);
    let pid_file = bundle.path("pid");

    ok(bundle.tell(&["create", "--pid-file", pid_file.to_str().unwrap(), &bundle.id]));
    assert_eq!(status(&bundle), "created");
    assert!(!shared.join("proof").exists());
    assert!(std::fs::read_to_string(&pid_file).unwrap().parse::<u32>().unwrap() > 1);
    assert_eq!(bundle.tell(&["create", &bundle.id]).status, 1, "the id is taken");

    ok(bundle.tell(&["start", &bundle.id]));
    assert_eq!(status(&bundle), "running");
    assert_eq!(bundle.tell(&["start", &bundle.id]).status, 1, "it cannot be started twice");
    assert_eq!(bundle.tell(&["delete", &bundle.id]).status, 1, "it runs");
    assert_eq!(bundle.tell(&["list", "-q"]).stdout, format!("{}\n", bundle.id));

    ok(bundle.tell(&["kill", &bundle.id, "KILL"]));
    wait_for_end(&bundle);
    assert_eq!(status(&bundle), "stopped");
    assert_eq!(bundle.tell(&["kill", &bundle.id, "KILL"]).status, 1, "it has ended");
    ok(bundle.tell(&["delete", &bundle.id]));
    assert_eq!(bundle.tell(&["state", &bundle.id]).status, 1);
    assert_eq!(bundle.tell(&["delete", &bundle.id]).status, 1);
    ok(bundle.tell(&["delete", "--force", &bundle.id]));
    bundle.assert_nothing_left();
}

#[test]
fn a_start_that_finds_no_command_says_so_and_leaves_nothing_after_delete() {
    let bundle = Bundle::new(&["/no-interpreter"]);
    std::fs::write(bundle.rootfs().join("no-interpreter"), "#!/bin/nonesuch\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(bundle.rootfs().join("no-interpreter"), mode).unwrap();
    ok(bundle.tell(&["create", &bundle.id]));
    assert_eq!(bundle.tell(&["start", &bundle.id]).status, 126);
    ok(bundle.tell(&["delete", "--force", &bundle.id]));
    bundle.assert_nothing_left();
}

#[test]
fn delete_with_force_ends_a_container_in_whatever_state() {
    for steps in [&["create"][..], &["create", "start"], &["run"]] {
        let bundle = Bundle::shell("echo ready; exec sleep 1000");
        let mut child = None;
        for step in steps {
            match *step {
                "run" => child = Some(started(&bundle)),
                step => ok(bundle.tell(&[step, &bundle.id])),
            }
        }
        ok(bundle.tell(&["delete", "-f", &bundle.id]));
        if let Some(mut child) = child {
            assert_eq!(child.wait().unwrap().code(), Some(137));
        }
        bundle.assert_nothing_left();
    }
}

/// Who is in the container's groups, held.
fn members(bundle: &Bundle) -> Vec<OwnedFd> {
    let group = bundle.groups().into_iter().find(|group| group.join("cgroup.procs").exists()).unwrap();
    let listed = std::fs::read_to_string(group.join("cgroup.procs")).unwrap();
    let pids = listed.lines().map(|pid| rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap());
    pids.map(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap()).collect()
}

#[test]
fn kill_all_reaches_every_process_also_without_a_pid_namespace() {
    let command = "setsid sleep 1000 & sleep 1000 & echo ready; exec sleep 1000";
    for signal in ["KILL", "TERM", "35"] {
        let mut bundle = Bundle::shell(command);
        let list = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
        list.retain(|namespace| namespace["type"] != "pid");
        // Without a monitor, which would end the others together with the first one.
        let mut create = bundle.command(&["create", &bundle.id]).stdout(Stdio::piped()).spawn().unwrap();
        assert!(create.wait().unwrap().success());
        ok(bundle.tell(&["start", &bundle.id]));
        create.stdout.unwrap().read_exact(&mut [0; "ready\n".len()]).unwrap();
        let members = members(&bundle);
        assert_eq!(members.len(), 3);
        for harmless in [&["kill", &bundle.id, "0"][..], &["kill", "--all", &bundle.id, "0"]] {
            ok(bundle.tell(harmless));
        }
        ok(bundle.tell(&["kill", "--all", &bundle.id, signal]));
        for member in &members {
            let mut fds = [rustix::event::PollFd::new(member, rustix::event::PollFlags::IN)];
            let ten_seconds = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
            assert_eq!(rustix::event::poll(&mut fds, Some(&ten_seconds)).unwrap(), 1, "{signal}");
        }
        ok(bundle.tell(&["kill", "--all", &bundle.id, signal])); // Nobody is left, which is what was wanted.
        ok(bundle.tell(&["delete", &bundle.id]));
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_frozen_container_is_ended_by_whoever_asks_also_where_a_group_of_its_own_is_frozen() {
    let freeze = |group: &std::path::Path| {
        [("freezer.state", "FROZEN"), ("cgroup.freeze", "1")]
            .iter()
            .any(|(file, value)| group.join(file).exists() && std::fs::write(group.join(file), value).is_ok())
    };
    let into_child = |group: &std::path::Path| {
        let child = group.join("child");
        std::fs::create_dir(&child).unwrap();
        let members = std::fs::read_to_string(group.join("cgroup.procs")).unwrap();
        members.lines().for_each(|pid| std::fs::write(child.join("cgroup.procs"), pid).unwrap());
        child
    };
    for command in [&["delete", "-f"][..], &["kill"], &["kill", "--all"], &[]] {
        for nested in [false, true] {
            let bundle = Bundle::shell("echo ready; exec sleep 1000");
            let mut running = started(&bundle);
            let group = bundle
                .groups()
                .into_iter()
                .find(|group| group.join("freezer.state").exists() || group.join("cgroup.freeze").exists());
            let group = group.unwrap();
            assert!(freeze(&if nested { into_child(&group) } else { group }));
            let signal_word = command.first().filter(|word| **word == "kill").map(|_| "KILL");
            let id = bundle.id.as_str();
            match command {
                [] => signal(&running, rustix::process::Signal::TERM),
                words => {
                    ok(bundle.tell(&words.iter().copied().chain([id]).chain(signal_word).collect::<Vec<_>>()))
                }
            }
            assert!(ends_soon(&running), "{command:?} {nested}");
            assert_eq!(running.wait().unwrap().code(), Some(137), "{command:?} {nested}");
            bundle.assert_nothing_left();
        }
    }
}

/// Nothing that waits for ever may keep a test from failing.
fn ends_soon(child: &Child) -> bool {
    let pid = rustix::process::Pid::from_child(child);
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&limit)).unwrap() == 1
}

#[test]
fn a_start_that_names_the_group_of_another_container_or_one_above_it_fails_and_that_one_lives() {
    let mut first = Bundle::shell("echo ready; exec sleep 1000");
    let parent = format!("/{}", first.id);
    first.config["linux"]["cgroupsPath"] = format!("{parent}/container").into();
    let mut running = started(&first);
    for path in [parent.clone(), format!("{parent}/container")] {
        let mut second = Bundle::shell("true");
        second.config["linux"]["cgroupsPath"] = path.as_str().into();
        let ran = second.run();
        assert_eq!(ran.status, 1, "{ran:?}");
        assert!(ran.stderr.contains("there is one of that name"), "{ran:?}");
        second.assert_nothing_left();
        assert_eq!(status(&first), "running", "{path}");
    }
    ok(first.tell(&["delete", "--force", &first.id]));
    assert_eq!(running.wait().unwrap().code(), Some(137));
    first.assert_nothing_left();
}

#[test]
fn what_is_changed_in_the_bundle_after_create_has_no_effect() {
    let mut bundle = Bundle::shell("exec sleep 1000");
    let order = bundle.path("order");
    let hook = |name: &str| {
        let script = format!("echo {name} >> {}", order.display());
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }])
    };
    bundle.config["hooks"] = json!({ "poststart": hook("poststart"), "poststop": hook("poststop") });
    bundle.config["annotations"] = json!({ "which": "first" });
    ok(bundle.tell(&["create", &bundle.id]));
    bundle.config["hooks"] = json!({ "poststart": hook("forged"), "poststop": hook("forged") });
    bundle.config["annotations"] = json!({ "which": "second" });
    let state: Value = serde_json::from_str(&bundle.tell(&["state", &bundle.id]).stdout).unwrap();
    assert_eq!(state["annotations"]["which"], "first");
    ok(bundle.tell(&["start", &bundle.id]));
    ok(bundle.tell(&["delete", "--force", &bundle.id]));
    assert_eq!(std::fs::read_to_string(&order).unwrap(), "poststart\npoststop\n");
    bundle.assert_nothing_left();
}

#[test]
fn annotations_may_be_as_large_as_the_spec() {
    let mut bundle = Bundle::shell("exec sleep 1000");
    let large = "x".repeat(3 << 20);
    bundle.config["annotations"] = json!({ "large": large });
    ok(bundle.tell(&["create", &bundle.id]));
    let state: Value = serde_json::from_str(&bundle.tell(&["state", &bundle.id]).stdout).unwrap();
    assert_eq!(state["status"], "created");
    assert!(state["annotations"]["large"] == large, "of another length");
    ok(bundle.tell(&["delete", "--force", &bundle.id]));
    bundle.assert_nothing_left();
}

#[test]
fn errors_go_to_the_log_as_json_too() {
    let bundle = Bundle::new(&["nonesuch"]);
    let log = bundle.path("log");
    let path = log.to_str().unwrap();
    assert_eq!(bundle.tell(&["--log", path, "--log-format", "json", "run", &bundle.id]).status, 127);
    let line: Value = serde_json::from_str(&std::fs::read_to_string(&log).unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("nonesuch"), "{line}");
}

#[test]
fn warnings_go_to_the_log_and_not_into_the_containers_standard_error() {
    let mut bundle = Bundle::shell("true");
    bundle.config["process"]["capabilities"]["bounding"] = json!(["CAP_FLY"]);
    bundle.config["unknown"] = json!("property");
    let ran = bundle.run();
    let words = "warning: /process/capabilities/bounding: ignoring unknown";
    assert!(ran.status == 0 && ran.stderr.contains(words), "{ran:?}");
    assert!(!ran.stderr.contains("/unknown"), "ignoring that is the rule: {ran:?}");
    let log = bundle.path("log");
    let ran = bundle.tell(&["--log", log.to_str().unwrap(), "--debug", "run", &bundle.id]);
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
    let logged = std::fs::read_to_string(&log).unwrap();
    assert!(logged.contains("level=warning msg=\"/unknown"), "{logged}");
    assert!(logged.contains("level=debug msg=\"root.pivot"), "the plan's steps: {logged}");
    let ran = bundle.tell(&["--log", log.to_str().unwrap(), "delete", &bundle.id]);
    assert!(
        ran.stderr.contains("error: failed to delete") && ran.stderr.contains("does not exist"),
        "{ran:?}"
    );
}

#[test]
fn every_command_has_help() {
    let bundle = Bundle::shell("true");
    for command in
        "run create start exec pause resume ps update state kill delete list plan spec features".split(' ')
    {
        for word in ["-h", "--help"] {
            let ran = bundle.tell(&[command, word]);
            assert!(ran.status == 0 && ran.stdout.contains("usage:"), "{command}: {ran:?}");
        }
    }
}

#[test]
fn what_another_version_wrote_hides_no_container_and_keeps_nothing_from_being_undone() {
    let other = Bundle::shell("exec sleep 1000");
    ok(other.tell(&["create", &other.id]));
    for (line, named) in [
        (r#"{"undo":"unload-nothing","name":"x"}"#, "unload-nothing"),
        (r#"{"note":{"first":"process"}}"#, "was not written by this program"),
    ] {
        let mut bundle = Bundle::shell("exec sleep 1000");
        bundle.share_state_with(&other);
        ok(bundle.tell(&["create", &bundle.id]));
        let directory = other.path("state").join(&bundle.id);
        let journal = directory.join("journal");
        let text = std::fs::read_to_string(&journal).unwrap();
        std::fs::write(&journal, format!("{text}{line}\n")).unwrap();
        for _ in 0..2 {
            let deleted = bundle.tell(&["delete", "--force", &bundle.id]);
            assert!(deleted.status == 1 && deleted.stderr.contains(named), "{deleted:?}");
            assert!(bundle.groups().iter().all(|group| !group.exists()) && journal.exists());
        }
        // Nor does a journal that cannot be read at all.
        std::fs::write(&journal, "not a journal\n").unwrap();
        let listed = other.tell(&["list", "-q"]);
        assert_eq!((listed.status, listed.stdout), (0, format!("{}\n", other.id)));
        assert!(listed.stderr.contains(&bundle.id), "{}", listed.stderr);
        std::fs::remove_dir_all(directory).unwrap();
    }
    ok(other.tell(&["delete", "--force", &other.id]));
    other.assert_nothing_left();
}

#[test]
fn nobody_is_waited_for_at_the_other_end_of_a_fifo() {
    let bundle = Bundle::shell("echo ran");
    let fifo = |path: PathBuf| {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        path
    };
    let (log, pid_file) = (fifo(bundle.path("log")), fifo(bundle.path("pid")));
    let ran = bundle.tell(&["--log", log.to_str().unwrap(), "run", &bundle.id]);
    assert_eq!((ran.status, ran.stdout.as_str()), (0, "ran\n"), "{ran:?}");
    // Whoever asked for the number gets no container without it.
    let nowhere = bundle.path("nonesuch/pid");
    for (path, why) in
        [(&pid_file, "nobody reads"), (&nowhere, "No such file"), (&bundle.path(""), "a directory")]
    {
        for command in ["run", "create"] {
            let ran = bundle.tell(&[command, "--pid-file", path.to_str().unwrap(), &bundle.id]);
            let said = format!("failed to write the process number to {}: ", path.display());
            assert!(ran.status == 1 && ran.stderr.contains(&said) && ran.stderr.contains(why), "{ran:?}");
            bundle.assert_nothing_left();
        }
    }
    for file in ["journal", "config.json"] {
        ok(bundle.tell(&["create", &bundle.id]));
        let path = bundle.path("state").join(&bundle.id).join(file);
        let text = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        fifo(path.clone());
        for command in ["state", "start"] {
            let ran = bundle.tell(&[command, &bundle.id]);
            assert!(ran.status == 1 && ran.stderr.contains("a FIFO"), "{ran:?}");
        }
        ok(bundle.tell(&["list"]));
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, text).unwrap();
        ok(bundle.tell(&["delete", "--force", &bundle.id]));
        bundle.assert_nothing_left();
    }
    let config = bundle.path("config.json");
    let command = bundle.command(&["run", &bundle.id]);
    std::fs::remove_file(&config).unwrap();
    fifo(config);
    let ran = { command }.output().unwrap();
    assert!(String::from_utf8_lossy(&ran.stderr).contains("it is a FIFO"), "{ran:?}");
}

#[test]
fn commands_that_are_not_there_yet_are_refused_by_name() {
    let bundle = Bundle::shell("true");
    let ran = bundle.tell(&["events", &bundle.id]);
    assert_eq!(ran.status, 1, "{ran:?}");
    assert!(ran.stderr.contains("events") && ran.stderr.contains("not there yet"), "{ran:?}");
    assert_eq!(bundle.tell(&["frobnicate"]).status, 2);
    assert_eq!(bundle.tell(&["run", "../x"]).status, 2);
}

/// The runtime, started by a shell that opens `redirections` for it.
fn with_descriptors(bundle: &Bundle, redirections: &str, arguments: &[&str]) -> Ran {
    let told = bundle.command(arguments);
    let mut shell = std::process::Command::new("/bin/sh");
    shell.arg("-c").arg(format!("exec \"$@\" {redirections}")).arg("sh").arg(told.get_program());
    let output = shell.args(told.get_args()).current_dir(bundle.path("")).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { status: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[test]
fn only_the_descriptors_that_were_promised_are_passed_on() {
    let bundle = Bundle::new(&["ls", "/proc/self/fd"]);
    // The shell opens 3 and 5; of these only 3 is passed on.
    let ran =
        with_descriptors(&bundle, "3</dev/null 5</dev/null", &["run", "--preserve-fds", "1", &bundle.id]);
    assert_eq!(ran.stdout.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3", "4"], "4 is ls's own");
    bundle.assert_nothing_left();
}

#[test]
fn a_descriptor_is_the_commands_or_the_runtimes_and_given_once() {
    let bundle = Bundle::shell("echo ran");
    for (redirections, arguments, said) in [
        ("", &["--preserve-fds", "200"][..], "3 is not open"),
        ("3</", &["--root-fd", "3", "--preserve-fds", "1"], "3 is the command's"),
        ("", &["--root-fd", "0"], "0 is the command's"),
        ("3</", &["--root-fd", "4"], "4 is not open"),
        ("3</", &["--report-fd", "3", "--lifeline-fd", "3"], "3 is given twice"),
    ] {
        let arguments: Vec<&str> =
            ["run"].iter().chain(arguments).copied().chain([bundle.id.as_str()]).collect();
        let ran = with_descriptors(&bundle, redirections, &arguments);
        assert_eq!((ran.status, ran.stdout.as_str()), (2, ""), "{ran:?}");
        assert!(ran.stderr.contains(said), "{ran:?}");
    }
}

#[test]
fn a_created_container_holds_nothing_that_its_creator_had_open() {
    let bundle = Bundle::shell("true");
    let ran = with_descriptors(&bundle, "9>open >/dev/null 2>&1", &["create", &bundle.id]);
    assert_eq!(ran.status, 0, "{ran:?}");
    let state: Value = serde_json::from_str(&bundle.tell(&["state", &bundle.id]).stdout).unwrap();
    let held = std::fs::read_dir(format!("/proc/{}/fd", state["pid"])).unwrap();
    let held: Vec<_> = held.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok()).collect();
    assert!(held.len() > 3 && !held.contains(&bundle.path("open")), "{held:?}");
    ok(bundle.tell(&["delete", "--force", &bundle.id]));
    bundle.assert_nothing_left();
}

#[test]
fn a_created_container_is_not_started_by_who_only_connects_to_it() {
    let bundle = Bundle::shell("exec sleep 1000");
    ok(bundle.tell(&["create", &bundle.id]));
    let path = bundle.path("state").join(&bundle.id).join("start.sock");
    let killed = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    connect(&killed, &SocketAddrUnix::new(path).unwrap()).unwrap();
    // As a `start` that is killed before it has taken the socket away: PID 1 has nothing to say to it, and ends with it.
    let moment = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };
    assert_eq!(poll(&mut [PollFd::new(&killed, PollFlags::IN)], Some(&moment)), Ok(0));
    assert_eq!(status(&bundle), "created");
    drop(killed);
    wait_for_end(&bundle);
    ok(bundle.tell(&["delete", &bundle.id]));
    bundle.assert_nothing_left();
}
