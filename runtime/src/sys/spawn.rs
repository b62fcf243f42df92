//! Starting a program with exactly the descriptors that are named, from a process with other threads.
//!
//! Clearing close-on-exec in the parent would leak the descriptor to whatever another thread starts at
//! that moment, so descriptors are mapped in the child, after the fork. `std::process::Command` cannot
//! do this: the numbers that it uses for itself in the child may be the ones that we map to.

use std::ffi::{CString, OsStr};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::umask;

use super::clone3::{Forked, fork};
use super::descriptors::close_on_exec_from;
use super::exec::{Confinement, pointers};
use super::signals;

/// A program, its arguments and environment, and the descriptors that it gets. Unless said otherwise the
/// environment is empty and the standard streams are `/dev/null`. No signal is blocked or ignored.
#[derive(Debug)]
pub struct Command {
    program: CString,
    /// If set, this is executed, and `program` is only its name.
    executable: Option<OwnedFd>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    mapped: Vec<(OwnedFd, RawFd)>,
    session: Session,
    umask: Option<Mode>,
}

/// Which session a program starts in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Session {
    /// The caller's: signals from its terminal reach the program too.
    #[default]
    Inherited,
    /// One of its own, without a terminal.
    Own,
}

impl Command {
    /// A command that runs `program`, a path.
    ///
    /// # Errors
    ///
    /// The path holds a NUL.
    pub fn new(program: &Path) -> io::Result<Command> {
        let program = CString::new(program.as_os_str().as_bytes())?;
        Ok(Command {
            arguments: vec![program.clone()],
            program,
            executable: None,
            environment: Vec::new(),
            mapped: Vec::new(),
            session: Session::default(),
            umask: None,
        })
    }

    /// Starts the program in this session.
    pub fn session(&mut self, session: Session) -> &mut Command {
        self.session = session;
        self
    }

    /// Starts the program with this umask instead of the caller's.
    pub fn umask(&mut self, umask: Option<Mode>) -> &mut Command {
        self.umask = umask;
        self
    }

    /// Executes what `executable` holds instead of what is found at the program's path.
    pub fn executable(&mut self, executable: OwnedFd) -> &mut Command {
        self.executable = Some(executable);
        self
    }

    /// Replaces all arguments, the name that the program sees itself called by included.
    ///
    /// # Errors
    ///
    /// One holds a NUL.
    pub fn arguments(&mut self, arguments: &[String]) -> io::Result<&mut Command> {
        self.arguments =
            arguments.iter().map(|text| CString::new(text.as_bytes())).collect::<Result<_, _>>()?;
        Ok(self)
    }

    /// Adds `NAME=value` to the environment.
    pub fn env(&mut self, entry: CString) {
        self.environment.push(entry);
    }

    /// Gives the program `fd` as its standard input.
    pub fn stdin(&mut self, fd: OwnedFd) -> &mut Command {
        self.map_fd(fd, 0)
    }

    /// Appends an argument.
    ///
    /// # Errors
    ///
    /// It holds a NUL.
    pub fn arg(&mut self, argument: impl AsRef<OsStr>) -> io::Result<&mut Command> {
        self.arguments.push(CString::new(argument.as_ref().as_bytes())?);
        Ok(self)
    }

    /// [`Command::map_fd`], if there is one.
    pub fn map_optional(&mut self, fd: Option<OwnedFd>, target: RawFd) -> &mut Command {
        match fd {
            Some(fd) => self.map_fd(fd, target),
            None => self,
        }
    }

    /// Gives the program `fd` under the number `target`.
    pub fn map_fd(&mut self, fd: OwnedFd, target: RawFd) -> &mut Command {
        self.mapped.push((fd, target));
        self
    }
}

/// Starts `command` and returns its pidfd. Every other descriptor of this process stays here,
/// close-on-exec or not.
///
/// # Errors
///
/// The fork, a mapping or the exec failed; then there is no child.
pub fn spawn(command: &Command) -> io::Result<OwnedFd> {
    spawn_confined(command, &Confinement::default())
}

