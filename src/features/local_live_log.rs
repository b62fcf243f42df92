//! `localLiveLog`: the task's log, under the name that the payload gives it.
//!
//! While the task runs the name is a reference to where the worker serves the log, if it does (`run` shows the log on
//! standard output instead). The finished log is stored as the backing log; the live log's name then stands for it.

use std::time::Duration;

use tokio::time::timeout;

use super::{Feature, FeatureRow, Hook, Killed, RunContext, Wishes};
use crate::artifact::{ContentEncoding, Description, LOG_TYPE, PublishError, Publisher, Source};
use crate::known_features::LOCAL_LIVE_LOG;
use crate::live_log::Offer;
use crate::queue::QueueError;
use crate::queue::artifact_name::{ArtifactName, ArtifactNameError};
use crate::text::chain;
use crate::timestamp::Timestamp;

/// Its row of the table.
pub(super) const ROW: FeatureRow = FeatureRow { feature: &LOCAL_LIVE_LOG, start };

/// Why a log is not where it should be.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogError {
    /// No artifact can have its name.
    #[error("The name of the {what} must {why}.")]
    Name { what: &'static str, why: ArtifactNameError },
    /// It could not be published.
    #[error("Error uploading \"{name}\" artifact. Failed to {source}")]
    Publish { name: ArtifactName, source: PublishError },
}

/// What a run may take beside its command: the image, the artifacts.
const BESIDE: Duration = Duration::from_secs(6 * 3600);

/// How long a task waits for its live log to be listed.
const PATIENCE: Duration = Duration::from_secs(30);

struct LocalLiveLog {
    name: ArtifactName,
    max_run_time: Duration,
    /// The log can be read as long as it is here.
    offer: Option<Offer>,
}

fn start(wishes: &Wishes<'_>) -> Box<dyn Feature> {
    let max_run_time = wishes.payload.map(|payload| payload.max_run_time).unwrap_or_default();
    Box::new(LocalLiveLog { name: wishes.log.clone(), max_run_time, offer: None })
}

impl Feature for LocalLiveLog {
    fn created<'a>(&'a mut self, run: &'a RunContext, publisher: &'a Publisher) -> Hook<'a> {
        Box::pin(async { Ok(self.offer(run, publisher).await?) })
    }

    fn killed<'a>(&'a mut self, _run: &'a RunContext, killed: &'a mut Killed<'_>) -> Hook<'a> {
        Box::pin(async { Ok(self.publish(killed).await?) })
    }
}

impl LocalLiveLog {
    async fn offer(&mut self, run: &RunContext, publisher: &Publisher) -> Result<(), LogError> {
        let Some(server) = &run.live_log else { return Ok(()) };
        let until = Timestamp::now().plus(self.max_run_time + BESIDE);
        let offer = match server.offer(run.log.reader(), until) {
            Ok(offer) => self.offer.insert(offer),
            Err(error) => {
                run.log.info(&format!("The log cannot be read while the task runs: {error}"));
                return Ok(());
            }
        };
        let published = timeout(PATIENCE, publisher.publish_reference(&self.name, offer.url()));
        let why = match published.await {
            Ok(Ok(())) => return Ok(()),
            // A log that cannot be read before its end is no reason to have none. What is refused now would be then, too.
            Ok(Err(
                error @ PublishError::Queue(QueueError::Unreachable { .. } | QueueError::Foreign { .. }),
            )) => {
                format!("failed to {}", chain(&error))
            }
            Ok(Err(source)) => return Err(LogError::Publish { name: self.name.clone(), source }),
            Err(_) => format!("the queue has not created \"{}\" in {} s", self.name, PATIENCE.as_secs()),
        };
        // It may have done so, and only the answer was lost: whoever comes finds the log.
        run.log.info(&format!("Perhaps the log cannot be read while the task runs: {why}"));
        Ok(())
    }

    async fn publish(&mut self, killed: &mut Killed<'_>) -> Result<(), LogError> {
        let published = publish_finished(&self.name, killed).await;
        // Whoever reads it has the end by now, or goes on to it.
        self.offer = None;
        published
    }
}

/// Stores the whole log as the backing log, and has the live log's name lead there.
pub(super) async fn publish_finished(name: &ArtifactName, killed: &mut Killed<'_>) -> Result<(), LogError> {
    let backing = name.backing().map_err(|why| LogError::Name { what: "finished log", why })?;
    let stored = publish_log(&backing, killed).await;
    // O24: whatever became of the backing log, the live one must not point to a dead server.
    let linked = killed.publisher.publish_link(name, &backing).await;
    stored?;
    linked.map_err(|source| LogError::Publish { name: name.clone(), source })
}

/// Stores the whole log under a name.
pub(super) async fn publish_log(name: &ArtifactName, killed: &mut Killed<'_>) -> Result<(), LogError> {
    let description = Description {
        name: name.clone(),
        content_type: LOG_TYPE,
        content_encoding: ContentEncoding::Gzip,
        expires: killed.publisher.task_expires(),
    };
    let log = Source::Log(killed.log.to_owned());
    let published = killed.publisher.publish(description, log).await;
    published.map_err(|source| LogError::Publish { name: name.clone(), source })
}
