//! Which processors are whose: the worker's own work (`worker.cpus`, `worker.nice`) and tasks (`restrictCPU`).
//!
//! The worker restricts itself while it has one thread. Whatever it starts inherits that: its threads, `nft`, the monitors
//! of containers. Containers get back what the process was started with.

use std::io;

use runtime::scheduling::{ProcessorSet, Scheduling};

use super::operator::Operator;
use super::refusal::Refusal;
use super::{HOST_UNFIT, WRONG_USE};
use crate::config::{ConfigFile, WorkerSettings};
use crate::host::{self, Facts, Host};

/// Why the worker cannot run where it is to.
#[derive(Debug, thiserror::Error)]
enum RestrictError {
    /// The kernel does not say what it has.
    #[error("look at the processors that the worker may run on")]
    Own(#[source] io::Error),
    /// It may not run there.
    #[error(
        "run the worker on the processors {beyond}: worker.cpus names them, and this process may run on {own} only"
    )]
    Beyond {
        /// Those that are not its own.
        beyond: ProcessorSet,
        /// Those that are.
        own: ProcessorSet,
    },
    /// The kernel refuses.
    #[error("give the worker its processors and its niceness (worker.cpus, worker.nice)")]
    Take(#[source] io::Error),
}

/// Gives the worker what the configuration says, and notes what containers get. Call before any thread is started.
pub(super) fn arrange(
    file: &ConfigFile,
    facts: &Facts,
    host: &mut Host,
    operator: &Operator,
) -> Result<(), Refusal> {
    if file.restrict_cpu {
        let processors = host::processor_for_each(facts);
        let unfit = |unfit: host::Unfit| Refusal::new(HOST_UNFIT, unfit.to_string());
        host.processor_for_each = Some(processors.map_err(unfit)?);
    }
    if file.worker.nice.is_some() && !facts.has_sys_nice {
        operator.note(
            "worker.nice has no effect: without CAP_SYS_NICE the worker could not spare tasks its own niceness",
        );
    }
    host.scheduling = restrict(&file.worker, facts).map_err(|error| {
        let status = if matches!(error, RestrictError::Beyond { .. }) { WRONG_USE } else { HOST_UNFIT };
        Refusal::because(status, &error)
    })?;
    Ok(())
}

/// Returns what the worker had before, if that is something else.
fn restrict(settings: &WorkerSettings, facts: &Facts) -> Result<Option<Scheduling>, RestrictError> {
    let own = Scheduling::own().map_err(RestrictError::Own)?;
    let processors = settings.cpus.clone().unwrap_or_else(|| own.processors.clone());
    if let Some(beyond) = processors.beyond(&own.processors) {
        return Err(RestrictError::Beyond { beyond, own: own.processors });
    }
    let niceness = settings.nice.filter(|_| facts.has_sys_nice).unwrap_or(own.niceness);
    let restricted = Scheduling { processors, niceness };
    if restricted == own {
        return Ok(None);
    }
    restricted.take().map_err(RestrictError::Take)?;
    Ok(Some(own))
}

/// As many tasks as there are processors, where each has one to itself.
pub(super) fn capacity(file: &ConfigFile) -> Option<u32> {
    let own = ProcessorSet::own().ok().filter(|_| file.restrict_cpu)?;
    u32::try_from(own.count()).ok()
}
