//! `docker-worker run`: one task here and now, no Taskcluster needed.
//!
//! The embedded queue gets the task and hands it out at once, so that a task runs here by the same
//! rules as anywhere. Standard output carries exactly the task log.

mod deployed;
pub mod options;
mod stdout;
mod submission;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::Value;

use self::options::{NetworkMode, RunArguments};
use self::submission::submit;
use super::environment::{Secrets, dockers_file};
use super::operator::Operator;
use super::recovery::recover;
use super::refusal::Refusal;
use super::signals::{self, Asked};
use super::{FAILED, HOST_UNFIT, IMAGE_UNAVAILABLE, WRONG_USE, fence, process, progress, scheduling};
use crate::artifact::{self, Destination, RESOLUTION};
use crate::config::{Config, ConfigFile};
use crate::directories::Directories;
use crate::download::Downloader;
use crate::event::RunEvent;
use crate::host::{self, Facts, Host};
use crate::interrupt::{Interrupt, Notice, channel};
use crate::net::Network;
use crate::payload::{Origin, meant_by};
use crate::queue::artifact_name::ArtifactName;
use crate::queue::definition::Submitted;
use crate::queue::task_id::TaskId;
use crate::queue::{
    Claim, EmbeddedQueue, RunId, RunState, TaskReader, WorkerIdentity, WorkerQueue, steady_clock,
};
use crate::standalone::RootUrl;
use crate::task::carry_out;
use crate::task::claimed::Claimed;
use crate::task::image::Pulling;
use crate::task::outcome::{End, Outcome, judge};
use crate::task::resolution_document::ResolutionDocument;
use crate::task::resolved::Resolved;
use crate::task::run::RunOptions;
use crate::text::excerpt;
use crate::timestamp::Timestamp;
use crate::worker::assembly::{Parts, assemble, pull_options};
use crate::worker::control::Control;

/// The status of a task that cannot be carried out as it is written.
const MALFORMED: u8 = 120;

/// The status of a worker that failed.
const EXCEPTION: u8 = 122;

/// Characters of what is said last about a task; its log has all of it.
const EXPLANATION_CHARS: usize = 1000;

/// The command line's task, and what it is carried out with.
struct Order {
    task_id: TaskId,
    submitted: Submitted,
    /// Who has named its image.
    origin: Origin,
    /// Where it has come from, if it is a deployment's.
    deployment: Option<RootUrl>,
    destination: Arc<Destination>,
    network: Option<Arc<Network>>,
    /// The log says what this host lacks.
    host: Host,
}

/// The command.
pub(super) fn main(options: RunArguments, config: Config, operator: &Operator) -> ExitCode {
    let ended = run(options, config, operator);
    let status = match ended {
        Ok(status) => ExitCode::from(status),
        Err(refusal) => refusal.tell(operator),
    };
    operator.out().finish();
    status
}

fn run(mut options: RunArguments, config: Config, operator: &Operator) -> Result<u8, Refusal> {
    let root_url = std::env::var("TASKCLUSTER_ROOT_URL").ok();
    options.complete(root_url.as_deref()).map_err(|error| wrong_use(&error))?;
    options.check().map_err(|error| wrong_use(&error))?;
    // With the operator's umask: it is their directory.
    let destination = Arc::new(destination(&options, &config.directories)?);
    let task_id = options.task_id.clone();
    let ended = run_into(&destination, options, config, operator);
    if ended.as_ref().is_err_and(|refusal| refusal.status == MALFORMED) {
        write_resolution(refused(task_id), &destination, operator);
    }
    ended
}

fn run_into(
    destination: &Arc<Destination>,
    options: RunArguments,
    mut config: Config,
    operator: &Operator,
) -> Result<u8, Refusal> {
    let (task_id, submitted) = submit(&options, operator)?;
    if let Some(root_url) = &options.root_url {
        config.file.root_url = Some(root_url.to_string());
    }
    let credentials = &mut config.file.docker_config.credentials_file;
    *credentials = credentials.take().or_else(dockers_file);
    let secrets = Secrets::of_environment();
    secrets.complete(&mut config.file.proxies, operator);
    secrets.complete_features(&mut config.file);
    announce(&submitted, &options, operator);
    let facts = Facts::gather(&config);
    let network =
        network(&options, &config, &facts).map_err(|unfit| Refusal::new(HOST_UNFIT, unfit.to_string()))?;
    let mut host = host::part(&facts, config.file.container_limits(), config.file.socketcall());
    if options.host_is_known {
        host.notices.clear();
    }
    scheduling::arrange(&config.file, &facts, &mut host, operator)?;
    let (origin, destination) = (options.origin(), Arc::clone(destination));
    let deployment = options.root_url.clone();
    let order = Order { task_id, submitted, origin, deployment, destination, network, host };
    process::set_up().map_err(|error| Refusal::because(HOST_UNFIT, &error))?;
    let cannot_start = |error: io::Error| Refusal::new(HOST_UNFIT, format!("failed to start: {error}"));
    // Before signals are listened to: until then they end the worker, whatever it waits for.
    recover(&config.directories, operator).map_err(|error| Refusal::because(HOST_UNFIT, &error))?;
    operator.out().detach().map_err(cannot_start)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot_start)?;
    let status = runtime.block_on(carry_out_order(order, config, operator));
    // A copy to standard output that nobody reads must not keep the process.
    runtime.shutdown_background();
    status
}

