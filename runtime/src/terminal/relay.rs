//! Between the operator's terminal and the container's pty, while `run` is in the foreground.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, read, write};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

/// Bytes that are on their way in one direction.
const BUFFER: usize = 16 << 10;

/// The operator's terminal in raw mode, and what is under way.
///
/// Dropping it gives the terminal its mode back.
#[derive(Debug)]
pub struct Relay {
    master: OwnedFd,
    /// The operator's settings, if standard input is a terminal.
    before: Option<Termios>,
    to_container: Vec<u8>,
    input: Input,
}

/// Whether the operator can still say something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Open,
    Ended,
}

impl Relay {
    /// Takes the operator's terminal over.
    ///
    /// # Errors
    ///
    /// The terminal's mode cannot be set.
    pub fn new(master: OwnedFd) -> io::Result<Relay> {
        // A program in the container that reads nothing must not stop its output.
        fcntl_setfl(&master, fcntl_getfl(&master)? | OFlags::NONBLOCK)?;
        let before = if isatty(stdin()) { Some(tcgetattr(stdin())?) } else { None };
        let relay = Relay { master, before, to_container: Vec::new(), input: Input::Open };
        if let Some(before) = &relay.before {
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        }
        Ok(relay)
    }

    /// Tells the container's side how large the operator's terminal is.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub fn resize(&self) -> io::Result<()> {
        if self.before.is_some() {
            tcsetwinsize(&self.master, tcgetwinsize(stdin())?)?;
        }
        Ok(())
    }

    /// What to wait for: the operator's input (unless there is enough of it already) and the pty.
    pub fn interests(&self) -> [PollFd<'_>; 2] {
        let wants_input = self.input == Input::Open && self.to_container.len() < BUFFER;
        let input = if wants_input { PollFlags::IN } else { PollFlags::empty() };
        let output = if self.to_container.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        [PollFd::from_borrowed_fd(stdin(), input), PollFd::new(&self.master, PollFlags::IN | output)]
    }

    /// Passes on what came from the operator.
    ///
    /// # Errors
    ///
    /// Reading the input failed.
    pub fn take_input(&mut self) -> io::Result<()> {
        let mut bytes = [0; BUFFER];
        match read(stdin(), &mut bytes) {
            Ok(0) => {
                self.input = Input::Ended;
                // End of file, as a terminal says it. Raw mode is the operator's terminal's, not the pty's.
                self.to_container.push(4);
            }
            Ok(length) => self.to_container.extend(bytes.get(..length).unwrap_or_default()),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(Errno::IO) => self.input = Input::Ended, // The operator's terminal went away.
            Err(errno) => return Err(errno.into()),
        }
        self.flush()
    }

    /// Writes to the container what it takes.
    ///
    /// # Errors
    ///
    /// Writing failed for another reason than that it takes nothing now.
    pub fn flush(&mut self) -> io::Result<()> {
        match write(&self.master, &self.to_container) {
            Ok(length) => drop(self.to_container.drain(..length)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(Errno::IO) => self.to_container.clear(), // Nobody has the other end open any more.
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    /// Passes on what the container printed. `false` at its end: everything has been read.
    ///
    /// # Errors
    ///
    /// Standard output cannot be written.
    pub fn take_output(&mut self) -> io::Result<bool> {
        let mut bytes = [0; BUFFER];
        match read(&self.master, &mut bytes) {
            Ok(0) | Err(Errno::IO) => Ok(false),
            Ok(length) => {
                write_all(stdout(), bytes.get(..length).unwrap_or_default())?;
                Ok(true)
            }
            Err(Errno::INTR | Errno::AGAIN) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Passes on all that is left once nobody can print any more.
    ///
    /// # Errors
    ///
    /// Standard output cannot be written.
    pub fn drain(&mut self) -> io::Result<()> {
        fcntl_setfl(&self.master, fcntl_getfl(&self.master)? - OFlags::NONBLOCK)?;
        while self.take_output()? {}
        Ok(())
    }
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match write(to, bytes) {
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // If the terminal has gone there is nothing to give back.
            tcsetattr(stdin(), OptionalActions::Now, before).unwrap_or(());
        }
    }
}
