//! The way into the process for one task: opened with its listener, and closed with all that came by it.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;

use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};

use super::bounds::TASK_SOCKET_BYTES;
use super::hall::Hall;
use super::identity::Identity;
use super::signature::SignError;
use super::{Server, connections};
use crate::queue::Credentials;

/// Whom a door is for.
pub(super) struct Task {
    /// Where its connections come from.
    pub(super) address: Ipv4Addr,
    /// What its requests may do at most.
    pub(super) scopes: Vec<String>,
    /// In whose name they are made, for now.
    pub(super) credentials: Credentials,
}

/// Why a task cannot be served.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// The socket cannot be waited for.
    #[error("listen for the task's requests")]
    Listen(#[from] io::Error),
    /// Its requests could not be signed.
    #[error(transparent)]
    Sign(#[from] Arc<SignError>),
}

/// A task that is being served.
pub(super) struct Door {
    hall: Arc<Hall>,
    scopes: Vec<String>,
}

impl Door {
    /// Serves a task by its listener, which is told apart from others' by its link, and does not block.
    ///
    /// # Errors
    ///
    /// [`OpenError`]
    pub(super) fn open(server: &Arc<Server>, listener: TcpListener, whose: Task) -> Result<Door, OpenError> {
        let Task { address, scopes, credentials } = whose;
        let identity = Identity::new(&credentials, &scopes);
        identity.signer()?;
        bound(&listener)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let hall = Arc::new(Hall::new(server, address, identity));
        hall.tasks.spawn(connections::accept(listener, Arc::clone(&hall)));
        Ok(Door { hall, scopes })
    }

    /// From now on requests are made with these; those under way go on with the old ones. If nothing can be signed with
    /// them, each request is told so until there are others: the old ones would be good for some minutes more, and then
    /// refused for no reason that the task could see.
    pub(super) fn renew(&self, credentials: &Credentials) {
        self.hall.rename(Identity::new(credentials, &self.scopes));
    }

    /// Closes all connections, the task's and those to the outside, and the listener. They are closed when this returns.
    pub(super) async fn close(self) {
        self.hall.tasks.end().await;
    }
}

/// Bounds what the kernel holds of what is sent and received by each connection to a listener: they have its bounds, from
/// the first packet on.
fn bound(listener: &TcpListener) -> io::Result<()> {
    set_socket_recv_buffer_size(listener, TASK_SOCKET_BYTES)?;
    Ok(set_socket_send_buffer_size(listener, TASK_SOCKET_BYTES)?)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn of_what_nobody_reads_the_kernel_holds_so_much_and_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        bound(&listener).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut served, _) = listener.accept().unwrap();
        let fill = |stream: &mut TcpStream| {
            stream.set_nonblocking(true).unwrap();
            let taken = std::iter::from_fn(|| stream.write(&[0; 1 << 10]).ok());
            taken.take(1 << 16).sum::<usize>()
        };
        // Towards the client there is its own buffer as well, which is the task's.
        let own = rustix::net::sockopt::socket_recv_buffer_size(&client).unwrap();
        assert!(fill(&mut served) < 2 * TASK_SOCKET_BYTES + own);
        let theirs = rustix::net::sockopt::socket_send_buffer_size(&client).unwrap();
        assert!(fill(&mut client) < 2 * TASK_SOCKET_BYTES + theirs);
    }
}
