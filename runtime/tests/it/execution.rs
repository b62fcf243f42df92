//! From the last step to the command: what the filter may forbid, and that no end is taken for a start.
use crate::busybox::{Bundle, Ran};
use serde_json::{Value, json};

fn profile(default: &str, names: &[&str], action: &str) -> Value {
    let mut rule = json!({ "names": names, "action": action });
    if action == "SCMP_ACT_ERRNO" {
        rule["errnoRet"] = json!(13);
    }
    json!({ "defaultAction": default, "syscalls": [rule] })
}

/// The steps on the way to a command, one after the other: what the last of them said.
fn last(bundle: &Bundle, way: &[&str]) -> Ran {
    way.iter().fold(None, |_, step| Some(bundle.tell(&[step, &bundle.id]))).unwrap()
}

/// A bundle whose command cannot be executed: its interpreter is missing.
fn without_interpreter() -> Bundle {
    let bundle = Bundle::new(&["/no-interpreter"]);
    let path = bundle.rootfs().join("no-interpreter");
    std::fs::write(&path, "#!/bin/nonesuch\n").unwrap();
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    bundle
}

#[test]
fn nothing_comes_between_the_filter_and_the_command_but_capset_and_execve() {
    // What a static program needs to exit.
    let own = [
        "brk",
        "arch_prctl",
        "set_tid_address",
        "set_robust_list",
        "rseq",
        "prlimit64",
        "readlink",
        "readlinkat",
        "getrandom",
        "mprotect",
        "exit_group",
        "getuid",
    ];
    for (no_new_privileges, ours) in [(true, &["execve"][..]), (false, &["execve", "capset"])] {
        let mut bundle = Bundle::new(&["true"]);
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        let allowed: Vec<&str> = own.iter().chain(ours).copied().collect();
        bundle.config["linux"]["seccomp"] = profile("SCMP_ACT_KILL_PROCESS", &allowed, "SCMP_ACT_ALLOW");
        // busybox asks for the name of its process.
        let name = json!([{ "index": 0, "value": 16, "op": "SCMP_CMP_EQ" }]);
        let rule = json!({ "names": ["prctl"], "action": "SCMP_ACT_ALLOW", "args": name });
        bundle.push("/linux/seccomp/syscalls", rule);
        let ran = bundle.run();
        assert_eq!(ran.status, 0, "{ran:?}");
    }
}

#[test]
fn a_command_that_is_not_executed_is_an_error_whatever_the_filter_forbids() {
    for (forbidden, status, said) in [
        (&["sendmsg"][..], 126, "no-interpreter"),
        (&["sendmsg", "write", "exit_group", "exit"], 126, "no-interpreter"),
        (&["execve"], 126, "Permission denied"),
        (&["capset"], 1, "capset"),
    ] {
        for way in [&["run"][..], &["create", "start"]] {
            let mut bundle = without_interpreter();
            let filter = profile("SCMP_ACT_ALLOW", forbidden, "SCMP_ACT_ERRNO");
            bundle.config["linux"]["seccomp"] = filter;
            let ran = last(&bundle, way);
            assert_eq!(ran.status, status, "{forbidden:?}: {ran:?}");
            assert!(ran.stderr.contains(said), "{forbidden:?}: {ran:?}");
            assert_eq!(bundle.tell(&["delete", "--force", &bundle.id]).status, 0);
            bundle.assert_nothing_left();
        }
    }
}

#[test]
fn a_first_process_that_ends_before_the_command_is_an_error() {
    for (way, stage) in [
        (&["run"][..], "createContainer"),
        (&["create"], "createContainer"),
        (&["run"], "startContainer"),
        (&["create", "start"], "startContainer"),
    ] {
        let mut bundle = Bundle::shell("echo ran");
        bundle.config["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .retain(|namespace| namespace["type"] != "pid");
        let proof = bundle.path("proof");
        let script = |script: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
        bundle.config["hooks"] = json!({
            stage: script("kill -KILL $PPID; sleep 1000"),
            "poststart": script(&format!("touch {}", proof.display())),
        });
        let ran = last(&bundle, way);
        assert_eq!((ran.status, ran.stdout.as_str()), (1, ""), "{way:?} {stage}: {ran:?}");
        assert!(ran.stderr.contains("first process"), "{way:?} {stage}: {ran:?}");
        assert!(!proof.exists(), "{way:?} {stage}");
        assert_eq!(bundle.tell(&["delete", "--force", &bundle.id]).status, 0);
        bundle.assert_nothing_left();
    }
}

#[test]
fn what_needs_no_command_fails_before_create_answers() {
    let mut bundle = Bundle::shell("true");
    let sets = json!({ "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": [] });
    bundle.config["process"]["capabilities"] = sets;
    let ran = bundle.tell(&["create", &bundle.id]);
    assert_eq!(ran.status, 1, "{ran:?}");
    assert!(ran.stderr.contains("effective {CAP_KILL CAP_SYS_ADMIN}"), "{ran:?}");
    bundle.assert_nothing_left();
}

#[test]
fn a_filter_that_the_kernel_refuses_fails_before_create_answers() {
    let mut bundle = Bundle::shell("true");
    bundle.config["linux"]["seccomp"] = profile("SCMP_ACT_ALLOW", &["keyctl"], "SCMP_ACT_ERRNO");
    // As a kernel without filters answers: to a thread, and all that it starts.
    let none: runtime::spec::Seccomp =
        runtime::spec::read(&profile("SCMP_ACT_ALLOW", &["seccomp"], "SCMP_ACT_ERRNO")).unwrap();
    let create = || {
        runtime::seccomp::compile(&none).unwrap().prepare().unwrap().install().unwrap();
        bundle.tell(&["create", &bundle.id])
    };
    let ran = std::thread::scope(|scope| scope.spawn(create).join()).unwrap();
    assert_eq!(ran.status, 1, "{ran:?}");
    assert!(ran.stderr.contains("(step: seccomp)"), "{ran:?}");
    bundle.assert_nothing_left();
}

#[test]
fn a_command_is_found_with_the_capabilities_that_it_will_have() {
    for (set, status) in [(json!(["CAP_DAC_OVERRIDE"]), 0), (json!([]), 126)] {
        let mut bundle = Bundle::new(&["/private/true"]);
        std::fs::create_dir(bundle.rootfs().join("private")).unwrap();
        let path = bundle.rootfs().join("private/true");
        std::fs::copy(bundle.rootfs().join("bin/busybox"), &path).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        bundle.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        for name in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
            bundle.config["process"]["capabilities"][name] = set.clone();
        }
        let ran = bundle.run();
        assert_eq!(ran.status, status, "{set}: {ran:?}");
    }
}

