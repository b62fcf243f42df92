//! A directory of a test's own, by whose name everything that the test left behind can be found.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};
use tempfile::TempDir;

/// A temporary directory with a unique name, locked while the test lives (`tests/clean-host` looks at the lock).
pub struct Scratch {
    directory: TempDir,
    _lock: File,
}

impl Scratch {
    pub fn new() -> Scratch {
        let directory = tempfile::Builder::new().prefix("docker-worker-test.").tempdir().unwrap();
        let lock = File::open(directory.path()).unwrap();
        flock(&lock, FlockOperation::LockShared).unwrap();
        Scratch { directory, _lock: lock }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A path below the directory; nothing is made.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// The last component of the path, which occurs nowhere else on this host.
    pub fn name(&self) -> &str {
        self.path().file_name().and_then(|name| name.to_str()).unwrap()
    }

    /// Waits until the processes that bear the directory's name have ended: those that clean up after a kill take a moment.
    /// Gives up after `limit`.
    pub fn await_processes(&self, limit: Duration) {
        let limit = Timespec { tv_sec: limit.as_secs().try_into().unwrap(), tv_nsec: 0 };
        for process in self.processes() {
            // It may have ended already.
            if let Ok(pidfd) = pidfd_open(process, PidfdFlags::empty()) {
                poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)).unwrap();
            }
        }
    }

    /// What still bears the directory's name on this host: mounts, control groups, processes (by arguments or
    /// environment).
    pub fn traces(&self) -> Vec<String> {
        let mut traces = Vec::new();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        traces.extend(
            mounts.lines().filter(|line| line.contains(self.name())).map(|line| format!("mount {line}")),
        );
        for process in self.processes() {
            let arguments = fs::read(in_proc(process, "cmdline")).unwrap_or_default();
            let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
            traces.push(format!("process {} {arguments}", process.as_raw_nonzero()));
        }
        traces
    }

    /// The processes with this directory's name among their arguments or variables.
    pub fn processes(&self) -> impl Iterator<Item = Pid> {
        let name = self.name().as_bytes();
        let entries = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
        let numbers = entries.filter_map(|entry| entry.to_str()?.parse().ok().and_then(Pid::from_raw));
        numbers.filter(move |process| {
            // A process may end while we look. This one knows the name without being left behind.
            let named = |file| fs::read(in_proc(*process, file)).is_ok_and(|bytes| contains(&bytes, name));
            *process != getpid() && (named("cmdline") || named("environ"))
        })
    }
}

fn in_proc(process: Pid, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/{file}", process.as_raw_nonzero()))
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}
