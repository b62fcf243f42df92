//! `run` and `create`: from a bundle to a container.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use lexopt::{Arg, ValueExt};

use super::{Global, Problem};
use crate::cgroup::Joined;
use crate::execute::{self, Container, Options, Outlet, Signals};
use crate::host::HostFacts;
use crate::id::ContainerId;
use crate::launch::messages::send_report;
use crate::launch::self_exec;
use crate::launch::{FailureKind, Report, Until};
use crate::spec::Spec;
use crate::state::ContainerDirectory;
use crate::sys::descriptors::{self, TakeError};
use crate::{plan, spec};

/// What both commands are told.
#[derive(Default)]
struct Request {
    id: Option<ContainerId>,
    bundle: PathBuf,
    pid_file: Option<PathBuf>,
    options: Options,
    detach: bool,
    until: Until,
    // Private, from `launch`.
    root_fd: Option<i32>,
    network_fd: Option<i32>,
    report_fd: Option<i32>,
    lifeline_fd: Option<i32>,
}

/// What the caller holds for the container.
struct Held {
    root: Option<OwnedFd>,
    /// Opened again by its path, [`crate::launch::NETWORK_PATH`].
    network: Option<OwnedFd>,
}

/// `run`: the container's whole life.
pub(super) fn run(global: &Global, arguments: lexopt::Parser) -> Result<u8, Problem> {
    let request = parse(arguments)?;
    let (held, outlet) = take_over(&request)?;
    if request.detach {
        return detach(global, request, (held, outlet));
    }
    super::delete::sweep(global);
    // Before the host is touched: from here on a signal ends no half-made container but the whole of it.
    let signals = match block_signals() {
        Ok(signals) => signals,
        Err(problem) => return Err(report(&outlet, problem)),
    };
    match prepare(global, request, held) {
        Ok(container) => {
            let run = execute::run(container, outlet, signals);
            run.warnings.iter().for_each(|warning| global.log.warning(warning));
            let exited = run.outcome.map_err(Problem::NotStarted)?;
            Ok(u8::try_from(exited.status).unwrap_or(u8::MAX))
        }
        Err(problem) => Err(report(&outlet, problem)),
    }
}

/// `create`: up to the point where the command would start.
pub(super) fn create(global: &Global, arguments: lexopt::Parser) -> Result<u8, Problem> {
    let request = parse(arguments)?;
    if request.detach || request.report_fd.is_some() || request.lifeline_fd.is_some() {
        return Err(Problem::Usage("--detach, --report-fd and --lifeline-fd belong to run".into()));
    }
    let taken = take_over(&request)?;
    create_detached(global, request, taken).map(|_| 0)
}

fn create_detached(
    global: &Global,
    mut request: Request,
    (held, outlet): (Held, Outlet),
) -> Result<(ContainerId, Signals), Problem> {
    request.detach = true;
    let mut signals = block_signals()?;
    let container = prepare(global, request, held)?;
    let id = container.directory.id().clone();
    let creation = execute::create(container, outlet, &mut signals);
    creation.warnings.iter().for_each(|warning| global.log.warning(warning));
    creation.outcome.map_err(Problem::NotStarted)?;
    Ok((id, signals))
}

fn detach(global: &Global, request: Request, taken: (Held, Outlet)) -> Result<u8, Problem> {
    let (id, signals) = create_detached(global, request, taken)?;
    signals.release().map_err(|error| Problem::because("let signals through", &error))?;
    super::start::start_created(global, &id)
}

fn block_signals() -> Result<Signals, Problem> {
    Signals::block().map_err(|error| Problem::because("block signals", &error))
}

/// The first thing that is done, while no descriptor of our own is open.
fn take_over(request: &Request) -> Result<(Held, Outlet), Problem> {
    self_exec::protect()
        .map_err(|error| Problem::Failed(format!("failed to {}", execute::sentence(&error))))?;
    let numbers = [request.root_fd, request.network_fd, request.report_fd, request.lifeline_fd];
    let [root, network, report, lifeline] = descriptors::take_over(request.options.preserve_fds, numbers)
        .map_err(|error| match error {
            TakeError::Kernel(_) => Problem::Failed(format!("failed to {}", execute::sentence(&error))),
            given => Problem::Usage(given.to_string()),
        })?;
    Ok((Held { root, network }, Outlet { report, lifeline, pid_file: request.pid_file.clone() }))
}

/// Who holds the terminal, if the Spec asks for one.
fn check_terminal(spec: &Spec, request: &Request) -> Result<(), Problem> {
    let wants_terminal = spec.process.as_ref().is_some_and(|process| process.terminal);
    let why = match (wants_terminal, &request.options.console_socket) {
        (true, None) if request.detach => {
            "a terminal needs --console-socket, because nobody stays to hold it"
        }
        (false, Some(_)) => "--console-socket takes a terminal: set process.terminal, or leave it out",
        _ => return Ok(()),
    };
    Err(Problem::Failed(format!("failed to create the container: {why}")))
}

