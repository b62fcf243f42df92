//! Bringing a task's image into the store, and what its log says of that.

use std::sync::Arc;
use std::time::Instant;

use images::source::Source;
use images::store::{Cancel, Lease, PullError, PullErrorKind, PullEvent, PullOptions};
use rustix::process::{Resource, getrlimit};

use crate::event::{RunEvent, RunEvents};
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
}

/// Finds the image in the store, or pulls it; an image that is there by its name is not pulled. `stop`: the run needs it
/// no more. Each pull has a switch of its own: other runs of this worker go on.
pub(super) async fn bring(
    run: &Run,
    pulling: &Pulling,
    source: &Source,
    stop: &Cancel,
) -> Result<Lease, TaskError> {
    let Run { worker, log, events, interrupts, .. } = run;
    if interrupts.current().is_some() {
        return Err(TaskError::interrupted());
    }
    events.emit(&RunEvent::ImageWanted { image: &source.to_string() });
    let observe = |event: PullEvent| {
        (pulling.observer)(&event);
        tell(events, &event);
        if let Some(text) = log_line(&event) {
            log.text(&text);
        }
    };
    let mut interrupts = interrupts.clone();
    let options = PullOptions { cancel: stop.clone(), ..pulling.options.clone() };
    let bringing = async {
        match worker.store.find(source, &options).await? {
            Some(lease) => Ok(lease),
            None => {
                let began = Instant::now();
                let pulled = worker.store.pull(source, &options, &observe).await?;
                let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                events.emit(&RunEvent::ImagePulled { took_ms });
                Ok(pulled)
            }
        }
    };
    tokio::pin!(bringing);
    let result = tokio::select! {
        biased;
        result = &mut bringing => result,
        _ = interrupts.interrupted() => {
            // The pull cleans up after itself before it ends.
            stop.cancel();
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
    failure(End::ImageUnavailable, why)
}

fn failure(end: End, why: &str) -> TaskError {
    TaskError::new(end, "Pulling docker image has failed.").and(format!("Error: {}", escaped(why)))
}

/// What a pull that has failed means to its task.
pub(super) fn pull_failure(error: &PullError) -> TaskError {
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
    failure(end, &why)
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
