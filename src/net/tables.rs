//! Who holds the tables of a run directory, and the kernel's forwarding, while tasks run.
//!
//! ```text
//!   <run>/network/lock       held shared by every worker process whose tasks have a network
//!   <run>/network/addresses  addresses that rest (`addresses`)
//! ```
//!
//! The first process makes the tables, the last one removes them; if it died, the next clean-up does. A
//! process that has no task with a network any more, and none that serves tasks ([`super::confinement`]), counts as gone.
//!
//! Forwarding concerns the whole host, so it is noted where the whole host sees it and where it ends
//! with the host's network: an empty nftables table says that a worker switched it on. Whoever leaves
//! last, of all run directories, switches it off again.
//!
//! All of that changes under one lock for the host's network namespace, which is `flock(2)` on the file
//! `ip_forward` itself.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::firewall::{self, ANY_TABLE, FORWARDING_MARK, Names};
use super::netlink::{Family, Socket};
use super::nft::{self, Loading, NftError};
use super::ruleset::{self, Table};
use super::{addresses::AddressRange, elements, link, sysctl};
use crate::file_lock::{self, Hold, LockError, Patience};

/// The parameter that lets the kernel forward packets, and the lock of the host's network.
pub const FORWARDING: &str = "ipv4/ip_forward";

