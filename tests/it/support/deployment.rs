//! A deployment of a test's own: the worker's own queue behind its HTTP API, in this process, and an author of tasks who
//! uses it with the official client.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use docker_worker::event::Events;
use docker_worker::queue::artifact_name::ArtifactName;
use docker_worker::queue::task_id::TaskId;
use docker_worker::queue::{Credentials, EmbeddedQueue, Part, RunState, TaskStatus, WorkerQueue};
use docker_worker::standalone::{Client, Settings, Standalone};
use docker_worker::timestamp::Timestamp;
use serde_json::{Value, json};
use taskcluster::{ClientBuilder, PurgeCache, Queue};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::caller::Signer;
use super::internet::Internet;
use super::process::{finish, read_until};
use super::wire::Wire;
use super::worker::task_definition;

/// More than any task of the tests takes.
const LIMIT: Duration = Duration::from_secs(180);
/// The pool whose tasks the tests make.
pub const POOL: &str = "proj-x/docker-worker";
/// The artifacts of a run, as many as tests make.
pub const ALL: Part<ArtifactName> = Part { after: None, most: 1000 };
const TOKEN: &str = "a token of the tests, of no use elsewhere";

/// How a deployment differs from others.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How long a claim holds.
    pub claim_time: Duration,
    /// How long a request for tasks is held.
    pub long_poll: Duration,
}

impl Default for Terms {
    fn default() -> Terms {
        Terms { claim_time: Duration::from_secs(20 * 60), long_poll: Duration::from_secs(20) }
    }
}

/// See the module's head. It ends with the value.
pub struct Deployment {
    /// Where clients reach it, by way of the wire.
    pub root_url: String,
    /// What goes between clients and server.
    pub wire: Arc<Wire>,
    /// The queue itself.
    pub queue: EmbeddedQueue,
    /// By how many milliseconds its clock is ahead of the host's.
    ahead: Arc<AtomicI64>,
    author: Arc<Queue>,
    /// What a program is started with that is to be where the server is.
    entrance: Vec<String>,
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _storage: TempDir,
}

impl Deployment {
    /// On this host's loopback.
    pub fn start(terms: Terms) -> Deployment {
        Deployment::start_with(terms, None)
    }

    /// On the loopback of a host of the test's own.
    pub fn start_on(internet: &Internet, terms: Terms) -> Deployment {
        Deployment::start_with(terms, Some(internet))
    }

    fn start_with(terms: Terms, internet: Option<&Internet>) -> Deployment {
        let storage = tempfile::Builder::new().prefix("docker-worker-test.").tempdir().unwrap();
        let ahead = Arc::new(AtomicI64::new(0));
        let hand = Arc::clone(&ahead);
        let clock =
            move || Timestamp::from_millis(Timestamp::now().as_millis() + hand.load(Ordering::Relaxed));
        let queue = EmbeddedQueue::in_memory(Box::new(clock)).unwrap();
        let queue = queue.with_claim_time(terms.claim_time);
        let settings = Settings {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            root_url: None,
            storage: storage.path().to_owned(),
            root: credentials("root"),
            clients: vec![Client { credentials: credentials("worker"), scopes: worker_scopes() }],
            further_clients: None,
            long_poll: terms.long_poll,
            events: Events::none(),
        };
        let (ready, started) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let served = queue.clone();
        let spawn = move || thread::spawn(move || serve(served, settings, &ready, stopped));
        // A thread is where the one is that has started it.
        let thread = match internet {
            Some(internet) => internet.host.within(spawn),
            None => spawn(),
        };
        let (runtime, wire, address) = started.recv_timeout(LIMIT).unwrap();
        let root_url = format!("http://{address}");
        let own = taskcluster::Credentials::new("root", TOKEN);
        let author = Queue::new(ClientBuilder::new(&root_url).credentials(own)).unwrap();
        Deployment {
            root_url,
            wire,
            queue,
            ahead,
            author: Arc::new(author),
            entrance: internet
                .map_or(Vec::new(), |it| vec!["nsenter".to_owned(), it.host.entrance(), "--".to_owned()]),
            runtime,
            stop: Some(stop),
            thread: Some(thread),
            _storage: storage,
        }
    }

