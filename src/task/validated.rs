//! From a valid payload to an image in the store, caches held, and a root to start from.

use std::sync::Arc;

use images::image::Image;
use images::source::Source;
use images::store::{Cancel, Lease, PullError, PullErrorKind, PullEvent, PullOptions};
use runtime::id::ContainerId;
use rustix::process::{Resource, getrlimit};
use tokio::task::{JoinError, JoinHandle};

use crate::cache::{CacheError, CacheLease, Caches, Origin};
use crate::event::Event;
use crate::interrupt::Interrupts;
use crate::net::{AttachError, TaskNetwork};
use crate::payload::{CacheName, MountPoint};
use crate::spec::{Bind, BindSource};
use crate::task::claimed::Checked;
use crate::task::error::{TaskError, end_by};
use crate::task::image_ready::ImageReady;
use crate::task::resolve::End;
use crate::task::resolving::Resolving;
use crate::task::root_file_system::{self, RootFileSystem};
use crate::task::run::{Run, Worker};
use crate::task_log::spool::Spool;
use crate::text::chain;
use crate::text::escaped;

/// A run whose payload is valid and whose features are prepared.
pub struct Validated {
    run: Run,
    checked: Checked,
}

impl Validated {
    pub(super) fn new(run: Run, checked: Checked) -> Validated {
        Validated { run, checked }
    }

    /// Brings the image into the store and takes the caches, both at once; then makes the root.
    ///
    /// # Errors
    ///
    /// The run goes straight to its resolution.
    pub async fn image_ready(mut self) -> Result<ImageReady, Box<Resolving>> {
        let attaching = self.attach_network();
        let made = self.make_ready().await;
        // To its end in any case: what was taken has to be given back.
        let attached = self.take_network(attaching).await;
        match made.and_then(|root| attached.map(|()| root)) {
            Ok(root) => {
                let Checked { payload, prepared, .. } = self.checked;
                let binds = prepared.binds;
                Ok(ImageReady { run: self.run, payload, root, binds, environment: prepared.environment })
            }
            Err(error) => {
                let end = self.run.fail(error);
                Err(Resolving::without_container(self.run, end))
            }
        }
    }

    /// Begins to make the task's network, beside everything else.
    fn attach_network(&self) -> Option<JoinHandle<Result<TaskNetwork, AttachError>>> {
        let network = Arc::clone(self.run.worker.network.as_ref()?);
        let (id, record) = (self.run.id.clone(), self.run.directory.network());
        let interrupts = self.run.interrupts.clone();
        let wanted = move || interrupts.current().is_none();
        Some(tokio::task::spawn_blocking(move || network.attach(&id, &record, &wanted)))
    }

    async fn take_network(
        &mut self,
        attaching: Option<JoinHandle<Result<TaskNetwork, AttachError>>>,
    ) -> Result<(), TaskError> {
        let Some(attaching) = attaching else { return Ok(()) };
        match attaching.await {
            Ok(Ok(network)) => {
                for obstacle in network.obstacles() {
                    self.run.log.info(&format!("network: {obstacle}"));
                }
                self.run.network = Some(network);
                Ok(())
            }
            Ok(Err(_)) if self.run.interrupts.current().is_some() => Err(TaskError::interrupted()),
            Ok(Err(error)) => Err(network_failure(End::HostUnfit, &chain(&error))),
            Err(error) => Err(network_failure(End::WorkerFault, &error.to_string())),
        }
    }

    async fn make_ready(&mut self) -> Result<RootFileSystem, TaskError> {
        let wanted: Vec<(CacheName, MountPoint)> = self.checked.payload.cache.clone().into_iter().collect();
        let caches = self.run.worker.caches.clone();
        let names = wanted.iter().map(|(name, _)| name.clone()).collect();
        let id = self.run.id.clone();
        let interrupts = self.run.interrupts.clone();
        let taking = tokio::task::spawn_blocking(move || take_caches(&caches, names, &id, &interrupts));
        let bringing =
            bring_image(&self.run.worker, &self.checked.source, &self.run.log, &self.run.interrupts);
        // Both run to their end: a cache that was taken has to be given back.
        let (taken, brought) = tokio::join!(taking, bringing);
        let (leases, failure) = flatten(taken)?;
        self.run.caches = leases;
        if let Some(error) = failure {
            // It is why there is no cache.
            if self.run.interrupts.current().is_some() {
                return Err(TaskError::interrupted());
            }
            return Err(cache_failure(&error));
        }
        self.bind_caches(&wanted);
        let lease = brought?;
        self.announce(lease.image());
        self.run.image = Some(lease.image().clone());
        root_file_system::make(&mut self.run, lease).await.map_err(TaskError::from)
    }

