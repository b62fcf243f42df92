//! From a valid payload to all that a container is made of: network, what features contribute, caches, image, root.

use std::future::Future;
use std::path::PathBuf;

use images::image::Image;
use images::source::Source;
use images::store::Cancel;
use runtime::id::ContainerId;
use tokio::task::JoinError;

use crate::cache::{CacheError, CacheLease, Caches, Origin};
use crate::event::{RunEvent, RunEvents};
use crate::features::Contributions;
use crate::interrupt::Interrupts;
use crate::payload::{CacheName, MountPoint, Payload};
use crate::run_directory::RunDirectory;
use crate::spec::{Bind, BindSource};
use crate::task::error::{TaskError, end_by};
use crate::task::image::{self, Pulling, Waiting};
use crate::task::image_ready::ImageReady;
use crate::task::linking::Linking;
use crate::task::resolve::End;
use crate::task::resolving::Resolving;
use crate::task::root_file_system::{self, RootFileSystem};
use crate::task::run::{Began, Run, Worker};
use crate::task_log::spool::Spool;
use crate::text::chain;

/// A run whose payload is valid.
pub struct Validated {
    pub(super) run: Run,
    pub(super) payload: Payload,
    pub(super) source: Source,
    pub(super) pulling: Pulling,
}

impl Validated {
    /// Makes all of it at the same time: the network and then what features make beside it; caches; the image and then
    /// the root. What fails stops the rest.
    ///
    /// # Errors
    ///
    /// The run goes straight to its resolution.
    pub async fn image_ready(mut self) -> Result<ImageReady, Box<Resolving>> {
        match self.make_ready().await {
            Ok((root, contributions)) => {
                let Validated { run, payload, .. } = self;
                Ok(ImageReady { run, payload, root, contributions })
            }
            Err(error) => {
                let end = self.run.fail(error);
                Err(Resolving::without_container(self.run, end))
            }
        }
    }

    async fn make_ready(&mut self) -> Result<(RootFileSystem, Contributions), TaskError> {
        let Run {
            worker,
            id,
            directory,
            log,
            events,
            interrupts,
            network,
            features,
            publisher,
            caches,
            image,
            mounts,
            began,
            ..
        } = &mut self.run;
        let linking = Linking { worker, id, directory, log, interrupts, network, features, publisher };
        let root = Root { worker, id, directory, log, events, interrupts, began, caches, image, mounts };
        let stop = Cancel::default();
        // Both to their end: what was taken has to be given back.
        let (linked, made) = tokio::join!(
            or_stop(&stop, linking.link(&stop)),
            or_stop(&stop, root.make(&self.payload, (&self.source, &self.pulling), &stop)),
        );
        match (linked, made) {
            (Ok(mut contributions), Ok((root, binds))) => {
                contributions.binds.extend(binds);
                Ok((root, contributions))
            }
            // Whoever was stopped does not know why.
            (Err(stopped), Err(error)) if stopped.end == End::Interrupted => Err(error),
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
        }
    }
}

/// Tells the others when this one fails: what they make would be of no use.
async fn or_stop<T>(stop: &Cancel, work: impl Future<Output = Result<T, TaskError>>) -> Result<T, TaskError> {
    let ended = work.await;
    if ended.is_err() {
        stop.cancel();
    }
    ended
}

/// The parts of a run that its root is made of; what is taken is kept there, for the run to give it back.
struct Root<'a> {
    worker: &'a Worker,
    id: &'a ContainerId,
    directory: &'a RunDirectory,
    log: &'a Spool,
    events: &'a RunEvents,
    interrupts: &'a Interrupts,
    began: &'a Began,
    caches: &'a mut Vec<CacheLease>,
    image: &'a mut Option<Image>,
    mounts: &'a mut Vec<PathBuf>,
}

