//! Debian's dockerd, whose state is in a directory of the test's own, and whose containers have no network.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

use super::process::await_that;

/// A daemon that ends with the value.
pub struct Dockerd {
    directory: PathBuf,
    daemon: Child,
}

impl Dockerd {
    /// In a directory that is not there yet.
    pub fn start(directory: &Path) -> Dockerd {
        fs::create_dir(directory).unwrap();
        let place = |name: &str| directory.join(name);
        fs::write(place("daemon.json"), "{}").unwrap();
        let log = File::create(place("log")).unwrap();
        // It leads a group, so that nobody's signal is its own.
        let mut daemon = Command::new("unshare");
        daemon.args(["--net", "setsid", "dockerd", "--config-file"]).arg(place("daemon.json"));
        daemon.arg("--data-root").arg(place("data")).arg("--exec-root").arg(place("exec"));
        daemon.arg("--pidfile").arg(place("pid")).arg("--host").arg(host(directory));
        daemon.args(["--iptables=false", "--ip6tables=false", "--bridge=none"]);
        // Where containerd writes what it was at, if it takes too long to end.
        daemon.env("TMPDIR", directory);
        daemon.stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null());
        let daemon = daemon.spawn().expect("tests/setup test installs docker.io");
        let mut docker = Dockerd { directory: directory.to_owned(), daemon };
        await_that("dockerd to answer", || {
            let ended = docker.daemon.try_wait().unwrap();
            assert!(ended.is_none(), "{}", fs::read_to_string(docker.directory.join("log")).unwrap());
            docker.client(&["version"], None).status.success()
        });
        docker
    }

    fn client(&self, arguments: &[&str], input: Option<&Path>) -> Output {
        let mut client = Command::new("docker");
        client.arg("--host").arg(host(&self.directory)).args(arguments);
        client.env("DOCKER_CONFIG", &self.directory);
        client.stdin(input.map_or(Stdio::null(), |path| File::open(path).unwrap().into()));
        client.output().expect("tests/setup test installs docker.io")
    }

    /// What a command printed, which ended well.
    pub fn tell(&self, arguments: &[&str]) -> String {
        told(&self.client(arguments, None))
    }

    /// The same with something to read.
    pub fn tell_from(&self, arguments: &[&str], input: &Path) -> String {
        told(&self.client(arguments, Some(input)))
    }
}

fn told(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap().trim().to_owned()
}

fn host(directory: &Path) -> String {
    format!("unix://{}", directory.join("sock").display())
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        kill_process(Pid::from_child(&self.daemon), Signal::TERM).unwrap_or(());
        self.daemon.wait().map(drop).unwrap_or_default();
        // Its own directory is a mount, which it leaves.
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        let places = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        let ours: Vec<_> = places.filter(|place| place.starts_with(&self.directory)).collect();
        for place in ours.into_iter().rev() {
            unmount(&place, UnmountFlags::DETACH).unwrap_or(());
        }
    }
}