    fn bind_caches(&mut self, wanted: &[(CacheName, MountPoint)]) {
        // In the order of their paths: a cache below another's mount point lies on top of it.
        let mut pairs: Vec<_> = self.run.caches.iter().zip(wanted).collect();
        pairs.sort_by(|(_, (_, left)), (_, (_, right))| left.cmp(right));
        for (lease, (_, mount_point)) in pairs {
            self.run
                .worker
                .events
                .emit(&Event::CacheTaken { name: lease.name(), hit: lease.origin() == Origin::Hit });
            self.checked.prepared.binds.push(Bind {
                source: lease.content(),
                destination: mount_point.as_str().to_owned(),
                kind: BindSource::Volume,
            });
        }
    }

    fn announce(&self, image: &Image) {
        let wait = self.run.began.elapsed();
        self.run.worker.events.emit(&Event::ImageReady {
            name: &image.name,
            digest: &image.digest.to_string(),
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
        });
    }
}

/// Takes an instance of each cache; what was taken before a failure comes with it.
fn take_caches(
    caches: &Caches,
    names: Vec<CacheName>,
    container: &ContainerId,
    interrupts: &Interrupts,
) -> Taken {
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

type Taken = (Vec<CacheLease>, Option<CacheError>);

fn flatten(taken: Result<Taken, JoinError>) -> Result<Taken, TaskError> {
    taken.map_err(|error| {
        TaskError::new(End::WorkerFault, format!("Could not take the task's caches: {error}"))
    })
}

fn network_failure(end: End, why: &str) -> TaskError {
    let why = escaped(why);
    TaskError::new(
        end,
        format!("The task's network could not be made, so it does not start. Failed to {why}"),
    )
}

fn cache_failure(error: &CacheError) -> TaskError {
    let text = format!("Could not take the task's caches: failed to {}", chain(error));
    TaskError::new(end_by(error, End::WorkerFault), text)
}

/// Finds the image in the store, or pulls it; an image that is there by its name is not pulled.
async fn bring_image(
    worker: &Worker,
    source: &Source,
    spool: &Spool,
    interrupts: &Interrupts,
) -> Result<Lease, TaskError> {
    if interrupts.current().is_some() {
        return Err(TaskError::interrupted());
    }
    let observe = |event: PullEvent| {
        (worker.pull_observer)(&event);
        tell(worker, &event);
        if let Some(text) = log_line(&event) {
            spool.text(&text);
        }
    };
    let mut interrupts = interrupts.clone();
    // Each pull has a switch of its own: other runs of this worker go on.
    let options = PullOptions { cancel: Cancel::default(), ..worker.pull.clone() };
    let bringing = async {
        match worker.store.find(source, &options).await? {
            Some(lease) => Ok(lease),
            None => worker.store.pull(source, &options, &observe).await,
        }
    };
    tokio::pin!(bringing);
    let result = tokio::select! {
        biased;
        result = &mut bringing => result,
        _ = interrupts.interrupted() => {
            // The pull cleans up after itself before it ends.
            options.cancel.cancel();
            bringing.await
        }
    };
    result.map_err(|error| pull_failure(&error))
}

/// The lines that docker's clients show, as they have always been in this log.
fn log_line(event: &PullEvent) -> Option<String> {
    match event {
        PullEvent::LayerStarted { id, .. } => Some(format!("{id} - Started downloading\r\n")),
        PullEvent::LayerProgress { .. } => None,
        PullEvent::LayerDone { id, took } => {
            Some(format!("{id} - Downloaded in {:.3} seconds\r\n", took.as_secs_f64()))
        }
        PullEvent::Status(text) => Some(format!("{}\r\n", escaped(text))),
    }
}

fn tell(worker: &Worker, event: &PullEvent) {
    match event {
        PullEvent::LayerStarted { id, total_bytes } => {
            worker.events.emit(&Event::LayerStarted { layer: id, total: *total_bytes });
        }
        PullEvent::LayerDone { id, took } => {
            worker.events.emit(&Event::LayerDone { layer: id, seconds: took.as_secs_f64() });
        }
        PullEvent::LayerProgress { .. } | PullEvent::Status(_) => {}
    }
}

fn open_files_advice() -> String {
    let limit = getrlimit(Resource::Nofile).current.map_or("unlimited".to_owned(), |limit| limit.to_string());
    format!(
        "; the worker's limit is {limit}: run fewer tasks at once, or raise it (`ulimit -n`, LimitNOFILE=)"
    )
}

fn pull_failure(error: &PullError) -> TaskError {
    let end = match error.kind() {
        PullErrorKind::BadName => End::MalformedPayload,
        PullErrorKind::NotFound
        | PullErrorKind::Unauthorized
        | PullErrorKind::Refused
        | PullErrorKind::Unreachable => End::ImageUnavailable,
        PullErrorKind::DiskFull | PullErrorKind::OpenFiles => End::ResourceShort,
        PullErrorKind::Cancelled => {
            return TaskError::interrupted();
        }
        PullErrorKind::Host => End::HostUnfit,
    };
    let mut why = escaped(&chain(error)).to_string();
    if error.kind() == PullErrorKind::OpenFiles {
        why += &open_files_advice();
    }
    TaskError::new(end, "Pulling docker image has failed.").and(format!("Error: failed to {why}"))
}
