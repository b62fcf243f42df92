//! PID 1's steps: one `match`, one short function for each arm. It starts as a copy of the monitor in new
//! namespaces, and ends as the container's command or with one message that says which step failed.
//!
//! Nothing here outlives the process: namespaces, detached mounts and descriptors go with it.

mod command;
mod hold;
mod mounts;
mod newcomer;
mod proc;
mod process;
mod users;
mod usher;

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use nix::sys::signal::SigSet;
use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, set_dumpable_behavior, umask};
use rustix::thread::{
    LinkNameSpaceType, move_into_link_name_space, set_no_new_privs, set_thread_res_gid, set_thread_res_uid,
};

use super::host::Held;
use super::{Container, failure, say};
use crate::capabilities::{self, CapabilityError};
use crate::cgroup::join_tasks;
use crate::hooks::{self, HookError, Stage, Surroundings};
use crate::launch::messages::{self, ChildMessage};
use crate::launch::{Failed, FailureKind, ReceiveError};
use crate::plan::ChildStep;
use crate::rlimits::{self, RlimitError};
use crate::rootfs::device::{DeviceDirectory, DeviceError, Method};
use crate::rootfs::mask::{MaskError, Masks, make_read_only};
use crate::rootfs::mount::{self, MountError};
use crate::rootfs::pivot::{self, PivotError};
use crate::rootfs::{Root, RootError, Shape};
use crate::seccomp::InstallError;
use crate::spec::Namespace;
use crate::state::Status;
use crate::sys;
use crate::sys::exit::exit_now;
use crate::terminal::{self, Pty, TerminalError};

pub(super) use hold::HolderParts;
pub(super) use usher::{Entering, Held as UsherHeld, main as usher};

