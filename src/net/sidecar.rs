//! How a task reaches those that serve it alone: a listener at its gateway, a link to another container.
//!
//! ```text
//!   task ── eth0 ═══ dw… 169.254.1.1:80 ── listener of the worker's, bound to dw…
//!        └─ link0 169.254.2.0/31 ═══ 169.254.2.1/31 link0 ── a sidecar's container
//! ```
//!
//! Neither needs forwarding, and nobody else can reach either: the listener takes packets of one link
//! only, and the second link has its ends in two namespaces and touches the host nowhere. (What the host's own processes
//! send to the listener's address counts as come by the link: a rule drops it, see [`super::firewall`].)

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use nix::sys::socket::{setsockopt, sockopt};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};

use super::link::{self, End, GATEWAY};
use super::netlink::{Family, Socket};
use super::tables::TablesError;
use super::{AttachError, Network, Record, TaskNetwork, elements, namespace, step};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// The first address of the first link between containers; each link takes two. Link-local, so that no
/// network of anybody's is shadowed.
const LINKS: Ipv4Addr = Ipv4Addr::new(169, 254, 2, 0);

/// The largest packet on a link between containers: no uplink limits it.
const LINK_MTU: u32 = 1500;

/// A listener that is to be made for one task.
#[derive(Debug)]
pub struct Listening {
    port: u16,
    record: Record,
    path: PathBuf,
}

impl TaskNetwork {
    /// Wants a listener on a port of the gateway address, for this task only. `record` is the one that
    /// [`Network::attach`] was given. From now on the network's release takes the listener's rules back.
    pub fn listening(&mut self, port: u16, record: &Path) -> Listening {
        self.ports.push(port);
        Listening { port, record: Record::of(&self.pin, &self.ports), path: record.to_owned() }
    }
}

impl Network {
    /// Makes a listener. Blocks for some milliseconds.
    ///
    /// # Errors
    ///
    /// [`AttachError`]; what was made goes with the task's network.
    pub fn listen(&self, Listening { port, record, path }: &Listening) -> Result<TcpListener, AttachError> {
        // Before anything is made: the element that admits the port has to be found after a crash.
        note(record, path)?;
        let listener = bound_to(&record.link, *port).map_err(step("listen at the gateway"))?;
        let mut share = self.share();
        let socket = share.socket().map_err(TablesError::Look)?;
        elements::listen(socket, &self.names, &record.link, *port)
            .map_err(step("let the task reach a listener"))?;
        Ok(listener)
    }
}

/// A socket that is bound to the link before it listens, so that no packet of another link is taken.
fn bound_to(link: &str, port: u16) -> io::Result<TcpListener> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    setsockopt(&socket, sockopt::BindToDevice, &OsString::from(link))?;
    bind(&socket, &SocketAddrV4::new(GATEWAY, port))?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Appends a line to a run's record.
pub(super) fn note(record: &Record, path: &Path) -> Result<(), AttachError> {
    let append = || {
        let line = serde_json::to_string(record)? + "\n";
        let mut file = File::options().create(true).append(true).open(path)?;
        file.write_all(line.as_bytes())
    };
    append().map_err(|source| AttachError::Record { path: path.to_owned(), source })
}

/// Links two containers by their network namespaces, and returns the addresses of both ends: what their
/// `/etc/hosts` name. The link goes with the first of the namespaces that goes. `number` tells apart the
/// links of one container.
///
/// # Errors
///
/// The kernel's refusal; `EEXIST` if either container has a link of that number.
pub fn link_containers(containers: [BorrowedFd<'_>; 2], number: u8) -> Result<[Ipv4Addr; 2], AttachError> {
    let name = format!("link{number}");
    let first = LINKS.to_bits() + 2 * u32::from(number);
    let addresses = [first, first + 1].map(Ipv4Addr::from_bits);
    let mut host = Socket::open(Family::Route).map_err(step("open a netlink socket"))?;
    let ends = containers.map(|namespace| End { name: &name, mac: None, namespace: Some(namespace) });
    link::make_pair(&mut host, ends, LINK_MTU).map_err(step("link two containers"))?;
    let mut sockets = Vec::new();
    for (namespace, address) in containers.into_iter().zip(addresses) {
        sockets.push(furnish(namespace, &name, address).map_err(step("furnish a link of two containers"))?);
    }
    for socket in &mut sockets {
        link::settle(socket, &name).map_err(step("let a link of two containers send"))?;
    }
    Ok(addresses)
}

fn furnish(namespace: BorrowedFd<'_>, name: &str, address: Ipv4Addr) -> io::Result<Socket> {
    let mut inside = namespace::socket_in(namespace)?;
    let index = link::find(&mut inside, name)?.index;
    link::add_address(&mut inside, index, address, 31)?;
    link::set_up(&mut inside, index)?;
    Ok(inside)
}
