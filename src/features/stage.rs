//! One stage of a run: the same hook of all features, and how it ended.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use super::{FeatureError, RunContext};
use crate::known_features::KnownFeature;
use crate::text::chain;

/// How long a hook after the command's end has to come to an end of its own, when it is interrupted.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The hooks, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// [`Feature::link`](super::Feature::link)
    Link,
    /// [`Feature::created`](super::Feature::created)
    Created,
    /// [`Feature::configure`](super::Feature::configure)
    Configure,
    /// [`Feature::started`](super::Feature::started)
    Started,
    /// [`Feature::stopped`](super::Feature::stopped)
    Stopped,
    /// [`Feature::killed`](super::Feature::killed)
    Killed,
}

/// How the hooks of one stage ended, all features together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hooks {
    /// Without error, or there was nothing to do.
    Done,
    /// At least one of them failed.
    Failed,
}

/// Why a stage did not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// Hooks failed; the log's line has all of them, in the original's form.
    #[error("{}", lines(.0))]
    Failed(Vec<HookError>),
    /// The run was interrupted first.
    #[error("the run was interrupted")]
    Interrupted,
}

/// One hook that failed.
#[derive(Debug, thiserror::Error)]
#[error("Error calling '{stage}' for {handler} : {}", chain(source.as_ref()))]
pub struct HookError {
    /// Which hook.
    pub stage: Stage,
    /// Whose, as the log calls it.
    pub handler: &'static str,
    /// Why.
    pub source: FeatureError,
}

/// A hook that a second interrupt ended.
#[derive(Debug, thiserror::Error)]
#[error("it had not ended when another interrupt came")]
struct Abandoned;

impl fmt::Display for Stage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Stage::Link => "link",
            Stage::Created => "created",
            Stage::Configure => "configure",
            Stage::Started => "started",
            Stage::Stopped => "stopped",
            Stage::Killed => "killed",
        })
    }
}

impl From<&Result<(), StageError>> for Hooks {
    fn from(ended: &Result<(), StageError>) -> Hooks {
        if ended.is_ok() { Hooks::Done } else { Hooks::Failed }
    }
}

fn lines(errors: &[HookError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
}

/// What went wrong so far in one stage.
pub(super) struct Failures {
    stage: Stage,
    errors: Vec<HookError>,
}

impl Failures {
    pub(super) fn of(stage: Stage) -> Failures {
        Failures { stage, errors: Vec::new() }
    }

    pub(super) fn note(&mut self, feature: &KnownFeature, ended: Result<(), FeatureError>) {
        if let Err(source) = ended {
            self.errors.push(HookError { stage: self.stage, handler: feature.handler, source });
        }
    }

    pub(super) fn into_result(self) -> Result<(), StageError> {
        if self.errors.is_empty() { Ok(()) } else { Err(StageError::Failed(self.errors)) }
    }
}

/// A hook before the command's end: the first interrupt ends it, and its stage.
pub(super) async fn until_interrupted(
    run: &RunContext,
    hook: impl Future<Output = Result<(), FeatureError>>,
) -> Result<Result<(), FeatureError>, StageError> {
    let mut interrupts = run.interrupts.clone();
    tokio::select! {
        biased;
        _ = interrupts.interrupted() => Err(StageError::Interrupted),
        ended = hook => Ok(ended),
    }
}

/// A hook after the command's end: what an interrupted run leaves is stored all the same, until somebody is impatient: from then
/// on each hook has a moment and no more. Storing notices by itself; whatever else does not, is dropped.
pub(super) async fn until_interrupted_again(
    run: &RunContext,
    hook: impl Future<Output = Result<(), FeatureError>>,
) -> Result<(), FeatureError> {
    let mut interrupts = run.interrupts.clone();
    let interrupted_again = async {
        interrupts.more_urgent_than(1).await;
        tokio::time::sleep(LAST_WORDS).await;
    };
    tokio::select! {
        biased;
        ended = hook => ended,
        () = interrupted_again => Err(Abandoned.into()),
    }
}
