//! Kernel parameters of the calling thread's network namespace.

use std::io;
use std::path::{Path, PathBuf};

/// Where they are.
const PLACE: &str = "/proc/sys/net";

/// The file of a parameter.
pub fn path(name: &str) -> PathBuf {
    Path::new(PLACE).join(name)
}

/// Sets a parameter, `ipv4/conf/eth0/rp_filter` for example. One that the kernel does not have (IPv6
/// switched off) needs no setting.
///
/// # Errors
///
/// The kernel's refusal, with the parameter's name: `/proc/sys` may be read-only.
pub fn set(name: &str, value: &str) -> io::Result<()> {
    let path = path(name);
    match std::fs::write(&path, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
        Ok(()) => Ok(()),
    }
}
