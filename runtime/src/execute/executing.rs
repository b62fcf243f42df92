//! From PID 1's last message to its command: what comes in between, the filter and execve(2), it can only leave in a
//! word of shared memory.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::failure;
use crate::launch::messages::ChildMessage;
use crate::launch::{Failed, FailureKind};
use crate::sys::exec::LastCall;
use crate::sys::shared_word;

/// PID 1 has said its last message. When its socket ends it is the command, or has failed.
#[derive(Debug)]
pub(crate) struct Executing {
    command: String,
    word: OwnedFd,
}

/// Why the command was not executed.
#[derive(Debug, thiserror::Error)]
enum ExecuteError {
    #[error("set the resource limits")]
    Rlimits(#[source] io::Error),
    #[error("install the system call filter")]
    Filter(#[source] io::Error),
    #[error("give up the capability that the filter's installation took: does the filter allow capset?")]
    Capabilities(#[source] io::Error),
    #[error("execute {command:?}")]
    Execute { command: String, source: io::Error },
    #[error("execute {command:?}: the process that was to do it ended before")]
    Ended { command: String },
    #[error("read what the new process left")]
    Word(#[source] io::Error),
}

impl Executing {
    /// The message as a value of its own; anything else comes back.
    pub fn from_message(message: ChildMessage) -> Result<Executing, ChildMessage> {
        match message {
            ChildMessage::Executing { command, word } => Ok(Executing { command, word }),
            other => Err(other),
        }
    }

    /// Call this once the socket has ended.
    ///
    /// # Errors
    ///
    /// The command does not run. A process that is killed between its last word and execve(2) is taken for a command that
    /// was.
    pub fn outcome(self) -> Result<(), Failed> {
        let host = |step, error| Err(failure(step, FailureKind::Host, &error));
        let word = match shared_word::read(self.word.as_fd()) {
            Ok(word) => word,
            Err(error) => return host("execute", ExecuteError::Word(error)),
        };
        if word == NOT_YET {
            return host("execute", ExecuteError::Ended { command: self.command });
        }
        let Some((call, source)) = from_word(word) else { return Ok(()) };
        match call {
            LastCall::Rlimits => host("rlimits", ExecuteError::Rlimits(source)),
            LastCall::Filter => host("seccomp", ExecuteError::Filter(source)),
            LastCall::Capabilities => host("capabilities.set", ExecuteError::Capabilities(source)),
            LastCall::Execute => {
                // The file was there a moment ago: what is missing is its interpreter.
                let error = ExecuteError::Execute { command: self.command, source };
                Err(failure("execute", FailureKind::CommandNotExecutable, &error))
            }
        }
    }
}

/// What the word holds at first: nothing has failed, and nothing is executed.
pub(crate) const NOT_YET: u32 = u32::MAX;

/// What it holds from the moment of execve(2) on, unless that fails.
pub(crate) const EXECUTED: u32 = 0;

/// What is left in the word: the call in the upper half, its errno in the lower.
pub(super) fn word_of(call: LastCall, error: &io::Error) -> u32 {
    let errno = error.raw_os_error().and_then(|errno| u16::try_from(errno).ok()).unwrap_or(u16::MAX);
    let call = match call {
        LastCall::Rlimits => 1,
        LastCall::Filter => 2,
        LastCall::Capabilities => 3,
        LastCall::Execute => 4,
    };
    call << 16 | u32::from(errno)
}

fn from_word(word: u32) -> Option<(LastCall, io::Error)> {
    let call = match word >> 16 {
        0 => return None, // `EXECUTED`
        1 => LastCall::Rlimits,
        2 => LastCall::Filter,
        3 => LastCall::Capabilities,
        _ => LastCall::Execute,
    };
    Some((call, io::Error::from_raw_os_error(i32::try_from(word & 0xffff).unwrap_or(libc::EIO))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_says_which_call_failed_and_how() {
        for call in [LastCall::Rlimits, LastCall::Filter, LastCall::Capabilities, LastCall::Execute] {
            let word = word_of(call, &io::Error::from_raw_os_error(libc::ENOENT));
            let (left, error) = from_word(word).unwrap();
            assert_eq!((left, error.raw_os_error()), (call, Some(libc::ENOENT)));
        }
        assert!(from_word(EXECUTED).is_none());
    }
}
