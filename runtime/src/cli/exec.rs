//! `exec`: a further process in a container that runs.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use lexopt::{Arg, ValueExt};

use super::{Global, HELP, Problem, Reached, print};
use crate::execute::{self, Exec, Signals, Stay};
use crate::groups;
use crate::id::ContainerId;
use crate::launch::messages::send_exec_report;
use crate::launch::{ExecReport, FailureKind, self_exec};
use crate::plan::{PlanError, UserName, plan_exec};
use crate::spec::{self, Id, Process, Spec};
use crate::state::{ContainerDirectory, Known, Status};
use crate::sys::descriptors::{self, TakeError};

/// What it is told.
#[derive(Default)]
struct Request {
    id: Option<ContainerId>,
    arguments: Vec<String>,
    /// What the process is, in place of what the container's own is.
    process: Option<Description>,
    changes: Changes,
    preserve_fds: u16,
    console_socket: Option<PathBuf>,
    pid_file: Option<PathBuf>,
    detach: bool,
    /// Those of [`crate::launch::launch_exec`].
    report_fd: Option<RawFd>,
    process_fd: Option<RawFd>,
}

/// Where it stands what a process is.
enum Description {
    File(PathBuf),
    /// Handed over by [`crate::launch::launch_exec`].
    Handed(File),
}

/// What of the process is to be otherwise.
#[derive(Default)]
struct Changes {
    terminal: bool,
    cwd: Option<PathBuf>,
    env: Vec<String>,
    user: Option<UserName>,
    groups: Vec<Id>,
    capabilities: Vec<String>,
    profile: Option<String>,
    no_new_privileges: bool,
}

pub(super) fn exec(global: &mut Global, arguments: lexopt::Parser) -> Result<u8, Problem> {
    let Some(mut request) = parse(arguments)? else { return print(HELP) };
    let protected = self_exec::protect()
        .map_err(|error| Problem::Failed(format!("failed to {}", execute::sentence(&error))));
    let numbers = [request.report_fd, request.process_fd];
    let [report, process] =
        descriptors::take_over(request.preserve_fds, numbers).map_err(|error| match error {
            TakeError::Kernel(_) => Problem::Failed(format!("failed to {}", execute::sentence(&error))),
            given => Problem::Usage(given.to_string()),
        })?;
    request.process = process.map(|file| Description::Handed(file.into())).or(request.process);
    let Some(report) = report else {
        return protected.and_then(|()| carry_out(global, request, None));
    };
    // Standard error is the command's; the caller is told.
    global.log.print_nothing();
    let carried_out = match request.detach || request.console_socket.is_some() {
        true => Err(Problem::Usage("--report-fd is for who stays and takes the terminal by it".into())),
        false => protected.and_then(|()| carry_out(global, request, Some(&report))),
    };
    carried_out.map_err(|problem| {
        let send = |failed| send_exec_report(report.as_fd(), &ExecReport::Failed(failed));
        let (problem, reached) = problem.told(send);
        if reached == Reached::Nobody {
            global.log.print_unwritten();
        }
        problem
    })
}

fn carry_out(global: &Global, request: Request, report: Option<&OwnedFd>) -> Result<u8, Problem> {
    let Some(id) = request.id.clone() else { return Err(Problem::Usage("give the container's id".into())) };
    let exec = prepare(global, request, &id)?;
    let mut signals = Signals::block().map_err(|error| Problem::because("block signals", &error))?;
    let ended = execute::exec(exec, report, &mut signals).map_err(Problem::NotStarted)?;
    Ok(ended.map_or(0, |ended| u8::try_from(ended.status()).unwrap_or(u8::MAX)))
}