/// [`spawn`], with the program bound by `confinement`. If that forbids to say that a call failed the program ends
/// with status 127 instead, or by a signal.
pub fn spawn_confined(command: &Command, confinement: &Confinement) -> io::Result<OwnedFd> {
    let prepared = Prepared::new(command)?;
    let (errors, write_end) = pipe_with(PipeFlags::CLOEXEC)?;
    let report_error = prepared.park(write_end.as_fd())?;
    // Not only shadowed: as long as this end is open here, the read below never ends.
    drop(write_end);
    // The child must not allocate or take a lock: another thread may have held one when we forked.
    match fork(0, None)? {
        Forked::Child => prepared.become_program(confinement, &report_error),
        Forked::Parent { child, .. } => {
            drop(report_error);
            let mut code = Vec::new();
            std::fs::File::from(errors).take(4).read_to_end(&mut code)?;
            match <[u8; 4]>::try_from(code) {
                Ok(code) => {
                    super::wait::wait(child.as_fd())?;
                    Err(io::Error::from_raw_os_error(i32::from_ne_bytes(code)))
                }
                Err(_) => Ok(child), // Nothing came: the pipe was closed by the exec.
            }
        }
    }
}

/// All that the child needs, allocated before the fork.
struct Prepared {
    program: *const libc::c_char,
    /// To be executed if there is one; parked as the others are.
    executable: Option<OwnedFd>,
    arguments: Vec<*const libc::c_char>,
    environment: Vec<*const libc::c_char>,
    /// Sources, all numbered above every target, so that no mapping overwrites a source.
    mapped: Vec<(OwnedFd, RawFd)>,
    above: RawFd,
    session: Session,
    umask: Option<Mode>,
}

impl Prepared {
    /// The pointers in the result stay valid as long as `command` lives.
    fn new(command: &Command) -> io::Result<Prepared> {
        let above = command.mapped.iter().map(|(_, target)| target + 1).fold(3, RawFd::max);
        let mut prepared = Prepared {
            program: command.program.as_ptr(),
            executable: None,
            arguments: pointers(&command.arguments),
            environment: pointers(&command.environment),
            mapped: Vec::new(),
            above,
            session: command.session,
            umask: command.umask,
        };
        if let Some(executable) = &command.executable {
            prepared.executable = Some(prepared.park(executable.as_fd())?);
        }
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        for stream in 0..3 {
            prepared.mapped.push((prepared.park(null.as_fd())?, stream));
        }
        for (fd, target) in &command.mapped {
            prepared.mapped.push((prepared.park(fd.as_fd())?, *target));
        }
        Ok(prepared)
    }

    fn park(&self, fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        Ok(fcntl_dupfd_cloexec(fd, self.above)?)
    }

    fn become_program(&self, confinement: &Confinement, report_error: &OwnedFd) -> ! {
        let error = match self.set_up() {
            Ok(()) => self.execute(confinement),
            Err(error) => error,
        };
        let error = error.raw_os_error().unwrap_or(libc::EIO).to_ne_bytes();
        // SAFETY: the descriptor is open and the four bytes live past the call. If writing fails there
        // is nobody left to tell; the parent then sees the child end.
        unsafe { libc::write(report_error.as_raw_fd(), error.as_ptr().cast(), error.len()) };
        super::exit::exit_now(127)
    }

    fn set_up(&self) -> io::Result<()> {
        // SAFETY: takes no argument; a forked child leads no process group, so it cannot fail.
        if self.session == Session::Own && unsafe { libc::setsid() } == -1 {
            return Err(io::Error::last_os_error());
        }
        self.umask.map(umask);
        close_on_exec_from(3)?;
        for (source, target) in &self.mapped {
            // SAFETY: plain numbers. Whatever the target was in the parent, this copy of it is not needed.
            if unsafe { libc::dup2(source.as_raw_fd(), *target) } == -1 {
                return Err(io::Error::last_os_error());
            }
        }
        signals::reset()
    }

    /// Returns only on failure.
    fn execute(&self, confinement: &Confinement) -> io::Error {
        if let Err((_, error)) = confinement.apply() {
            return error;
        }
        let (arguments, environment) = (self.arguments.as_ptr(), self.environment.as_ptr());
        match &self.executable {
            None => {
                // SAFETY: all pointers point into strings of the `Command` that the caller of `spawn` still
                // borrows; both arrays end with a null pointer.
                unsafe { libc::execve(self.program, arguments, environment) };
            }
            Some(executable) => {
                let (fd, path) = (executable.as_raw_fd(), c"".as_ptr());
                let (call, itself) = (libc::SYS_execveat, libc::AT_EMPTY_PATH);
                // SAFETY: as above; the empty path with its flag stands for the descriptor itself. musl has no
                // function for the call.
                unsafe { libc::syscall(call, fd, path, arguments, environment, itself) };
            }
        }
        io::Error::last_os_error()
    }
}
