//! `artifacts`: the files, directories and volumes that the payload names.
//!
//! Read when no process of the task is left, so nothing changes under the reader. Where the command did not come to an
//! end of its own (a timeout, a worker's shutdown, a disk that is full) only volumes are published, after a cancellation
//! nothing is.

mod item;
mod listings;

use std::collections::BTreeMap;
use std::future::ready;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};

use self::item::{Closer, Item, NotStored, Sharing};
use super::{Contributions, Feature, FeatureRow, Hook, Link, RunContext, Stopped, Wishes};
use crate::interrupt::Interrupt;
use crate::known_features::ARTIFACTS;
use crate::payload::{ArtifactEntry, ArtifactSource};
use crate::queue::artifact_name::ArtifactName;
use crate::root::{ContainerRoot, Found};
use crate::spec::{Bind, BindSource};

/// Its row of the table.
pub(super) const ROW: FeatureRow = FeatureRow { feature: &ARTIFACTS, start };

struct Artifacts {
    entries: BTreeMap<ArtifactName, ArtifactEntry>,
    /// The host's directory behind each volume.
    volumes: BTreeMap<ArtifactName, PathBuf>,
}

/// Why not all artifacts are where they should be.
#[derive(Debug, thiserror::Error)]
enum ArtifactsError {
    /// The directory that becomes a volume.
    #[error("Could not make a volume for an artifact: {0}")]
    Volume(#[source] io::Error),
    /// The log has a line for each of them.
    #[error("Encountered error when uploading artifact(s)")]
    NotStored,
}

fn start(wishes: &Wishes<'_>) -> Box<dyn Feature> {
    let entries = wishes.payload.map(|payload| payload.artifacts.clone()).unwrap_or_default();
    Box::new(Artifacts { entries, volumes: BTreeMap::new() })
}

impl Feature for Artifacts {
    fn link<'a>(&'a mut self, run: &'a RunContext, link: &'a mut Link<'_>) -> Hook<'a> {
        Box::pin(async {
            let made = self.make_volumes(&run.data, link.contributions).await;
            Ok(made.map_err(ArtifactsError::Volume)?)
        })
    }

    fn stopped<'a>(&'a mut self, _run: &'a RunContext, stopped: &'a mut Stopped<'_>) -> Hook<'a> {
        Box::pin(async { Ok(self.publish(stopped).await?) })
    }
}

impl Artifacts {
    async fn make_volumes(&mut self, data: &Path, contributions: &mut Contributions) -> io::Result<()> {
        for (number, (name, entry)) in self.entries.iter().enumerate() {
            let ArtifactSource::Volume(mount_point) = &entry.source else { continue };
            let directory = data.join("volumes").join(number.to_string());
            contributions.binds.push(Bind {
                source: directory.clone(),
                destination: mount_point.as_str().to_owned(),
                kind: BindSource::Volume,
            });
            self.volumes.insert(name.clone(), directory);
        }
        let directories: Vec<PathBuf> = self.volumes.values().cloned().collect();
        let making = move || directories.iter().try_for_each(|directory| make_volume(directory));
        tokio::task::spawn_blocking(making).await.map_err(io::Error::other).flatten()
    }

    /// Publishes all entries, several at a time; one that cannot be stored does not keep the others from it.
    async fn publish(&self, stopped: &Stopped<'_>) -> Result<(), ArtifactsError> {
        let sharing = Sharing::of(stopped.publisher);
        let published = stream::iter(&self.entries)
            .map(|(name, entry)| self.publish_entry((name, entry), &sharing, stopped))
            .buffer_unordered(stopped.publisher.at_once())
            .fold(Ok(()), |all, one| ready(all.and(one)));
        published.await.map_err(|NotStored| ArtifactsError::NotStored)
    }

    async fn publish_entry(
        &self,
        (name, entry): (&ArtifactName, &ArtifactEntry),
        sharing: &Sharing,
        stopped: &Stopped<'_>,
    ) -> Result<(), NotStored> {
        // Looked at each time: an interrupt may have come meanwhile.
        if !is_wanted(&entry.source, stopped.command_ended, stopped.publisher.interrupt()) {
            return Ok(());
        }
        sharing.check()?;
        let item = Item {
            name,
            declared: entry.source.kind(),
            path: entry.source.path(),
            closer: self.closer(name),
            expires: entry.expires.unwrap_or(stopped.publisher.task_expires()),
            sharing,
        };
        let (volume, root) = (self.volumes.get(name).cloned(), Arc::clone(&stopped.root));
        let path = item.path.to_owned();
        let find = move || match volume {
            Some(directory) => find_volume(&directory),
            None => root.find(&path),
        };
        item.publish(find, stopped).await
    }

    fn closer(&self, name: &ArtifactName) -> Vec<Closer<'_>> {
        let below = self.entries.iter().filter(|(other, _)| other.is_below(name));
        below.map(|(name, entry)| Closer { name, source: &entry.source }).collect()
    }
}

/// O19: what is published depends on how the task ended.
fn is_wanted(source: &ArtifactSource, command_ended: bool, interrupt: Option<Interrupt>) -> bool {
    match (interrupt, command_ended) {
        (None, true) => true,
        (None | Some(Interrupt::MaxRunTime | Interrupt::Shutdown), _) => {
            matches!(source, ArtifactSource::Volume(_))
        }
        (
            Some(
                Interrupt::Cancelled
                | Interrupt::CancelledHere
                | Interrupt::Deadline
                | Interrupt::LostClaim
                | Interrupt::RefusedClaim,
            ),
            _,
        ) => false,
    }
}

/// Blocks.
fn make_volume(directory: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).recursive(true).create(directory)?;
    // As docker makes a volume: everybody may look in, root alone may write.
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755))
}

/// A volume is read on its own: links in it lead nowhere else. Blocks.
fn find_volume(directory: &Path) -> io::Result<Found> {
    let flags = rustix::fs::OFlags::PATH
        | rustix::fs::OFlags::DIRECTORY
        | rustix::fs::OFlags::NOFOLLOW
        | rustix::fs::OFlags::CLOEXEC;
    let handle = rustix::fs::open(directory, flags, rustix::fs::Mode::empty())?;
    ContainerRoot::new(handle).find("/")
}

#[cfg(test)]
mod tests;
