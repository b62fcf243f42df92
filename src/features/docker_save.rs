//! `dockerSave`: what the command has left, as an image for `docker load`, and the caches that it saw.
//!
//! ```text
//!   image ──► its layers as they came ─┐
//!   upper directory ──► one layer more ┴─► public/dockerImage.tar     by two names
//!   each cache ──────────────────────────► public/cache/NAME.tar
//! ```
//!
//! Made when no process of the task is left, and only where its command came to an end of its own. What was mounted there is
//! not in the image: volumes, the worker's own files, and the caches, which have archives of their own.
//!
//! Everything in both is the task's, and none of it is opened by a name that leads anywhere else: see
//! [`upper`](images::save::upper).

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use images::limits::Limits;
use images::reference::{Reference, ReferenceError};
use images::save::upper::{LeftOut, Trees, WrittenLayer, write_directory, write_layer};
use images::save::{History, Layers, SaveError, SavedImage, WriteLayer, write_archive};
use images::store::{Cancel, PullOptions};
use rustix::fs::{Mode, OFlags};
use serde_json::{Map, Value, json};
use tokio::task::{JoinError, spawn_blocking};

use super::{Feature, FeatureRow, Hook, Ingredients, RunContext, Stopped, Wishes};
use crate::artifact::{ContentEncoding, Description, PublishError};
use crate::cache::CacheLease;
use crate::known_features::{DOCKER_SAVE, SAVED_IMAGE, cache_artifact};
use crate::queue::RunId;
use crate::queue::artifact_name::{ArtifactName, ArtifactNameError};
use crate::root_file_system::{self, Changed};
use crate::text::{chain, escaped};
use crate::timestamp::Timestamp;

/// Its row of the table.
pub(super) const ROW: FeatureRow = FeatureRow { feature: &DOCKER_SAVE, start };

/// The MIME type of both kinds.
const TAR: &str = "application/x-tar";

/// The tag of the image.
const TAG: &str = "latest";

#[derive(Default)]
struct DockerSave {
    command: Vec<String>,
    /// `NAME=value`.
    environment: Vec<String>,
}

