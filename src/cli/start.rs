//! `docker-worker start`: a worker of a Taskcluster deployment.
//!
//! Standard output carries the worker's own log, and under worker-runner the protocol's messages between its lines.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::task::LocalSet;

use self::deployment::{Deployment, own};
use self::options::HostKind;
use super::environment::{self, Secrets};
use super::operator::Operator;
use super::recovery::recover;
use super::refusal::Refusal;
use super::signals::{self, Asked};
use super::{FAILED, HOST_UNFIT, process, scheduling};
use crate::artifact::Store;
use crate::artifact::upload::{Pace, Uploader};
use crate::cleanup::Unfinished;
use crate::config::{Config, ConfigFile};
use crate::host::{self, Facts};
use crate::interrupt::{Interrupt, Notice};
use crate::line_writer::{LineWriter, Stream};
use crate::live_log::{LiveLogError, LiveLogServer};
use crate::net::Network;
use crate::payload::Origin;
use crate::readiness::write_all;
use crate::signing_key::SigningKey;
use crate::task::image::Pulling;
use crate::task::run::RunOptions;
use crate::text::chain;
use crate::worker::assembly::{Parts, assemble, pull_options};
use crate::worker::control::Control;
use crate::worker::exit::{self, ExitRequester, ExitRequests};
use crate::worker::log::{Entry, WorkerLog};
use crate::worker::runner::Runner;
use crate::worker::{Fitness, PurgeRights, Quarantine, Service, serve};

mod deployment;
mod options;

pub use self::options::{StartArguments, in_our_words};

impl StartArguments {
    /// Tells whoever has started this worker that its configuration cannot be used.
    pub(super) fn tell_no_start(&self, sentence: &str) {
        if !self.print_config {
            let out = LineWriter::new(Stream::Output, lost_line);
            self.host.tell_no_start(&out, sentence);
            out.finish();
        }
    }

    /// Has the worker go on without the proxies and secrets that its environment names: in the same process, begun anew.
    pub(super) fn leave_environment(&mut self, operator: &Operator) -> Result<(), Refusal> {
        if self.print_config {
            self.secrets = Secrets::of_environment();
            return Ok(());
        }
        let what = "failed to start without the proxies and secrets of the environment";
        let failed = |error| Refusal::new(FAILED, format!("{what}: {error}"));
        self.secrets = environment::leave_out(operator).map_err(failed)?;
        Ok(())
    }
}

/// The command.
pub(super) fn main(options: &StartArguments, mut config: Config, operator: &Operator) -> ExitCode {
    options.complete(&mut config.file);
    config.file.capacity = scheduling::capacity(&config.file).or(config.file.capacity);
    config.file.ed25519_signing_key_location = SigningKey::location(&config.file);
    config.file = config.file.in_force();
    config.directories.volume_caches.clone_from(&config.file.cache.volume_cache_path);
    if options.print_config {
        return print(&config.file);
    }
    if config.file.shutdown.node_termination_poll.is_there() {
        operator.note(
            "the cloud is not asked for the end of this machine: worker-runner, or SIGTERM, tells of it",
        );
    }
    let status = match start(options.host, config, operator) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => refusal.tell(operator),
    };
    operator.out().finish();
    status
}

fn start(host: HostKind, config: Config, operator: &Operator) -> Result<(), Refusal> {
    let out = LineWriter::new(Stream::Output, lost_line);
    let ended = match prepare(config, &out, operator) {
        Ok(ready) => ready.serve(host, &out),
        Err(refusal) => {
            host.tell_no_start(&out, &refusal.sentence);
            Err(refusal)
        }
    };
    out.finish();
    ended
}

/// A worker that can claim.
struct Ready {
    service: Service,
    unfinished: Vec<Unfinished>,
    runtime: tokio::runtime::Runtime,
    exit: (ExitRequester, ExitRequests),
}

fn cannot_start(error: io::Error) -> Refusal {
    Refusal::new(HOST_UNFIT, format!("failed to start: {error}"))
}

/// Looks at the host, undoes what a dead worker has left, and makes what runs need.
fn prepare(config: Config, out: &LineWriter, operator: &Operator) -> Result<Ready, Refusal> {
    let deployment = Deployment::of(&config.file)?;
    require_disk(config.file.docker_volume.as_deref())?;
    // A worker of a deployment makes room by itself, or waits for it.
    let facts = Facts { wanted_free_bytes: 0, ..Facts::gather(&config) };
    let unfit = |unfit: host::Unfit| Refusal::new(HOST_UNFIT, unfit.to_string());
    host::require(&facts).map_err(unfit)?;
    host::require_network(&facts).map_err(unfit)?;
    let mut host_part = host::part(&facts, config.file.container_limits(), config.file.socketcall());
    scheduling::arrange(&config.file, &facts, &mut host_part, operator)?;
    process::set_up().map_err(|error| Refusal::because(HOST_UNFIT, &error))?;
    let unfinished =
        recover(&config.directories, operator).map_err(|error| Refusal::because(HOST_UNFIT, &error))?;
    let unfinished = own(unfinished, &config.file, &deployment.identity, operator);
    operator.out().detach().map_err(cannot_start)?;
    out.detach().map_err(cannot_start)?;
    let log = WorkerLog::new(out.clone(), &config.file);
    let (requester, requests) = exit::channel();
    listen(&requester, &log, operator).map_err(cannot_start)?;
    let network = Arc::new(Network::new(&config.directories, &config.file.network));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot_start)?;
    let live_log = runtime.block_on(serve_live_logs(&config.file, &log));
    let service = service(config, deployment, (host_part, network), live_log, log)?;
    Ok(Ready { service, unfinished, runtime, exit: (requester, requests) })
}

