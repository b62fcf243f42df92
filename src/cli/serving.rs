//! What `start` and `standalone` have in common: a process that claims tasks of a queue until it is told to end.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use super::operator::Operator;
use super::refusal::Refusal;
use super::signals::{self, Asked};
use super::{FAILED, HOST_UNFIT, fence, process, scheduling};
use crate::artifact::Store;
use crate::artifact::upload::{Pace, Uploader};
use crate::cleanup::Unfinished;
use crate::config::{Config, ConfigFile};
use crate::download::Downloader;
use crate::host::{self, Facts, Host};
use crate::interrupt::{Interrupt, Notice};
use crate::line_writer::{LineWriter, Stream};
use crate::live_log::{LiveLogError, LiveLogServer};
use crate::net::Network;
use crate::payload::Origin;
use crate::proxy::Proxy;
use crate::queue::{EmbeddedQueue, WorkerIdentity, WorkerQueue};
use crate::signing_key::SigningKey;
use crate::task::image::Pulling;
use crate::task::run::RunOptions;
use crate::text::chain;
use crate::worker::assembly::{Parts, assemble, pull_options};
use crate::worker::control::Control;
use crate::worker::exit::{self, ExitRequester, ExitRequests};
use crate::worker::log::{Entry, WorkerLog};
use crate::worker::runner::Runner;
use crate::worker::{Fitness, PurgeRights, Quarantine, Service, Superseding, serve};

/// What runs need of the host.
pub(super) struct Grounds {
    pub(super) host: Host,
    network: Arc<Network>,
}

/// A process with an event loop that hears signals.
pub(super) struct Process {
    pub(super) log: WorkerLog,
    pub(super) runtime: Runtime,
    exit: (ExitRequester, ExitRequests),
}

/// A worker that can claim.
pub(super) struct Ready {
    pub(super) service: Service,
    pub(super) unfinished: Vec<Unfinished>,
    pub(super) process: Process,
    /// The queue that it claims from, if that is in this process.
    pub(super) queue: Option<EmbeddedQueue>,
}

/// The way to standard output, which carries the worker's own log.
pub(super) fn output() -> LineWriter {
    LineWriter::new(Stream::Output, lost_line)
}

/// An entry of the worker's log in place of those that nobody read.
fn lost_line(count: u64) -> String {
    format!("{{\"type\":\"[alert-operator] lines lost\",\"count\":{count}}}")
}

pub(super) fn cannot_start(error: io::Error) -> Refusal {
    Refusal::new(HOST_UNFIT, format!("failed to start: {error}"))
}

/// Completes a configuration by what is known of this host, and by defaults.
pub(super) fn complete(config: &mut Config, by_defaults: impl FnOnce(ConfigFile) -> ConfigFile) {
    config.file.capacity = scheduling::capacity(&config.file).or(config.file.capacity);
    config.file.ed25519_signing_key_location = SigningKey::location(&config.file);
    config.file = by_defaults(std::mem::take(&mut config.file));
    config.directories.volume_caches.clone_from(&config.file.cache.volume_cache_path);
}