fn wrong_use(error: &options::OptionError) -> Refusal {
    Refusal::new(WRONG_USE, format!("{error} (docker-worker run --help shows what there is)"))
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

fn destination(options: &RunArguments, own: &Directories) -> Result<Destination, Refusal> {
    let Some(path) = &options.artifacts else { return Ok(Destination::Nowhere) };
    if let Some(own) = own.overlapping(path) {
        let sentence = format!(
            "artifacts cannot lie in {}: it overlaps with {}, where the worker keeps its own things; choose another directory with --artifacts",
            path.display(),
            own.display()
        );
        return Err(Refusal::new(WRONG_USE, sentence));
    }
    let destination = Destination::directory(path).map_err(|error| Refusal::because(WRONG_USE, &error))?;
    // An earlier run's would be taken for this one's, should this one not come to writing it.
    let removed = resolution_name().and_then(|name| destination.remove(&name));
    removed.map_err(|error| {
        let place = path.display();
        Refusal::new(WRONG_USE, format!("failed to remove the old {RESOLUTION} in {place}: {error}"))
    })?;
    Ok(destination)
}

fn resolution_name() -> io::Result<ArtifactName> {
    ArtifactName::new(RESOLUTION).map_err(io::Error::other)
}

/// What there is to say of a task that never became a run; its id is whatever it would have been.
fn refused(task_id: Option<TaskId>) -> io::Result<ResolutionDocument> {
    let run = RunId { task_id: task_id.map_or_else(TaskId::random, Ok)?, run_id: 0 };
    let resolution = judge(&Outcome::new(End::MalformedPayload));
    Ok(ResolutionDocument::without_container(run, &resolution, Timestamp::now()))
}

/// What the operator should know before the task runs.
fn announce(submitted: &Submitted, options: &RunArguments, operator: &Operator) {
    for warning in &submitted.warnings {
        operator.note(&warning.to_string());
    }
    let artifacts = submitted.definition.payload.get("artifacts").and_then(Value::as_object);
    if options.artifacts.is_none() && artifacts.is_some_and(|artifacts| !artifacts.is_empty()) {
        operator.note("no artifact is kept; name a directory with --artifacts DIR to keep them");
    }
}

async fn carry_out_order(order: Order, config: Config, operator: &Operator) -> Result<u8, Refusal> {
    let Order { task_id, submitted, origin, deployment, destination, network, host } = order;
    let deployment = deployment.as_ref().map(deployed::reader).transpose();
    let deployment = deployment.map_err(|error| Refusal::because(HOST_UNFIT, &error))?.map(Arc::new);
    let (interrupter, interrupts) = channel();
    let asked = interrupter.clone();
    let listener = move |signal| asked.interrupt(interrupt_by(signal), Notice::Signal);
    signals::listen(operator.clone(), listener)
        .map_err(|error| Refusal::new(HOST_UNFIT, format!("failed to listen for signals: {error}")))?;
    let (claim, config) = claim(&task_id, &submitted, config, &host.name).await?;
    let (worker, notice) =
        assemble(Parts { config, network, host, events: operator.events(), live_log: None })
            .map_err(|error| Refusal::because(HOST_UNFIT, &error))?;
    if let Some(notice) = notice {
        operator.note(&notice);
    }
    let worker = Arc::new(worker);
    if worker.config.file.require_app_armor {
        fence::prepare(&worker).map_err(|error| Refusal::because(HOST_UNFIT, &error))?;
    }
    let _control =
        Control::offer(&worker, (Interrupt::CancelledHere, None), &|message| operator.note(message));
    let from = (&submitted, origin, deployment);
    let options = run_options(&worker.config.file, from, &destination, operator);
    let begun = Claimed::begin(&worker, claim, options, (interrupter, interrupts.clone())).await;
    let (resolved, holdings, following) = match begun {
        Ok(claimed) => {
            let following = stdout::follow(claimed.log()).map_err(|error| {
                Refusal::new(FAILED, format!("failed to write the log to standard output: {error}"))
            })?;
            let (resolved, holdings) = carry_out(claimed).await;
            (resolved, holdings, Some(following))
        }
        Err(not_begun) => (not_begun.resolve().await, None, None),
    };
    if resolved.document.artifacts.iter().any(|artifact| artifact.name.as_str() == RESOLUTION) {
        operator.note("the artifact resolution.json gives way to the run's own file of that name");
    }
    write_resolution(Ok(resolved.document.clone()), &destination, operator);
    let explanation = resolved.explanation.as_deref();
    let image = submitted.definition.payload.get("image");
    let explanation = explanation.map(|text| one_sentence(text, &resolved, image));
    announce_resolution(&resolved.document, explanation.as_deref(), operator);
    if let Some(holdings) = holdings {
        holdings.give_back().await.iter().for_each(|problem| operator.note(problem));
    }
    fence::close(&worker, &|problem| operator.note(problem));
    if let Some(following) = following
        && let Err(error) = following.finish(interrupts).await
    {
        operator.note(&format!("the log on standard output is not whole: {error}"));
    }
    // People hear last what went wrong with a task, also where the log, which says it as well, has gone elsewhere.
    if let Some(text) = explanation {
        operator.explain(&text);
    }
    Ok(resolved.exit_status)
}

/// Ctrl-C is the operator's own cancellation.
fn interrupt_by(signal: Asked) -> Interrupt {
    match signal {
        Asked::FromTheKeyboard => Interrupt::CancelledHere,
        Asked::ToEnd => Interrupt::Shutdown,
    }
}

fn run_options(
    file: &ConfigFile,
    (submitted, origin, deployment): (&Submitted, Origin, Option<Arc<TaskReader>>),
    destination: &Arc<Destination>,
    operator: &Operator,
) -> RunOptions {
    RunOptions {
        store: artifact::Store::Directory(Arc::clone(destination)),
        origin,
        payload_pointer: submitted.payload_pointer,
        pulling: Pulling {
            options: pull_options(file, origin),
            observer: progress::beside_log(operator),
            downloader: Downloader::default(),
            deployment,
        },
    }
}

/// Puts the task into a queue of its own and claims it.
async fn claim(
    task_id: &TaskId,
    submitted: &Submitted,
    mut config: Config,
    host_name: &str,
) -> Result<(Claim, Config), Refusal> {
    let failed = |error| Refusal::because(EXCEPTION, &error);
    let definition = &submitted.definition;
    // The worker is of the pool that the task is for.
    config.file.provisioner_id.get_or_insert_with(|| definition.provisioner_id.clone());
    config.file.worker_type.get_or_insert_with(|| definition.worker_type.clone());
    let identity = WorkerIdentity {
        worker_group: config.file.worker_group().to_owned(),
        worker_id: config.file.worker_id.clone().unwrap_or_else(|| host_name.to_owned()),
    };
    let queue = EmbeddedQueue::in_memory(steady_clock()).map_err(failed)?;
    queue.create_task(task_id, definition).await.map_err(|error| Refusal::because(MALFORMED, &error))?;
    let queue = WorkerQueue::embedded(queue);
    let work = queue.claim_work(&definition.task_queue_id, &identity, 1).await.map_err(failed)?;
    match work.claims.into_iter().next() {
        Some(claim) => Ok((claim, config)),
        None => Err(Refusal::new(EXCEPTION, "failed to claim the task: the queue has none")),
    }
}

/// Writes `resolution.json`.
fn write_resolution(
    document: io::Result<ResolutionDocument>,
    destination: &Destination,
    operator: &Operator,
) {
    let write = || {
        let json = serde_json::to_string_pretty(&document?)?;
        destination.write(&resolution_name()?, format!("{json}\n").as_bytes())
    };
    let written: io::Result<()> = write();
    if let Err(error) = written {
        operator.note(&format!("failed to write {RESOLUTION}: {error}"));
    }
}

/// Tells programs what became of the task.
fn announce_resolution(document: &ResolutionDocument, message: Option<&str>, operator: &Operator) {
    let run = RunId { task_id: document.task_id.clone(), run_id: document.run_id };
    operator.events().of(&run).emit(&RunEvent::TaskResolved {
        state: document.state,
        reason: (document.state == RunState::Exception).then_some(document.reason),
        exit_code: document.exit_code,
        message,
    });
}

/// The lines of the log about a run's end as one bounded sentence, with what may help.
fn one_sentence(text: &str, resolved: &Resolved, image: Option<&Value>) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let meant = image.and_then(Value::as_str).and_then(meant_by);
    let hint = match meant.filter(|_| resolved.exit_status == IMAGE_UNAVAILABLE) {
        Some(meant) => format!(" (did you mean {}?)", excerpt(&meant)),
        None => String::new(),
    };
    let mut line = format!("{}: {line}", resolved.document.reason);
    if let Some((end, _)) = line.char_indices().nth(EXPLANATION_CHARS) {
        line.truncate(end);
        line.push('…');
    }
    line + &hint
}
