//! The one ioctl(2) that a fresh network namespace needs.

use std::io;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Sets `lo` of the current network namespace up. It gets 127.0.0.1 and ::1 by itself.
pub fn set_loopback_up() -> io::Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut request = InterfaceFlags { name: [0; libc::IFNAMSIZ], flags: 0, padding: [0; 22] };
    request.name[..2].copy_from_slice(b"lo");
    // IFF_UP of net/if.h. Nothing else of a new loopback's flags can be set, so there is nothing to keep.
    request.flags = 1;
    // SAFETY: SIOCSIFFLAGS reads a `struct ifreq`; `request` has its size and layout and outlives the call.
    let answer =
        unsafe { libc::syscall(libc::SYS_ioctl, socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `struct ifreq` of net/if.h in its form for flags.
#[repr(C)]
struct InterfaceFlags {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    padding: [u8; 22],
}

const _: () = assert!(size_of::<InterfaceFlags>() == size_of::<libc::ifreq>());
