//! seccomp(2): binding a compiled filter to this thread.
use libc::{sock_filter, sock_fprog};
use std::io;

/// Binds a filter to the calling thread and what it executes, for good.
///
/// `flags` are `SECCOMP_FILTER_FLAG_*`. It does not set `no_new_privs`: without that the caller needs
/// CAP_SYS_ADMIN.
///
/// # Errors
///
/// `EACCES` without either; `EINVAL` for a program that the kernel's checker refuses, or for an
/// unknown flag.
pub fn install(program: &[seccompiler::sock_filter], flags: u64) -> io::Result<()> {
    let mut instructions: Vec<sock_filter> = program
        .iter()
        .map(|instruction| sock_filter {
            code: instruction.code,
            jt: instruction.jt,
            jf: instruction.jf,
            k: instruction.k,
        })
        .collect();
    let len = u16::try_from(instructions.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = sock_fprog { len, filter: instructions.as_mut_ptr() };
    // SAFETY: `program` describes exactly `instructions`, both live past the call, and the kernel
    // copies them and keeps no pointer.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
