//! The worker's way to a container: descriptors, reports, and the death of either side.
use crate::busybox::Bundle;
use runtime::id::ContainerId;
use runtime::launch::{
    Ended, Exited, FailureKind, Launch, LaunchError, Monitor, ReceiveError, Report, Until, kill_init, launch,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use serde_json::json;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

pub fn wait_for(fd: BorrowedFd<'_>) {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let ready = poll(&mut fds, Some(&Timespec { tv_sec: 20, tv_nsec: 0 })).unwrap();
    assert_eq!(ready, 1, "nothing came in 20 s");
}

pub fn start(bundle: &Bundle, root: Option<OwnedFd>) -> Monitor {
    start_with(bundle, root, Vec::new(), Until::CommandEnds)
}

/// Starts a container with a holder.
pub fn start_held(bundle: &Bundle, descriptors: Vec<OwnedFd>) -> Monitor {
    start_with(bundle, None, descriptors, Until::ToldToGo)
}

fn start_with(bundle: &Bundle, root: Option<OwnedFd>, descriptors: Vec<OwnedFd>, until: Until) -> Monitor {
    drop(bundle.command(&[])); // Writes config.json.
    std::fs::create_dir_all(bundle.path("state")).unwrap();
    launch(Launch {
        executable: PathBuf::from(env!("CARGO_BIN_EXE_docker-worker-runtime")),
        state_root: bundle.path("state"),
        id: ContainerId::new(&bundle.id).unwrap(),
        bundle: bundle.path(""),
        root,
        network: None,
        log: Some(bundle.path("log")),
        output: None,
        scheduling: None,
        descriptors,
        until,
    })
    .unwrap()
}

pub fn next(monitor: &Monitor) -> Result<Report, ReceiveError> {
    loop {
        wait_for(monitor.report_fd());
        if let Some(report) = monitor.try_recv()? {
            return Ok(report);
        }
    }
}

pub fn wait(mut monitor: Monitor) -> Ended {
    assert!(matches!(next(&monitor), Err(ReceiveError::Ended)));
    wait_for(monitor.pidfd());
    monitor.wait().unwrap()
}

pub fn exited(monitor: &Monitor) -> Exited {
    match next(monitor).unwrap() {
        Report::Exited(exited) => exited,
        other => panic!("{other:?}"),
    }
}

#[test]
fn reports_come_in_order_and_their_descriptors_hold_the_container() {
    let mut bundle = Bundle::shell("read line; echo \"got $line\"; echo made > /made; exit 3");
    bundle.config["process"]["terminal"] = json!(true);
    let root = rustix::fs::open(bundle.rootfs(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    bundle.config["root"]["path"] = json!("/nonexistent"); // The descriptor counts.
    let monitor = start(&bundle, Some(root));

    let Report::Created(created) = next(&monitor).unwrap() else { panic!("not created") };
    assert!(matches!(next(&monitor).unwrap(), Report::Started));
    assert!(!created.cgroups.is_empty());
    let mut terminal = std::fs::File::from(created.terminal.unwrap());
    std::io::Write::write_all(&mut terminal, b"word\n").unwrap();
    let ended = exited(&monitor);
    assert_eq!((ended.status, ended.signal, ended.oom_killed), (3, None, false));
    assert!(!ended.usage.cpu.is_zero());

    // All processes are gone; the root is still there to be read, and the pty holds what was printed.
    let made = rustix::fs::openat(&created.root, "made", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let mut text = String::new();
    std::fs::File::from(made.unwrap()).read_to_string(&mut text).unwrap();
    assert_eq!(text, "made\n");
    let mut printed = Vec::new();
    terminal.read_to_end(&mut printed).unwrap_err(); // EIO is how a pty ends.
    assert_eq!(String::from_utf8(printed).unwrap(), "word\r\ngot word\r\n");
    assert_eq!(wait(monitor), Ended::Exited(3));
    drop((created.root, created.mount_namespace));
    bundle.assert_nothing_left();
}

#[test]
fn a_failed_start_says_whose_fault_it_is_and_at_which_step() {
    type Change = fn(&mut Bundle);
    let cases: [(&str, FailureKind, Change, i32); 5] = [
        (
            "command.find",
            FailureKind::CommandNotFound,
            |b| b.config["process"]["args"] = json!(["nonesuch"]),
            127,
        ),
        (
            "command.find",
            FailureKind::CommandNotExecutable,
            |b| b.config["process"]["args"] = json!(["/"]),
            126,
        ),
        ("plan", FailureKind::Spec, |b| b.config["linux"]["intelRdt"] = json!({ "closID": "x" }), 1),
        ("mount rbind", FailureKind::Spec, |b| b.bind("/nonexistent".as_ref(), "/x", &["rbind"]), 1),
        ("root.clone", FailureKind::Spec, |b| b.config["root"]["path"] = json!("gone"), 1),
    ];
    for (step, kind, change, status) in cases {
        let mut bundle = Bundle::shell("true");
        change(&mut bundle);
        let monitor = start(&bundle, None);
        let Report::Failed(failed) = next(&monitor).unwrap() else { panic!("{step}: not failed") };
        assert_eq!(failed.kind, kind, "{failed:?}");
        assert!(failed.step.starts_with(step), "{failed:?}");
        assert_eq!(wait(monitor), Ended::Exited(status), "{failed:?}");
        assert!(std::fs::read_to_string(bundle.path("log")).unwrap().contains("failed to"));
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_runtime_that_is_not_installed_is_an_error_and_no_child() {
    let bundle = Bundle::shell("true");
    let error = launch(Launch {
        executable: "/nonexistent/docker-worker-runtime".into(),
        state_root: bundle.path("state"),
        id: ContainerId::new("x").unwrap(),
        bundle: bundle.path(""),
        root: None,
        network: None,
        log: None,
        output: None,
        scheduling: None,
        descriptors: Vec::new(),
        until: Until::CommandEnds,
    });
    assert!(matches!(error, Err(LaunchError::Spawn { .. })), "{error:?}");
}

/// Starts a container that would run for ever.
fn running(bundle: &Bundle) -> (Monitor, OwnedFd) {
    let monitor = start(bundle, None);
    let Report::Created(created) = next(&monitor).unwrap() else { panic!("not created") };
    assert!(matches!(next(&monitor).unwrap(), Report::Started));
    (monitor, created.init)
}

#[test]
fn the_callers_end_ends_the_container_and_undoes_everything() {
    let bundle = Bundle::shell("trap '' TERM; sleep 1000 & exec sleep 1000");
    let (mut monitor, init) = running(&bundle);
    monitor.abandon();
    wait_for(init.as_fd());
    assert_eq!(exited(&monitor).signal, Some(9));
    assert_eq!(wait(monitor), Ended::Exited(137));
    bundle.assert_nothing_left();
}

#[test]
fn the_monitors_end_ends_the_container_and_delete_undoes_the_rest() {
    let bundle = Bundle::shell("exec sleep 1000");
    let (mut monitor, init) = running(&bundle);
    rustix::process::pidfd_send_signal(monitor.pidfd(), rustix::process::Signal::KILL).unwrap();
    assert!(matches!(next(&monitor), Err(ReceiveError::Ended)));
    wait_for(init.as_fd()); // The kernel kills it with its monitor.
    assert_eq!(monitor.wait().unwrap(), Ended::Signaled(9));
    assert_eq!(bundle.tell(&["delete", &bundle.id]).status, 0);
    bundle.assert_nothing_left();
}

#[test]
fn a_signal_to_the_callers_process_group_does_not_reach_the_monitor() {
    let bundle = Bundle::shell("exec sleep 1000");
    let (mut monitor, init) = running(&bundle);
    // The number after "Pid:" in the pidfd's description.
    let description = std::os::fd::AsRawFd::as_raw_fd(&monitor.pidfd());
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{description}")).unwrap();
    let pid: i32 = text.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap().trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    assert_eq!(rustix::process::getsid(Some(pid)).unwrap(), pid);
    monitor.abandon();
    wait_for(init.as_fd());
    exited(&monitor);
    wait(monitor);
}

#[test]
fn killing_the_first_process_ends_the_container() {
    let bundle = Bundle::shell("exec sleep 1000");
    let (monitor, init) = running(&bundle);
    kill_init(init.as_fd()).unwrap();
    let ended = exited(&monitor);
    assert_eq!((ended.status, ended.signal), (137, Some(9)));
    assert_eq!(wait(monitor), Ended::Exited(137));
    kill_init(init.as_fd()).unwrap(); // Already gone is success.
    bundle.assert_nothing_left();
}

#[test]
fn s42_a_threaded_caller_leaks_no_descriptor_into_monitor_or_container() {
    // Open without close-on-exec, as a C library might.
    let leaky = rustix::fs::open("/dev/null", OFlags::RDONLY, Mode::empty()).unwrap();
    let mut bundle = Bundle::shell("ls /proc/self/fd; cat <&4");
    bundle.config["process"]["terminal"] = json!(true);
    let mut given = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut given, b"given").unwrap();
    std::io::Seek::rewind(&mut given).unwrap();
    let descriptors = vec![std::fs::File::open("/dev/null").unwrap().into(), given.into()];
    let threads: Vec<_> =
        (0..4).map(|_| std::thread::spawn(|| drop(std::fs::File::open("/dev/null")))).collect();
    let monitor = start_with(&bundle, None, descriptors, Until::CommandEnds);
    let Report::Created(created) = next(&monitor).unwrap() else { panic!("not created") };
    assert!(matches!(next(&monitor).unwrap(), Report::Started));
    exited(&monitor);
    let mut printed = Vec::new();
    std::fs::File::from(created.terminal.unwrap()).read_to_end(&mut printed).unwrap_err();
    // 3 and 4 are what was given, 5 is the directory that ls itself reads.
    let listed = String::from_utf8(printed).unwrap();
    assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3", "4", "5", "given"]);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    wait(monitor);
    drop(leaky);
}
