//! `artifacts`: the files, directories and volumes that the payload names.
//!
//! Read when no process of the task is left, so nothing changes under the reader. What is missing or
//! of the wrong type or too large becomes an artifact that says so and does not fail the task; what
//! cannot be stored does. Where the command did not come to an end of its own (a timeout, a worker's
//! shutdown, a disk that is full) only volumes are published, after a cancellation nothing is.

use std::collections::BTreeMap;
use std::future::ready;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use rustix::io::Errno;

use super::{Contributions, Feature, FeatureRow, Hook, Link, RunContext, Stopped, Wishes};
use crate::artifact::content::{content_encoding, content_type};
use crate::artifact::{Description, Missing, PublishError, Source};
use crate::interrupt::Interrupt;
use crate::known_features::ARTIFACTS;
use crate::payload::{ArtifactEntry, ArtifactSource};
use crate::queue::ErrorReason;
use crate::queue::artifact_name::ArtifactName;
use crate::root::{ContainerRoot, Found, Kind, WalkBounds, WalkError, walk};
use crate::spec::{Bind, BindSource};
use crate::text::escaped;
use crate::timestamp::Timestamp;

/// How far directories are looked through.
const BOUNDS: WalkBounds = WalkBounds { depth: 64, files: 100_000 };

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
            Ok(self.make_volumes(&run.data, link.contributions).map_err(ArtifactsError::Volume)?)
        })
    }

    fn stopped<'a>(&'a mut self, _run: &'a RunContext, stopped: &'a mut Stopped<'_>) -> Hook<'a> {
        Box::pin(async { Ok(self.publish(stopped).await?) })
    }
}

impl Artifacts {
    fn make_volumes(&mut self, data: &Path, contributions: &mut Contributions) -> io::Result<()> {
        for (number, (name, entry)) in self.entries.iter().enumerate() {
            let ArtifactSource::Volume(mount_point) = &entry.source else { continue };
            let directory = data.join("volumes").join(number.to_string());
            make_volume(&directory)?;
            contributions.binds.push(Bind {
                source: directory.clone(),
                destination: mount_point.as_str().to_owned(),
                kind: BindSource::Volume,
            });
            self.volumes.insert(name.clone(), directory);
        }
        Ok(())
    }

    /// Publishes all entries, several at a time; one that cannot be stored does not keep the others from it.
    async fn publish(&self, stopped: &Stopped<'_>) -> Result<(), ArtifactsError> {
        let published = stream::iter(&self.entries)
            .map(|(name, entry)| self.publish_entry(name, entry, stopped))
            .buffer_unordered(stopped.publisher.at_once())
            .fold(Ok(()), |all, one| ready(all.and(one)));
        published.await.map_err(|NotStored| ArtifactsError::NotStored)
    }

    async fn publish_entry(
        &self,
        name: &ArtifactName,
        entry: &ArtifactEntry,
        stopped: &Stopped<'_>,
    ) -> Result<(), NotStored> {
        // Looked at each time: an interrupt may have come meanwhile.
        if !is_wanted(&entry.source, stopped.command_ended, stopped.publisher.interrupt()) {
            return Ok(());
        }
        let item = Item {
            name,
            declared: entry.source.kind(),
            path: entry.source.path(),
            closer: self.closer(name),
            expires: entry.expires.unwrap_or(stopped.publisher.task_expires()),
        };
        let found = match self.volumes.get(name) {
            Some(directory) => find_volume(directory),
            None => stopped.root.find(item.path),
        };
        item.publish(found, stopped).await
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
                Interrupt::Cancelled | Interrupt::CancelledHere | Interrupt::Deadline | Interrupt::LostClaim,
            ),
            _,
        ) => false,
    }
}

fn make_volume(directory: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).recursive(true).create(directory)?;
    // As docker makes a volume: everybody may look in, root alone may write.
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755))
}

/// A volume is read on its own: links in it lead nowhere else.
fn find_volume(directory: &Path) -> io::Result<Found> {
    let flags = rustix::fs::OFlags::PATH
        | rustix::fs::OFlags::DIRECTORY
        | rustix::fs::OFlags::NOFOLLOW
        | rustix::fs::OFlags::CLOEXEC;
    let handle = rustix::fs::open(directory, flags, rustix::fs::Mode::empty())?;
    ContainerRoot::new(handle).find("/")
}

