//! What ends a container with a holder, and what only might.
use crate::busybox::Bundle;
use crate::launch::{exited, next, start_held, wait};
use crate::probe::Probe;
use runtime::launch::{CommandEnded, Monitor, Report};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// With the probe in its root.
pub fn probed(command: &[&str]) -> Bundle {
    let bundle = Bundle::new(command);
    let probe = Probe::build();
    let copied = Command::new("cp").arg(probe.path()).arg(bundle.rootfs().join("probe")).status();
    assert!(copied.unwrap().success());
    bundle
}

pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not in 20 s: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

pub fn state(bundle: &Bundle) -> Value {
    serde_json::from_str(&bundle.tell(&["state", &bundle.id]).stdout).unwrap()
}

/// The command's number on the host.
fn command(bundle: &Bundle) -> Pid {
    Pid::from_raw(i32::try_from(state(bundle)["command"]["pid"].as_i64().unwrap()).unwrap()).unwrap()
}

#[test]
fn nobody_in_the_container_ends_it_by_a_signal_when_the_command_has_ended() {
    let bundle = probed(&["true"]);
    for words in [&["create", "--hold"][..], &["start"]] {
        assert_eq!(bundle.tell(&[words, &[&bundle.id]].concat()).status, 0);
    }
    until("the command's end", || state(&bundle)["command"]["status"] == "ended");
    let script =
        "for signal in HUP INT QUIT TERM; do kill -$signal 1; done; /probe forge 15 -1; /probe forge 15 0";
    assert_eq!(bundle.inside(&[], script), "ok\nEPERM\n");
    takes_all(&bundle);
    assert_eq!(bundle.tell(&["kill", &bundle.id, "TERM"]).status, 0);
    until("the container's end", || state(&bundle)["status"] == "stopped");
    bundle.down();
}

/// Waits until the holder has taken every signal that was sent to it, and waits for the next: it stays.
pub fn takes_all(bundle: &Bundle) {
    let status = format!("/proc/{}/status", bundle.pid());
    until("the holder has taken all signals", || {
        let text = std::fs::read_to_string(&status).unwrap();
        ["State:\tS", "SigPnd:\t0000000000000000", "ShdPnd:\t0000000000000000"]
            .iter()
            .all(|line| text.contains(line))
    });
    assert_eq!(state(bundle)["status"], "running");
}

/// `run --hold`, whose command has said that it is ready.
fn ready(bundle: &Bundle) -> (Child, BufReader<ChildStdout>) {
    let mut run = bundle.command(&["run", "--hold", &bundle.id]).stdout(Stdio::piped()).spawn().unwrap();
    let mut shown = BufReader::new(run.stdout.take().unwrap());
    let mut line = String::new();
    shown.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (run, shown)
}

#[test]
fn a_signal_to_all_reaches_the_command_once() {
    let bundle = probed(&["/probe", "receive", "36"]);
    let (mut run, mut shown) = ready(&bundle);
    // It may be quicker than the note of it.
    until("the command is known", || state(&bundle)["command"]["status"] == "running");
    assert_eq!(bundle.tell(&["kill", "--all", &bundle.id, "34"]).status, 0);
    // The holder passes on what it has in the order of numbers: what it had of the first is there before this.
    bundle.inside(&[], "kill -36 1");
    until("the command's end", || state(&bundle)["command"]["status"] == "ended");
    // It alone keeps nobody: the holder is told to go, by those who may.
    assert_eq!(bundle.tell(&["kill", "--all", &bundle.id, "TERM"]).status, 0);
    assert_eq!(run.wait().unwrap().code(), Some(0));
    let mut received = String::new();
    shown.read_to_string(&mut received).unwrap();
    assert_eq!(received, "34\n36\n");
    bundle.assert_nothing_left();
}

/// A container whose command ends with 5 once a line is written to `/go`, and in which others may be traced.
fn going() -> Bundle {
    let mut bundle = probed(&["sh", "-c", "read line </go; exit 5"]);
    assert!(Command::new("mkfifo").arg(bundle.rootfs().join("go")).status().unwrap().success());
    for set in ["bounding", "permitted", "effective"] {
        bundle.push(&format!("/process/capabilities/{set}"), json!("CAP_SYS_PTRACE"));
    }
    bundle
}

