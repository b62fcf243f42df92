//! `localLiveLog`: the task's log, under the name that the payload gives it.
//!
//! The finished log is stored as the backing log; the live log's name then stands for it. Nobody
//! serves the log while the task runs yet: `run` shows it on standard output.

use super::{Feature, FeatureRow, Hook, HookError, Killed, Wishes};
use crate::artifact::{ContentEncoding, Description, LOG_TYPE, Source};
use crate::known_features::LOCAL_LIVE_LOG;
use crate::queue::artifact_name::ArtifactName;

/// Its row of the table.
pub(super) const ROW: FeatureRow = FeatureRow { feature: &LOCAL_LIVE_LOG, start };

struct LocalLiveLog {
    name: ArtifactName,
}

fn start(wishes: &Wishes<'_>) -> Box<dyn Feature> {
    Box::new(LocalLiveLog { name: wishes.log.clone() })
}

impl Feature for LocalLiveLog {
    fn killed<'a>(&'a mut self, killed: &'a mut Killed<'_>) -> Hook<'a> {
        Box::pin(self.publish(killed))
    }
}

impl LocalLiveLog {
    async fn publish(&self, killed: &mut Killed<'_>) -> Result<(), HookError> {
        let backing = self.name.backing().map_err(|error| {
            HookError(format!("The name of the backing log of \"{}\" must {error}.", self.name))
        })?;
        let stored = publish_log(&backing, killed).await;
        // O24: whatever became of the backing log, the live one must not point to a dead server.
        let linked = killed.publisher.publish_link(&self.name, &backing).await;
        stored?;
        linked.map_err(|error| {
            HookError(format!("Error uploading \"{}\" artifact. Failed to {error}", self.name))
        })
    }
}

/// Stores the whole log under a name.
pub(super) async fn publish_log(name: &ArtifactName, killed: &mut Killed<'_>) -> Result<(), HookError> {
    let description = Description {
        name: name.clone(),
        content_type: LOG_TYPE.to_owned(),
        content_encoding: ContentEncoding::Gzip,
        expires: killed.publisher.task_expires(),
    };
    let failed = |why: String| HookError(format!("Error uploading \"{name}\" artifact. {why}"));
    let log = Source::Log(killed.log.to_owned());
    let published = killed.publisher.publish(description, log).await;
    published.map_err(|error| failed(format!("Failed to {error}")))
}
