//! From a claim to a valid payload: header, checks, scopes.

use std::sync::Arc;

use crate::artifact::{Publisher, PublisherParts, Store};
use crate::background::Background;
use crate::claim_file::{ClaimFile, Logs};
use crate::document::finding::{Finding, Findings, Severity};
use crate::event::{RunEvent, RunEvents};
use crate::features::{Active, RunContext, Wishes};
use crate::interrupt::{Interrupter, Interrupts};
use crate::known_features::{BULK_LOG, CHAIN_OF_TRUST, LOCAL_LIVE_LOG};
use crate::payload::features::FeatureSwitches;
use crate::payload::{Payload, TaskContext, reserved_names};
use crate::queue::artifact_name::ArtifactName;
use crate::queue::{Claim, RunId, Task};
use crate::registry::{Handles, Phase};
use crate::task::authorization::Authorization;
use crate::task::error::{TaskError, end_by};
use crate::task::image::Pulling;
use crate::task::opening::{self, BeginError, Opened};
use crate::task::outcome::End;
use crate::task::reclaim;
use crate::task::resolved::{Identity, Resolved};
use crate::task::resolving::{Aftermath, Resolving, Terms};
use crate::task::run::{Began, Run, RunOptions, Worker};
use crate::task::secondaries::Secondaries;
use crate::task::taken::Taken;
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
    features: Active,
    task: Read,
    pulling: Pulling,
}

/// A run that is this worker's, and that could not begin.
pub struct NotBegun {
    identity: Identity,
    error: BeginError,
}

impl Claimed {
    /// Begins a run: makes its directories and its log, and keeps its claim from now on.
    ///
    /// # Errors
    ///
    /// [`NotBegun`] when this host has no room for it; it is to be resolved as any other.
    pub async fn begin(
        worker: &Arc<Worker>,
        claim: Claim,
        options: RunOptions,
        (interrupter, interrupts): (Interrupter, Interrupts),
    ) -> Result<Claimed, NotBegun> {
        let began = Began::now();
        let task = read_task(worker, &claim, &options);
        let wishes = Switched::of(task.payload.as_ref(), &worker.config.file.disabled_features());
        let held = opening::held(worker, &claim.queue, (claim.taken_until, claim.expires), wishes.logs());
        let opened = opening::open(worker, &interrupts, held).await;
        let Opened { id, directory, log, file, processor } = match opened {
            Ok(opened) => opened,
            Err((error, file)) => {
                let identity = Identity { queue: claim.queue, file, interrupts, began };
                return Err(NotBegun { identity, error });
            }
        };
        let RunOptions { store, pulling, .. } = options;
        let reclaiming = keep_claim(worker, &claim, &interrupter, (&log, &file));
        let context = RunContext {
            run: claim.queue.run().clone(),
            definition: claim.definition.clone(),
            worker_id: worker.id().to_owned(),
            signing_key: worker.signing_key.clone(),
            scopes: task.scopes.clone(),
            config: Arc::new(worker.config.file.clone()),
            data: directory.data().to_owned(),
            log: log.clone(),
            events: worker.events.of(claim.queue.run()),
            live_log: worker.live_log.clone(),
            proxy: worker.proxy.clone(),
            credentials: claim.queue.credentials(),
            interrupts: interrupts.clone(),
        };
        let (features, reserved) = start_features(context.clone(), task.payload.as_ref(), &wishes);
        let published = wishes.publishes_log().then(|| log.reader());
        let publisher = publisher(worker, &claim, (store, reserved, published), context);
        let handles = Handles {
            container: id.clone(),
            began: began.at,
            phase: Phase::Preparing,
            log: log.reader(),
            interrupter: interrupter.clone(),
        };
        let run = Run {
            worker: Arc::clone(worker),
            entry: worker.registry.enter(claim.queue.run().clone(), handles),
            events: announce(worker, claim.queue.run(), &features),
            claim,
            file,
            reclaiming,
            id,
            directory,
            log,
            publisher,
            interrupter,
            interrupts,
            processor,
            secondaries: None,
            failures: Vec::new(),
            began,
        };
        Ok(Claimed { run, features, task, pulling })
    }

    /// The same in place of others, which are resolved with it.
    #[must_use]
    pub fn in_place_of(mut self, secondaries: Option<Secondaries>) -> Claimed {
        self.run.secondaries = secondaries;
        self
    }

    /// To read its log.
    pub fn log(&self) -> LogReader {
        self.run.log.reader()
    }

    /// Who it is, for the case that nothing else is left of it.
    pub(super) fn identity(&self) -> Identity {
        self.run.identity()
    }

    /// Checks the payload and what the task may do.
    ///
    /// # Errors
    ///
    /// The run goes straight to its resolution.
    pub async fn validate(self) -> Result<Validated, Box<Resolving>> {
        self.write_header();
        let checked = self.check().await;
        let Claimed { mut run, features, task, pulling } = self;
        match checked {
            Ok(payload) => Ok(Validated { run, features, payload, pulling }),
            Err(error) => {
                let end = run.fail(error);
                let terms = task.payload.as_ref().map(Terms::of).unwrap_or_default();
                let (taken, aftermath) = (Taken::default(), Aftermath::NoContainer);
                Err(Box::new(Resolving { run, features, taken, terms, end, aftermath }))
            }
        }
    }

