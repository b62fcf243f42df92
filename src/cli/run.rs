//! `docker-worker run`: one task here and now, no Taskcluster needed.
//!
//! The embedded queue gets the task and hands it out at once, so that a task runs here by the same
//! rules as anywhere. Standard output carries exactly the task log.

pub mod options;
pub mod progress;
mod stdout;

use std::fs::File;
use std::io::Read;
use std::process::ExitCode;
use std::sync::Arc;

use images::store::{PullOptions, Store};
use tokio::signal::unix::{SignalKind, signal};

use self::options::{NetworkMode, RunArguments};
use self::progress::{Audience, observer};
use super::{FAILED, HOST_UNFIT, WRONG_USE, complain, process, say};
use crate::artifact::Destination;
use crate::cache::Caches;
use crate::cleanup::clean_up;
use crate::config::Config;
use crate::event::{Event, Events};
use crate::host::{self, Facts};
use crate::net::Network;
use crate::queue::{Claim, EmbeddedQueue, Queue, WorkerIdentity};
use crate::task::artifact_name::ArtifactName;
use crate::task::carry_out;
use crate::task::claimed::Claimed;
use crate::task::definition::{Submission, Submitted};
use crate::task::error::chain;
use crate::task::interrupt::{Interrupt, Interrupter, channel};
use crate::task::limits;
use crate::task::payload::Origin;
use crate::task::resolution::State;
use crate::task::resolving::Resolved;
use crate::task::run::Worker;
use crate::task::task_id::TaskId;
use crate::timestamp::Timestamp;

/// The status of a task that cannot be carried out as it is written.
const MALFORMED: u8 = 120;

/// The status of a worker that failed.
const EXCEPTION: u8 = 122;

/// The file beside the artifacts that says how the run ended.
const RESOLUTION: &str = "resolution.json";

/// Why there is no run; status and sentence.
struct Refusal(u8, String);

impl Refusal {
    fn because(status: u8, error: &dyn std::error::Error) -> Refusal {
        Refusal(status, format!("failed to {}", chain(error)))
    }
}

/// A task that only has to run.
struct Order {
    task_id: TaskId,
    submitted: Submitted,
    events: Events,
    audience: Audience,
}

/// What a task is carried out with.
struct Means {
    destination: Destination,
    network: Option<Arc<Network>>,
}

/// The command.
pub fn main(options: RunArguments, config: Config) -> ExitCode {
    match run(options, config) {
        Ok(status) => ExitCode::from(status),
        Err(Refusal(status, sentence)) => complain(status, &sentence),
    }
}

fn run(options: RunArguments, config: Config) -> Result<u8, Refusal> {
    options.check().map_err(|error| Refusal(WRONG_USE, error.to_string()))?;
    let order = order(&options)?;
    let facts = Facts::gather(&config);
    let network =
        network(&options, &config, &facts).map_err(|unfit| Refusal(HOST_UNFIT, unfit.to_string()))?;
    // With the operator's umask: it is their directory.
    let means = Means { destination: destination(&options)?, network };
    process::set_up().map_err(|error| Refusal::because(HOST_UNFIT, &error))?;
    // Before signals are listened to: until then they end the worker, whatever it waits for.
    recover(&config, &order.events)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Refusal(HOST_UNFIT, format!("failed to start: {error}")))?;
    let status = runtime.block_on(carry_out_order(order, means, config, &facts));
    // A copy to standard output that nobody reads must not keep the process.
    runtime.shutdown_background();
    status
}

/// The network for the task, if this host can run tasks and the operator wants one.
fn network(
    options: &RunArguments,
    config: &Config,
    facts: &Facts,
) -> Result<Option<Arc<Network>>, host::Unfit> {
    host::require(facts)?;
    match options.network.unwrap_or(NetworkMode::Default) {
        NetworkMode::None => Ok(None),
        NetworkMode::Default => {
            host::require_network(facts)?;
            Ok(Some(Arc::new(Network::new(&config.directories, &config.file.network))))
        }
    }
}

