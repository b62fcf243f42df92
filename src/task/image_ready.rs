//! From a root to a running command: the bundle is written, the runtime started.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use images::store::PullOptions;
use runtime::launch::{FailureKind, Launch};
use tokio::task::JoinError;

use crate::apparmor_profiles::Use;
use crate::container::bundle::{Bundle, BundleError, Files, Names};
use crate::container::{Container, ContainerError, Created, EndError, Remains};
use crate::features::{Active, Contributions, StageError};
use crate::net::{TaskNetwork, names};
use crate::payload::Payload;
use crate::payload::env::{self, Reserved, Sources};
use crate::registry::Phase;
use crate::root_file_system::RootFileSystem;
use crate::spec::process::ProcessError;
use crate::spec::{self, ContainerRequest, NetworkChoice, Profile, SocketCall};
use crate::task::error::{TaskError, end_by};
use crate::task::linking::stage_failure;
use crate::task::outcome::End;
use crate::task::resolving::{Aftermath, Resolving, Terms};
use crate::task::run::Run;
use crate::task::running::Running;
use crate::task::taken::Taken;
use crate::task::timer::limit_run_time;
use crate::task_log;
use crate::text::chain;
use crate::text::escaped;

/// A run with everything that its container needs.
pub struct ImageReady {
    pub(super) run: Run,
    pub(super) features: Active,
    pub(super) taken: Taken,
    pub(super) payload: Payload,
    pub(super) root: RootFileSystem,
    pub(super) contributions: Contributions,
    /// How the image may be fetched, also later.
    pub(super) pulling: PullOptions,
}

