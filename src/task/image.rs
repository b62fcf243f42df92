//! Bringing a task's image into the store, and what its log says of that. One that is an artifact comes its own way
//! ([`artifact_image`](super::artifact_image)).

use std::sync::Arc;
use std::time::Instant;

use images::source::Source;
use images::store::{Cancel, Lease, PullError, PullErrorKind, PullEvent, PullOptions};
use rustix::process::{Resource, getrlimit};

use crate::download::Downloader;
use crate::event::{RunEvent, RunEvents};
use crate::payload::ImageField;
use crate::queue::TaskReader;
use crate::task::artifact_image;
use crate::task::error::TaskError;
use crate::task::outcome::End;
use crate::task::run::Run;
use crate::text::{chain, escaped};

/// Hears how a pull goes on.
pub type PullObserver = Arc<dyn Fn(&PullEvent) + Send + Sync>;

/// How an image may be pulled.
#[derive(Clone)]
pub struct Pulling {
    /// From whom, with what limits.
    pub options: PullOptions,
    /// Shows how it goes on.
    pub observer: PullObserver,
    /// For those that are artifacts.
    pub downloader: Downloader,
    /// The deployment whose artifacts are meant, where the run's own queue has none but the run's.
    pub deployment: Option<Arc<TaskReader>>,
}

/// Finds the image in the store, or brings it; an image that is there by its name is not pulled. `stop`: the run needs it
/// no more. Each pull has a switch of its own: other runs of this worker go on.
pub(super) async fn bring(
    run: &Run,
    pulling: &Pulling,
    image: &ImageField,
    stop: &Cancel,
) -> Result<Lease, TaskError> {
    if run.interrupts.current().is_some() {
        return Err(TaskError::interrupted());
    }
    run.events.emit(&RunEvent::ImageWanted { image: &image.to_string() });
    let mut interrupts = run.interrupts.clone();
    let options = PullOptions { cancel: stop.clone(), ..pulling.options.clone() };
    let bringing = async {
        match image {
            ImageField::Named { source, .. } => pull(run, pulling, source, &options).await,
            ImageField::Artifact(image) => artifact_image::bring(run, pulling, image, options).await,
        }
    };
    tokio::pin!(bringing);
    tokio::select! {
        biased;
        result = &mut bringing => result,
        _ = interrupts.interrupted() => {
            // It cleans up after itself before it ends.
            stop.cancel();
            bringing.await
        }
    }
}

async fn pull(
    run: &Run,
    pulling: &Pulling,
    source: &Source,
    options: &PullOptions,
) -> Result<Lease, TaskError> {
    let store = &run.worker.store;
    let found = store.find(source, options).await.map_err(|error| pull_failure(&error))?;
    if let Some(lease) = found {
        return Ok(lease);
    }
    let began = Instant::now();
    let pulled = store.pull(source, options, &|event| observe(run, pulling, &event)).await;
    let lease = pulled.map_err(|error| pull_failure(&error))?;
    run.events.emit(&RunEvent::ImagePulled { took_ms: milliseconds(began) });
    Ok(lease)
}

/// Since then.
pub(super) fn milliseconds(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Tells whoever hears of a pull how it goes on.
pub(super) fn observe(run: &Run, pulling: &Pulling, event: &PullEvent) {
    (pulling.observer)(event);
    tell(&run.events, event);
    if let Some(text) = log_line(event) {
        run.log.text(&text);
    }
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

fn tell(events: &RunEvents, event: &PullEvent) {
    match event {
        PullEvent::LayerStarted { id, total_bytes } => {
            events.emit(&RunEvent::LayerStarted { layer: id, total: *total_bytes });
        }
        PullEvent::LayerDone { id, took } => {
            events.emit(&RunEvent::LayerDone { layer: id, seconds: took.as_secs_f64() });
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

/// There is no image for this task, for a reason that is told in a sentence.
pub(super) fn unavailable(why: &str) -> TaskError {
    not_pulled(End::ImageUnavailable, why)
}

/// There is no image, in the original's words.
pub(super) fn not_pulled(end: End, why: &str) -> TaskError {
    TaskError::new(end, "Pulling docker image has failed.").and(format!("Error: {}", escaped(why)))
}

/// What a pull that has failed means to its task.
pub(super) fn pull_failure(error: &PullError) -> TaskError {
    failure(error, "")
}

/// The same; `what` stands before the reason.
pub(super) fn failure(error: &PullError, what: &str) -> TaskError {
    let end = match error.kind() {
        PullErrorKind::BadName => End::MalformedPayload,
        PullErrorKind::NotFound
        | PullErrorKind::Unauthorized
        | PullErrorKind::Refused
        | PullErrorKind::Unreachable => End::ImageUnavailable,
        PullErrorKind::DiskFull | PullErrorKind::OpenFiles => End::ResourceShort,
        PullErrorKind::InUse => End::HostBusy,
        PullErrorKind::Cancelled => {
            return TaskError::interrupted();
        }
        PullErrorKind::Host => End::HostUnfit,
    };
    let mut why = format!("failed to {}", chain(error));
    if error.kind() == PullErrorKind::OpenFiles {
        why += &open_files_advice();
    }
    not_pulled(end, &format!("{what}{why}"))
}

#[cfg(test)]
mod tests {
    use images::store::StoreError;

    use super::*;

    #[test]
    fn a_store_that_others_use_is_not_the_hosts_fault_and_an_interrupt_nobodys() {
        let locked = StoreError::Locked { path: "/lock".into(), holder: "process 4711".to_owned() };
        let failure = pull_failure(&PullError::Store(locked));
        assert_eq!(failure.end, End::HostBusy);
        assert!(failure.lines.iter().any(|line| line.contains("process 4711")), "{failure:?}");
        let unwanted = pull_failure(&PullError::Store(StoreError::Unwanted { path: "/lock".into() }));
        assert_eq!((unwanted.end, unwanted.lines.len()), (End::Interrupted, 0));
    }
}
