//! Features: what a task can have beside its command. One file each, one table for all.
//!
//! ```text
//!   (network) ─► link ─► created ─► (image) ─► configure ─► (container starts) ─► started
//!    top to bottom of FEATURES ──────────────────────────────────────────────────────►
//!   (it ends) ─► stopped ─► (log closed) ─► killed
//!             ◄─────────────────────────────── bottom to top
//! ```
//!
//! Reversed on the way out, artifacts are published before the logs, and what attests the others comes last. The
//! features of one stage run one after the other: their order is the same in every run.
//!
//! An interrupt ends the stages before the command's end, and somebody's impatience those after it: the hook's future is
//! dropped where it waits. So what a hook makes it keeps in its feature before it waits again, for `killed` to undo, which runs
//! for every run.

mod allow_ptrace;
pub mod artifacts;
mod balrog;
pub mod bulk_log;
mod chain_of_trust;
mod contributions;
mod docker_save;
pub mod local_live_log;
mod releng_api;
pub mod sidecars;
pub mod stage;
mod taskcluster_proxy;
mod testdroid;

use std::error::Error;
use std::future::{Future, ready};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use images::store::{Lease, PullOptions, Store};
use tokio::sync::watch;

use crate::apparmor_profiles::Sharing;
use crate::artifact::Publisher;
use crate::cache::CacheLease;
use crate::claim_file::Logs;
use crate::config::ConfigFile;
use crate::event::RunEvents;
use crate::interrupt::Interrupts;
use crate::known_features::{BULK_LOG, KnownFeature, LOCAL_LIVE_LOG};
use crate::live_log::LiveLogServer;
use crate::net::{Network, TaskNetwork};
use crate::payload::Payload;
use crate::payload::features::FeatureSwitches;
use crate::proxy::Proxy;
use crate::queue::artifact_name::ArtifactName;
use crate::queue::{Credentials, ReceivedDefinition, RunId};
use crate::root::ContainerRoot;
use crate::sidecar::{Place, Sidecars};
use crate::signing_key::SigningKey;
use crate::spec::ContainerRequest;
use crate::task_log::spool::Spool;

pub use contributions::Contributions;
pub use stage::{Hooks, Stage, StageError};

/// One row of the table.
pub struct FeatureRow {
    /// What all else has to know of it.
    pub feature: &'static KnownFeature,
    /// Makes it for one run.
    pub start: fn(&Wishes<'_>) -> Box<dyn Feature>,
}

/// In hook order.
pub const FEATURES: &[FeatureRow] = &[
    chain_of_trust::ROW,
    local_live_log::ROW,
    bulk_log::ROW,
    docker_save::ROW,
    artifacts::ROW,
    taskcluster_proxy::ROW,
    allow_ptrace::ROW,
    balrog::ROW,
    balrog::STAGE_ROW,
    releng_api::ROW,
    testdroid::ROW,
];

/// What a run's payload says that concerns features; the defaults when it has no valid payload.
pub struct Wishes<'a> {
    /// The payload, if it is valid.
    pub payload: Option<&'a Payload>,
    /// Which features are on.
    pub switches: &'a FeatureSwitches,
    /// The name of the live log.
    pub log: &'a ArtifactName,
}

/// What every hook can know of its run.
#[derive(Clone, Debug)]
pub struct RunContext {
    /// Which task, and which run of it.
    pub run: RunId,
    /// The task as the queue sent it.
    pub definition: ReceivedDefinition,
    /// Which worker has it.
    pub worker_id: String,
    /// What it certifies with, if it can.
    pub signing_key: Option<Arc<SigningKey>>,
    /// The task's scopes as its definition has them: roles are not expanded.
    pub scopes: Vec<String>,
    /// The configuration in force: root URL, pool, and the features' own keys.
    pub config: Arc<ConfigFile>,
    /// A directory of this run's on the data directory's file system, gone with the run.
    pub data: PathBuf,
    /// The task's log.
    pub log: Spool,
    /// Who hears of what happens to the run.
    pub events: RunEvents,
    /// Who serves it while it grows, if anybody does.
    pub live_log: Option<Arc<LiveLogServer>>,
    /// Who calls the deployment for the task, if there is one.
    pub proxy: Option<Arc<Proxy>>,
    /// What is signed in the task's name; see [`RunQueue::credentials`](crate::queue::RunQueue::credentials).
    pub credentials: Option<watch::Receiver<Credentials>>,
    /// What ends the run early.
    pub interrupts: Interrupts,
}

