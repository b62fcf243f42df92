//! What a worker removes while it lives, and in which order.
//!
//! ```text
//!   always           remains of runs whose worker is gone, once they are old; without room sooner
//!                    caches that nobody may have, and what others did not come to remove
//!                    images that were not used for long, and what no image needs
//!   until there is   blobs that no image runs from
//!   room enough      images, least recently used first
//!                    caches, least recently used first
//! ```
//!
//! Nobody has to stop for it. What a task uses, a run is or a pull makes is locked by the process that does, this one or
//! another; each step leaves things so that a kill after it loses nothing, and the next sweep goes on. Caches come last:
//! an image can be had again, what is in a cache has to be made again.
//!
//! Remains are kept for a while although their worker is gone: somebody may want to see them. Where room is lacking they go
//! before anything that is of use, but those of claims that hold: a worker that comes back uploads what there is of a log.
//! Each disk is looked at by itself: what lies on another one than the one that is short stays, as its end would make no
//! room there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use images::store::{Collected, GcPolicy, Store, StoreError};

use crate::cache::{CacheError, Caches, Discarded};
use crate::claim_file;
use crate::directories::Directories;
use crate::registry::Registry;
use crate::run_directory::{self, RunDirectoryError};
use crate::text::chain;
use crate::timestamp::Timestamp;

mod room;

pub use self::room::{Room, Shortage};

/// Where there may be garbage.
#[derive(Clone, Debug)]
pub struct Places {
    /// Where things lie.
    pub directories: Directories,
    /// The images.
    pub store: Store,
    /// The caches.
    pub caches: Caches,
    /// The runs that this process carries out now.
    pub registry: Registry,
}

/// How long what is no longer used stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ages {
    /// An image, since its last use.
    pub image: Duration,
    /// What a container has left, since it was seen that its worker is gone.
    pub remains: Duration,
}

/// Something that was removed, or could not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News<'a> {
    /// An image is gone.
    Image {
        /// What it was called.
        name: &'a str,
    },
    /// What was left of a container is gone.
    Container {
        /// Its name.
        id: &'a str,
    },
    /// What is left of a container resists.
    ContainerResists {
        /// Its name.
        id: &'a str,
        /// One sentence.
        message: &'a str,
    },
    /// An instance of a cache is gone.
    Cache {
        /// The cache's name.
        name: &'a str,
    },
    /// An instance of a cache resists; the next sweep tries again.
    CacheResists {
        /// The cache's name.
        name: &'a str,
        /// One sentence.
        message: &'a str,
    },
    /// A place cannot be looked through.
    Problem {
        /// One sentence.
        message: &'a str,
    },
}

/// Who wants a sweep.
pub struct Client<'a> {
    /// Whether it is still wanted: asked before each piece of work, and while others are waited for.
    pub wanted: &'a dyn Fn() -> bool,
    /// Hears of what is removed.
    pub tell: &'a dyn Fn(News<'_>),
}

