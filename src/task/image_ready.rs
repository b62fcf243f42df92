//! From a root to a running command: the bundle is written, the runtime started.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use oci_spec::runtime::Spec;
use runtime::launch::{FailureKind, Launch};

use crate::features::{Contributions, StageError};
use crate::net::TaskNetwork;
use crate::net::names::{self, Alias};
use crate::payload::Payload;
use crate::payload::env::{self, Reserved, Sources};
use crate::spec::process::ProcessError;
use crate::spec::{self, Bind, BindSource, ContainerRequest, NetworkChoice};
use crate::task::container::{Container, ContainerError, Created};
use crate::task::error::{TaskError, end_by};
use crate::task::linking::stage_failure;
use crate::task::resolve::End;
use crate::task::resolving::Resolving;
use crate::task::root_file_system::RootFileSystem;
use crate::task::run::Run;
use crate::task::running::Running;
use crate::task::timer::limit_run_time;
use crate::task_log;
use crate::text::chain;
use crate::text::escaped;

/// A run with everything that its container needs.
pub struct ImageReady {
    pub(super) run: Run,
    pub(super) payload: Payload,
    pub(super) root: RootFileSystem,
    pub(super) contributions: Contributions,
}

/// Why the bundle could not be written.
#[derive(Debug, thiserror::Error)]
enum BundleError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("write the container's config.json")]
    Json(#[from] serde_json::Error),
    #[error("set the clock of maxRunTime")]
    Clock(#[source] io::Error),
    #[error(transparent)]
    Features(#[from] StageError),
}

impl ImageReady {
    /// Starts the command.
    ///
    /// # Errors
    ///
    /// The run goes straight to its resolution.
    pub async fn start(mut self) -> Result<Running, Box<Resolving>> {
        // The clock of maxRunTime runs from before the container is made; the pull does not count.
        let limit = self.payload.max_run_time;
        let prepared = self
            .write_bundle()
            .and_then(|()| limit_run_time(limit, self.run.interrupter.clone()).map_err(BundleError::Clock));
        let run_time = match prepared {
            Ok(run_time) => run_time,
            Err(error) => {
                let end = self.run.fail(bundle_failure(&error));
                return Err(Resolving::without_container(self.run, end));
            }
        };
        self.run.log.info(task_log::TASK_STARTING);
        match self.launch().await {
            Ok((container, created)) => {
                let ImageReady { run, root, .. } = self;
                Ok(Running::new(run, root.lease, (container, created), run_time))
            }
            Err(failure) => {
                let end = self.run.fail(failure);
                Err(Resolving::after_failed_start(self.run, end))
            }
        }
    }

    fn write_bundle(&mut self) -> Result<(), BundleError> {
        let spec = self.spec()?;
        let path = self.run.directory.bundle().join("config.json");
        let json = serde_json::to_vec(&spec)?;
        std::fs::write(&path, json).map_err(|source| BundleError::Write { path, source })
    }

    /// The container as payload, image and features want it.
    fn spec(&mut self) -> Result<Spec, BundleError> {
        let Contributions { environment, mut binds, aliases, devices, capabilities } =
            std::mem::take(&mut self.contributions);
        let hostname = spec::hostname(&self.run.id);
        binds.extend(self.provide_files(&hostname, &aliases)?);
        let environment = self.environment(&environment, &hostname);
        let Run { worker, id, network, features, .. } = &mut self.run;
        let mut request = ContainerRequest {
            id,
            image: &self.root.lease.image().config,
            user: &self.root.user,
            command: &self.payload.command,
            environment,
            binds,
            devices,
            capabilities,
            network: if network.is_some() { NetworkChoice::Prepared } else { NetworkChoice::Loopback },
            limits: &worker.host.limits,
            ceilings: &worker.host.ceilings,
            processors: worker.host.processors,
            socketcall: worker.config.file.socketcall(),
        };
        features.configure(&mut request)?;
        Ok(spec::write_spec(request)?)
    }

    fn environment(&self, features: &[(String, String)], hostname: &str) -> Vec<String> {
        let Run { worker, claim, .. } = &self.run;
        let file = &worker.config.file;
        env::environment(&Sources {
            image: &self.root.lease.image().config.env,
            features,
            payload: &self.payload.env,
            reserved: Reserved {
                task_id: claim.queue.run().task_id.as_str(),
                run_id: claim.queue.run().run_id,
                root_url: file.root_url.as_deref(),
                worker_type: Some(file.worker_type()),
                worker_group: Some(file.worker_group()),
                worker_pool: Some(&file.worker_pool()),
                instance_type: Some(file.worker_node_type()),
                public_ip: file.public_ip.as_deref(),
                worker_location: file.worker_location.as_deref(),
            },
            home: &self.root.user.home,
            hostname,
        })
    }

    /// The files that tell a container who it is and whom to ask.
    fn provide_files(&self, hostname: &str, aliases: &[Alias]) -> Result<Vec<Bind>, BundleError> {
        let address = self.run.network.as_ref().map(TaskNetwork::address);
        let mut binds = vec![
            self.provide("/etc/hosts", "hosts", &names::hosts(hostname, address, aliases))?,
            self.provide("/etc/hostname", "hostname", &format!("{hostname}\n"))?,
        ];
        // One without a network has nobody to ask.
        if let Some(network) = self.run.worker.network.as_ref() {
            let resolvers = names::resolvers(network.dns());
            binds.push(self.provide("/etc/resolv.conf", "resolv.conf", &resolvers.resolv_conf())?);
        }
        Ok(binds)
    }

    /// Writes a file of the worker's, for the container to see.
    fn provide(&self, destination: &str, name: &str, text: &str) -> Result<Bind, BundleError> {
        let source = self.run.directory.file(name);
        // For every user of the container; on the host the directory above keeps it private.
        std::fs::write(&source, text)
            .and_then(|()| std::fs::set_permissions(&source, Permissions::from_mode(0o644)))
            .map_err(|error| BundleError::Write { path: source.clone(), source: error })?;
        Ok(Bind { source, destination: destination.to_owned(), kind: BindSource::WorkerFile })
    }

    /// Starts the runtime and waits until the command runs.
    async fn launch(&mut self) -> Result<(Container, Created), TaskError> {
        let root = self.root.root.try_clone().map_err(|error| start_failure(&error.to_string()))?;
        let namespace = self.run.network.as_ref().map(|network| network.namespace().try_clone_to_owned());
        let namespace = namespace.transpose().map_err(|error| start_failure(&error.to_string()))?;
        let launch = Launch {
            executable: self.run.worker.host.runtime.clone(),
            state_root: self.run.directory.runtime_state(),
            id: self.run.id.clone(),
            bundle: self.run.directory.bundle(),
            root: Some(root),
            network: namespace,
            log: None,
            descriptors: Vec::new(),
        };
        let mut container = Container::launch(launch).map_err(|error| container_failure(&error))?;
        let mut interrupts = self.run.interrupts.clone();
        let started = tokio::select! {
            biased;
            started = container.started(self.run.worker.host.memory_for_all) => started,
            _ = interrupts.interrupted() => {
                self.let_go(&mut container).await;
                return Err(TaskError::interrupted());
            }
        };
        match started {
            Ok(created) => Ok((container, created)),
            Err(error) => {
                self.let_go(&mut container).await;
                Err(container_failure(&error))
            }
        }
    }

    async fn let_go(&mut self, container: &mut Container) {
        if let Err(error) = container.end(self.run.directory.runtime_state()).await {
            self.run.abandon(&error);
        }
    }
}

fn bundle_failure(error: &BundleError) -> TaskError {
    let end = match error {
        BundleError::Process(ProcessError::NoCommand | ProcessError::EmptyWord) => End::CommandNotFound,
        BundleError::Process(ProcessError::Rlimit { .. })
        | BundleError::Write { .. }
        | BundleError::Json(_)
        | BundleError::Clock(_) => end_by(error, End::WorkerFault),
        BundleError::Features(error) => return stage_failure(error, End::SetupFailed, "created"),
    };
    start_error(end, &chain(error))
}

fn start_failure(why: &str) -> TaskError {
    start_error(End::StartFailed, why)
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
