//! What the process does to itself before it has a second thread.

use std::io;

use nix::sched::CloneFlags;
use rustix::fs::Mode;
use rustix::mount::MountPropagationFlags;
use rustix::process::{Resource, Rlimit};

/// The worker is the last that the kernel ends when memory is short, where the host lets it say so.
const OOM_SCORE_ADJUSTMENT: &str = "-900";

/// Why the process cannot run tasks.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// No mount namespace of its own.
    #[error("make a mount namespace of the worker's own: {0}; run docker-worker as root with CAP_SYS_ADMIN")]
    Namespace(#[source] io::Error),
    /// Core dumps could not be switched off: they would hold credentials.
    #[error("switch off core dumps: {0}")]
    CoreDumps(#[source] io::Error),
}

/// Prepares a process that runs tasks. Call before any thread is started: `unshare(2)` concerns one
/// thread, and the ones it starts later.
///
/// # Errors
///
/// [`SetUpError`]
pub fn set_up() -> Result<(), SetUpError> {
    rustix::process::umask(Mode::from_raw_mode(0o077));
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, none).map_err(|errno| SetUpError::CoreDumps(errno.into()))?;
    runtime::heap::keep_small();
    raise_open_files();
    raise_file_size();
    let failed = |error: io::Error| SetUpError::Namespace(error);
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| failed(errno.into()))?;
    // What is mounted here stays here, and what the host mounts does not reach running tasks.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).map_err(|errno| failed(errno.into()))?;
    if std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJUSTMENT).is_err() {
        // Without CAP_SYS_RESOURCE the worker is as likely to be ended as any other process.
    }
    Ok(())
}

/// An image of many layers takes a descriptor for each while it is mounted; the usual soft limit is
/// for programs that use select(2).
fn raise_open_files() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if rustix::process::setrlimit(Resource::Nofile, raised).is_err() {
        // Raising the soft limit to the hard one is always allowed; without it the old one holds.
    }
}

/// Layers and logs are as large as they are. Where the limit cannot be lifted, `check` says so.
fn raise_file_size() {
    let limit = rustix::process::getrlimit(Resource::Fsize);
    let unlimited = Rlimit { current: None, maximum: None };
    if rustix::process::setrlimit(Resource::Fsize, unlimited).is_err() {
        let raised = Rlimit { current: limit.maximum, ..limit };
        if rustix::process::setrlimit(Resource::Fsize, raised).is_err() {
            // A write beyond the limit is an error that says so.
        }
    }
}