/// What a hook says of its failure: a feature's own error, whose text is a sentence for the task log.
pub type FeatureError = Box<dyn Error + Send + Sync>;

/// A hook's future.
pub type Hook<'a> = Pin<Box<dyn Future<Output = Result<(), FeatureError>> + 'a>>;

/// The behaviour of one feature in one run. A hook that is not implemented does nothing.
pub trait Feature {
    /// Which AppArmor profile the container runs under, where there are profiles.
    fn profile(&self) -> Sharing {
        Sharing::Shared
    }

    /// The task's network is there, its image not yet: contributes to the container.
    fn link<'a>(&'a mut self, _run: &'a RunContext, _link: &'a mut Link<'_>) -> Hook<'a> {
        done()
    }

    /// What `link` has made is there, for all features.
    fn created<'a>(&'a mut self, _run: &'a RunContext, _publisher: &'a Publisher) -> Hook<'a> {
        done()
    }

    /// All is there that the container is made of, the contributions too: changes what it will be like.
    ///
    /// # Errors
    ///
    /// The container is not made.
    fn configure(
        &mut self,
        _run: &RunContext,
        _request: &mut ContainerRequest<'_>,
    ) -> Result<(), FeatureError> {
        Ok(())
    }

    /// The variables that somebody has chosen for the container, `NAME=value`, without those that are secret.
    fn environment(&mut self, _disclosed: &[String]) {}

    /// The command runs.
    fn started<'a>(&'a mut self, _run: &'a RunContext, _publisher: &'a Publisher) -> Hook<'a> {
        done()
    }

    /// Every process is gone, the root is still there, the log is open.
    fn stopped<'a>(&'a mut self, _run: &'a RunContext, _stopped: &'a mut Stopped<'_>) -> Hook<'a> {
        done()
    }

    /// The log is closed. Runs for every run, whatever became of it.
    fn killed<'a>(&'a mut self, _run: &'a RunContext, _killed: &'a mut Killed<'_>) -> Hook<'a> {
        done()
    }
}

fn done<'a>() -> Hook<'a> {
    Box::pin(ready(Ok(())))
}

/// What `link` works on.
pub struct Link<'a> {
    /// The task's network; nothing where tasks have loopback only.
    pub network: Option<Attached<'a>>,
    /// What the container gets beside what image and payload say.
    pub contributions: &'a mut Contributions,
}

/// The network that a task has, for [`Network::listen`], and what there is to be linked to it.
pub struct Attached<'a> {
    /// The worker's.
    pub network: &'a Arc<Network>,
    /// The task's end of it.
    pub task: &'a mut TaskNetwork,
    /// What a crash would leave of it is noted there.
    pub record: &'a Path,
    /// Where containers beside the task's are made, for [`Sidecars::start`].
    pub place: Place<'a>,
    /// The run keeps them there, and ends them: none is a feature's own.
    pub sidecars: &'a mut Sidecars,
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
    /// What its root was made of, where somebody has made it.
    pub ingredients: Option<Ingredients<'a>>,
}

/// What a container's root was made of, and where.
#[derive(Clone, Copy)]
pub struct Ingredients<'a> {
    /// The directory that [`root_file_system::changed`](crate::root_file_system::changed) looks into.
    pub data: &'a Path,
    /// Has the image.
    pub store: &'a Store,
    /// Keeps it there.
    pub lease: &'a Lease,
    /// How what it lacks by now may be fetched.
    pub pulling: &'a PullOptions,
    /// The caches that it saw. Nobody else has them yet.
    pub caches: &'a [CacheLease],
}

/// What `killed` works on.
pub struct Killed<'a> {
    /// The whole log.
    pub log: &'a Path,
    /// The image whose command has ended by itself: the digest of its configuration. None where nothing ran, or what ran
    /// was ended.
    pub image_id: Option<&'a str>,
    /// The digest of the artifact that it came as, if it did.
    pub image_artifact: Option<&'a str>,
    /// The way out.
    pub publisher: &'a Publisher,
}

/// The features of one run.
pub struct Active {
    run: RunContext,
    features: Vec<(&'static KnownFeature, Box<dyn Feature>)>,
}

impl Active {
    /// Those of the table that are on; none without wishes.
    pub fn start(run: RunContext, wishes: Option<&Wishes<'_>>) -> Active {
        let mut features = Vec::new();
        if let Some(wishes) = wishes {
            let on = FEATURES.iter().filter(|row| wishes.switches.is_on(row.feature.name));
            features.extend(on.map(|row| (row.feature, (row.start)(wishes))));
        }
        Active { run, features }
    }

