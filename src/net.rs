//! A task's network: a routed link of its own, and rules that end at the host.
//!
//! ```text
//!   task ── eth0 ═══ dw… ── host ──► uplink, masqueraded          outside: yes
//!                      ├──► another task's dw…                    never
//!                      ├──► the host itself                       never, but a sidecar's port at 169.254.1.1
//!                      └──► metadata addresses                    never
//! ```
//!
//! [`Network::attach`] makes everything before the container exists, so that it costs nothing while an
//! image is brought: namespace, pair, address, rules, and only then is the task's end set up. The first
//! task's tables are loaded meanwhile. The runtime gets the namespace as a descriptor.
//!
//! [`Network::release`] cuts the link, forgets the task's connections and rules, and lets go of the
//! namespace, with which the kernel removes the links in its own time. The last task's release takes the
//! tables along.
//!
//! What a crash would leave (link, route, set elements, chain) is named in one file of the run's
//! directory before it is made ([`Record`]); `cleanup` and the next worker undo it by that.
//!
//! Modules: [`link`] makes interfaces and routes over [`netlink`], [`namespace`] the namespace,
//! [`addresses`] chooses, [`confinement`] keeps a process of the worker's own from what tasks may not reach, [`survey`] says what stands in the way, [`firewall`] writes the rules, [`nft`]
//! loads them, [`tables`] knows who holds them, [`elements`] lets single tasks in and out, [`ruleset`]
//! and [`netfilter`] read the kernel's state, [`names`] writes hosts and resolv.conf, [`sidecar`] links
//! a task to those that serve it.

pub mod addresses;
pub mod confinement;
pub mod elements;
pub mod firewall;
pub mod link;
pub mod names;
pub mod namespace;
pub mod netfilter;
pub mod netlink;
pub mod nft;
pub mod ruleset;
mod settings;
pub mod sidecar;
pub mod survey;
mod sysctl;
pub mod tables;

pub use settings::NetworkSettings;

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use runtime::id::ContainerId;
use serde::{Deserialize, Serialize};

use self::addresses::AddressRange;
use self::firewall::{Names, Pin};
use self::link::{Bytes, Claim, End, GATEWAY, Mac, Route, TASK_INTERFACE, Traffic};
use self::namespace::Namespace;
use self::netlink::{Family, Socket};
use self::survey::Obstacle;
use self::tables::{Entry, Left, Place, TablesError};
use crate::directories::Directories;
use crate::file_lock::Patience;

/// How the host end of a link is to behave: answer for its own address only, believe nothing about
/// routes, take packets only from where they would be sent to.
const LINK_PARAMETERS: &[(&str, &str, &str)] = &[
    ("ipv4", "rp_filter", "1"),
    ("ipv4", "route_localnet", "0"),
    ("ipv4", "arp_ignore", "1"),
    ("ipv4", "accept_redirects", "0"),
    ("ipv4", "send_redirects", "0"),
    ("ipv6", "accept_ra", "0"),
    ("ipv6", "disable_ipv6", "1"),
];

/// Addresses that are tried before a range counts as full.
const MOST_CLAIMS: usize = 4096;

/// The network of one worker's tasks.
#[derive(Debug)]
pub struct Network {
    names: Names,
    place: Place,
    settings: NetworkSettings,
    share: Mutex<Share>,
}

/// This process's share in the tables.
#[derive(Debug, Default)]
struct Share {
    /// Held while anybody of this process needs them.
    presence: Option<File>,
    /// Who does: tasks that have a network, and the process that serves them.
    users: usize,
    /// To the packet filter; kept open to the end, because closing it would wait ([`elements`]).
    socket: Option<Socket>,
}

impl Share {
    fn socket(&mut self) -> io::Result<&mut Socket> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => Socket::open(Family::Netfilter)?,
        };
        Ok(self.socket.insert(socket))
    }

    /// One less needs the tables. After the last one there is something to [`tables::leave`] by.
    fn let_go(&mut self) -> Option<File> {
        self.users = self.users.saturating_sub(1);
        if self.users == 0 { self.presence.take() } else { None }
    }
}

/// A task's end of it all. Dropping it lets the kernel remove the links, once the container is gone.
#[derive(Debug)]
pub struct TaskNetwork {
    namespace: OwnedFd,
    pin: Pin,
    ports: Vec<u16>,
    obstacles: Vec<Obstacle>,
}

