//! The usher: it goes before a further process of a container that runs, and brings about all that that one is to have.
//!
//! It joins every namespace of the container but the pid namespace, in which only a process that it forks can be: so nobody
//! in the container can see it, signal it or look into it while it still holds what is the host's. What it forks at last
//! ([`super::newcomer`]) has the command's user, capabilities, directory and terminal from its first moment, none of the
//! descriptors that this process was copied with, and in the files of its /proc none of the arguments or variables
//! (CVE-2016-9962, CVE-2024-21626). This process is in the container's control groups before it opens anything there, so that
//! the device rules hold for both of them, whatever a file there turns out to be.
//!
//! A filter and a profile come with the command: a filter here would forbid the fork, and takes CAP_SYS_ADMIN until then
//! where there is no no_new_privs. Where the container has CAP_SYS_PTRACE and no AppArmor profile, a process in it that is
//! quick enough can use that moment, and read the memory that was copied.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, fstat};
use rustix::io::Errno;
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces, set_no_new_privs};

use super::newcomer::{self, Room};
use super::process::{self, Streams, become_user};
use super::{ChildError, become_root, call, command, join_new_keyring, kind_of_last, prepare, proc, users};
use crate::capabilities;
use crate::cgroup::{Entrance, join_tasks};
use crate::execute::{failure, say};
use crate::launch::messages::{ChildMessage, Newcomer};
use crate::launch::{Failed, FailureKind};
use crate::plan::{ExecPlan, Identity};
use crate::rlimits;
use crate::rootfs::{Links, Root, RootError};
use crate::sys::clone3::{Forked, SingleThreaded, clone_sibling};
use crate::sys::descriptors::{self, FIRST};
use crate::sys::exec::{Confinement, Image};
use crate::sys::exit::exit_now;
use crate::sys::{memory, namespace};
use crate::terminal::{self, Pty};

/// What is to be started, and for how long its starter stays.
pub(in crate::execute) struct Entering<'a> {
    pub plan: &'a ExecPlan,
    /// The inode of the user namespace that the container's first process was started in.
    pub user_namespace: u64,
    /// Descriptors 3 … 2 + n are the command's.
    pub preserve_fds: u16,
    /// It ends with the process that waits for it.
    pub dies_with_starter: bool,
}

/// What the usher inherits over the fork.
pub(in crate::execute) struct Held {
    /// The container's first process.
    pub init: OwnedFd,
    /// The ways into the container's control groups.
    pub groups: Vec<Entrance>,
    /// To the process that waits.
    pub socket: OwnedFd,
    /// Of the process that this one is a copy of.
    pub alone: SingleThreaded,
}

/// What the way through the container's own has come to.
struct Inside {
    terminal: Option<Pty>,
    image: Image,
    confinement: Confinement,
}

/// Returns never: it forks the new process, or says why not, and exits.
pub(in crate::execute) fn main(entering: &Entering<'_>, held: Held) -> ! {
    let socket = held.socket.as_fd();
    let said = match usher(entering, &held) {
        Ok(newcomer) => say(socket, &ChildMessage::Forked(newcomer)),
        Err(failed) => say(socket, &ChildMessage::Failed(failed)),
    };
    exit_now(if said.is_ok() { 0 } else { 1 })
}

fn usher(entering: &Entering<'_>, held: &Held) -> Result<Newcomer, Failed> {
    let at = |step: &'static str| move |error: ChildError| failure(step, FailureKind::Host, &error);
    let proc = prepare_outside(entering.plan).map_err(at("exec.prepare"))?;
    // But for the group that counts processes, where that is one of its own: of its limit one only is to be taken.
    let mut own = held.groups.iter().filter(|group| !group.counts_processes);
    let joined = own.try_for_each(|group| join_tasks(group.file.as_fd())).map_err(ChildError::JoinCgroups);
    joined.map_err(at("cgroup.join"))?;
    enter(entering, held, &proc).map_err(at("namespaces.join"))?;
    drop(proc);
    let inside = become_like(entering.plan)?;
    fork(entering, held, inside).map_err(at("fork"))
}

/// What only the host's own `/proc` can do, before anything is the container's. Returns a procfs of the host.
fn prepare_outside(plan: &ExecPlan) -> Result<OwnedFd, ChildError> {
    prepare()?;
    end_with_starter()?;
    call("overwrite the arguments and variables", memory::wipe_start_words())?;
    join_new_keyring()?;
    let proc = proc::detached()?;
    if let Some(adjust) = plan.oom_score {
        proc::write(&proc, "self/oom_score_adj", &adjust.to_string())?;
    }
    if let Some(profile) = &plan.label {
        process::set_label(process::open_label(&proc)?.as_ref(), profile)?;
    }
    Ok(proc)
}

/// Ends this process with the one that waits for it, also where it hangs in a file system of the container's.
pub(super) fn end_with_starter() -> Result<(), ChildError> {
    // If that has died before this, nobody hears of the new process, and that ends too.
    call("prctl PR_SET_PDEATHSIG", set_parent_process_death_signal(Some(Signal::KILL)))
}

