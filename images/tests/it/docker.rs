//! Debian's dockerd, whose state is in a directory of the test's own. It runs no containers here: their changes are made
//! where it would have made them.
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A daemon that ends with the value.
pub struct Docker {
    pub directory: tempfile::TempDir,
    daemon: Child,
}

/// The directories of a container's overlay.
pub struct Overlay {
    pub lower: String,
    pub upper: PathBuf,
    pub work: PathBuf,
}

impl Docker {
    pub fn start() -> Docker {
        let directory = tempfile::tempdir_in(crate::DISK).unwrap();
        let place = |name: &str| directory.path().join(name);
        fs::write(place("daemon.json"), "{}").unwrap();
        let log = File::create(place("log")).unwrap();
        // Where it lets packets be forwarded is a network of its own. It leads a group, so that nobody's signal is its own.
        let mut daemon = Command::new("unshare");
        daemon.args(["--net", "setsid", "dockerd", "--config-file"]).arg(place("daemon.json"));
        daemon.arg("--data-root").arg(place("data")).arg("--exec-root").arg(place("exec"));
        daemon.arg("--pidfile").arg(place("pid")).arg("--host").arg(host(directory.path()));
        daemon.args([
            "--iptables=false",
            "--ip6tables=false",
            "--bridge=none",
            "--storage-driver",
            "overlay2",
        ]);
        // Where containerd writes what it was at, if it takes too long to end.
        daemon.env("TMPDIR", directory.path());
        daemon.stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null());
        let daemon = daemon.spawn().expect("docker.io is installed");
        let mut docker = Docker { directory, daemon };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !docker.client(&["version"]).status.success() {
            let ended = docker.daemon.try_wait().unwrap();
            let log = || fs::read_to_string(docker.directory.path().join("log")).unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "{}", log());
            std::thread::park_timeout(Duration::from_millis(100));
        }
        docker
    }

    fn client(&self, arguments: &[&str]) -> std::process::Output {
        let mut client = Command::new("docker");
        client.arg("--host").arg(host(self.directory.path())).args(arguments);
        client.env("DOCKER_CONFIG", self.directory.path()).stdin(Stdio::null());
        client.output().expect("docker.io is installed")
    }

    /// What a command printed, which ended well.
    pub fn tell(&self, arguments: &[&str]) -> String {
        let output = self.client(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A container that is never started; its overlay.
    pub fn create(&self, image: &str, container: &str) -> Overlay {
        self.tell(&["create", "--network", "none", "--name", container, image, "/x"]);
        let directory = |name: &str| {
            let format = format!("{{{{.GraphDriver.Data.{name}}}}}");
            self.tell(&["container", "inspect", "--format", &format, container])
        };
        let [lower, upper, work] = ["LowerDir", "UpperDir", "WorkDir"].map(directory);
        Overlay { lower, upper: upper.into(), work: work.into() }
    }
}

fn host(directory: &Path) -> String {
    format!("unix://{}", directory.join("sock").display())
}

impl Drop for Docker {
    fn drop(&mut self) {
        kill_process(Pid::from_child(&self.daemon), Signal::TERM).unwrap_or(());
        self.daemon.wait().map(drop).unwrap_or_default();
        // Its own directory is a mount, which it leaves.
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        let places = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        let ours = places.filter(|place| place.starts_with(self.directory.path()));
        for place in ours.collect::<Vec<_>>().into_iter().rev() {
            rustix::mount::unmount(&place, rustix::mount::UnmountFlags::DETACH).unwrap_or(());
        }
    }
}
