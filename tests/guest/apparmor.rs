//! Tasks and the AppArmor profile that they run under. Each test has a policy namespace of its own, in which nobody else's
//! profiles are: what is loaded there is this test's doing.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use apparmor::policy;
use docker_worker::apparmor_profiles::{DefaultProfile, Fence, LoadedProfile, Necessity, Use};
use docker_worker::directories::Directories;
use docker_worker::run_directory::{Beginning, RunDirectory, random_id};
use rustix::process::{Pid, Signal, kill_process};

use crate::it::support::{
    Finished, Run, Worker, busybox_image, compiled, finish, observe, probe_image, read_until,
    runtime_executable,
};

pub const LIMIT: Duration = Duration::from_secs(120);

/// AppArmor's directory, as a process in no namespace sees it.
const PLACE: &str = "/sys/kernel/security/apparmor";

/// How a task's label begins.
pub const DEFAULT: &str = "docker-worker-default-";

/// A policy namespace.
pub struct Policy {
    name: String,
}

impl Policy {
    pub fn new() -> Policy {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("dwt-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        fs::create_dir(Path::new(PLACE).join("policy/namespaces").join(&name)).unwrap();
        Policy { name }
    }

    /// What starts a process in it, in one of its profiles.
    fn entrance<'a>(&'a self, profile: &'a str) -> Vec<&'a str> {
        vec!["aa-exec", "-n", &self.name, "-p", profile, "--"]
    }

    /// A worker in it.
    pub fn worker(&self) -> Worker {
        Worker::by(&self.entrance("unconfined"))
    }

    /// The same in a mount namespace of its own, which a shell changes by `script` first; there `$0` is `file`.
    fn worker_on_changed(&self, script: &str, file: &str) -> Worker {
        let script = format!("set -e; {script}; exec \"$@\"");
        let private = ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script, file];
        Worker::by(&[&private[..], &self.entrance("unconfined")].concat())
    }

    /// The names of what is loaded in it.
    pub fn profiles(&self) -> Vec<String> {
        let place = Path::new(PLACE).join("policy/namespaces").join(&self.name).join("profiles");
        let names = fs::read_dir(place).unwrap().map(|entry| {
            fs::read_to_string(entry.unwrap().path().join("name")).unwrap().trim_end().to_owned()
        });
        names.collect()
    }

    /// Somebody else's doing in it.
    fn parser(&self, action: &str, text: &str) {
        let mut command = Command::new("aa-exec");
        command.args(&self.entrance("unconfined")[1..]).args(["apparmor_parser", "--quiet", action]);
        let mut parser = command.stdin(Stdio::piped()).spawn().unwrap();
        parser.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(parser.wait().unwrap().success(), "apparmor_parser {action}: {text}");
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.profiles(), Vec::<String>::new(), "left in the kernel");
        }
        fs::remove_dir(Path::new(PLACE).join("policy/namespaces").join(&self.name)).unwrap();
    }
}

/// Whether the operator said that there has to be a profile.
fn config(worker: &Worker) -> String {
    let config = worker.fresh("config").with_extension("yml");
    fs::write(&config, "requireAppArmor: true\n").unwrap();
    config.to_str().unwrap().to_owned()
}

fn label_of(run: &Run) -> String {
    run.output().trim_end().to_owned()
}

#[test]
fn s38_a_task_runs_under_the_default_profile_which_goes_with_its_worker() {
    let policy = Policy::new();
    let worker = policy.worker();
    let image = worker.image(&busybox_image()).source;
    let mut labels = BTreeSet::new();
    for options in [vec!["--image", &image], vec!["--image", &image, "--config", &config(&worker)]] {
        let script = "cat /proc/self/attr/current; sh -c 'exec cat /proc/self/attr/current' | head -n1";
        let run = worker.run_with(&options, &["sh", "-c", script]).expect(0, "confined");
        let output = run.output();
        let lines: Vec<&str> = output.lines().collect();
        assert_eq!((lines.len(), lines[0]), (2, lines[1]), "{run:?}");
        assert!(lines[0].starts_with(DEFAULT) && lines[0].ends_with(" (enforce)"), "{run:?}");
        assert!(!run.words().contains("isolation:"), "{run:?}");
        assert_eq!(policy.profiles(), Vec::<String>::new());
        labels.insert(lines[0].to_owned());
    }
    assert_eq!(labels.len(), 2, "each worker has its own: {labels:?}");
}