/// What a crash would leave of a task's network: the last whole line of a file of its run's directory.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    link: String,
    mac: [u8; 6],
    address: Ipv4Addr,
    /// Of listeners at its gateway.
    #[serde(default)]
    ports: Vec<u16>,
}

impl Record {
    fn of(pin: &Pin, ports: &[u16]) -> Record {
        Record { link: pin.link.clone(), mac: pin.mac.0, address: pin.address, ports: ports.to_vec() }
    }
}

/// Why a task has no network, and so does not start.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// A step of the link's making.
    #[error("give the task a network: {step}: {source}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The journal's line.
    #[error("write {}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// No address is free.
    #[error("find a free address in {0}: set network.addresses to a larger range")]
    NoAddress(AddressRange),
    /// Addresses of the range belong to somebody.
    #[error(
        "take tasks' addresses from {range}: {network}/{prefix} is a network of this host; set network.addresses to a range that nothing else uses"
    )]
    Occupied {
        /// The range.
        range: AddressRange,
        /// The stranger's network.
        network: Ipv4Addr,
        /// How many of its bits count.
        prefix: u8,
    },
    /// The rules.
    #[error(transparent)]
    Tables(#[from] TablesError),
}

fn step(step: &'static str) -> impl FnOnce(io::Error) -> AttachError {
    move |source| AttachError::Step { step, source }
}

impl Network {
    /// The network as the configuration wants it. Nothing is made before the first task needs it.
    pub fn new(directories: &Directories, settings: &NetworkSettings) -> Network {
        Network {
            names: Names::of(&directories.run),
            place: Place::of(&directories.run),
            settings: settings.clone(),
            share: Mutex::default(),
        }
    }

    fn share(&self) -> MutexGuard<'_, Share> {
        self.share.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the network of a task. `record` is a file that is gone when the task's run is.
    ///
    /// Blocks for some milliseconds.
    ///
    /// # Errors
    ///
    /// [`AttachError`], also when others take too long or it is not `wanted` any more; [`Network::release`] takes back
    /// what was made.
    pub fn attach(
        &self,
        id: &ContainerId,
        record: &Path,
        wanted: &dyn Fn() -> bool,
    ) -> Result<TaskNetwork, AttachError> {
        let patience = tables::patience(wanted);
        let wanted = Wanted { network: self, id, record };
        let mut share = self.share();
        let (mut made, obstacles) = match share.presence {
            Some(_) => (wanted.make()?, Vec::new()),
            None => {
                let (made, obstacles) = self.enter(&mut share, patience, || wanted.make())?;
                (made?, obstacles)
            }
        };
        let socket = share.socket().map_err(TablesError::Look)?;
        elements::admit(socket, &self.names, &made.pin).map_err(step("let the task's packets in"))?;
        made.open().map_err(step("set the task's interface up"))?;
        share.users += 1;
        let Made { namespace, pin, .. } = made;
        Ok(TaskNetwork { namespace: namespace.descriptor, pin, ports: Vec::new(), obstacles })
    }

    /// Makes the tables and, while nft is at it, what else there is to be done.
    fn enter<Done>(
        &self,
        share: &mut Share,
        patience: Patience<'_>,
        meanwhile: impl FnOnce() -> Done,
    ) -> Result<(Done, Vec<Obstacle>), AttachError> {
        self.refuse_strangers()?;
        let socket = share.socket().map_err(TablesError::Look)?;
        let host = tables::HostLock::take(patience)?;
        let mut entry = Entry::begin(host, &self.place, &self.names, self.settings.addresses(), socket)?;
        let done = meanwhile();
        let obstacles = survey::obstacles(&self.settings);
        entry.finish()?;
        share.presence = Some(entry.into_presence());
        Ok((done, obstacles.map_err(TablesError::Look)?))
    }

    /// A route to a task must not lead astray what the host sends to somebody else.
    fn refuse_strangers(&self) -> Result<(), AttachError> {
        let range = self.settings.addresses();
        let routes = Socket::open(Family::Route).and_then(|mut socket| link::routes(&mut socket));
        let routes = routes.map_err(step("look at the host's routes"))?;
        let stranger =
            survey::strangers(range, &routes).find(|route| range.holds(route.destination, route.prefix));
        match stranger {
            Some(Route { destination: network, prefix, .. }) => {
                Err(AttachError::Occupied { range, network, prefix })
            }
            None => Ok(()),
        }
    }

