//! `run` and `create`: from a bundle to a container.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use lexopt::{Arg, ValueExt};

use super::{Global, Problem};
use crate::execute::{self, Container, Options, Outlet, Signals, StopPoint};
use crate::host::HostFacts;
use crate::id::ContainerId;
use crate::launch::messages::send_report;
use crate::launch::self_exec;
use crate::launch::{Failed, FailureKind, Report};
use crate::state::ContainerDirectory;
use crate::sys::descriptors;
use crate::{plan, spec};

/// What both commands are told.
#[derive(Default)]
struct Request {
    id: Option<ContainerId>,
    bundle: PathBuf,
    pid_file: Option<PathBuf>,
    options: Options,
    detach: bool,
    // Private, from `launch`.
    root_fd: Option<i32>,
    report_fd: Option<i32>,
    lifeline_fd: Option<i32>,
}

/// `run`: the container's whole life.
pub(super) fn run(global: &Global, arguments: lexopt::Parser) -> Result<u8, Problem> {
    let request = parse(arguments)?;
    protect(&request)?;
    let taken = |number: Option<i32>| number.map(descriptors::take).transpose();
    let bad = |error| Problem::because("take a descriptor over", &error);
    let outlet = Outlet {
        report: taken(request.report_fd).map_err(bad)?,
        lifeline: taken(request.lifeline_fd).map_err(bad)?,
        pid_file: request.pid_file.clone(),
    };
    let root = taken(request.root_fd).map_err(bad)?;
    if request.detach {
        return detach(global, request, root);
    }
    super::delete::sweep(global);
    // Before the host is touched: from here on a signal ends no half-made container but the whole of it.
    let signals = match block_signals() {
        Ok(signals) => signals,
        Err(problem) => return Err(report(&outlet, problem)),
    };
    match prepare(global, request, root) {
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
    protect(&request)?;
    let root = request.root_fd.map(descriptors::take).transpose();
    let root = root.map_err(|error| Problem::because("take a descriptor over", &error))?;
    create_detached(global, request, root).map(|_| 0)
}

fn create_detached(global: &Global, request: Request, root: Option<OwnedFd>) -> Result<ContainerId, Problem> {
    let pid_file = request.pid_file.clone();
    let signals = block_signals()?;
    let container = prepare(global, request, root)?;
    let id = container.directory.id().clone();
    let wants_terminal = container.spec.process.as_ref().is_some_and(|process| process.terminal);
    if wants_terminal && container.options.console_socket.is_none() {
        return forget(container, "a terminal needs --console-socket, because nobody stays to hold it");
    }
    let creation = execute::create(container, signals);
    creation.warnings.iter().for_each(|warning| global.log.warning(warning));
    let pid = creation.outcome.map_err(Problem::NotStarted)?;
    if let Some(path) = pid_file {
        std::fs::write(&path, pid.to_string())
            .map_err(|error| Problem::because(&format!("write {}", path.display()), &error))?;
    }
    Ok(id)
}

fn forget(container: Container, why: &str) -> Result<ContainerId, Problem> {
    container.directory.remove().map_err(|error| Problem::because("remove the container", &error))?;
    Err(Problem::Failed(format!("failed to create the container: {why}")))
}

fn detach(global: &Global, request: Request, root: Option<OwnedFd>) -> Result<u8, Problem> {
    let id = create_detached(global, request, root)?;
    super::start::start_created(global, &id)
}

fn block_signals() -> Result<Signals, Problem> {
    Signals::block().map_err(|error| Problem::because("block signals", &error))
}

/// The first thing that is done, while no descriptor of our own is open.
fn protect(request: &Request) -> Result<(), Problem> {
    if let Some(missing) = descriptors::first_missing(2 + request.options.preserve_fds) {
        let count = request.options.preserve_fds;
        return Err(Problem::Usage(format!("--preserve-fds {count}: descriptor {missing} is not open")));
    }
    self_exec::protect().map_err(|error| Problem::Failed(format!("failed to {}", execute::sentence(&error))))
}

/// Claims the id and plans.
fn prepare(global: &Global, request: Request, root: Option<OwnedFd>) -> Result<Container, Problem> {
    let spec_fault = |error: &dyn std::error::Error| {
        Problem::NotStarted(execute::failure("plan", FailureKind::Spec, error))
    };
    if global.systemd_cgroup {
        return Err(Problem::Failed(
            "the systemd cgroup driver is not there yet: leave --systemd-cgroup out and give a cgroupsPath"
                .into(),
        ));
    }
    let Some(id) = request.id else { return Err(Problem::Usage("give the container's id".into())) };
    let bundle = absolute(&request.bundle)?;
    let loaded = spec::load(&bundle).map_err(|error| spec_fault(&error))?;
    for warning in &loaded.warnings {
        global.log.warning(&warning.to_string());
    }
    let facts = HostFacts::gather()
        .map_err(|error| Problem::NotStarted(execute::failure("plan", FailureKind::Host, &error)))?;
    let plan = plan::plan(&id, &loaded.spec, &facts).map_err(|error| spec_fault(&error))?;
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
        root,
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
    let failed = match &problem {
        Problem::NotStarted(failed) => failed.clone(),
        Problem::Usage(sentence) | Problem::Failed(sentence) => {
            Failed { step: "command line".into(), kind: FailureKind::Host, message: sentence.clone() }
        }
    };
    match send_report(std::os::fd::AsFd::as_fd(socket), &Report::Failed(failed)) {
        Ok(()) => problem,
        Err(errno) => Problem::because("report to the caller", &std::io::Error::from(errno)),
    }
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
                let number: u16 = arguments.value()?.parse()?;
                request.options.preserve_fds = number.into();
            }
            Arg::Long("no-new-keyring") => request.options.keep_keyring = true,
            Arg::Long("detach") | Arg::Short('d') => request.detach = true,
            Arg::Long("root-fd") => request.root_fd = Some(arguments.value()?.parse()?),
            Arg::Long("report-fd") => request.report_fd = Some(arguments.value()?.parse()?),
            Arg::Long("lifeline-fd") => request.lifeline_fd = Some(arguments.value()?.parse()?),
            Arg::Long("stop-after") => request.options.stop = StopPoint::after(arguments.value()?.parse()?),
            // Of runc: no subreaper is ever made here, and a chroot instead of pivot_root holds nobody.
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
