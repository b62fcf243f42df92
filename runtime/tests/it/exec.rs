//! A further process in a container that runs: what it is, how it ends, and who ends it.
use crate::busybox::{Bundle, is_v2};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::{Value, json};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

fn sleeping() -> Bundle {
    Bundle::shell("exec sleep 1000")
}

/// What of a process is not its own number or time.
const SAME: &str = "cd /proc/$1 && grep -E '^(Umask|Uid|Gid|Groups|Cap.*|NoNewPrivs|Seccomp|Seccomp_filters):' status; \
                    cat limits oom_score_adj; for kind in cgroup ipc mnt net pid user uts; do readlink ns/$kind; done";

#[test]
fn it_is_where_the_first_process_is_and_as_it_is() {
    let mut bundle = sleeping();
    bundle.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 88 }]);
    bundle.config["process"]["oomScoreAdj"] = json!(321);
    bundle.config["process"]["user"] =
        json!({ "uid": 1000, "gid": 1001, "additionalGids": [10, 20], "umask": 0o027 });
    for no_new_privileges in [false, true] {
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        bundle.up();
        let first = bundle.inside(&[], &format!("set 1; {SAME}"));
        assert_eq!(bundle.inside(&[], &format!("set self; {SAME}")), first);
        assert!(first.contains(&format!("NoNewPrivs:\t{}\n", u8::from(no_new_privileges))), "{first}");
        assert!(first.contains("Max open files            77                   88") && first.contains("321"));
        let groups = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let further = detached(&bundle, "exec sleep 1000");
        assert_eq!(groups(further), groups(bundle.pid()));
        bundle.down();
    }
}

/// Starts a script that is left to itself, and returns its number.
fn detached(bundle: &Bundle, script: &str) -> i32 {
    let file = bundle.path("exec.pid");
    let mut command =
        bundle.exec_command(&["-d", "--pid-file", file.to_str().unwrap()], &["sh", "-c", script]);
    assert!(command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success(), "{script}");
    std::fs::read_to_string(file).unwrap().parse().unwrap()
}

#[test]
fn the_status_is_the_commands_own_and_a_failure_is_one_sentence() {
    let bundle = sleeping();
    bundle.up();
    for (script, status) in [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -TERM $$", 143)] {
        assert_eq!(bundle.exec(&[], &["sh", "-c", script]).status, status, "{script}");
    }
    std::fs::write(bundle.rootfs().join("plain"), "#!/bin/sh\n").unwrap();
    std::fs::create_dir(bundle.rootfs().join("etc")).unwrap();
    std::fs::write(bundle.rootfs().join("etc/passwd"), "root:x:0:0::/:\n").unwrap();
    for (options, command, status, said) in [
        (&[][..], &["nonesuch"][..], 127, "\"nonesuch\": executable file not found"),
        (&[], &["/bin/nonesuch"], 127, "/bin/nonesuch"),
        (&[], &["/plain"], 126, "/plain"),
        (&["--cwd", "/nonesuch"], &["true"], 1, "/nonesuch in the container: No such file"),
        (&["--cwd", "relative"], &["true"], 1, "not absolute"),
        (&["--apparmor", "absent"], &["true"], 1, "absent"),
        (&["--cap", "CAP_FLY"], &["true"], 2, "CAP_FLY"),
        (&["--additional-gids", "-1"], &["true"], 2, "\"-1\" is no group's number"),
        (&["--user", "nobody-here"], &["true"], 1, "/etc/passwd"),
        (&["--user", "4294967295"], &["true"], 1, "4294967295"),
        (&["--process", "/nonesuch.json"], &[], 1, "/nonesuch.json"),
        (&["--preserve-fds", "9"], &["true"], 2, "3 is not open"),
        (&["-d", "-t"], &["true"], 1, "needs --console-socket"),
        (&["--console-socket", "/x"], &["true"], 1, "takes a terminal"),
        (&["--sideways"], &["true"], 2, "--sideways"),
        (&[], &[], 2, "give the command"),
    ] {
        let ran = bundle.exec(options, command);
        assert_eq!((ran.status, ran.stdout.as_str()), (status, ""), "{options:?} {command:?}: {ran:?}");
        assert!(ran.stderr.contains(said) && ran.stderr.lines().count() == 1, "{said}: {ran:?}");
    }
    // Nothing of those that failed is left, and what stands behind the id is the command's.
    assert_eq!(members(&bundle), 1);
    assert_eq!(bundle.exec(&[], &["echo", "-h", "--help", "--", "-t"]).stdout, "-h --help -- -t\n");
    bundle.down();
}

