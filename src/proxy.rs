//! The taskcluster proxy: plain HTTP inside a task, signed requests outside, which may do what the task may and no more.
//!
//! ```text
//!   the worker (root)                                     docker-worker proxy (nobody in particular, in a container)
//!   ┌────────────────────────────┐   listener, address,   ┌──────────────────────────────────────────────────────┐
//!   │ feature ──► Proxy ──► keeper│──scopes, credentials──►│ serve ──► one door for each task                     │
//!   │             Serving   │     │◄────── begun, ended ───│             │                                        │
//!   └───────────────────────┼────┘   one Unix socket      └─────────────┼────────────────────────────────────────┘
//!                           └ starts it, starts it again                 │
//!   task ── http://taskcluster/api/queue/v1/… ──► 169.254.1.1:80 ──► connections ──► target    whose is that path?
//!                                                                        │        signature    with the run's credentials
//!                                                                        ▼
//!                                                                     forward ──► outside ──► dial ──► <root URL>/api/…
//! ```
//!
//! What a task sends is hostile, and it is read by a process that is nobody: no capabilities, no way to any, a filter for
//! system calls, a root of a few read-only files, bounds on memory, processes and descriptors ([`keeper`]). It has the
//! host's network, for the deployment may be anywhere, but of the host itself it reaches the deployment and the resolver
//! only ([`crate::net::confinement`]); and it has the credentials of all running tasks, nothing else.
//!
//! Each task has a listener of its own, bound to its own link, which takes connections of the task's address only; with it
//! go the credentials and scopes that its requests are signed with: nothing that a request says has a part in that. The
//! credentials change under it with each reclaim.
//!
//! The worker keeps each listener as well. A process that dies is started again and handed all of it once more; whoever
//! connects meanwhile waits in the listener's backlog. With the worker the socket between the two ends, and with that the
//! process.
//!
//! | goes from | message | with it | answered by |
//! |---|---|---|---|
//! | worker | `open`: the root URL | – | `ready` |
//! | worker | `begin`: a task's number, address, scopes, credentials | its listener | `begun`, `failed` |
//! | worker | `renew`: a task's new credentials | – | `renewed` |
//! | worker | `end`: a task's number | – | `ended`: all its connections are closed, both ways |
//! | worker | `ping`, when nothing was to be said for a while | – | `alive` |
//!
//! Why no listening socket and no look at who is connected: both ends are made by the worker (socketpair(2)), and the
//! process gets its own as a descriptor, so that nobody else can have one.

mod keeper;
mod messages;
pub mod serve;

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

pub use self::keeper::Ground;
use self::keeper::{Client, Command, Keeper};
use crate::background::Background;
use crate::event::{Event, Events};
use crate::queue::Credentials;
use crate::text::chain;

/// How long a task waits for its proxy, the start of the process included.
const BEGIN_TIME: Duration = Duration::from_secs(60);

/// How long the end of a task waits until nobody is connected any more. A process that does not say so is killed before;
/// of one that survives even that the worker's log tells.
const END_TIME: Duration = Duration::from_secs(40);

/// How long the worker's end waits for what the process leaves. It is killed first; what takes longer to undo is its
/// monitor's, or the next start's.
const STOP_TIME: Duration = Duration::from_secs(10);

/// The proxy of one worker. Nothing is started before the first task has it.
#[derive(Debug)]
pub struct Proxy {
    ground: Ground,
    events: Events,
    /// The way to the keeper, once there is one.
    keeper: Mutex<Option<mpsc::UnboundedSender<Command>>>,
    /// The number of the next task.
    next: AtomicU64,
}

/// Why a task cannot have the proxy.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The socket cannot be waited for.
    #[error("listen for the task's requests")]
    Listen(#[from] std::io::Error),
    /// There is no process that could serve it, or that one could not.
    #[error("{0}")]
    NotBegun(String),
    /// It does not say that it does.
    #[error("have the proxy ready within {} s", BEGIN_TIME.as_secs())]
    Late,
    /// The worker has come to its end.
    #[error("have a proxy: the worker is ending")]
    Stopped,
}

