//! The crate's only unsafe code: the ioctls of loop devices, which no crate of ours wraps.
//!
//! Source: `loop(4)`, `linux/loop.h`.
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;

const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// `struct loop_info64`: zero means "the default" in every field.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const NO_INFO: LoopInfo = LoopInfo {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    encrypt_key: [0; 32],
    init: [0; 2],
};

/// Number of a loop device that is free now; another process may take it before us.
///
/// # Errors
///
/// Those of `ioctl(LOOP_CTL_GET_FREE)`.
pub fn free_loop_device(control: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: this request takes no argument; the descriptor is open for the whole call.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    u32::try_from(number).map_err(|_| io::Error::last_os_error())
}

/// Puts a file behind a loop device: read-only, without a second page cache where the file system
/// can, and detached by the kernel with the last user.
///
/// # Errors
///
/// Those of `ioctl(LOOP_CONFIGURE)`; `EBUSY` when another process has taken the device. `ENOTTY` or `EINVAL` before Linux 5.8.
pub fn configure_loop(device: BorrowedFd<'_>, file: BorrowedFd<'_>, block_bytes: u32) -> io::Result<()> {
    let flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO;
    let config = LoopConfig {
        fd: file.as_raw_fd().cast_unsigned(),
        block_size: block_bytes,
        info: LoopInfo { flags, ..NO_INFO },
        reserved: [0; 8],
    };
    // SAFETY: `config` has the layout of `struct loop_config` and lives past the call, which only
    // reads it; both descriptors are open for the whole call, and the kernel takes its own
    // reference to the file.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layouts_are_the_kernels() {
        assert_eq!(size_of::<LoopInfo>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 304);
        assert_eq!(std::mem::offset_of!(LoopInfo, flags), 52);
    }
}
