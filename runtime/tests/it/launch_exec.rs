//! The worker's way into a container that runs: reports, descriptors, and the death of either side.
use crate::busybox::Bundle;
use crate::probe::Probe;
use runtime::id::ContainerId;
use runtime::launch::{
    Ended, Entered, ExecMonitor, ExecReport, FailureKind, LaunchExec, ReceiveError, kill_init, launch_exec,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

fn up() -> Bundle {
    let bundle = Bundle::shell("exec sleep 1000");
    bundle.up();
    bundle
}

fn is_readable_within(fd: BorrowedFd<'_>, seconds: i64) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: seconds, tv_nsec: 0 })).unwrap() == 1
}

fn wait_for(fd: BorrowedFd<'_>) {
    assert!(is_readable_within(fd, 20), "nothing came in 20 s");
}

fn enter(bundle: &Bundle, process: &Value, streams: [Option<OwnedFd>; 3]) -> ExecMonitor {
    launch_exec(LaunchExec {
        executable: PathBuf::from(env!("CARGO_BIN_EXE_docker-worker-runtime")),
        state_root: bundle.path("state"),
        id: ContainerId::new(&bundle.id).unwrap(),
        process: process.to_string().into_bytes(),
        streams,
        log: Some(bundle.path("log")),
    })
    .unwrap()
}

fn shell(script: &str, terminal: bool) -> Value {
    json!({
        "terminal": terminal, "args": ["sh", "-c", script], "env": ["PATH=/bin"], "cwd": "/",
        "user": { "uid": 0, "gid": 0 },
    })
}

fn next(exec: &ExecMonitor) -> Result<ExecReport, ReceiveError> {
    loop {
        wait_for(exec.report_fd());
        if let Some(report) = exec.try_recv()? {
            return Ok(report);
        }
    }
}

fn started(exec: &ExecMonitor) -> Entered {
    match next(exec).unwrap() {
        ExecReport::Started(entered) => entered,
        other => panic!("{other:?}"),
    }
}

fn wait(mut exec: ExecMonitor) -> Ended {
    assert!(matches!(next(&exec), Err(ReceiveError::Ended)));
    wait_for(exec.pidfd());
    exec.wait().unwrap()
}

/// What stands behind `name` in a `status` of procfs.
fn fields(status: &str) -> Vec<&str> {
    let names = [
        "Uid:",
        "Gid:",
        "Groups:",
        "CapInh:",
        "CapPrm:",
        "CapBnd:",
        "NoNewPrivs:",
        "Seccomp:",
        "SigBlk:",
        "SigIgn:",
    ];
    status.lines().filter(|line| names.iter().any(|name| line.starts_with(name))).collect()
}

#[test]
fn reports_come_in_order_and_the_terminal_is_the_callers() {
    let bundle = up();
    let exec =
        enter(&bundle, &shell("stty size; read line; echo got $line; tty; exit 3", true), [None, None, None]);
    let entered = started(&exec);
    let mut terminal = File::from(entered.terminal.unwrap());
    terminal.write_all(b"word\n").unwrap();
    assert!(matches!(next(&exec).unwrap(), ExecReport::Exited(Ended::Exited(3))));
    assert!(is_readable_within(entered.process.as_fd(), 0), "its descriptor tells of its end");
    assert_eq!(wait(exec), Ended::Exited(3));
    let mut printed = Vec::new();
    terminal.read_to_end(&mut printed).unwrap_err(); // EIO is how a pty ends.
    let printed = String::from_utf8(printed).unwrap();
    assert!(printed.contains("got word\r\n/dev/pts/"), "{printed}");
    bundle.down();
}

#[test]
fn without_a_terminal_it_has_the_callers_streams_and_what_is_not_said_is_the_containers() {
    let mut bundle = Bundle::shell("exec sleep 1000");
    bundle.config["process"]["noNewPrivileges"] = json!(true);
    bundle.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 88 }]);
    bundle.up();
    let (mut input, mut output, errors) =
        (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    input.write_all(b"from the caller").unwrap();
    input.rewind().unwrap();
    let streams = [input.into(), output.try_clone().unwrap().into(), errors.try_clone().unwrap().into()];
    let script = "cat; echo; cat /proc/self/status; ulimit -n; ls /proc/self/fd >&2";
    let exec = enter(&bundle, &shell(script, false), streams.map(Some));
    assert!(started(&exec).terminal.is_none());
    assert!(matches!(next(&exec).unwrap(), ExecReport::Exited(Ended::Exited(0))));
    assert_eq!(wait(exec), Ended::Exited(0));
    let read = |mut file: &File| {
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    };
    let (printed, descriptors) = (read(&output), read(&errors));
    output.rewind().unwrap();
    assert!(printed.starts_with("from the caller\n") && printed.ends_with("77\n"), "{printed}");
    let first = std::fs::read_to_string(format!("/proc/{}/status", bundle.pid())).unwrap();
    assert_eq!(fields(&printed), fields(&first));
    // The fourth is the directory that is being listed.
    assert_eq!(descriptors, "0\n1\n2\n3\n");
    bundle.down();
}

