//! Container engines with this runtime beneath them: podman, which starts it by way of conmon, and dockerd, by containerd.
use crate::busybox::{Bundle, Ran};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// An engine whose state is in a directory of the test's own.
struct Engine {
    /// Its client, and what each of its commands begins with.
    words: Vec<String>,
    /// The group above those of its containers.
    parent: String,
    bundle: Bundle,
    daemon: Option<Child>,
}

const RUNTIME: &str = env!("CARGO_BIN_EXE_docker-worker-runtime");

impl Engine {
    fn podman() -> Engine {
        let bundle = image();
        let place = |name: &str| bundle.path(name).to_str().unwrap().to_owned();
        // Its own limits are above those of hosts without CAP_SYS_RESOURCE, and its locks are everybody's.
        let settings = "[containers]\ndefault_ulimits = [\"nofile=1024:2048\", \"nproc=512:1024\"]\n[engine]\nlock_type = \"file\"\n";
        std::fs::write(bundle.path("containers.conf"), settings).unwrap();
        let (store, run, own) = (place("store"), place("run"), place("own"));
        // Not among the containers of whoever uses this host.
        let states = format!("root={}", place("states"));
        let words = [
            "podman",
            "--root",
            &store,
            "--runroot",
            &run,
            "--tmpdir",
            &own,
            "--storage-driver",
            "vfs",
            "--cgroup-manager",
            "cgroupfs",
            "--events-backend",
            "none",
            "--runtime",
            RUNTIME,
            "--runtime-flag",
            &states,
        ];
        Engine::new(words.map(str::to_owned).to_vec(), bundle, None)
    }

