//! The second half of PID 1's steps: what concerns the process rather than its surroundings.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sys::personality::{self, Persona};
use rustix::fs::{Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::process::{Signal, fchdir, getcwd, set_parent_process_death_signal, setsid, umask};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::{Child, ChildError, call, make_directory};
use crate::capabilities;
use crate::plan::Identity;
use crate::spec::Domain;
use crate::state::{State, Status};
use crate::terminal;

impl Child<'_> {
    /// A session of its own: a signal to the caller's process group does not reach the container.
    pub(super) fn new_session(&mut self) -> Result<(), ChildError> {
        call("setsid", setsid())?;
        match &self.terminal {
            Some(pty) => Ok(terminal::become_controlling(&pty.peer)?),
            None => Ok(()),
        }
    }

    /// The directory is found inside the root, and the kernel is asked where that is: a descriptor of the
    /// host's that was left open has no path in the container (CVE-2024-21626).
    pub(super) fn change_directory(&self, path: &Path) -> Result<(), ChildError> {
        enter_directory(&make_directory(&self.root, path)?, path)
    }

    pub(super) fn set_label(&self, profile: &str) -> Result<(), ChildError> {
        set_label(self.label.as_ref(), profile)
    }

    /// Not if the container was only created: then the process that made it ends before it starts. Twice: at once, so
    /// that nothing is left in the groups' way whatever this process hangs in, and again when its user has changed,
    /// which resets it (prctl(2)).
    pub(super) fn die_with_monitor(&self) -> Result<(), ChildError> {
        if self.held.start.is_some() {
            return Ok(());
        }
        // If the monitor died before this, the next message to it fails.
        call("prctl PR_SET_PDEATHSIG", set_parent_process_death_signal(Some(Signal::KILL)))
    }

    /// For hooks in the container, whose own process number is what they know it by.
    pub(super) fn oci_state(&self, status: Status) -> String {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let container = self.container;
        State {
            id: container.directory.id().to_string(),
            pid,
            start_time: 0,
            pidfd_inode: 0,
            user_namespace: 0,
            bundle: container.bundle.clone(),
            created: 0,
            is_set_up: false,
            annotations: container.spec.annotations.clone(),
        }
        .to_oci(status)
    }
}

/// Opens the attribute that names the AppArmor profile of the coming execve(2). `None`: the kernel runs without.
pub(super) fn open_label(proc: &OwnedFd) -> Result<Option<OwnedFd>, ChildError> {
    let is_enabled = apparmor::is_enabled();
    if !is_enabled.map_err(|source| ChildError::AppArmor { path: apparmor::ENABLED, source })? {
        return Ok(None);
    }
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let open = |path: &'static str| {
        let opened = rustix::fs::openat2(proc, format!("thread-self/{path}"), flags, Mode::empty(), inside);
        opened.map_err(|errno| (path, errno))
    };
    let [own, shared] = apparmor::EXEC_ATTRIBUTES;
    let opened = match open(own) {
        Err((_, Errno::NOENT)) => open(shared),
        answer => answer,
    };
    opened.map(Some).map_err(|(path, errno)| ChildError::AppArmor { path, source: errno.into() })
}

/// `attribute`, as [`open_label`] has it, is this process's own; a process that it forks inherits what is written there.
pub(super) fn set_label(attribute: Option<&OwnedFd>, profile: &str) -> Result<(), ChildError> {
    let text = apparmor::enter_on_exec(profile)?;
    let Some(attribute) = attribute else {
        return Err(ChildError::NoAppArmor { profile: profile.to_owned() });
    };
    rustix::io::write(attribute, text.as_bytes())
        .map(drop)
        .map_err(|errno| ChildError::Label { profile: profile.to_owned(), source: errno.into() })
}

/// Changes to the directory, which is at `path` of the container; see [`Child::change_directory`].
pub(super) fn enter_directory(directory: &OwnedFd, path: &Path) -> Result<(), ChildError> {
    let failed = |why, source: io::Error| ChildError::WorkingDirectory { path: path.to_owned(), why, source };
    fchdir(directory).map_err(|errno| failed("chdir", errno.into()))?;
    check_directory().map_err(|source| failed("it lies outside the container", source))
}

/// getcwd(2) of Linux puts "(unreachable)" before a directory outside the root.
pub(super) fn check_directory() -> io::Result<()> {
    let path = getcwd(Vec::new())?;
    if path.as_bytes().starts_with(b"/") { Ok(()) } else { Err(Errno::NOENT.into()) }
}

/// Whether standard input, output and error are the user's from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Streams {
    Given,
    Kept,
}

pub(super) fn become_user(identity: &Identity, streams: Streams) -> Result<(), ChildError> {
    umask(Mode::from_raw_mode(identity.umask & 0o7777));
    match streams {
        Streams::Given => give_streams(identity.uid)?,
        Streams::Kept => {}
    }
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    call("setgroups", set_thread_groups(&groups))?;
    let gid = Gid::from_raw(identity.gid);
    call("setresgid", set_thread_res_gid(gid, gid, gid))?;
    capabilities::keep_over_setuid()?;
    let uid = Uid::from_raw(identity.uid);
    call("setresuid", set_thread_res_uid(uid, uid, uid))
}

pub(super) fn set_personality(domain: Domain) -> Result<(), ChildError> {
    let domain = match domain {
        Domain::Linux => 0,   // PER_LINUX of linux/personality.h
        Domain::Linux32 => 8, // PER_LINUX32
    };
    call("personality", personality::set(Persona::from_bits_retain(domain)).map(drop))
}

/// So that a user can open `/dev/stdout` again. What cannot be given (a read-only or foreign file) stays.
fn give_streams(uid: u32) -> Result<(), ChildError> {
    if uid == 0 {
        return Ok(());
    }
    let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    for stream in streams {
        let Ok(found) = rustix::fs::fstat(stream) else { continue };
        let is_device = rustix::fs::FileType::from_raw_mode(found.st_mode)
            == rustix::fs::FileType::CharacterDevice
            && found.st_rdev == rustix::fs::makedev(1, 3);
        if found.st_uid == uid || is_device {
            continue;
        }
        match rustix::fs::fchown(stream.as_fd(), Some(Uid::from_raw(uid)), None) {
            Ok(()) | Err(Errno::ROFS | Errno::PERM | Errno::INVAL) => {}
            Err(errno) => {
                return Err(ChildError::Call { call: "chown a standard stream", source: errno.into() });
            }
        }
    }
    Ok(())
}