impl Ready {
    /// Claims tasks until the worker is to end.
    fn serve(self, host: HostKind, out: &LineWriter) -> Result<(), Refusal> {
        let Ready { service, unfinished, runtime, exit: (requester, requests) } = self;
        let log = service.log.clone();
        // Another worker may have the task.
        let offer = || {
            Control::offer(&service.worker, Interrupt::Shutdown, &|message| {
                log.write(&Entry::Warning { message })
            })
        };
        let control = runtime.block_on(async { offer() });
        let runner = match host {
            HostKind::None => None,
            HostKind::WorkerRunner => Some(Runner::connect(out.clone()).map_err(cannot_start)?),
        };
        // Whoever passes a future on copies it, and the stack keeps the pages of each copy for ever.
        let serving = Box::pin(serve(service, unfinished, runner, requester, requests));
        let ended = LocalSet::new().block_on(&runtime, serving);
        drop(control);
        // A connection that is still open must not keep the process.
        runtime.shutdown_background();
        ended.map_err(|error| Refusal::because(FAILED, &error))
    }
}

impl HostKind {
    /// Tells whoever has started this worker why it does not start. Standard error has it as well, so that nothing is lost
    /// where this fails.
    fn tell_no_start(self, out: &LineWriter, sentence: &str) {
        match self {
            HostKind::None => {}
            HostKind::WorkerRunner => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
                // Only now: before this the process could have one thread only.
                if let (Ok(runtime), Ok(runner)) = (runtime, Runner::connect(out.clone())) {
                    runtime.block_on(runner.report_no_start(sentence));
                }
            }
        }
    }
}

/// A disk that cannot be measured would let the worker claim nothing.
fn require_disk(volume: Option<&Path>) -> Result<(), Refusal> {
    let measured = volume.map_or(Ok(()), |volume| host::measure(volume).map(drop));
    measured.map_err(|error| {
        let remedy = "let dockerVolume name a directory that is there, or leave it out";
        Refusal::new(HOST_UNFIT, format!("failed to {}; {remedy}", chain(&error)))
    })
}

fn service(
    config: Config,
    deployment: Deployment,
    (host, network): (host::Host, Arc<Network>),
    live_log: Option<LiveLogServer>,
    log: WorkerLog,
) -> Result<Service, Refusal> {
    let uploader = Uploader::new(Pace::default())
        .map_err(|error| Refusal::new(HOST_UNFIT, format!("failed to set up TLS for uploads: {error}")))?;
    let (worker, notice) =
        assemble(Parts { config, network: Some(network), host, events: log.events(), live_log })
            .map_err(|error| Refusal::because(HOST_UNFIT, &error))?;
    if let Some(notice) = notice {
        log.write(&Entry::Warning { message: &notice });
    }
    let origin = Origin::Queue;
    let pull = pull_options(&worker.config.file, origin);
    let options = RunOptions {
        store: Store::Queue(uploader),
        origin,
        payload_pointer: "/payload",
        pulling: Pulling { options: pull, observer: Arc::new(|_| {}) },
    };
    let Deployment { queue, identity } = deployment;
    let worker = Arc::new(worker);
    let (quarantine, fitness) = (Quarantine::default(), Fitness::default());
    let purge_rights = PurgeRights::default();
    Ok(Service { worker, queue, identity, options, log, quarantine, fitness, purge_rights })
}

/// The server of live logs. Without one tasks run all the same, and their logs are there when they have ended.
async fn serve_live_logs(file: &ConfigFile, log: &WorkerLog) -> Option<LiveLogServer> {
    match LiveLogServer::start(file, log.events()).await {
        Ok(server) => Some(server),
        Err(error) => {
            let message = &format!("failed to {}", chain(&error));
            log.write(&match error {
                LiveLogError::Tls(_) => Entry::SslCertificate { message },
                LiveLogError::Listen { .. } | LiveLogError::HostName(_) => Entry::Warning { message },
            });
            None
        }
    }
}

/// Signals end the worker now: its tasks are for others. Another one does not wait for their logs.
fn listen(requester: &ExitRequester, log: &WorkerLog, operator: &Operator) -> io::Result<()> {
    let (requester, log) = (requester.clone(), log.clone());
    signals::listen(operator.clone(), move |asked| match asked {
        Asked::FromTheKeyboard | Asked::ToEnd => {
            log.write(&Entry::Terminating);
            requester.insist(Notice::Signal);
        }
    })
}

/// An entry of the worker's log in place of those that nobody read.
fn lost_line(count: u64) -> String {
    format!("{{\"type\":\"[alert-operator] lines lost\",\"count\":{count}}}")
}

fn print(file: &ConfigFile) -> ExitCode {
    // Plain strings, numbers and words: there is nothing that JSON cannot hold.
    let text = serde_json::to_string_pretty(file).unwrap_or_default() + "\n";
    match write_all(io::stdout(), text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(FAILED),
    }
}
