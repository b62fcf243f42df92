//! A disk that is soon full.

use std::fs;
use std::path::{Path, PathBuf};

use super::process::tool;

/// A small file system in memory, unmounted with the value. That fails the test while anything still holds it: a mount, a
/// loop device, an open file.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it on `at`, which is made. `size` is as mount(8) takes it: `100m`.
    pub fn mount(at: &Path, size: &str) -> SmallDisk {
        fs::create_dir_all(at).unwrap();
        tool(
            "mount",
            &["-t", "tmpfs", "-o", &format!("size={size}"), "docker-worker-test", at.to_str().unwrap()],
        );
        SmallDisk(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A test that fails has its own message.
        let how: &[&str] = if std::thread::panicking() { &["--lazy"] } else { &[] };
        tool("umount", &[how, &[self.0.to_str().unwrap()]].concat());
    }
}
