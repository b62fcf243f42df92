//! `localLiveLog`: the task's log, under the name that the payload gives it.
//!
//! The finished log is stored as the backing log; the live log's name then stands for it. Nobody
//! serves the log while the task runs yet: `run` shows it on standard output.

use super::{Feature, FeatureRow, Hook, Killed, RunContext, Wishes};
use crate::artifact::{ContentEncoding, Description, LOG_TYPE, PublishError, Source};
use crate::known_features::LOCAL_LIVE_LOG;
use crate::queue::artifact_name::{ArtifactName, ArtifactNameError};

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

struct LocalLiveLog {
    name: ArtifactName,
}

fn start(wishes: &Wishes<'_>) -> Box<dyn Feature> {
    Box::new(LocalLiveLog { name: wishes.log.clone() })
}

impl Feature for LocalLiveLog {
    fn killed<'a>(&'a mut self, _run: &'a RunContext, killed: &'a mut Killed<'_>) -> Hook<'a> {
        Box::pin(async { Ok(self.publish(killed).await?) })
    }
}

impl LocalLiveLog {
    async fn publish(&self, killed: &mut Killed<'_>) -> Result<(), LogError> {
        let backing = self.name.backing().map_err(|why| LogError::Name { what: "finished log", why })?;
        let stored = publish_log(&backing, killed).await;
        // O24: whatever became of the backing log, the live one must not point to a dead server.
        let linked = killed.publisher.publish_link(&self.name, &backing).await;
        stored?;
        linked.map_err(|source| LogError::Publish { name: self.name.clone(), source })
    }
}

/// Stores the whole log under a name.
pub(super) async fn publish_log(name: &ArtifactName, killed: &mut Killed<'_>) -> Result<(), LogError> {
    let description = Description {
        name: name.clone(),
        content_type: LOG_TYPE.to_owned(),
        content_encoding: ContentEncoding::Gzip,
        expires: killed.publisher.task_expires(),
    };
    let log = Source::Log(killed.log.to_owned());
    let published = killed.publisher.publish(description, log).await;
    published.map_err(|source| LogError::Publish { name: name.clone(), source })
}
