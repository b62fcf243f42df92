//! From the container's pty to the task's log.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read};
use tokio::task::JoinHandle;

use crate::task_log::spool::Spool;

/// What is collected before it is written: a pty gives at most 4 KiB at a time.
const COLLECT_BYTES: usize = 256 * 1024;

/// The most that one read of a pty gives, and so the room that a read is given at least.
const READ_BYTES: usize = 4 * 1024;

/// How long the first collected byte waits for company: short for a reader, long for a pty.
const COLLECT_TIME: Duration = Duration::from_millis(10);

/// Copies the pty's output to the log, on a thread of its own.
#[derive(Debug)]
pub struct Pump(State);

#[derive(Debug)]
enum State {
    Pumping(JoinHandle<io::Result<()>>),
    /// Why, if not because the last process was gone.
    Ended(Option<io::Error>),
}

impl Pump {
    /// Starts it.
    pub fn start(terminal: &OwnedFd, spool: &Spool) -> Pump {
        Pump(match terminal.try_clone() {
            Ok(master) => {
                let spool = spool.clone();
                State::Pumping(tokio::task::spawn_blocking(move || pump(&master, &spool)))
            }
            Err(error) => State::Ended(Some(error)),
        })
    }

    /// Waits until reading fails, while processes may still print. Never returns otherwise.
    pub async fn failed(&mut self) -> io::Error {
        self.ended().await;
        let error = match &mut self.0 {
            State::Ended(error) => error.take(),
            State::Pumping(_) => None,
        };
        match error {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    /// Waits until everything is in the log, at most so long: somebody outside the container may have its terminal
    /// open, and what they print is not the task's.
    ///
    /// # Errors
    ///
    /// Why something is missing in the log.
    pub async fn finish(mut self, patience: Duration) -> io::Result<()> {
        match (tokio::time::timeout(patience, self.ended()).await, self.0) {
            (Ok(()), State::Ended(Some(error))) => Err(error),
            (Ok(()) | Err(_), _) => Ok(()),
        }
    }

    async fn ended(&mut self) {
        if let State::Pumping(pumping) = &mut self.0 {
            let result = pumping.await.map_err(io::Error::other).and_then(|pumped| pumped);
            self.0 = State::Ended(result.err());
        }
    }
}

/// Copies until the last process that has the pty open is gone. Blocks.
fn pump(master: &OwnedFd, spool: &Spool) -> io::Result<()> {
    let mut collected = Collected::new();
    loop {
        if !readable(master, collected.patience())? {
            collected.flush(spool);
            continue;
        }
        match read(master, collected.room()) {
            // EIO: no process has the other end open any more, and everything is read.
            Ok(0) | Err(Errno::IO) => {
                collected.flush(spool);
                return Ok(());
            }
            Ok(bytes) => collected.add(bytes),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => return Err(errno.into()),
        }
        if collected.is_due() {
            collected.flush(spool);
        }
    }
}

/// What is read and not yet written.
struct Collected {
    buffer: Vec<u8>,
    filled: usize,
    /// When the first byte of it came.
    since: Option<Instant>,
}

impl Collected {
    fn new() -> Collected {
        Collected { buffer: vec![0; COLLECT_BYTES], filled: 0, since: None }
    }

    fn room(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.filled..).unwrap_or_default()
    }

    fn add(&mut self, bytes: usize) {
        self.filled += bytes;
        self.since.get_or_insert_with(Instant::now);
    }

    /// How long it may still wait; for ever, while there is nothing.
    fn patience(&self) -> Option<Duration> {
        self.since.map(|since| COLLECT_TIME.saturating_sub(since.elapsed()))
    }

    fn is_due(&self) -> bool {
        COLLECT_BYTES - self.filled < READ_BYTES || self.patience().is_some_and(|left| left.is_zero())
    }

    fn flush(&mut self, spool: &Spool) {
        spool.output(self.buffer.get(..self.filled).unwrap_or_default());
        self.filled = 0;
        self.since = None;
    }
}

/// Waits until there is something to read, or the end; `false` when `patience` is over.
fn readable(master: &OwnedFd, patience: Option<Duration>) -> io::Result<bool> {
    let patience = patience.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
    loop {
        let mut fds = [PollFd::from_borrowed_fd(master.as_fd(), PollFlags::IN)];
        match poll(&mut fds, patience.as_ref()) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

    use super::*;

    /// A pty that nobody has open yet, and its other end.
    fn pty() -> (OwnedFd, File) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let terminal = File::from(ioctl_tiocgptpeer(&master, flags).unwrap());
        (master, terminal)
    }

    #[test]
    fn everything_that_was_printed_is_in_the_log_when_the_pump_ends() {
        let (master, mut terminal) = pty();
        let (_directory, spool) = Spool::temporary(1 << 30);
        let lines: String = (0..50_000).map(|number| format!("line {number}\n")).collect();
        let expected = lines.replace('\n', "\r\n");
        let writer = std::thread::spawn(move || terminal.write_all(lines.as_bytes()));
        pump(&master, &spool).unwrap();
        writer.join().unwrap().unwrap();
        let log = std::fs::read_to_string(spool.path()).unwrap();
        assert!(log == expected, "{} of {} bytes", log.len(), expected.len());
    }

    #[test]
    fn what_a_process_prints_right_before_its_end_is_in_the_log() {
        for number in 0..1000 {
            let (master, terminal) = pty();
            let (_directory, spool) = Spool::temporary(1 << 20);
            let pumping = std::thread::spawn({
                let spool = spool.clone();
                move || pump(&master, &spool)
            });
            let mut printer = std::process::Command::new("printf");
            // The other end is the process's alone.
            printer.arg(format!("x{number}")).stdout(terminal);
            let printed = printer.status();
            drop(printer);
            assert!(printed.unwrap().success());
            pumping.join().unwrap().unwrap();
            assert_eq!(std::fs::read_to_string(spool.path()).unwrap(), format!("x{number}"));
        }
    }

    #[test]
    fn a_trickle_without_a_pause_reaches_the_log_while_it_goes_on() {
        let (master, mut terminal) = pty();
        let (_directory, spool) = Spool::temporary(1 << 30);
        let log = spool.path().to_owned();
        let pumping = std::thread::spawn(move || pump(&master, &spool));
        let began = Instant::now();
        while std::fs::metadata(&log).unwrap().len() == 0 {
            assert!(began.elapsed() < Duration::from_secs(10), "what came was never written");
            terminal.write_all(b".").unwrap();
            poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 })).unwrap();
        }
        drop(terminal);
        pumping.join().unwrap().unwrap();
    }
}