fn started(bundle: &Bundle) -> (Monitor, OwnedFd) {
    let monitor = start_held(bundle, Vec::new());
    let Report::Created(created) = next(&monitor).unwrap() else { panic!("not created") };
    assert!(matches!(next(&monitor).unwrap(), Report::Started));
    (monitor, created.init)
}

fn go(bundle: &Bundle) {
    std::fs::OpenOptions::new()
        .write(true)
        .open(bundle.rootfs().join("go"))
        .unwrap()
        .write_all(b"\n")
        .unwrap();
}

/// Whether it tells something meanwhile.
fn tells_within(monitor: &Monitor, seconds: i64) -> bool {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    poll(&mut [PollFd::from_borrowed_fd(monitor.report_fd(), PollFlags::IN)], Some(&time)).unwrap() == 1
}

fn tells_of_5(mut monitor: Monitor, bundle: &Bundle) {
    let Report::CommandEnded(ended) = next(&monitor).unwrap() else { panic!("not the command's end") };
    assert_eq!(ended, CommandEnded { status: 5, signal: None });
    monitor.abandon();
    assert_eq!(exited(&monitor).status, 5);
    wait(monitor);
    bundle.assert_nothing_left();
}

#[test]
fn a_tracer_that_takes_no_notice_delays_the_word_about_the_commands_end_and_does_not_change_it() {
    let bundle = going();
    let (monitor, _init) = started(&bundle);
    let mut tracer =
        bundle.exec_command(&[], &["/probe", "trace", "2"]).stdout(Stdio::piped()).spawn().unwrap();
    tracer.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
    go(&bundle);
    // For longer than a holder that could say it may take.
    assert!(!tells_within(&monitor, 12));
    tracer.kill().unwrap();
    tracer.wait().unwrap();
    tells_of_5(monitor, &bundle);
}

#[test]
fn a_pause_between_the_commands_end_and_the_word_about_it_is_no_reason_to_end_all() {
    let bundle = going();
    let (monitor, init) = started(&bundle);
    let command = pidfd_open(command(&bundle), PidfdFlags::empty()).unwrap();
    pidfd_send_signal(&init, Signal::STOP).unwrap();
    go(&bundle);
    let ends = Timespec { tv_sec: 20, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(&command, PollFlags::IN)], Some(&ends)), Ok(1));
    assert_eq!(bundle.tell(&["pause", &bundle.id]).status, 0);
    assert!(!tells_within(&monitor, 8));
    // Now the holder may go on, but takes its time: in all it is more than ten seconds.
    assert_eq!(bundle.tell(&["resume", &bundle.id]).status, 0);
    assert!(!tells_within(&monitor, 4));
    pidfd_send_signal(&init, Signal::CONT).unwrap();
    tells_of_5(monitor, &bundle);
}

/// Created and started; nobody stays to look after it.
fn left_alone(bundle: &Bundle) {
    for words in [&["create", "--hold"][..], &["start"]] {
        assert_eq!(bundle.tell(&[words, &[&bundle.id]].concat()).status, 0);
    }
}

#[test]
fn an_operators_signal_is_not_lost_behind_one_of_its_kind_from_inside() {
    let bundle = going();
    left_alone(&bundle);
    go(&bundle);
    until("the command's end", || state(&bundle)["command"]["status"] == "ended");
    let mut keeper =
        bundle.exec_command(&[], &["/probe", "possess", "stop", "0"]).stdout(Stdio::piped()).spawn().unwrap();
    keeper.stdout.as_mut().unwrap().read_exact(&mut [0; 8]).unwrap();
    bundle.inside(&[], "kill -TERM 1");
    let mut kill = bundle.command(&["kill", &bundle.id, "TERM"]).spawn().unwrap();
    let done = pidfd_open(Pid::from_child(&kill), PidfdFlags::empty()).unwrap();
    // Who takes it for done before the holder has ended is wrong.
    let moment = Timespec { tv_sec: 1, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(&done, PollFlags::IN)], Some(&moment)), Ok(0));
    keeper.kill().unwrap();
    keeper.wait().unwrap();
    assert!(kill.wait().unwrap().success());
    assert_eq!(state(&bundle)["status"], "stopped");
    bundle.down();
}

