//! seccomp(2): binding a compiled filter to this thread.
use libc::{sock_filter, sock_fprog};
use std::io;

/// A filter as the kernel takes it: what needs memory is done when this is made, so that installing it is one call.
#[derive(Debug)]
pub struct Program {
    instructions: Vec<sock_filter>,
    flags: u64,
}

impl Program {
    /// `flags` are `SECCOMP_FILTER_FLAG_*`.
    pub fn new(program: &[seccompiler::sock_filter], flags: u64) -> Program {
        let instructions = program.iter().map(|instruction| sock_filter {
            code: instruction.code,
            jt: instruction.jt,
            jf: instruction.jf,
            k: instruction.k,
        });
        Program { instructions: instructions.collect(), flags }
    }

    /// Binds the filter to the calling thread and what it executes, for good.
    ///
    /// It does not set `no_new_privs`: without that the caller needs CAP_SYS_ADMIN.
    ///
    /// # Errors
    ///
    /// `EACCES` without either; `EINVAL` for a program that the kernel's checker refuses, or for an
    /// unknown flag.
    pub fn install(&self) -> io::Result<()> {
        let len =
            u16::try_from(self.instructions.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        let program = sock_fprog { len, filter: self.instructions.as_ptr().cast_mut() };
        set_filter(self.flags, &raw const program)
    }

    /// Asks the kernel whether it knows filters and these flags, without installing anything.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an unknown flag, or from a kernel without CONFIG_SECCOMP_FILTER.
    pub fn check(&self) -> io::Result<()> {
        match set_filter(self.flags, std::ptr::null()) {
            // It looks at the program only after the flags (seccomp(2), EFAULT).
            Err(error) if error.raw_os_error() == Some(libc::EFAULT) => Ok(()),
            other => other,
        }
    }
}

fn set_filter(flags: u64, program: *const sock_fprog) -> io::Result<()> {
    // SAFETY: `program` is null, or describes instructions that live past the call; the kernel copies them, writes
    // nothing and keeps no pointer.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