    /// What they are called.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.features.iter().map(|(feature, _)| feature.name)
    }

    /// The AppArmor profile that all of them can do with.
    pub fn profile(&self) -> Sharing {
        let own = self.features.iter().any(|(_, behaviour)| behaviour.profile() == Sharing::Own);
        if own { Sharing::Own } else { Sharing::Shared }
    }

    /// Runs `link` of all.
    ///
    /// # Errors
    ///
    /// [`StageError`]
    pub async fn link(&mut self, mut link: Link<'_>) -> Result<(), StageError> {
        let Active { run, features } = self;
        let mut failures = stage::Failures::of(Stage::Link);
        for (feature, behaviour) in features {
            let ended = stage::until_interrupted(run, behaviour.link(run, &mut link)).await?;
            failures.note(feature, ended);
        }
        failures.into_result()
    }

    /// Runs `created` of all.
    ///
    /// # Errors
    ///
    /// [`StageError`]
    pub async fn created(&mut self, publisher: &Publisher) -> Result<(), StageError> {
        let Active { run, features } = self;
        let mut failures = stage::Failures::of(Stage::Created);
        for (feature, behaviour) in features {
            let ended = stage::until_interrupted(run, behaviour.created(run, publisher)).await?;
            failures.note(feature, ended);
        }
        failures.into_result()
    }

    /// Runs `configure` of all.
    ///
    /// # Errors
    ///
    /// [`StageError`]
    pub fn configure(&mut self, request: &mut ContainerRequest<'_>) -> Result<(), StageError> {
        let Active { run, features } = self;
        let mut failures = stage::Failures::of(Stage::Configure);
        for (feature, behaviour) in features {
            failures.note(feature, behaviour.configure(run, request));
        }
        failures.into_result()
    }

    /// Tells all of the container's environment, as far as others may know it.
    pub fn environment(&mut self, disclosed: &[String]) {
        for (_, behaviour) in &mut self.features {
            behaviour.environment(disclosed);
        }
    }

    /// Runs `started` of all.
    ///
    /// # Errors
    ///
    /// [`StageError`]
    pub async fn started(&mut self, publisher: &Publisher) -> Result<(), StageError> {
        let Active { run, features } = self;
        let mut failures = stage::Failures::of(Stage::Started);
        for (feature, behaviour) in features {
            let ended = stage::until_interrupted(run, behaviour.started(run, publisher)).await?;
            failures.note(feature, ended);
        }
        failures.into_result()
    }

    /// Runs `stopped` of all, last first.
    ///
    /// # Errors
    ///
    /// [`StageError::Failed`]
    pub async fn stopped(&mut self, mut stopped: Stopped<'_>) -> Result<(), StageError> {
        let Active { run, features } = self;
        let mut failures = stage::Failures::of(Stage::Stopped);
        for (feature, behaviour) in features.iter_mut().rev() {
            let ended = stage::until_interrupted_again(run, behaviour.stopped(run, &mut stopped)).await;
            failures.note(feature, ended);
        }
        failures.into_result()
    }

    /// Runs `killed` of all, last first.
    ///
    /// # Errors
    ///
    /// [`StageError::Failed`]
    pub async fn killed(&mut self, mut killed: Killed<'_>) -> Result<(), StageError> {
        let Active { run, features } = self;
        let mut failures = stage::Failures::of(Stage::Killed);
        for (feature, behaviour) in features.iter_mut().rev() {
            let ended = stage::until_interrupted_again(run, behaviour.killed(run, &mut killed)).await;
            failures.note(feature, ended);
        }
        failures.into_result()
    }
}

/// Publishes the log of a run whose worker has died, as its features would have done.
///
/// # Errors
///
/// [`StageError::Failed`]
pub async fn publish_logs(logs: &Logs, mut killed: Killed<'_>) -> Result<(), StageError> {
    let mut failures = stage::Failures::of(Stage::Killed);
    if logs.bulk {
        let ended = bulk_log::publish(&mut killed).await;
        failures.note(&BULK_LOG, ended.map_err(FeatureError::from));
    }
    if let Some(name) = &logs.live {
        let ended = local_live_log::publish_finished(name, &mut killed).await;
        failures.note(&LOCAL_LIVE_LOG, ended.map_err(FeatureError::from));
    }
    failures.into_result()
}

#[cfg(test)]
mod tests;