/// A program in the runtime's place that opens all that the Spec closes, but for the profile. The worker executes it by
/// its descriptor, which an interpreter cannot follow: so it is a compiled one that has a script do it.
fn all_powerful(worker: &Worker) -> PathBuf {
    let program = worker.fresh("runtime");
    let script = format!(
        "import json, os, sys
path = sys.argv[sys.argv.index('--bundle') + 1] + '/config.json'
spec = json.load(open(path))
del spec['linux']['seccomp'], spec['linux']['maskedPaths'], spec['linux']['readonlyPaths']
every = ['CAP_' + name for name in {CAPABILITIES:?}.split()]
spec['process']['capabilities'] = {{set: every for set in ('bounding', 'effective', 'permitted')}}
for mount in spec['mounts']:
    mount['options'] = [word for word in mount.get('options', []) if word != 'ro']
json.dump(spec, open(path, 'w'))
real = {:?}
os.execv(real, [real] + sys.argv[1:])
",
        runtime_executable()
    );
    fs::write(program.with_extension("py"), script).unwrap();
    let source = "#include <stdio.h>
#include <unistd.h>
int main(int count, char **words) {
    char script[4096], *python[count + 2];
    snprintf(script, sizeof script, \"%s.py\", words[0]);
    python[0] = \"python3\", python[1] = script;
    for (int i = 1; i <= count; i++)
        python[i + 1] = words[i];
    execv(\"/usr/bin/python3\", python);
    return 1;
}
";
    fs::copy(compiled("all-powerful", source), &program).unwrap();
    program
}

const CAPABILITIES: &str = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE \
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE \
    SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL \
    SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE";

#[test]
fn s39_with_every_capability_and_no_filter_the_profile_still_refuses() {
    let policy = Policy::new();
    let script = "
        /probe status
        for file in /proc/sys/kernel/core_pattern /proc/sys/vm/panic_on_oom /proc/sysrq-trigger \\
            /proc/irq/default_smp_affinity /sys/kernel/mm/ksm/run /sys/power/state; do
          /probe open $file w; done
        /probe open /proc/kcore r
        /probe mount tmpfs
        /probe mount proc
        /probe socket 38 5
        /probe socket 40 1
        cat /proc/self/attr/current
        echo done";
    let everything = |worker: &Worker| {
        let image = worker.image(&probe_image()).source;
        let (mut command, artifacts) = worker.run_command(&["--image", &image], &["sh", "-c", script]);
        command.env("DOCKER_WORKER_RUNTIME", all_powerful(worker));
        let run = Run::collect(finish(command.spawn().unwrap(), LIMIT), artifacts).expect(0, "it looks");
        let lines: Vec<String> = run.output().lines().map(str::to_owned).collect();
        assert!(lines[0].contains("CapEff=000001ffffffffff") && lines[0].ends_with("Seccomp=0"), "{run:?}");
        (lines[1..12].to_vec(), lines[12].clone())
    };
    // Without the parser there is no profile, and the kernel refuses nothing of it.
    let (allowed, label) = everything(&policy.worker_on_changed("mount -t tmpfs none /usr/sbin", ""));
    assert_eq!(label, "unconfined");
    assert!(!allowed.contains(&"EACCES".to_owned()), "{allowed:?}");
    let (refused, label) = everything(&policy.worker());
    assert!(label.starts_with(DEFAULT), "{label}");
    assert_eq!(refused, ["EACCES"; 11]);
}

#[test]
fn s31_32_bit_programs_make_the_sockets_that_the_profile_allows() {
    let policy = Policy::new();
    let worker = policy.worker();
    let source = worker.image(&probe_image()).source;
    let table = [
        ("/probe socketcall 2 1", "ok"),      // AF_INET
        ("/probe socketcall 1 1", "ok"),      // AF_UNIX
        ("/probe socketcall 38 5", "EACCES"), // AF_ALG
        ("/probe socketcall 40 1", "EACCES"), // AF_VSOCK
        ("/probe socket 38 5", "EPERM"),
    ];
    observe(&worker, &source, &table);
    let unconfined = policy.worker_on_changed("mount -t tmpfs none /usr/sbin", "");
    let source = unconfined.image(&probe_image()).source;
    let run = unconfined.run(&source, &["/probe", "socketcall", "2", "1"]);
    assert_eq!(run.output(), "ENOSYS\n", "{run:?}");
    assert!(run.words().contains("isolation: 32-bit programs cannot make sockets here"), "{run:?}");
}

#[test]
fn s38_two_tasks_of_different_workers_do_not_reach_each_other() {
    let policy = Policy::new();
    let worker = policy.worker();
    let image = worker.image(&busybox_image()).source;
    let (mut child, artifacts) =
        worker.start_run(&["--image", &image], &["sh", "-c", "sleep 1000 & echo up; read _; sleep 1000"]);
    let _log = read_until(&mut child, "\nup");
    let run = worker.run(&image, &["cat", "/proc/self/attr/current"]).expect(0, "beside it");
    let other = policy.profiles();
    assert_eq!(other.len(), 1, "the one that still runs: {other:?}");
    assert!(other[0].starts_with(DEFAULT) && !label_of(&run).starts_with(&other[0]), "{other:?} {run:?}");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    Run::collect(finish(child, LIMIT), artifacts).expect(122, "ended");
}

/// What this host may be like, and what the operator reads of it. In a script `$0` is a file; what is there, if anything,
/// is a program that takes the parser's place.
const CRIPPLED: [(&str, &str, &str, &str); 9] = [
    (
        "switched off",
        "",
        "echo N >$0; mount --bind $0 /sys/module/apparmor/parameters/enabled",
        "this host has no AppArmor",
    ),
    (
        "no parser",
        "",
        "mount -t tmpfs none /usr/sbin",
        "apparmor_parser is not there: install the package apparmor",
    ),
    (
        "an old parser",
        "[ \"$1\" = --version ] && echo AppArmor parser version 2.13.6\nexit 1",
        IN_ITS_PLACE,
        "apparmor_parser is of version 2.13, and 3.0 is needed; install a newer package apparmor",
    ),
    ("a parser that hangs", "exec sleep 1000", IN_ITS_PLACE, "apparmor_parser was not done after 10 s"),
    (
        "a parser that prints megabytes",
        "head -c 9000000 /dev/zero",
        IN_ITS_PLACE,
        "apparmor_parser writes more than 1048576 bytes",
    ),
    (
        "a parser that compiles nonsense",
        "echo nonsense",
        IN_ITS_PLACE,
        "failed to load the AppArmor profile docker-worker-default-",
    ),
    (
        "a profile that does not compile",
        "echo 'profile x { nonsense, }' | /tmp/real-apparmor-parser -q -S -K -Q",
        "cp /usr/sbin/apparmor_parser /tmp/real-apparmor-parser; mount --bind $0 /usr/sbin/apparmor_parser",
        "syntax error",
    ),
    ("no securityfs", "", "umount --lazy /sys/kernel/security", "mount securityfs there"),
    (
        "securityfs read-only",
        "",
        "mount -o remount,bind,ro /sys/kernel/security",
        "profiles cannot be loaded by /sys/kernel/security/apparmor/.load: Read-only file system",
    ),
];

const IN_ITS_PLACE: &str = "mount --bind $0 /usr/sbin/apparmor_parser";

#[test]
fn without_a_profile_a_task_runs_and_says_why_or_does_not_where_it_is_required() {
    for (case, program, script, why) in CRIPPLED {
        let policy = Policy::new();
        let scratch = tempfile::tempdir_in("/scratch").unwrap();
        let file = scratch.path().join("file");
        fs::write(&file, format!("#!/bin/sh\n{program}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let worker = policy.worker_on_changed(script, file.to_str().unwrap());
        let image = worker.image(&busybox_image()).source;
        // Where AppArmor looks switched off, what a process is in does not.
        let run = worker.run(&image, &["cat", "/proc/self/attr/current"]).expect(0, case);
        assert_eq!(label_of(&run), "unconfined", "{case}: {run:?}");
        let told: Vec<&str> =
            run.log.lines().filter(|line| line.contains("the task runs without a profile")).collect();
        assert!(told.len() == 1 && told[0].contains(why), "{case}: {run:?}");

        let required =
            worker.run_with(&["--image", &image, "--config", &config(&worker)], &["touch", "/ran"]);
        assert_eq!(required.status, 125, "{case}: {required:?}");
        assert!(required.log.is_empty() && required.stderr.contains(why), "{case}: {required:?}");
        assert_eq!(required.stderr.lines().count(), 1, "{case}: {required:?}");

        let check = worker.call(&["check"]);
        let text = String::from_utf8_lossy(&check.stdout).into_owned();
        let is_loads = case == "a parser that compiles nonsense"; // `check` loads nothing.
        assert!(check.status.success() && (is_loads || text.contains(why)), "{case}: {text}");
    }
}

#[test]
fn check_says_that_profiles_can_be_had() {
    let policy = Policy::new();
    let worker = policy.worker();
    let text = String::from_utf8(worker.call(&["check"]).stdout).unwrap();
    for line in [
        "works     AppArmor          enabled",
        "works     AppArmor profile  the profile of tasks compiles to",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

/// This process's own way to the profile, outside of a worker. It is in no policy namespace.
fn own(necessity: Necessity) -> (tempfile::TempDir, Directories, DefaultProfile) {
    let scratch = tempfile::tempdir_in("/scratch").unwrap();
    let directories = Directories {
        data: scratch.path().join("data"),
        run: scratch.path().join("run"),
        volume_caches: None,
    };
    let profile = DefaultProfile::new(&directories, &policy::usable().unwrap(), necessity);
    (scratch, directories, profile)
}

fn enter(profile: &DefaultProfile) -> Use {
    match profile.enter(&|| true).unwrap() {
        Fence::Profile(entered) => entered,
        Fence::None(why) => panic!("{why}"),
    }
}

fn is_loaded(name: &str) -> bool {
    let profiles = fs::read_to_string(Path::new(PLACE).join("profiles")).unwrap();
    profiles.lines().any(|line| line.split(' ').next() == Some(name))
}

/// By the parser's own means, as an administrator would.
fn parser(action: &str, text: &str) {
    let mut parser =
        Command::new("apparmor_parser").args(["--quiet", action]).stdin(Stdio::piped()).spawn().unwrap();
    parser.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(parser.wait().unwrap().success(), "apparmor_parser {action}: {text}");
}

fn left_in(directories: &Directories) -> usize {
    let entries = fs::read_dir(&directories.run).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().file_name() != ".docker-worker").count()
}

#[test]
fn tasks_of_one_worker_share_a_profile_that_is_loaded_once() {
    let (_scratch, directories, profile) = own(Necessity::Required);
    let names: BTreeSet<String> = std::thread::scope(|threads| {
        let entering: Vec<_> = (0..8).map(|_| threads.spawn(|| enter(&profile))).collect();
        entering
            .into_iter()
            .map(|entering| {
                let entered = entering.join().unwrap();
                let name = entered.name().to_owned();
                entered.give_back().unwrap();
                name
            })
            .collect()
    });
    assert_eq!((names.len(), left_in(&directories)), (1, 1), "{names:?}");
    profile.close().unwrap();
    assert!(!is_loaded(names.first().unwrap()));
    assert_eq!(left_in(&directories), 0);
}

#[test]
fn a_profile_that_was_removed_between_two_tasks_is_loaded_again() {
    let (_scratch, directories, profile) = own(Necessity::Wanted);
    let first = enter(&profile);
    let text = format!("profile {} {{ }}\n", first.name());
    parser("--remove", &text);
    let second = enter(&profile);
    assert_ne!(first.name(), second.name());
    assert!(is_loaded(second.name()) && left_in(&directories) == 1);
    first.give_back().unwrap();
    second.give_back().unwrap();
    profile.close().unwrap();
    assert_eq!(left_in(&directories), 0);
}

#[test]
fn somebody_elses_profile_of_the_same_name_is_neither_entered_nor_removed() {
    let (_scratch, directories, profile) = own(Necessity::Wanted);
    let mut names = Vec::new();
    for action in ["--replace", "--remove"] {
        let entered = enter(&profile);
        let theirs = format!("profile {} {{ file, }}\n", entered.name());
        parser(action, &theirs);
        if action == "--remove" {
            parser("--add", &theirs);
        }
        names.push((entered.name().to_owned(), theirs));
        entered.give_back().unwrap();
    }
    // The last one is theirs when the worker ends, the first one is when the second task comes.
    profile.close().unwrap();
    assert_eq!(left_in(&directories), 0);
    for (name, theirs) in names {
        assert!(is_loaded(&name), "{name}");
        parser("--remove", &theirs);
    }
}

#[test]
fn a_profile_that_something_may_still_run_in_is_left_to_the_clean_up() {
    let (_scratch, directories, profile) = own(Necessity::Wanted);
    let entered = enter(&profile);
    let name = entered.name().to_owned();
    // Whoever had it does not know what became of the container.
    drop(entered);
    profile.close().unwrap();
    assert!(is_loaded(&name));
    drop(profile);
    let swept = docker_worker::run_directory::sweep(&directories, &|_| false).unwrap();
    assert!(swept.failed.is_empty(), "{:?}", swept.failed);
    assert!(!is_loaded(&name) && left_in(&directories) == 0);
}

/// The steps of the walk, in a process of their own: the test below kills it at each of them.
#[test]
fn walked() {
    let Some(place) = std::env::var_os("DOCKER_WORKER_WALK").map(PathBuf::from) else { return };
    let directories = Directories { data: place.join("data"), run: place.join("run"), volume_caches: None };
    let parser = policy::usable().unwrap();
    let profile = DefaultProfile::new(&directories, &parser, Necessity::Required);
    let entered = enter(&profile);
    let run =
        RunDirectory::create(&Beginning::of_a_run(&directories, &|| true).unwrap(), &random_id().unwrap())
            .unwrap();
    let own = LoadedProfile::for_container(&parser, run.task(), &|| true).unwrap();
    own.unload().unwrap();
    run.remove().unwrap();
    entered.give_back().unwrap();
    profile.close().unwrap();
}

#[test]
fn s47_a_kill_at_each_step_of_loading_and_unloading_leaves_no_profile_after_cleanup() {
    let policy = Policy::new();
    let worker = policy.worker();
    let place = worker.run_directory().parent().unwrap().to_owned();
    let this = std::env::current_exe().unwrap();
    let mut kills = 0;
    let mut found = 0;
    for call in ["write", "unlinkat"] {
        for number in 1.. {
            let mut command = Command::new("aa-exec");
            command.args(&policy.entrance("unconfined")[1..]).args([
                "strace",
                "-f",
                "--detach-on=execve", // The parser is none of the walk.
                "-qq",
                "-o",
                "/dev/null",
            ]);
            command.args(["-e", &format!("trace={call}")]);
            command.args(["-e", &format!("inject={call}:signal=KILL:when={number}")]);
            command.arg(&this).args(["--exact", "apparmor::walked", "--test-threads=1", "--quiet"]);
            command.env("DOCKER_WORKER_WALK", &place).env("RUST_BACKTRACE", "0").stdin(Stdio::null());
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let Finished { status, .. } = finish(command.spawn().unwrap(), LIMIT);
            found += policy.profiles().len();
            let cleaned = worker.call(&["cleanup"]);
            let case = format!("killed at {call} number {number}");
            assert!(cleaned.status.success(), "{case}: {cleaned:?}");
            assert_eq!(policy.profiles(), Vec::<String>::new(), "{case}");
            worker.assert_nothing_left(&case);
            if status.success() {
                break;
            }
            kills += 1;
        }
    }
    // Some of them with both profiles in the kernel.
    assert!(kills >= 12 && found >= 6, "{kills} kills, {found} profiles found");
}

#[test]
fn s47_a_running_task_keeps_its_profile_until_it_is_gone_whoever_is_killed() {
    let policy = Policy::new();
    let worker = policy.worker();
    let image = worker.image(&busybox_image()).source;
    for with_monitor in [false, true] {
        let (mut child, _) = worker.start_run(&["--image", &image], &["sh", "-c", "echo up; sleep 1000"]);
        let _log = read_until(&mut child, "\nup");
        assert_eq!(policy.profiles().len(), 1);
        if with_monitor {
            for monitor in worker.processes("docker-worker-r") {
                kill_process(monitor, Signal::KILL).unwrap_or_default();
            }
        }
        child.kill().unwrap();
        finish(child, LIMIT);
        assert_eq!(policy.profiles().len(), 1, "the profile is there as long as something may be in it");
        let cleaned = worker.call(&["cleanup"]);
        assert!(cleaned.status.success(), "{cleaned:?}");
        worker.scratch().await_processes(LIMIT);
        assert_eq!(policy.profiles(), Vec::<String>::new());
        worker.assert_nothing_left("after cleanup");
    }
}

#[test]
fn inside_of_another_profile_a_task_is_under_both() {
    let policy = Policy::new();
    let rules = "file, capability, network, mount, umount, pivot_root, signal, ptrace, unix, change_profile";
    let outer = |name: &str, rules: &str| {
        let text = format!("profile {name} flags=(attach_disconnected,mediate_deleted) {{ {rules}, }}\n");
        policy.parser("--replace", &text);
        text
    };
    let text = outer("outer-host", &format!("{rules}, deny /etc/group r"));
    let worker = Worker::by(&policy.entrance("outer-host"));
    let image = worker.image(&busybox_image()).source;
    let script = "cat /proc/self/attr/current; cat /etc/group; sleep 1000 & kill $! && wait $!; echo $?; cat /proc/1/environ >/dev/null && echo readable";
    let run = worker.run(&image, &["sh", "-c", script]).expect(0, "inside");
    let output = run.output();
    let lines: Vec<&str> = output.lines().collect();
    assert!(lines[0].starts_with(DEFAULT) && lines[0].ends_with("//&outer-host (enforce)"), "{run:?}");
    assert!(lines[1].contains("Permission denied"), "{run:?}");
    // The shell may say that its child was terminated.
    assert_eq!(lines[lines.len() - 2..], ["143", "readable"], "{run:?}");
    // Its end by the worker, which is in the outer profile.
    let (mut child, artifacts) = worker.start_run(&["--image", &image], &["sh", "-c", "echo up; sleep 1000"]);
    let _log = read_until(&mut child, "\nup");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    Run::collect(finish(child, LIMIT), artifacts).expect(122, "ended");
    policy.parser("--remove", &text);

    let text = outer("outer-strict", &rules.replace(", change_profile", ""));
    let strict = Worker::by(&policy.entrance("outer-strict"));
    let image = strict.image(&busybox_image()).source;
    let run = strict.run(&image, &["touch", "/ran"]).expect(125, "the host is not fit");
    let sentence = "the profile \"outer-strict\", which this process is in, needs the rule `change_profile -> &docker-worker-default-";
    assert!(run.stderr.contains(sentence), "{run:?}");
    policy.parser("--remove", &text);
}

/// What is opened through a procfs that is attached nowhere is judged by its path in there: `/sys/…` for `/proc/sys/…`.
#[test]
fn a_task_starts_inside_of_a_profile_that_guards_sys_or_one_sentence_names_that() {
    let policy = Policy::new();
    let rules = "file, capability, network, mount, umount, pivot_root, signal, ptrace, unix, change_profile";
    let text = format!(
        "profile outer-sys flags=(attach_disconnected,mediate_deleted) {{ {rules}, deny /sys/n** w, }}\n"
    );
    policy.parser("--replace", &text);
    let worker = Worker::by(&policy.entrance("outer-sys"));
    let image = worker.image(&busybox_image()).source;
    let run = worker.run(&image, &["true"]);
    let is_named = run.stderr.contains("the AppArmor profile \"outer-sys\", which this process is in");
    assert!(run.status == 0 || is_named, "{run:?}");
    policy.parser("--remove", &text);
}
