//! What there is for one task, and how all of it ends at once.

use std::mem;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::Server;
use super::dial::Dialler;
use super::identity::Identity;
use super::kept::Room;
use super::places::Places;

/// What all connections of one task share.
pub(super) struct Hall {
    pub(super) server: Arc<Server>,
    pub(super) address: Ipv4Addr,
    identity: watch::Sender<Arc<Identity>>,
    pub(super) dialler: Dialler,
    pub(super) places: Places,
    pub(super) room: Room,
    pub(super) tasks: Tasks,
}

/// All that goes on for one task, each a task of the event loop.
#[derive(Default)]
pub(super) struct Tasks(Mutex<JoinSet<()>>);

impl Hall {
    /// For a task at `address`.
    pub(super) fn new(server: &Arc<Server>, address: Ipv4Addr, identity: Identity) -> Hall {
        Hall {
            server: Arc::clone(server),
            address,
            identity: watch::Sender::new(Arc::new(identity)),
            dialler: Dialler::new(server.root.clone()),
            places: Places::of(&server.places),
            room: Room::of(&server.kept),
            tasks: Tasks::default(),
        }
    }

    /// In whose name requests are made at the moment.
    pub(super) fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity.borrow())
    }

    /// From now on they are made in this one.
    pub(super) fn rename(&self, identity: Identity) {
        self.identity.send_replace(Arc::new(identity));
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
    pub(super) async fn end(&self) {
        let mut tasks = mem::take(&mut *self.lock());
        tasks.shutdown().await;
    }

    fn lock(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
