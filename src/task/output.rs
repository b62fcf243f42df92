//! From the container's pty to the task's log.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read};

use super::spool::Spool;

/// What is collected before it is written: a pty gives at most 4 KiB at a time.
const COLLECT_BYTES: usize = 256 * 1024;

/// The most that one read of a pty gives, and so the room that a read is given at least.
const READ_BYTES: usize = 4 * 1024;

/// How long the first collected byte waits for company: short for a reader, long for a pty.
const COLLECT_TIME: Timespec = Timespec { tv_sec: 0, tv_nsec: 4_000_000 };

/// Copies the pty's output to the log until the last process that has it open is gone. Blocks: it runs on a thread of its own.
///
/// # Errors
///
/// What reading the pty says, other than its end.
pub fn pump(master: &OwnedFd, spool: &Spool) -> io::Result<()> {
    let mut buffer = vec![0_u8; COLLECT_BYTES];
    let mut filled = 0;
    loop {
        let patience = (filled > 0).then_some(&COLLECT_TIME);
        if !readable(master, patience)? {
            flush(spool, &buffer, &mut filled);
            continue;
        }
        let room = buffer.get_mut(filled..).unwrap_or_default();
        match read(master, room) {
            // EIO: no process has the other end open any more, and everything is read.
            Ok(0) | Err(Errno::IO) => {
                flush(spool, &buffer, &mut filled);
                return Ok(());
            }
            Ok(bytes) => filled += bytes,
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => return Err(errno.into()),
        }
        if COLLECT_BYTES - filled < READ_BYTES {
            flush(spool, &buffer, &mut filled);
        }
    }
}

fn flush(spool: &Spool, buffer: &[u8], filled: &mut usize) {
    spool.output(buffer.get(..*filled).unwrap_or_default());
    *filled = 0;
}

/// Waits until there is something to read, or the end; `false` when `patience` is over.
fn readable(master: &OwnedFd, patience: Option<&Timespec>) -> io::Result<bool> {
    loop {
        let mut fds = [PollFd::from_borrowed_fd(master.as_fd(), PollFlags::IN)];
        match poll(&mut fds, patience) {
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

    #[test]
    fn everything_that_was_printed_is_in_the_log_when_the_pump_ends() {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let mut terminal = File::from(ioctl_tiocgptpeer(&master, flags).unwrap());
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::create(&directory.path().join("log"), 1 << 30).unwrap();
        let lines: String = (0..50_000).map(|number| format!("line {number}\n")).collect();
        let expected = lines.replace('\n', "\r\n");
        let writer = std::thread::spawn(move || terminal.write_all(lines.as_bytes()));
        pump(&master, &spool).unwrap();
        writer.join().unwrap().unwrap();
        let log = std::fs::read_to_string(spool.path()).unwrap();
        assert!(log == expected, "{} of {} bytes", log.len(), expected.len());
    }
}
