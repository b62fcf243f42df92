//! `bulkLog`: the task's log under a fixed name, for consumers that want it compressed and whole.

use super::local_live_log::{LogError, publish_log};
use super::{Feature, FeatureRow, Hook, Killed, RunContext, Wishes};
use crate::known_features::{BULK_LOG, BULK_LOG_ARTIFACT};
use crate::queue::artifact_name::ArtifactName;

/// Its row of the table.
pub(super) const ROW: FeatureRow = FeatureRow { feature: &BULK_LOG, start };

struct BulkLog;

fn start(_wishes: &Wishes<'_>) -> Box<dyn Feature> {
    Box::new(BulkLog)
}

impl Feature for BulkLog {
    fn killed<'a>(&'a mut self, _run: &'a RunContext, killed: &'a mut Killed<'_>) -> Hook<'a> {
        Box::pin(async move { Ok(publish(killed).await?) })
    }
}

/// Stores the whole log.
pub(super) async fn publish(killed: &mut Killed<'_>) -> Result<(), LogError> {
    let name =
        ArtifactName::new(BULK_LOG_ARTIFACT).map_err(|why| LogError::Name { what: "bulk log", why })?;
    publish_log(&name, killed).await
}
