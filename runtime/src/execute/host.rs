//! The monitor's steps: one `match`, one short function for each arm.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::child::HolderParts;
use super::{Container, failure, say, sentence};
use crate::cgroup::{self, CgroupError, CgroupMount, Counters, OpenGroup};
use crate::groups;
use crate::hooks::{self, HookSequence, Stage, Surroundings};
use crate::journal::{Journal, JournalError, Keeper};
use crate::launch::messages::ChildMessage;
use crate::launch::{Failed, FailureKind, kill_init, self_exec};
use crate::plan::Step;
use crate::plan::mount_options::{Depth, Propagation};
use crate::rootfs::Root;
use crate::rootfs::mount::{self, MountError, clone_path, hold_events, set_root_events};
use crate::scheduling::Scheduling;
use crate::spec::{IdMapping, Namespace};
use crate::state::{HeldCommand, State, StateError, Status};
use crate::sys::clone3::{Forked, Namespaces, SingleThreaded, clone3};
use crate::sys::wait;
use crate::undo::{self, UndoError};

/// Whether PID 1 may go on to the command by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// It may.
    Open,
    /// It waits for `start`.
    Closed,
}

/// The monitor's side of one container.
pub(super) struct Host<'a> {
    pub container: &'a mut Container,
    journal: Journal,
    groups: Vec<OpenGroup>,
    held: Held,
    pub child: Option<Child>,
    /// From the holder, if there is one.
    pub holder: Option<OwnedFd>,
    /// As written down after the fork.
    state: Option<State>,
    gate: Gate,
}

/// What PID 1 inherits over the fork, and the monitor then forgets.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// v1: a `tasks` file for each group.
    pub tasks: Vec<OwnedFd>,
    /// Namespaces to join.
    pub namespaces: Vec<(Namespace, OwnedFd)>,
    /// The root's own copy.
    pub root: Option<Root>,
    /// Copies of what binds show, by the mount's index.
    pub binds: BTreeMap<usize, OwnedFd>,
    /// Copies of the control group directories, with the names that they get.
    pub cgroups: Vec<(CgroupMount, OwnedFd)>,
    /// Listening, if the gate is closed.
    pub start: Option<OwnedFd>,
    /// If PID 1 becomes a holder.
    pub holder: Option<HolderParts>,
}

/// PID 1, seen from here.
pub(super) struct Child {
    pub pidfd: OwnedFd,
    pub pid: i32,
    /// Closed by its execve.
    pub socket: OwnedFd,
}

/// What became of the host.
pub(super) struct Finished {
    pub counters: Counters,
    pub undone: Result<(), UndoError>,
}

