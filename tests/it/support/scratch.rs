//! A directory of a test's own, by whose name everything that the test left behind can be found.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
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

    /// What still bears the directory's name on this host: mounts, control groups, processes (by arguments or
    /// environment).
    pub fn traces(&self) -> Vec<String> {
        let mut traces = Vec::new();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        traces.extend(
            mounts.lines().filter(|line| line.contains(self.name())).map(|line| format!("mount {line}")),
        );
        for process in fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path()) {
            let named = ["cmdline", "environ"].iter().any(|file| {
                // A process may end while we look, and most of /proc is not a process.
                fs::read(process.join(file)).is_ok_and(|bytes| contains(&bytes, self.name().as_bytes()))
            });
            if named && !is_ours(&process) {
                let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
                let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
                traces.push(format!("process {} {arguments}", process.display()));
            }
        }
        traces
    }
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// The test process itself, which knows the name without being left behind.
fn is_ours(process: &Path) -> bool {
    process.file_name().is_some_and(|name| name.as_bytes() == std::process::id().to_string().as_bytes())
}
