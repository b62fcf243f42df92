//! What a container is started from: its Spec, the files that tell it who it is, and the descriptors that it gets.

use std::fs::Permissions;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use runtime::launch::Launch;
use runtime::scheduling::Scheduling;

use crate::net::names::{self, Alias, Resolvers};
use crate::run_directory::ContainerDirectory;
use crate::spec::process::ProcessError;
use crate::spec::{self, Bind, BindSource, ContainerRequest};

/// One container that is to be started.
#[derive(Debug)]
pub struct Bundle<'a> {
    /// The executable of the runtime.
    pub runtime: &'a Path,
    /// Where its things lie.
    pub directory: &'a ContainerDirectory,
    /// What it is like.
    pub request: ContainerRequest<'a>,
    /// Its root; `rootfs` in its directory if there is none.
    pub root: Option<BorrowedFd<'a>>,
    /// The network namespace, for [`NetworkChoice::Prepared`](spec::NetworkChoice::Prepared).
    pub network: Option<BorrowedFd<'a>>,
    /// Its processors and its niceness, where they are not to be the worker's.
    pub scheduling: Option<Scheduling>,
    /// Where it prints without a terminal; nowhere if nothing is given.
    pub output: Option<OwnedFd>,
}

/// What a container is to believe about names.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// Its own.
    pub hostname: &'a str,
    /// Its address outside of itself.
    pub address: Option<Ipv4Addr>,
    /// Those on links of its own.
    pub aliases: &'a [Alias],
    /// Whom it asks about others; nobody without a network.
    pub resolvers: Option<&'a Resolvers>,
}

/// Why a bundle could not be written.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// There is nothing to run.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A file of the container's cannot be written.
    #[error("write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The Spec cannot be written as JSON.
    #[error("write the container's config.json")]
    Json(#[from] serde_json::Error),
    /// The descriptors that the container gets.
    #[error("hand over the container's root and network")]
    Descriptors(#[source] io::Error),
}

impl Bundle<'_> {
    /// Writes the Spec. What is returned starts the container.
    ///
    /// # Errors
    ///
    /// [`BundleError`]
    pub fn write(self) -> Result<Launch, BundleError> {
        let Bundle { runtime, directory, request, root, network, scheduling, output } = self;
        let id = request.id.clone();
        let spec = spec::write_spec(request)?;
        let path = directory.bundle().join("config.json");
        let json = serde_json::to_vec(&spec)?;
        std::fs::write(&path, json).map_err(|source| BundleError::Write { path, source })?;
        let duplicate = |fd: Option<BorrowedFd<'_>>| fd.map(|fd| fd.try_clone_to_owned()).transpose();
        Ok(Launch {
            executable: runtime.to_owned(),
            state_root: directory.runtime_state(),
            id,
            bundle: directory.bundle().to_owned(),
            root: duplicate(root).map_err(BundleError::Descriptors)?,
            network: duplicate(network).map_err(BundleError::Descriptors)?,
            log: None,
            output,
            scheduling,
            descriptors: Vec::new(),
        })
    }
}

impl Names<'_> {
    /// Writes the files, for the container to see.
    ///
    /// # Errors
    ///
    /// [`BundleError::Write`]
    pub fn provide(&self, directory: &ContainerDirectory) -> Result<Vec<Bind>, BundleError> {
        let Names { hostname, address, aliases, resolvers } = *self;
        let mut binds = vec![
            provide(directory, "hosts", &names::hosts(hostname, address, aliases))?,
            provide(directory, "hostname", &format!("{hostname}\n"))?,
        ];
        if let Some(resolvers) = resolvers {
            binds.push(provide(directory, "resolv.conf", &resolvers.resolv_conf())?);
        }
        Ok(binds)
    }
}

/// Writes a file of the worker's that the container sees in `/etc`.
fn provide(directory: &ContainerDirectory, name: &str, text: &str) -> Result<Bind, BundleError> {
    let source = directory.file(name);
    // For every user of the container; on the host the directory above keeps it private.
    std::fs::write(&source, text)
        .and_then(|()| std::fs::set_permissions(&source, Permissions::from_mode(0o644)))
        .map_err(|error| BundleError::Write { path: source.clone(), source: error })?;
    Ok(Bind { source, destination: format!("/etc/{name}"), kind: BindSource::WorkerFile })
}
