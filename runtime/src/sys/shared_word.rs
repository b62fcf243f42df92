//! A word of memory that outlives its writer: what a process leaves that may make no system call any more.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::{Errno, pread};

/// The writer's side: it stays mapped until the process executes another program or ends.
#[derive(Debug)]
pub struct SharedWord(NonNull<AtomicU32>);

impl SharedWord {
    /// A word that holds `value`, and the descriptor by which others [`read`] it.
    pub fn create(value: u32) -> io::Result<(SharedWord, OwnedFd)> {
        // Where the kernel knows the second flag (6.3) it may demand it (vm.memfd_noexec).
        let flags = MemfdFlags::CLOEXEC;
        let memory =
            memfd_create("word", flags | MemfdFlags::NOEXEC_SEAL).or_else(|_| memfd_create("word", flags))?;
        let size = size_of::<AtomicU32>();
        ftruncate(&memory, size as u64)?;
        let (access, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        let file = memory.as_raw_fd();
        // SAFETY: a new mapping at an address of the kernel's choice takes nothing away from anybody.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), size, access, shared, file, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let word = SharedWord(NonNull::new(address.cast()).ok_or(Errno::FAULT)?);
        // The page is had now and not when there is no way left to say that it cannot be had.
        word.store(value);
        Ok((word, memory))
    }

    /// Leaves `value`: no system call, no allocation.
    pub fn store(&self, value: u32) {
        // SAFETY: mapped by `create`, page-aligned, and never unmapped.
        let word = unsafe { self.0.as_ref() };
        word.store(value, Ordering::Release);
    }
}

/// What the word behind `memory` holds.
///
/// # Errors
///
/// It is no [`SharedWord`]'s, or the kernel's answer.
pub fn read(memory: BorrowedFd<'_>) -> io::Result<u32> {
    let mut bytes = [0; size_of::<u32>()];
    match pread(memory, &mut bytes, 0)? {
        4 => Ok(u32::from_ne_bytes(bytes)),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_was_stored_is_read_by_the_descriptor() {
        let (word, memory) = SharedWord::create(7).unwrap();
        assert_eq!(read(memory.as_fd()).unwrap(), 7);
        for value in [0, 1, u32::MAX] {
            word.store(value);
            assert_eq!(read(memory.as_fd()).unwrap(), value);
        }
    }
}
