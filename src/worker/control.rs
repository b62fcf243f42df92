//! What others on this host can ask of a worker: which tasks it has, and to end one.
//!
//! A socket, `<run>/<a random id>/control` (0600, in a directory that is 0700), takes one JSON object a line and answers
//! each with one:
//!
//! | request | answer |
//! |---|---|
//! | `{"request":"list"}` | `{"tasks":[{"taskId":…,"runId":…,"container":…,"began":…,"state":…},…]}` |
//! | `{"request":"end","taskId":…,"runId":…}` | `{"ended":true}`: it is told to end; [`Phase`] says how far it is |
//! | `{"request":"backup"}` | `{"copy":…}`: the name of a copy of the process's own queue, in `copies/` beside it; there until the next request or the connection's end, and given up where its client leaves before it is made |
//! | anything else, a run that is not there | `{"error":"one sentence"}` |
//!
//! Where the process has a queue of its own (`standalone`), a link in the queue's directory leads to the socket.
//!
//! Only root and the worker's own user are heard, which the kernel vouches for. There are bounds on connections, on a
//! request's bytes, and on the time that either side takes; each connection is a task of its own, so that none keeps
//! the worker, or another, waiting.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::background::Background;
use crate::directories::Directories;
use crate::interrupt::{Interrupt, Notice};
use crate::queue::task_id::TaskId;
use crate::queue::{EmbeddedQueue, QueueCopy, RunId};
use crate::registry::{Phase, Registry};
use crate::run_directory::RunDirectoryError;
use crate::run_directory::process::ProcessDirectory;
use crate::task::run::Worker;
use crate::text::chain;
use crate::timestamp::Timestamp;

/// The socket's name.
pub const SOCKET: &str = "control";

/// Connections at once; more are closed.
const CONNECTIONS: usize = 32;

/// Bytes of a request, its line end included.
const REQUEST_BYTES: u64 = 4096;

/// How long a connection may take for a request, and for taking in an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Until connections are accepted again after that has failed: most often there are no descriptors, and no sooner will be.
const PAUSE: Duration = Duration::from_millis(100);

/// The socket, as long as this lives.
#[derive(Debug)]
pub struct Control {
    _serving: Background,
    _directory: ProcessDirectory,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No place for it.
    #[error(transparent)]
    Directory(#[from] RunDirectoryError),
    /// The queue's directory cannot lead to it.
    #[error("make the link {}", path.display())]
    Link {
        /// Where.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It cannot be made there.
    #[error("listen on {}", path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// What a client asks for.
#[derive(Debug, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", rename_all_fields = "camelCase", deny_unknown_fields)]
enum Request {
    List {},
    End { task_id: TaskId, run_id: u32 },
    Backup {},
}

/// What it is told.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Answer {
    Tasks { tasks: Vec<Listed> },
    Ended { ended: bool },
    Copy { copy: QueueCopy },
    Error { error: String },
}

/// A run, as others see it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    #[serde(flatten)]
    run: RunId,
    container: String,
    began: Timestamp,
    state: Phase,
}

/// What all connections share.
#[derive(Clone)]
struct Served {
    registry: Registry,
    /// How a run ends that a client wants to end.
    interrupt: Interrupt,
    /// That of this process, if it has one.
    queue: Option<EmbeddedQueue>,
}

impl Control {
    /// Makes the socket and serves it. Who ends a run there does so by `interrupt`. Blocks for moments; inside a tokio
    /// runtime only.
    ///
    /// # Errors
    ///
    /// [`ControlError`].
    pub fn start(
        directories: &Directories,
        registry: Registry,
        (interrupt, queue): (Interrupt, Option<EmbeddedQueue>),
    ) -> Result<Control, ControlError> {
        let directory = ProcessDirectory::create(directories, &|| true)?;
        let failed = |source| ControlError::Listen { path: directory.path().join(SOCKET), source };
        let listener = listen(&directory).map_err(failed)?;
        if queue.is_some() {
            let link = directories.queue().join(SOCKET);
            point_at(&directory.path().join(SOCKET), &link)
                .map_err(|source| ControlError::Link { path: link, source })?;
        }
        let serving = Background::start(accept(listener, Served { registry, interrupt, queue }));
        Ok(Control { _serving: serving, _directory: directory })
    }

    /// The same for a worker that can do without: `tell` hears in one sentence why there is no socket.
    pub fn offer(
        worker: &Worker,
        ends: (Interrupt, Option<EmbeddedQueue>),
        tell: &dyn Fn(&str),
    ) -> Option<Control> {
        match Control::start(&worker.config.directories, worker.registry.clone(), ends) {
            Ok(control) => Some(control),
            Err(error) => {
                tell(&format!("failed to {}", chain(&error)));
                None
            }
        }
    }
}

fn listen(directory: &ProcessDirectory) -> io::Result<UnixListener> {
    let path = directory.short_path(SOCKET);
    let listener = StdListener::bind(&path)?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Whoever has a queue has its directory: what is there is of a process that is gone.
fn point_at(socket: &Path, link: &Path) -> io::Result<()> {
    match std::fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => std::os::unix::fs::symlink(socket, link),
    }
}

/// Serves whoever connects, for ever. All connections end with this future.
async fn accept(listener: UnixListener, served: Served) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            let served = served.clone();
            connections.spawn(async move {
                // What goes wrong with a connection is its peer's to notice.
                connection(stream, &served).await.unwrap_or_default();
                drop(place);
            });
        }
    }
}