#[test]
fn a_command_that_does_not_start_says_whose_fault_it_is() {
    let bundle = up();
    let with_args = |args: Value| {
        let mut process = shell("", false);
        process["args"] = args;
        process
    };
    for (process, kind, said, status) in [
        (with_args(json!(["nonesuch"])), FailureKind::CommandNotFound, "nonesuch", 127),
        (with_args(json!(["/bin"])), FailureKind::CommandNotExecutable, "/bin", 126),
        (with_args(json!([])), FailureKind::Spec, "args", 1),
        (json!({ "args": "x" }), FailureKind::Spec, "the process", 1),
        (json!(["no object"]), FailureKind::Spec, "the process", 1),
    ] {
        let exec = enter(&bundle, &process, [None, None, None]);
        let ExecReport::Failed(failed) = next(&exec).unwrap() else { panic!("{process}") };
        assert_eq!(failed.kind, kind, "{failed:?}");
        assert!(failed.message.contains(said) && failed.message.lines().count() == 1, "{failed:?}");
        assert_eq!(wait(exec), Ended::Exited(status), "{failed:?}");
    }
    bundle.down();
    let exec = enter(&bundle, &shell("true", false), [None, None, None]);
    let ExecReport::Failed(failed) = next(&exec).unwrap() else { panic!("entered what is gone") };
    assert!(failed.message.contains(&bundle.id), "{failed:?}");
    assert_eq!(wait(exec), Ended::Exited(1));
}

#[test]
fn what_goes_wrong_is_told_to_the_caller_and_not_to_who_reads_the_commands_errors() {
    let bundle = up();
    let mut missing = shell("", false);
    missing["args"] = json!(["nonesuch"]);
    for process in [missing, json!({ "args": "x" })] {
        let mut errors = tempfile::tempfile().unwrap();
        let exec = enter(&bundle, &process, [None, None, Some(errors.try_clone().unwrap().into())]);
        let ExecReport::Failed(_) = next(&exec).unwrap() else { panic!("{process}") };
        assert!(matches!(next(&exec), Err(ReceiveError::Ended)), "{process}");
        wait_for(exec.pidfd());
        let mut said = String::new();
        errors.rewind().unwrap();
        errors.read_to_string(&mut said).unwrap();
        assert_eq!(said, "", "{process}");
    }
    // The operator has it all the same.
    let log = std::fs::read_to_string(bundle.path("log")).unwrap();
    assert!(log.contains("nonesuch") && log.contains("/process/args"), "{log}");
    bundle.down();
}

