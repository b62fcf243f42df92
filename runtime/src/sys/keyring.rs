//! keyctl(2): a session keyring of the container's own.

use std::io;

/// `KEYCTL_JOIN_SESSION_KEYRING` of linux/keyctl.h.
const JOIN_SESSION_KEYRING: libc::c_int = 1;

/// Leaves the inherited session keyring, whose keys belong to whoever started us, for an empty new one.
///
/// # Errors
///
/// The kernel's answer: `ENOSYS` if it is built without keys, `EDQUOT` if the user has too many.
pub fn join_new_session_keyring() -> io::Result<()> {
    let unnamed: *const libc::c_char = std::ptr::null();
    // SAFETY: a null name asks for an unnamed keyring; nothing is read or written through it.
    let answer = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, unnamed) };
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
