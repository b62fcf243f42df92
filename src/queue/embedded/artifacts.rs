//! What runs have made: names of artifacts, and where their bytes are. The rules are those of [`crate::queue::artifacts`].

use rusqlite::{Row, Transaction, named_params};

use super::EmbeddedQueue;
use super::pages::{self, Page, Part};
use super::store::{self, execute, json, parsed, text};
use crate::queue::artifact_name::ArtifactName;
use crate::queue::http::ObjectUpload;
use crate::queue::model::{ArtifactContent, ArtifactInfo, ArtifactRequest, Created, RunId};
use crate::queue::task_id::TaskId;
use crate::queue::{QueueError, artifacts as rules, runs};
use crate::timestamp::Timestamp;

pub(super) const SCHEMA: &str = "
    CREATE TABLE artifacts (
        task_id TEXT NOT NULL REFERENCES tasks,
        run_id INTEGER NOT NULL,
        name TEXT NOT NULL,
        -- Milliseconds.
        expires INTEGER NOT NULL,
        content TEXT NOT NULL,
        -- What finish_artifact has to say; NULL once the artifact is there.
        upload_id TEXT,
        PRIMARY KEY (task_id, run_id, name)
    ) STRICT;
    CREATE INDEX expiring_artifacts ON artifacts (expires);
";

/// An artifact as the embedded queue has it.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// What was asked for.
    pub request: ArtifactRequest,
    /// The word that its uploader still has to say; nobody gets it before.
    pub upload_id: Option<String>,
}

impl EmbeddedQueue {
    /// See [`RunQueue::create_artifact`].
    pub(in crate::queue) async fn create_artifact(
        &self,
        run: &RunId,
        name: &ArtifactName,
        request: &ArtifactRequest,
    ) -> Result<Created, QueueError> {
        let (run, name, request) = (run.clone(), name.clone(), request.clone());
        self.ask(move |database, now| create(database, &run, &name, &request, now)).await
    }

    /// See [`RunQueue::finish_artifact`].
    pub(in crate::queue) async fn finish_artifact(
        &self,
        run: &RunId,
        name: &ArtifactName,
        upload_id: &str,
    ) -> Result<(), QueueError> {
        let (run, name, upload_id) = (run.clone(), name.clone(), upload_id.to_owned());
        self.ask(move |database, _now| finish(database, &run, &name, &upload_id)).await
    }

    /// One artifact of a run, if it was made.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`] without such a run.
    pub async fn artifact(&self, run: &RunId, name: &ArtifactName) -> Result<Option<Artifact>, QueueError> {
        let (run, name) = (run.clone(), name.clone());
        self.ask(move |database, _now| {
            runs::find(&store::load_status(database, &run.task_id)?, &run)?;
            find(database, &run, &name)
        })
        .await
    }

    /// The artifacts of a run, by name.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`].
    pub async fn list_artifacts(
        &self,
        run: &RunId,
        part: Part<ArtifactName>,
    ) -> Result<Page<ArtifactInfo, ArtifactName>, QueueError> {
        let run = run.clone();
        self.ask(move |database, _now| {
            runs::find(&store::load_status(database, &run.task_id)?, &run)?;
            list(database, &run, &part)
        })
        .await
    }
}

/// Makes an artifact, as far as the rules allow.
fn create(
    database: &Transaction<'_>,
    run: &RunId,
    name: &ArtifactName,
    request: &ArtifactRequest,
    now: Timestamp,
) -> Result<Created, QueueError> {
    let status = store::load_status(database, &run.task_id)?;
    runs::takes_artifacts(&status, run, now)?;
    rules::check(name, request, status.expires)?;
    let mut request = request.clone();
    if let Some(known) = find(database, run, name)? {
        request = rules::settle(&known.request, request);
        rules::check_replacement(name, &known.request, &request)?;
    }
    let upload_id = match &request.content {
        ArtifactContent::Object { .. } => Some(fresh_word(name)?),
        _ => None,
    };
    let artifact = Artifact { request, upload_id: upload_id.clone() };
    write(database, run, name, &artifact)?;
    Ok(match (&artifact.request.content, upload_id) {
        (_, Some(upload_id)) => Created::Object(ObjectUpload::in_process(upload_id)),
        (ArtifactContent::S3 { .. }, None) => Created::KeepBytes,
        (_, None) => Created::Done,
    })
}