/// How many processes the container has.
fn members(bundle: &Bundle) -> usize {
    let listed = bundle.tell(&["ps", "--format", "json", &bundle.id]);
    serde_json::from_str::<Vec<i32>>(&listed.stdout).unwrap().len()
}

#[test]
fn a_container_that_does_not_run_is_not_entered() {
    let bundle = sleeping();
    let refused = |said: &str| {
        let begun = Instant::now();
        let ran = bundle.exec(&[], &["true"]);
        assert!(ran.status == 1 && ran.stderr.contains(said), "{said}: {ran:?}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{said}");
    };
    refused("does not exist");
    assert_eq!(bundle.tell(&["create", &bundle.id]).status, 0);
    refused("it is created");
    assert_eq!(bundle.tell(&["start", &bundle.id]).status, 0);
    assert_eq!(bundle.tell(&["pause", &bundle.id]).status, 0);
    refused("paused");
    assert_eq!(bundle.tell(&["resume", &bundle.id]).status, 0);
    assert_eq!(bundle.exec(&[], &["true"]).status, 0);
    let first = pidfd(bundle.pid());
    assert_eq!(bundle.tell(&["kill", &bundle.id, "KILL"]).status, 0);
    assert!(ends_within(&first, 10));
    refused("container not running");
    bundle.down();
}

fn pidfd(pid: i32) -> OwnedFd {
    pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap()
}

fn ends_within(process: &OwnedFd, seconds: i64) -> bool {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&time)).unwrap() == 1
}