#[test]
fn a_variable_is_passed_on_once_and_a_home_is_found() {
    let passwd = "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n";
    for (environment, uid, passwd, expected) in [
        (json!(["PATH=/bin", "A=1", "B=2", "A=3"]), 0, Some(passwd), "A=3\nB=2\nHOME=/root\n"),
        (json!(["PATH=/bin", "HOME="]), 1000, Some(passwd), "HOME=/home/me\n"),
        (json!(["PATH=/bin"]), 7, Some(passwd), "HOME=/\n"),
        (json!(["PATH=/bin"]), 0, None, "HOME=/\n"),
        (json!(["PATH=/bin", "HOME=/given", "HOME="]), 0, Some(passwd), "HOME=/root\n"),
        (json!(["PATH=/bin", "HOME=", "HOME=/given"]), 0, Some(passwd), "HOME=/given\n"),
    ] {
        let mut bundle = Bundle::new(&["env"]);
        bundle.config["process"]["env"] = environment.clone();
        bundle.config["process"]["user"] = json!({ "uid": uid, "gid": 0 });
        std::fs::create_dir(bundle.rootfs().join("etc")).unwrap();
        match passwd {
            Some(text) => std::fs::write(bundle.rootfs().join("etc/passwd"), text).unwrap(),
            None => rustix::fs::mknodat(
                rustix::fs::CWD,
                bundle.rootfs().join("etc/passwd"),
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::from_raw_mode(0o644),
                0,
            )
            .unwrap(),
        }
        let mut lines: Vec<String> = bundle.output().lines().map(str::to_owned).collect();
        lines.retain(|line| !line.starts_with("PATH="));
        lines.sort();
        assert_eq!(lines.join("\n") + "\n", expected, "{environment}");
    }
}

#[test]
fn the_execution_domain_is_that_of_the_spec() {
    for (domain, machine) in [("LINUX", "x86_64\n"), ("LINUX32", "i686\n")] {
        let mut bundle = Bundle::shell("uname -m");
        bundle.config["linux"]["personality"] = json!({ "domain": domain });
        assert_eq!(bundle.output(), machine, "{domain}");
    }
}

#[test]
fn a_command_that_may_write_no_file_is_executed_all_the_same() {
    let mut bundle = Bundle::shell("ulimit -f");
    bundle.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_FSIZE", "soft": 0, "hard": 0 }]);
    let ran = bundle.run();
    assert_eq!((ran.status, ran.stdout.as_str()), (0, "0\n"), "{ran:?}");
}

#[test]
fn a_profile_is_refused_for_the_reason_that_there_is() {
    let mut bundle = Bundle::shell("true");
    bundle.config["process"]["apparmorProfile"] = "docker-worker-default".into();
    for (script, said) in [
        ("mkdir $modules/apparmor", "runs without AppArmor"),
        (
            "mkdir -p $modules/apparmor/parameters/enabled",
            "read /sys/module/apparmor/parameters/enabled: Is a directory",
        ),
    ] {
        let told = bundle.command(&["run", &bundle.id]);
        let script = format!("modules=/sys/module; mount -t tmpfs none $modules && {script} && exec \"$@\"");
        let mut unshared = std::process::Command::new("unshare");
        unshared.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
        unshared.arg(told.get_program()).args(told.get_args()).current_dir(bundle.path(""));
        let ran = unshared.output().unwrap();
        let stderr = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.code() == Some(1) && stderr.contains(said), "{script}: {stderr}");
        bundle.assert_nothing_left();
    }
}
