//! A container that outlives its command: its holder, and what the command has of it.
use crate::busybox::{Bundle, Ran};
use crate::launch::{exited, next, start_held, wait, wait_for};
use runtime::launch::{CommandEnded, Created, Ended, Monitor, Report};
use rustix::process::{Pid, Signal, kill_process, pidfd_send_signal};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

fn started(bundle: &Bundle) -> (Monitor, Created) {
    let monitor = start_held(bundle, Vec::new());
    let Report::Created(created) = next(&monitor).unwrap() else { panic!("not created") };
    assert!(matches!(next(&monitor).unwrap(), Report::Started));
    (monitor, created)
}

fn command_ended(monitor: &Monitor) -> CommandEnded {
    match next(monitor).unwrap() {
        Report::CommandEnded(ended) => ended,
        other => panic!("{other:?}"),
    }
}

/// Null if there is none yet.
fn state(bundle: &Bundle) -> Value {
    serde_json::from_str(&bundle.tell(&["state", &bundle.id]).stdout).unwrap_or_default()
}

/// `create` and `start`, with a holder.
fn up(bundle: &Bundle) {
    for words in [&["create", "--hold"][..], &["start"]] {
        let ran = bundle.tell(&[words, &[&bundle.id]].concat());
        assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{words:?}");
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not in 20 s: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

fn ended(bundle: &Bundle) -> Value {
    let mut found = Value::Null;
    until("the command's end", || {
        found = state(bundle);
        found["command"]["status"] == "ended"
    });
    found
}

/// Where `run` has stayed to hear it.
fn exit_status(bundle: &Bundle) -> Value {
    until("the command's status", || !state(bundle)["command"]["exitStatus"].is_null());
    state(bundle)["command"]["exitStatus"].clone()
}

#[test]
fn the_end_of_the_command_is_told_at_once_and_the_container_goes_when_it_is_told_to() {
    for (script, status, signal) in [
        ("exit 0", 0, None),
        ("exit 42", 42, None),
        ("kill -9 $$", 137, Some(9)),
        ("kill -TERM $$", 143, Some(15)),
    ] {
        let bundle = Bundle::shell(script);
        let (mut monitor, created) = started(&bundle);
        assert_eq!(command_ended(&monitor), CommandEnded { status, signal }, "{script}");
        let told = state(&bundle);
        assert_eq!(told["status"], "running", "{script}");
        assert_eq!(told["command"], json!({ "status": "ended", "exitStatus": status }), "{script}");
        assert_eq!(bundle.inside(&[], "cat /proc/1/comm; id -u"), "holder\n0\n");
        monitor.abandon();
        wait_for(created.init.as_fd());
        let gone = exited(&monitor);
        assert_eq!((gone.status, gone.signal, gone.oom_killed), (status, signal, false), "{script}");
        assert_eq!(wait(monitor), Ended::Exited(status));
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_command_that_ends_at_once_is_never_missed() {
    for round in 0..20 {
        let bundle = Bundle::new(&["sh", "-c", "exit 7"]);
        let (mut monitor, _created) = started(&bundle);
        assert_eq!(command_ended(&monitor).status, 7, "round {round}");
        monitor.abandon();
        assert_eq!(exited(&monitor).status, 7);
        wait(monitor);
    }
}

/// What of a process is not its own number, parent or time.
const SELF: &str = "grep -vE '^(Ns|Pid|PPid|Tgid|NStgid|NSpid|NSpgid|NSsid|SigQ|Vm|Rss|Hugetlb|voluntary|nonvol|Threads)' /proc/self/status; \
                    cat /proc/self/limits /proc/self/oom_score_adj /proc/self/cgroup; ls /proc/self/fd; pwd; env | sort; umask; \
                    tty; test $(cut -d' ' -f6 /proc/$$/stat) = $$ && echo leads; \
                    for kind in cgroup ipc mnt net pid user uts; do test -e /proc/self/ns/$kind && echo $kind; done";

/// What the command of a container prints, with a holder or without one, if its caller ignores some signals.
fn printed(bundle: &Bundle, hold: bool) -> String {
    let out = bundle.path("out");
    let told = bundle.command(&["create"]);
    let mut shell = std::process::Command::new("/bin/sh");
    shell.arg("-c").arg("trap '' HUP INT TERM USR1 CHLD PIPE; exec \"$0\" \"$@\"").arg(told.get_program());
    shell.args(told.get_args()).current_dir(bundle.path("")).stdin(Stdio::null());
    if hold {
        shell.arg("--hold");
    }
    shell.arg(&bundle.id).stdout(File::create(&out).unwrap()).stderr(Stdio::inherit());
    assert!(shell.status().unwrap().success());
    assert_eq!(bundle.tell(&["start", &bundle.id]).status, 0);
    let mut text = String::new();
    until("the command's last line", || {
        text = std::fs::read_to_string(&out).unwrap();
        text.ends_with("done\n")
    });
    bundle.down();
    text
}

#[test]
fn the_command_is_what_it_would_be_without_a_holder() {
    let mut bundle = Bundle::shell(&format!("{SELF}; echo done; exec sleep 1000"));
    let as_root = printed(&bundle, false);
    assert!(as_root.contains("SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"), "{as_root}");
    assert!(as_root.contains("leads\n") && as_root.contains("Seccomp:\t2\n"), "{as_root}");
    assert_eq!(printed(&bundle, true), as_root);
    bundle.config["process"]["user"] =
        json!({ "uid": 1000, "gid": 1001, "additionalGids": [10, 20], "umask": 0o027 });
    bundle.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 88 }]);
    bundle.config["process"]["oomScoreAdj"] = json!(321);
    bundle.config["process"]["noNewPrivileges"] = json!(true);
    bundle.config["process"]["cwd"] = json!("/made/on/the/way");
    let as_user = printed(&bundle, false);
    assert!(as_user.contains("NoNewPrivs:\t1\n") && as_user.contains("321\n"), "{as_user}");
    assert_eq!(printed(&bundle, true), as_user);
}

#[test]
fn orphans_become_the_holders_and_none_stays_a_zombie() {
    let bundle = Bundle::shell(
        "for i in $(seq 40); do (sleep 0.0$i &); done; (sleep 1000 & echo $! >/orphan); exec sleep 1000",
    );
    up(&bundle);
    until("the orphan", || {
        std::fs::read_to_string(bundle.rootfs().join("orphan")).is_ok_and(|text| text.ends_with('\n'))
    });
    until("the holder's child", || {
        bundle.inside(&[], "grep PPid: /proc/$(cat /orphan)/status") == "PPid:\t1\n"
    });
    bundle.inside(&[], "kill $(cat /orphan)");
    // The holder, the command, and who looks.
    until("nobody left over", || {
        let listed = bundle.inside(&[], "cat /proc/[0-9]*/stat 2>/dev/null | cut -d' ' -f2,3");
        !listed.contains(" Z") && !listed.contains("(sleep) S\n(sleep)") && listed.lines().count() < 6
    });
    bundle.down();
}

#[test]
fn signals_reach_the_command_from_all_sides() {
    let script = "trap 'echo one' USR1; trap 'echo two' USR2; trap 'echo three; exit 5' TERM; echo ready; while :; do sleep 0.02; done";
    let bundle = Bundle::shell(script);
    let mut run = bundle.command(&["run", "--hold", &bundle.id]).stdout(Stdio::piped()).spawn().unwrap();
    let mut shown = run.stdout.take().unwrap();
    let mut expect = |line: &str| {
        let mut text = vec![0; line.len()];
        shown.read_exact(&mut text).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), line);
    };
    expect("ready\n");
    assert_eq!(bundle.tell(&["kill", &bundle.id, "USR1"]).status, 0);
    expect("one\n");
    bundle.inside(&[], "kill -USR2 1");
    expect("two\n");
    // What no holder could pass on.
    let command = state(&bundle)["command"]["pid"].as_i64().unwrap();
    let is_stopped = || std::fs::read_to_string(format!("/proc/{command}/stat")).unwrap().contains(") T ");
    assert_eq!(bundle.tell(&["kill", &bundle.id, "STOP"]).status, 0);
    until("the command stands still", is_stopped);
    assert_eq!(bundle.tell(&["kill", &bundle.id, "CONT"]).status, 0);
    let monitor = Pid::from_child(&run);
    kill_process(monitor, Signal::TERM).unwrap();
    expect("three\n");
    assert_eq!(exit_status(&bundle), 5);
    assert_eq!(run.try_wait().unwrap(), None);
    kill_process(monitor, Signal::TERM).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(5));
    bundle.assert_nothing_left();
}