/// One connection, to its end.
async fn connection(stream: UnixStream, served: &Served) -> io::Result<()> {
    let is_heard = may_ask(stream.peer_cred()?.uid(), rustix::process::geteuid().as_raw());
    let (reading, mut writing) = stream.into_split();
    let mut reading = BufReader::new(reading);
    // What it is about is there until there is another one.
    let mut _answered = None;
    loop {
        let mut line = Vec::new();
        let mut request = (&mut reading).take(REQUEST_BYTES);
        if timeout(PATIENCE, request.read_until(b'\n', &mut line)).await?? == 0 {
            return Ok(());
        }
        let is_whole = line.ends_with(b"\n");
        let answer = match (is_heard, is_whole) {
            (false, _) => refusal("only root and the worker's own user may ask"),
            (true, false) => refusal(format!("a request is one line of at most {REQUEST_BYTES} bytes")),
            (true, true) => tokio::select! {
                biased;
                answer = served.answer(&line) => answer,
                () = leaves(&mut reading) => return Ok(()),
            },
        };
        let mut text = serde_json::to_vec(&answer)?;
        text.push(b'\n');
        timeout(PATIENCE, writing.write_all(&text)).await??;
        _answered = Some(answer);
        if !(is_heard && is_whole) {
            return Ok(());
        }
    }
}

/// Waits until a client has gone, or sends nothing more: an answer that it has to wait for goes with its connection. One that
/// asks for something else already has not.
async fn leaves(reading: &mut BufReader<OwnedReadHalf>) {
    match reading.fill_buf().await {
        Ok(bytes) if !bytes.is_empty() => std::future::pending().await,
        Ok(_) | Err(_) => {}
    }
}

/// Whether a process of the user `peer` is heard by a worker of the user `own`.
fn may_ask(peer: u32, own: u32) -> bool {
    peer == 0 || peer == own
}

fn refusal(error: impl Into<String>) -> Answer {
    Answer::Error { error: error.into() }
}

impl Served {
    async fn answer(&self, line: &[u8]) -> Answer {
        match serde_json::from_slice(line) {
            Ok(Request::List {}) => {
                let listed = self.registry.all().into_iter().map(|(run, handles)| Listed {
                    run,
                    container: handles.container.to_string(),
                    began: handles.began,
                    state: handles.phase,
                });
                Answer::Tasks { tasks: listed.collect() }
            }
            Ok(Request::End { task_id, run_id }) => {
                let run = RunId { task_id, run_id };
                match self.registry.get(&run) {
                    Some(handles) => {
                        handles.interrupter.interrupt(self.interrupt, Notice::ControlSocket);
                        Answer::Ended { ended: true }
                    }
                    None => refusal(format!("this worker has no run {run_id} of task {}", run.task_id)),
                }
            }
            Ok(Request::Backup {}) => match &self.queue {
                Some(queue) => match queue.copy().await {
                    Ok(copy) => Answer::Copy { copy },
                    Err(error) => refusal(chain(&error)),
                },
                None => refusal("this worker has no queue of its own"),
            },
            Err(error) => refusal(format!("read the request: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use futures_util::FutureExt;

    use super::*;

    /// Longer than anything here takes.
    const LONG: Duration = Duration::from_secs(60);

    /// A queue in a directory whose thread stands still while somebody holds the gate.
    fn queue(directory: &Path, gate: &Arc<Mutex<()>>) -> EmbeddedQueue {
        let gate = Arc::clone(gate);
        let clock = move || {
            let is_its_thread = std::thread::current().name() == Some("queue");
            drop(is_its_thread.then(|| hold(&gate)));
            Timestamp::now()
        };
        EmbeddedQueue::in_directory(directory, Box::new(clock)).unwrap()
    }

    fn hold(gate: &Mutex<()>) -> MutexGuard<'_, ()> {
        gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[tokio::test]
    #[expect(clippy::await_holding_lock, reason = "the queue stands still meanwhile")]
    async fn a_copy_is_given_up_with_the_client_that_wants_it() {
        let directory = tempfile::tempdir().unwrap();
        let gate = Arc::default();
        let queue = queue(directory.path(), &gate);
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(b"{\"request\":\"backup\"}\n").await.unwrap();
        // Once it has answered, its thread rests or is about to.
        queue.secret("none").await.unwrap();
        let held = hold(&gate);
        // After each call it asks for the time: with this one before it, the copy never has its turn.
        drop(queue.secret("none").now_or_never());
        let queue = Some(queue);
        let served = Served { registry: Registry::default(), interrupt: Interrupt::Shutdown, queue };
        let mut connection = Box::pin(connection(server, &served));
        let still_waits = timeout(Duration::from_millis(200), &mut connection).await;
        drop(client);
        let ended = timeout(LONG, connection).await;
        drop(held);
        assert!(still_waits.is_err() && ended.is_ok_and(|ended| ended.is_ok()));
    }
}
