//! The executable cannot be reached for writing from inside a container (CVE-2019-5736).
//!
//! A process in the container can always open `/proc/self/exe` of a runtime that enters it or that it
//! executes by that name, and write to it once nobody executes it any more. So the runtime first executes
//! itself again from a copy that nobody can write: a read-only bind mount that is attached nowhere
//! (open_tree(2), mount_setattr(2); no page copied), or where that is refused a sealed memfd. The former is
//! done by `sys::entry`, the first code of the process; the latter here.
//!
//! Whether that has been done is read off the executable itself: is it on a read-only mount, or sealed? So no
//! variable or argument can make believe it.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use nix::fcntl::AtFlags;
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::mount_attr::{self as attr, Depth};
use crate::sys::mount::{MountAttr, mount_setattr};

const OWN: &str = "/proc/self/exe";

/// What `ps` shows: 15 bytes is all that the kernel keeps.
const NAME: &CStr = c"docker-worker-r";

/// The runtime could not protect its executable, and does not go on.
#[derive(Debug, thiserror::Error)]
#[error("protect the executable: {call}")]
pub struct SelfExecError {
    call: &'static str,
    source: io::Error,
}

/// Returns if this process executes from a copy that cannot be written, as `sys::entry` has seen to where the kernel
/// let it; executes it from a sealed copy otherwise.
///
/// # Errors
///
/// `/proc` is not mounted, or neither kind of copy can be made.
pub fn protect() -> Result<(), SelfExecError> {
    let failed = |call| move |source: io::Error| SelfExecError { call, source };
    if is_protected().map_err(failed("look at /proc/self/exe"))? {
        // Executed by descriptor it is called by that descriptor's number (before Linux 6.14).
        return rustix::thread::set_name(NAME).map_err(|errno| failed("name the process")(errno.into()));
    }
    let copy = sealed_copy().map_err(failed("copy it to a sealed memfd"))?;
    let Err(error) = execute(&copy);
    Err(failed("execute the protected copy")(error))
}

/// The executable that this process runs from, to be executed by that descriptor: on the mount that [`protect`] has seen to.
///
/// # Errors
///
/// `/proc` is not the host's.
pub(crate) fn own_copy() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(OWN, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

fn is_protected() -> io::Result<bool> {
    if rustix::fs::statvfs(OWN)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(true);
    }
    let own = File::open(OWN)?;
    // Only a memfd has seals; any other file answers EINVAL.
    Ok(rustix::fs::fcntl_get_seals(&own).is_ok_and(|seals| seals.contains(SealFlags::WRITE)))
}

/// A copy of `executable` that cannot be written, for a process that starts it: it then has no reason to
/// execute itself again.
///
/// # Errors
///
/// The kernel's answer; `EPERM` without CAP_SYS_ADMIN.
pub(crate) fn read_only_bind(executable: &Path) -> io::Result<OwnedFd> {
    let tree = open_tree(CWD, executable, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    let attributes = MountAttr {
        set: attr::RDONLY | attr::NOSUID | attr::NODEV,
        propagation: libc::MS_PRIVATE,
        ..MountAttr::default()
    };
    mount_setattr(tree.as_fd(), Depth::One, &attributes)?;
    Ok(tree)
}

fn sealed_copy() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // `MFD_EXEC` is asked for where the kernel knows it (6.3): else vm.memfd_noexec may refuse.
    let memfd = rustix::fs::memfd_create("docker-worker-runtime", flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create("docker-worker-runtime", flags))?;
    let mut copy = File::from(memfd);
    io::copy(&mut File::open(OWN)?, &mut copy)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    Ok(copy.into())
}

fn execute(copy: &OwnedFd) -> io::Result<Infallible> {
    let arguments = std::env::args_os().map(|argument| CString::new(argument.into_vec()));
    let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
    let environment = std::env::vars_os().map(|(name, value)| {
        let mut entry = name.into_vec();
        entry.push(b'=');
        entry.extend(value.into_vec());
        CString::new(entry)
    });
    let environment = environment.collect::<Result<Vec<_>, _>>()?;
    Ok(nix::unistd::execveat(copy, c"", &arguments, &environment, AtFlags::AT_EMPTY_PATH)?)
}
