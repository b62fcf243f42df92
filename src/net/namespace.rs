//! Network namespaces: making one for a task, and looking into one.
//!
//! A namespace belongs to a thread, so each of these runs a thread of its own that ends at once; no
//! thread of the worker ever goes on in another namespace than the host's.

use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::netlink::{Family, Socket};
use super::sysctl;

/// How the interfaces of a task's namespace are to behave, from their making: nobody on the link may
/// steer its routes, and there is no IPv6 but on loopback. Of two links neither leads to the other: a new namespace has
/// what the host's first one has, which forwards.
///
/// What a task may read of it is harmless, and `/proc/sys` is read-only for it.
const TASK_PARAMETERS: &[(&str, &str)] = &[
    ("ipv4/conf/all/forwarding", "0"),
    ("ipv4/conf/default/forwarding", "0"),
    ("ipv4/conf/all/rp_filter", "1"),
    ("ipv4/conf/default/rp_filter", "1"),
    ("ipv4/conf/all/arp_ignore", "1"),
    ("ipv4/conf/default/arp_ignore", "1"),
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/accept_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv6/conf/all/accept_ra", "0"),
    ("ipv6/conf/all/accept_redirects", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/accept_redirects", "0"),
    ("ipv6/conf/default/disable_ipv6", "1"),
];

/// A network namespace, and a socket that stays in it.
#[derive(Debug)]
pub struct Namespace {
    /// By which it is joined. The kernel removes it after the last descriptor and process.
    pub descriptor: OwnedFd,
    /// For links, addresses and routes in it.
    pub socket: Socket,
}

/// Makes the namespace of a task: loopback only, and that down.
///
/// # Errors
///
/// The kernel's refusal.
pub fn make() -> io::Result<Namespace> {
    in_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let descriptor = File::open("/proc/thread-self/ns/net")?.into();
        for (name, value) in TASK_PARAMETERS {
            sysctl::set(name, value)?;
        }
        Ok(Namespace { descriptor, socket: Socket::open(Family::Route)? })
    })
}

/// A socket in another namespace.
///
/// # Errors
///
/// The kernel's refusal.
pub fn socket_in(namespace: BorrowedFd<'_>) -> io::Result<Socket> {
    in_thread(|| {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        Socket::open(Family::Route)
    })
}

/// A TCP socket in another namespace, that is connected to nobody yet.
///
/// # Errors
///
/// The kernel's refusal.
pub fn tcp_socket_in(namespace: BorrowedFd<'_>) -> io::Result<TcpStream> {
    in_thread(|| {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        Ok(socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?.into())
    })
}

fn in_thread<Result: Send>(work: impl FnOnce() -> io::Result<Result> + Send) -> io::Result<Result> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("namespace".to_owned()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
    })
}