impl Root<'_> {
    async fn make(
        self,
        payload: &Payload,
        (source, pulling): (&Source, &Pulling),
        stop: &Cancel,
    ) -> Result<(RootFileSystem, Vec<Bind>), TaskError> {
        let waiting = Waiting { log: self.log, events: self.events, interrupts: self.interrupts, stop };
        let bringing = or_stop(stop, image::bring(&self.worker.store, pulling, source, waiting));
        let (worker, id, interrupts) = (self.worker, self.id, self.interrupts);
        let (events, held) = (self.events, self.caches);
        let taking = async {
            let wanted = take_caches(worker, id, interrupts, payload, held).await?;
            Ok(bind_caches(events, held, &wanted))
        };
        let (taken, brought) = tokio::join!(or_stop(stop, taking), bringing);
        let binds = taken?;
        let lease = brought?;
        announce(self.events, lease.image(), self.began);
        *self.image = Some(lease.image().clone());
        let making =
            root_file_system::make(worker.store.clone(), self.directory.task().data().to_owned(), lease);
        let (root, mounts) = making.await?;
        self.mounts.extend(mounts);
        Ok((root?, binds))
    }
}

fn announce(events: &RunEvents, image: &Image, began: &Began) {
    events.emit(&RunEvent::ImageReady {
        name: &image.name,
        digest: &image.digest.to_string(),
        wait_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    });
}

/// Takes the payload's caches into `held`, one after the other as they are listed in the result.
async fn take_caches(
    worker: &Worker,
    id: &ContainerId,
    interrupts: &Interrupts,
    payload: &Payload,
    held: &mut Vec<CacheLease>,
) -> Result<Vec<(CacheName, MountPoint)>, TaskError> {
    let wanted: Vec<(CacheName, MountPoint)> = payload.cache.clone().into_iter().collect();
    let names = wanted.iter().map(|(name, _)| name.clone()).collect();
    let (caches, container, of_run) = (worker.caches.clone(), id.clone(), interrupts.clone());
    let taking = tokio::task::spawn_blocking(move || take(&caches, names, &container, &of_run));
    let (leases, failure) = taking.await.map_err(|error| panicked(&error))?;
    held.extend(leases);
    match failure {
        None => Ok(wanted),
        // It is why there is no cache.
        Some(_) if interrupts.current().is_some() => Err(TaskError::interrupted()),
        Some(error) => Err(cache_failure(&error)),
    }
}

/// Says where each cache is to be seen.
fn bind_caches(events: &RunEvents, held: &[CacheLease], wanted: &[(CacheName, MountPoint)]) -> Vec<Bind> {
    // In the order of their paths: a cache below another's mount point lies on top of it.
    let mut pairs: Vec<_> = held.iter().zip(wanted).collect();
    pairs.sort_by(|(_, (_, left)), (_, (_, right))| left.cmp(right));
    let bind = |(lease, (_, mount_point)): (&CacheLease, &(CacheName, MountPoint))| {
        events.emit(&RunEvent::CacheTaken { name: lease.name(), hit: lease.origin() == Origin::Hit });
        let destination = mount_point.as_str().to_owned();
        Bind { source: lease.content(), destination, kind: BindSource::Volume }
    };
    pairs.into_iter().map(bind).collect()
}

/// Takes an instance of each cache; what was taken before a failure comes with it. Blocks.
fn take(
    caches: &Caches,
    names: Vec<CacheName>,
    container: &ContainerId,
    interrupts: &Interrupts,
) -> (Vec<CacheLease>, Option<CacheError>) {
    let wanted = || interrupts.current().is_none();
    let mut leases = Vec::new();
    for name in names {
        match caches.take(name.as_str(), container, &wanted) {
            Ok(lease) => leases.push(lease),
            Err(error) => return (leases, Some(error)),
        }
    }
    (leases, None)
}

fn panicked(error: &JoinError) -> TaskError {
    TaskError::new(End::WorkerFault, format!("Could not take the task's caches: {error}"))
}

fn cache_failure(error: &CacheError) -> TaskError {
    let text = format!("Could not take the task's caches: failed to {}", chain(error));
    TaskError::new(end_by(error, End::WorkerFault), text)
}