    /// Takes back what [`Network::attach`] gave, after the container's last process; or what it left
    /// where it did not come to its end. With the last task of all its workers the tables go.
    ///
    /// # Errors
    ///
    /// Rules or tracked connections resist; the next clean-up tries again.
    pub fn release(&self, task: Option<TaskNetwork>, record: &Path) -> Result<(), TablesError> {
        let Network { names, place, .. } = self;
        let mut share = self.share();
        let Some(TaskNetwork { namespace, pin, ports, .. }) = task else {
            undo_record(names, place, record)?;
            if share.users == 0 {
                drop(share.presence.take());
                tables::sweep(place, names)?;
            }
            return Ok(());
        };
        let presence = share.let_go();
        let socket = share.socket().map_err(TablesError::Look)?;
        cut(place, &pin, socket)?;
        let left = match presence {
            Some(presence) => tables::leave(place, names, presence, socket)?,
            None => Left::Held,
        };
        if left == Left::Held {
            elements::forget(socket, names, &pin, &ports).map_err(TablesError::Delete)?;
        }
        drop(namespace);
        Ok(())
    }

    /// Name servers for a host that has none which tasks reach.
    pub fn dns(&self) -> &[Ipv4Addr] {
        &self.settings.dns
    }
}

impl TaskNetwork {
    /// The namespace, for the container to join.
    pub fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// What stands in the way of this worker's tasks; only its first task is told.
    pub fn obstacles(&self) -> &[Obstacle] {
        &self.obstacles
    }

    /// The task's address.
    pub fn address(&self) -> Ipv4Addr {
        self.pin.address
    }

    /// The host end of the task's link.
    pub fn link(&self) -> &str {
        &self.pin.link
    }
}

/// A link that is to be made.
struct Wanted<'a> {
    network: &'a Network,
    id: &'a ContainerId,
    record: &'a Path,
}

/// A link that is made, and whose task's end is still down.
struct Made {
    host: Socket,
    namespace: Namespace,
    /// The number of the task's end.
    inside: u32,
    pin: Pin,
}

impl Wanted<'_> {
    fn make(&self) -> Result<Made, AttachError> {
        let mut host = Socket::open(Family::Route).map_err(step("open a netlink socket"))?;
        let mut namespace = namespace::make().map_err(step("make a network namespace"))?;
        let mac = Mac(mac(self.id));
        let link = self.network.names.link(self.id);
        let mut pin = Pin { link: link.clone(), mac, address: Ipv4Addr::UNSPECIFIED };
        sidecar::note(&Record::of(&pin, &[]), self.record)?;
        let mtu = link::uplink_mtu(&mut host).map_err(step("find the uplink's MTU"))?;
        let ends = [
            End { name: &link, mac: None, namespace: None },
            End { name: TASK_INTERFACE, mac: Some(mac), namespace: Some(namespace.descriptor.as_fd()) },
        ];
        link::make_pair(&mut host, ends, mtu).map_err(step("make a veth pair"))?;
        let index = link::find(&mut host, &link).map_err(step("find the veth pair"))?.index;
        for (family, name, value) in LINK_PARAMETERS {
            sysctl::set(&format!("{family}/conf/{link}/{name}"), value)
                .map_err(step("set the link's parameters"))?;
        }
        // Its other end is still down, so nothing passes; but routes need it.
        link::set_up(&mut host, index).map_err(step("set the link up"))?;
        link::add_address(&mut host, index, GATEWAY, 32).map_err(step("give the gateway its address"))?;
        let address = self.claim(&mut host, index, &mut pin)?;
        link::add_neighbour(&mut host, index, address, mac)
            .map_err(step("note the task's neighbour entry"))?;
        let inside = furnish(&mut namespace.socket, address).map_err(step("furnish the namespace"))?;
        Ok(Made { host, namespace, inside, pin })
    }

    /// Claims the first candidate that nobody has.
    fn claim(&self, host: &mut Socket, index: u32, pin: &mut Pin) -> Result<Ipv4Addr, AttachError> {
        let Network { settings, place, .. } = self.network;
        let range = settings.addresses();
        let candidates = addresses::candidates(range, &place.resting());
        for address in candidates.map_err(step("read the resting addresses"))?.take(MOST_CLAIMS) {
            pin.address = address;
            sidecar::note(&Record::of(pin, &[]), self.record)?;
            match link::claim(host, index, address).map_err(step("claim an address"))? {
                Claim::Taken => return Ok(address),
                Claim::Busy => {}
            }
        }
        Err(AttachError::NoAddress(range))
    }
}

