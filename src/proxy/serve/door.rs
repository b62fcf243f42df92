//! What there is for one task, and how all of it ends at once.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::dial::Dialler;
use super::kept::Room;
use super::places::Places;
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

/// A task that is being served.
pub(super) struct Door {
    hall: Arc<Hall>,
}

/// What all connections of one task share.
pub(super) struct Hall {
    pub(super) server: Arc<Server>,
    pub(super) address: Ipv4Addr,
    pub(super) scopes: Vec<String>,
    pub(super) credentials: watch::Sender<Credentials>,
    pub(super) dialler: Dialler,
    pub(super) places: Places,
    pub(super) room: Room,
    pub(super) tasks: Tasks,
}

/// All that goes on for one task, each a task of the event loop.
#[derive(Default)]
pub(super) struct Tasks(Mutex<JoinSet<()>>);

impl Door {
    /// Serves a task by its listener, which is told apart from others' by its link, and does not block.
    ///
    /// # Errors
    ///
    /// The socket cannot be waited for.
    pub(super) fn open(server: &Arc<Server>, listener: TcpListener, whose: Task) -> io::Result<Door> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let Task { address, scopes, credentials } = whose;
        let hall = Arc::new(Hall {
            server: Arc::clone(server),
            address,
            scopes,
            credentials: watch::Sender::new(credentials),
            dialler: Dialler::new(server.root.clone()),
            places: Places::of(&server.connections),
            room: Room::of(&server.kept),
            tasks: Tasks::default(),
        });
        hall.tasks.spawn(connections::accept(listener, Arc::clone(&hall)));
        Ok(Door { hall })
    }

    /// From now on requests are made with these; those under way go on with the old ones.
    pub(super) fn renew(&self, credentials: Credentials) {
        self.hall.credentials.send_replace(credentials);
    }

    /// Closes all connections, the task's and those to the outside, and the listener. They are closed when this returns.
    pub(super) async fn close(self) {
        self.hall.tasks.end().await;
    }
}

impl Tasks {
    /// Starts something that ends with the others.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut tasks = self.lock();
        // Nobody else asks how they have ended.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work)
    }

    /// Ends them all, and waits until nothing is left of them. On the one thread of the event loop none of them runs
    /// meanwhile, so that none can start another.
    async fn end(&self) {
        let mut tasks = mem::take(&mut *self.lock());
        tasks.shutdown().await;
    }

    fn lock(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
