//! Signals: dispositions, which execve(2) passes on where they are "ignore", and numbers without a name.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Signals are numbered from 1 to this (signal(7)).
const LAST: i32 = 64;

/// `struct kernel_sigaction`: handler, flags, restorer, mask.
static DEFAULT: [u64; 4] = [0; 4];

/// Sets every signal back to its default and lets all through, so that a program inherits neither Rust's ignored
/// SIGPIPE nor what this process blocks, nor what the operator's shell ignored. Allocates nothing.
pub fn reset() -> io::Result<()> {
    // Not by libc's function, which refuses the two or three signals that it keeps for itself.
    let null: *const libc::c_void = std::ptr::null();
    for signal in 1..=LAST {
        // SAFETY: the kernel reads a `struct sigaction` of that many bytes with a mask of eight; all zero it is the
        // default disposition, which runs no code of ours. SIGKILL and SIGSTOP answer EINVAL and stay as they are.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const DEFAULT, null, size_of::<u64>()) };
    }
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: it fills the set, which lives past the call.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: the set was filled, and the null pointer asks for no old one.
    let answer = unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Every signal, for calls that take eight bytes of them.
static ALL: u64 = u64::MAX;

/// Blocks every signal that can be blocked, those included that libc keeps for itself.
///
/// # Errors
///
/// The kernel's answer.
pub fn block_all() -> io::Result<()> {
    let (how, no_old): (_, *mut libc::c_void) = (libc::SIG_SETMASK, std::ptr::null_mut());
    // SAFETY: the kernel reads the eight bytes of the set and is asked for no old one.
    let answer =
        unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const ALL, no_old, size_of::<u64>()) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A signal that has come.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    /// Which.
    pub number: i32,
    /// kill(2) or pidfd_send_signal(2) of a process that is in no pid namespace of this one's, but in one above. A code that
    /// is not negative comes from the kernel, which says 0 of a sender without a number here (rt_sigqueueinfo(2),
    /// pid_namespaces(7)). It says the same of a standard signal that came when this process's `RLIMIT_SIGPENDING` was
    /// reached, whoever sent it: without that limit nobody can pretend to be outside.
    pub is_from_outside: bool,
}

/// Waits for a signal, all of which are blocked, and takes it. Allocates nothing.
///
/// # Errors
///
/// The kernel's answer.
pub fn take_next() -> io::Result<Taken> {
    let mut information = MaybeUninit::<libc::siginfo_t>::zeroed();
    let for_ever: *const libc::timespec = std::ptr::null();
    loop {
        // SAFETY: the kernel reads the eight bytes of the set and fills the information, which lives past the call; no time is
        // given.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_rt_sigtimedwait,
                &raw const ALL,
                information.as_mut_ptr(),
                for_ever,
                size_of::<u64>(),
            )
        };
        match i32::try_from(answer) {
            Ok(number) if number > 0 => {
                // SAFETY: it was all zero, which is a value of it, before the kernel filled it.
                let information = unsafe { information.assume_init_ref() };
                return Ok(Taken { number, is_from_outside: is_from_outside(information) });
            }
            _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            _ => return Err(io::Error::last_os_error()),
        }
    }
}

fn is_from_outside(information: &libc::siginfo_t) -> bool {
    // SAFETY: with that code the sender's number is what stands there (sigaction(2)); in any other case it is a number all
    // the same, and not looked at.
    let sender = unsafe { information.si_pid() };
    information.si_code == libc::SI_USER && sender == 0
}

/// kill(2) by number, of a child that this process alone reaps and has not.
///
/// # Errors
///
/// The kernel's answer.
pub fn send_to_child(child: i32, number: i32) -> io::Result<()> {
    // SAFETY: plain numbers; the call touches no memory.
    let answer = unsafe { libc::kill(child, number) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// pidfd_send_signal(2) by number, real-time signals included.
///
/// # Errors
///
/// The kernel's answer; `EINVAL` for a number that is no signal.
pub fn send(process: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    let no_information: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: a null pointer asks for the information that kill(2) would give; nothing else is a pointer.
    let answer =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), number, no_information, 0) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
