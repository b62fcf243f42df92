//! A task's network, and what features make beside it: all that a run gets while its image is brought.

use std::sync::Arc;

use images::store::Cancel;

use crate::features::{Active, Attached, Contributions, Link, StageError};
use crate::net::TaskNetwork;
use crate::sidecar::{Place, Sidecars};
use crate::task::error::{TaskError, end_by};
use crate::task::image::Pulling;
use crate::task::outcome::End;
use crate::task::run::Run;
use crate::text::{chain, escaped};

/// The parts of a run that this is about.
pub(super) struct Linking<'a> {
    pub(super) run: &'a Run,
    /// How images of features may be pulled.
    pub(super) pulling: &'a Pulling,
    /// Where the network is kept, for the run to give it back.
    pub(super) network: &'a mut Option<TaskNetwork>,
    /// Where containers beside the task's are kept, for the run to end them.
    pub(super) sidecars: &'a mut Sidecars,
    pub(super) features: &'a mut Active,
}

impl Linking<'_> {
    /// Attaches the network, then runs the hooks `link` and `created`, until the run needs them no more.
    pub(super) async fn link(mut self, stop: &Cancel) -> Result<Contributions, TaskError> {
        self.attach().await?;
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(TaskError::interrupted()),
            linked = self.run_hooks() => linked,
        }
    }

    /// To its end in any case: what was made has to be given back.
    async fn attach(&mut self) -> Result<(), TaskError> {
        let Run { worker, id, directory, log, interrupts, .. } = self.run;
        let Some(network) = worker.network.as_ref().map(Arc::clone) else { return Ok(()) };
        let (id, record) = (id.clone(), directory.task().network());
        let of_run = interrupts.clone();
        let wanted = move || of_run.current().is_none();
        let attaching = tokio::task::spawn_blocking(move || network.attach(&id, &record, &wanted));
        match attaching.await {
            Ok(Ok(attached)) => {
                for obstacle in attached.obstacles() {
                    log.info(&format!("network: {obstacle}"));
                }
                *self.network = Some(attached);
                Ok(())
            }
            Ok(Err(_)) if interrupts.current().is_some() => Err(TaskError::interrupted()),
            Ok(Err(error)) => Err(network_failure(End::HostUnfit, &chain(&error))),
            Err(error) => Err(network_failure(End::WorkerFault, &error.to_string())),
        }
    }

    async fn run_hooks(&mut self) -> Result<Contributions, TaskError> {
        let mut contributions = Contributions::default();
        let Run { worker, directory, .. } = self.run;
        let (record, limits) = (directory.task().network(), self.run.limits());
        let place = Place {
            run: directory,
            store: &worker.store,
            options: &self.pulling.options,
            observer: &self.pulling.observer,
            host: &worker.host,
            limits: &limits,
            socketcall: worker.config.file.socketcall(),
            profile: worker.profile.as_ref(),
        };
        let sidecars = &mut *self.sidecars;
        let network = match (worker.network.as_ref(), self.network.as_mut()) {
            (Some(network), Some(task)) => Some(Attached { network, task, record: &record, place, sidecars }),
            (None, _) | (_, None) => None,
        };
        let link = Link { network, contributions: &mut contributions };
        self.features.link(link).await.map_err(|error| not_created(&error))?;
        self.features.created(&self.run.publisher).await.map_err(|error| not_created(&error))?;
        Ok(contributions)
    }
}

fn not_created(error: &StageError) -> TaskError {
    stage_failure(error, End::SetupFailed, "created")
}

/// A stage of hooks that failed, in the original's words.
pub(super) fn stage_failure(error: &StageError, end: End, stage: &str) -> TaskError {
    match error {
        StageError::Interrupted => TaskError::interrupted(),
        StageError::Failed(_) => {
            let text = format!("Task was aborted because states could not be {stage} successfully. {error}");
            TaskError::new(end_of(error, end), text)
        }
    }
}

/// A disk that is full is nobody's fault, whichever of the hooks came upon it.
fn end_of(error: &StageError, otherwise: End) -> End {
    match error {
        StageError::Failed(errors) => {
            let ends = errors.iter().map(|error| end_by(error.source.as_ref(), otherwise));
            ends.into_iter().find(|end| *end != otherwise).unwrap_or(otherwise)
        }
        StageError::Interrupted => otherwise,
    }
}

fn network_failure(end: End, why: &str) -> TaskError {
    let why = escaped(why);
    TaskError::new(
        end,
        format!("The task's network could not be made, so it does not start. Failed to {why}"),
    )
}
