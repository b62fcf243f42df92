//! `docker-worker standalone`: a queue with the API of Taskcluster's, and its worker, in one process.
//!
//! ```text
//!   official clients ──► HTTP API ──► queue, kept in a file below the data directory
//!                           ▲
//!                           └──────── worker: the loop of `start`, by the same API
//! ```
//!
//! The worker calls the queue as any other would, over loopback, at an address of its own, which only users of this host can
//! find and call, with credentials like anybody. So each of its runs has credentials of its own, the bytes of artifacts go
//! where clients look for them, a request for tasks is held until there is one, and what a worker held that was killed is
//! resolved by its successor as in a deployment.

mod announcement;
mod backup;
mod clients;
mod options;
mod place;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;

use self::announcement::announce;
use self::options::Action;
pub use self::options::StandaloneArguments;
use super::environment;
use super::operator::Operator;
use super::recovery::{leave_alone, recover};
use super::refusal::Refusal;
use super::serving::{self, Grounds, Process, Ready};
use super::{FAILED, HOST_UNFIT};
use crate::claim_file::HeldRun;
use crate::cleanup::Unfinished;
use crate::config::{Config, ConfigFile};
use crate::line_writer::LineWriter;
use crate::queue::{
    Credentials, EmbeddedQueue, QueueError, Reason, RunState, Verdict, WorkerIdentity, WorkerQueue,
};
use crate::standalone::{
    Client, LONG_POLL, RootUrl, Settings, Standalone, StandaloneError, credentials_file,
};

/// Who the worker is to its queue.
const WORKER: &str = "local/worker";

/// Characters of a worker's name, at most.
const WORKER_ID_CHARS: usize = 38;

impl StandaloneArguments {
    /// Has the process go on without the proxies and secrets that its environment names: begun anew.
    pub(super) fn leave_environment(&mut self, operator: &Operator) -> Result<(), Refusal> {
        self.secrets = environment::leave_out(operator)?;
        Ok(())
    }
}

/// The command.
pub(super) fn main(options: &StandaloneArguments, mut config: Config, operator: &Operator) -> ExitCode {
    let done = match (&options.action, &options.backup, &options.restore) {
        (Some(Action::Client(client)), _, _) => clients::change(&client.action, &config.directories),
        (None, Some(file), _) => backup::back_up(file, &config.directories, operator),
        (None, None, Some(file)) => place::restore(file, &config.directories),
        (None, None, None) => {
            options.complete(&mut config.file, operator);
            serving::complete(&mut config, ConfigFile::in_force_with_own_queue);
            options::require_names(&config.file).and_then(|()| run(options, config, operator))
        }
    };
    let status = match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => refusal.tell(operator),
    };
    operator.out().finish();
    status
}

fn run(options: &StandaloneArguments, config: Config, operator: &Operator) -> Result<(), Refusal> {
    let out = serving::output();
    let ended = serve(options, config, &out, operator);
    out.finish();
    ended
}

/// Serves the queue and has its tasks carried out until the process is to end.
fn serve(
    options: &StandaloneArguments,
    mut config: Config,
    out: &LineWriter,
    operator: &Operator,
) -> Result<(), Refusal> {
    let grounds = Grounds::prepare(&config, operator)?;
    // Before anything else is taken: there may be another process that has it.
    let queue = place::open(&config.directories)?;
    let root = credentials_file::read_or_make(&config.directories.data)
        .map_err(|error| Refusal::because(FAILED, &error))?;
    let unfinished =
        recover(&config.directories, operator).map_err(|error| Refusal::because(HOST_UNFIT, &error))?;
    let identity = identity(&mut config.file, &grounds.host.name);
    let process = Process::begin(&config.file, out, operator)?;
    let worker = worker_client(&config.file, &identity)?;
    let settings = Settings {
        address: options.listen,
        root_url: options.root_url.clone(),
        storage: place::artifacts(&config.directories),
        root: root.clone(),
        clients: vec![worker.clone()],
        further_clients: Some(config.directories.data.clone()),
        long_poll: LONG_POLL,
        events: process.log.events(),
    };
    let server =
        process.runtime.block_on(Standalone::start(queue.clone(), settings)).map_err(cannot_serve)?;
    let here = format!("http://{}", as_reached_from_here(server.address()));
    let root_url = options.root_url.as_ref().map_or(here.as_str(), RootUrl::as_str);
    config.file.root_url = Some(root_url.to_owned());
    let unfinished = process.runtime.block_on(own(unfinished, &queue, (&identity, root_url), operator))?;
    process.runtime.block_on(hand_back(&unfinished, &queue, &identity, operator))?;
    let own = format!("http://{}", server.own_address());
    let worker_queue = WorkerQueue::deployment(&own, worker.credentials)
        .map_err(|error| Refusal::because(FAILED, &error))?;
    announce(&config, &root, server.address(), operator);
    let service = process.service(config, grounds, (worker_queue, identity))?;
    server.show(&service.worker);
    if let Some(live_logs) = &service.worker.live_log {
        let comes_from_elsewhere = options.root_url.is_some() || !server.address().ip().is_loopback();
        if comes_from_elsewhere && live_logs.is_for_this_host_only() {
            operator.note(
                "URLs of live logs lead all readers to their own host: set host, and logging.liveLogAddress if that is loopback, so that others than the page can follow tasks",
            );
        }
    }
    let ended = Ready { service, unfinished, process, queue: Some(queue.clone()) }.serve(None);
    drop(server);
    // Last: until now calls may have come.
    drop(queue);
    ended
}