impl Grounds {
    /// Looks at the host, and prepares this process for its tasks. Call before any thread is started.
    pub(super) fn prepare(config: &Config, operator: &Operator) -> Result<Grounds, Refusal> {
        require_disk(config.file.docker_volume.as_deref())?;
        let facts = Facts::gather(config);
        if facts.disk_is_too_small() {
            operator.note(&format!(
                "no task will be claimed: capacityManagement.diskspaceThreshold is {} MB, and the whole disk of {} has {} MB",
                facts.wanted_free_bytes / 1_000_000,
                facts.data.display(),
                facts.disk_bytes.unwrap_or_default() / 1_000_000
            ));
        }
        // A worker that serves a queue makes room by itself, or waits for it.
        let facts = Facts { wanted_free_bytes: 0, ..facts };
        let unfit = |unfit: host::Unfit| Refusal::new(HOST_UNFIT, unfit.to_string());
        host::require(&facts).map_err(unfit)?;
        host::require_network(&facts).map_err(unfit)?;
        let mut host = host::part(&facts, config.file.container_limits(), config.file.socketcall());
        scheduling::arrange(&config.file, &facts, &mut host, operator)?;
        process::set_up().map_err(|error| Refusal::because(HOST_UNFIT, &error))?;
        let network = Arc::new(Network::new(&config.directories, &config.file.network));
        Ok(Grounds { host, network })
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

impl Process {
    /// Begins to hear signals. Until now they end the process, whatever it waits for.
    pub(super) fn begin(
        file: &ConfigFile,
        out: &LineWriter,
        operator: &Operator,
    ) -> Result<Process, Refusal> {
        operator.out().detach().map_err(cannot_start)?;
        out.detach().map_err(cannot_start)?;
        let log = WorkerLog::new(out.clone(), file);
        let exit = exit::channel();
        listen(&exit.0, &log, operator).map_err(cannot_start)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Process { log, runtime: runtime.map_err(cannot_start)?, exit })
    }

    /// Puts a worker together that claims tasks of a queue.
    pub(super) fn service(
        &self,
        config: Config,
        Grounds { host, network }: Grounds,
        (queue, identity): (WorkerQueue, WorkerIdentity),
    ) -> Result<Service, Refusal> {
        let log = self.log.clone();
        let live_log = self.runtime.block_on(serve_live_logs(&config.file, &log));
        let uploader = Uploader::new(Pace::default()).map_err(|error| {
            Refusal::new(HOST_UNFIT, format!("failed to set up TLS for uploads: {error}"))
        })?;
        let (worker, notice) =
            assemble(Parts { config, network: Some(network), host, events: log.events(), live_log })
                .map_err(|error| Refusal::because(HOST_UNFIT, &error))?;
        let without = match &worker.profile {
            Some(_) => fence::prepare(&worker).map_err(|error| Refusal::because(HOST_UNFIT, &error))?,
            // `check` says so, and each task's log.
            None => None,
        };
        for message in notice.iter().chain(&without) {
            log.write(&Entry::Warning { message });
        }
        let origin = Origin::Queue;
        let pull = pull_options(&worker.config.file, origin);
        let options = RunOptions {
            store: Store::Queue(uploader),
            origin,
            payload_pointer: "/payload",
            pulling: Pulling {
                options: pull,
                observer: Arc::new(|_| {}),
                downloader: Downloader::default(),
                // Their claims come with it.
                deployment: None,
            },
        };
        let worker = Arc::new(worker);
        Ok(Service {
            worker,
            queue,
            identity,
            options,
            log,
            quarantine: Quarantine::default(),
            fitness: Fitness::default(),
            purge_rights: PurgeRights::default(),
            superseding: Superseding::default(),
        })
    }
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

/// Ends the process that has served tasks. Whoever asks for more meanwhile does not wait: it is being killed by then, and
/// the rest is undone by its monitor or the next start.
async fn end(proxy: &Proxy, insisting: &mut ExitRequests) {
    let asked = insisting.asked();
    tokio::select! {
        () = proxy.stop() => {}
        _ = insisting.more_than(asked) => {}
    }
}

/// Signals end the worker now: its tasks are for others. Another one does not wait for their logs.
fn listen(requester: &ExitRequester, log: &WorkerLog, operator: &Operator) -> io::Result<()> {
    let (requester, log) = (requester.clone(), log.clone());
    signals::listen(operator.clone(), move |asked| {
        log.write(match asked {
            Asked::FromTheKeyboard => &Entry::TerminatingFromTheKeyboard,
            Asked::ToEnd => &Entry::Terminating,
        });
        requester.insist(Notice::Signal);
    })
}

impl Ready {
    /// Claims tasks until the worker is to end.
    pub(super) fn serve(self, runner: Option<Runner>) -> Result<(), Refusal> {
        let Ready { service, unfinished, process, queue } = self;
        let Process { log, runtime, exit: (requester, requests) } = process;
        // Another worker may have the task.
        let offer = || {
            Control::offer(&service.worker, (Interrupt::Shutdown, queue), &|message| {
                log.write(&Entry::Warning { message })
            })
        };
        let control = runtime.block_on(async { offer() });
        // Whoever passes a future on copies it, and the stack keeps the pages of each copy for ever.
        let (worker, proxy) = (Arc::clone(&service.worker), service.worker.proxy.clone());
        let mut insisting = requests.clone();
        let serving = Box::pin(serve(service, unfinished, runner, requester, requests));
        let ended = LocalSet::new().block_on(&runtime, serving);
        if let Some(proxy) = proxy {
            runtime.block_on(end(&proxy, &mut insisting));
        }
        fence::close(&worker, &|message| log.write(&Entry::Warning { message }));
        drop(control);
        // A connection that is still open must not keep the process.
        runtime.shutdown_background();
        ended.map_err(|error| Refusal::because(FAILED, &error))
    }
}