#[test]
fn the_command_line_changes_what_it_names_and_nothing_else() {
    let mut bundle = sleeping();
    bundle.config["process"]["env"] = json!(["PATH=/bin", "A=1", "B=2"]);
    bundle.config["process"]["capabilities"] = json!({});
    std::fs::create_dir(bundle.rootfs().join("work")).unwrap();
    bundle.up();
    let environment = bundle.inside(&["-e", "B=3", "--env", "C=4"], "env | sort");
    assert!(environment.contains("A=1\nB=3\nC=4\nHOME=/\n"), "{environment}");
    assert_eq!(bundle.inside(&["--cwd", "/work"], "pwd"), "/work\n");
    assert_eq!(bundle.inside(&["-u", "7:8", "-g", "9"], "id -u; id -g; id -G"), "7\n8\n8 9\n");
    assert_eq!(bundle.inside(&["-u", "7"], "id -u; id -g"), "7\n0\n");
    let status = |options: &[&str], name: &str| {
        let text = bundle.inside(options, &format!("grep -E '^({name}):' /proc/self/status"));
        text.split_whitespace().filter(|word| !word.ends_with(':')).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(status(&[], "CapEff|CapBnd"), "0000000000000000 0000000000000000");
    assert_eq!(
        status(&["-c", "kill", "--cap", "CAP_CHOWN"], "CapEff|CapBnd"),
        "0000000000000021 0000000000000021"
    );
    assert_eq!(status(&["--no-new-privs"], "NoNewPrivs"), "1");
    bundle.down();
}

#[test]
fn a_process_is_read_from_a_file_and_gets_no_more_by_what_that_leaves_out() {
    let mut bundle = sleeping();
    bundle.config["process"]["noNewPrivileges"] = json!(true);
    bundle.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 88 }]);
    bundle.config["process"]["oomScoreAdj"] = json!(321);
    bundle.config["process"]["capabilities"] = json!({ "bounding": ["CAP_KILL"] });
    bundle.up();
    let script =
        "id -u; ulimit -n; cat /proc/self/oom_score_adj; grep -E '^(CapBnd|NoNewPrivs):' /proc/self/status";
    let mut process = json!({
        "args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 5, "gid": 5 },
        "noNewPrivileges": false,
    });
    let path = bundle.path("process.json");
    let run = |process: &Value| {
        std::fs::write(&path, process.to_string()).unwrap();
        bundle.exec(&["--process", path.to_str().unwrap()], &[])
    };
    let ran = run(&process);
    assert_eq!(ran.stdout, "5\n77\n321\nCapBnd:\t0000000000000020\nNoNewPrivs:\t1\n", "{ran:?}");
    process["capabilities"] = json!({ "bounding": ["CAP_CHOWN"] });
    process["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 66, "hard": 66 }]);
    process["oomScoreAdj"] = json!(400);
    assert_eq!(run(&process).stdout, "5\n66\n400\nCapBnd:\t0000000000000001\nNoNewPrivs:\t1\n");
    // By standard input too; what is wrong with it is told by name.
    let mut command = bundle.exec_command(&["--process", "-"], &[]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), process.to_string().as_bytes()).unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, run(&process).stdout.as_bytes());
    for (key, value) in [
        ("cwd", json!("relative")),
        ("args", json!([])),
        ("user", json!({ "uid": -1, "gid": 0 })),
        ("env", json!(7)),
    ] {
        let mut wrong = process.clone();
        wrong[key] = value;
        let ran = run(&wrong);
        assert!(ran.status == 1 && ran.stderr.contains(&format!("/process/{key}")), "{ran:?}");
    }
    std::fs::write(&path, "no process").unwrap();
    let ran = bundle.exec(&["--process", path.to_str().unwrap()], &[]);
    assert!(ran.status == 1 && ran.stderr.contains("process.json"), "{ran:?}");
    bundle.down();
}

#[test]
fn a_user_by_name_is_the_containers_own() {
    let bundle = sleeping();
    let etc = bundle.rootfs().join("etc");
    std::fs::create_dir(&etc).unwrap();
    std::fs::write(etc.join("passwd"), "root:x:0:0::/root:\nme:x:1000:1001::/home/me:\n").unwrap();
    std::fs::write(etc.join("group"), "root:x:0:\nwheel:x:10:me\nvideo:x:44:\n").unwrap();
    bundle.up();
    for (user, expected) in [
        ("me", "1000\n1001\n1001 10\n/home/me\n"),
        ("me:video", "1000\n44\n44\n/home/me\n"),
        ("me:7", "1000\n7\n7\n/home/me\n"),
        ("1000:video", "1000\n44\n44\n/home/me\n"),
        ("root", "0\n0\n0\n/root\n"),
    ] {
        let found = bundle.inside(&["--user", user, "--env", "HOME="], "id -u; id -g; id -G; echo $HOME");
        assert_eq!(found, expected, "{user}");
    }
    bundle.down();
}

#[test]
fn many_at_once_do_not_get_in_one_anothers_way() {
    let bundle = sleeping();
    bundle.up();
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let bundle = &bundle;
            scope.spawn(move || {
                for turn in 0..10 {
                    let script = format!("echo {worker} {turn}; exit {turn}");
                    let ran = bundle.exec(&[], &["sh", "-c", &script]);
                    assert_eq!((ran.status, ran.stdout), (turn, format!("{worker} {turn}\n")));
                }
            });
        }
    });
    assert_eq!(members(&bundle), 1);
    bundle.down();
}

/// `exec` in the foreground, whose command has said that it is ready.
fn ready(bundle: &Bundle, script: &str) -> Child {
    let mut command = bundle.exec_command(&[], &["sh", "-c", script]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 6]).unwrap();
    child
}