fn cannot_serve(error: StandaloneError) -> Refusal {
    let Refusal { status, sentence } = Refusal::because(FAILED, &error);
    let remedy = match error {
        StandaloneError::Listen { .. } => "; choose another address with --listen",
        StandaloneError::Storage { .. } => "; choose another directory with --data",
    };
    Refusal::new(status, sentence + remedy)
}

/// Where this host reaches a server that listens there.
fn as_reached_from_here(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Who the worker is: the host, unless the configuration says otherwise.
fn identity(file: &mut ConfigFile, host_name: &str) -> WorkerIdentity {
    let worker_id = file.worker_id.get_or_insert_with(|| worker_id(host_name)).clone();
    WorkerIdentity { worker_group: file.worker_group().to_owned(), worker_id }
}

/// A host's name as a queue takes that of a worker.
fn worker_id(host_name: &str) -> String {
    let fits = |letter: &char| letter.is_ascii_alphanumeric() || "-_".contains(*letter);
    let (first, _) = host_name.split_once('.').unwrap_or((host_name, ""));
    let name: String = first.chars().filter(fits).take(WORKER_ID_CHARS).collect();
    if name.is_empty() { "worker".to_owned() } else { name }
}

/// The worker's own credentials, good as long as this process: it may do what a worker does, and no more.
fn worker_client(file: &ConfigFile, identity: &WorkerIdentity) -> Result<Client, Refusal> {
    let WorkerIdentity { worker_group, worker_id } = identity;
    let pool = file.worker_pool();
    let access_token = credentials_file::new_access_token().map_err(serving::cannot_start)?;
    Ok(Client {
        credentials: Credentials { client_id: WORKER.to_owned(), access_token, certificate: None },
        scopes: vec![
            format!("queue:claim-work:{pool}"),
            format!("queue:worker-id:{worker_group}/{worker_id}"),
            format!("queue:get-worker:{pool}/{worker_group}/{worker_id}"),
            format!("purge-cache:purge-requests::{pool}"),
            "auth:expand-scopes".to_owned(),
        ],
    })
}

/// The unfinished runs that this queue has given to this worker, whatever the queue's address was then. Those of which it
/// knows nothing any more, for an older copy has taken its place, are forgotten; those of deployments, whose workers have
/// the same directories, are left alone.
async fn own(
    unfinished: Vec<Unfinished>,
    queue: &EmbeddedQueue,
    (worker, root_url): (&WorkerIdentity, &str),
    operator: &Operator,
) -> Result<Vec<Unfinished>, Refusal> {
    let (mut own, mut others) = (Vec::new(), Vec::new());
    for run in unfinished {
        let HeldRun { run: id, worker: holder, root_url: place, .. } = &run.held;
        let known = match queue.status(&id.task_id).await {
            Ok(status) => status.runs.into_iter().find(|known| known.run_id == id.run_id),
            Err(QueueError::NotFound { .. }) => None,
            Err(error) => return Err(Refusal::because(FAILED, &error)),
        };
        match known {
            Some(known) if known.worker.as_ref() == Some(worker) => own.push(run),
            None if holder == worker && place.trim_end_matches('/') == root_url => forget(run, operator),
            Some(_) | None => others.push(run),
        }
    }
    leave_alone(&others, operator);
    Ok(own)
}

fn forget(unfinished: Unfinished, operator: &Operator) {
    let run = unfinished.held.run.clone();
    let note = match unfinished.remove() {
        Ok(()) => format!("removed what was left of {run}: the queue knows nothing of it"),
        Err(problem) => format!("failed to remove what is left of {run}: {problem}"),
    };
    operator.note(&note);
}

/// Resolves the runs that this worker's predecessor had and of which nothing is left on this host: it died before it had
/// written one down, or the host was started anew. Nobody else has them, as only one process has the queue.
async fn hand_back(
    unfinished: &[Unfinished],
    queue: &EmbeddedQueue,
    worker: &WorkerIdentity,
    operator: &Operator,
) -> Result<(), Refusal> {
    let failed = |error: QueueError| Refusal::because(FAILED, &error);
    for run in queue.runs_of(worker).await.map_err(failed)? {
        if unfinished.iter().any(|known| known.held.run == run) {
            continue;
        }
        let shutdown = Verdict::Exception(Reason::WorkerShutdown);
        queue.run(run.clone()).settle(shutdown).await.map_err(failed)?;
        let follows = match queue.status(&run.task_id).await.map_err(failed)?.state {
            RunState::Pending => "its task runs again",
            _ => "its task has no retries left",
        };
        operator.note(&format!("nothing is left of {run}, which was this worker's: {follows}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_called_as_its_host_as_far_as_a_queue_takes_that() {
        let long = "x".repeat(50);
        for (host_name, expected) in [
            ("builder-7", "builder-7"),
            ("builder-7.example.com", "builder-7"),
            ("gr\u{fc}n", "grn"),
            ("", "worker"),
            (".local", "worker"),
            (&long, &long[..38]),
        ] {
            assert_eq!(worker_id(host_name), expected, "{host_name}");
        }
    }

    #[test]
    fn a_server_that_listens_everywhere_is_reached_over_loopback() {
        for (address, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("192.0.2.1:1", "192.0.2.1:1"),
        ] {
            assert_eq!(as_reached_from_here(address.parse().unwrap()).to_string(), expected);
        }
    }
}
