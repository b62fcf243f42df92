//! Containers that stand still.
use crate::busybox::{Bundle, Ran};
use crate::launch::{exited, next, start, start_held, wait};
use serde_json::Value;
use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

fn ok(ran: Ran) {
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{ran:?}");
}

fn status(bundle: &Bundle) -> String {
    let ran = bundle.tell(&["state", &bundle.id]);
    let state: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    state["status"].as_str().unwrap().to_owned()
}

/// Counts in a file of the root.
const COUNTS: &str = "i=0; while :; do i=$((i+1)); echo $i > /count; done";

fn count(bundle: &Bundle) -> String {
    std::fs::read_to_string(bundle.rootfs().join("count")).unwrap_or_default()
}

#[test]
fn nothing_in_a_paused_container_goes_on_before_it_is_resumed() {
    let bundle = Bundle::shell(COUNTS);
    bundle.up();
    let begun = Instant::now();
    while count(&bundle).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    ok(bundle.tell(&["pause", &bundle.id]));
    assert_eq!(status(&bundle), "paused");
    assert!(bundle.tell(&["list"]).stdout.contains("paused"));
    let stands = count(&bundle);
    std::thread::park_timeout(Duration::from_millis(200));
    assert_eq!(count(&bundle), stands);
    for (command, said) in [
        ("pause", "it is paused, not running"),
        ("start", "it is paused, not created"),
        ("delete", "it is paused; kill it first"),
    ] {
        let ran = bundle.tell(&[command, &bundle.id]);
        assert!(ran.status == 1 && ran.stderr.contains(said), "{ran:?}");
    }
    ok(bundle.tell(&["resume", &bundle.id]));
    assert_eq!(status(&bundle), "running");
    let begun = Instant::now();
    while count(&bundle) == stands {
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    let ran = bundle.tell(&["resume", &bundle.id]);
    assert!(ran.status == 1 && ran.stderr.contains("it is running, not paused"), "{ran:?}");
    bundle.down();
}

#[test]
fn a_container_that_does_not_run_cannot_be_paused() {
    let bundle = Bundle::shell("exec sleep 1000");
    ok(bundle.tell(&["create", &bundle.id]));
    for command in ["pause", "resume"] {
        let ran = bundle.tell(&[command, &bundle.id]);
        assert!(ran.status == 1 && ran.stderr.contains("it is created"), "{ran:?}");
        let ran = bundle.tell(&[command, "nonesuch"]);
        assert!(ran.status == 1 && ran.stderr.contains("does not exist"), "{ran:?}");
    }
    bundle.down();
}

#[test]
fn a_paused_container_ends_when_it_is_killed() {
    for command in [&["kill"][..], &["delete", "--force"]] {
        let bundle = Bundle::shell("echo ready; exec sleep 1000");
        let mut running = bundle.command(&["run", &bundle.id]).stdout(Stdio::piped()).spawn().unwrap();
        running.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
        // The command may be quicker than the note of it.
        let begun = Instant::now();
        while status(&bundle) == "creating" {
            assert!(begun.elapsed() < Duration::from_secs(10));
        }
        ok(bundle.tell(&["pause", &bundle.id]));
        let signal = command.first().filter(|word| **word == "kill").map(|_| "KILL");
        let words = command.iter().copied().chain([bundle.id.as_str()]).chain(signal);
        let begun = Instant::now();
        ok(bundle.tell(&words.collect::<Vec<_>>()));
        assert_eq!(running.wait().unwrap().code(), Some(137));
        assert!(begun.elapsed() < Duration::from_secs(5), "{command:?}");
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_paused_container_ends_with_its_caller() {
    for hold in [false, true] {
        let bundle = Bundle::shell("exec sleep 1000");
        let mut monitor = if hold { start_held(&bundle, Vec::new()) } else { start(&bundle, None) };
        for _ in ["created", "started"] {
            next(&monitor).unwrap();
        }
        ok(bundle.tell(&["pause", &bundle.id]));
        let begun = Instant::now();
        monitor.abandon();
        assert_eq!(exited(&monitor).signal, Some(9));
        wait(monitor);
        assert!(begun.elapsed() < Duration::from_secs(5), "hold: {hold}");
        bundle.assert_nothing_left();
    }
}

#[test]
fn who_comes_between_pause_and_resume_is_refused_or_waits() {
    let bundle = Bundle::shell("exec sleep 1000");
    bundle.up();
    std::thread::scope(|scope| {
        let execs = scope.spawn(|| {
            for _ in 0..25 {
                let ran = bundle.exec(&[], &["true"]);
                let refused = ran.status == 1 && ran.stderr.contains("paused");
                assert!(ran.status == 0 || refused, "{ran:?}");
            }
        });
        while !execs.is_finished() {
            ok(bundle.tell(&["pause", &bundle.id]));
            ok(bundle.tell(&["resume", &bundle.id]));
        }
        execs.join().unwrap();
    });
    bundle.down();
}

#[test]
fn the_processes_are_listed_as_the_host_numbers_them() {
    let bundle = Bundle::shell("sleep 1000 & exec sleep 2000");
    bundle.up();
    let list = |options: &[&str]| bundle.tell(&[&["ps"], options].concat());
    let begun = Instant::now();
    let json = loop {
        let pids: Vec<i32> = serde_json::from_str(&list(&["-f", "json", &bundle.id]).stdout).unwrap();
        if pids.len() == 2 {
            break pids;
        }
        assert!(begun.elapsed() < Duration::from_secs(10));
    };
    assert!(json.contains(&bundle.pid()));
    let table = list(&[&bundle.id]);
    assert!(table.stdout.starts_with("UID") && table.stdout.lines().count() == 3, "{table:?}");
    let table = list(&[&bundle.id, "-o", "pid,args", "-e"]);
    let args: Vec<&str> =
        table.stdout.lines().skip(1).map(|line| line.trim().split_once(' ').unwrap().1).collect();
    assert!(args.contains(&"sleep 1000") && args.contains(&"sleep 2000") && args.len() == 2, "{table:?}");
    let ran = list(&["nonesuch"]);
    assert!(ran.status == 1 && ran.stderr.contains("does not exist"), "{ran:?}");
    bundle.down();
}