/// A task that is being served, or will be as soon as there is a process for it.
#[derive(Debug)]
#[must_use = "the task is served as long as this lives"]
pub struct Serving {
    task: u64,
    keeper: mpsc::UnboundedSender<Command>,
    begun: Option<oneshot::Receiver<Result<(), String>>>,
    has_ended: bool,
    events: Events,
    _renewing: Background,
}

/// In whose name requests are made, and from where they come.
#[derive(Debug)]
pub struct Caller {
    /// The task's address on its own link: connections of others are closed.
    pub address: Ipv4Addr,
    /// The run's credentials, which change with each reclaim.
    pub credentials: watch::Receiver<Credentials>,
    /// What its requests may do at most: the credentials may be good for more.
    pub scopes: Vec<String>,
}

impl Proxy {
    /// For a worker of the deployment that `ground` names. `events` hear when its process ends by itself.
    pub fn new(ground: Ground, events: Events) -> Proxy {
        Proxy { ground, events, keeper: Mutex::default(), next: AtomicU64::new(0) }
    }

    /// Begins to serve a task by a socket that takes connections of this task's link. Inside a tokio runtime only.
    ///
    /// # Errors
    ///
    /// [`ProxyError::Listen`]; [`ProxyError::NotBegun`] for a task whose requests could not be signed.
    pub fn begin(&self, listener: TcpListener, caller: Caller) -> Result<Serving, ProxyError> {
        // The process looks at that too, for credentials change; what a task has made too long does not even get there.
        serve::check(caller.credentials.borrow().certificate.as_deref(), &caller.scopes)
            .map_err(|error| ProxyError::NotBegun(chain(&error)))?;
        // For the one open socket that both processes have.
        listener.set_nonblocking(true)?;
        let keeper = self.keeper();
        let task = self.next.fetch_add(1, Ordering::Relaxed);
        let (beginning, begun) = oneshot::channel();
        let mut renewed = caller.credentials.clone();
        renewed.mark_unchanged();
        let client = Client { listener, caller, begun: Some(beginning) };
        // A keeper that is gone is noticed by whoever waits for its answer.
        drop(keeper.send(Command::Begin { task, client: Box::new(client) }));
        let way = keeper.clone();
        let renewing = Background::start(async move {
            while renewed.changed().await.is_ok() && way.send(Command::Renew { task }).is_ok() {}
        });
        let events = self.events.clone();
        Ok(Serving { task, keeper, begun: Some(begun), has_ended: false, events, _renewing: renewing })
    }

    /// Ends the process, if there is one, and waits for what was made for it to be undone.
    pub async fn stop(&self) {
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper {
            let (stopping, stopped) = oneshot::channel();
            drop(keeper.send(Command::Stop { stopped: stopping }));
            drop(timeout(STOP_TIME, stopped).await);
        }
    }

    fn keeper(&self) -> mpsc::UnboundedSender<Command> {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        keeper.get_or_insert_with(|| Keeper::start(self.ground.clone(), self.events.clone())).clone()
    }
}

impl Serving {
    /// Waits until the task's requests are answered.
    ///
    /// # Errors
    ///
    /// [`ProxyError`]; there is something to be ended all the same.
    pub async fn begun(&mut self) -> Result<(), ProxyError> {
        let Some(begun) = &mut self.begun else { return Ok(()) };
        let answer = timeout(BEGIN_TIME, begun).await.map_err(|_| ProxyError::Late)?;
        self.begun = None;
        answer.map_err(|_| ProxyError::Stopped)?.map_err(ProxyError::NotBegun)
    }

    /// Waits until nobody is connected any more, neither the task nor for it: the process says so, or is gone. The worker's
    /// log tells where nobody knows.
    pub async fn end(mut self) {
        let (ending, ended) = oneshot::channel();
        self.has_ended = true;
        drop(self.keeper.send(Command::End { task: self.task, ended: Some(ending) }));
        // A keeper that cannot tell has said why; one that is gone has ended the process before.
        if timeout(END_TIME, ended).await.is_err() {
            let message = &format!(
                "failed to see the end of a task's proxy within {} s: it may still be connected for the task, with its credentials",
                END_TIME.as_secs()
            );
            self.events.emit(&Event::Warning { message });
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if !self.has_ended {
            drop(self.keeper.send(Command::End { task: self.task, ended: None }));
        }
    }
}