/// Why PID 1, or a further process, did not become its command.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChildError {
    #[error("join the control groups")]
    JoinCgroups(#[source] io::Error),
    #[error("unshare the cgroup namespace")]
    UnshareCgroups(#[source] io::Error),
    #[error("join the {kind} namespace")]
    JoinNamespace { kind: Namespace, source: io::Error },
    #[error("join the container's namespaces: has its first process just ended?")]
    Enter(#[source] io::Error),
    #[error(
        "join the container's namespaces: its first process has left the user namespace that it was started in, and with it \
         the mounts that the Spec gave it"
    )]
    Left,
    #[error("become root of the user namespace")]
    BecomeRoot(#[source] io::Error),
    #[error("fork into the container: {why}")]
    Fork { why: &'static str, source: io::Error },
    #[error("get a session keyring: --no-new-keyring keeps the caller's")]
    Keyring(#[source] io::Error),
    #[error("hear from the monitor")]
    Monitor(#[source] ReceiveError),
    #[error("the monitor has ended")]
    MonitorGone,
    #[error("open {path} of a procfs of our own")]
    Proc { path: &'static str, source: io::Error },
    #[error("set {name} to {value:?}")]
    Write { name: String, value: String, source: io::Error },
    #[error("{call}")]
    Call { call: &'static str, source: io::Error },
    /// A plan has the steps in their order, so this is none of the Spec's author's doing.
    #[error("use {what}, which an earlier step makes: it has not been made")]
    Missing { what: &'static str },
    #[error("fork: this is no step of the new process")]
    NotHere,
    #[error("use AppArmor profile {profile:?}: {why}")]
    Label { profile: String, why: String, source: io::Error },
    #[error("find out about AppArmor: open or read {path}")]
    AppArmor { path: &'static str, source: io::Error },
    #[error("use AppArmor profile {profile:?}: this host's kernel runs without AppArmor")]
    NoAppArmor { profile: String },
    #[error("change to the working directory {}: {why}", path.display())]
    WorkingDirectory { path: PathBuf, why: &'static str, source: io::Error },
    // The words are those that docker and podman look for in what a runtime says.
    #[error("find the command {command:?}: {why}")]
    CommandNotFound { command: String, why: String },
    #[error("execute {command:?}")]
    CommandNotExecutable { command: String, source: io::Error },
    #[error(transparent)]
    User(#[from] users::UserError),
    #[error(transparent)]
    Root(#[from] RootError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Pivot(#[from] PivotError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Mask(#[from] MaskError),
    #[error(transparent)]
    Terminal(#[from] TerminalError),
    #[error(transparent)]
    Hook(#[from] HookError),
    #[error(transparent)]
    Rlimit(#[from] RlimitError),
    #[error(transparent)]
    Capability(#[from] CapabilityError),
    #[error(transparent)]
    Seccomp(#[from] InstallError),
    #[error(transparent)]
    Profile(#[from] apparmor::ProfileNameError),
}

/// PID 1 on its way.
struct Child<'a> {
    container: &'a Container,
    held: Held,
    /// To the monitor. Replaced by the connection of `start` once that has come.
    socket: OwnedFd,
    root: Root,
    /// A procfs that is attached nowhere, until the container's `/proc` is mounted from it.
    proc: Option<OwnedFd>,
    /// Opened through `proc` while only this process can reach it.
    mount_namespace: Option<OwnedFd>,
    label: Option<process::Label>,
    devices: Option<DeviceDirectory>,
    /// Mounts that become read-only when everything in them is made.
    read_only_last: Vec<(PathBuf, OwnedFd)>,
    masks: Masks,
    terminal: Option<Pty>,
    /// Of the user, if the environment has none.
    home: Option<String>,
    /// As the monitor has it.
    umask: Mode,
    /// What the container's first process is called in it: hooks know the container by that.
    first: i32,
    /// If there is a holder: this process is the second then.
    holding: Option<hold::Holding>,
}

/// Runs all steps. Returns never: it becomes the command, or exits.
pub(super) fn main(container: &Container, mut held: Held, socket: OwnedFd) -> ! {
    let failed = match held.root.take() {
        Some(root) => {
            let mut child = Child {
                container,
                held,
                socket,
                root,
                proc: None,
                mount_namespace: None,
                label: None,
                devices: None,
                read_only_last: Vec::new(),
                masks: Masks::default(),
                terminal: None,
                home: None,
                umask: umask(Mode::empty()),
                first: rustix::process::getpid().as_raw_nonzero().get(),
                holding: None,
            };
            let Err(failed) = child.run();
            say(&child.socket, &ChildMessage::Failed(failed))
        }
        None => {
            let missing = ChildError::Missing { what: "the root" };
            say(&socket, &ChildMessage::Failed(failure("fork", FailureKind::Host, &missing)))
        }
    };
    match failed {
        Ok(()) => exit_now(1),
        Err(_) => exit_now(2), // The monitor has gone: nobody is left to tell.
    }
}

impl Child<'_> {
    fn run(&mut self) -> Result<Infallible, Failed> {
        let container = self.container;
        prepare()
            .and_then(|()| let_signals_through())
            .and_then(|()| self.die_with_monitor())
            .map_err(|error| failure("fork", FailureKind::Host, &error))?;
        for (index, step) in container.plan.child.iter().enumerate() {
            self.perform(step)
                .map_err(|error| self.explained(&error, failure(step, kind_of(step), &error)))?;
            self.pass(index + 1)?;
        }
        self.become_command(&container.plan.last)
    }

    /// This many steps of the child are done: here a test may want to stop.
    #[cfg(feature = "test-stop-points")]
    fn pass(&self, done: usize) -> Result<(), Failed> {
        let container = self.container;
        if !container.options.stop.is_after(container.plan.host.len() + done) {
            return Ok(());
        }
        self.stop().map_err(|error| failure("stop", FailureKind::Host, &error))
    }

    #[cfg(not(feature = "test-stop-points"))]
    fn pass(&self, _done: usize) -> Result<(), Failed> {
        Ok(())
    }

    fn perform(&mut self, step: &ChildStep) -> Result<(), ChildError> {
        match step {
            ChildStep::JoinCgroups => self.join_cgroups(),
            ChildStep::UnshareCgroups => unshare_cgroups(),
            ChildStep::JoinNamespace { kind } => self.join_namespace(*kind),
            ChildStep::BecomeRoot => self.become_root(),
            ChildStep::NewKeyring => self.new_keyring(),
            ChildStep::PrivateMounts => Ok(pivot::make_private()?),
            ChildStep::OpenProc => self.open_proc(),
            ChildStep::OomScore { adjust } => self.write_proc("self/oom_score_adj", &adjust.to_string()),
            ChildStep::Sysctl { name, value } => self.write_proc(&proc::sysctl_path(name), value),
            ChildStep::LoopbackUp => call("set the loopback interface up", sys::interface::set_loopback_up()),
            ChildStep::Hostname { name } => call("sethostname", rustix::system::sethostname(name.as_bytes())),
            ChildStep::Domainname { name } => {
                call("setdomainname", rustix::system::setdomainname(name.as_bytes()))
            }
            ChildStep::AttachRoot => Ok(pivot::attach_root(&self.root)?),
            ChildStep::Mount(mount) => self.mount(mount),
            ChildStep::Device(device) => {
                let method = self.device_method();
                Ok(devices(&mut self.devices, &self.root)?.make(&self.root, device, method)?)
            }
            ChildStep::DeviceLink { name, target } => {
                Ok(devices(&mut self.devices, &self.root)?.link(name, target)?)
            }
            ChildStep::OpenTerminal(wanted) => {
                let uid = self.container.spec.process.as_ref().map_or(0, |process| process.user.uid.0);
                self.terminal = Some(terminal::open_console(&self.root, *wanted, uid)?);
                Ok(())
            }
            ChildStep::RuntimeHooks => {
                say(&self.socket, &ChildMessage::AtHooks).map_err(|_| ChildError::MonitorGone)?;
                self.wait_for_go()
            }
            ChildStep::ContainerHooks => self.container_hooks(),
            ChildStep::PivotRoot => self.pivot_root(),
            ChildStep::Mask { path } => Ok(self.masks.mask(&self.root, path)?),
            ChildStep::ReadOnlyPath { path } => Ok(make_read_only(&self.root, path)?),
            ChildStep::ReadOnlyLast { targets } => {
                targets.iter().try_for_each(|target| self.make_read_only(target))
            }
            ChildStep::RootPropagation { propagation, depth } => call(
                "set the propagation of the root",
                mount::propagate(self.root.as_fd(), *propagation, *depth),
            ),
            ChildStep::Personality(domain) => process::set_personality(*domain),
            ChildStep::Rlimit(limit) => Ok(rlimits::allow(limit)?),
            ChildStep::Hold { profile } => self.hold(profile.as_deref()),
            ChildStep::NewSession => self.new_session(),
            ChildStep::WorkingDirectory { path } => self.change_directory(path),
            ChildStep::Label { profile } => self.set_label(profile),
            ChildStep::FindHome { uid } => {
                self.home = Some(users::home(&self.root, *uid));
                Ok(())
            }
            ChildStep::DropBounding(sets) => Ok(capabilities::drop_bounding(sets)?),
            ChildStep::Become(identity) => process::become_user(identity, process::Streams::Given),
            ChildStep::DieWithMonitor => self.die_with_monitor(),
            ChildStep::Capabilities(sets) => Ok(capabilities::apply_sets(sets)?),
            ChildStep::NoNewPrivileges => call("prctl PR_SET_NO_NEW_PRIVS", set_no_new_privs(true)),
        }
    }

    fn pivot_root(&self) -> Result<(), ChildError> {
        self.holding.as_ref().map_or(Ok(()), hold::Holding::wait)?;
        Ok(pivot::pivot(&self.root)?)
    }

    fn join_cgroups(&self) -> Result<(), ChildError> {
        self.held
            .tasks
            .iter()
            .try_for_each(|tasks| join_tasks(tasks.as_fd()))
            .map_err(ChildError::JoinCgroups)
    }

    fn join_namespace(&self, kind: Namespace) -> Result<(), ChildError> {
        let types = match kind {
            Namespace::Network => LinkNameSpaceType::Network,
            Namespace::Ipc => LinkNameSpaceType::InterProcessCommunication,
            Namespace::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
            Namespace::Cgroup => LinkNameSpaceType::ControlGroup,
            // The fork enters a pid namespace; the plan refuses the others.
            Namespace::Pid | Namespace::User | Namespace::Mount => return Err(ChildError::NotHere),
        };
        let held = self.held.namespaces.iter().find(|(held, _)| *held == kind);
        let (_, namespace) = held.ok_or(ChildError::Missing { what: "the namespace" })?;
        move_into_link_name_space(namespace.as_fd(), Some(types))
            .map_err(|errno| ChildError::JoinNamespace { kind, source: errno.into() })
    }

    /// After the monitor has written the maps.
    fn become_root(&self) -> Result<(), ChildError> {
        self.wait_for_go()?;
        become_root()
    }

    fn wait_for_go(&self) -> Result<(), ChildError> {
        wait_for_go(self.socket.as_fd())
    }

    /// Tests only: stops the monitor, and waits until it is continued or killed; in neither case is the rest of the
    /// steps left out, as it would not be if nobody had stopped.
    #[cfg(feature = "test-stop-points")]
    fn stop(&self) -> Result<(), ChildError> {
        say(&self.socket, &ChildMessage::Stop).map_err(|_| ChildError::MonitorGone)?;
        match self.wait_for_go() {
            Err(ChildError::MonitorGone) => Ok(()),
            told => told,
        }
    }

    fn new_keyring(&self) -> Result<(), ChildError> {
        if self.container.options.keep_keyring { Ok(()) } else { join_new_keyring() }
    }

    fn device_method(&self) -> Method {
        if self.container.has_user_namespace() { Method::Bind } else { Method::Make }
    }

    /// They get the umask that the runtime was started with: this process's own is for the nodes that it makes.
    fn container_hooks(&self) -> Result<(), ChildError> {
        let environment = command::strings(&self.container.plan.last.executable.environment)?;
        let surroundings = Surroundings { environment, umask: Some(self.umask), ..Surroundings::default() };
        let state = self.oci_state(Status::Creating);
        Ok(hooks::run(&self.container.spec, Stage::CreateContainer, state, surroundings)?)
    }
}

/// What holds from the first moment of the new process: nobody in the container may look into this copy of the monitor.
/// execve(2) resets it, and a change of the user may.
fn prepare() -> Result<(), ChildError> {
    call("prctl PR_SET_DUMPABLE", set_dumpable_behavior(DumpableBehavior::NotDumpable))
}

/// What the monitor blocks for itself would stay blocked in the command and in hooks.
fn let_signals_through() -> Result<(), ChildError> {
    call("sigprocmask", SigSet::empty().thread_set_mask())
}

fn become_root() -> Result<(), ChildError> {
    let root = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
    set_thread_res_gid(root.1, root.1, root.1).map_err(|errno| ChildError::BecomeRoot(errno.into()))?;
    set_thread_res_uid(root.0, root.0, root.0).map_err(|errno| ChildError::BecomeRoot(errno.into()))
}

fn wait_for_go(socket: BorrowedFd<'_>) -> Result<(), ChildError> {
    match messages::receive(socket) {
        Ok(_) => Ok(()),
        Err(ReceiveError::Ended) => Err(ChildError::MonitorGone),
        Err(error) => Err(ChildError::Monitor(error)),
    }
}

fn join_new_keyring() -> Result<(), ChildError> {
    match sys::keyring::join_new_session_keyring() {
        // A kernel without keys has none to hide.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        joined => joined.map_err(ChildError::Keyring),
    }
}

fn unshare_cgroups() -> Result<(), ChildError> {
    nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP).map_err(|errno| ChildError::UnshareCgroups(errno.into()))
}

fn devices<'a>(
    opened: &'a mut Option<DeviceDirectory>,
    root: &Root,
) -> Result<&'a DeviceDirectory, ChildError> {
    match opened {
        Some(devices) => Ok(devices),
        missing => Ok(missing.insert(DeviceDirectory::open(root)?)),
    }
}

fn call<T, E: Into<io::Error>>(call: &'static str, answer: Result<T, E>) -> Result<T, ChildError> {
    answer.map_err(|error| ChildError::Call { call, source: error.into() })
}

/// Whose fault it is.
fn kind_of(step: &ChildStep) -> FailureKind {
    match step {
        ChildStep::Mount(_)
        | ChildStep::Device(_)
        | ChildStep::DeviceLink { .. }
        | ChildStep::Mask { .. }
        | ChildStep::ReadOnlyPath { .. }
        | ChildStep::WorkingDirectory { .. }
        | ChildStep::Sysctl { .. }
        | ChildStep::Rlimit(_)
        | ChildStep::Become(_) => FailureKind::Spec,
        _ => FailureKind::Host,
    }
}

/// Whose fault it is, of what comes after the steps.
fn kind_of_last(error: &ChildError) -> FailureKind {
    match error {
        ChildError::CommandNotFound { .. } => FailureKind::CommandNotFound,
        ChildError::CommandNotExecutable { .. } => FailureKind::CommandNotExecutable,
        _ => FailureKind::Host,
    }
}

/// The working directory and everything below `path`, made where missing.
fn make_directory(root: &Root, path: &Path) -> Result<OwnedFd, RootError> {
    root.find_or_make(path, Shape::Directory, crate::rootfs::Links::Inside)
}
