//! The command: found as the user who will run it, executed at the very end.

use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::path::Path;

use nix::sys::signal::SigSet;
use rustix::fs::{Access, AtFlags, CWD, FileType, accessat, stat};
use rustix::io::Errno;

use super::process::check_directory;
use super::{Child, ChildError};
use crate::plan::{ChildStep, Executable};
use crate::sys;

impl Child<'_> {
    /// Before the filter is on, so that a missing command can be reported whatever the filter forbids.
    pub(super) fn find_command(&mut self, executable: &Executable) -> Result<(), ChildError> {
        let command = executable.arguments.first().map(String::as_str).unwrap_or_default();
        let found = find(command, executable.search_path())?;
        self.command =
            Some(CString::new(found).map_err(|_| not_found(command, "its path holds a NUL".into()))?);
        Ok(())
    }

    /// Does not return if it succeeds.
    pub(super) fn execute(&mut self) -> Result<(), ChildError> {
        let (Some(command), Some(executable)) = (self.command.take(), self.executable()) else {
            return Err(ChildError::NoRoot);
        };
        // `start` may have come long after the directory was entered.
        check_directory().map_err(|source| ChildError::WorkingDirectory {
            path: Path::new(".").to_owned(),
            why: "it lies outside the container",
            source,
        })?;
        let keep = 3 + self.container.options.preserve_fds;
        super::call("close_range", sys::descriptors::close_on_exec_from(3))?;
        sys::descriptors::keep_over_exec_to(keep - 1);
        sys::signals::reset_dispositions();
        super::call("sigprocmask", SigSet::empty().thread_set_mask())?;
        let Err(source) = exec(&command, executable);
        let command = executable.arguments.first().cloned().unwrap_or_default();
        // The file was there a moment ago: what is missing is its interpreter.
        Err(ChildError::CommandNotExecutable { command, source })
    }

    fn executable(&self) -> Option<&Executable> {
        self.container.plan.child.iter().find_map(|step| match step {
            ChildStep::FindCommand(executable) => Some(executable),
            _ => None,
        })
    }
}

fn exec(command: &CString, executable: &Executable) -> Result<Infallible, io::Error> {
    let strings = |texts: &[String]| {
        texts.iter().map(|text| CString::new(text.as_str())).collect::<Result<Vec<_>, _>>()
    };
    let (arguments, environment) = (strings(&executable.arguments)?, strings(&executable.environment)?);
    Ok(nix::unistd::execve(command, &arguments, &environment)?)
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
