//! A container that waits for the runtime to come in: what it gets hold of, and what it makes that one do.
use crate::busybox::Bundle;
use crate::probe::Probe;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::{Value, json};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::process::Stdio;

/// A container that runs this command, with the probe in its root.
fn probed(command: &[&str]) -> Bundle {
    let bundle = Bundle::new(command);
    // A link, and no copy: a descriptor of ours, open for writing, might be in a process that another test forks.
    let probe = Probe::build();
    let copied =
        std::process::Command::new("cp").arg(probe.path()).arg(bundle.rootfs().join("probe")).status();
    assert!(copied.unwrap().success());
    bundle
}

fn grant(bundle: &mut Bundle, capability: &str) {
    for set in ["bounding", "permitted", "effective"] {
        bundle.push(&format!("/process/capabilities/{set}"), json!(capability));
    }
}

#[test]
fn s41_who_may_trace_others_gets_no_executable_words_or_descriptors_of_the_hosts() {
    let mut bundle = probed(&["sleep", "1000"]);
    grant(&mut bundle, "CAP_SYS_PTRACE");
    bundle.up();
    let executable = env!("CARGO_BIN_EXE_docker-worker-runtime");
    let before = std::fs::read(executable).unwrap();
    let word = "canary-of-the-host";
    let mut hunter =
        bundle.exec_command(&[], &["/probe", "hunt", word, "6"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = hunter.stdout.take().unwrap();
    said.read_exact(&mut [0; 8]).unwrap();
    while hunter.try_wait().unwrap().is_none() {
        // The word stands among the arguments and in the environment.
        let told = bundle.exec_command(&[], &["true"]);
        let mut shell = std::process::Command::new("/bin/sh");
        let script = format!("exec 9</; exec \"$0\" --log {word} \"$@\"");
        shell.arg("-c").arg(script).arg(told.get_program()).args(told.get_args());
        shell.env("CANARY", word).current_dir(bundle.path("")).stderr(Stdio::null());
        shell.status().unwrap();
    }
    let mut found = String::new();
    said.read_to_string(&mut found).unwrap();
    let caught = found.trim().strip_prefix("ng\n").unwrap_or(found.trim()).to_owned();
    assert!(caught.ends_with(" writable=0 leaked=0 foreign=0"), "{caught}");
    assert!(
        !caught.starts_with("caught=0 "),
        "the hunter is too slow for this test to mean anything: {caught}"
    );
    assert_eq!(std::fs::read(executable).unwrap(), before);
    bundle.down();
}

#[test]
fn s41_the_runtime_is_not_what_proc_self_exe_is() {
    let bundle = Bundle::shell("exec sleep 1000");
    symlink("/proc/self/exe", bundle.rootfs().join("own")).unwrap();
    bundle.up();
    for command in ["/proc/self/exe", "/own", "/proc/thread-self/exe", "/proc/self/fd/../exe"] {
        let ran = bundle.exec(&[], &[command, "--version"]);
        assert_eq!((ran.status, ran.stdout.as_str()), (127, ""), "{command}: {ran:?}");
    }
    bundle.down();
}

#[test]
fn s42_the_descriptors_are_the_three_and_those_that_were_promised() {
    let bundle = probed(&["sleep", "1000"]);
    bundle.up();
    let with = |redirections: &str, options: &[&str]| {
        let told = bundle.exec_command(options, &["/probe", "fds"]);
        let mut shell = std::process::Command::new("/bin/sh");
        shell.arg("-c").arg(format!("exec \"$@\" {redirections}")).arg("sh").arg(told.get_program());
        let output = shell.args(told.get_args()).current_dir(bundle.path("")).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(with("5</ 9>x", &[]), "0 1 2\n");
    assert_eq!(with("3</dev/null 5</ 9>x", &["--preserve-fds", "1"]), "0 1 2 3\n");
    bundle.down();
}

#[test]
fn s43_a_working_directory_is_in_the_container_or_none() {
    let bundle = Bundle::shell("exec 9</bin; exec sleep 1000");
    std::fs::create_dir(bundle.rootfs().join("etc")).unwrap();
    std::fs::write(bundle.rootfs().join("etc/hostname"), "the container's\n").unwrap();
    for number in 3..=64 {
        symlink(format!("/proc/self/fd/{number}"), bundle.rootfs().join(format!("link{number}"))).unwrap();
    }
    bundle.up();
    let process = bundle.path("process.json");
    for number in 3..=64 {
        let place = format!("/proc/self/fd/{number}");
        let paths = [
            place.clone(),
            format!("{place}/."),
            format!("{place}/../.."),
            format!("/link{number}"),
            format!("/proc/thread-self/fd/{number}"),
            format!("/dev/fd/{number}"),
        ];
        for path in paths {
            std::fs::write(
                &process,
                json!({ "args": ["cat", "etc/hostname"], "cwd": path, "env": ["PATH=/bin"] }).to_string(),
            )
            .unwrap();
            let options: &[&str] = match number % 2 {
                0 => &["--cwd", &path],
                _ => &["--process", process.to_str().unwrap()],
            };
            let command: &[&str] = if number % 2 == 0 { &["cat", "etc/hostname"] } else { &[] };
            let ran = bundle.exec(options, command);
            assert_eq!((ran.status, ran.stdout.as_str()), (1, ""), "{path}: {ran:?}");
        }
    }
    // Those that are there, of the first process.
    assert_eq!(
        bundle.inside(&[], "for link in fd/9 root cwd; do readlink /proc/1/$link; done"),
        "/bin\n/\n/\n"
    );
    for path in ["/proc/1/root", "/proc/1/cwd", "/proc/1/fd/9", "/proc/1/root/bin"] {
        let ran = bundle.exec(&["--cwd", path], &["cat", "/etc/hostname"]);
        assert_eq!((ran.status, ran.stdout.as_str()), (1, ""), "{path}: {ran:?}");
        assert!(ran.stderr.contains("it is or lies behind a symbolic link"), "{path}: {ran:?}");
    }
    for path in ["/../../../..", "/bin/../.."] {
        assert_eq!(bundle.inside(&["--cwd", path], "cat etc/hostname"), "the container's\n", "{path}");
    }
    bundle.down();
}

#[test]
fn nobody_is_sent_where_the_first_process_has_made_mounts_of_its_own() {
    let fake = "mount -t tmpfs none /bin 2>/dev/null || :; echo away; sleep 1000";
    let mut bundle = Bundle::new(&["unshare", "-U", "-r", "-m", "sh", "-c", fake]);
    bundle.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    bundle.config["linux"].as_object_mut().unwrap().remove("seccomp");
    let mut running = bundle.command(&["run", &bundle.id]).stdout(Stdio::piped()).spawn().unwrap();
    running.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
    let ran = bundle.exec(&["--user", "0:0"], &["true"]);
    assert!(ran.status == 1 && ran.stderr.contains("has left the user namespace"), "{ran:?}");
    assert_eq!(bundle.tell(&["delete", "--force", &bundle.id]).status, 0);
    running.wait().unwrap();
    bundle.assert_nothing_left();
}

#[test]
fn a_container_in_a_user_namespace_is_entered_as_its_own_users() {
    let mut bundle = Bundle::shell("exec sleep 1000");
    bundle.push("/linux/namespaces", json!({ "type": "user" }));
    for map in ["uidMappings", "gidMappings"] {
        bundle.config["linux"][map] = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    }
    let chown =
        std::process::Command::new("chown").args(["-R", "100000:100000"]).arg(bundle.path("")).status();
    assert!(chown.unwrap().success());
    bundle.up();
    let script = "id -u; readlink /proc/self/ns/user; grep CapEff /proc/self/status";
    let first = bundle.inside(&[], "echo 0; readlink /proc/1/ns/user; grep CapEff /proc/1/status");
    assert_eq!(bundle.inside(&[], script), first);
    assert_eq!(bundle.inside(&["--user", "7:8"], "id -u; id -g; cat /proc/self/uid_map"), {
        let map = bundle.inside(&[], "cat /proc/self/uid_map");
        format!("7\n8\n{map}")
    });
    bundle.down();
}

#[test]
fn the_containers_own_proc_is_believed_in_nothing() {
    let mut bundle = Bundle::shell(
        "mount -t tmpfs none /proc && mkdir -p /proc/self/fd /proc/thread-self/attr/apparmor && \
         echo 17 > /proc/self/oom_score_adj && echo ready; exec sleep 1000",
    );
    grant(&mut bundle, "CAP_SYS_ADMIN");
    bundle.config["linux"].as_object_mut().unwrap().remove("seccomp");
    bundle.config["process"]["oomScoreAdj"] = json!(200);
    let mut running = bundle.command(&["run", &bundle.id]).stdout(Stdio::piped()).spawn().unwrap();
    running.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    let pid = bundle.path("pid");
    let mut exec = bundle.exec_command(&["-d", "--pid-file", pid.to_str().unwrap()], &["sleep", "1000"]);
    assert!(exec.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let pid = std::fs::read_to_string(pid).unwrap();
    assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap(), "200\n");
    assert_eq!(bundle.inside(&[], "cat /proc/self/oom_score_adj"), "17\n", "that is the fake");
    assert_eq!(bundle.tell(&["delete", "--force", &bundle.id]).status, 0);
    running.wait().unwrap();
    bundle.assert_nothing_left();
}

#[test]
fn files_of_users_that_are_no_files_or_of_the_hosts_are_told_and_not_waited_for() {
    let bundle = Bundle::shell("exec sleep 1000");
    let etc = bundle.rootfs().join("etc");
    std::fs::create_dir(&etc).unwrap();
    let passwd = etc.join("passwd");
    bundle.up();
    let makes: [(&str, &dyn Fn()); 4] = [
        ("a FIFO", &|| mknodat(CWD, &passwd, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap()),
        ("a directory", &|| std::fs::create_dir(&passwd).unwrap()),
        ("a magic link", &|| symlink("/proc/1/root/etc/group", &passwd).unwrap()),
        ("of the host's", &|| symlink("../../../../../../../../../etc/passwd-", &passwd).unwrap()),
    ];
    for (what, make) in makes {
        make();
        let ran = bundle.exec(&["--user", "daemon"], &["id"]);
        assert!(ran.status == 1 && ran.stderr.contains("/etc/passwd"), "{what}: {ran:?}");
        let removed = std::fs::remove_file(&passwd).or_else(|_| std::fs::remove_dir(&passwd));
        removed.unwrap();
    }
    bundle.down();
}

#[test]
fn of_a_device_in_place_of_a_file_of_users_the_containers_rules_hold() {
    let bundle = Bundle::shell("exec sleep 1000");
    let etc = bundle.rootfs().join("etc");
    std::fs::create_dir(&etc).unwrap();
    // Nobody has this one: without the rules there is no such device.
    let (mode, device) = (Mode::from_raw_mode(0o666), makedev(511, 0));
    for file in ["passwd", "group"] {
        mknodat(CWD, etc.join(file), FileType::CharacterDevice, mode, device).unwrap();
    }
    bundle.up();
    for (user, file) in [("0:daemon", "/etc/group"), ("daemon", "/etc/passwd")] {
        let ran = bundle.exec(&["--user", user], &["id"]);
        let is_refused = ran.stderr.contains(file) && ran.stderr.contains("Operation not permitted");
        assert!(ran.status == 1 && is_refused, "{ran:?}");
    }
    bundle.down();
}

#[test]
fn who_is_killed_on_the_way_by_the_container_is_told_in_one_sentence() {
    let mut bundle = Bundle::shell("while :; do kill -9 -1; done");
    bundle.config["linux"]["resources"]["pids"] = json!({ "limit": 64 });
    bundle.up();
    let mut killed = 0;
    for _ in 0..40 {
        let ran = bundle.exec(&[], &["sleep", "0.05"]);
        assert!(matches!(ran.status, 0 | 1 | 137), "{ran:?}");
        assert!(ran.stderr.lines().count() <= 1, "{ran:?}");
        killed += i32::from(ran.status != 0);
    }
    assert!(killed > 0, "the killer is too slow for this test to mean anything");
    bundle.down();
}

#[test]
fn a_state_without_what_exec_needs_is_refused() {
    let bundle = Bundle::shell("exec sleep 1000");
    bundle.up();
    // As a version wrote it that knew no `exec`.
    let journal = bundle.path("state").join(&bundle.id).join("journal");
    let text = std::fs::read_to_string(&journal).unwrap();
    let without = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        if let Some(note) = line.get_mut("note") {
            note.as_object_mut().unwrap().remove("userNamespace").unwrap();
        }
        format!("{line}\n")
    };
    std::fs::write(&journal, text.lines().map(without).collect::<String>()).unwrap();
    let ran = bundle.exec(&[], &["true"]);
    assert!(ran.status == 1 && ran.stderr.contains("user namespace"), "{ran:?}");
    bundle.down();
}