/// Why something is not saved; fits "failed to …".
#[derive(Debug, thiserror::Error)]
enum SavingError {
    /// The task's id makes no name.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The cache's name makes none.
    #[error("name it: the name of an artifact must {0}")]
    Name(#[from] ArtifactNameError),
    /// Its directory.
    #[error("open what is to be saved")]
    Open(#[source] io::Error),
    /// The image it came from, or what has become of it.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The thread that was to make it.
    #[error("make it")]
    Panicked(#[from] JoinError),
    /// The way out.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// All that is not saved, each with its sentence.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join(" "))]
struct NotSaved(Vec<String>);

fn start(wishes: &Wishes<'_>) -> Box<dyn Feature> {
    let command = wishes.payload.map(|payload| payload.command.clone()).unwrap_or_default();
    Box::new(DockerSave { command, environment: Vec::new() })
}

impl Feature for DockerSave {
    fn environment(&mut self, disclosed: &[String]) {
        self.environment = disclosed.to_vec();
    }

    fn stopped<'a>(&'a mut self, run: &'a RunContext, stopped: &'a mut Stopped<'_>) -> Hook<'a> {
        Box::pin(async {
            if !stopped.command_ended || stopped.publisher.interrupt().is_some() {
                return Ok(());
            }
            Ok(self.save(run, stopped).await?)
        })
    }
}

impl DockerSave {
    /// Saves all of it, one after the other: each takes all processors. One that fails keeps no other from it.
    async fn save(&self, run: &RunContext, stopped: &Stopped<'_>) -> Result<(), NotSaved> {
        let patience = stopped.publisher.patience();
        let unknown = || NotSaved(vec!["What its root was made of is not known.".to_owned()]);
        let saving = Saving::of(run, stopped, stopped.ingredients.ok_or_else(unknown)?);
        let all = async {
            let mut failures = Vec::new();
            if let Err(error) = saving.save_image(self).await {
                let why = escaped(&chain(&error)).to_string();
                failures.push(format!("The container could not be saved as an image: Failed to {why}."));
            }
            for cache in saving.ingredients.caches {
                if let Err(error) = saving.save_cache(cache).await {
                    let (name, why) = (escaped(cache.name()), chain(&error));
                    let why = escaped(&why);
                    failures.push(format!("cache could not be uploaded: \"{name}\": Failed to {why}."));
                }
            }
            if failures.is_empty() { Ok(()) } else { Err(NotSaved(failures)) }
        };
        tokio::pin!(all);
        tokio::select! {
            biased;
            saved = &mut all => saved,
            () = patience.over() => {
                // Whatever reads ends soon, and says so.
                saving.cancel.cancel();
                all.await
            }
        }
    }
}

/// The work on one run's container.
struct Saving<'a> {
    run: &'a RunContext,
    stopped: &'a Stopped<'a>,
    ingredients: Ingredients<'a>,
    expires: Timestamp,
    cancel: Cancel,
}

impl Drop for Saving<'_> {
    fn drop(&mut self) {
        // A hook may be dropped where it waits: the threads that it waits for are to end as well.
        self.cancel.cancel();
    }
}

impl<'a> Saving<'a> {
    fn of(run: &'a RunContext, stopped: &'a Stopped<'a>, ingredients: Ingredients<'a>) -> Saving<'a> {
        let expires = Timestamp::now().plus(run.config.saved_expiration());
        let expires = expires.min(stopped.publisher.task_expires());
        Saving { run, stopped, ingredients, expires, cancel: Cancel::default() }
    }

    fn limits(&self) -> &Limits {
        &self.ingredients.pulling.limits
    }

    fn describe(&self, name: &str) -> Result<Description, SavingError> {
        let name = ArtifactName::new(name)?;
        let (content_encoding, expires) = (ContentEncoding::Gzip, self.expires);
        Ok(Description { name, content_type: TAR, content_encoding, expires })
    }

    async fn save_image(&self, container: &DockerSave) -> Result<(), SavingError> {
        let began = Instant::now();
        let Ingredients { data, store, lease, pulling, .. } = self.ingredients;
        let names = names(&self.run.run)?;
        let shown = names.first().map(Reference::familiar).unwrap_or_default();
        let options = PullOptions { cancel: self.cancel.clone(), ..pulling.clone() };
        let wanted = (names, Layers::Common);
        let image = store.prepare_save(lease, wanted, &options, &|_| {}).await?;
        let data = data.to_owned();
        let changed = spawn_blocking(move || root_file_system::changed(&data)).await?;
        let noted = Noted::default();
        let layer = self.layer(changed.map_err(SavingError::Open)?, &noted);
        let image = self.with_layer(image, layer, container).await?;
        let (store, cancel) = (store.clone(), self.cancel.clone());
        let write = move |out: &mut dyn Write| {
            let written = write_archive(&[image], out, cancel.flag());
            if let Err(error) = &written {
                // Should this fail too, what failed first says more.
                drop(store.drop_damaged(error, &cancel));
            }
            Ok(written?)
        };
        let bytes = self.stopped.publisher.publish_made(self.describe(SAVED_IMAGE)?, Box::new(write)).await?;
        noted.tell(self.stopped, "image");
        self.tell(&format!("Container saved as {shown} in {SAVED_IMAGE}"), bytes, began);
        Ok(())
    }

    async fn with_layer(
        &self,
        image: SavedImage,
        layer: Box<WriteLayer>,
        container: &DockerSave,
    ) -> Result<SavedImage, SavingError> {
        let RunId { task_id, run_id } = &self.run.run;
        let history = History {
            created: Timestamp::now().to_string(),
            created_by: format!("docker-worker: task {task_id}, run {run_id}"),
            comment: DOCKER_SAVE.name.to_owned(),
        };
        let (command, environment) = (container.command.clone(), container.environment.clone());
        let change = move |config: &mut Map<String, Value>| {
            // Without a command it was the image's own.
            if !command.is_empty() {
                config.insert("Cmd".to_owned(), json!(command));
            }
            config.insert("Env".to_owned(), json!(environment));
        };
        Ok(spawn_blocking(move || image.with_layer(layer, &history, change)).await??)
    }

    /// What the container has changed.
    fn layer(&self, changed: Changed, noted: &Noted) -> Box<WriteLayer> {
        let (limits, cancel, noted) = (self.limits().clone(), self.cancel.clone(), noted.clone());
        Box::new(move |out| {
            let trees = Trees { upper: changed.upper.as_fd(), merged: changed.merged.as_fd() };
            let written = write_layer(trees, out, &limits, cancel.flag());
            noted.keep(written.map_err(io::Error::other)?);
            Ok(())
        })
    }

    async fn save_cache(&self, cache: &CacheLease) -> Result<(), SavingError> {
        let began = Instant::now();
        let name = cache_artifact(cache.name());
        let what = self.describe(&name)?;
        let content = cache.content();
        let directory = spawn_blocking(move || open_directory(&content)).await?.map_err(SavingError::Open)?;
        let (limits, cancel, noted) = (self.limits().clone(), self.cancel.clone(), Noted::default());
        let noting = noted.clone();
        let write = move |out: &mut dyn Write| {
            noting.keep(write_directory(directory.as_fd(), out, &limits, cancel.flag())?);
            Ok(())
        };
        let bytes = self.stopped.publisher.publish_made(what, Box::new(write)).await?;
        let shown = format!("cache \"{}\"", escaped(cache.name()));
        noted.tell(self.stopped, &shown);
        self.tell(&format!("Saved {shown} in {}", escaped(&name)), bytes, began);
        Ok(())
    }

    fn tell(&self, what: &str, bytes: u64, began: Instant) {
        let seconds = began.elapsed().as_secs_f64();
        self.stopped.log.info(&format!("{what}: {bytes} bytes in {seconds:.3} seconds"));
    }
}

/// What could not be said in an archive, of whoever wrote it last.
#[derive(Clone, Default)]
struct Noted(Arc<Mutex<LeftOut>>);

impl Noted {
    fn keep(&self, written: WrittenLayer) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = written.left_out;
    }

