//! The command: found as the user who will run it, with that user's capabilities, and executed at the very end.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, FileType, accessat, stat};
use rustix::io::Errno;

use super::process::check_directory;
use super::{Child, ChildError, call, kind_of_last};
use crate::execute::executing::{EXECUTED, NOT_YET, word_of};
use crate::execute::{failure, say};
use crate::hooks::{self, Stage, Surroundings};
use crate::launch::Failed;
use crate::launch::messages::{self, ChildMessage, Ready};
use crate::plan::{ChildStep, Executable, Execution};
use crate::rlimits;
use crate::spec::PosixLimit;
use crate::state::Status;
use crate::sys;
use crate::sys::exec::{Confinement, Image, LastCall};
use crate::sys::exit::exit_now;
use crate::sys::shared_word::SharedWord;

impl Child<'_> {
    /// What comes after all steps. What can fail without the command is done before the monitor hears that all is
    /// ready; what may be forbidden by the filter, before the filter.
    pub(super) fn become_command(&mut self, last: &Execution) -> Result<Infallible, Failed> {
        let host = |step: &str| {
            let step = step.to_owned();
            move |error: ChildError| failure(step, kind_of_last(&error), &error)
        };
        let done = self.container.plan.child.len();
        let image = find_image(&last.executable, self.home.as_deref()).map_err(host(&last.find()))?;
        let confinement = self.confinement(last).map_err(host("seccomp"))?;
        self.pass(done + 1)?;
        self.ready().map_err(host(Execution::READY))?;
        self.pass(done + 2)?;
        if last.has_hooks {
            self.start_hooks(&image, last).map_err(host("hooks startContainer"))?;
        }
        let passed_on = self.container.options.preserve_fds;
        let word = self.holding.take().map(|holding| (holding.word, holding.memory));
        let word = announce(self.socket.as_fd(), passed_on, &image, word).map_err(host("execute"))?;
        execute(&confinement, &image, &word)
    }

    fn ready(&mut self) -> Result<(), ChildError> {
        let missing = ChildError::Missing { what: "the mount namespace's descriptor" };
        let mount_namespace = self.mount_namespace.take().ok_or(missing)?;
        let root = call("duplicate the root", self.root.as_fd().try_clone_to_owned())?;
        let terminal = self.terminal.take().map(|pty| pty.master);
        let ready = Ready { mount_namespace, root, terminal };
        say(&self.socket, &ChildMessage::Ready(ready)).map_err(|_| ChildError::MonitorGone)?;
        if let Some(listening) = self.held.start.take() {
            // From here on whoever says `start` hears how it went.
            let accepted = rustix::net::accept_with(&listening, rustix::net::SocketFlags::CLOEXEC);
            self.socket = call("wait for start", accepted)?;
            // Until `start` has taken the socket away it may be killed, and nothing has started.
            self.wait_for_go()?;
        }
        Ok(())
    }

    /// Each is bound as the command will be.
    fn start_hooks(&self, image: &Image, last: &Execution) -> Result<(), ChildError> {
        let environment = image.environment().to_vec();
        let surroundings = Surroundings { environment, umask: None, confinement: self.confinement(last)? };
        let state = self.oci_state(Status::Created);
        Ok(hooks::run(&self.container.spec, Stage::StartContainer, state, surroundings)?)
    }

    fn confinement(&self, last: &Execution) -> Result<Confinement, ChildError> {
        let rlimits = self.container.plan.child.iter().filter_map(|step| match step {
            ChildStep::Rlimit(limit) => Some(limit),
            _ => None,
        });
        confinement(last, rlimits)
    }
}

/// What binds the command, and hooks that run in its place. A limit on this process's memory or descriptors before it
/// would keep it from its own work.
pub(super) fn confinement<'a>(
    last: &Execution,
    limits: impl Iterator<Item = &'a PosixLimit>,
) -> Result<Confinement, ChildError> {
    let filter = last.filter.as_ref().map(|filter| filter.prepare()).transpose()?;
    let capabilities = last.capabilities.as_ref().map(|sets| sets.at_once());
    Ok(Confinement { rlimits: limits.map(rlimits::values).collect(), filter, capabilities })
}

