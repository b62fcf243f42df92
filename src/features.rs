//! Features: what a task can have beside its command. One file each, one table for all.
//!
//! ```text
//!   link ─► created ─► (container starts) ─► started ─► (it ends) ─► stopped ─► (log closed) ─► killed
//!    top to bottom of FEATURES ───────────────────────►  ◄─────────────── bottom to top
//! ```
//!
//! Reversed on the way out, artifacts are published before the logs, and what attests the others
//! comes last. The features of one stage run one after the other: their order is the same in every
//! run.

pub mod artifacts;
pub mod bulk_log;
pub mod local_live_log;

use std::future::{Future, ready};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use crate::artifact::Publisher;
use crate::known_features::KnownFeature;
use crate::payload::Payload;
use crate::payload::features::FeatureSwitches;
use crate::queue::artifact_name::ArtifactName;
use crate::root::ContainerRoot;
use crate::spec::Bind;
use crate::task_log::spool::Spool;

/// One row of the table.
pub struct FeatureRow {
    /// What all else has to know of it.
    pub feature: &'static KnownFeature,
    /// Makes it for one run.
    pub start: fn(&Wishes<'_>) -> Box<dyn Feature>,
}

/// In hook order.
pub const FEATURES: &[FeatureRow] = &[local_live_log::ROW, bulk_log::ROW, artifacts::ROW];

/// What a run's payload says that concerns features; the defaults when it has no valid payload.
pub struct Wishes<'a> {
    /// The payload, if it is valid.
    pub payload: Option<&'a Payload>,
    /// Which features are on.
    pub switches: &'a FeatureSwitches,
    /// The name of the live log.
    pub log: &'a ArtifactName,
}

/// A hook's future.
pub type Hook<'a> = Pin<Box<dyn Future<Output = Result<(), HookError>> + 'a>>;

/// Why a hook failed: a sentence for the task log.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct HookError(pub String);

/// The behaviour of one feature in one run. A hook that is not implemented does nothing.
pub trait Feature {
    /// Before the image is there: contributes binds and environment.
    fn link<'a>(&'a mut self, _link: &'a mut Link<'_>) -> Hook<'a> {
        done()
    }

    /// Before the container is made.
    fn created<'a>(&'a mut self, _publisher: &'a Publisher) -> Hook<'a> {
        done()
    }

    /// The command runs.
    fn started<'a>(&'a mut self, _publisher: &'a Publisher) -> Hook<'a> {
        done()
    }

    /// Every process is gone, the root is still there, the log is open.
    fn stopped<'a>(&'a mut self, _stopped: &'a mut Stopped<'_>) -> Hook<'a> {
        done()
    }

    /// The log is closed. Runs for every run, whatever became of it.
    fn killed<'a>(&'a mut self, _killed: &'a mut Killed<'_>) -> Hook<'a> {
        done()
    }
}

fn done<'a>() -> Hook<'a> {
    Box::pin(ready(Ok(())))
}

/// What `link` can see and add to.
pub struct Link<'a> {
    /// A directory of this run's on the data directory's file system.
    pub data: &'a Path,
    /// What the container will see of the host's.
    pub binds: &'a mut Vec<Bind>,
    /// Variables below those of the payload.
    pub environment: &'a mut Vec<(String, String)>,
}

/// What `stopped` works on.
pub struct Stopped<'a> {
    /// The container's root.
    pub root: Arc<ContainerRoot>,
    /// Where the log is written.
    pub log: &'a Spool,
    /// The way out.
    pub publisher: &'a Publisher,
    /// The command ended by itself; otherwise it was killed, or never ran.
    pub command_ended: bool,
}

/// What `killed` works on.
pub struct Killed<'a> {
    /// The whole log.
    pub log: &'a Path,
    /// The way out.
    pub publisher: &'a Publisher,
}

/// The features of one run.
pub struct Active {
    features: Vec<(&'static FeatureRow, Box<dyn Feature>)>,
}

/// How the hooks of one stage ended, all features together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hooks {
    /// Without error, or there was nothing to do.
    Done,
    /// At least one of them failed.
    Failed,
}

/// What went wrong in one stage, all features together.
#[derive(Debug, Default)]
pub struct StageErrors {
    errors: Vec<(&'static str, &'static str, HookError)>,
}

impl Active {
    /// Those of the table that are on.
    pub fn start(wishes: &Wishes<'_>) -> Active {
        let on = FEATURES.iter().filter(|row| wishes.switches.is_on(row.feature.name));
        Active { features: on.map(|row| (row, (row.start)(wishes))).collect() }
    }

    /// None at all.
    pub fn none() -> Active {
        Active { features: Vec::new() }
    }

    /// Runs `link` of all.
    pub async fn link(&mut self, mut link: Link<'_>) -> StageErrors {
        let mut stage = StageErrors::default();
        for (row, feature) in &mut self.features {
            stage.note("link", row, feature.link(&mut link).await);
        }
        stage
    }

    /// Runs `created` of all.
    pub async fn created(&mut self, publisher: &Publisher) -> StageErrors {
        let mut stage = StageErrors::default();
        for (row, feature) in &mut self.features {
            stage.note("created", row, feature.created(publisher).await);
        }
        stage
    }

    /// Runs `started` of all.
    pub async fn started(&mut self, publisher: &Publisher) -> StageErrors {
        let mut stage = StageErrors::default();
        for (row, feature) in &mut self.features {
            stage.note("started", row, feature.started(publisher).await);
        }
        stage
    }

    /// Runs `stopped` of all, last first.
    pub async fn stopped(&mut self, mut stopped: Stopped<'_>) -> StageErrors {
        let mut stage = StageErrors::default();
        for (row, feature) in self.features.iter_mut().rev() {
            stage.note("stopped", row, feature.stopped(&mut stopped).await);
        }
        stage
    }

    /// Runs `killed` of all, last first.
    pub async fn killed(&mut self, mut killed: Killed<'_>) -> StageErrors {
        let mut stage = StageErrors::default();
        for (row, feature) in self.features.iter_mut().rev() {
            stage.note("killed", row, feature.killed(&mut killed).await);
        }
        stage
    }
}

impl StageErrors {
    fn note(&mut self, hook: &'static str, row: &FeatureRow, result: Result<(), HookError>) {
        if let Err(error) = result {
            self.errors.push((hook, row.feature.handler, error));
        }
    }

    /// How the stage ended.
    pub fn verdict(&self) -> Hooks {
        if self.errors.is_empty() { Hooks::Done } else { Hooks::Failed }
    }

    /// Whether nothing went wrong.
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// The original's form: all errors in one line.
    pub fn text(&self) -> String {
        let one = |(hook, handler, error): &(&str, &str, HookError)| {
            format!("Error calling '{hook}' for {handler} : {error}")
        };
        self.errors.iter().map(one).collect::<Vec<_>>().join(" | ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::known_features::{KNOWN_FEATURES, Support};

    #[test]
    fn exactly_the_features_that_work_have_a_behaviour() {
        let mut behave: Vec<_> = FEATURES.iter().map(|row| row.feature.name).collect();
        let here = KNOWN_FEATURES.iter().filter(|feature| feature.support == Support::Here);
        let mut works: Vec<_> = here.map(|feature| feature.name).collect();
        behave.sort_unstable();
        works.sort_unstable();
        assert_eq!(behave, works);
    }
}