/// Reads the task, before anything of the host is touched.
fn order(options: &RunArguments) -> Result<Order, Refusal> {
    let mut submission = match &options.task {
        Some(path) => {
            let unreadable = |error: std::io::Error| {
                Refusal(WRONG_USE, format!("failed to read the task file {}: {error}", path.display()))
            };
            let mut bytes = Vec::new();
            // One byte more than is allowed, so that the limit is noticed.
            let most = limits::DEFINITION_BYTES as u64 + 1;
            File::open(path).map_err(unreadable)?.take(most).read_to_end(&mut bytes).map_err(unreadable)?;
            Submission::parse(&bytes).map_err(|error| Refusal::because(MALFORMED, &error))?
        }
        None => options.bare_payload(),
    };
    options.apply(&mut submission);
    let no_id = |error| Refusal(HOST_UNFIT, format!("failed to make a task id: {error}"));
    let task_id = TaskId::random().map_err(no_id)?;
    let submitted = submission
        .into_task(&task_id, Timestamp::now())
        .map_err(|error| Refusal::because(MALFORMED, &error))?;
    let (events, audience) =
        if options.json { (Events::json(), Audience::Nobody) } else { (Events::none(), Audience::People) };
    let order = Order { task_id, submitted, events, audience };
    order.announce(options);
    Ok(order)
}

fn destination(options: &RunArguments) -> Result<Destination, Refusal> {
    match &options.artifacts {
        Some(path) => Destination::directory(path).map_err(|error| Refusal::because(WRONG_USE, &error)),
        None => Ok(Destination::Nowhere),
    }
}

impl Order {
    fn announce(&self, options: &RunArguments) {
        for warning in &self.submitted.warnings {
            self.warn(&warning.to_string());
        }
        if options.artifacts.is_none() {
            self.warn("no artifact is kept; name a directory with --artifacts DIR to keep them");
        }
    }

    fn warn(&self, message: &str) {
        warn(&self.events, message);
    }
}

/// Tells the operator, in whichever form they chose.
fn warn(events: &Events, message: &str) {
    if events.is_on() {
        events.emit(&Event::Warning { message });
    } else {
        say(message);
    }
}

async fn carry_out_order(order: Order, means: Means, config: Config, facts: &Facts) -> Result<u8, Refusal> {
    let Order { task_id, submitted, events, audience } = order;
    let Means { destination, network } = means;
    let (interrupter, interrupts) = channel();
    listen(interrupter.clone())
        .map_err(|error| Refusal(HOST_UNFIT, format!("failed to listen for signals: {error}")))?;
    let (queue, claim, config) = claim(&task_id, &submitted, config, facts).await?;
    let worker = Arc::new(worker(
        config,
        queue,
        facts,
        WorkerParts { payload_pointer: submitted.payload_pointer, events: events.clone(), audience, network },
    )?);
    let destination = Arc::new(destination);
    let (claimed, follower) = Claimed::begin(&worker, claim, &destination, (interrupter, interrupts.clone()))
        .map_err(|error| Refusal::because(HOST_UNFIT, &error))?;
    let following = stdout::follow(follower)
        .map_err(|error| Refusal(FAILED, format!("failed to write the log to standard output: {error}")))?;
    let resolved = carry_out(claimed).await;
    report(&resolved, &destination, &events);
    if let Err(error) = following.finish(interrupts).await {
        warn(&events, &format!("the log on standard output is not whole: {error}"));
    }
    Ok(resolved.exit_status)
}

/// Undoes what an earlier worker that died has left here.
fn recover(config: &Config, events: &Events) -> Result<(), Refusal> {
    let sweep = clean_up(&config.directories).map_err(|error| Refusal::because(HOST_UNFIT, &error))?;
    for container_id in &sweep.removed {
        events.emit(&Event::Recovered { container_id });
    }
    for foreign in &sweep.foreign {
        warn(events, &foreign.to_string());
    }
    for (id, error) in &sweep.failed {
        warn(events, &format!("failed to remove what is left of container {id}: {}", chain(error)));
    }
    Ok(())
}