/// Claims the id and plans.
fn prepare(global: &Global, request: Request, held: Held) -> Result<Container, Problem> {
    let spec_fault = |error: &dyn std::error::Error| {
        Problem::NotStarted(execute::failure("plan", FailureKind::Spec, error))
    };
    if global.systemd_cgroup {
        return Err(Problem::Failed(
            "the systemd cgroup driver is not there yet: leave --systemd-cgroup out and give a cgroupsPath"
                .into(),
        ));
    }
    let Some(id) = request.id.clone() else { return Err(Problem::Usage("give the container's id".into())) };
    let bundle = absolute(&request.bundle)?;
    let loaded = spec::load(&bundle).map_err(|error| spec_fault(&error))?;
    for warning in &loaded.warnings {
        global.log.warning(&warning.to_string());
    }
    for unknown in &loaded.unknown {
        global.log.remark(&unknown.to_string());
    }
    check_terminal(&loaded.spec, &request)?;
    let facts = HostFacts::gather()
        .map_err(|error| Problem::NotStarted(execute::failure("plan", FailureKind::Host, &error)))?;
    // An engine that creates a container and goes away counts and limits it later; a caller that stays has said all.
    let joined = if request.detach { Joined::All } else { Joined::Needed };
    let plan = plan::plan_joined(&id, &loaded.spec, &facts, joined).and_then(|plan| match request.until {
        Until::CommandEnds => Ok(plan),
        Until::ToldToGo => plan.held(),
    });
    let plan = plan.map_err(|error| spec_fault(&error))?;
    if global.debug {
        plan.to_string().lines().for_each(|step| global.log.debug(step.trim_start()));
    }
    // A worker removes its state root when it cleans up after another that was killed: a monitor of that one, which is
    // still on its way to here, must not bring it back.
    let claim = match request.lifeline_fd {
        Some(_) => ContainerDirectory::create,
        None => ContainerDirectory::create_with_root,
    };
    let directory = claim(&global.root, &id)
        .map_err(|error| Problem::NotStarted(execute::failure("state", FailureKind::Host, &error)))?;
    Ok(Container {
        directory,
        bundle,
        spec: loaded.spec,
        config: loaded.text,
        plan,
        root: held.root,
        network: held.network,
        options: request.options,
    })
}

fn absolute(bundle: &Path) -> Result<PathBuf, Problem> {
    let bundle = if bundle.as_os_str().is_empty() { Path::new(".") } else { bundle };
    std::fs::canonicalize(bundle)
        .map_err(|error| Problem::because(&format!("find the bundle {}", bundle.display()), &error))
}

/// What went wrong before there was a container reaches the worker as well.
fn report(outlet: &Outlet, problem: Problem) -> Problem {
    let Some(socket) = &outlet.report else { return problem };
    problem.told(|failed| send_report(socket.as_fd(), &Report::Failed(failed))).0
}

fn parse(mut arguments: lexopt::Parser) -> Result<Request, Problem> {
    let mut request = Request::default();
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("bundle") | Arg::Short('b') => request.bundle = arguments.value()?.into(),
            Arg::Long("pid-file") => request.pid_file = Some(arguments.value()?.into()),
            Arg::Long("console-socket") => {
                request.options.console_socket = Some(arguments.value()?.into());
            }
            Arg::Long("preserve-fds") => {
                request.options.preserve_fds = arguments.value()?.parse()?;
            }
            Arg::Long("no-new-keyring") => request.options.keep_keyring = true,
            Arg::Long("hold") => request.until = Until::ToldToGo,
            Arg::Long("detach") | Arg::Short('d') => request.detach = true,
            Arg::Long("root-fd") => request.root_fd = Some(arguments.value()?.parse()?),
            Arg::Long("network-fd") => request.network_fd = Some(arguments.value()?.parse()?),
            Arg::Long("report-fd") => request.report_fd = Some(arguments.value()?.parse()?),
            Arg::Long("lifeline-fd") => request.lifeline_fd = Some(arguments.value()?.parse()?),
            Arg::Long("command-scheduling") => {
                request.options.scheduling = Some(arguments.value()?.parse()?);
            }
            #[cfg(feature = "test-stop-points")]
            Arg::Long("stop-after") => {
                request.options.stop = execute::StopPoint::after(arguments.value()?.parse()?)
            }
            // Of runc: no subreaper is ever made here, as the help says, and a chroot instead of pivot_root holds nobody.
            Arg::Long("no-subreaper") => {}
            Arg::Long("no-pivot") => {
                return Err(Problem::Failed(
                    "--no-pivot would leave the host's tree reachable: refused".into(),
                ));
            }
            Arg::Value(id) if request.id.is_none() => {
                request.id = Some(ContainerId::new(&id.to_string_lossy())?);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(request)
}
