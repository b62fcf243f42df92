//! When a container beside a task's counts as there.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use crate::container::{Container, ContainerError};
use crate::net::namespace;

/// The first pause between two attempts; each is half as long again, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(150);

/// What has to be there, and for how long it is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// A TCP port takes a connection that comes from the task.
    Port {
        /// Which.
        port: u16,
        /// How long that may take.
        limit: Duration,
    },
    /// A UNIX socket of that name, on the host. Whether somebody takes connections there is not tried: one too many may be
    /// the last that it takes.
    Socket {
        /// Where.
        path: PathBuf,
        /// How long that may take.
        limit: Duration,
    },
}

/// It does not take connections.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// In the time that it has.
    #[error("wait for {what}: it is not there after {} s", limit.as_secs_f32())]
    TooSlow {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
        /// What the last attempt came to.
        source: Option<io::Error>,
    },
    /// Because its command has ended.
    #[error("wait for {what}: the command ended before, with status {status}")]
    Ended {
        /// What was waited for.
        what: String,
        /// How.
        status: i32,
    },
    /// Nobody can say.
    #[error(transparent)]
    Lost(#[from] ContainerError),
}

impl Readiness {
    /// Waits until it is there, the container ends or the time is up.
    pub(super) async fn wait(
        &self,
        address: Ipv4Addr,
        task: BorrowedFd<'_>,
        container: &mut Container,
    ) -> Result<(), NotReady> {
        let (what, limit) = match self {
            Readiness::Port { port, limit } => (format!("port {port}"), *limit),
            Readiness::Socket { path, limit } => (format!("the socket {}", path.display()), *limit),
        };
        let until = Instant::now() + limit;
        let attempts = async {
            let (mut pause, mut last) = (FIRST_PAUSE, None);
            loop {
                let left = until.saturating_duration_since(Instant::now());
                // Whatever keeps an attempt from being made, a shortage too, may be over at the next one.
                match timeout(left, self.is_there(address, task)).await {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(error)) => last = Some(error),
                    Err(_) => {}
                }
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(NotReady::TooSlow { what: what.clone(), limit, source: last });
                }
                sleep(pause.min(left)).await;
                pause = (pause + pause / 2).min(LONGEST_PAUSE);
            }
        };
        tokio::select! {
            biased;
            there = attempts => there,
            ended = container.exited() => {
                Err(NotReady::Ended { what: what.clone(), status: ended?.status })
            }
        }
    }

    async fn is_there(&self, address: Ipv4Addr, task: BorrowedFd<'_>) -> io::Result<()> {
        match self {
            Readiness::Port { port, .. } => {
                let task = task.try_clone_to_owned()?;
                let socket = spawn_blocking(move || namespace::tcp_socket_in(task.as_fd())).await??;
                socket.set_nonblocking(true)?;
                let connecting =
                    TcpSocket::from_std_stream(socket).connect(SocketAddrV4::new(address, *port).into());
                connecting.await.map(drop)
            }
            Readiness::Socket { path, .. } => {
                let found = tokio::fs::symlink_metadata(path).await?;
                if found.file_type().is_socket() {
                    Ok(())
                } else {
                    Err(io::ErrorKind::AddrNotAvailable.into())
                }
            }
        }
    }
}
