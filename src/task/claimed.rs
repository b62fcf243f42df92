//! From a claim to a valid payload: header, checks, scopes.

use std::sync::Arc;

use images::source::Source;
use runtime::id::ContainerId;

use crate::artifact::{Publisher, PublisherParts, Store};
use crate::document::finding::{Finding, Findings, Severity};
use crate::event::{RunEvent, RunEvents};
use crate::features::{Active, RunContext, Wishes};
use crate::interrupt::{Interrupter, Interrupts};
use crate::payload::features::FeatureSwitches;
use crate::payload::{Payload, TaskContext, reserved_names};
use crate::queue::artifact_name::ArtifactName;
use crate::queue::{Claim, RunId, Task};
use crate::registry::Handles;
use crate::run_directory::{RunDirectory, RunDirectoryError, random_id};
use crate::scopes;
use crate::task::error::TaskError;
use crate::task::reclaim;
use crate::task::resolve::End;
use crate::task::resolving::{Identity, Resolving};
use crate::task::run::{Began, Remains, Run, Worker};
use crate::task::validated::Validated;
use crate::task_log::reader::LogReader;
use crate::task_log::spool::Spool;
use crate::task_log::{self, Header};
use crate::text::chain;
use crate::text::escaped;
use crate::timestamp::Timestamp;

/// What the log is called where there is no valid payload to say so.
const FALLBACK_LOG: &str = "public/logs/live.log";

/// A run that is this worker's and that nobody has looked at yet.
pub struct Claimed {
    run: Run,
    findings: Vec<Finding>,
}