#[test]
fn a_shell_at_the_terminal_has_job_control() {
    let mut bundle = Bundle::new(&["/usr/bin/bash", "--norc", "--noprofile", "-i"]);
    for directory in ["/usr", "/lib", "/lib64"] {
        bundle.bind(directory.as_ref(), directory, &["rbind", "ro"]);
    }
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["process"]["env"] = json!(["PATH=/bin:/usr/bin", "PS1=> ", "TERM=dumb", "HOME=/"]);
    let (mut monitor, created) = started(&bundle);
    let mut terminal = File::from(created.terminal.unwrap());
    let mut seen = String::new();
    let mut say = |typed: &str, expected: &str| {
        terminal.write_all(typed.as_bytes()).unwrap();
        let from = seen.len();
        while !seen.get(from..).unwrap().contains(expected) {
            wait_for(terminal.as_fd());
            let mut bytes = [0; 256];
            let length = terminal.read(&mut bytes).unwrap();
            seen.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
        }
        seen.clone()
    };
    let greeting = say("", "> ");
    assert!(!greeting.contains("no job control") && !greeting.contains("cannot set"), "{greeting}");
    say("sleep 1000\n", "sleep 1000\r\n");
    until("sleep is in front", || bundle.inside(&[], "ps").contains("sleep 1000"));
    say("\x1a", "Stopped");
    say("jobs\n", "sleep 1000");
    say("fg\n", "sleep 1000\r\n");
    until("sleep goes on", || {
        bundle.inside(&[], "cat /proc/[0-9]*/stat 2>/dev/null; :").contains("(sleep) S")
    });
    say("\x03", "^C");
    say("echo \"came $?\"\n", "came 130");
    say("sleep 0.1 & wait; exit 7\n", "exit");
    assert_eq!(command_ended(&monitor), CommandEnded { status: 7, signal: None });
    // The holder does not keep the terminal open.
    let mut rest = Vec::new();
    assert_eq!(
        terminal.read_to_end(&mut rest).unwrap_err().raw_os_error(),
        Some(rustix::io::Errno::IO.raw_os_error())
    );
    assert_eq!(bundle.inside(&[], "echo joined"), "joined\n");
    monitor.abandon();
    assert_eq!(exited(&monitor).status, 7);
    wait(monitor);
    bundle.assert_nothing_left();
}