    fn tell(&self, stopped: &Stopped<'_>, archive: &str) {
        let left_out = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for sentence in left_out.sentences() {
            stopped.log.info(&format!("{} of the {archive}: {}", DOCKER_SAVE.name, escaped(&sentence)));
        }
    }
}

/// The original's last rule, and what the documents say of it, which upper case would not do for: two names of one image.
fn names(run: &RunId) -> Result<Vec<Reference>, ReferenceError> {
    let task = run.task_id.as_str().to_ascii_lowercase().replace(['_', '-'], "0");
    let name = format!("{task}-{}:{TAG}", run.run_id);
    [name.clone(), format!("task-{name}")].iter().map(|name| Reference::parse(name)).collect()
}

fn open_directory(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::task_id::TaskId;

    #[test]
    fn an_image_has_the_originals_name_and_the_documents() {
        let task_id = TaskId::parse("fN1SbArXTPSVFNUvaOlinQ").unwrap();
        let of = |task_id: &TaskId| {
            let names = names(&RunId { task_id: task_id.clone(), run_id: 3 }).unwrap();
            names.iter().map(Reference::familiar).collect::<Vec<_>>()
        };
        assert_eq!(of(&task_id), ["fn1sbarxtpsvfnuvaolinq-3:latest", "task-fn1sbarxtpsvfnuvaolinq-3:latest"]);
        let task_id = TaskId::parse("-_1SbArXS_GVFN-vaOli-Q").unwrap();
        assert_eq!(of(&task_id)[0], "001sbarxs0gvfn0vaoli0q-3:latest");
    }
}
