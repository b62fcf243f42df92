//! Live logs: what a task prints, over HTTP, while it prints it.
//!
//! ```text
//!   browser, curl ──► one port of the worker ──► /log/<secret> ──► LogReader ──► the task's log
//! ```
//!
//! One listener serves all tasks of a worker; a secret in the path tells them apart, and is all that a reader needs. A
//! reader is sent the log from its start, or a range of it, and what is written after that until the log ends.
//!
//! Nobody here may cost a task anything. A reader has no thread, and no memory beyond the piece of the log that it is
//! being sent; one that does not read is not asked again until it does. Strangers are many and anonymous, so all they can
//! take is bounded: connections, the time until they say what they want, the size of what they say.

mod answer;
mod body;
mod connections;
mod host_name;
mod offers;
mod range;
mod served;
#[cfg(test)]
mod tests;
mod tls;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;

use self::connections::{LIMITS, Limits};
use self::host_name::HostName;
use self::offers::{Entry, secret};
use self::tls::Tls;
use crate::background::Background;
use crate::config::ConfigFile;
use crate::event::Events;
use crate::task_log::reader::LogReader;
use crate::timestamp::Timestamp;

pub use self::host_name::HostNameError;
pub use self::served::{Reading, ServedLogs};
pub use self::tls::TlsError;

/// Serves the live logs of one worker, until it goes.
#[derive(Debug)]
pub struct LiveLogServer {
    address: SocketAddr,
    scheme: &'static str,
    host: HostName,
    logs: ServedLogs,
    /// Of one log at the same time.
    readers: usize,
    _accepting: Background,
}

/// A log that can be read as long as this lives. Whoever reads it when it goes may read on to the log's end.
#[must_use = "nobody can begin to read the log when it goes"]
pub struct Offer {
    url: String,
    _entry: Entry,
}

/// Why live logs cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum LiveLogError {
    /// The address cannot be listened on.
    #[error(
        "listen on {address} for live logs; choose others with logging.liveLogAddress and logging.liveLogPort"
    )]
    Listen {
        /// Which.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// There is no public name to give to readers.
    #[error(transparent)]
    HostName(#[from] HostNameError),
    /// They are to be served over TLS, and cannot.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl LiveLogServer {
    /// Begins to listen where the configuration says; `events` hears of what goes wrong later. Inside a tokio runtime only.
    ///
    /// # Errors
    ///
    /// [`LiveLogError`]. Tasks can run all the same: their logs are there when they have ended.
    pub async fn start(config: &ConfigFile, events: Events) -> Result<LiveLogServer, LiveLogError> {
        LiveLogServer::start_with(config, events, LIMITS).await
    }

    async fn start_with(
        config: &ConfigFile,
        events: Events,
        limits: Limits,
    ) -> Result<LiveLogServer, LiveLogError> {
        let host = HostName::of(config)?;
        let is_secure = config.logging.secure_live_logging.unwrap_or(false);
        let tls = is_secure.then(|| Tls::open(&config.ssl, events)).transpose()?;
        let address = SocketAddr::new(
            config.logging.live_log_address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            config.logging.live_log_port.unwrap_or(0),
        );
        let failed = |source| LiveLogError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let logs = ServedLogs::new(limits);
        let scheme = if tls.is_some() { "https" } else { "http" };
        let accepting = connections::accept(listener, tls.map(Arc::new), logs.clone(), limits);
        let (readers, accepting) = (limits.reading_one, Background::start(accepting));
        Ok(LiveLogServer { address, scheme, host, logs, readers, _accepting: accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether its logs' URLs lead nobody here but who is on this host.
    pub fn is_for_this_host_only(&self) -> bool {
        self.host.is_of_loopback() || self.address.ip().is_loopback()
    }

    /// The logs that can be read, for others in this process.
    pub fn logs(&self) -> ServedLogs {
        self.logs.clone()
    }

    /// Lets whoever knows its URL read a log. The name in it may be of use no longer than `until`.
    ///
    /// # Errors
    ///
    /// When the kernel has no random bytes.
    pub fn offer(&self, log: LogReader, until: Timestamp) -> io::Result<Offer> {
        let secret = secret()?;
        let host = self.host.until(until)?;
        let url = format!("{}://{host}:{}/log/{secret}", self.scheme, self.address.port());
        Ok(Offer { url, _entry: self.logs.offers.enter(secret, log, self.readers) })
    }
}

impl Offer {
    /// Where the log can be read. Whoever knows it may.
    pub fn url(&self) -> &str {
        &self.url
    }
}