/// A step failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("clone the mount of descriptor --root-fd: it must be attached in this mount namespace")]
    RootDescriptor(#[source] io::Error),
    #[error("open the {kind} namespace {}", path.display())]
    Namespace { kind: Namespace, path: PathBuf, source: io::Error },
    #[error(
        "open the {kind} namespace {}: it is this host's own, which the host name or sysctls of the Spec would \
         change; give another namespace, or leave them out",
        path.display()
    )]
    HostNamespace { kind: Namespace, path: PathBuf },
    #[error("fork into new namespaces: {call}")]
    Fork { call: &'static str, source: io::Error },
    #[error("write {}", path.display())]
    MapUsers { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("look at the new process")]
    Process(#[source] io::Error),
    /// A plan has the steps in their order, so this is none of the Spec's author's doing.
    #[error("use {what}, which an earlier step makes: it has not been made")]
    Missing { what: &'static str },
}

impl<'a> Host<'a> {
    /// Opens the journal: from here on every change of the host is written down before it is made.
    pub fn begin(container: &'a mut Container, keeper: Keeper) -> Result<Host<'a>, StateError> {
        let journal = container.directory.begin_journal(keeper)?;
        container.directory.keep_config(&container.config)?;
        let (groups, held) = (Vec::new(), Held::default());
        let (child, holder, state) = (None, None, None);
        Ok(Host { container, journal, groups, held, child, holder, state, gate: Gate::Open })
    }

    /// All steps in order.
    pub fn start(&mut self, gate: Gate) -> Result<(), Failed> {
        self.gate = gate;
        for index in 0..self.container.plan.host.len() {
            let Some(step) = self.container.plan.host.get(index).cloned() else { break };
            self.perform(&step).map_err(|error| failure(&step, kind_of(&step), &error))?;
            self.container.options.stop.pass();
        }
        Ok(())
    }

    fn perform(&mut self, step: &Step) -> Result<(), StepError> {
        match step {
            Step::CreateCgroup { group } => self.create_cgroup(group),
            Step::SetCgroup { group, setting } => {
                let group = self.groups.get_mut(*group);
                Ok(group.ok_or(StepError::Missing { what: "a control group" })?.apply(setting)?)
            }
            Step::AttachDeviceRules { policy } => {
                Ok(self.groups.iter().try_for_each(|group| group.attach_devices(policy))?)
            }
            Step::OpenNamespace { kind, path, changed } => self.open_namespace(*kind, path, *changed),
            Step::CloneRoot { path, propagation } => self.clone_root(path, *propagation),
            Step::CloneBind { mount, source, depth, events } => {
                let container = &self.container;
                if !container.has_user_namespace() && container.inside_root(source).is_some() {
                    return Ok(()); // What is there then may be an earlier mount: PID 1 copies it when its turn comes.
                }
                // A relative source is relative to the bundle (config.md, "Mounts").
                let tree = clone_path(&self.container.bundle.join(source), *depth)?;
                hold_events(tree.as_fd(), *events, *depth).map_err(MountError::events(source))?;
                self.held.binds.insert(*mount, tree);
                Ok(())
            }
            Step::CloneCgroups { mounts } => self.clone_cgroups(mounts),
            Step::Fork { namespaces } => self.fork(namespaces),
            Step::MapUsers { users, groups } => self.map_users(users, groups),
            // The child says when it has come to this point: `monitor` runs them then.
            Step::RuntimeHooks => Ok(()),
        }
    }

    fn create_cgroup(&mut self, group: &cgroup::Group) -> Result<(), StepError> {
        let group = cgroup::create(group, &mut self.journal)?;
        if group.group.version == cgroup::Version::V1 {
            self.held.tasks.push(group.open_tasks()?);
        }
        self.groups.push(group);
        Ok(())
    }

    fn open_namespace(&mut self, kind: Namespace, path: &Path, changed: bool) -> Result<(), StepError> {
        let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| StepError::Namespace { kind, path: path.to_owned(), source: errno.into() })?;
        if changed {
            let unknown = |errno: Errno| StepError::Process(errno.into());
            let (_, name) = in_kernel(kind);
            let own = rustix::fs::stat(format!("/proc/self/ns/{name}")).map_err(unknown)?;
            let found = rustix::fs::fstat(&opened).map_err(unknown)?;
            if (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino) {
                return Err(StepError::HostNamespace { kind, path: path.to_owned() });
            }
        }
        self.held.namespaces.push((kind, opened));
        Ok(())
    }

    fn clone_root(
        &mut self,
        path: &Path,
        propagation: Option<(Propagation, Depth)>,
    ) -> Result<(), StepError> {
        let tree = match &self.container.root {
            Some(root) => {
                let tree = mount::clone(root.as_fd(), Path::new(""), Depth::Recursive);
                tree.map_err(|errno| StepError::RootDescriptor(errno.into()))?
            }
            None => clone_path(&self.container.bundle.join(path), Depth::Recursive)?,
        };
        set_root_events(tree.as_fd(), propagation).map_err(MountError::events(path))?;
        self.held.root = Some(Root::new(tree));
        Ok(())
    }

    fn clone_cgroups(&mut self, mounts: &[CgroupMount]) -> Result<(), StepError> {
        if mounts.len() != self.groups.len() {
            return Err(StepError::Missing { what: "a control group" });
        }
        for (mount, group) in mounts.iter().zip(&self.groups) {
            let tree = mount::clone_private(group.directory())
                .map_err(|source| MountError::Source { path: group.group.directory(), source })?;
            self.held.cgroups.push((mount.clone(), tree));
        }
        Ok(())
    }

    fn fork(&mut self, namespaces: &[Namespace]) -> Result<(), StepError> {
        let failed = |call| move |source: io::Error| StepError::Fork { call, source };
        let alone = SingleThreaded::witness().map_err(failed("count threads"))?;
        let close = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, close, None)
            .map_err(|errno| failed("socketpair")(errno.into()))?;
        if self.gate == Gate::Closed {
            let path = self.container.directory.start_socket()?;
            self.held.start =
                Some(super::monitor_socket::listen(&path).map_err(failed("make the start socket"))?);
        }
        let holder = self.prepare_holder().map_err(failed("prepare the holder"))?;
        let own_pids = self.enter_pid_namespace().map_err(failed("join the pid namespace"))?;
        let flags = namespaces.iter().fold(Namespaces::default(), |set, kind| set.with(in_kernel(*kind).0));
        let own = self.lend_scheduling().map_err(failed("give the command its processors and niceness"))?;
        let forked = clone3(&alone, flags, self.unified_group()).map_err(failed("clone3"))?;
        match forked {
            Forked::Child => {
                drop((ours, holder));
                self.container.directory.forget_lock();
                super::child::main(self.container, std::mem::take(&mut self.held), theirs)
            }
            Forked::Parent { child, pid } => {
                self.child = Some(Child { pidfd: child, pid, socket: ours });
                self.held = Held::default();
                self.holder = holder;
                if let Some(own) = own {
                    own.take().map_err(failed("take back processors and niceness"))?;
                }
                if let Some(own) = own_pids {
                    // Hooks and everything else that this process starts belong into its own.
                    move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::ProcessID))
                        .map_err(|errno| failed("return from the pid namespace")(errno.into()))?;
                }
                self.write_state()
            }
        }
    }

    /// Returns the monitor's end of the socket to the holder, if there is to be one.
    fn prepare_holder(&mut self) -> io::Result<Option<OwnedFd>> {
        if !self.container.plan.is_held() {
            return Ok(None);
        }
        let close = SocketFlags::CLOEXEC;
        let (ours, socket) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, close, None)?;
        let executable = self_exec::own_copy()?;
        self.held.holder = Some(HolderParts { executable, socket, alone: SingleThreaded::witness()? });
        Ok(Some(ours))
    }

    /// What is forked from now on has the command's scheduling. Returns this process's own, if that is another.
    fn lend_scheduling(&self) -> io::Result<Option<Scheduling>> {
        let Some(commands) = &self.container.options.scheduling else { return Ok(None) };
        let own = Scheduling::own()?;
        commands.take()?;
        Ok(Some(own))
    }

    /// v2: the group that PID 1 is forked into.
    fn unified_group(&self) -> Option<BorrowedFd<'_>> {
        let group = self.groups.iter().find(|group| group.group.version == cgroup::Version::V2);
        group.map(OpenGroup::directory)
    }

    /// If one is to be joined: children of this process are in it from now on. Returns the way back.
    fn enter_pid_namespace(&self) -> io::Result<Option<OwnedFd>> {
        let Some((_, theirs)) = self.held.namespaces.iter().find(|(kind, _)| *kind == Namespace::Pid) else {
            return Ok(None);
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let own = rustix::fs::open("/proc/self/ns/pid", flags, Mode::empty())?;
        move_into_link_name_space(theirs.as_fd(), Some(LinkNameSpaceType::ProcessID))?;
        Ok(Some(own))
    }

    fn write_state(&mut self) -> Result<(), StepError> {
        let Some(child) = &self.child else { return Ok(()) };
        let Container { directory, bundle, spec, .. } = &*self.container;
        let init = (child.pid, child.pidfd.as_fd());
        let state = State::new(directory.id(), init, bundle, spec).map_err(StepError::Process)?;
        self.journal.note(&state)?;
        self.state = Some(state);
        Ok(())
    }

    /// Writes down what is known of the command of a container with a holder.
    pub fn note_command(&mut self, command: HeldCommand) -> Result<(), Failed> {
        let Some(state) = &mut self.state else { return Ok(()) };
        state.command = Some(command);
        self.journal.note(state).map_err(|error| failure("journal", FailureKind::Host, &error))
    }

    /// Whether the container stands still. That nobody can say is no standing still.
    pub fn is_paused(&self) -> bool {
        groups::is_paused(&self.journal).unwrap_or(false)
    }

    /// Writes down that the container is set up.
    pub fn note_set_up(&mut self) -> Result<(), Failed> {
        let Some(state) = &mut self.state else { return Ok(()) };
        state.is_set_up = true;
        self.journal.note(state).map_err(|error| failure("journal", FailureKind::Host, &error))
    }

    fn map_users(&self, users: &[IdMapping], groups: &[IdMapping]) -> Result<(), StepError> {
        let Some(child) = &self.child else { return Ok(()) };
        for (file, mappings) in [("uid_map", users), ("gid_map", groups)] {
            // The number is the child's: it is ours and not yet reaped.
            let path = PathBuf::from(format!("/proc/{}/{file}", child.pid));
            let lines: String = mappings
                .iter()
                .map(|map| format!("{} {} {}\n", map.container_id, map.host_id, map.size))
                .collect();
            let written = std::fs::OpenOptions::new().write(true).open(&path);
            written
                .and_then(|mut file| file.write_all(lines.as_bytes()))
                .map_err(|source| StepError::MapUsers { path, source })?;
        }
        say(&child.socket, &ChildMessage::Go)
            .map_err(|errno| StepError::Fork { call: "tell the child to go on", source: errno.into() })
    }

    /// The hooks of `stage`, to be run in the host's namespaces, if there are any.
    pub fn hooks(&self, stage: Stage) -> Option<HookSequence> {
        if !hooks::has(&self.container.spec, stage) {
            return None;
        }
        let state = self.state.as_ref()?.to_oci(status(stage));
        Some(HookSequence::new(&self.container.spec, stage, state, Surroundings::own()))
    }

    /// Runs the `poststop` hooks; what they say is for the log. One that runs when `interrupt` is readable is killed.
    pub fn run_poststop(&self, interrupt: Option<BorrowedFd<'_>>) -> Vec<String> {
        let Some(state) = &self.state else { return Vec::new() };
        let failures = hooks::run_poststop(&self.container.spec, state.to_oci(Status::Stopped), interrupt);
        failures.iter().map(|error| format!("failed to {}", sentence(error))).collect()
    }

    /// Duplicates of the control group directories, to be held by somebody else.
    pub fn group_directories(&self) -> io::Result<Vec<OwnedFd>> {
        self.groups.iter().map(|group| group.directory().try_clone_to_owned()).collect()
    }

    /// Kills PID 1, and with it whatever is in its groups: frozen on v1 it ends only when it is let go on, and who is left
    /// could freeze it again before it does.
    pub fn kill(&self) -> io::Result<()> {
        let Some(child) = &self.child else { return Ok(()) };
        kill_init(child.pidfd.as_fd())?;
        // What resists is told when the groups are removed.
        groups::kill_all(&self.journal).unwrap_or(());
        Ok(())
    }

    /// Kills and reaps PID 1, if there is one.
    pub fn abort(&mut self) {
        let killed = self.kill();
        // Both fail only if it has ended or was reaped, which is what is wanted.
        if let (Ok(()), Some(child)) = (killed, self.child.take()) {
            drop(wait::wait(child.pidfd.as_fd()));
        }
    }

    /// Reads what the container used, kills whatever is left of it and undoes every step.
    pub fn finish(&mut self) -> Finished {
        self.abort();
        let counters = cgroup::counters(&self.groups);
        self.groups.clear();
        let Container { plan, options, .. } = &mut *self.container;
        // PID 1 counted its own: the steps, the command found, all ready. Here it is "everything is killed".
        options.stop.go_on_after(plan.host.len() + plan.child.len() + 2);
        options.stop.pass();
        Finished { counters, undone: undo::undo_each(&self.journal, || options.stop.pass()) }
    }
}