#[test]
fn a_container_whose_command_is_said_to_have_ended_ends_by_a_signal_also_where_its_holder_cannot_know() {
    let bundle = going();
    left_alone(&bundle);
    let mut tracer =
        bundle.exec_command(&[], &["/probe", "trace", "2"]).stdout(Stdio::piped()).spawn().unwrap();
    tracer.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
    go(&bundle);
    until("the command's end", || state(&bundle)["command"]["status"] == "ended");
    assert_eq!(bundle.tell(&["kill", &bundle.id, "TERM"]).status, 0);
    until("the container's end", || state(&bundle)["status"] == "stopped");
    tracer.wait().unwrap();
    bundle.down();
}

#[test]
fn all_are_killed_of_a_container_about_which_something_is_noted_that_nobody_understands() {
    let bundle = Bundle::shell("sleep 1000 & exec sleep 1000");
    left_alone(&bundle);
    let first = pidfd_open(Pid::from_raw(bundle.pid()).unwrap(), PidfdFlags::empty()).unwrap();
    let journal = bundle.path("state").join(&bundle.id).join("journal");
    let text = std::fs::read_to_string(&journal).unwrap();
    std::fs::write(&journal, text.replace("\"pid\":", "\"number\":")).unwrap();
    assert_eq!(bundle.tell(&["kill", "--all", &bundle.id, "TERM"]).status, 1);
    assert_eq!(bundle.tell(&["kill", "--all", &bundle.id, "KILL"]).status, 0);
    let ends = Timespec { tv_sec: 20, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(&first, PollFlags::IN)], Some(&ends)), Ok(1));
    std::fs::write(&journal, text).unwrap();
    bundle.down();
}

/// What `run --hold` says if the kernel refuses one call of the holder's.
fn refused(call: &str, error: &str) -> String {
    let bundle = Bundle::shell("true");
    let told = bundle.command(&["run", "--hold", &bundle.id]);
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    traced.args(["-e", &format!("inject={call}:error={error}")]);
    traced.arg(told.get_program()).args(told.get_args()).current_dir(bundle.path("")).stdin(Stdio::null());
    let ran = traced.output().expect("strace is installed");
    assert_eq!(ran.status.code(), Some(1), "{call}: {ran:?}");
    bundle.assert_nothing_left();
    String::from_utf8(ran.stderr).unwrap()
}

#[test]
fn a_holder_that_does_not_get_ready_is_told_with_the_reason() {
    for (call, error, said) in [
        ("setsid", "EPERM", "failed to setsid: Operation not permitted (os error 1) (step: hold)"),
        ("setgroups", "EPERM", "failed to setgroups: Operation not permitted (os error 1) (step: hold)"),
        ("seccomp", "EINVAL", "does this kernel have CONFIG_SECCOMP_FILTER?: Invalid argument"),
    ] {
        // Whoever is heard first.
        for _ in 0..3 {
            let text = refused(call, error);
            assert!(text.contains(said) && text.lines().count() == 1, "{call}: {text}");
        }
    }
}

#[test]
fn the_score_for_the_oom_killer_is_the_commands() {
    let mut bundle = Bundle::shell("exec sleep 1000");
    bundle.config["process"]["oomScoreAdj"] = json!(700);
    for words in [&["create", "--hold"][..], &["start"]] {
        assert_eq!(bundle.tell(&[words, &[&bundle.id]].concat()).status, 0);
    }
    let score = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!(score(command(&bundle).as_raw_nonzero().get()), "700\n");
    assert_eq!(score(bundle.pid()), std::fs::read_to_string("/proc/self/oom_score_adj").unwrap());
    bundle.down();
}

#[test]
fn the_command_is_in_the_namespaces_of_its_holder_and_not_in_the_hosts() {
    let bundle = Bundle::shell("exec sleep 1000");
    for words in [&["create", "--hold"][..], &["start"]] {
        assert_eq!(bundle.tell(&[words, &[&bundle.id]].concat()).status, 0);
    }
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "user", "uts"] {
        let of = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/{kind}")).unwrap();
        let found = of(&command(&bundle).as_raw_nonzero().to_string());
        assert_eq!(found, of(&bundle.pid().to_string()), "{kind}");
        assert_eq!(found == of("self"), kind == "user", "{kind}");
    }
    kill_process(command(&bundle), Signal::KILL).unwrap();
    until("the command's end", || state(&bundle)["command"]["status"] == "ended");
    bundle.down();
}