    fn write_header(&self) {
        let Run { worker, claim, log: spool, .. } = &self.run;
        let file = &worker.config.file;
        let caches: Vec<(&str, &str)> = self
            .task
            .payload
            .iter()
            .flat_map(|payload| &payload.cache)
            .map(|(name, mount_point)| (name.as_str(), mount_point.as_str()))
            .collect();
        let pool = file.worker_pool();
        let header = Header {
            task_id: claim.queue.run().task_id.as_str(),
            worker_id: worker.id(),
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
        for secondary in self.run.secondaries.iter().flat_map(Secondaries::runs) {
            spool.info(&format!("This task supersedes the task {}.", secondary.task_id));
        }
    }

    async fn check(&self) -> Result<Payload, TaskError> {
        let warnings = self.task.findings.iter().filter(|it| it.severity == Severity::Warning);
        for warning in warnings {
            self.run.log.info(&format!("Warning: {warning}"));
        }
        let Some(payload) = self.task.payload.clone() else {
            let text = task_log::refused_payload(&self.task.findings);
            return Err(TaskError::new(End::MalformedPayload, text));
        };
        self.authorize(&payload).await?;
        Ok(payload)
    }

    /// Before anything is made or found for the task, an image that is there already included.
    async fn authorize(&self, payload: &Payload) -> Result<(), TaskError> {
        let authorization =
            Authorization::new(&self.run.claim.queue, &self.run.worker.store, &self.task.scopes);
        let file = &self.run.worker.config.file;
        let mut interrupts = self.run.interrupts.clone();
        tokio::select! {
            biased;
            checked = authorization.check(payload, file, &self.pulling.options) => checked,
            _ = interrupts.interrupted() => Err(TaskError::interrupted()),
        }
    }
}

impl NotBegun {
    /// Why it could not.
    pub fn error(&self) -> &BeginError {
        &self.error
    }

    /// Reports it.
    pub async fn resolve(self) -> Resolved {
        let NotBegun { identity, error } = self;
        let end = match error {
            BeginError::Directory(_) | BeginError::Claim(_) | BeginError::Log { .. } => {
                end_by(&error, End::HostUnfit)
            }
            BeginError::NoProcessor => End::ResourceShort,
            BeginError::Panicked(_) => End::WorkerFault,
        };
        let why = format!("The task could not begin: failed to {}", chain(&error));
        identity.resolve_without_log(end, why).await
    }
}

fn keep_claim(
    worker: &Worker,
    claim: &Claim,
    interrupter: &Interrupter,
    (log, file): (&Spool, &Option<ClaimFile>),
) -> Background {
    reclaim::keep(reclaim::Held {
        queue: claim.queue.clone(),
        taken_until: claim.taken_until,
        divisor: worker.config.file.reclaim_divisor(),
        interrupter: interrupter.clone(),
        log: log.clone(),
        file: file.clone(),
        events: worker.events.clone(),
    })
}

/// Tells the operator of a run; what becomes of it follows the same way.
fn announce(worker: &Worker, run: &RunId, features: &Active) -> RunEvents {
    let events = worker.events.of(run);
    events.emit(&RunEvent::TaskClaimed);
    for name in features.names() {
        events.emit(&RunEvent::FeatureUsed { name });
    }
    events
}

/// What the claim says is to be done.
struct Read {
    payload: Option<Payload>,
    scopes: Vec<String>,
    findings: Vec<Finding>,
}

fn read_task(worker: &Worker, claim: &Claim, options: &RunOptions) -> Read {
    let file = &worker.config.file;
    let context = TaskContext {
        expires: claim.expires,
        origin: options.origin,
        disabled_features: &file.disabled_features(),
        max_task_run_time: file.max_task_run_time.map(u64::from),
        pointer: options.payload_pointer,
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
    (store, reserved, log): (Store, Vec<(ArtifactName, &'static str)>, Option<LogReader>),
    context: RunContext,
) -> Publisher {
    Publisher::new(PublisherParts {
        queue: claim.queue.clone(),
        expires: claim.expires,
        store,
        reserved,
        scratch: context.data,
        log,
        config: context.config,
        events: worker.events.clone(),
        interrupts: context.interrupts,
    })
}

/// The features that are switched on, and the name of the log.
struct Switched {
    switches: FeatureSwitches,
    log: Option<ArtifactName>,
}

impl Switched {
    fn of(payload: Option<&Payload>, disabled: &[&str]) -> Switched {
        match payload {
            Some(payload) => Switched { switches: payload.features.clone(), log: Some(payload.log.clone()) },
            None => Switched {
                switches: FeatureSwitches::of_defaults(disabled),
                log: ArtifactName::new(FALLBACK_LOG).ok(),
            },
        }
    }

    fn publishes_log(&self) -> bool {
        [LOCAL_LIVE_LOG, BULK_LOG, CHAIN_OF_TRUST].iter().any(|feature| self.switches.is_on(feature.name))
    }

    fn logs(&self) -> Logs {
        let live = self.log.clone().filter(|_| self.switches.is_on(LOCAL_LIVE_LOG.name));
        Logs { live, bulk: self.switches.is_on(BULK_LOG.name) }
    }
}

/// The features that are on, and the names of what they and the worker publish.
fn start_features(
    context: RunContext,
    payload: Option<&Payload>,
    Switched { switches, log }: &Switched,
) -> (Active, Vec<(ArtifactName, &'static str)>) {
    let caches = payload.iter().flat_map(|payload| payload.cache.keys());
    let names_superseder = payload.is_some_and(|payload| payload.names_superseder);
    let reserved =
        log.as_ref().map(|log| reserved_names(log, switches, (names_superseder, caches))).unwrap_or_default();
    let wishes = log.as_ref().map(|log| Wishes { payload, switches, log });
    (Active::start(context, wishes.as_ref()), reserved)
}