    fn dockerd() -> Engine {
        let bundle = image();
        let place = |name: &str| bundle.path(name).to_str().unwrap().to_owned();
        std::fs::write(bundle.path("daemon.json"), "{}").unwrap();
        let log = std::fs::File::create(bundle.path("dockerd.log")).unwrap();
        let socket = format!("unix://{}", place("sock"));
        // In a network of its own, where it lets packets be forwarded: new namespaces would begin with that of the host's.
        let mut daemon = Command::new("unshare");
        daemon.args(["--net", "setsid", "dockerd"]);
        daemon.args(["--config-file", &place("daemon.json"), "--data-root", &place("data")]);
        daemon.args(["--exec-root", &place("exec"), "--pidfile", &place("pid"), "--host", &socket]);
        daemon.args(["--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver", "vfs"]);
        daemon.args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", &parent(&bundle)]);
        daemon.args(["--add-runtime", &format!("ours={RUNTIME}"), "--default-runtime", "ours"]);
        // Where containerd writes what it was at, if it takes too long to end.
        daemon.env("TMPDIR", bundle.path(""));
        daemon.stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null());
        let daemon = daemon.spawn().expect("docker.io is installed");
        let words = vec!["docker".to_owned(), "--host".to_owned(), socket];
        let mut engine = Engine::new(words, bundle, Some(daemon));
        let deadline = Instant::now() + Duration::from_secs(60);
        while engine.tell(&["version"]).status != 0 {
            let ended = engine.daemon.as_mut().and_then(|daemon| daemon.try_wait().unwrap());
            let log = || std::fs::read_to_string(engine.bundle.path("dockerd.log")).unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "{}", log());
            std::thread::park_timeout(Duration::from_millis(100));
        }
        engine
    }

    fn new(words: Vec<String>, bundle: Bundle, daemon: Option<Child>) -> Engine {
        Engine { words, parent: parent(&bundle), bundle, daemon }
    }

    fn tell(&self, arguments: &[&str]) -> Ran {
        let [client, first @ ..] = self.words.as_slice() else { unreachable!() };
        let mut command = Command::new(client);
        command.args(first).args(arguments).stdin(Stdio::null());
        command.env("CONTAINERS_CONF", self.bundle.path("containers.conf"));
        let output = command.output().expect("podman and docker.io are installed");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ran {
            status: output.status.code().unwrap(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// What a command printed that ended well.
    fn told(&self, arguments: &[&str]) -> String {
        let ran = self.tell(arguments);
        assert_eq!(ran.status, 0, "{arguments:?}: {ran:?}");
        ran.stdout
    }

    /// `run --rm` with these options.
    fn run(&self, options: &[&str], script: &str) -> Ran {
        let parent: &[&str] = if self.daemon.is_none() { &["--cgroup-parent", &self.parent] } else { &[] };
        self.tell(
            &[&["run", "--rm", "--network", "none"], parent, options, &["box", "sh", "-c", script]].concat(),
        )
    }

    /// The container that [`Engine::start`] has started, as the host sees it.
    fn pid(&self) -> String {
        self.told(&["inspect", "--format", "{{.State.Pid}}", "one"]).trim().to_owned()
    }

    fn memory_limit(&self) -> String {
        let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", self.pid())).unwrap();
        let of = |prefix: &str| groups.lines().find_map(|line| line.split_once(prefix)).map(|(_, path)| path);
        let file = match of(":memory:") {
            Some(path) => format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes"),
            None => format!("/sys/fs/cgroup{}/memory.max", of("0::").unwrap()),
        };
        std::fs::read_to_string(file).unwrap().trim().to_owned()
    }
}

/// A bundle with the image `box` in a file.
fn image() -> Bundle {
    let bundle = Bundle::shell("true");
    let etc = bundle.rootfs().join("etc");
    std::fs::create_dir(&etc).unwrap();
    std::fs::write(etc.join("passwd"), "root:x:0:0::/root:\nme:x:1000:1001::/:\n").unwrap();
    std::fs::write(etc.join("group"), "root:x:0:\nwheel:x:10:me\n").unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(bundle.rootfs()).arg("-cf").arg(bundle.path("image.tar")).arg(".");
    assert!(tar.status().unwrap().success());
    bundle
}

fn parent(bundle: &Bundle) -> String {
    format!("/{}", bundle.id)
}

impl Drop for Engine {
    /// Whatever the test has come to, nothing of the engine stays.
    fn drop(&mut self) {
        self.tell(&["unpause", "one"]);
        self.tell(&["rm", "--force", "one"]);
        if let Some(daemon) = &mut self.daemon {
            let daemon_pid = rustix::process::Pid::from_child(daemon);
            rustix::process::kill_process(daemon_pid, rustix::process::Signal::TERM).unwrap_or(());
            daemon.wait().map(drop).unwrap_or_default();
        }
        for group in self.bundle.groups() {
            // What the engine itself has made: the groups of its containers went with them.
            remove_empty(&group);
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let below = self.bundle.path("");
        let ours = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        for mount in ours.filter(|mount| mount.starts_with(&below)).collect::<Vec<_>>().into_iter().rev() {
            rustix::mount::unmount(&mount, rustix::mount::UnmountFlags::DETACH).unwrap_or(());
        }
    }
}

/// What is not empty is left to the check that nothing is left.
fn remove_empty(group: &Path) {
    let Ok(entries) = std::fs::read_dir(group) else { return };
    entries.flatten().filter(|entry| entry.path().is_dir()).for_each(|entry| remove_empty(&entry.path()));
    std::fs::remove_dir(group).unwrap_or(());
}

#[test]
fn podman_works_with_this_runtime() {
    check(Engine::podman());
}

#[test]
fn dockerd_works_with_this_runtime() {
    check(Engine::dockerd());
}

fn check(engine: Engine) {
    all(&engine);
    let groups = engine.bundle.groups();
    drop(engine);
    assert!(groups.iter().all(|group| !group.exists()), "{groups:?}");
}

fn all(engine: &Engine) {
    engine.told(&["import", engine.bundle.path("image.tar").to_str().unwrap(), "box"]);
    runs(engine);
    let parent: &[&str] = if engine.daemon.is_none() { &["--cgroup-parent", &engine.parent] } else { &[] };
    engine.told(
        &[&["run", "-d", "--network", "none", "--name", "one"], parent, &["box", "sleep", "1000"]].concat(),
    );
    executes(engine);
    stands_still(engine);
    is_counted_and_limited(engine);
    engine.told(&["stop", "-t", "0", "one"]);
    assert!(engine.told(&["ps", "-a"]).contains("Exited (137)"));
    // podman has what has ended removed by a process of its own, which may still be at it.
    let deadline = Instant::now() + Duration::from_secs(30);
    while engine.tell(&["start", "one"]).status != 0 {
        assert!(Instant::now() < deadline);
    }
    assert_eq!(engine.told(&["exec", "one", "echo", "again"]), "again\n");
    engine.told(&["rm", "--force", "one"]);
}

fn runs(engine: &Engine) {
    let ran = engine.run(&[], "echo hello; echo there >&2; exit 7");
    assert_eq!((ran.status, ran.stdout.as_str()), (7, "hello\n"), "{ran:?}");
    assert!(ran.stderr.contains("there\n"), "{ran:?}");
    let ran = engine
        .run(&["--read-only", "--tmpfs", "/t:size=1m"], "touch /x; touch /t/x && grep ' /t ' /proc/mounts");
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(ran.stderr.contains("Read-only file system") && ran.stdout.contains("size=1024k"), "{ran:?}");
    let limits =
        ["--ulimit", "nofile=77:88", "--ulimit", "nproc=100:100", "--pids-limit", "20", "--memory", "32m"];
    let confined = ["--cap-drop", "all", "--security-opt", "no-new-privileges"];
    let script = "ulimit -n; grep -E '^(CapBnd|NoNewPrivs):' /proc/self/status";
    let ran = engine.run(&[&limits[..], &confined[..]].concat(), script);
    assert_eq!(ran.stdout, "77\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\n", "{ran:?}");
    is_privileged(engine);
}

/// dockerd asks for every capability that it knows, podman for those that it has.
fn is_privileged(engine: &Engine) {
    let bits = |text: &str| u64::from_str_radix(text.trim(), 16).unwrap();
    let (administer, resource) = (1 << 21, 1 << 24); // CAP_SYS_ADMIN and CAP_SYS_RESOURCE of linux/capability.h
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = bits(own.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap());
    let ran =
        engine.run(&["--privileged"], "mkdir /m && mount -t tmpfs none /m && grep CapEff /proc/self/status");
    if engine.daemon.is_some() && own & resource == 0 {
        assert!(ran.status != 0 && ran.stderr.contains("CAP_SYS_RESOURCE"), "{ran:?}");
    } else {
        let effective = ran.stdout.strip_prefix("CapEff:").map(bits);
        assert!(effective.is_some_and(|bits| bits & administer != 0 && bits & !own == 0), "{ran:?}");
    }
}

fn executes(engine: &Engine) {
    let script = "id -u; id -g; id -G; pwd; echo $A; exit 9";
    let ran = engine.tell(&["exec", "-u", "me", "-e", "A=b", "-w", "/bin", "one", "sh", "-c", script]);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert!(matches!(lines[..], ["1000", "1001", _, "/bin", "b"]) && ran.status == 9, "{ran:?}");
    assert_eq!(engine.told(&["exec", "-t", "one", "tty"]), "/dev/pts/0\r\n");
    let ran = engine.tell(&["exec", "one", "nonesuch"]);
    assert!([126, 127].contains(&ran.status), "{ran:?}");
    assert!((ran.stdout + &ran.stderr).contains("executable file not found"));
    engine.told(&["exec", "-d", "one", "sleep", "2000"]);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !engine.told(&["top", "one"]).contains("sleep 2000") {
        assert!(Instant::now() < deadline);
    }
}

fn stands_still(engine: &Engine) {
    engine.told(&["pause", "one"]);
    assert!(engine.told(&["ps", "-a"]).to_lowercase().contains("paused"));
    assert_ne!(engine.tell(&["exec", "one", "true"]).status, 0);
    engine.told(&["unpause", "one"]);
    engine.told(&["exec", "one", "true"]);
}

fn is_counted_and_limited(engine: &Engine) {
    let used = engine.told(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "one"]);
    assert!(!used.starts_with("0B") && used.contains('B'), "{used}");
    engine.told(&["update", "--memory", "64m", "--memory-swap", "64m", "one"]);
    assert_eq!(engine.memory_limit(), (64 << 20).to_string());
}