/// Why the container cannot be started.
#[derive(Debug, thiserror::Error)]
enum PrepareError {
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Features(#[from] StageError),
    #[error("write the container's files")]
    Panicked(#[from] JoinError),
    #[error("set the clock of maxRunTime")]
    Clock(#[source] io::Error),
}

impl ImageReady {
    /// Starts the command.
    ///
    /// # Errors
    ///
    /// The run goes straight to its resolution.
    pub async fn start(mut self) -> Result<Running, Box<Resolving>> {
        // Before all that can be wrong with what is to be started: the log says then what did not come to its end.
        self.run.log.info(task_log::TASK_STARTING);
        // The clock of maxRunTime runs from before the container is made; the pull does not count.
        let limit = self.payload.max_run_time;
        let prepared = self.prepare().await.and_then(|launch| {
            let clock = limit_run_time(limit, self.run.interrupter.clone()).map_err(PrepareError::Clock)?;
            Ok((launch, clock))
        });
        let (launch, run_time) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                return Err(self.failed(not_prepared(&error), Aftermath::NotStarted(Remains::None)));
            }
        };
        match self.launch(launch).await {
            Ok((container, created, terminal)) => {
                let ImageReady { run, features, taken, payload, root, pulling, .. } = self;
                run.entry.pass_to(Phase::Running);
                let lease = root.lease;
                Ok(Running {
                    run,
                    features,
                    taken,
                    payload,
                    lease,
                    pulling,
                    container,
                    created,
                    terminal,
                    run_time,
                    turn: None,
                })
            }
            Err((failure, remains)) => Err(self.failed(failure, Aftermath::NotStarted(remains))),
        }
    }

    fn failed(self, error: TaskError, aftermath: Aftermath) -> Box<Resolving> {
        let ImageReady { mut run, features, taken, payload, .. } = self;
        let (end, terms) = (run.fail(error), Terms::of(&payload));
        Box::new(Resolving { run, features, taken, terms, end, aftermath })
    }

    /// The container as payload, image and features want it.
    async fn prepare(&mut self) -> Result<Launch, PrepareError> {
        let mut files = Files::default();
        let launch = self.describe(&mut files)?;
        tokio::task::spawn_blocking(move || files.write()).await??;
        Ok(launch)
    }

    fn describe(&mut self, files: &mut Files) -> Result<Launch, PrepareError> {
        let Contributions { environment, mut binds, aliases, devices, capabilities } =
            std::mem::take(&mut self.contributions);
        let hostname = spec::hostname(&self.run.id);
        let resolvers = self.run.worker.network.as_ref().map(|network| names::resolvers(network.dns()));
        let names = Names {
            hostname: &hostname,
            address: self.taken.network.as_ref().map(TaskNetwork::address),
            aliases: &aliases,
            resolvers: resolvers.as_ref(),
        };
        binds.extend(names.provide(self.run.directory.task(), files));
        let environment = self.environment(&environment, &hostname);
        // What is made of the container for others has these, so that nothing secret may be among them.
        self.features.environment(&env::without_dockers_own(&environment, &self.root.user.home, &hostname));
        let Run { worker, id, directory, .. } = &self.run;
        let network = &self.taken.network;
        let profile = self.taken.profile.as_ref().map(Use::name);
        let limits = self.run.limits();
        let mut request = ContainerRequest {
            id,
            profile: Profile::Task,
            image: &self.root.lease.image().config,
            user: &self.root.user,
            command: &self.payload.command,
            environment,
            binds,
            devices,
            capabilities,
            network: if network.is_some() { NetworkChoice::Prepared } else { NetworkChoice::Loopback },
            limits: &limits,
            ceilings: &worker.host.ceilings,
            processors: worker.host.processors,
            // A profile looks at the family of each socket, however it is asked for.
            socketcall: match profile {
                Some(_) => SocketCall::Allowed,
                None => worker.config.file.socketcall(),
            },
            apparmor: profile,
        };
        self.features.configure(&mut request)?;
        let bundle = Bundle {
            runtime: &worker.host.runtime,
            directory: directory.task(),
            request,
            root: Some(self.root.root.as_fd()),
            network: network.as_ref().map(TaskNetwork::namespace),
            scheduling: worker.host.scheduling.clone(),
            output: None,
        };
        Ok(bundle.prepare(files)?)
    }

    fn environment(&self, features: &[(String, String)], hostname: &str) -> Vec<String> {
        let Run { worker, claim, .. } = &self.run;
        let file = &worker.config.file;
        env::environment(&Sources {
            image: &self.root.lease.image().config.env,
            features,
            payload: &self.payload.env,
            reserved: Some(Reserved {
                task_id: claim.queue.run().task_id.as_str(),
                run_id: claim.queue.run().run_id,
                root_url: file.root_url.as_deref(),
                worker_type: Some(file.worker_type()),
                worker_group: Some(file.worker_group()),
                worker_pool: Some(&file.worker_pool()),
                instance_type: Some(file.worker_node_type()),
                public_ip: file.public_ip.as_deref(),
                worker_location: file.worker_location.as_deref(),
            }),
            home: &self.root.user.home,
            hostname,
        })
    }

    /// Starts the runtime and waits until the command runs.
    async fn launch(
        &mut self,
        launch: Launch,
    ) -> Result<(Container, Created, OwnedFd), (TaskError, Remains)> {
        let mut container = match Container::launch(launch) {
            Ok(container) => container,
            Err(error) => return Err((container_failure(&error), self.not_launched(&error))),
        };
        let mut interrupts = self.run.interrupts.clone();
        let started = tokio::select! {
            biased;
            started = container.started(self.run.worker.host.memory_for_all) => started,
            _ = interrupts.interrupted() => {
                return Err((TaskError::interrupted(), self.let_go(&mut container).await));
            }
        };
        let with_terminal = started.and_then(|mut created| {
            let terminal = created.terminal.take().ok_or(ContainerError::NoTerminal)?;
            Ok((created, terminal))
        });
        match with_terminal {
            Ok((created, terminal)) => Ok((container, created, terminal)),
            Err(error) => Err((container_failure(&error), self.let_go(&mut container).await)),
        }
    }

    /// What may be there of a container that was not under control from its beginning.
    fn not_launched(&mut self, error: &ContainerError) -> Remains {
        match error {
            ContainerError::Launch(_) => Remains::None,
            ContainerError::Watch(_)
            | ContainerError::Failed(_)
            | ContainerError::Lost(_)
            | ContainerError::MemoryForAll(_)
            | ContainerError::Died(_)
            | ContainerError::NoTerminal => self.run.abandon(&EndError::Unwatched),
        }
    }

    async fn let_go(&mut self, container: &mut Container) -> Remains {
        match container.end(self.run.directory.task().runtime_state()).await {
            Ok(()) => Remains::None,
            Err(error) => self.run.abandon(&error),
        }
    }
}

fn not_prepared(error: &PrepareError) -> TaskError {
    let end = match error {
        PrepareError::Bundle(BundleError::Process(ProcessError::NoCommand | ProcessError::EmptyWord)) => {
            End::CommandNotFound
        }
        PrepareError::Bundle(BundleError::Descriptors(_)) => End::StartFailed,
        PrepareError::Bundle(
            BundleError::Process(ProcessError::Rlimit { .. })
            | BundleError::Write { .. }
            | BundleError::Json(_),
        )
        | PrepareError::Panicked(_)
        | PrepareError::Clock(_) => end_by(error, End::WorkerFault),
        PrepareError::Features(error) => return stage_failure(error, End::SetupFailed, "created"),
    };
    start_error(end, &chain(error))
}
fn start_error(end: End, why: &str) -> TaskError {
    TaskError::new(
        end,
        format!("Failure to properly start execution environment. Failed to {}", escaped(why)),
    )
}

fn container_failure(error: &ContainerError) -> TaskError {
    let end = match error {
        ContainerError::Failed(failed) => match failed.kind {
            FailureKind::CommandNotFound => End::CommandNotFound,
            FailureKind::CommandNotExecutable => End::CommandNotExecutable,
            FailureKind::Spec => End::StartFailed,
            FailureKind::Host => End::HostUnfit,
        },
        ContainerError::Died(_) => End::StartFailed,
        ContainerError::Launch(_) | ContainerError::MemoryForAll(_) => End::HostUnfit,
        ContainerError::Lost(_) | ContainerError::Watch(_) | ContainerError::NoTerminal => End::WorkerFault,
    };
    start_error(end, &chain(error))
}
