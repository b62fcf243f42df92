//! The root that a container of an image gets: the image below, an upper directory of its own above.
//!
//! Both are mounted in the worker's own mount namespace, below the run's directory: nothing of it
//! can be seen on the host, and the kernel undoes it when the worker dies.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use images::image::Image;
use images::limits::Limits;
use images::mount::{ImageMount, MountError, mount_overlay, open_upper};
use images::store::{Lease, Store, StoreError};
use rustix::fs::{Mode, OFlags};
use tokio::task::JoinError;

use crate::root::ContainerRoot;
use crate::spec::process::working_directory;
use crate::spec::user::{ResolvedUser, UserError, resolve_user};

/// Where an overlay's own directories lie, and where it is mounted.
const UPPER: &str = "upper";
const MERGED: &str = "root";

/// A mounted root and who runs in it.
#[derive(Debug)]
pub struct RootFileSystem {
    /// The merged root directory.
    pub root: OwnedFd,
    /// The image's user, by the image's own files.
    pub user: ResolvedUser,
    /// Keeps the image in the store.
    pub lease: Lease,
}

/// Why there is no root.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The store cannot give or mount the image.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The overlay cannot be mounted.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The image's user cannot be resolved.
    #[error(transparent)]
    User(#[from] UserError),
    /// The thread that was to mount it panicked.
    #[error("mount the image")]
    Panicked(#[from] JoinError),
    /// The image's passwd or group file cannot be read.
    #[error("read {path} of the image: {source}")]
    Accounts {
        /// Which one.
        path: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A directory that the container needs cannot be made.
    #[error("make the directory {path:?}: {source}")]
    Directory {
        /// Which one.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What the task has written in its root, and the whole of it, from the run's directory that [`make`] was given. Both go with
/// the run.
#[derive(Debug)]
pub struct Changed {
    /// The overlay's upper directory.
    pub upper: OwnedFd,
    /// The overlay.
    pub merged: OwnedFd,
}

/// Opens them.
///
/// # Errors
///
/// The kernel's.
pub fn changed(data: &Path) -> io::Result<Changed> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let merged = rustix::fs::open(data.join(MERGED), flags, Mode::empty())?;
    Ok(Changed { upper: open_upper(&data.join(UPPER))?, merged })
}

/// Mounts the image and an overlay for one run, and makes the directories that the image names. What is mounted comes
/// beside it, in order, also when there is no root. Nobody is waited for any more when it is not `wanted`.
///
/// # Errors
///
/// [`RootError::Panicked`]
pub async fn make(
    store: Store,
    data: PathBuf,
    lease: Lease,
    wanted: impl Fn() -> bool + Send + 'static,
) -> Result<(Result<RootFileSystem, RootError>, Vec<PathBuf>), RootError> {
    let mounting = tokio::task::spawn_blocking(move || {
        let mut mounts = Vec::new();
        let made = mount(&store, &data, (lease, &wanted), &mut mounts);
        (made, mounts)
    });
    Ok(mounting.await?)
}

fn mount(
    store: &Store,
    data: &Path,
    (lease, wanted): (Lease, &dyn Fn() -> bool),
    mounts: &mut Vec<PathBuf>,
) -> Result<RootFileSystem, RootError> {
    let image = lease.image();
    let [lower, upper, merged] = directories(data)?;
    let mount = store.mount(&lease, &lower, wanted)?;
    mounts.push(lower);
    let user = find_user(&mount, image)?;
    let root = mount_overlay(&mount, &upper, &merged)?;
    mounts.push(merged);
    make_inside(&root, image)?;
    Ok(RootFileSystem { root, user, lease })
}

fn find_user(mount: &ImageMount, image: &Image) -> Result<ResolvedUser, RootError> {
    let limit = Limits::default().account_file_bytes;
    let read = |path| {
        let content = mount.read_file(path, limit).map(Option::unwrap_or_default);
        content.map_err(|source| RootError::Accounts { path, source })
    };
    Ok(resolve_user(&image.config.user, &read("etc/passwd")?, &read("etc/group")?)?)
}

fn directories(data: &Path) -> Result<[PathBuf; 3], RootError> {
    let paths = ["image", UPPER, MERGED].map(|name| data.join(name));
    for path in &paths {
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(path)
            .map_err(|source| RootError::Directory { path: path.display().to_string(), source })?;
    }
    Ok(paths)
}

/// The working directory and the volumes that the image names, as far as they are missing.
fn make_inside(root: &OwnedFd, image: &Image) -> Result<(), RootError> {
    let failed = |path: &str, source| RootError::Directory { path: path.to_owned(), source };
    let handle = root.try_clone().map_err(|source| failed("/", source))?;
    let root = ContainerRoot::new(handle);
    let working = working_directory(&image.config.working_dir);
    for path in image.config.volumes.iter().chain([&working]) {
        root.make_directories(path).map_err(|source| failed(path, source))?;
    }
    Ok(())
}
