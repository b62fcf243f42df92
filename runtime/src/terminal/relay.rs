//! Between the operator's terminal and the container's pty, while `run` is in the foreground.
//!
//! Nothing here waits but [`Relay::drain`]: whoever writes to a stopped terminal or a full pipe would be deaf to
//! signals. So each side is read only while there is room for what comes, and written when it says that it takes more.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, read, write};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr,
    tcsetwinsize,
};

/// Bytes that are on their way in one direction.
const BUFFER: usize = 16 << 10;

/// A pipe that says that it can be written takes this much without waiting (pipe(7), PIPE_BUF).
const AT_ONCE: usize = 4 << 10;

/// The operator's terminal in raw mode, and what is under way.
///
/// Dropping it gives the terminal its mode back.
#[derive(Debug)]
pub struct Relay {
    master: OwnedFd,
    /// The operator's settings, if standard input is a terminal.
    before: Option<Termios>,
    to_container: Vec<u8>,
    to_operator: Vec<u8>,
    input: Input,
    output: Output,
}

/// Whether the operator can still say something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Open {
        /// What was typed last was no end of line.
        within_line: bool,
    },
    Ended,
}

/// Whether the container can still print something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
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
        let relay = Relay {
            master,
            before,
            to_container: Vec::new(),
            to_operator: Vec::new(),
            input: Input::Open { within_line: false },
            output: Output::Open,
        };
        if let Some(before) = &relay.before {
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        }
        Ok(relay)
    }

    /// Tells the container's side how large the operator's terminal is.
    pub fn resize(&self) -> io::Result<()> {
        if self.before.is_some() {
            tcsetwinsize(&self.master, tcgetwinsize(stdin())?)?;
        }
        Ok(())
    }

    /// What to wait for: the operator's input, the pty, the operator's output. None of them where it would be reported
    /// over and over without anything to do about it.
    pub fn interests(&self) -> [Option<PollFd<'_>>; 3] {
        let has_ended = self.input == Input::Ended || self.to_container.len() >= BUFFER;
        let input = (!has_ended).then(|| PollFd::from_borrowed_fd(stdin(), PollFlags::IN));
        let mut pty = PollFlags::empty();
        pty.set(PollFlags::IN, self.to_operator.is_empty());
        pty.set(PollFlags::OUT, !self.to_container.is_empty());
        // A hang-up is reported whether it is asked for or not.
        let is_open = self.output == Output::Open && !pty.is_empty();
        let pty = is_open.then(|| PollFd::new(&self.master, pty));
        let output =
            (!self.to_operator.is_empty()).then(|| PollFd::from_borrowed_fd(stdout(), PollFlags::OUT));
        [input, pty, output]
    }

    /// Nobody in the container has the terminal open any more, and all that was printed is passed on.
    pub fn is_over(&self) -> bool {
        self.output == Output::Ended && self.to_operator.is_empty()
    }

    /// Passes on what there is, as far as it is taken; `found` is what each of [`Relay::interests`] has reported.
    ///
    /// # Errors
    ///
    /// Reading the input or writing the output failed.
    pub fn handle(&mut self, found: [PollFlags; 3]) -> io::Result<()> {
        let [input, pty, output] = found;
        if !input.is_empty() {
            self.take_input()?;
        }
        if pty.contains(PollFlags::OUT) {
            self.flush()?;
        }
        if pty.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && self.to_operator.is_empty() {
            self.take_output()?;
        }
        if !output.is_empty() {
            self.print()?;
        }
        Ok(())
    }

    fn take_input(&mut self) -> io::Result<()> {
        let mut bytes = [0; BUFFER];
        match read(stdin(), &mut bytes) {
            Ok(0) => self.end_input()?,
            Ok(length) => {
                let bytes = bytes.get(..length).unwrap_or_default();
                self.to_container.extend(bytes);
                self.input = Input::Open { within_line: !bytes.ends_with(b"\n") };
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(Errno::IO) => self.input = Input::Ended, // The operator's terminal went away.
            Err(errno) => return Err(errno.into()),
        }
        self.flush()
    }

    /// End of file, as a terminal says it to a program that reads lines: within one, the first such character only
    /// ends the line. A program that reads characters is told nothing: to it this would be one of them.
    fn end_input(&mut self) -> io::Result<()> {
        let Input::Open { within_line } = std::mem::replace(&mut self.input, Input::Ended) else {
            return Ok(());
        };
        let pty = tcgetattr(&self.master)?;
        if pty.local_modes.contains(LocalModes::ICANON) {
            let times = if within_line { 2 } else { 1 };
            self.to_container.extend(std::iter::repeat_n(pty.special_codes[SpecialCodeIndex::VEOF], times));
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        match write(&self.master, &self.to_container) {
            Ok(length) => drop(self.to_container.drain(..length)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(Errno::IO) => self.to_container.clear(), // Nobody has the other end open any more.
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    fn take_output(&mut self) -> io::Result<()> {
        let mut bytes = [0; BUFFER];
        match read(&self.master, &mut bytes) {
            Ok(0) | Err(Errno::IO) => self.output = Output::Ended,
            Ok(length) => {
                self.to_operator.extend(bytes.get(..length).unwrap_or_default());
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    fn print(&mut self) -> io::Result<()> {
        let part = self.to_operator.get(..AT_ONCE).unwrap_or(&self.to_operator);
        match write(stdout(), part) {
            Ok(length) => drop(self.to_operator.drain(..length)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    /// Passes on what is left once the command has ended, and so all that it has printed: at most `most` bytes and a
    /// buffer, for others may go on printing. Gives up when `interrupt` is readable.
    ///
    /// # Errors
    ///
    /// Standard output cannot be written.
    pub fn drain(&mut self, interrupt: Option<BorrowedFd<'_>>, most: usize) -> io::Result<()> {
        let mut taken = 0;
        loop {
            if self.to_operator.is_empty() {
                if taken >= most {
                    return Ok(());
                }
                // It does not block: if there is nothing, there never will be.
                self.take_output()?;
                taken += self.to_operator.len();
                if self.to_operator.is_empty() {
                    return Ok(());
                }
            }
            let mut fds = vec![PollFd::from_borrowed_fd(stdout(), PollFlags::OUT)];
            fds.extend(interrupt.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            if fds.get(1).is_some_and(|interrupt| !interrupt.revents().is_empty()) {
                return Ok(());
            }
            if fds.first().is_some_and(|output| !output.revents().is_empty()) {
                self.print()?;
            }
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // If the terminal has gone there is nothing to give back.
            tcsetattr(stdin(), OptionalActions::Now, before).unwrap_or(());
        }
    }
}