/// Loopback, and the address of the task; its interface stays down.
fn furnish(inside: &mut Socket, address: Ipv4Addr) -> io::Result<u32> {
    link::set_loopback_up(inside)?;
    let index = link::find(inside, TASK_INTERFACE)?.index;
    link::add_address(inside, index, address, 32)?;
    Ok(index)
}

impl Made {
    /// From here on packets pass.
    fn open(&mut self) -> io::Result<()> {
        link::set_up(&mut self.namespace.socket, self.inside)?;
        link::add_default_route(&mut self.namespace.socket, self.inside)?;
        link::settle(&mut self.host, &self.pin.link)
    }
}

/// What a task has sent and received so far by its link, seen from the task. `None`: the kernel does not say. Blocks
/// while others change the host's network.
///
/// # Errors
///
/// There is no such link any more.
pub fn traffic(link: &str) -> io::Result<Option<Bytes>> {
    let host_end = link::find(&mut Socket::open(Family::Route)?, link)?;
    Ok(host_end.bytes.map(|Bytes { received, sent }| Bytes { received: sent, sent: received }))
}

/// A locally administered address, of the container's random id.
fn mac(id: &ContainerId) -> [u8; 6] {
    let mut mac = [0x02, 0, 0, 0, 0, 0];
    let digits = id.as_str().as_bytes();
    for (byte, pair) in mac.iter_mut().skip(1).zip(digits.chunks(2)) {
        let text = std::str::from_utf8(pair).unwrap_or_default();
        *byte = u8::from_str_radix(text, 16).unwrap_or_default();
    }
    mac
}

/// Lets a task's address rest, and ends what comes and goes by its link. In this order: nobody else may
/// get the address, and no packet may begin a connection that was just forgotten.
fn cut(place: &Place, pin: &Pin, socket: &mut Socket) -> Result<(), TablesError> {
    rest(place, pin)?;
    let mut routes = Socket::open(Family::Route).map_err(TablesError::Look)?;
    let cut = link::cut(&mut routes, &pin.link);
    match cut.map_err(|source| TablesError::Cut { name: pin.link.clone(), source })? {
        // Looking through the host's connections takes the kernel some 9 ms.
        Traffic::None => Ok(()),
        Traffic::Some => netfilter::forget_connections(socket, pin.address).map_err(TablesError::Connections),
    }
}

fn rest(place: &Place, pin: &Pin) -> Result<(), TablesError> {
    if pin.address.is_unspecified() {
        return Ok(()); // It came to none.
    }
    let path = place.resting();
    addresses::rest(pin.address, &path).map_err(|source| TablesError::File { call: "write", path, source })
}

/// Undoes the network of a run whose worker is gone, by its record. "Already gone" is success.
///
/// # Errors
///
/// [`TablesError`]; the record stays, so that it can be tried again.
pub fn undo(run_directory: &Path, record: &Path) -> Result<(), TablesError> {
    undo_record(&Names::of(run_directory), &Place::of(run_directory), record)
}

fn undo_record(names: &Names, place: &Place, record: &Path) -> Result<(), TablesError> {
    let text = match std::fs::read_to_string(record) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read.map_err(|source| TablesError::File { call: "read", path: record.to_owned(), source })?,
    };
    // A line that a crash cut was written before what it names was made.
    let last = text.lines().rev().find_map(|line| serde_json::from_str(line).ok());
    let Some(Record { link, mac, address, ports }) = last else { return Ok(()) };
    let pin = Pin { link, mac: Mac(mac), address };
    rest(place, &pin)?;
    let mut routes = Socket::open(Family::Route).map_err(TablesError::Look)?;
    let deleted = link::delete(&mut routes, &pin.link);
    deleted.map_err(|source| TablesError::Link { name: pin.link.clone(), source })?;
    let mut socket = Socket::open(Family::Netfilter).map_err(TablesError::Look)?;
    elements::forget(&mut socket, names, &pin, &ports).map_err(TablesError::Delete)?;
    netfilter::forget_connections(&mut socket, address).map_err(TablesError::Connections)
}

/// Removes what is left of the tables of workers that are all dead.
///
/// # Errors
///
/// [`TablesError`]
pub fn sweep(run_directory: &Path) -> Result<(), TablesError> {
    tables::sweep(&Place::of(run_directory), &Names::of(run_directory))
}