fn prepare(global: &Global, request: Request, id: &ContainerId) -> Result<Exec, Problem> {
    let because = |error: &dyn std::error::Error| Problem::because(&format!("exec in {id}"), error);
    let refused = |why: &str| Problem::Failed(format!("failed to exec in {id}: {why}"));
    let directory = ContainerDirectory::open(&global.root, id).map_err(|error| because(&error))?;
    let known = directory.look().map_err(|error| because(&error))?;
    let (state, init) = match known {
        Known { status: Status::Running, state: Some(state), init: Some(init), .. } => (state, init),
        Known { status: Status::Paused, .. } => {
            return Err(refused("it is paused; `resume` it first"));
        }
        // The words that podman and containerd look for.
        Known { status: Status::Stopped, .. } => return Err(refused("container not running")),
        Known { status, .. } => return Err(refused(&format!("it is {status}; `start` it first"))),
    };
    let spec = directory.spec().map_err(|error| because(&error))?;
    let process = process(global, &request, &spec)?;
    check_terminal(&process, &request).map_err(refused)?;
    let by_name = request.changes.user.filter(|name| numbers(name).is_none());
    let plan = plan_exec(&spec, &process, by_name).map_err(|error: PlanError| {
        Problem::NotStarted(execute::failure("plan", FailureKind::Spec, &error))
    })?;
    let journal = directory.journal().map_err(|error| because(&error))?;
    let joined = journal.map(|journal| groups::open_to_join(&journal, state.pid)).transpose();
    let joined = joined.map_err(|error| because(&error))?.flatten();
    Ok(Exec {
        plan,
        init,
        user_namespace: state.user_namespace,
        groups: joined.ok_or_else(|| refused("container not running: it has just ended"))?,
        preserve_fds: request.preserve_fds,
        console_socket: request.console_socket,
        pid_file: request.pid_file,
        stay: if request.detach { Stay::Detached } else { Stay::ToTheEnd },
    })
}

/// The container's process, or the one of `--process`, with what the command line changes.
fn process(global: &Global, request: &Request, spec: &Spec) -> Result<Process, Problem> {
    let own = spec.process.clone();
    let mut process = match (&request.process, own) {
        (Some(description), own) => read_process(global, description, own.as_ref())?,
        (None, Some(own)) => own,
        (None, None) => {
            return Err(Problem::Failed("failed to exec: the container's Spec has no process".into()));
        }
    };
    if request.process.is_none() {
        process.terminal = false;
        process.console_size = None;
    }
    if !request.arguments.is_empty() {
        process.args.clone_from(&request.arguments);
    } else if request.process.is_none() {
        return Err(Problem::Usage("give the command, or --process".into()));
    }
    let changes = &request.changes;
    process.terminal |= changes.terminal;
    process.no_new_privileges |= changes.no_new_privileges;
    process.cwd = changes.cwd.clone().unwrap_or(process.cwd);
    process.env.extend(changes.env.iter().cloned());
    process.user.additional_gids.extend(&changes.groups);
    process.apparmor_profile = changes.profile.clone().or(process.apparmor_profile);
    let unknown = process.capabilities.add(&changes.capabilities);
    if !unknown.is_empty() {
        return Err(Problem::Usage(format!("unknown capabilities: {}", unknown.join(" "))));
    }
    // Without a group the process's own stays, as in runc.
    if let Some((uid, gid)) = changes.user.as_ref().and_then(numbers) {
        process.user.uid = uid;
        process.user.gid = gid.unwrap_or(process.user.gid);
    }
    Ok(process)
}

/// The user's numbers, if it is not asked for by name.
fn numbers(name: &UserName) -> Option<(Id, Option<Id>)> {
    let gid = name.group.as_deref().map(str::parse).transpose().ok()?;
    Some((name.user.parse().ok()?, gid))
}

/// A terminal needs somebody to hold it.
fn check_terminal(process: &Process, request: &Request) -> Result<(), &'static str> {
    match (process.terminal, &request.console_socket) {
        (true, None) if request.detach => {
            Err("a terminal needs --console-socket, because nobody stays to hold it")
        }
        (false, Some(_)) => Err("--console-socket takes a terminal: give --tty, or leave it out"),
        _ => Ok(()),
    }
}

