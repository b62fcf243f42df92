//! `bulkLog`: the task's log under a fixed name, for consumers that want it compressed and whole.

use super::local_live_log::publish_log;
use super::{Feature, FeatureRow, Hook, HookError, Killed, Wishes};
use crate::known_features::{BULK_LOG, BULK_LOG_ARTIFACT};
use crate::queue::artifact_name::ArtifactName;

/// Its row of the table.
pub(super) const ROW: FeatureRow = FeatureRow { feature: &BULK_LOG, start };

struct BulkLog;

fn start(_wishes: &Wishes<'_>) -> Box<dyn Feature> {
    Box::new(BulkLog)
}

impl Feature for BulkLog {
    fn killed<'a>(&'a mut self, killed: &'a mut Killed<'_>) -> Hook<'a> {
        Box::pin(async move {
            let name = ArtifactName::new(BULK_LOG_ARTIFACT)
                .map_err(|error| HookError(format!("The bulk log's name must {error}.")))?;
            publish_log(&name, killed).await
        })
    }
}