/// The last word before the filter: it tells a start from an end. `word`: the one that others know already, if any do.
pub(super) fn announce(
    socket: BorrowedFd<'_>,
    preserve_fds: u16,
    image: &Image,
    word: Option<(SharedWord, OwnedFd)>,
) -> Result<SharedWord, ChildError> {
    // `start` may have come long after the directory was entered.
    check_directory().map_err(|source| ChildError::WorkingDirectory {
        path: Path::new(".").to_owned(),
        why: "it lies outside the container",
        source,
    })?;
    // Those that are passed on came through an execve(2) already, and go through another.
    call("close_range", sys::descriptors::close_on_exec_from(3 + u32::from(preserve_fds)))?;
    call("reset the signals", sys::signals::reset())?;
    let (word, memory) = match word {
        Some(known) => known,
        None => call("make a word of shared memory", SharedWord::create(NOT_YET))?,
    };
    let executing = ChildMessage::Executing { command: image.name(), word: memory };
    messages::send_child(socket, &executing).map_err(|_| ChildError::MonitorGone)?;
    Ok(word)
}

/// Becomes the command. From here on the only way to say something is the word.
pub(super) fn execute(confinement: &Confinement, image: &Image, word: &SharedWord) -> ! {
    let (call, error) = match confinement.apply() {
        Ok(()) => {
            word.store(EXECUTED);
            (LastCall::Execute, image.execute())
        }
        Err(refused) => refused,
    };
    word.store(word_of(call, &error));
    exit_now(1)
}

/// The command's file with its arguments and environment; `home` is what was found for an environment without one.
pub(super) fn find_image(executable: &Executable, home: Option<&str>) -> Result<Image, ChildError> {
    let command = executable.arguments.first().map(String::as_str).unwrap_or_default();
    let found = find(command, executable.search_path())?;
    let found = CString::new(found).map_err(|_| not_found(command, "its path holds a NUL".into()))?;
    let mut environment = strings(&executable.environment)?;
    if let Some(home) = home {
        environment.extend(strings(&[format!("HOME={home}")])?);
    }
    Ok(Image::new(found, strings(&executable.arguments)?, environment))
}

/// The plan refuses texts with a NUL; what comes from the image is refused here.
pub(super) fn strings(texts: &[String]) -> Result<Vec<CString>, ChildError> {
    let converted = texts.iter().map(|text| CString::new(text.as_str()));
    call("pass on an argument or a variable", converted.collect::<Result<_, _>>())
}

/// As execvp(3): a name with a slash is a path, others are looked for in the directories of `search_path`;
/// a file that may not be executed is remembered and the search goes on.
fn find(command: &str, search_path: &str) -> Result<String, ChildError> {
    if command.contains('/') {
        return match executable_at(command) {
            Ok(()) => Ok(command.to_owned()),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(not_found(command, "no such file or directory".into())),
            Err(errno) => Err(not_executable(command, errno)),
        };
    }
    let mut refused = None;
    for directory in search_path.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = format!("{directory}/{command}");
        match executable_at(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => refused = refused.or(Some(errno)),
        }
    }
    let nowhere = || not_found(command, format!("executable file not found in $PATH ({search_path})"));
    Err(refused.map_or_else(nowhere, |errno| not_executable(command, errno)))
}

fn executable_at(path: &str) -> Result<(), Errno> {
    if FileType::from_raw_mode(stat(path)?.st_mode) != FileType::RegularFile {
        return Err(Errno::ACCESS);
    }
    accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

fn not_found(command: &str, why: String) -> ChildError {
    ChildError::CommandNotFound { command: command.to_owned(), why }
}

fn not_executable(command: &str, errno: Errno) -> ChildError {
    ChildError::CommandNotExecutable { command: command.to_owned(), source: errno.into() }
}