/// Turns signals into interrupts: Ctrl-C cancels, SIGTERM and a closed terminal shut down.
fn listen(interrupter: Interrupter) -> std::io::Result<()> {
    let signals = [
        (SignalKind::interrupt(), Interrupt::Cancelled),
        (SignalKind::terminate(), Interrupt::Shutdown),
        (SignalKind::hangup(), Interrupt::Shutdown),
    ];
    for (kind, interrupt) in signals {
        let mut arrivals = signal(kind)?;
        let interrupter = interrupter.clone();
        tokio::spawn(async move {
            while arrivals.recv().await.is_some() {
                interrupter.interrupt(interrupt);
            }
        });
    }
    Ok(())
}

/// Puts the task into a queue of its own and claims it.
async fn claim(
    task_id: &TaskId,
    submitted: &Submitted,
    mut config: Config,
    facts: &Facts,
) -> Result<(Queue, Claim, Config), Refusal> {
    let failed = |error| Refusal::because(EXCEPTION, &error);
    let definition = &submitted.definition;
    // The worker is of the pool that the task is for.
    config.file.provisioner_id.get_or_insert_with(|| definition.provisioner_id.clone());
    config.file.worker_type.get_or_insert_with(|| definition.worker_type.clone());
    let identity = WorkerIdentity {
        worker_group: config.file.worker_group().to_owned(),
        worker_id: config.file.worker_id.clone().unwrap_or_else(|| facts.name.clone()),
    };
    let queue = Queue::InProcess(EmbeddedQueue::in_memory(Box::new(Timestamp::now)).map_err(failed)?);
    queue.create_task(task_id, definition).await.map_err(|error| Refusal::because(MALFORMED, &error))?;
    let claims = queue.claim_work(&definition.task_queue_id, &identity, 1).await.map_err(failed)?;
    match claims.into_iter().next() {
        Some(claim) => Ok((queue, claim, config)),
        None => Err(Refusal(EXCEPTION, "failed to claim the task: the queue has none".to_owned())),
    }
}

struct WorkerParts {
    payload_pointer: &'static str,
    events: Events,
    audience: Audience,
    network: Option<Arc<Network>>,
}

fn worker(config: Config, queue: Queue, facts: &Facts, parts: WorkerParts) -> Result<Worker, Refusal> {
    let unfit = |error: &dyn std::error::Error| Refusal::because(HOST_UNFIT, error);
    let store = Store::open(&config.directories.images()).map_err(|error| unfit(&error))?;
    let caches = Caches::open(&config.directories.caches()).map_err(|error| unfit(&error))?;
    let host = host::part(facts, config.file.container_limits(), config.file.socketcall());
    let mut pull = PullOptions::new(config.file.registry_access());
    // What the operator wants to have free is kept free by a pull as well, and no more.
    pull.limits.free_disk_bytes = config.file.free_bytes();
    pull.limits.free_disk_percent = 0;
    Ok(Worker {
        network: parts.network,
        store,
        pull,
        caches,
        queue: Arc::new(queue),
        events: parts.events,
        origin: Origin::Operator,
        payload_pointer: parts.payload_pointer,
        host,
        pull_observer: observer(parts.audience),
        config,
    })
}

/// Writes `resolution.json`, and tells the operator what became of the task.
fn report(resolved: &Resolved, destination: &Destination, events: &Events) {
    let document = &resolved.document;
    if document.artifacts.iter().any(|artifact| artifact.name.as_str() == RESOLUTION) {
        warn(events, "the artifact resolution.json gives way to the run's own file of that name");
    }
    for problem in &resolved.problems {
        warn(events, problem);
    }
    let json = serde_json::to_string_pretty(document).map_err(std::io::Error::from);
    let written = json.and_then(|json| {
        let name = ArtifactName::new(RESOLUTION).map_err(std::io::Error::other)?;
        destination.write(&name, format!("{json}\n").as_bytes())
    });
    if let Err(error) = written {
        warn(events, &format!("failed to write resolution.json: {error}"));
    }
    events.emit(&Event::TaskResolved {
        task_id: document.task_id.as_str(),
        run_id: document.run_id,
        state: document.state,
        reason: (document.state == State::Exception).then_some(document.reason),
        exit_code: document.exit_code,
    });
}
