//! The second half of PID 1's steps: what concerns the process rather than its surroundings.

use std::error::Error;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sys::personality::{self, Persona};
use rustix::fs::{Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::process::{Signal, fchdir, getcwd, set_parent_process_death_signal, setsid, umask};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::{Child, ChildError, call, make_directory};
use crate::capabilities;
use crate::launch::Failed;
use crate::limits::SMALL_FILE_BYTES;
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

    /// Names the profile that this process is in, if that may be why it was refused something.
    pub(super) fn explained(&self, error: &ChildError, mut failed: Failed) -> Failed {
        let mut causes =
            std::iter::successors(Some(error as &(dyn Error + 'static)), |error| Error::source(*error));
        let is_refused = causes.any(|cause| {
            let cause = cause.downcast_ref::<io::Error>();
            cause.is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
        });
        // That one names it already.
        if !is_refused || matches!(error, ChildError::Label { .. }) {
            return failed;
        }
        let outer = match (&self.label, &self.proc) {
            (Some(label), _) => label.outer.clone(),
            // As long as only this process can reach it.
            (None, Some(proc)) => open_label(proc).ok().flatten().and_then(|label| label.outer),
            (None, None) => None,
        };
        if let Some(outer) = outer {
            failed.message += &format!(
                "; the AppArmor profile {outer:?}, which this process is in, may be what refuses it"
            );
        }
        failed
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
        let container = self.container;
        State {
            id: container.directory.id().to_string(),
            pid: self.first,
            start_time: 0,
            pidfd_inode: 0,
            user_namespace: 0,
            bundle: container.bundle.clone(),
            created: 0,
            is_set_up: false,
            command: None,
            annotations: container.spec.annotations.clone(),
        }
        .to_oci(status)
    }
}

/// What this process is confined by, and where it says what its execve(2) is to be.
pub(super) struct Label {
    attribute: OwnedFd,
    /// The profile that it is in.
    outer: Option<String>,
}

/// Opens what is written to [`set_label`]'s end, through a procfs of our own. `None`: the kernel runs without AppArmor.
pub(super) fn open_label(proc: &OwnedFd) -> Result<Option<Label>, ChildError> {
    let is_enabled = apparmor::is_enabled();
    if !is_enabled.map_err(|source| ChildError::AppArmor { path: apparmor::ENABLED, source })? {
        return Ok(None);
    }
    let (path, current) = open_attribute(proc, apparmor::CURRENT_ATTRIBUTES, OFlags::RDONLY)?;
    let mut text = String::new();
    let read = std::fs::File::from(current).take(SMALL_FILE_BYTES).read_to_string(&mut text);
    read.map_err(|source| ChildError::AppArmor { path, source })?;
    let outer = apparmor::outer_profile(&text).map(str::to_owned);
    let (_, attribute) = open_attribute(proc, apparmor::EXEC_ATTRIBUTES, OFlags::WRONLY)?;
    Ok(Some(Label { attribute, outer }))
}

fn open_attribute(
    proc: &OwnedFd,
    [own, shared]: [&'static str; 2],
    mode: OFlags,
) -> Result<(&'static str, OwnedFd), ChildError> {
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    let open = |path: &'static str| {
        let name = format!("thread-self/{path}");
        match rustix::fs::openat2(proc, name, mode | OFlags::CLOEXEC, Mode::empty(), inside) {
            Ok(opened) => Ok((path, opened)),
            Err(errno) => Err((path, errno)),
        }
    };
    let opened = match open(own) {
        Err((_, Errno::NOENT)) => open(shared),
        answer => answer,
    };
    opened.map_err(|(path, errno)| ChildError::AppArmor { path, source: errno.into() })
}

/// `label` is this process's own; a process that it forks inherits what is written there. One that is confined already gets
/// the profile on top.
pub(super) fn set_label(label: Option<&Label>, profile: &str) -> Result<(), ChildError> {
    let Some(Label { attribute, outer }) = label else {
        return Err(ChildError::NoAppArmor { profile: profile.to_owned() });
    };
    let text = apparmor::enter_on_exec(profile, outer.as_deref())?;
    rustix::io::write(attribute, text.as_bytes()).map(drop).map_err(|errno| {
        let why = match (errno, outer) {
            (Errno::ACCESS | Errno::PERM, Some(outer)) => {
                format!("the profile {outer:?}, which this process is in, needs the rule `change_profile -> &{profile},`")
            }
            _ => "is it loaded?".to_owned(),
        };
        ChildError::Label { profile: profile.to_owned(), why, source: errno.into() }
    })
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
