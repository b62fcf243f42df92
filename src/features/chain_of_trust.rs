//! `chainOfTrust`: a signed statement of what ran, and what came out.
//!
//! ```text
//!   public/logs/certified.log         the whole log
//!   public/chain-of-trust.json        the task as it was received, the image, the hash of each artifact and of that log
//!   public/chain-of-trust.json.sig    64 bytes: a detached Ed25519 signature over exactly the bytes of the statement
//! ```
//!
//! A hash is that of the bytes before they are compressed, made while they were read to be stored. Who checks needs the
//! public half of [`SigningKey`](crate::signing_key::SigningKey) only.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::local_live_log::LogError;
use super::{Feature, FeatureError, FeatureRow, Hook, Killed, RunContext, Wishes};
use crate::artifact::{ContentEncoding, Description, Publisher, Source};
use crate::known_features::{CERTIFIED_LOG, CHAIN_OF_TRUST, SIGNATURE, STATEMENT};
use crate::queue::ReceivedDefinition;
use crate::queue::artifact_name::ArtifactName;
use crate::queue::task_id::TaskId;
use crate::signing_key::SigningKey;

/// Its row of the table.
pub(super) const ROW: FeatureRow = FeatureRow { feature: &CHAIN_OF_TRUST, start };

/// The version of the statement's form.
const VERSION: u32 = 1;

/// The MIME type of log and statement.
const TEXT: &str = "text/plain";

/// Why there is no statement.
#[derive(Debug, thiserror::Error)]
enum CertifyError {
    /// The worker has nothing to sign with.
    #[error(
        "This worker cannot certify what a task does: it has no signing key. Choose another pool, or drop chainOfTrust."
    )]
    NoKey,
    /// What is to be published does not fit on the disk.
    #[error("Failed to write {what}: {source}")]
    Write { what: &'static str, source: io::Error },
    /// It is no JSON.
    #[error("Failed to write the statement: {0}")]
    Json(#[from] serde_json::Error),
    /// It could not be published.
    #[error(transparent)]
    Publish(#[from] LogError),
}

struct ChainOfTrust;

fn start(_wishes: &Wishes<'_>) -> Box<dyn Feature> {
    Box::new(ChainOfTrust)
}

impl Feature for ChainOfTrust {
    fn created<'a>(&'a mut self, run: &'a RunContext, _publisher: &'a Publisher) -> Hook<'a> {
        Box::pin(async { run.signing_key.as_ref().map(drop).ok_or_else(|| CertifyError::NoKey.into()) })
    }

    fn killed<'a>(&'a mut self, run: &'a RunContext, killed: &'a mut Killed<'_>) -> Hook<'a> {
        Box::pin(async {
            match (&run.signing_key, killed.image_id) {
                (Some(key), Some(image_id)) => {
                    certify(run, killed, (key, image_id)).await.map_err(FeatureError::from)
                }
                // What was ended from outside, its own time limit included, is not what the task would have done.
                (Some(_) | None, None) | (None, Some(_)) => Ok(()),
            }
        })
    }
}

async fn certify(
    run: &RunContext,
    killed: &Killed<'_>,
    (key, image_id): (&SigningKey, &str),
) -> Result<(), CertifyError> {
    let Killed { log, publisher, .. } = killed;
    let log = Source::Log((*log).to_owned());
    publish(publisher, (CERTIFIED_LOG, TEXT, ContentEncoding::Gzip), log).await?;
    let hashes = publisher.hashes(CERTIFIED_LOG);
    let statement = Statement::of(run, &hashes, (image_id, killed.image_artifact)).text()?;
    let signature = key.sign(statement.as_bytes());
    let files =
        [(STATEMENT, TEXT, statement.as_bytes()), (SIGNATURE, "application/octet-stream", &signature)];
    for (name, content_type, bytes) in files {
        let file = spooled(&run.data, bytes).map_err(|source| CertifyError::Write { what: name, source })?;
        publish(publisher, (name, content_type, ContentEncoding::Identity), Source::Own(file)).await?;
    }
    Ok(())
}

fn spooled(scratch: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut file = tempfile::tempfile_in(scratch)?;
    file.write_all(bytes)?;
    Ok(file)
}

async fn publish(
    publisher: &Publisher,
    (name, content_type, content_encoding): (&'static str, &'static str, ContentEncoding),
    source: Source,
) -> Result<(), LogError> {
    let name = ArtifactName::new(name).map_err(|why| LogError::Name { what: name, why })?;
    let expires = publisher.task_expires();
    let description = Description { name: name.clone(), content_type, content_encoding, expires };
    let published = publisher.publish(description, source).await;
    published.map_err(|source| LogError::Publish { name, source })
}

/// What is certified. Names and order are the original's; what is not known is absent.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Statement<'a> {
    chain_of_trust_version: u32,
    artifacts: BTreeMap<&'a str, Hash<'a>>,
    task: &'a ReceivedDefinition,
    task_id: &'a TaskId,
    run_id: u32,
    worker_group: &'a str,
    worker_id: &'a str,
    environment: Environment<'a>,
}

#[derive(Serialize)]
struct Hash<'a> {
    sha256: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Environment<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    public_ip_address: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    private_ip_address: Option<&'a str>,
    image_hash: &'a str,
    /// Of an image that was an artifact: as it was stored there, so still compressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    image_artifact_hash: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<&'a str>,
}

impl<'a> Statement<'a> {
    fn of(
        run: &'a RunContext,
        hashes: &'a BTreeMap<ArtifactName, String>,
        (image_hash, image_artifact_hash): (&'a str, Option<&'a str>),
    ) -> Statement<'a> {
        let file = &run.config;
        Statement {
            chain_of_trust_version: VERSION,
            artifacts: hashes.iter().map(|(name, sha256)| (name.as_str(), Hash { sha256 })).collect(),
            task: &run.definition,
            task_id: &run.run.task_id,
            run_id: run.run.run_id,
            worker_group: file.worker_group(),
            worker_id: &run.worker_id,
            environment: Environment {
                public_ip_address: file.public_ip.as_deref(),
                private_ip_address: file.private_ip.as_deref(),
                image_hash,
                image_artifact_hash,
                instance_id: file.instance_id.as_deref(),
                instance_type: file.instance_type.as_deref(),
                region: file.region.as_deref(),
            },
        }
    }

    fn text(&self) -> Result<String, CertifyError> {
        Ok(serde_json::to_string_pretty(self)?)
    }
}
