//! Against a kernel with AppArmor. Run by `tests/vm/test`.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use apparmor::policy::{self, Identity, PolicyError};
use apparmor::profile::{OwnName, text};
use apparmor::{EXEC_ATTRIBUTES, enter_on_exec, is_enabled, parser};

/// A profile that is loaded while this lives.
struct Loaded {
    name: OwnName,
    identity: Identity,
}

impl Loaded {
    fn new(name: &str) -> Loaded {
        Loaded::inside_of(name, None)
    }

    fn inside_of(name: &str, outer: Option<&str>) -> Loaded {
        let name = OwnName::new(name).unwrap();
        policy::load(&name, &compiled(&text(&name, outer).unwrap())).unwrap();
        let identity = policy::find(&name).unwrap().unwrap();
        Loaded { name, identity }
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        policy::unload(&self.name, Some(&self.identity)).unwrap();
    }
}

fn compiled(text: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    parser::compile(&policy::usable().unwrap(), text, directory.path(), &|| true).unwrap()
}

/// A profile of somebody else's, by the parser's own means.
fn parser(action: &str, text: &str) {
    let mut parser = Command::new("apparmor_parser").arg(action).stdin(Stdio::piped()).spawn().unwrap();
    parser.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(parser.wait().unwrap().success(), "apparmor_parser {action}: {text}");
}

/// On a thread of its own: the request is the thread's, and its children inherit it.
fn start(profile: &str, attribute: &str, command: &[&str]) -> io::Result<Child> {
    let confined = || {
        std::fs::write(
            Path::new("/proc/thread-self").join(attribute),
            enter_on_exec(profile, None).unwrap(),
        )?;
        let mut started = Command::new(command[0]);
        started.args(&command[1..]);
        started.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    };
    thread::scope(|scope| scope.spawn(confined).join()).unwrap()
}

fn run(profile: &str, attribute: &str, command: &[&str]) -> io::Result<(bool, String)> {
    let output = start(profile, attribute, command)?.wait_with_output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&text).trim_end().to_owned()))
}

fn sh(profile: &OwnName, script: &str) -> (bool, String) {
    run(profile.as_str(), EXEC_ATTRIBUTES[0], &["sh", "-c", script]).unwrap()
}

/// A shell in the profile that waits; its process number.
fn waiting(profile: &OwnName) -> (Child, u32) {
    let mut child = start(profile.as_str(), EXEC_ATTRIBUTES[0], &["sh", "-c", "echo up; read _"]).unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    let id = child.id();
    (child, id)
}

#[test]
fn the_next_exec_enters_the_profile() {
    assert!(is_enabled().unwrap());
    let profile = Loaded::new("docker-worker-guest-enter");
    for attribute in EXEC_ATTRIBUTES {
        let entered = run(profile.name.as_str(), attribute, &["cat", "/proc/self/attr/current"]).unwrap();
        assert_eq!(entered, (true, format!("{} (enforce)", profile.name)), "{attribute}");
    }
}