/// What the container is while the hooks of a stage run.
fn status(stage: Stage) -> Status {
    match stage {
        Stage::CreateRuntime | Stage::CreateContainer => Status::Creating,
        Stage::StartContainer => Status::Created,
        Stage::PostStart => Status::Running,
        Stage::PostStop => Status::Stopped,
    }
}

/// `CLONE_NEW*` of linux/sched.h, and the name below `/proc/<pid>/ns`.
fn in_kernel(kind: Namespace) -> (libc::c_int, &'static str) {
    match kind {
        Namespace::User => (libc::CLONE_NEWUSER, "user"),
        Namespace::Mount => (libc::CLONE_NEWNS, "mnt"),
        Namespace::Pid => (libc::CLONE_NEWPID, "pid"),
        Namespace::Network => (libc::CLONE_NEWNET, "net"),
        Namespace::Ipc => (libc::CLONE_NEWIPC, "ipc"),
        Namespace::Uts => (libc::CLONE_NEWUTS, "uts"),
        Namespace::Cgroup => (libc::CLONE_NEWCGROUP, "cgroup"),
    }
}

/// Whose fault it is when `step` fails.
fn kind_of(step: &Step) -> FailureKind {
    match step {
        Step::OpenNamespace { .. } | Step::CloneBind { .. } | Step::CloneRoot { .. } => FailureKind::Spec,
        _ => FailureKind::Host,
    }
}
