//! Files for what is needed once, without a name.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// How those are called that cannot do without a name.
pub(crate) const SCRATCH_PREFIX: &str = "archive-";

/// A file without a name, which goes with its descriptor.
pub(crate) fn unnamed(directory: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR) {
        // NFS and FUSE have none of these.
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => short_named(directory),
        opened => Ok(File::from(opened?)),
    }
}

/// A file that loses its name at once; the store removes one that a crash in between leaves.
fn short_named(directory: &Path) -> io::Result<File> {
    static MADE: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!("{SCRATCH_PREFIX}{}-{number}", std::process::id()));
        match fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            // Of a process with our number in another pid namespace.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => {
                let file = opened?;
                fs::remove_file(&path)?;
                return Ok(file);
            }
        }
    }
}