    /// What a worker's configuration says of it.
    pub fn access(&self) -> Value {
        json!({
            "rootUrl": self.root_url,
            "taskcluster": { "clientId": "worker", "accessToken": TOKEN },
        })
    }

    /// The deployment as a worker sees it that has the token `token`.
    pub fn seen_with(&self, token: &str) -> WorkerQueue {
        let credentials = Credentials { access_token: token.to_owned(), ..credentials("worker") };
        WorkerQueue::deployment(&self.root_url, credentials).unwrap()
    }

    /// Somebody who signs calls by hand.
    pub fn signer(&self, client_id: &str) -> Signer {
        Signer { client_id: client_id.to_owned(), access_token: TOKEN.to_owned(), certificate: None }
    }

    /// The deployment as its worker sees it.
    pub fn seen(&self) -> WorkerQueue {
        self.seen_with(TOKEN)
    }

    /// Carries something out where the server is.
    pub fn within<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let (answer, answered) = mpsc::channel();
        self.runtime.spawn(async move { answer.send(work.await) });
        answered.recv_timeout(LIMIT).expect("no answer from the deployment")
    }

    /// Lets so much time pass for the queue. Its credentials and signatures go by the same clock: after a quarter of an
    /// hour it finds those that are signed on this host stale.
    pub fn pass(&self, time: Duration) {
        self.ahead.fetch_add(i64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
    }

    /// A task definition around a payload: it may be changed before it is created.
    pub fn definition(&self, payload: &Value) -> Value {
        task_definition(POOL, self.queue.now(), payload)
    }

    /// Makes a task.
    pub fn create(&self, payload: &Value) -> TaskId {
        self.create_task(self.definition(payload))
    }

    /// Makes a task of a definition.
    pub fn create_task(&self, definition: Value) -> TaskId {
        let task_id = TaskId::random().unwrap();
        let (author, id) = (Arc::clone(&self.author), task_id.clone());
        self.within(async move { author.createTask(id.as_str(), &definition).await.unwrap() });
        task_id
    }

    /// Cancels a task.
    pub fn cancel(&self, task_id: &TaskId) {
        let (author, id) = (Arc::clone(&self.author), task_id.clone());
        self.within(async move { author.cancelTask(id.as_str()).await.unwrap() });
    }

    /// Asks for the caches of this name to be purged, as far as they are there now.
    pub fn purge_cache(&self, name: &str) {
        let own = taskcluster::Credentials::new("root", TOKEN);
        let service = PurgeCache::new(ClientBuilder::new(&self.root_url).credentials(own)).unwrap();
        let request = json!({ "cacheName": name });
        self.within(async move { service.purgeCache(POOL, &request).await.unwrap() });
    }

    /// The state of a task.
    pub fn status(&self, task_id: &TaskId) -> TaskStatus {
        let (queue, id) = (self.queue.clone(), task_id.clone());
        self.within(async move { queue.status(&id).await.unwrap() })
    }

    /// Waits until a task is as a test wants it.
    pub fn await_status(
        &self,
        task_id: &TaskId,
        is_so: impl Fn(&TaskStatus) -> bool + Send + 'static,
    ) -> TaskStatus {
        let (queue, id) = (self.queue.clone(), task_id.clone());
        let mut changes = queue.changes();
        let waiting = async move {
            loop {
                changes.mark_unchanged();
                let status = queue.status(&id).await.unwrap();
                if is_so(&status) {
                    return Ok(status);
                }
                // Outside so that the last status can be told.
                if tokio::time::timeout(LIMIT / 2, changes.changed()).await.is_err() {
                    return Err(status);
                }
            }
        };
        self.within(waiting).unwrap_or_else(|status| panic!("waited for another status than {status:#?}"))
    }

    /// Waits until a worker has a task.
    pub fn await_running(&self, task_id: &TaskId) -> TaskStatus {
        self.await_status(task_id, |status| status.state == RunState::Running)
    }

    /// Waits until a task is resolved for good.
    pub fn await_resolved(&self, task_id: &TaskId) -> TaskStatus {
        self.await_status(task_id, |status| status.state.is_resolved())
    }

    /// Names, and how they are stored, of the artifacts of a task's last run.
    pub fn artifacts(&self, task_id: &TaskId) -> Vec<(String, String)> {
        let (author, id) = (Arc::clone(&self.author), task_id.clone());
        let list = async move { author.listLatestArtifacts(id.as_str(), None, None).await.unwrap() };
        let list = self.within(list);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let artifacts = list["artifacts"].as_array().unwrap().iter();
        artifacts.map(|it| (text(&it["name"]), text(&it["storageType"]))).collect()
    }

    /// Where an artifact of a task's last run can be read.
    pub fn artifact_url(&self, task_id: &TaskId, name: &str) -> String {
        let name = name.replace('/', "%2F").replace(' ', "%20");
        format!("{}/api/queue/v1/task/{task_id}/artifacts/{name}", self.root_url)
    }

    /// The bytes of a public artifact of a task's last run, as curl gets and decodes them.
    pub fn artifact(&self, task_id: &TaskId, name: &str) -> Vec<u8> {
        let url = self.artifact_url(task_id, name);
        let options = ["--silent", "--show-error", "--fail", "--location", "--compressed", &url];
        let finished = finish(self.program("curl", &options).spawn().unwrap(), LIMIT);
        assert!(finished.status.success(), "{url}: {finished:?}; there are {:?}", self.artifacts(task_id));
        finished.stdout
    }

    /// A task's log.
    pub fn log(&self, task_id: &TaskId) -> String {
        String::from_utf8_lossy(&self.artifact(task_id, "public/logs/live.log")).into_owned()
    }

    /// Waits until a running task has printed `text`, by its live log as curl reads it.
    pub fn await_printed(&self, task_id: &TaskId, text: &str) {
        self.wire.await_asked(&format!("POST /api/queue/v1/task/{task_id}/runs/"), 1);
        let url = self.artifact_url(task_id, "public/logs/live.log");
        // The request that makes it may still be under way.
        let options = ["--silent", "--show-error", "--fail", "--location", "--no-buffer", "--retry", "60"];
        let more = ["--retry-all-errors", "--retry-delay", "1", &url];
        let mut curl = self.program("curl", &[&options[..], &more].concat()).spawn().unwrap();
        let rest = read_until(&mut curl, text);
        curl.kill().unwrap();
        curl.wait().unwrap();
        rest.join().unwrap();
    }

    /// A program that is where the server is.
    pub fn program(&self, program: &str, arguments: &[&str]) -> Command {
        let words = self.entrance.iter().map(String::as_str);
        let words: Vec<&str> = words.chain([program]).chain(arguments.iter().copied()).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        self.stop.take();
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            ended.into_iter().for_each(|ended| ended.unwrap());
            self.wire.record();
        }
    }
}

fn credentials(client_id: &str) -> Credentials {
    Credentials { client_id: client_id.to_owned(), access_token: TOKEN.to_owned(), certificate: None }
}

/// What a worker of the pool may do.
fn worker_scopes() -> Vec<String> {
    let own = [
        format!("queue:claim-work:{POOL}"),
        format!("queue:claim-task:{POOL}"),
        "queue:worker-id:*".to_owned(),
        format!("purge-cache:purge-requests::{POOL}"),
        "auth:expand-scopes".to_owned(),
        format!("queue:get-worker:{POOL}/*"),
    ];
    own.to_vec()
}

fn serve(
    queue: EmbeddedQueue,
    settings: Settings,
    ready: &mpsc::Sender<(Handle, Arc<Wire>, SocketAddr)>,
    stopped: oneshot::Receiver<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let server = Standalone::start(queue, settings).await.unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let wire = Wire::to(server.address());
        let carrying = tokio::spawn(Arc::clone(&wire).carry(listener));
        ready.send((Handle::current(), wire, address)).unwrap();
        // An error is the value's end.
        stopped.await.unwrap_or_default();
        carrying.abort();
    });
}
