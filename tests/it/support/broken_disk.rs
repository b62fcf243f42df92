//! A disk of which a part is gone.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::process::tool;
use super::scratch::Scratch;

/// How long the disk is.
const BYTES: u64 = 16 << 20;

/// A file system with files of the test's, unmounted with the value. From some megabyte on reading fails with `EIO`.
pub struct BrokenDisk(PathBuf);

impl BrokenDisk {
    /// Copies `files` to a disk and breaks it in the middle of its only long file. What is short is inside of what
    /// describes it, at the beginning.
    pub fn mount(scratch: &Scratch, files: &Path) -> BrokenDisk {
        let (image, at) = (scratch.join("disk"), scratch.join("broken-disk"));
        let file = File::create_new(&image).unwrap();
        file.set_len(BYTES).unwrap();
        fs::create_dir(&at).unwrap();
        let (image, from) = (image.to_str().unwrap(), files.to_str().unwrap());
        tool("mkfs.ext4", &["-q", "-b", "1024", "-I", "256", "-O", "inline_data", "-d", from, image]);
        tool("mount", &["-o", "loop,ro", image, at.to_str().unwrap()]);
        file.set_len(BYTES / 4).unwrap();
        BrokenDisk(at)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for BrokenDisk {
    fn drop(&mut self) {
        // A test that fails has its own message.
        let how: &[&str] = if std::thread::panicking() { &["--lazy"] } else { &[] };
        tool("umount", &[how, &[self.0.to_str().unwrap()]].concat());
    }
}