/// The artifact could not be stored; the log says why.
struct NotStored;

/// One entry of the payload.
struct Item<'a> {
    name: &'a ArtifactName,
    declared: &'static str,
    path: &'a str,
    /// The entries of the payload whose names lie below this one's.
    closer: Vec<Closer<'a>>,
    expires: Timestamp,
}

/// An entry whose name lies below that of another: whichever is stored first, the names that it gives are its own.
struct Closer<'a> {
    name: &'a ArtifactName,
    source: &'a ArtifactSource,
}

impl Closer<'_> {
    /// Whether it gives this name.
    fn covers(&self, name: &ArtifactName) -> bool {
        match self.source {
            ArtifactSource::File(_) => name == self.name,
            ArtifactSource::Directory(_) | ArtifactSource::Volume(_) => {
                name == self.name || name.is_below(self.name)
            }
        }
    }
}

impl Item<'_> {
    async fn publish(&self, found: io::Result<Found>, stopped: &Stopped<'_>) -> Result<(), NotStored> {
        let found = match found {
            Ok(found) => found,
            Err(error) if is_absence(&error) => return self.missing(&error, stopped).await,
            Err(error) => return Err(self.not_stored(self.name, &error.to_string(), stopped)),
        };
        match (self.declared, found.kind()) {
            ("file", Kind::File) => self.file(self.name, self.path, &found, stopped).await,
            ("directory" | "volume", Kind::Directory) => self.directory(found, stopped).await,
            (_, actual) => self.mismatch(actual, stopped).await,
        }
    }

    /// Stores one regular file as `name`; `path` decides on its type.
    async fn file(
        &self,
        name: &ArtifactName,
        path: &str,
        found: &Found,
        stopped: &Stopped<'_>,
    ) -> Result<(), NotStored> {
        let description = Description {
            name: name.clone(),
            content_type: content_type(path),
            content_encoding: content_encoding(path, stopped.publisher.config()),
            expires: self.expires,
        };
        let most = stopped.publisher.config().artifact_bytes();
        if found.bytes() > most {
            let text = format!(
                "Error uploading \"{name}\". It is {} bytes long, and an artifact may be {most} (artifacts.maxBytes).",
                found.bytes()
            );
            stopped.log.error(&text);
            return self
                .error(name, Missing { reason: ErrorReason::TooLargeFileOnWorker, message: &text }, stopped)
                .await;
        }
        let file = match found.open_file() {
            Ok(file) => file,
            Err(error) => return Err(self.not_stored(name, &error.to_string(), stopped)),
        };
        match stopped.publisher.publish(description, Source::Task(file)).await {
            Ok(()) => Ok(()),
            Err(error) => self.not_published(name, error, stopped),
        }
    }

    /// Stores every regular file below a directory.
    async fn directory(&self, found: Found, stopped: &Stopped<'_>) -> Result<(), NotStored> {
        let top = Arc::new(found);
        let walked = {
            let top = Arc::clone(&top);
            tokio::task::spawn_blocking(move || walk(&top, BOUNDS)).await
        };
        let (files, unnamable) = match walked {
            Ok(Ok(listed)) => listed,
            Ok(Err(error @ (WalkError::TooDeep { .. } | WalkError::TooMany { .. }))) => {
                return self.too_large(&error, stopped).await;
            }
            Ok(Err(error)) => return Err(self.not_stored(self.name, &error.to_string(), stopped)),
            Err(error) => return Err(self.not_stored(self.name, &error.to_string(), stopped)),
        };
        for name in unnamable {
            let text = format!(
                "Error uploading \"{}/{}\". Its name is not UTF-8; rename it.",
                self.name,
                escaped(&name)
            );
            stopped.log.error(&text);
        }
        let interrupt = stopped.publisher.interrupt();
        let top = &top;
        let publish = |below: String| async move {
            // The rest is not tried when one was interrupted.
            if stopped.publisher.interrupt() != interrupt {
                return Err(NotStored);
            }
            self.member(top, &below, stopped).await
        };
        let published = stream::iter(files).map(publish).buffer_unordered(stopped.publisher.at_once());
        published.fold(Ok(()), |all, one| ready(all.and(one))).await
    }

    async fn member(&self, top: &Found, below: &str, stopped: &Stopped<'_>) -> Result<(), NotStored> {
        let name = match self.name.join(below) {
            Ok(name) => name,
            Err(error) => {
                let text = format!(
                    "Error uploading \"{}/{}\". An artifact's name must {error}; rename the file.",
                    self.name,
                    escaped(below)
                );
                stopped.log.error(&text);
                return Ok(());
            }
        };
        if let Some(other) = self.closer.iter().find(|other| other.covers(&name)) {
            self.leave_out(&name, &format!("the artifact \"{}\" of the payload", other.name), stopped);
            return Ok(());
        }
        match top.find_below(below) {
            Ok(found) => self.file(&name, below, &found, stopped).await,
            Err(error) => Err(self.not_stored(&name, &error.to_string(), stopped)),
        }
    }

    fn leave_out(&self, name: &ArtifactName, owner: &str, stopped: &Stopped<'_>) {
        let text = format!(
            "Error uploading \"{name}\". That is the name of {owner}; the file is left out, rename it."
        );
        stopped.log.error(&text);
    }

    async fn missing(&self, error: &io::Error, stopped: &Stopped<'_>) -> Result<(), NotStored> {
        let text = format!(
            "Artifact \"{}\" not found at \"{}\": {}",
            self.name,
            escaped(self.path),
            absence(error).unwrap_or("not there")
        );
        stopped.log.info(&text);
        self.error(self.name, Missing { reason: ErrorReason::FileMissingOnWorker, message: &text }, stopped)
            .await
    }

    async fn mismatch(&self, actual: Kind, stopped: &Stopped<'_>) -> Result<(), NotStored> {
        let text = format!(
            "Error uploading \"{}\". Expected artifact to be a \"{}\" but was \"{}\"",
            self.name,
            self.declared,
            actual.word()
        );
        stopped.log.error(&text);
        self.error(
            self.name,
            Missing { reason: ErrorReason::InvalidResourceOnWorker, message: &text },
            stopped,
        )
        .await
    }

    async fn too_large(&self, error: &WalkError, stopped: &Stopped<'_>) -> Result<(), NotStored> {
        let text = format!("Error uploading \"{}\". Failed to {error}", self.name);
        stopped.log.error(&text);
        self.error(self.name, Missing { reason: ErrorReason::TooLargeFileOnWorker, message: &text }, stopped)
            .await
    }

    /// Publishes why there is no artifact, which does not fail the task.
    async fn error(
        &self,
        name: &ArtifactName,
        missing: Missing<'_>,
        stopped: &Stopped<'_>,
    ) -> Result<(), NotStored> {
        match stopped.publisher.publish_error(name, missing, self.expires).await {
            Ok(()) => Ok(()),
            Err(error) => self.not_published(name, error, stopped),
        }
    }

    fn not_published(
        &self,
        name: &ArtifactName,
        error: PublishError,
        stopped: &Stopped<'_>,
    ) -> Result<(), NotStored> {
        match error {
            PublishError::Reserved { owner } => {
                self.leave_out(name, &format!("this task's {owner}"), stopped);
                Ok(())
            }
            // The footer says that the task was interrupted; no line about each artifact.
            PublishError::Interrupted => Err(NotStored),
            PublishError::Store(_)
            | PublishError::Queue(_)
            | PublishError::Upload(_)
            | PublishError::Nowhere => Err(self.not_stored(name, &format!("Failed to {error}"), stopped)),
        }
    }

    fn not_stored(&self, name: &ArtifactName, why: &str, stopped: &Stopped<'_>) -> NotStored {
        stopped.log.error(&format!("Error uploading \"{name}\" artifact. {why}"));
        NotStored
    }
}

/// Whether an error of a lookup means that nothing is there, rather than that looking failed.
fn is_absence(error: &io::Error) -> bool {
    absence(error).is_some()
}

fn absence(error: &io::Error) -> Option<&'static str> {
    match Errno::from_io_error(error)? {
        Errno::NOENT => Some("no such file or directory"),
        Errno::NOTDIR => Some("a component of the path is no directory"),
        Errno::LOOP => Some("too many levels of symbolic links"),
        Errno::NAMETOOLONG => Some("a component of the path is too long"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
