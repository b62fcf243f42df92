//! From a valid payload to all that a container is made of: network, what features contribute, caches, image, root.

use std::future::Future;
use std::path::PathBuf;

use images::image::Image;
use images::store::Cancel;
use runtime::id::ContainerId;
use tokio::task::JoinError;

use crate::cache::{CacheError, CacheLease, Caches, Origin};
use crate::event::{RunEvent, RunEvents};
use crate::features::{Active, Contributions};
use crate::interrupt::Interrupts;
use crate::payload::{CacheName, MountPoint, Payload};
use crate::root_file_system::{self, RootFileSystem};
use crate::spec::{Bind, BindSource};
use crate::task::error::{TaskError, end_by};
use crate::task::fence;
use crate::task::image::{self, Pulling};
use crate::task::image_ready::ImageReady;
use crate::task::linking::Linking;
use crate::task::outcome::End;
use crate::task::resolution_document::ImageUsed;
use crate::task::resolving::{Aftermath, Resolving, Terms};
use crate::task::run::{Began, Run};
use crate::task::taken::Taken;
use crate::text::chain;

/// A run whose payload is valid.
pub struct Validated {
    pub(super) run: Run,
    pub(super) features: Active,
    pub(super) payload: Payload,
    pub(super) pulling: Pulling,
}

impl Validated {
    /// Makes all of it at the same time: the network and then what features make beside it; the AppArmor profile; caches;
    /// the image and then the root. What fails stops the rest.
    ///
    /// # Errors
    ///
    /// The run goes straight to its resolution.
    pub async fn image_ready(mut self) -> Result<ImageReady, Box<Resolving>> {
        let mut taken = Taken::default();
        let made = self.make_ready(&mut taken).await;
        let Validated { mut run, features, payload, pulling } = self;
        match made {
            Ok((root, contributions)) => {
                let pulling = pulling.options;
                Ok(ImageReady { run, features, taken, payload, root, contributions, pulling })
            }
            Err(error) => {
                let (end, terms) = (run.fail(error), Terms::of(&payload));
                let aftermath = Aftermath::NoContainer;
                Err(Box::new(Resolving { run, features, taken, terms, end, aftermath }))
            }
        }
    }

    async fn make_ready(&mut self, taken: &mut Taken) -> Result<(RootFileSystem, Contributions), TaskError> {
        let Validated { run, features, payload, pulling } = self;
        let Taken { image, caches, network, sidecars, profile, mounts } = taken;
        let stop = Cancel::default();
        let sharing = features.profile();
        let linking = Linking { run, pulling, network, sidecars, features };
        let root = Root { run, payload, caches, image, mounts };
        // All to their end: what was taken has to be given back.
        let (linked, fenced, made) = tokio::join!(
            or_stop(&stop, linking.link(&stop)),
            or_stop(&stop, fence::enter(run, sharing, profile, &stop)),
            or_stop(&stop, root.make(pulling, &stop)),
        );
        match (linked, fenced, made) {
            (Ok(mut contributions), Ok(()), Ok((root, binds))) => {
                contributions.binds.extend(binds);
                Ok((root, contributions))
            }
            (linked, fenced, made) => Err(cause([linked.err(), fenced.err(), made.err()])),
        }
    }
}

/// Of several failures the first of somebody who knows why: whoever was stopped does not.
fn cause(failures: [Option<TaskError>; 3]) -> TaskError {
    let of_two = |first: TaskError, next| if first.end == End::Interrupted { next } else { first };
    failures.into_iter().flatten().reduce(of_two).unwrap_or_else(TaskError::interrupted)
}

/// Tells the others when this one fails: what they make would be of no use.
async fn or_stop<T>(stop: &Cancel, work: impl Future<Output = Result<T, TaskError>>) -> Result<T, TaskError> {
    let ended = work.await;
    if ended.is_err() {
        stop.cancel();
    }
    ended
}

/// What a root is made of; what is taken is kept where the run finds it to give it back.
struct Root<'a> {
    run: &'a Run,
    payload: &'a Payload,
    caches: &'a mut Vec<CacheLease>,
    image: &'a mut Option<ImageUsed>,
    mounts: &'a mut Vec<PathBuf>,
}

impl Root<'_> {
    async fn make(self, pulling: &Pulling, stop: &Cancel) -> Result<(RootFileSystem, Vec<Bind>), TaskError> {
        let Root { run, payload, caches, image, mounts } = self;
        let taking = async {
            let wanted = take_caches(run, payload, caches).await?;
            Ok(bind_caches(&run.events, caches, &wanted))
        };
        let bringing = image::bring(run, pulling, &payload.image, stop);
        let (taken, brought) = tokio::join!(or_stop(stop, taking), or_stop(stop, bringing));
        let binds = taken?;
        let lease = brought?;
        announce(&run.events, lease.image(), &run.began);
        *image = Some(ImageUsed::of(lease.image(), &payload.image));
        let place = run.directory.task().data().to_owned();
        let (store, stop, interrupts) = (run.worker.store.clone(), stop.clone(), run.interrupts.clone());
        let wanted = move || !stop.is_cancelled() && interrupts.current().is_none();
        let (root, mounted) = root_file_system::make(store, place, lease, wanted).await?;
        mounts.extend(mounted);
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
    run: &Run,
    payload: &Payload,
    held: &mut Vec<CacheLease>,
) -> Result<Vec<(CacheName, MountPoint)>, TaskError> {
    let wanted: Vec<(CacheName, MountPoint)> = payload.cache.clone().into_iter().collect();
    let names = wanted.iter().map(|(name, _)| name.clone()).collect();
    let (caches, container, of_run) = (run.worker.caches.clone(), run.id.clone(), run.interrupts.clone());
    let taking = tokio::task::spawn_blocking(move || take(&caches, names, &container, &of_run));
    let (leases, failure) = taking.await.map_err(|error| panicked(&error))?;
    held.extend(leases);
    match failure {
        None => Ok(wanted),
        // It is why there is no cache.
        Some(_) if run.interrupts.current().is_some() => Err(TaskError::interrupted()),
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
