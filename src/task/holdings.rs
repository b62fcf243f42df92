//! From a resolution to a host without a trace of the run, but for its caches and its image.
//!
//! A file that was written just now is removed only after it has reached the disk, where a sync is under way, as after a
//! pull. So this comes last, when everybody has been told what became of the run.

use std::path::PathBuf;

use tokio::task::{JoinError, JoinHandle};

use crate::apparmor_profiles::Use;
use crate::cache::{CacheLease, Discarded, Fate};
use crate::container::Remains;
use crate::event::{RunEvent, RunEvents};
use crate::net::tables::TablesError;
use crate::run_directory::{RunDirectory, RunDirectoryError};
use crate::sidecar::NotEnded;
use crate::task::running::Held;
use crate::text::chain;
use crate::text::escaped;

/// A network that is being given back.
pub(super) type Releasing = JoinHandle<Result<(), TablesError>>;

/// Containers beside the task's that are being ended.
pub(super) type Ending = JoinHandle<Result<(), Vec<NotEnded>>>;

/// What a run that is resolved still holds of the host. If it is dropped, a clean-up finds it.
#[must_use = "the run holds it until it is given back"]
pub struct Holdings {
    pub(super) releasing: Option<Releasing>,
    pub(super) ending: Ending,
    pub(super) rest: Rest,
}

/// What goes when the network has gone, and the containers beside the task's.
pub(super) struct Rest {
    pub(super) held: Option<Held>,
    pub(super) returned: Returned,
    pub(super) profile: Option<Use>,
    /// In the order in which they were made.
    pub(super) mounts: Vec<PathBuf>,
    pub(super) directory: RunDirectory,
    pub(super) remains: Remains,
    pub(super) events: RunEvents,
}

impl Holdings {
    /// Gives everything back, and says what resists.
    pub async fn give_back(self) -> Vec<String> {
        let Holdings { releasing, ending, mut rest } = self;
        let released = released(releasing).await;
        rest.note_sidecars(ending.await);
        match tokio::task::spawn_blocking(move || rest.give_back(released)).await {
            Ok(problems) => problems,
            Err(error) => vec![format!("Failed to give back what the task held: {error}")],
        }
    }
}

impl Rest {
    /// A container that did not end may be using whatever is to be given back.
    fn note_sidecars(&mut self, ended: Result<Result<(), Vec<NotEnded>>, JoinError>) {
        let resisting = ended.unwrap_or_else(|error| Err(vec![error.into()])).err().unwrap_or_default();
        for error in resisting {
            self.remains = Remains::Container;
            self.returned.problems.push(format!(
                "Failed to {}; what is left of a container beside the task's is kept until \"docker-worker cleanup\" can undo it.",
                chain(&error)
            ));
        }
    }

    /// Blocks, for as long as it takes to remove what the task has written.
    fn give_back(self, released: Result<(), RunDirectoryError>) -> Vec<String> {
        let Returned { discarded, mut problems } = self.returned;
        let _turn = self.held.and_then(Held::release);
        for mount in self.mounts.iter().rev() {
            let flags = rustix::mount::UnmountFlags::DETACH;
            if let Err(error) = rustix::mount::unmount(mount, flags) {
                problems.push(format!("Failed to unmount {}: {error}", mount.display()));
            }
        }
        if self.remains == Remains::Container {
            // The directory names what has to be undone.
            return problems;
        }
        let unloaded = self.profile.map_or(Ok(()), Use::give_back);
        for cache in discarded {
            let name = cache.name().to_owned();
            match cache.remove() {
                Ok(()) => self.events.emit(&RunEvent::CacheRemoved { name: &name }),
                Err(error) => {
                    problems.push(format!("Failed to remove a cache: failed to {}", chain(&error)));
                }
            }
        }
        // It names what has to be undone, so it stays as long as there is anything.
        let removed = match unloaded {
            Ok(()) => released.and_then(|()| self.directory.remove()).map_err(|error| chain(&error)),
            Err(error) => Err(chain(&error)),
        };
        if let Err(error) = crate::parent_group::remove() {
            problems.push(format!("Failed to {}", chain(&error)));
        }
        if let Err(error) = removed {
            problems.push(format!("Failed to {error}; \"docker-worker cleanup\" will try again."));
        }
        problems
    }
}

/// Waits until the network is given back. A thread that panicked has said so; its record is still there.
async fn released(releasing: Option<Releasing>) -> Result<(), RunDirectoryError> {
    match releasing {
        Some(releasing) => Ok(releasing.await.map_err(TablesError::Panicked)??),
        None => Ok(()),
    }
}

/// Caches that are given back.
#[derive(Default)]
pub(super) struct Returned {
    /// To be removed, which takes as long as the disk does.
    discarded: Vec<Discarded>,
    /// What resisted.
    pub(super) problems: Vec<String>,
}

/// Gives caches back. Before the run is reported: whoever hears of that and wants them finds them.
pub(super) async fn return_caches(leases: Vec<CacheLease>, fate: Fate, events: RunEvents) -> Returned {
    let returning = tokio::task::spawn_blocking(move || {
        let mut returned = Returned::default();
        for lease in leases {
            let name = lease.name().to_owned();
            match lease.release(fate) {
                Ok(discarded) => {
                    if fate == Fate::Purge {
                        events.emit(&RunEvent::CachePurged { name: &name });
                    }
                    events.emit(&RunEvent::CacheReleased { name: &name });
                    returned.discarded.extend(discarded);
                }
                Err(error) => {
                    let name = escaped(&name);
                    let problem =
                        format!("Failed to give back the cache \"{name}\": failed to {}", chain(&error));
                    returned.problems.push(problem);
                }
            }
        }
        returned
    });
    returning.await.unwrap_or_else(|error| Returned {
        problems: vec![format!("Failed to give back the task's caches: {error}")],
        ..Returned::default()
    })
}