/// Why the tables are not there, or still there.
#[derive(Debug, thiserror::Error)]
pub enum TablesError {
    /// A file of the run directory cannot be made or locked.
    #[error("{call} {}: check that the file system is writable and has room", path.display())]
    File {
        /// What was tried.
        call: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Others are at it.
    #[error("lock {}: {lock}; end it if it hangs", path.display())]
    Locked {
        /// By what the host's network, or the file of resting addresses, is locked.
        path: PathBuf,
        /// Who.
        lock: LockError,
    },
    /// The kernel does not say which tables or links there are.
    #[error("look at the packet filter: does the kernel have nf_tables?")]
    Look(#[source] io::Error),
    /// What a task had in the tables, or they themselves, cannot be deleted.
    #[error("delete rules of the packet filter")]
    Delete(#[source] io::Error),
    /// What the proxy has to reach cannot be put into the tables.
    #[error("let the proxy reach the deployment and the host's resolvers")]
    Open(#[source] io::Error),
    /// A task's link cannot be set down.
    #[error("set the link {name} down")]
    Cut {
        /// Its host end.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Connections of a task cannot be forgotten.
    #[error("forget the task's tracked connections")]
    Connections(#[source] io::Error),
    /// What a dead worker left cannot be deleted.
    #[error("delete the link {name}")]
    Link {
        /// Its host end.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Forwarding cannot be switched.
    #[error(
        "let the kernel forward packets: set net.ipv4.ip_forward=1, or make /proc/sys writable for docker-worker"
    )]
    Forwarding(#[source] io::Error),
    /// The thread that gave the network back did not come to its end.
    #[error("give the task's network back")]
    Panicked(#[source] tokio::task::JoinError),
    /// The rules were refused.
    #[error(transparent)]
    Nft(#[from] NftError),
}

/// The places of a run directory's network.
#[derive(Clone, Debug)]
pub struct Place(PathBuf);

impl Place {
    /// Of a run directory.
    pub fn of(run_directory: &Path) -> Place {
        Place(run_directory.join("network"))
    }

    /// The file of resting addresses.
    pub fn resting(&self) -> PathBuf {
        self.0.join("addresses")
    }

    fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    fn make(&self) -> Result<(), TablesError> {
        let made = DirBuilder::new().mode(0o700).recursive(true).create(&self.0);
        made.map_err(failed("make the directory", &self.0))
    }
}

/// How long others may take to load or remove their tables.
const PATIENCE: Duration = Duration::from_secs(30);

/// For the locks of the host's network, while that is `wanted`.
pub fn patience(wanted: &dyn Fn() -> bool) -> Patience<'_> {
    Patience::while_wanted(PATIENCE, wanted)
}

fn failed<'a>(call: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> TablesError + 'a {
    move |source| TablesError::File { call, path: path.to_owned(), source }
}

/// Nobody else changes tables or forwarding in this network namespace while this lives.
pub struct HostLock(File);

impl HostLock {
    /// Waits for others who change them.
    ///
    /// # Errors
    ///
    /// [`TablesError`] when they take too long, or it is not wanted any more.
    pub fn take(patience: Patience<'_>) -> Result<HostLock, TablesError> {
        let path = sysctl::path(FORWARDING);
        let file = File::open(&path).map_err(failed("open", &path))?;
        match file_lock::lock(&file, Hold::Exclusive, patience) {
            Ok(()) => Ok(HostLock(file)),
            Err(lock) => Err(TablesError::Locked { path, lock }),
        }
    }
}

/// A process that is about to hold the tables. Until it ends nobody else enters or leaves.
pub struct Entry {
    presence: File,
    loading: Option<Loading>,
    _host: HostLock,
}

impl Entry {
    /// Begins to hold the tables of `names`; they are being loaded from here on.
    ///
    /// # Errors
    ///
    /// [`TablesError`], and nothing has changed.
    pub fn begin(
        host: HostLock,
        place: &Place,
        names: &Names,
        range: AddressRange,
        socket: &mut Socket,
    ) -> Result<Entry, TablesError> {
        place.make()?;
        let path = place.lock();
        let presence =
            File::options().create(true).append(true).open(&path).map_err(failed("open", &path))?;
        let mut rules = match presence.try_lock() {
            Ok(()) => {
                // Left by somebody who is dead: nobody needs them.
                let tables = ruleset::tables(socket).map_err(TablesError::Look)?;
                let left: Vec<Table> = tables.into_iter().filter(|it| it.name == names.table).collect();
                elements::delete_tables(socket, &left).map_err(TablesError::Delete)?;
                firewall::tables(names, range)
            }
            Err(TryLockError::WouldBlock) => String::new(), // Another process has made them.
            Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
        };
        if !forwards().map_err(TablesError::Forwarding)? {
            rules += &format!("add table inet {FORWARDING_MARK}\n");
        }
        // From exclusive to shared: the host's lock keeps everybody else out in between.
        presence.try_lock_shared().map_err(|error| failed("lock", &path)(error.into()))?;
        let loading = if rules.is_empty() { None } else { Some(nft::start(&rules, &host.0)?) };
        Ok(Entry { presence, loading, _host: host })
    }

    /// Waits until the tables are in force, then lets packets be forwarded.
    ///
    /// # Errors
    ///
    /// The rules are refused, or forwarding cannot be switched on.
    pub fn finish(&mut self) -> Result<(), TablesError> {
        if let Some(loading) = self.loading.take() {
            loading.finish()?;
        }
        if !forwards().map_err(TablesError::Forwarding)? {
            sysctl::set(FORWARDING, "1").map_err(TablesError::Forwarding)?;
        }
        Ok(())
    }

    /// What has to be held while there are tasks, and to [`leave`] by, whether or not all went well.
    pub fn into_presence(self) -> File {
        self.presence
    }
}

/// Whether the kernel forwards packets.
///
/// # Errors
///
/// `/proc/sys` cannot be read.
pub fn forwards() -> io::Result<bool> {
    Ok(std::fs::read_to_string(sysctl::path(FORWARDING))?.trim() == "1")
}

/// What became of the tables when a process left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// They are gone, with everything in them.
    Removed,
    /// Another process holds them.
    Held,
}

/// Lets go of the tables; the last one removes them.
///
/// # Errors
///
/// [`TablesError`]; the next clean-up tries again.
pub fn leave(place: &Place, names: &Names, presence: File, socket: &mut Socket) -> Result<Left, TablesError> {
    let host = HostLock::take(patience(&|| true))?;
    let path = place.lock();
    match presence.try_lock() {
        Ok(()) => remove(&path, names, socket, &host).map(|()| Left::Removed),
        Err(TryLockError::WouldBlock) => Ok(Left::Held),
        Err(TryLockError::Error(source)) => Err(failed("lock", &path)(source)),
    }
}

/// Removes what is left of the network of workers that are all dead: links, tables, forwarding.
///
/// # Errors
///
/// [`TablesError`]; calling again tries what is left once more.
pub fn sweep(place: &Place, names: &Names) -> Result<(), TablesError> {
    let path = place.lock();
    if !path.exists() {
        return Ok(());
    }
    let host = HostLock::take(patience(&|| true))?;
    let presence = match File::options().append(true).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(failed("open", &path))?,
    };
    match presence.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(()),
        Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
    }
    let mut socket = Socket::open(Family::Route).map_err(TablesError::Look)?;
    for interface in link::list(&mut socket).map_err(TablesError::Look)? {
        if interface.name.starts_with(&names.links) {
            let name = interface.name;
            link::delete(&mut socket, &name).map_err(|source| TablesError::Link { name, source })?;
        }
    }
    let mut socket = Socket::open(Family::Netfilter).map_err(TablesError::Look)?;
    remove(&path, names, &mut socket, &host)
}

/// Removes the tables, and forwarding if nobody else wants it, and at last the lock's file.
fn remove(lock: &Path, names: &Names, socket: &mut Socket, _host: &HostLock) -> Result<(), TablesError> {
    let tables = ruleset::tables(socket).map_err(TablesError::Look)?;
    let is_mark = |table: &Table| table.name == FORWARDING_MARK;
    let is_other =
        |table: &Table| table.name.starts_with(ANY_TABLE) && table.name != names.table && !is_mark(table);
    let is_last = !tables.iter().any(is_other);
    // Forwarding may be off: then switching it on was what failed.
    if is_last && tables.iter().any(is_mark) && forwards().map_err(TablesError::Forwarding)? {
        sysctl::set(FORWARDING, "0").map_err(TablesError::Forwarding)?;
    }
    let ends = |table: &Table| table.name == names.table || is_last && is_mark(table);
    let ending: Vec<Table> = tables.into_iter().filter(ends).collect();
    elements::delete_tables(socket, &ending).map_err(TablesError::Delete)?;
    std::fs::remove_file(lock).map_err(failed("remove", lock))
}
