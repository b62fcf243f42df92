//! The container's pty: allocated in its own devpts, held by the monitor.
//!
//! Both ends are opened by descriptor: the master through the container's `/dev/pts/ptmx`, checked to be
//! that device, and the other end from the master (`TIOCGPTPEER`, Linux 4.13), so that no name in the image
//! can stand in for either (CVE-2016-9962's family).

pub mod relay;

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, Uid, fchown};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, sendmsg, socket_with,
};
use rustix::process::ioctl_tiocsctty;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};

use crate::plan;
use crate::rootfs::device::{DeviceError, open_checked};
use crate::rootfs::mount::attach_at;
use crate::rootfs::{Links, Root, RootError, Shape};

/// Both ends.
#[derive(Debug)]
pub struct Pty {
    /// What the terminal shows and hears.
    pub master: OwnedFd,
    /// What the command has as its standard streams.
    pub peer: OwnedFd,
}

/// The pty could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// There is no usable `/dev/pts/ptmx`.
    #[error("open a pty in the container: does it mount devpts on /dev/pts?")]
    Ptmx(#[from] DeviceError),
    /// `/dev/console` cannot be made.
    #[error(transparent)]
    Console(#[from] RootError),
    /// The kernel refused.
    #[error("{call} a pty")]
    Kernel { call: &'static str, source: io::Error },
    /// Nobody takes the master.
    #[error("send the pty to the console socket {}", path.display())]
    ConsoleSocket { path: PathBuf, source: io::Error },
}

fn kernel(call: &'static str) -> impl FnOnce(Errno) -> TerminalError {
    move |errno| TerminalError::Kernel { call, source: errno.into() }
}

/// [`open`], and shows it as `/dev/console`.
///
/// # Errors
///
/// There is no devpts, or the kernel refused.
pub fn open_console(root: &Root, wanted: plan::Terminal, uid: u32) -> Result<Pty, TerminalError> {
    let pty = open(root, wanted, uid)?;
    let console = root.find_or_make(Path::new("/dev/console"), Shape::File, Links::Refused)?;
    let copy = crate::rootfs::mount::clone(pty.peer.as_fd(), Path::new(""), plan::mount_options::Depth::One)
        .map_err(kernel("clone the node of"))?;
    attach_at(copy.as_fd(), console.as_fd()).map_err(kernel("bind on /dev/console"))?;
    Ok(pty)
}

/// Opens a pty in the container's devpts, for the user `uid`.
///
/// # Errors
///
/// There is no devpts, or the kernel refused.
pub fn open(root: &Root, wanted: plan::Terminal, uid: u32) -> Result<Pty, TerminalError> {
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let master = open_checked(root, Path::new("/dev/pts/ptmx"), flags, (5, 2))?;
    unlockpt(&master).map_err(kernel("unlock"))?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let peer = ioctl_tiocgptpeer(&master, flags).map_err(kernel("open the other end of"))?;
    if let Some(size) = wanted.size.map(winsize).or_else(operators_size) {
        tcsetwinsize(&master, size).map_err(kernel("set the size of"))?;
    }
    if uid != 0 {
        fchown(&peer, Some(Uid::from_raw(uid)), None).map_err(kernel("chown"))?;
    }
    Ok(Pty { master, peer })
}

fn winsize(size: plan::Size) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// The size of the terminal that the runtime was started on, if it was.
fn operators_size() -> Option<Winsize> {
    tcgetwinsize(rustix::stdio::stdin()).ok()
}

/// Makes a pty's other end this session's terminal and standard streams.
///
/// # Errors
///
/// The kernel's answer; the process must lead a session that has no terminal.
pub fn become_controlling(peer: &OwnedFd) -> Result<(), TerminalError> {
    ioctl_tiocsctty(peer).map_err(kernel("get as controlling terminal"))?;
    rustix::stdio::dup2_stdin(peer).map_err(kernel("dup2"))?;
    rustix::stdio::dup2_stdout(peer).map_err(kernel("dup2"))?;
    rustix::stdio::dup2_stderr(peer).map_err(kernel("dup2"))
}

/// Sends the master to the socket of a caller that wants to hold it itself (conmon, containerd's shim).
///
/// # Errors
///
/// Nobody listens there.
pub fn send_to(path: &Path, master: BorrowedFd<'_>) -> Result<(), TerminalError> {
    let failed = |source| TerminalError::ConsoleSocket { path: path.to_owned(), source };
    // Where too many wait to be accepted already this fails, and does not wait with them.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let connected = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .and_then(|socket| connect(&socket, &SocketAddrUnix::new(path)?).map(|()| socket));
    let socket = connected.map_err(|errno| failed(errno.into()))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [master];
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(failed(Errno::TOOBIG.into()));
    }
    // The name is what runc sends too; nobody resolves it.
    sendmsg(&socket, &[IoSlice::new(b"/dev/ptmx")], &mut control, SendFlags::NOSIGNAL)
        .map(drop)
        .map_err(|errno| failed(errno.into()))
}