#[test]
fn the_terminal_is_handed_over_without_a_hangup() {
    for _ in 0..10 {
        let mut bundle = Bundle::shell(
            "trap 'echo hung up' HUP; i=0; while [ $i -lt 20 ]; do i=$((i+1)); sleep 0.01; done; exit 9",
        );
        bundle.config["process"]["terminal"] = json!(true);
        let (mut monitor, created) = started(&bundle);
        // Whoever is hung up on before the trap ends by that.
        assert_eq!(command_ended(&monitor).status, 9);
        let mut printed = Vec::new();
        File::from(created.terminal.unwrap()).read_to_end(&mut printed).unwrap_err();
        assert_eq!(String::from_utf8(printed).unwrap(), "");
        monitor.abandon();
        exited(&monitor);
        wait(monitor);
    }
}

#[test]
fn the_monitors_end_takes_the_holder_and_all_with_it() {
    for script in ["exit 0", "exec sleep 1000"] {
        let bundle = Bundle::shell(script);
        let (mut monitor, created) = started(&bundle);
        if script == "exit 0" {
            command_ended(&monitor);
        }
        pidfd_send_signal(monitor.pidfd(), Signal::KILL).unwrap();
        wait_for(created.init.as_fd());
        assert_eq!(monitor.wait().unwrap(), Ended::Signaled(9));
        assert_eq!(bundle.tell(&["delete", &bundle.id]).status, 0);
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_created_container_stays_until_a_signal_or_delete_ends_it() {
    let bundle = Bundle::shell("exit 4");
    up(&bundle);
    let told = ended(&bundle);
    assert_eq!(told["status"], "running");
    assert_eq!(told["command"], json!({ "status": "ended" }), "nobody has stayed to hear how");
    assert_eq!(bundle.tell(&["kill", &bundle.id, "USR1"]).status, 0);
    for (word, status) in [("pause", "paused"), ("resume", "running")] {
        assert_eq!(bundle.tell(&[word, &bundle.id]).status, 0);
        assert_eq!(state(&bundle)["status"], status);
    }
    let Ran { status, stderr, .. } = bundle.tell(&["delete", &bundle.id]);
    assert!(status == 1 && stderr.contains("it is running"), "{stderr}");
    assert_eq!(bundle.tell(&["kill", &bundle.id, "TERM"]).status, 0);
    until("the container's end", || state(&bundle)["status"] == "stopped");
    assert_eq!(bundle.tell(&["delete", &bundle.id]).status, 0);
    bundle.assert_nothing_left();
    up(&bundle);
    ended(&bundle);
    bundle.down();
}

#[test]
fn what_never_became_its_command_leaves_no_holder_behind() {
    let mut bundle = Bundle::new(&["nonesuch"]);
    std::fs::write(bundle.rootfs().join("plain"), "no program\n").unwrap();
    assert!(
        std::process::Command::new("chmod")
            .arg("755")
            .arg(bundle.rootfs().join("plain"))
            .status()
            .unwrap()
            .success()
    );
    for (command, status) in [("nonesuch", 127), ("/", 126), ("/plain", 126)] {
        bundle.config["process"]["args"] = json!([command]);
        let ran = bundle.tell(&["run", "--hold", &bundle.id]);
        assert!(ran.status == status && ran.stderr.contains(command), "{command}: {ran:?}");
        bundle.assert_nothing_left();
    }
    // That one is known only when it is tried.
    assert_eq!(bundle.tell(&["create", "--hold", &bundle.id]).status, 0);
    assert_eq!(bundle.tell(&["start", &bundle.id]).status, 126);
    until("the container's end", || state(&bundle)["status"] == "stopped");
    assert_eq!(bundle.tell(&["delete", &bundle.id]).status, 0);
    bundle.assert_nothing_left();
}

#[test]
fn it_takes_one_process_of_the_limit_and_a_pid_namespace() {
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["linux"]["resources"]["pids"]["limit"] = json!(1);
    let ran = bundle.tell(&["run", "--hold", &bundle.id]);
    assert!(ran.status == 1 && ran.stderr.contains("a limit on processes is reached"), "{ran:?}");
    bundle.assert_nothing_left();
    bundle.config["linux"]["resources"]["pids"]["limit"] = json!(2);
    up(&bundle);
    ended(&bundle);
    bundle.down();
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "pid");
    let ran = bundle.tell(&["run", "--hold", &bundle.id]);
    assert!(ran.status == 1 && ran.stderr.contains("--hold takes a pid namespace"), "{ran:?}");
    bundle.assert_nothing_left();
}

#[test]
fn hooks_know_the_container_by_its_first_process_and_a_user_namespace_has_a_holder_too() {
    let mut bundle = Bundle::shell("id -u; grep CapEff /proc/1/status; cat /hooked; exit 3");
    bundle.push("/linux/namespaces", json!({ "type": "user" }));
    for map in ["uidMappings", "gidMappings"] {
        bundle.config["linux"][map] = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    }
    let script = "sed -n 's/.*\"pid\": \\([0-9]*\\).*/\\1/p' >/hooked";
    bundle.config["hooks"] = json!({ "startContainer": [{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"] }] });
    let chown =
        std::process::Command::new("chown").args(["-R", "100000:100000"]).arg(bundle.path("")).status();
    assert!(chown.unwrap().success());
    let mut run = bundle.command(&["run", "--hold", &bundle.id]).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(exit_status(&bundle), 3);
    kill_process(Pid::from_child(&run), Signal::TERM).unwrap();
    let mut shown = String::new();
    run.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
    assert_eq!((shown.as_str(), run.wait().unwrap().code()), ("0\nCapEff:\t0000000000000020\n1\n", Some(3)));
    bundle.assert_nothing_left();
}
