//! Many runs at once, ends at any moment, and an operator's side that fails: no interference, nothing left.

use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::support::{Run, Worker, busybox_image, finish, shell_payload};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn eight_runs_at_once_of_an_absent_image_in_two_data_directories_do_not_disturb_each_other() {
    let workers = [Worker::new(), Worker::new()];
    let image = workers[0].image(&busybox_image()).source;
    let runs: Vec<_> = (0..8)
        .map(|number| {
            let worker = &workers[number % 2];
            (worker, number, worker.start_run(&["--image", &image], &["echo", &format!("I am {number}")]))
        })
        .collect();
    // Beside living runs it takes nothing away from them.
    for worker in workers.iter().cycle().take(6) {
        let cleaned = worker.call(&["cleanup"]);
        assert!(cleaned.status.success(), "{cleaned:?}");
    }
    for (_, number, (child, artifacts)) in runs {
        let run = Run::collect(finish(child, LIMIT), artifacts).expect(0, &format!("run {number}"));
        assert_eq!(run.output(), format!("I am {number}\n"), "{run:?}");
    }
    for worker in &workers {
        worker.assert_nothing_left("after all runs");
    }
}

#[test]
fn a_signal_at_any_moment_ends_with_its_status_and_leaves_nothing() {
    // Whoever started these tests may ignore Ctrl-C, as a script does for what it starts with `&`: until the worker listens,
    // the signal would be lost.
    let minding = || Worker::by(&["env", "--default-signal"]);
    let sound = minding();
    let image = sound.image(&busybox_image()).source;
    let whole = sound.run(&image, &["true"]).expect(0, "never interrupted").took;
    for step in 0..24_u32 {
        // Every fourth pulls as well.
        let fresh = minding();
        let worker = if step % 4 == 0 { &fresh } else { &sound };
        let (signal, status) = [(Signal::TERM, 122), (Signal::INT, 130)][(step % 2) as usize];
        let case = format!("{signal:?} after {step}/16 of {whole:?}");
        let (child, artifacts) =
            worker.start_run(&["--image", &image], &["sh", "-c", "sleep 1000 & sleep 1000"]);
        pause(whole * step / 16, &child);
        send(&child, signal);
        let run = Run::collect(finish(child, LIMIT), artifacts);
        // Before there are handlers, the signal ends the process itself.
        let early = 128 + signal.as_raw();
        assert!(run.status == status || (run.status == early && run.log.is_empty()), "{case}: {run:?}");
        worker.assert_nothing_left(&case);
    }
}

#[test]
fn a_task_that_attacks_itself_ends_and_leaves_nothing() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    for (case, script, status, limit) in [
        ("its own shell", "kill -9 $$", None, 20),
        (
            "its own /tmp and everything else",
            "rm -rf /tmp /etc /root /home 2> /dev/null; exit 5",
            Some(5),
            20,
        ),
        ("a stop", "sh -c 'kill -STOP $$' & wait; sleep 1000", Some(124), 2),
        ("a double fork", "(setsid sleep 1000 &) ; exit 6", Some(6), 20),
        ("every process", "sleep 1000 & kill -9 -1; exit 7", None, 20),
    ] {
        let mut payload = shell_payload(&image, script);
        payload["maxRunTime"] = serde_json::json!(limit);
        let run = worker.task(&payload);
        assert!(status.is_none_or(|status| run.status == status), "{case}: {run:?}");
        assert!(run.log.contains("=== Task Finished ==="), "{case}: {run:?}");
        assert!(run.took < Duration::from_secs(17), "{case}: {run:?}");
        worker.assert_nothing_left(case);
    }
}

/// What an operator's shell does to the worker's own descriptors and directories.
#[test]
fn an_operators_side_that_fails_leaves_nothing() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    worker.run(&image, &["true"]).expect(0, "the image is fetched");
    let task = "run --network none --image \"$IMAGE\" -- sh -c 'i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; exit 9'";
    for (case, script, status) in [
        ("stdout closed early", format!("{{ \"$WORKER\" {task}; echo $? >&2; }} | head -1"), "9"),
        ("stdout closed", format!("\"$WORKER\" {task} >&-; echo $? >&2"), "9"),
        ("stderr closed", format!("(\"$WORKER\" {task} 2>&-; echo $? >&3) 3>&2 > /dev/null"), "9"),
        ("all closed", format!("(\"$WORKER\" {task} <&- >&- 2>&-; echo $? >&3) 3>&2"), "9"),
        (
            "cwd deleted",
            format!(
                "mkdir \"$GONE\"; cd \"$GONE\"; rmdir \"$GONE\"; \"$WORKER\" {task} > /dev/null; echo $? >&2"
            ),
            "9",
        ),
        ("stdout full", format!("\"$WORKER\" {task} > /dev/full; echo $? >&2"), "9"),
    ] {
        let plain = worker.command(&[]);
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &script]).env("WORKER", plain.get_program()).env("IMAGE", &image);
        shell.env("GONE", worker.fresh("gone"));
        shell.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let finished = finish(shell.spawn().unwrap(), LIMIT);
        let stderr = String::from_utf8_lossy(&finished.stderr).into_owned();
        assert_eq!(stderr.lines().last(), Some(status), "{case}: {finished:?}");
        worker.assert_nothing_left(case);
    }
}

fn pause(time: Duration, child: &Child) {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).unwrap();
    let time = Timespec { tv_sec: time.as_secs().try_into().unwrap(), tv_nsec: time.subsec_nanos().into() };
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&time)).unwrap();
}

fn send(child: &Child, signal: Signal) {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).unwrap();
    // It may have ended by itself.
    pidfd_send_signal(&pidfd, signal).unwrap_or_default();
}