#[test]
fn a_signal_goes_to_the_command() {
    let bundle = sleeping();
    bundle.up();
    let mut child = ready(&bundle, "trap 'exit 42' TERM; echo ready; while :; do sleep 0.05; done");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(42));
    let mut child = ready(&bundle, "echo ready; exec sleep 1000");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    bundle.down();
}

#[test]
fn the_command_ends_with_who_waits_for_it_and_goes_on_if_nobody_does() {
    let bundle = sleeping();
    bundle.up();
    let further = detached(&bundle, "exec sleep 1000");
    let mut child = ready(&bundle, "echo ready; exec sleep 1000");
    assert_eq!(members(&bundle), 3);
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while members(&bundle) != 2 {
        assert!(Instant::now() < deadline, "it has outlived exec");
    }
    let further = pidfd(further);
    assert!(!ends_within(&further, 0));
    bundle.down();
    assert!(ends_within(&further, 0), "it has outlived the container");
}

#[test]
fn it_ends_with_the_container_also_without_a_pid_namespace() {
    for kinds in [&["pid"][..], &[]] {
        let mut bundle = sleeping();
        let list = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
        list.retain(|one| one["type"] != "pid" || !kinds.is_empty());
        bundle.up();
        let mut child = ready(&bundle, "trap '' TERM INT; echo ready; while :; do sleep 1000; done");
        bundle.down();
        assert_eq!(child.wait().unwrap().code(), Some(137), "{kinds:?}");
    }
}