/// Says that an artifact is there whose bytes somebody else has.
fn finish(
    database: &Transaction<'_>,
    run: &RunId,
    name: &ArtifactName,
    upload_id: &str,
) -> Result<(), QueueError> {
    let what = format!("artifact \"{name}\"");
    let Some(artifact) = find(database, run, name)? else {
        return Err(QueueError::NotFound { what });
    };
    let refused = |because: &str| Err(QueueError::Invalid { what, because: because.to_owned() });
    match (&artifact.request.content, &artifact.upload_id) {
        (ArtifactContent::Object { .. }, None) => Ok(()),
        (ArtifactContent::Object { .. }, Some(expected)) if expected == upload_id => {
            write(database, run, name, &Artifact { upload_id: None, ..artifact })
        }
        (ArtifactContent::Object { .. }, Some(_)) => refused("the upload id is another's"),
        _ => refused("its storage type needs no finishing"),
    }
}

/// A word that nobody guesses, in the form of the queue's upload ids.
fn fresh_word(name: &ArtifactName) -> Result<String, QueueError> {
    let word = TaskId::random().map_err(|error| QueueError::Invalid {
        what: format!("artifact \"{name}\""),
        because: format!("the host has no random numbers: {error}"),
    })?;
    Ok(word.as_str().to_owned())
}

/// An artifact of a run, if there is one of this name.
fn find(
    database: &Transaction<'_>,
    run: &RunId,
    name: &ArtifactName,
) -> Result<Option<Artifact>, QueueError> {
    store::find(
        database,
        "read an artifact",
        "SELECT expires, content, upload_id FROM artifacts
         WHERE task_id = :task_id AND run_id = :run_id AND name = :name",
        named_params! { ":task_id": run.task_id.as_str(), ":run_id": run.run_id, ":name": name.as_str() },
        |row| Ok(Artifact { request: artifact_request(row)?, upload_id: row.get("upload_id")? }),
    )
}

/// Writes an artifact, new or not.
fn write(
    database: &Transaction<'_>,
    run: &RunId,
    name: &ArtifactName,
    artifact: &Artifact,
) -> Result<(), QueueError> {
    let call = "write an artifact";
    execute(
        database,
        call,
        "INSERT OR REPLACE INTO artifacts (task_id, run_id, name, expires, content, upload_id)
         VALUES (:task_id, :run_id, :name, :expires, :content, :upload_id)",
        named_params! {
            ":task_id": run.task_id.as_str(),
            ":run_id": run.run_id,
            ":name": name.as_str(),
            ":expires": artifact.request.expires.as_millis(),
            ":content": text(&artifact.request.content, call)?,
            ":upload_id": artifact.upload_id,
        },
    )
    .map(drop)
}

/// The artifacts of a run that are there, by name.
fn list(
    database: &Transaction<'_>,
    run: &RunId,
    part: &Part<ArtifactName>,
) -> Result<Page<ArtifactInfo, ArtifactName>, QueueError> {
    pages::read(
        database,
        "list artifacts",
        (
            "SELECT name, expires, content FROM artifacts
             WHERE task_id = :task_id AND run_id = :run_id AND name > :after AND upload_id IS NULL
             ORDER BY name",
            named_params! {
                ":task_id": run.task_id.as_str(),
                ":run_id": run.run_id,
                ":after": part.after.as_ref().map_or("", ArtifactName::as_str),
            },
        ),
        part.most,
        |row| {
            let name = parsed(row, "name", ArtifactName::new)?;
            let info = ArtifactInfo::of(name.clone(), &artifact_request(row)?);
            Ok((info, name, 0))
        },
    )
}

fn artifact_request(row: &Row<'_>) -> rusqlite::Result<ArtifactRequest> {
    let expires = Timestamp::from_millis(row.get("expires")?);
    Ok(ArtifactRequest { expires, content: json(row, "content")? })
}
