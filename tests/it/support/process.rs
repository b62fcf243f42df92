//! Child processes with a deadline.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::internet::await_readable;

/// Longer than anything takes that is waited for here, on a loaded host too.
const LIMIT: Duration = Duration::from_secs(180);

/// What a process left.
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub took: Duration,
}

impl fmt::Debug for Finished {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let Finished { status, stdout, stderr, took } = self;
        write!(out, "{status} after {took:?}\nstdout:\n{}\nstderr:\n{}", text(stdout), text(stderr))
    }
}

/// Waits for `child` and collects what it prints; kills it and fails the test if it takes longer than `limit`.
pub fn finish(mut child: Child, limit: Duration) -> Finished {
    let started = Instant::now();
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
    let limit_spec = Timespec { tv_sec: limit.as_secs().try_into().unwrap(), tv_nsec: 0 };
    let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit_spec)).unwrap() == 1;
    if !ended {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    let took = started.elapsed();
    let text =
        |thread: Option<thread::JoinHandle<Vec<u8>>>| thread.map_or(Vec::new(), |it| it.join().unwrap());
    let finished = Finished { status, stdout: text(stdout), stderr: text(stderr), took };
    assert!(ended, "still running after {limit:?}; it printed {finished:?}");
    finished
}

fn collect(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// Reads what `child` prints until that holds `text`, and goes on reading on a thread, which returns all of it. Kills the
/// child and fails the test if that takes too long.
pub fn read_until(child: &mut Child, text: &str) -> thread::JoinHandle<String> {
    let deadline = Instant::now() + LIMIT;
    let mut stdout = child.stdout.take().unwrap();
    let lines = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
    while !lines(&seen).contains(text) {
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).unwrap();
        if poll(&mut [PollFd::new(&stdout, PollFlags::IN)], Some(&left)).unwrap() == 0 {
            child.kill().unwrap();
            panic!("no {text:?} within {LIMIT:?}: {}", lines(&seen));
        }
        let length = stdout.read(&mut piece).unwrap();
        assert_ne!(length, 0, "the output ended without {text:?}: {}", lines(&seen));
        seen.extend(&piece[..length]);
    }
    thread::spawn(move || {
        stdout.read_to_end(&mut seen).unwrap();
        lines(&seen)
    })
}

/// Waits until something holds of which no descriptor tells: looks again and again, and leaves the processor to others in
/// between.
pub fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "waited {LIMIT:?} for {what}");
        thread::park_timeout(Duration::from_millis(1));
    }
}

/// Waits until there is something at `path`, whose directory is there.
pub fn await_path(path: &Path) {
    let changes = File::from(inotify::init(CreateFlags::CLOEXEC).unwrap());
    let directory = path.parent().unwrap();
    inotify::add_watch(&changes, directory, WatchFlags::CREATE | WatchFlags::MOVED_TO).unwrap();
    while !path.exists() {
        await_readable(&changes, &path.display().to_string());
        // Whatever it was: what counts is what is there now.
        assert_ne!((&changes).read(&mut [0; 4096]).unwrap(), 0);
    }
}

/// Waits until a process has ended, which may be anybody's child.
pub fn await_end(process: Pid) {
    match pidfd_open(process, PidfdFlags::empty()) {
        Ok(pidfd) => await_readable(&pidfd, "a process to end"),
        Err(error) => assert_eq!(error, Errno::SRCH),
    }
}

/// Waits until `child` has written more than `bytes` into a file in `directory`, whether or not that has a name.
pub fn await_written(child: &mut Child, directory: &Path, bytes: u64) {
    let files = format!("/proc/{}/fd", child.id());
    let is_written = |file: &Path| {
        fs::read_link(file).is_ok_and(|path| path.starts_with(directory))
            && fs::metadata(file).is_ok_and(|file| file.is_file() && file.len() > bytes)
    };
    await_that(&format!("something to be written in {}", directory.display()), || {
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        fs::read_dir(&files).unwrap().any(|file| is_written(&file.unwrap().path()))
    });
}

/// Runs a tool of the host that has to succeed; returns its standard output.
pub fn tool(program: &str, arguments: &[&str]) -> String {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; tests/setup test installs it"));
    let finished = finish(child, Duration::from_secs(600));
    let stderr = String::from_utf8_lossy(&finished.stderr);
    assert!(finished.status.success(), "{program} {arguments:?}: {}: {stderr}", finished.status);
    String::from_utf8(finished.stdout).unwrap()
}