#[test]
fn one_that_comes_as_the_container_ends_ends_too() {
    for turn in 0..60 {
        let bundle = sleeping();
        bundle.up();
        let mut child =
            bundle.exec_command(&[], &["true"]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        // From before the fork to after the end.
        let moment = Timespec { tv_sec: 0, tv_nsec: turn * 200_000 };
        poll(&mut [], Some(&moment)).unwrap();
        assert_eq!(bundle.tell(&["kill", &bundle.id, "KILL"]).status, 0);
        assert!(ends_within(&pidfd(i32::try_from(child.id()).unwrap()), 10), "{turn}");
        let status = child.wait().unwrap().code().unwrap();
        let mut said = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
        match status {
            0 | 137 => assert_eq!(said, "", "{turn}"),
            _ => assert_eq!((status, said.lines().count()), (1, 1), "{turn}: {said}"),
        }
        bundle.down();
    }
}

#[test]
fn of_a_limit_on_processes_one_is_taken() {
    let mut bundle = sleeping();
    // On v2 there is one group only, and for a moment two of ours are in it.
    let (limit, refused) = if is_v2() { (3, "a limit on processes is reached") } else { (2, "can't fork") };
    bundle.config["linux"]["resources"]["pids"] = json!({ "limit": limit });
    bundle.up();
    for _ in 0..3 {
        assert_eq!(bundle.exec(&[], &["true"]).status, 0);
    }
    // A process that is there already may join: the limit is on forks (cgroup-v1/pids.rst).
    let mut first = ready(&bundle, "echo ready; exec sleep 1000");
    let ran = bundle.exec(&[], &["sh", "-c", "true | true"]);
    assert!(ran.status != 0 && ran.stderr.contains(refused), "{ran:?}");
    bundle.down();
    assert_eq!(first.wait().unwrap().code(), Some(137));
}

#[test]
fn little_memory_is_enough() {
    let mut bundle = sleeping();
    bundle.config["linux"]["resources"]["memory"] = json!({ "limit": 6 << 20 });
    bundle.up();
    for _ in 0..50 {
        let ran = bundle.exec(&[], &["true"]);
        assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{ran:?}");
    }
    bundle.down();
    bundle.config["process"]["args"] = json!(["true"]);
    for _ in 0..50 {
        let ran = bundle.run();
        assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{ran:?}");
    }
    bundle.assert_nothing_left();
}

#[test]
fn many_that_do_not_start_leave_nothing_in_the_container() {
    let mut bundle = sleeping();
    bundle.config["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 });
    bundle.up();
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", bundle.pid())).unwrap();
    let of = |kind: &str| groups.lines().find_map(|line| Some(line.split_once(kind)?.1));
    let file = match of(":memory:") {
        Some(path) => format!("/sys/fs/cgroup/memory{path}/memory.usage_in_bytes"),
        None => format!("/sys/fs/cgroup{}/memory.current", of("0::").unwrap()),
    };
    let used = || std::fs::read_to_string(&file).unwrap().trim().parse::<u64>().unwrap();
    let fail = |times| {
        for _ in 0..times {
            assert_eq!(bundle.exec(&["-t"], &["nonesuch"]).status, 127);
            assert_eq!(bundle.exec(&["-t", "--cwd", "/nonesuch"], &["true"]).status, 1);
        }
    };
    // What the kernel keeps for the group to have it at hand is there after a few.
    fail(10);
    let before = used();
    fail(100);
    assert_eq!(members(&bundle), 1);
    assert_eq!(bundle.inside(&[], "ls /dev/pts; ls /proc/1/fd"), "ptmx\n0\n1\n2\n");
    let grown = used().saturating_sub(before);
    // Each processor takes from the group up to 64 pages at once, and keeps what it does not need yet.
    let processors = std::thread::available_parallelism().unwrap().get() as u64;
    assert!(grown < (256 << 10) * processors.max(4), "{grown} bytes");
    bundle.down();
}

#[test]
fn strace_and_gdb_work_between_processes_that_have_the_capability() {
    let mut bundle = sleeping();
    for directory in ["/usr", "/lib", "/lib64"] {
        bundle.bind(directory.as_ref(), directory, &["rbind", "ro"]);
    }
    for set in ["bounding", "permitted", "effective"] {
        bundle.push(&format!("/process/capabilities/{set}"), json!("CAP_SYS_PTRACE"));
    }
    bundle.config["process"]["env"] = json!(["PATH=/bin:/usr/bin", "HOME=/"]);
    bundle.up();
    let ran = bundle.exec(&[], &["strace", "-f", "-e", "trace=write", "sh", "-c", "echo traced; exit 4"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (4, "traced\n"), "{ran:?}");
    assert!(ran.stderr.contains("write(1, \"traced\\n\", 7)"), "{ran:?}");
    // The container's own process, which is none of its.
    let gdb = [
        "gdb",
        "--nx",
        "--batch",
        "--pid",
        "1",
        "--eval-command",
        "print $_siginfo",
        "--eval-command",
        "info inferiors",
    ];
    let ran = bundle.exec(&[], &gdb);
    assert!(ran.status == 0 && ran.stdout.contains("process 1"), "{ran:?}");
    bundle.down();
}

#[test]
fn where_no_memory_is_left_it_ends_and_hangs_nobody() {
    let script = "dd if=/dev/zero of=/dev/shm/full bs=64k count=236 2>/dev/null; echo ready; exec sleep 1000";
    let mut bundle = Bundle::shell(script);
    bundle.config["linux"]["resources"]["memory"] = json!({ "limit": 16 << 20, "swap": 16 << 20 });
    let mut running = bundle.command(&["run", &bundle.id]).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Read::read_exact(running.stdout.as_mut().unwrap(), &mut [0; 6]).unwrap();
    for _ in 0..10 {
        let begun = Instant::now();
        let ran = bundle.exec(&[], &["sh", "-c", "x=$(head -c 300000 /dev/zero | tr '\\0' x); echo ${#x}"]);
        assert!(matches!(ran.status, 0 | 1 | 2 | 137), "{ran:?}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{ran:?}");
    }
    assert_eq!(bundle.tell(&["delete", "--force", &bundle.id]).status, 0);
    running.wait().unwrap();
    bundle.assert_nothing_left();
}