/// What the file does not say is as the container's own process has it: less is never granted by leaving something out.
fn read_process(
    global: &Global,
    description: &Description,
    own: Option<&Process>,
) -> Result<Process, Problem> {
    let (text, path, what) = match description {
        Description::File(path) => {
            (super::read_text(path), path.as_path(), format!("the process {}", path.display()))
        }
        Description::Handed(file) => {
            (super::read_bounded(&mut &*file), Path::new("the process"), "the process".to_owned())
        }
    };
    let text = text.map_err(|error| Problem::because(&format!("read {what}"), &error))?;
    let loaded = spec::load_process(&text, path)
        .map_err(|error| Problem::NotStarted(execute::failure("plan", FailureKind::Spec, &error)))?;
    for warning in &loaded.warnings {
        global.log.warning(&warning.to_string());
    }
    for unknown in &loaded.unknown {
        global.log.remark(&unknown.to_string());
    }
    let spec::GivenProcess { mut process, has_capabilities } = loaded.value;
    let Some(own) = own else { return Ok(process) };
    if !has_capabilities {
        process.capabilities = own.capabilities.clone();
    }
    if process.rlimits.is_empty() {
        process.rlimits.clone_from(&own.rlimits);
    }
    process.apparmor_profile = process.apparmor_profile.or_else(|| own.apparmor_profile.clone());
    process.oom_score_adj = process.oom_score_adj.or(own.oom_score_adj);
    process.no_new_privileges |= own.no_new_privileges;
    Ok(process)
}

/// `NAME` or `NAME:GROUP`, either also a number.
fn user(text: &str) -> Result<UserName, Problem> {
    if text.is_empty() || text.starts_with(':') {
        return Err(Problem::Usage(format!("{text:?} names no user")));
    }
    Ok(match text.split_once(':') {
        Some((user, group)) if !group.is_empty() => UserName { user: user.into(), group: Some(group.into()) },
        Some((user, _)) => UserName { user: user.into(), group: None },
        None => UserName { user: text.into(), group: None },
    })
}

/// `None`: help is asked for. What stands behind the id is the command's, whatever it looks like.
fn parse(mut arguments: lexopt::Parser) -> Result<Option<Request>, Problem> {
    let mut request = Request::default();
    let changes = &mut request.changes;
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(None),
            Arg::Long("process") | Arg::Short('p') => {
                request.process = Some(Description::File(arguments.value()?.into()));
            }
            Arg::Long("tty") | Arg::Short('t') => changes.terminal = true,
            Arg::Long("cwd") => changes.cwd = Some(arguments.value()?.into()),
            Arg::Long("env") | Arg::Short('e') => changes.env.push(arguments.value()?.string()?),
            Arg::Long("user") | Arg::Short('u') => changes.user = Some(user(&arguments.value()?.string()?)?),
            Arg::Long("additional-gids") | Arg::Short('g') => {
                let text = arguments.value()?.string()?;
                let gid =
                    text.parse().map_err(|()| Problem::Usage(format!("{text:?} is no group's number")))?;
                changes.groups.push(gid);
            }
            Arg::Long("cap") | Arg::Short('c') => changes.capabilities.push(arguments.value()?.string()?),
            Arg::Long("apparmor") => changes.profile = Some(arguments.value()?.string()?),
            Arg::Long("no-new-privs") => changes.no_new_privileges = true,
            Arg::Long("preserve-fds") => request.preserve_fds = arguments.value()?.parse()?,
            Arg::Long("console-socket") => request.console_socket = Some(arguments.value()?.into()),
            Arg::Long("report-fd") => request.report_fd = Some(arguments.value()?.parse()?),
            Arg::Long("process-fd") => request.process_fd = Some(arguments.value()?.parse()?),
            Arg::Long("pid-file") => request.pid_file = Some(arguments.value()?.into()),
            Arg::Long("detach") | Arg::Short('d') => request.detach = true,
            Arg::Value(id) => {
                request.id = Some(ContainerId::new(&id.to_string_lossy())?);
                break;
            }
            other => return Err(other.unexpected().into()),
        }
    }
    for word in arguments.raw_args()? {
        request.arguments.push(word.string()?);
    }
    Ok(Some(request))
}