#[test]
fn s46_a_profile_that_is_not_loaded_cannot_be_asked_for() {
    for attribute in EXEC_ATTRIBUTES {
        let error = run("docker-worker-guest-absent", attribute, &["true"]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{attribute}");
    }
}

/// By root with all capabilities, no filter, and nothing mounted read-only: the profile alone refuses.
#[test]
fn s39_the_profile_denies_what_would_reach_the_host_whatever_else_allows_it() {
    let profile = Loaded::new("docker-worker-guest-denies");
    let scripts = [
        "mount -t tmpfs none /mnt && umount /mnt",
        "sysctl -w kernel.core_pattern=core && sysctl -w vm.swappiness=60 && sysctl -w kernel.sem='32000 1024000000 500 32000'",
        "echo 1 >/proc/sys/net/ipv4/ip_forward",
        "echo h >/proc/sysrq-trigger",
        "head -c 1 /proc/kcore >/dev/null",
        "cat /sys/kernel/security/apparmor/profiles >/dev/null",
        "echo 50 >/sys/module/apparmor/parameters/path_max || : >/sys/kernel/mm/ksm/run",
        "cat /proc/irq/default_smp_affinity >/proc/irq/default_smp_affinity",
    ];
    for script in scripts {
        let by_host = Command::new("sh").args(["-c", script]).output().unwrap();
        // The host itself can, so it is the profile that refuses below.
        assert!(by_host.status.success(), "{script}: {by_host:?}");
        for part in script.split("&& ").filter(|part| !part.starts_with("umount")) {
            assert!(!sh(&profile.name, part).0, "{part}");
        }
    }
    for script in [
        "unshare --mount sh -c 'mount --make-rprivate / && mount --bind /tmp /mnt'",
        "unshare --mount mount --move /tmp /mnt",
        "mount -o remount,ro /",
    ] {
        assert!(!sh(&profile.name, script).0, "{script}");
    }
}

#[test]
fn what_tasks_do_in_good_faith_is_not_denied() {
    let profile = Loaded::new("docker-worker-guest-allows");
    for script in [
        "echo x >$(mktemp) && cat /etc/hostname && chown 1:1 $(mktemp)",
        "echo 100 >/proc/self/oom_score_adj && echo 0 >/proc/$$/coredump_filter",
        "cat /proc/sys/kernel/shmmax >/proc/sys/kernel/shmmax",
        "cat /proc/cpuinfo /proc/meminfo /proc/sys/kernel/osrelease /sys/kernel/mm/transparent_hugepage/enabled",
        "sleep 100 & kill $! && trap '' USR1 && kill -USR1 $$",
        "ip link show lo && bash -c 'exec 3<>/dev/udp/127.0.0.1/9'",
        "mkdir /sys/fs/cgroup/docker-worker-guest && rmdir /sys/fs/cgroup/docker-worker-guest",
        "strace -o /dev/null true",
        "od -c /proc/self/auxv >/dev/null && cat /proc/$$/environ >/dev/null",
        "umount --help >/dev/null",
        "unshare --user --map-root-user true",
    ] {
        let (succeeded, said) = sh(&profile.name, script);
        assert!(succeeded, "{script}: {said}");
    }
}

#[test]
fn s38_nobody_traces_signals_or_reads_what_runs_in_another_profile() {
    let [own, other] = ["docker-worker-guest-own", "docker-worker-guest-other"].map(Loaded::new);
    let (mut child, pid) = waiting(&other.name);
    for script in [
        format!("strace -o /dev/null -p {pid}"),
        format!("cat /proc/{pid}/environ"),
        format!("kill -9 {pid}"),
    ] {
        assert!(!sh(&own.name, &script).0, "{script}");
    }
    let unconfined = std::process::id();
    assert!(!sh(&own.name, &format!("cat /proc/{unconfined}/environ")).0);
    assert!(!sh(&own.name, &format!("kill -CONT {unconfined}")).0);
    // From the same profile both can be done, and a host that is in none may do anything.
    assert!(sh(&other.name, &format!("cat /proc/{pid}/environ >/dev/null && kill -CONT {pid}")).0);
    assert!(Command::new("cat").arg(format!("/proc/{pid}/environ")).output().unwrap().status.success());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn s31_the_kernels_own_socket_families_are_refused_by_the_profile_alone() {
    let profile = Loaded::new("docker-worker-guest-sockets");
    let script = "import socket, sys\nfor family in (38, 40):\n  try: socket.socket(family, socket.SOCK_SEQPACKET if family == 38 else socket.SOCK_STREAM)\n  except PermissionError: continue\n  sys.exit(str(family))\nfor family in (1, 2, 10): socket.socket(family, socket.SOCK_STREAM)\nsocket.socket(16, socket.SOCK_RAW)\n";
    let ended = run(profile.name.as_str(), EXEC_ATTRIBUTES[0], &["python3", "-c", script]).unwrap();
    assert!(ended.0, "{ended:?}");
}

#[test]
fn inside_of_another_profile_both_confine_and_the_container_is_one() {
    let outer = "docker-worker-guest-outer-1";
    let rules =
        "file, capability, network, umount, signal, ptrace, unix, change_profile, deny /etc/hostname r,";
    let outer_text = format!("profile {outer} flags=(attach_disconnected) {{ {rules} }}\n");
    parser("--replace", &outer_text);
    let inner = Loaded::inside_of("docker-worker-guest-inner", Some(outer));
    // The outer one comes first: the script asks for the inner one on top of it.
    let script = format!(
        "printf 'stack {}' >/proc/$$/attr/exec; exec sh -c 'cat /proc/self/attr/current; sleep 100 & kill $! && cat /proc/$$/environ >/dev/null && echo alive; strace -o /dev/null true && echo traces; cat /etc/hostname || echo outer; head -c1 /proc/kcore || echo inner'",
        inner.name
    );
    let (_, said) = run(outer, EXEC_ATTRIBUTES[0], &["sh", "-c", &script]).unwrap();
    parser("--remove", &outer_text);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].contains("docker-worker-guest-inner") && lines[0].contains(outer), "{said}");
    for word in ["alive", "traces", "outer", "inner"] {
        assert!(lines.contains(&word), "{word}: {said}");
    }
}

#[test]
fn a_name_that_is_taken_is_not_loaded_over_and_what_is_not_ours_stays() {
    let name = OwnName::new("docker-worker-guest-taken").unwrap();
    let ours = compiled(&text(&name, None).unwrap());
    let theirs = format!("profile {name} {{ file, }}\n");
    parser("--replace", &theirs);
    let error = policy::load(&name, &ours).unwrap_err();
    assert!(
        matches!(&error, PolicyError::Load { source, .. } if source.kind() == io::ErrorKind::AlreadyExists),
        "{error}"
    );
    parser("--remove", &theirs);
    policy::unload(&name, None).unwrap();

    policy::load(&name, &ours).unwrap();
    let identity = policy::find(&name).unwrap().unwrap();
    // Replaced, then removed and loaded anew: each time it is another one.
    parser("--replace", &theirs);
    policy::unload(&name, Some(&identity)).unwrap();
    assert!(policy::find(&name).unwrap().is_some_and(|found| found != identity));
    parser("--remove", &theirs);
    policy::load(&name, &ours).unwrap();
    policy::unload(&name, Some(&identity)).unwrap();
    let again = policy::find(&name).unwrap().unwrap();
    assert_ne!(again, identity);
    policy::unload(&name, Some(&again)).unwrap();
    assert_eq!(policy::find(&name).unwrap(), None);
    policy::unload(&name, Some(&again)).unwrap();
}

#[test]
fn what_the_kernel_does_not_take_is_not_half_there() {
    let name = OwnName::new("docker-worker-guest-broken").unwrap();
    let whole = compiled(&text(&name, None).unwrap());
    for broken in [&whole[..whole.len() / 2], b"profile", b""] {
        policy::load(&name, broken).unwrap_err();
        assert_eq!(policy::find(&name).unwrap(), None);
    }
    let directory = tempfile::tempdir().unwrap();
    let parser = policy::usable().unwrap();
    let said =
        parser::compile(&parser, "profile x {\n  nonsense,\n}\n", directory.path(), &|| true).unwrap_err();
    assert!(said.to_string().contains("syntax error"), "{said}");
}
