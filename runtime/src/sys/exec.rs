//! execve(2) from behind a system call filter: everything is prepared before, and nothing but capset(2) and the call
//! itself comes after.

use std::ffi::CString;
use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySets, set_capabilities};

use super::seccomp::Program;

/// What binds a process from the last moment before its execve(2).
#[derive(Debug, Default)]
pub struct Confinement {
    /// Resource limits, which this process may set.
    pub rlimits: Vec<(Resource, Rlimit)>,
    /// The system call filter.
    pub filter: Option<Program>,
    /// The capabilities that are left, if installing the filter needed more.
    pub capabilities: Option<CapabilitySets>,
}

/// A call of those that nothing can be said after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastCall {
    /// A resource limit could not be set.
    Rlimits,
    /// The filter could not be installed.
    Filter,
    /// The filter, or the kernel, forbids capset(2).
    Capabilities,
    /// The program could not be executed.
    Execute,
}

impl Confinement {
    /// Binds this process. Allocates nothing, and makes no call but these three.
    ///
    /// # Errors
    ///
    /// Which call failed, and with what.
    pub fn apply(&self) -> Result<(), (LastCall, io::Error)> {
        for (resource, limit) in &self.rlimits {
            setrlimit(*resource, *limit).map_err(|errno| (LastCall::Rlimits, errno.into()))?;
        }
        if let Some(filter) = &self.filter {
            filter.install().map_err(|error| (LastCall::Filter, error))?;
        }
        if let Some(sets) = self.capabilities {
            set_capabilities(None, sets).map_err(|errno| (LastCall::Capabilities, errno.into()))?;
        }
        Ok(())
    }
}

/// A program with its arguments and environment, as execve(2) takes them.
#[derive(Debug)]
pub struct Image {
    program: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
}

impl Image {
    /// `program` is a path; `arguments` start with the name that it sees itself called by.
    pub fn new(program: CString, arguments: Vec<CString>, environment: Vec<CString>) -> Image {
        let (argv, envp) = (pointers(&arguments), pointers(&environment));
        Image { program, arguments, environment, argv, envp }
    }

    /// The name that the program sees itself called by.
    pub fn name(&self) -> String {
        self.arguments.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The environment.
    pub fn environment(&self) -> &[CString] {
        &self.environment
    }

    /// Becomes the program. Allocates nothing; returns only if it fails.
    pub fn execute(&self) -> io::Error {
        // SAFETY: the pointers are to the strings of this value, which do not move, and end with a null pointer.
        unsafe { libc::execve(self.program.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr()) };
        io::Error::last_os_error()
    }
}

/// Pointers to `texts`, ended by a null pointer.
pub(super) fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}
