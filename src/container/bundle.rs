//! What a container is started from: its Spec, the files that tell it who it is, and the descriptors that it gets.

use std::fs::Permissions;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use runtime::launch::{Launch, Until};
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

/// The worker's files for a container, as they are to be written. The disk may take its time for that, so it is for a
/// thread that may wait.
#[derive(Debug, Default)]
pub struct Files(Vec<NewFile>);

#[derive(Debug)]
struct NewFile {
    path: PathBuf,
    content: Vec<u8>,
    mode: u32,
}

impl Files {
    /// Writes them. Blocks.
    ///
    /// # Errors
    ///
    /// [`BundleError::Write`]
    pub fn write(self) -> Result<(), BundleError> {
        for NewFile { path, content, mode } in self.0 {
            std::fs::write(&path, content)
                .and_then(|()| std::fs::set_permissions(&path, Permissions::from_mode(mode)))
                .map_err(|source| BundleError::Write { path, source })?;
        }
        Ok(())
    }
}

impl Bundle<'_> {
    /// What starts the container once `files`, to which its Spec is added, are written.
    ///
    /// # Errors
    ///
    /// [`BundleError`]
    pub fn prepare(self, files: &mut Files) -> Result<Launch, BundleError> {
        let Bundle { runtime, directory, request, root, network, scheduling, output } = self;
        let id = request.id.clone();
        let spec = spec::write_spec(request)?;
        let (path, content) = (directory.bundle().join("config.json"), serde_json::to_vec(&spec)?);
        files.0.push(NewFile { path, content, mode: 0o600 });
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
            until: Until::CommandEnds,
        })
    }
}

impl Names<'_> {
    /// The files that say so, added to `files`, as the container sees them in `/etc`.
    pub fn provide(&self, directory: &ContainerDirectory, files: &mut Files) -> Vec<Bind> {
        let Names { hostname, address, aliases, resolvers } = *self;
        let hosts = names::hosts(hostname, address, aliases);
        let texts = [("hosts", Some(hosts)), ("hostname", Some(format!("{hostname}\n")))];
        let resolv_conf = ("resolv.conf", resolvers.map(Resolvers::resolv_conf));
        let mut binds = Vec::new();
        for (name, text) in texts.into_iter().chain([resolv_conf]) {
            let Some(text) = text else { continue };
            let source = directory.file(name);
            // For every user of the container; on the host the directory above keeps it private.
            files.0.push(NewFile { path: source.clone(), content: text.into_bytes(), mode: 0o644 });
            binds.push(Bind { source, destination: format!("/etc/{name}"), kind: BindSource::WorkerFile });
        }
        binds
    }
}
