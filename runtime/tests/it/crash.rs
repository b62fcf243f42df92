//! kill -9 at each step of a plan and of its undoing: `delete` makes the host as it was before.
use std::process::{Child, Command, Stdio};

use crate::busybox::Bundle;
use runtime::host::HostFacts;
use runtime::id::ContainerId;
use runtime::plan::plan;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{WaitOptions, waitpid};
use serde_json::{Value, json};

fn bundle() -> Bundle {
    let mut bundle = Bundle::shell("exec sleep 1000");
    std::fs::create_dir(bundle.path("source")).unwrap();
    let source = bundle.path("source");
    bundle.bind(&source, "/source", &["rbind", "rw"]);
    bundle.config["process"]["terminal"] = json!(true);
    bundle
}

/// The runtime, stopped after that step; `None` if it came to its end before.
fn stopped_after(bundle: &Bundle, step: usize) -> Option<Child> {
    stopped(bundle.command(&["run", "--stop-after", &step.to_string(), &bundle.id]), step)
}

fn stopped(mut command: Command, step: usize) -> Option<Child> {
    let mut child = command.spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
    if status.stopped() {
        return Some(child);
    }
    assert_eq!(status.exit_status(), Some(0), "step {step}");
    // It is reaped: this only tells the value.
    child.wait().unwrap_err();
    None
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn s47_a_monitor_killed_at_any_step_leaves_nothing_after_delete() {
    let bundle = bundle();
    let spec = runtime::spec::parse(bundle.config.clone()).unwrap().spec;
    let plan = plan(&ContainerId::new(&bundle.id).unwrap(), &spec, &HostFacts::gather().unwrap()).unwrap();
    // Those of both sides, the command found, and all ready.
    let steps = plan.host.len() + plan.child.len() + 2;
    assert!(steps > 50);
    for stop_after in 1..=steps {
        kill(stopped_after(&bundle, stop_after).unwrap());
        // PID 1 follows its monitor by itself, or is killed here.
        let deleted = bundle.tell(&["delete", "--force", &bundle.id]);
        assert_eq!(deleted.status, 0, "after step {stop_after}: {deleted:?}");
        assert_eq!(bundle.leftovers(), Vec::<String>::new(), "after step {stop_after}");
    }
    // And the id can be used again.
    let mut again = Bundle::shell("exit 4");
    again.id = bundle.id.clone();
    assert_eq!(again.run().status, 4);
}

#[test]
fn s47_the_monitor_of_a_holder_killed_at_any_step_or_the_holder_itself_leaves_nothing_after_delete() {
    let bundle = bundle();
    let spec = runtime::spec::parse(bundle.config.clone()).unwrap().spec;
    let plan = plan(&ContainerId::new(&bundle.id).unwrap(), &spec, &HostFacts::gather().unwrap()).unwrap();
    let plan = plan.held().unwrap();
    let hold = plan.child.iter().position(|step| step.to_string() == "hold").unwrap();
    // From the last step before the two processes part.
    let first = plan.host.len() + hold;
    for stop_after in first..=plan.host.len() + plan.child.len() + 2 {
        for killed in ["monitor", "holder"] {
            let step = stop_after.to_string();
            let arguments = ["run", "--hold", "--stop-after", &step, &bundle.id];
            let mut command = bundle.command(&arguments);
            command.stderr(Stdio::null());
            let mut monitor = stopped(command, stop_after).unwrap();
            if killed == "monitor" {
                kill(monitor);
            } else {
                signal(bundle.pid(), rustix::process::Signal::KILL);
                signal(i32::try_from(monitor.id()).unwrap(), rustix::process::Signal::CONT);
                // It hears of it by itself, and undoes everything.
                assert!(!monitor.wait().unwrap().success(), "after step {stop_after}");
                assert_eq!(bundle.leftovers(), Vec::<String>::new(), "after step {stop_after}");
            }
            let deleted = bundle.tell(&["delete", "--force", &bundle.id]);
            assert_eq!(deleted.status, 0, "after step {stop_after}, {killed}: {deleted:?}");
            assert_eq!(bundle.leftovers(), Vec::<String>::new(), "after step {stop_after}, {killed}");
        }
    }
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[test]
fn s47_a_monitor_killed_while_it_undoes_leaves_nothing_after_delete() {
    let mut bundle = bundle();
    bundle.config["process"]["args"] = json!(["true"]);
    let spec = runtime::spec::parse(bundle.config.clone()).unwrap().spec;
    let plan = plan(&ContainerId::new(&bundle.id).unwrap(), &spec, &HostFacts::gather().unwrap()).unwrap();
    let undone = (plan.host.len() + plan.child.len() + 3..)
        .map_while(|step| stopped_after(&bundle, step).map(|child| (step, child)))
        .map(|(step, child)| {
            kill(child);
            let deleted = bundle.tell(&["delete", "--force", &bundle.id]);
            assert_eq!(deleted.status, 0, "after step {step}: {deleted:?}");
            assert_eq!(bundle.leftovers(), Vec::<String>::new(), "after step {step}");
        });
    // Everything is killed, a group or more are removed, the directory is gone.
    assert!(undone.count() >= 3);
}

/// Whether it ends before anybody would call it hanging; it is killed if not.
fn ended_in_time(child: &mut Child) -> bool {
    let pid = rustix::process::Pid::from_child(child);
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let ended = poll(&mut fds, Some(&Timespec { tv_sec: 25, tv_nsec: 0 })).unwrap() == 1;
    child.kill().unwrap();
    child.wait().unwrap();
    ended
}

#[test]
fn run_removes_what_killed_monitors_have_left_and_keeps_what_waits_for_delete() {
    let dead = Bundle::shell("exec sleep 1000");
    let sibling = |command| {
        let mut sibling = Bundle::shell(command);
        sibling.share_state_with(&dead);
        sibling
    };
    let (waiting, next) = (sibling("true"), sibling("exit 7"));
    for (command, stop_after) in [("run", 3), ("run", 30), ("create", 30)] {
        let arguments = [command, "--stop-after", &stop_after.to_string(), &dead.id];
        let mut child = dead.command(&arguments).spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        waitpid(Some(pid), WaitOptions::UNTRACED).unwrap();
        if stop_after == 30 {
            let state: Value = serde_json::from_str(&dead.tell(&["state", &dead.id]).stdout).unwrap();
            assert_eq!(state["status"], "creating", "{command}");
        }
        assert_eq!(waiting.tell(&["create", &waiting.id]).status, 0);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(waiting.tell(&["start", &waiting.id]).status, 0);
        let ran = next.run();
        assert_eq!((ran.status, ran.stderr.as_str()), (7, ""), "{command} {stop_after}");
        assert_eq!(dead.tell(&["list", "-q"]).stdout, format!("{}\n", waiting.id), "{command} {stop_after}");
        assert_eq!(waiting.tell(&["delete", "--force", &waiting.id]).status, 0);
        assert_eq!(dead.leftovers(), Vec::<String>::new(), "{command} {stop_after}");
    }
}

#[test]
fn delete_with_force_ends_a_container_that_is_still_being_set_up() {
    let bundle = bundle();
    for stop_after in [1, 12, 40] {
        let monitor = stopped_after(&bundle, stop_after).unwrap();
        let delete = bundle.command(&["delete", "--force", &bundle.id]).spawn().unwrap();
        // Now it goes on, to a command that would run for longer than anybody waits.
        let pid = rustix::process::Pid::from_child(&monitor);
        rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
        for mut child in [delete, monitor] {
            assert!(ended_in_time(&mut child), "after step {stop_after}");
        }
        assert_eq!(bundle.leftovers(), Vec::<String>::new(), "after step {stop_after}");
    }
}

#[test]
fn s47_a_monitor_killed_at_any_moment_leaves_nothing_after_delete() {
    let bundle = bundle();
    for round in 0..20_u32 {
        let mut child = bundle.command(&["run", &bundle.id]).spawn().unwrap();
        let moment = Timespec { tv_sec: 0, tv_nsec: i64::from(round) * 700_000 };
        poll(&mut [], Some(&moment)).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(bundle.tell(&["delete", "--force", &bundle.id]).status, 0);
        assert_eq!(bundle.leftovers(), Vec::<String>::new(), "round {round}");
    }
}

#[test]
fn a_signal_at_any_moment_leaves_nothing_without_a_delete() {
    let bundle = bundle();
    for round in 0..30_u32 {
        let command = if round % 2 == 0 { "run" } else { "create" };
        let socket = std::os::unix::net::UnixListener::bind(bundle.path(&format!("console{round}"))).unwrap();
        let console = bundle.path(&format!("console{round}"));
        let mut child = bundle
            .command(&[command, "--console-socket", console.to_str().unwrap(), &bundle.id])
            .spawn()
            .unwrap();
        let moment = rustix::event::Timespec { tv_sec: 0, tv_nsec: i64::from(round) * 500_000 };
        rustix::event::poll(&mut [], Some(&moment)).unwrap();
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&child),
            rustix::process::Signal::TERM,
        )
        .unwrap();
        if child.wait().unwrap().success() {
            // It was created already.
            assert_eq!(bundle.tell(&["delete", "--force", &bundle.id]).status, 0);
        }
        assert_eq!(bundle.leftovers(), Vec::<String>::new(), "round {round}, {command}");
        drop(socket);
    }
}