/// Joins all namespaces at once, so that a process that ends meanwhile is never mistaken for another.
fn enter(entering: &Entering<'_>, held: &Held, proc: &OwnedFd) -> Result<(), ChildError> {
    let mut kinds = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::CONTROL_GROUP
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::NETWORK;
    // Nobody may join the one that they are in.
    kinds.set(ThreadNameSpaceType::USER, entering.plan.has_user_namespace);
    move_into_thread_name_spaces(held.init.as_fd(), kinds)
        .map_err(|errno| ChildError::Enter(errno.into()))?;
    // A user who is nobody in particular can make a user namespace, and mounts of their own liking in it: whoever is sent
    // there with more rights would execute what that user has put in place of the image's programs.
    let own = rustix::fs::openat(proc, "thread-self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let owner = own.map_err(io::Error::from).and_then(|own| namespace::owner(own.as_fd()));
    let found = owner.and_then(|owner| Ok(fstat(&owner)?.st_ino)).map_err(ChildError::Enter)?;
    if found != entering.user_namespace {
        return Err(ChildError::Left);
    }
    if entering.plan.has_user_namespace { become_root() } else { Ok(()) }
}

/// From root with all that the host gave it to what the command is to be: the order of PID 1's own steps.
fn become_like(plan: &ExecPlan) -> Result<Inside, Failed> {
    let at = |step: &'static str| move |error: ChildError| failure(step, FailureKind::Host, &error);
    let spec = |step: &'static str| move |error: ChildError| failure(step, FailureKind::Spec, &error);
    let root = open_root().map_err(at("root.open"))?;
    let identity = find_identity(&root, plan).map_err(spec("user.find"))?;
    let terminal = plan.terminal.map(|wanted| terminal::open(&root, wanted, identity.uid)).transpose();
    let terminal = terminal.map_err(|error| failure("terminal.open", FailureKind::Host, &error))?;
    for limit in &plan.rlimits {
        rlimits::allow(limit).map_err(|error| failure("rlimit", FailureKind::Spec, &error))?;
    }
    change_directory(&root, &plan.cwd).map_err(spec("cwd"))?;
    let home = plan.needs_home.then(|| users::home(&root, identity.uid));
    drop(root);
    let step = "capabilities.bounding";
    capabilities::drop_bounding(&plan.capabilities)
        .map_err(|error| failure(step, FailureKind::Host, &error))?;
    // A terminal has been given to the user. The streams are not the command's then.
    let streams = if plan.terminal.is_none() { Streams::Given } else { Streams::Kept };
    become_user(&identity, streams).map_err(spec("become"))?;
    capabilities::apply_sets(&plan.capabilities)
        .map_err(|error| failure("capabilities.set", FailureKind::Host, &error))?;
    if plan.no_new_privileges {
        call("prctl PR_SET_NO_NEW_PRIVS", set_no_new_privs(true)).map_err(at("no-new-privileges"))?;
    }
    if let Some(domain) = plan.domain {
        process::set_personality(domain).map_err(at("personality"))?;
    }
    let find = |error: ChildError| failure(plan.last.find(), kind_of_last(&error), &error);
    let image = command::find_image(&plan.last.executable, home.as_deref()).map_err(find)?;
    let confinement = command::confinement(&plan.last, plan.rlimits.iter()).map_err(at("seccomp"))?;
    Ok(Inside { terminal, image, confinement })
}

/// Of the mount namespace just joined.
fn open_root() -> Result<Root, ChildError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    call("open the root", rustix::fs::open("/", flags, Mode::empty())).map(Root::new)
}

fn find_identity(root: &Root, plan: &ExecPlan) -> Result<Identity, ChildError> {
    match &plan.user {
        Some(name) => Ok(users::look_up(root, name, &plan.identity)?),
        None => Ok(plan.identity.clone()),
    }
}

/// It is not made where it is missing: only a new container's is.
fn change_directory(root: &Root, path: &Path) -> Result<(), ChildError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let directory = root
        .open(path, flags, Links::Inside)
        .map_err(RootError::at("change to the working directory", path))?;
    process::enter_directory(&directory, path)
}

/// Lets go of everything that is not the new process's, and forks it.
fn fork(entering: &Entering<'_>, held: &Held, inside: Inside) -> Result<Newcomer, ChildError> {
    let Inside { terminal, image, confinement } = inside;
    let (master, peer) = terminal.map_or((None, None), |pty| (Some(pty.master), Some(pty.peer)));
    let passed_on = FIRST + i32::from(entering.preserve_fds);
    let kept: Vec<BorrowedFd<'_>> =
        [Some(held.socket.as_fd()), master.as_ref().map(AsFd::as_fd), peer.as_ref().map(AsFd::as_fd)]
            .into_iter()
            .flatten()
            .chain(held.groups.iter().map(|group| group.file.as_fd()))
            .collect();
    call("close_range", descriptors::close_all_but(passed_on, &kept))?;
    drop(kept);
    // The change of the user may have reset both.
    prepare()?;
    end_with_starter()?;
    match clone_sibling(&held.alone) {
        Ok(Forked::Child) => {
            drop(master);
            let room = Room { socket: held.socket.as_fd(), groups: &held.groups, terminal: peer };
            let Err(failed): Result<Infallible, Failed> =
                newcomer::become_command(entering, room, &image, &confinement);
            let said = say(held.socket.as_fd(), &ChildMessage::Failed(failed));
            // If nobody hears it there is nobody left to tell.
            exit_now(if said.is_ok() { 1 } else { 2 })
        }
        Ok(Forked::Parent { child, pid }) => Ok(Newcomer { pid, pidfd: child, terminal: master }),
        Err(source) => Err(ChildError::Fork { why: why_not_forked(&source), source }),
    }
}

pub(super) fn why_not_forked(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        // A pid namespace whose first process has ended (pid_namespaces(7)).
        Some(Errno::NOMEM) => "has its first process just ended?",
        Some(Errno::AGAIN) => "a limit on processes is reached",
        _ => "clone3",
    }
}