/// Why a place could not be swept.
#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Runs(#[from] RunDirectoryError),
    #[error(transparent)]
    Caches(#[from] CacheError),
    #[error(transparent)]
    Images(#[from] StoreError),
}

/// A part of a sweep.
type Step = fn(&mut Collector, &[Room], &Client<'_>) -> Result<(), SweepError>;

/// Removes garbage, and remembers how long remains have been there.
#[derive(Debug)]
pub struct Collector {
    places: Places,
    ages: Ages,
    /// Containers whose worker is gone, since they were first seen so or last resisted.
    remains: BTreeMap<String, Instant>,
}

impl Collector {
    /// Nothing is removed yet.
    pub fn new(places: Places, ages: Ages) -> Collector {
        Collector { places, ages, remains: BTreeMap::new() }
    }

    /// One sweep: what is old, and then what makes the `rooms` that are wanted, each on another disk. What resists in one
    /// place does not keep the others. Blocks, for as long as the disk takes.
    pub fn sweep(&mut self, rooms: &[Room], client: &Client<'_>) {
        let steps: [Step; 5] = [
            Collector::remove_remains,
            |it, _, client| it.remove_leftover_caches(client),
            |it, _, client| it.remove_old_images(client),
            |it, rooms, client| it.remove_images_for(rooms, client),
            |it, rooms, client| it.remove_caches_for(rooms, client),
        ];
        let mut done: Vec<_> = Vec::new();
        for step in steps {
            if (client.wanted)() {
                done.push(step(self, rooms, client));
            }
        }
        for error in done.into_iter().filter_map(Result::err) {
            // Whoever calls the sweep back need not hear that it waited in vain.
            if (client.wanted)() {
                (client.tell)(News::Problem { message: &format!("failed to {}", chain(&error)) });
            }
        }
    }

    /// The images that are in the way of `rooms`: they are used now, and no shortage removes them.
    ///
    /// # Errors
    ///
    /// As of [`Store::used`].
    pub fn images_in_the_way(&self, rooms: &[Room]) -> Result<Vec<String>, StoreError> {
        if is_made_in(&self.places.directories.images(), rooms) {
            self.places.store.used()
        } else {
            Ok(Vec::new())
        }
    }

    fn remove_remains(&mut self, rooms: &[Room], client: &Client<'_>) -> Result<(), SweepError> {
        let Places { directories, registry, .. } = &self.places;
        let own: BTreeSet<String> =
            registry.all().into_iter().map(|(_, handles)| handles.container.to_string()).collect();
        // Without a lock, which would hold up runs that begin: mostly there is nothing else.
        if run_directory::containers_there(directories)?.is_subset(&own) {
            self.remains.clear();
            return Ok(());
        }
        let place = directories.runs();
        let claims = if is_made_in(&place, rooms) { self.claims(client) } else { None };
        let has_to_go = |id: &str| {
            claims.as_ref().is_some_and(|claims| !claims.contains(id)) && is_made_in(&place, rooms)
        };
        let (now, age) = (Instant::now(), self.ages.remains);
        let seen = std::mem::take(&mut self.remains);
        let remains = &mut self.remains;
        let mut choose = |id: &str| {
            let since = seen.get(id).copied().unwrap_or(now);
            let goes = now.duration_since(since) >= age || has_to_go(id);
            remains.insert(id.to_owned(), if goes { now } else { since });
            goes
        };
        let sweep = run_directory::sweep_chosen(directories, &mut choose, client.wanted)?;
        for id in &sweep.removed {
            self.remains.remove(id);
            (client.tell)(News::Container { id });
        }
        for (id, error) in &sweep.failed {
            (client.tell)(News::ContainerResists { id, message: &format!("failed to {}", chain(error)) });
        }
        Ok(())
    }

    /// The containers of claims that hold; nothing where not all of them can be read.
    fn claims(&self, client: &Client<'_>) -> Option<BTreeSet<String>> {
        let found = claim_file::find(&self.places.directories);
        for message in &found.notes {
            (client.tell)(News::Problem { message });
        }
        let now = Timestamp::now();
        let held = found.runs.into_iter().filter(|held| held.taken_until > now);
        let containers = held.map(|held| held.container_id).collect();
        (!found.is_partial).then_some(containers)
    }

    fn remove_leftover_caches(&mut self, client: &Client<'_>) -> Result<(), SweepError> {
        let there = || Ok::<_, SweepError>(run_directory::containers_there(&self.places.directories)?);
        let leftovers = self.places.caches.leftovers(there, client.wanted)?;
        for discarded in leftovers.discarded {
            if !(client.wanted)() {
                break;
            }
            remove_cache(discarded, client);
        }
        Ok(())
    }

    fn remove_old_images(&mut self, client: &Client<'_>) -> Result<(), SweepError> {
        let policy = match SystemTime::now().checked_sub(self.ages.image) {
            Some(then) => GcPolicy::UnusedSince(then),
            None => GcPolicy::Unreferenced,
        };
        self.collect_images(policy, client)
    }

    fn remove_images_for(&self, rooms: &[Room], client: &Client<'_>) -> Result<(), SweepError> {
        let place = self.places.directories.images();
        if !is_made_in(&place, rooms) {
            return Ok(());
        }
        self.collect_images(GcPolicy::Until(&|| !is_made_in(&place, rooms)), client)
    }

    fn collect_images(&self, policy: GcPolicy<'_>, client: &Client<'_>) -> Result<(), SweepError> {
        let Collected { names, .. } = self.places.store.gc_while(policy, client.wanted)?;
        for name in &names {
            (client.tell)(News::Image { name });
        }
        Ok(())
    }

    fn remove_caches_for(&self, rooms: &[Room], client: &Client<'_>) -> Result<(), SweepError> {
        let place = self.places.directories.caches();
        while (client.wanted)() && is_made_in(&place, rooms) {
            let Some(discarded) = self.places.caches.discard_oldest(client.wanted)? else { break };
            remove_cache(discarded, client);
        }
        Ok(())
    }
}

/// Whether there is too little room on some disk, and removing something in `place` would make some.
fn is_made_in(place: &Path, rooms: &[Room]) -> bool {
    rooms.iter().any(|room| room.is_made_in(place))
}

fn remove_cache(discarded: Discarded, client: &Client<'_>) {
    let name = discarded.name().to_owned();
    match discarded.remove() {
        Ok(()) => (client.tell)(News::Cache { name: &name }),
        Err(error) => {
            let message = format!("failed to {}", chain(&error));
            (client.tell)(News::CacheResists { name: &name, message: &message });
        }
    }
}
