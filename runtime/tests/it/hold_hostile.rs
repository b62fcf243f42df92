//! A holder among people who mean it no good.
use crate::busybox::Bundle;
use crate::launch::{exited, next, start_held, wait};
use crate::probe::Probe;
use runtime::launch::{Exited, Monitor, Report};
use serde_json::json;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::Stdio;

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_docker-worker-runtime");

/// Its command is a script; the probe is in its root.
fn probed(script: &str) -> Bundle {
    let bundle = Bundle::shell(script);
    let probe = Probe::build();
    let copied =
        std::process::Command::new("cp").arg(probe.path()).arg(bundle.rootfs().join("probe")).status();
    assert!(copied.unwrap().success());
    bundle
}

/// The same, and everybody there may trace others.
fn powerful(script: &str) -> Bundle {
    let mut bundle = probed(script);
    for set in ["bounding", "permitted", "effective"] {
        bundle.push(&format!("/process/capabilities/{set}"), json!("CAP_SYS_PTRACE"));
    }
    bundle
}

fn started(bundle: &Bundle, descriptors: Vec<OwnedFd>) -> Monitor {
    let monitor = start_held(bundle, descriptors);
    assert!(matches!(next(&monitor).unwrap(), Report::Created(_)));
    assert!(matches!(next(&monitor).unwrap(), Report::Started));
    monitor
}

/// The container's end, with or without that of its command before.
fn end(monitor: Monitor) -> Exited {
    let end = match next(&monitor).unwrap() {
        Report::CommandEnded(_) => exited(&monitor),
        Report::Exited(end) => end,
        other => panic!("{other:?}"),
    };
    wait(monitor);
    end
}

#[test]
fn s41_s42_s45_it_holds_nothing_of_the_hosts() {
    let bundle = powerful("exec sleep 1000");
    let before = std::fs::read(EXECUTABLE).unwrap();
    let mut monitor = started(&bundle, vec![tempfile::tempfile().unwrap().into()]);
    assert_eq!(bundle.inside(&[], "ls /proc/1/fd"), "0\n1\n2\n");
    // One socket, a word of memory, a pipe.
    let kinds = bundle.inside(&[], "for fd in 0 1 2; do readlink /proc/1/fd/$fd; done");
    let kinds: Vec<_> = kinds.lines().map(|link| link.split(':').next().unwrap()).collect();
    assert_eq!(kinds, ["socket", "/memfd", "pipe"]);
    assert_eq!(bundle.inside(&[], "cat /proc/1/environ"), "");
    assert_eq!(bundle.inside(&[], "tr '\\0' ' ' </proc/1/cmdline"), "docker-worker-runtime hold 2 monitor ");
    assert_eq!(bundle.inside(&[], "ls /proc/1/root/; ls /proc/1/cwd/"), bundle.inside(&[], "ls /; ls /"));
    let groups = bundle.inside(
        &[],
        "grep -E '^(Uid|Gid|Groups|Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp):' /proc/1/status",
    );
    let expected = "Uid:\t0\t0\t0\t0\nGid:\t65534\t0\t0\t0\nGroups:\t \nCapInh:\t0000000000000000\nCapPrm:\t0000000000000020\n\
                    CapEff:\t0000000000000020\nCapBnd:\t0000000000000020\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n";
    assert_eq!(groups, expected);
    // Nobody writes what is executed; but who has it open may, when it no longer is.
    for (file, expected) in [("/proc/1/exe", "ok\n"), ("/proc/self/exe", "writable\n")] {
        assert_eq!(bundle.exec(&[], &["/probe", "sealed", file]).stdout, expected, "{file}");
    }
    for script in [
        "echo x >/proc/1/exe",
        "exec 9<>/proc/1/exe",
        "cp /bin/busybox /proc/1/exe",
        "exec 9</proc/1/exe; echo x >/proc/self/fd/9",
    ] {
        assert_ne!(bundle.exec(&[], &["sh", "-c", script]).status, 0, "{script}");
    }
    assert_eq!(std::fs::read(EXECUTABLE).unwrap(), before);
    monitor.abandon();
    end(monitor);
    bundle.assert_nothing_left();
}

#[test]
fn root_in_the_container_can_neither_look_into_it_nor_end_it() {
    let bundle = probed("exec sleep 1000");
    let mut monitor = started(&bundle, Vec::new());
    for script in [
        "cat /proc/1/mem",
        "cat /proc/1/maps",
        "readlink /proc/1/exe",
        "readlink /proc/1/fd/0",
        "cat /proc/1/environ",
    ] {
        assert_ne!(bundle.exec(&[], &["sh", "-c", script]).status, 0, "{script}");
    }
    bundle.inside(&[], "kill -KILL 1; kill -STOP 1");
    // It knows whom a signal is from only as long as there is room for it.
    assert_eq!(bundle.exec(&[], &["/probe", "lower"]).stdout, "EPERM\n");
    assert_eq!(bundle.inside(&[], "cut -d' ' -f2,3 /proc/1/stat"), "(holder) S\n");
    monitor.abandon();
    assert_eq!(end(monitor).signal, Some(9));
    bundle.assert_nothing_left();
}

#[test]
fn who_may_trace_it_gets_no_call_of_it_and_no_status_that_is_not_the_commands() {
    // exit_group(0): it ends as if all were well. openat, clone: what it may not do.
    for call in ["231 0", "257 0", "56 0x10000000"] {
        let bundle = powerful("exec sleep 1000");
        let monitor = started(&bundle, Vec::new());
        let words: Vec<&str> = call.split(' ').collect();
        bundle.exec(&[], &[&["/probe", "possess"], &words[..]].concat());
        let end = end(monitor);
        assert_eq!((end.status, end.signal), (137, Some(9)), "{call}");
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_holder_that_is_kept_from_telling_ends_the_container_and_no_success_is_told() {
    let bundle = powerful("read line </go; exit 0");
    assert!(std::process::Command::new("mkfifo").arg(bundle.rootfs().join("go")).status().unwrap().success());
    let monitor = started(&bundle, Vec::new());
    let mut keeper =
        bundle.exec_command(&[], &["/probe", "possess", "stop", "0"]).stdout(Stdio::piped()).spawn().unwrap();
    keeper.stdout.as_mut().unwrap().read_exact(&mut [0; 8]).unwrap();
    bundle.inside(&[], "echo >/go");
    let end = end(monitor);
    assert_eq!((end.status, end.signal), (137, Some(9)));
    keeper.wait().unwrap();
    bundle.assert_nothing_left();
}

#[test]
fn a_full_container_keeps_nobody_from_hearing_of_the_command() {
    let mut bundle = Bundle::shell("while (sleep 1000 &) 2>/dev/null; do :; done; exit 6");
    bundle.config["linux"]["resources"]["pids"]["limit"] = json!(20);
    let mut monitor = start_held(&bundle, Vec::new());
    for _ in 0..2 {
        next(&monitor).unwrap();
    }
    let Report::CommandEnded(ended) = next(&monitor).unwrap() else { panic!("not the command's end") };
    // ash gives up with 2 when it cannot fork.
    assert!([2, 6].contains(&ended.status), "{ended:?}");
    monitor.abandon();
    assert_eq!(exited(&monitor).status, ended.status);
    wait(monitor);
    bundle.assert_nothing_left();
}
