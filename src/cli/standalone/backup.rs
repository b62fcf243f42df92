//! `docker-worker standalone --backup FILE`: a copy of the queue, also while it is served.
//!
//! One process at a time has the queue's file. While there is one it makes the copy itself, asked over its control socket;
//! otherwise this process opens the file for the while.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::place;
use crate::cli::FAILED;
use crate::cli::refusal::Refusal;
use crate::directories::Directories;
use crate::worker::control::SOCKET;

/// How long a copy may take.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// Bytes of an answer, at most.
const ANSWER_BYTES: u64 = 64 << 10;

/// The command.
pub(super) fn back_up(file: &Path, directories: &Directories) -> Result<(), Refusal> {
    let refused = |problem: String| {
        Refusal::new(FAILED, format!("failed to copy the queue to {}: {problem}", file.display()))
    };
    let file = &std::path::absolute(file).map_err(|error| refused(error.to_string()))?;
    if !place::database(directories).is_file() {
        let place = directories.queue();
        return Err(refused(format!(
            "there is no queue in {}; name its directory with --data",
            place.display()
        )));
    }
    if ask_its_server(file, directories).map_err(refused)? {
        return Ok(());
    }
    let queue = place::open(directories)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| refused(error.to_string()))?;
    runtime.block_on(queue.copy_to(file)).map_err(|error| Refusal::because(FAILED, &error))
}

/// Has the process make the copy that has the queue; false where there is none.
fn ask_its_server(file: &Path, directories: &Directories) -> Result<bool, String> {
    let request = json!({ "request": "backup", "queue": directories.queue(), "file": file });
    let entries = match fs::read_dir(&directories.run) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(format!("look for its process in {}: {error}", directories.run.display())),
    };
    for entry in entries.flatten() {
        // Not all of them are of processes, and of those some may be gone.
        let Ok(stream) = connect(&entry.path()) else { continue };
        let answer = ask(stream, &request).map_err(|error| format!("ask its process: {error}"))?;
        if let Some(problem) = answer.get("error").and_then(Value::as_str) {
            return Err(problem.to_owned());
        }
        if answer.get("copied") == Some(&Value::Bool(true)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The address is short, wherever the socket is (unix(7)).
fn connect(directory: &Path) -> io::Result<UnixStream> {
    let directory = File::open(directory)?;
    let stream = UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn ask(mut stream: UnixStream, request: &Value) -> io::Result<Value> {
    stream.write_all(format!("{request}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream.take(ANSWER_BYTES)).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}