/// Why a run could not even begin; nothing of it is in any log.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// No place for the container's things.
    #[error(transparent)]
    Directory(#[from] RunDirectoryError),
    /// The thread that was to make them panicked.
    #[error("make the directories of a run")]
    Panicked(#[from] tokio::task::JoinError),
    /// No place for the log, or no random id.
    #[error("begin the task's log in {}", path.display())]
    Log {
        /// Where.
        path: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl Claimed {
    /// Begins a run: makes its directories and its log, and keeps its claim from now on.
    ///
    /// # Errors
    ///
    /// [`BeginError`] when this host has no room for it.
    pub async fn begin(
        worker: &Arc<Worker>,
        claim: Claim,
        store: Store,
        channel: (Interrupter, Interrupts),
    ) -> Result<Claimed, BeginError> {
        let began = Began::now();
        let (interrupter, interrupts) = channel;
        let Read { payload, scopes, findings } = read_task(worker, &claim);
        let (worker_of_run, interrupts_of_run) = (Arc::clone(worker), interrupts.clone());
        let opened = tokio::task::spawn_blocking(move || open(&worker_of_run, &interrupts_of_run)).await??;
        let Opened { id, directory, log } = opened;
        let reclaiming = reclaim::keep(reclaim::Held {
            queue: claim.queue.clone(),
            taken_until: claim.taken_until,
            divisor: worker.config.file.reclaim_divisor(),
            interrupter: interrupter.clone(),
            log: log.clone(),
        });
        let context = RunContext {
            run: claim.queue.run().clone(),
            scopes: scopes.clone(),
            config: Arc::new(worker.config.file.clone()),
            data: directory.data().to_owned(),
            log: log.clone(),
            live_log: worker.live_log.clone(),
            interrupts: interrupts.clone(),
        };
        let (features, reserved) = start_features(context.clone(), payload.as_ref());
        let publisher = publisher(worker, &claim, (store, reserved), context);
        let (container, interrupter_of_run) = (id.clone(), interrupter.clone());
        let handles =
            Handles { container, began: began.at, log: log.reader(), interrupter: interrupter_of_run };
        let run = Run {
            worker: Arc::clone(worker),
            entry: worker.registry.enter(claim.queue.run().clone(), handles),
            events: announce(worker, claim.queue.run()),
            claim,
            reclaiming: Some(reclaiming),
            id,
            directory,
            log,
            publisher,
            features,
            interrupter,
            interrupts,
            payload,
            scopes,
            image: None,
            caches: Vec::new(),
            network: None,
            mounts: Vec::new(),
            remains: Remains::None,
            failures: Vec::new(),
            began,
        };
        Ok(Claimed { run, findings })
    }

    /// To read its log.
    pub fn log(&self) -> LogReader {
        self.run.log.reader()
    }

    /// Who it is, for the case that nothing else is left of it.
    pub(super) fn identity(&self) -> Identity {
        Identity { queue: self.run.claim.queue.clone(), began: self.run.began }
    }

    /// Checks the payload and what the task may do.
    ///
    /// # Errors
    ///
    /// The run goes straight to its resolution.
    pub fn validate(mut self) -> Result<Validated, Box<Resolving>> {
        self.write_header();
        match self.check() {
            Ok((payload, source)) => Ok(Validated { run: self.run, payload, source }),
            Err(error) => {
                let end = self.run.fail(error);
                Err(Resolving::without_container(self.run, end))
            }
        }
    }

    fn write_header(&mut self) {
        let Run { worker, claim, payload, log: spool, .. } = &mut self.run;
        let file = &worker.config.file;
        let caches: Vec<(&str, &str)> = payload
            .iter()
            .flat_map(|payload| &payload.cache)
            .map(|(name, mount_point)| (name.as_str(), mount_point.as_str()))
            .collect();
        let pool = file.worker_pool();
        let header = Header {
            task_id: claim.queue.run().task_id.as_str(),
            worker_id: file.worker_id.as_deref().unwrap_or(&worker.host.name),
            worker_group: file.worker_group(),
            worker_node_type: file.worker_node_type(),
            worker_pool: &pool,
            worker_version: env!("CARGO_PKG_VERSION"),
            public_ip: file.public_ip.as_deref(),
            hostname: &worker.host.name,
            caches: &caches,
        };
        spool.text(&task_log::header(Timestamp::now(), &header));
        for notice in &worker.host.notices {
            spool.info(notice);
        }
    }

    fn check(&mut self) -> Result<(Payload, Source), TaskError> {
        let warnings = self.findings.iter().filter(|it| it.severity == Severity::Warning);
        for warning in warnings {
            self.run.log.info(&format!("Warning: {warning}"));
        }
        let Some(payload) = self.run.payload.clone() else {
            let text = task_log::refused_payload(&self.findings);
            return Err(TaskError::new(End::MalformedPayload, text));
        };
        let source = Source::parse(&payload.image.name).map_err(|error| {
            let text = format!("`task.payload.image` names no image: failed to {}", escaped(&chain(&error)));
            TaskError::new(End::MalformedPayload, text)
        })?;
        self.check_scopes(&payload)?;
        Ok((payload, source))
    }

    fn check_scopes(&self, payload: &Payload) -> Result<(), TaskError> {
        let names = payload.cache.keys().map(|name| name.as_str());
        let pool = self.run.worker.config.file.worker_pool();
        let expression = scopes::cache_expression(names, &pool);
        match scopes::refuse_caches(&expression, &self.run.scopes) {
            None => Ok(()),
            Some(refusal) => {
                let text = format!(
                    "Docker configuration could not be created.  This may indicate an authentication error when validating scopes necessary for running the task. \n{refusal}"
                );
                Err(TaskError::new(End::SetupFailed, text))
            }
        }
    }
}

/// What a run begins with.
struct Opened {
    id: ContainerId,
    directory: RunDirectory,
    log: Spool,
}

/// Makes the directories and the log of a run. Blocks.
fn open(worker: &Worker, interrupts: &Interrupts) -> Result<Opened, BeginError> {
    let directories = &worker.config.directories;
    let no_log = |source| BeginError::Log { path: directories.runs(), source };
    let id = random_id().map_err(no_log)?;
    let directory = RunDirectory::create(directories, &id, &|| interrupts.current().is_none())?;
    match Spool::create(&directory.log(), worker.config.file.log_bytes()) {
        Ok(log) => Ok(Opened { id, directory, log }),
        Err(error) => {
            directory.remove()?;
            Err(no_log(error))
        }
    }
}

/// Tells the operator of a run; what becomes of it follows the same way.
fn announce(worker: &Worker, run: &RunId) -> RunEvents {
    let events = worker.events.of(run);
    events.emit(&RunEvent::TaskClaimed);
    events
}

/// What the claim says is to be done.
struct Read {
    payload: Option<Payload>,
    scopes: Vec<String>,
    findings: Vec<Finding>,
}

fn read_task(worker: &Worker, claim: &Claim) -> Read {
    let file = &worker.config.file;
    let context = TaskContext {
        expires: claim.expires,
        origin: worker.origin,
        disabled_features: &file.disabled_features(),
        max_task_run_time: file.max_task_run_time.map(u64::from),
        pointer: worker.payload_pointer,
    };
    match claim.definition.read() {
        Ok(Task { payload, scopes }) => {
            let (payload, findings) = Payload::parse(&payload, &context);
            Read { payload, scopes, findings }
        }
        Err(error) => {
            let mut findings = Findings::default();
            let error = error.to_string();
            findings.error("", format!("the task's definition cannot be read: {}", escaped(&error)));
            Read { payload: None, scopes: Vec::new(), findings: findings.into_list() }
        }
    }
}

/// The way out for artifacts, and the names that are the worker's own.
fn publisher(
    worker: &Worker,
    claim: &Claim,
    (store, reserved): (Store, Vec<(ArtifactName, &'static str)>),
    context: RunContext,
) -> Publisher {
    Publisher::new(PublisherParts {
        queue: claim.queue.clone(),
        expires: claim.expires,
        store,
        reserved,
        scratch: context.data,
        config: context.config,
        events: worker.events.clone(),
        interrupts: context.interrupts,
    })
}

/// The features that are on, and the names of what they and the worker publish.
fn start_features(
    context: RunContext,
    payload: Option<&Payload>,
) -> (Active, Vec<(ArtifactName, &'static str)>) {
    let defaults = FeatureSwitches::of_defaults(&context.config.disabled_features());
    let fallback = ArtifactName::new(FALLBACK_LOG);
    let switches = payload.map_or(&defaults, |payload| &payload.features);
    let log = payload.map(|payload| &payload.log).or(fallback.as_ref().ok());
    let reserved = log.map(|log| reserved_names(log, switches)).unwrap_or_default();
    let wishes = log.map(|log| Wishes { payload, switches, log });
    (Active::start(context, wishes.as_ref()), reserved)
}