/// What is heard on the report socket, if somebody listens, and what is printed on standard error. In front of the runtime's
/// words stand those of a `launcher`.
fn reported(bundle: &Bundle, launcher: &[&str], words: &[&str], listens: bool) -> (String, String) {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let ours = listens.then_some(ours);
    let told = bundle.command(words);
    let mut shell = std::process::Command::new("/bin/sh");
    shell.arg("-c").arg("exec \"$@\" 5<&0 </dev/null").arg("sh").args(launcher);
    shell.arg(told.get_program()).args(told.get_args()).current_dir(bundle.path("")).stdin(theirs);
    let output = shell.output().unwrap();
    let mut text = vec![0; 4 << 10];
    let length = ours
        .map_or(0, |ours| recv(&ours, &mut text[..], RecvFlags::DONTWAIT).map_or(0, |(length, _)| length));
    text.truncate(length);
    (String::from_utf8(text).unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn an_error_reaches_the_caller_or_else_the_log_or_else_standard_error() {
    let bundle = up();
    let id = bundle.id.as_str();
    let (log, no_log) = (bundle.path("said"), bundle.path("absent/log"));
    let (log, no_log) = (log.to_str().unwrap(), no_log.to_str().unwrap());
    // Two that it finds by itself, and one of its own protection.
    let strace = ["strace", "-qq", "-o", "/dev/null", "-e", "trace=open_tree,memfd_create"];
    let unprotected = [&strace[..], &["-e", "inject=open_tree,memfd_create:error=EPERM"]].concat();
    for (launcher, options, said) in [
        (&[][..], &["--cwd", "relative"][..], "not absolute"),
        (&[], &["--detach"], "--report-fd is for who stays"),
        (&unprotected, &[], "protect the executable: copy it to a sealed memfd: Operation not permitted"),
    ] {
        let words = |log| [&["--log", log, "exec", "--report-fd", "5"], options, &[id, "true"]].concat();
        let (heard, printed) = reported(&bundle, launcher, &words(no_log), true);
        assert!(heard.contains(said) && printed.is_empty(), "{heard:?} {printed:?}");
        let (_, printed) = reported(&bundle, launcher, &words(log), false);
        let written = std::fs::read_to_string(log).unwrap();
        assert!(written.contains(said) && printed.is_empty(), "{written:?} {printed:?}");
        let (_, printed) = reported(&bundle, launcher, &words(no_log), false);
        assert!(printed.contains(said) && printed.contains("failed to write the log"), "{printed:?}");
    }
    bundle.down();
}

/// Whether the new process was stopped before it became the command.
fn is_stopped_on_its_way(bundle: &Bundle) -> bool {
    let own = std::fs::metadata(env!("CARGO_BIN_EXE_docker-worker-runtime")).unwrap();
    let listed = bundle.tell(&["ps", "--format", "json", &bundle.id]).stdout;
    serde_json::from_str::<Vec<i32>>(&listed).unwrap().iter().any(|pid| {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        let executable = std::fs::metadata(format!("/proc/{pid}/exe"));
        state.is_ok_and(|text| text.contains(") T "))
            && executable.is_ok_and(|found| found.ino() == own.ino())
    })
}

#[test]
fn a_caller_that_has_gone_before_the_command_runs_gets_none() {
    let bundle = Bundle::new(&["/probe", "halt"]);
    let probe = Probe::build();
    let copied =
        std::process::Command::new("cp").arg(probe.path()).arg(bundle.rootfs().join("probe")).status();
    assert!(copied.unwrap().success());
    bundle.up();
    let (alone, mut left_behind) = (format!("[{}]\n", bundle.pid()), 0);
    for turn in 0..5 {
        let mut exec = enter(&bundle, &shell(&format!("echo >/ran{turn}"), false), [None, None, None]);
        // Somebody in the container stops the new process on its way; it may be its command by then.
        let begun = Instant::now();
        while !is_stopped_on_its_way(&bundle) && !is_readable_within(exec.report_fd(), 0) {
            assert!(begun.elapsed() < Duration::from_secs(20), "it is neither stopped nor the command");
        }
        if is_readable_within(exec.report_fd(), 0) {
            started(&exec);
            exec.abandon().unwrap();
            wait_for(exec.pidfd());
            exec.wait().unwrap();
            continue;
        }
        exec.abandon().unwrap();
        assert!(is_readable_within(exec.pidfd(), 5), "it waits for a command that nobody wants");
        assert_eq!(exec.wait().unwrap(), Ended::Exited(1));
        let begun = Instant::now();
        while bundle.tell(&["ps", "--format", "json", &bundle.id]).stdout != alone {
            assert!(begun.elapsed() < Duration::from_secs(5), "the new process is still there");
        }
        assert!(!bundle.rootfs().join(format!("ran{turn}")).exists());
        left_behind += 1;
    }
    assert!(left_behind > 0, "who stops others is too slow for this test to mean anything");
    let log = std::fs::read_to_string(bundle.path("log")).unwrap();
    assert_eq!(log.matches("whoever asked for it has gone").count(), left_behind, "{log}");
    bundle.down();
}

#[test]
fn the_callers_end_is_the_commands() {
    let bundle = up();
    for terminal in [true, false] {
        let exec = enter(
            &bundle,
            &shell("trap '' HUP TERM; echo; while :; do sleep 1; done", terminal),
            [None, None, None],
        );
        let entered = started(&exec);
        if let Some(terminal) = entered.terminal {
            // It has set its traps; then the terminal's end alone is no reason.
            wait_for(terminal.as_fd());
            drop(terminal);
        }
        assert!(!is_readable_within(entered.process.as_fd(), 1), "it ended before its caller");
        let pidfd = exec.pidfd().try_clone_to_owned().unwrap();
        if terminal {
            exec.abandon().unwrap();
            assert!(matches!(exec.try_recv(), Err(ReceiveError::Ended)));
        }
        drop(exec);
        wait_for(entered.process.as_fd());
        wait_for(pidfd.as_fd());
        let ended = rustix::process::waitid(
            rustix::process::WaitId::PidFd(pidfd.as_fd()),
            rustix::process::WaitIdOptions::EXITED,
        );
        assert_eq!(ended.unwrap().unwrap().exit_status(), Some(137));
    }
    bundle.down();
}

#[test]
fn the_containers_end_is_reported_and_so_is_that_of_exec_itself_to_be_seen() {
    let bundle = up();
    let exec = enter(&bundle, &shell("exec sleep 1000", false), [None, None, None]);
    let entered = started(&exec);
    let init = rustix::process::pidfd_open(
        rustix::process::Pid::from_raw(bundle.pid()).unwrap(),
        rustix::process::PidfdFlags::empty(),
    );
    kill_init(init.unwrap().as_fd()).unwrap();
    assert!(matches!(next(&exec).unwrap(), ExecReport::Exited(Ended::Signaled(9))));
    wait_for(entered.process.as_fd());
    assert_eq!(wait(exec), Ended::Exited(137));
    bundle.down();

    let bundle = up();
    let mut exec = enter(&bundle, &shell("exec sleep 1000", false), [None, None, None]);
    let entered = started(&exec);
    rustix::process::pidfd_send_signal(exec.pidfd(), rustix::process::Signal::KILL).unwrap();
    assert!(matches!(next(&exec), Err(ReceiveError::Ended)));
    assert_eq!(exec.wait().unwrap(), Ended::Signaled(9));
    wait_for(entered.process.as_fd()); // The kernel kills it with its starter.
    bundle.down();
}
