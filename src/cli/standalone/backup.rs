//! `docker-worker standalone --backup FILE`: a copy of the queue, also while it is served.
//!
//! ```text
//!   whoever has the queue ──► queue/copies/<name> ──► FILE.<random>.partial ──► FILE
//!   (its process, or this)                        └──────── this process ────────┘
//! ```
//!
//! One process at a time has the queue. Where there is one it is asked over its control socket, to which `queue/control`
//! leads. It makes the copy beside the queue, and this process takes that to its place: only this one sees the files that
//! the operator sees.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::cli::operator::Operator;
use crate::cli::refusal::Refusal;
use crate::cli::{FAILED, signals};
use crate::directories::Directories;
use crate::queue::{EmbeddedQueue, QueueCopy, StoppedQueue};
use crate::random::random_hex;
use crate::text::chain;
use crate::worker::control::SOCKET;

/// How long the process that has the queue may take to answer at all: one that is stopped never does.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// How long it may take to make a copy: some gigabytes on a slow disk, in steps between other work.
const COPY_TIME: Duration = Duration::from_secs(10 * 60);

/// Bytes of an answer, at most: a list of thousands of running tasks.
const ANSWER_BYTES: u64 = 1 << 20;

/// Bytes that are taken over at once; a signal is heard between.
const PIECE: usize = 1 << 20;

/// The command.
pub(super) fn back_up(file: &Path, directories: &Directories, operator: &Operator) -> Result<(), Refusal> {
    let refused = |problem: String| {
        Refusal::new(FAILED, format!("failed to copy the queue to {}: {problem}", file.display()))
    };
    let started = |error: io::Error| refused(error.to_string());
    let file = &std::path::absolute(file).map_err(started)?;
    require_other_place(file, &directories.queue()).map_err(refused)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(started)?;
    let (interrupt, mut interrupted) = watch::channel(());
    signals::listen(operator.clone(), move |_| {
        interrupt.send_replace(());
    })
    .map_err(started)?;
    let copied = runtime.block_on(async {
        tokio::select! {
            biased;
            _ = interrupted.changed() => Err("it was interrupted".to_owned()),
            copied = copy(file, directories) => copied,
        }
    });
    copied.map_err(refused)
}

/// Refuses what a copy must not replace: the queue's own files, and what is no file.
fn require_other_place(file: &Path, queue: &Path) -> Result<(), String> {
    if !EmbeddedQueue::is_in(queue) {
        return Err(format!("there is no queue in {}; name its directory with --data", queue.display()));
    }
    let parent = file.parent().ok_or("it is a directory")?;
    let is_within = EmbeddedQueue::has_within(queue, file)
        .map_err(|error| format!("find {}: {error}", parent.display()))?;
    if is_within {
        return Err("that is where the queue itself is; choose a file elsewhere".to_owned());
    }
    match fs::metadata(file) {
        Ok(found) if !found.is_file() => Err("that is no file; choose another name".to_owned()),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Ends at a signal wherever it waits, and then leaves nothing.
async fn copy(file: &Path, directories: &Directories) -> Result<(), String> {
    let copied = match ask_its_process(&directories.queue()).await? {
        Some(copied) => copied,
        None => copy_here(directories).await?,
    };
    write(copied, file).await.map_err(|error| error.to_string())
}

/// Where no process answers that has the queue.
async fn copy_here(directories: &Directories) -> Result<File, String> {
    let place = directories.queue();
    let queue = StoppedQueue::take(&place).map_err(|error| {
        let link = place.join(SOCKET);
        format!("no process answers at {}, and this one failed to {}", link.display(), chain(&error))
    })?;
    let (answer, answered) = oneshot::channel();
    // It ends with the last that waits for it, as the runtime does with it.
    spawn_blocking(move || {
        let copied = queue.copy(&mut || !answer.is_closed());
        drop(queue);
        // An error is the answer's loss: whoever asked has gone.
        answer.send(copied).ok();
    });
    let copied = answered.await.map_err(|_| "the copy ended without a result".to_owned())?;
    copied.map_err(|error| chain(&error))
}

/// Has the process make the copy that has the queue; gives it open, or None where there is no such process.
async fn ask_its_process(queue: &Path) -> Result<Option<File>, String> {
    let failed = |error: io::Error| format!("ask the process that has the queue: {error}");
    let mut stream = match within(ANSWER_TIME, connect(queue)).await {
        Ok(stream) => BufReader::new(stream),
        Err(error) if is_of_nobody(&error) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    ask(&mut stream, "list", ANSWER_TIME).await.map_err(failed)?;
    let answer = ask(&mut stream, "backup", COPY_TIME).await.map_err(failed)?;
    let text = |key| answer.get(key).and_then(Value::as_str);
    match (text("copy"), text("error")) {
        (Some(name), _) => {
            let path = QueueCopy::at(queue, name);
            let file = File::open(&path).map_err(|error| format!("open {}: {error}", path.display()))?;
            Ok(Some(file))
        }
        (None, Some(problem)) => Err(problem.to_owned()),
        (None, None) => Err(format!("the process that has the queue answers {answer}")),
    }
}

/// The link is of a process that has ended, or there has been none.
fn is_of_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// The address is short, wherever the socket is (unix(7)).
async fn connect(queue: &Path) -> io::Result<UnixStream> {
    let directory = File::open(queue)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd())).await
}

async fn ask(stream: &mut BufReader<UnixStream>, request: &str, patience: Duration) -> io::Result<Value> {
    within(patience, async {
        stream.write_all(format!("{}\n", json!({ "request": request })).as_bytes()).await?;
        let mut line = String::new();
        stream.take(ANSWER_BYTES).read_line(&mut line).await?;
        Ok(serde_json::from_str(&line)?)
    })
    .await
}

async fn within<T>(patience: Duration, what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let silent = || io::Error::other(format!("it does not answer within {} seconds", patience.as_secs()));
    timeout(patience, what).await.map_err(|_| silent())?
}

/// A file that is not whole; it goes with this value, unless it has another name by then.
struct Partial {
    file: File,
    path: PathBuf,
}

impl Partial {
    fn beside(file: &Path) -> io::Result<Partial> {
        let mut name = file.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_owned();
        name.push(format!(".{}.partial", random_hex(8)?));
        let path = file.with_file_name(name);
        // Definitions may hold secrets.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Partial { file, path })
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        fs::remove_file(&self.path).unwrap_or_default();
    }
}

/// Writes a file's bytes to one that takes the place of what has its name: whole, and on the disk.
async fn write(mut source: File, file: &Path) -> io::Result<()> {
    let mut partial = Partial::beside(file)?;
    let mut piece = vec![0; PIECE];
    loop {
        let length = source.read(&mut piece)?;
        let Some(read) = piece.get(..length).filter(|read| !read.is_empty()) else { break };
        partial.file.write_all(read)?;
        tokio::task::yield_now().await;
    }
    partial.file.sync_all()?;
    fs::rename(&partial.path, file)?;
    File::open(file.parent().unwrap_or(Path::new("/")))?.sync_all()
}
