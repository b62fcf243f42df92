//! The object service, as far as artifacts go through it: `t/<taskId>/<runId>/<name>`.

use std::time::Duration;

use serde_json::{Value, json};

use super::artifacts::object_name;
use super::exchange::{Exchange, ok};
use super::reply::{Code, Refusal, Reply};
use super::storage::Access;
use crate::queue::artifact_name::ArtifactName;
use crate::queue::task_id::TaskId;
use crate::queue::{Artifact, RunId};
use crate::scopes::ScopeExpression;
/// How long bytes may be put to a URL.
const PUT_TIME: Duration = Duration::from_secs(60 * 60);

/// `createUpload`
pub(super) async fn create_upload(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let name = it.params.text("name");
    let upload = read_upload(it, &["projectId", "uploadId", "expires", "proposedUploadMethods", "hashes"])?;
    require(it, &upload, name)?;
    let (run, artifact) = find(name)?;
    let known = unfinished(it, &run, &artifact, &upload.upload_id).await?;
    let payload = it.payload()?;
    let proposed = payload.pointer("/proposedUploadMethods/putUrl");
    let method = match proposed {
        Some(proposed) => {
            let until = it.now.plus(PUT_TIME);
            let url = it.services.storage.url(&it.origin, Access::Put, &object_name(&run, &artifact), until);
            let content_type = proposed.get("contentType").and_then(Value::as_str).unwrap_or_default();
            let content_length = proposed.get("contentLength").and_then(Value::as_u64).unwrap_or_default();
            let headers =
                json!({ "content-type": content_type, "content-length": content_length.to_string() });
            json!({ "putUrl": { "url": url, "expires": until, "headers": headers } })
        }
        None => json!({}),
    };
    ok(&json!({
        "projectId": upload.project_id,
        "uploadId": upload.upload_id,
        "expires": known.request.expires,
        "uploadMethod": method,
    }))
}

/// `finishUpload`
pub(super) async fn finish_upload(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let name = it.params.text("name");
    let upload = read_upload(it, &["projectId", "uploadId", "hashes"])?;
    require(it, &upload, name)?;
    let (run, artifact) = find(name)?;
    unfinished(it, &run, &artifact, &upload.upload_id).await?;
    let Some(stored) = it.services.storage.describe(&object_name(&run, &artifact)).await else {
        return Err(Refusal::new(Code::InputError, "nothing has been put there"));
    };
    let sha256 = it.payload()?.pointer("/hashes/sha256").and_then(Value::as_str);
    if sha256.is_some_and(|sha256| sha256 != stored.sha256) {
        return Err(Refusal::new(Code::InputError, "the bytes that have been put have another SHA-256"));
    }
    ok(&json!({}))
}

struct Upload {
    project_id: String,
    upload_id: String,
}

fn read_upload(it: &Exchange<'_>, fields: &[&str]) -> Result<Upload, Refusal> {
    it.read(|payload, findings| {
        payload.refuse_unknown(fields, findings);
        let mut text = |key| Some(payload.required(key, findings)?.string(findings)?.to_owned());
        Some(Upload { project_id: text("projectId")?, upload_id: text("uploadId")? })
    })
}

fn require(it: &Exchange<'_>, upload: &Upload, name: &str) -> Result<(), Refusal> {
    it.require(&ScopeExpression::Scope(format!("object:upload:{}:{name}", upload.project_id)))
}

/// The artifact that an object is.
fn find(object: &str) -> Result<(RunId, ArtifactName), Refusal> {
    let mut parts = object.splitn(4, '/');
    let mut next = || parts.next().unwrap_or_default();
    let (kind, task_id, run_id, name) = (next(), next(), next(), next());
    let found = (kind == "t").then(|| {
        let run = RunId { task_id: TaskId::parse(task_id).ok()?, run_id: run_id.parse().ok()? };
        Some((run, ArtifactName::new(name).ok()?))
    });
    let missing = || Refusal::new(Code::ResourceNotFound, "only the objects of artifacts are kept here");
    found.flatten().ok_or_else(missing)
}

/// An object that is still to come from this uploader.
async fn unfinished(
    it: &Exchange<'_>,
    run: &RunId,
    name: &ArtifactName,
    upload_id: &str,
) -> Result<Artifact, Refusal> {
    let known = it.services.queue.artifact(run, name).await?;
    let known = known.filter(|known| known.upload_id.as_deref() == Some(upload_id));
    known.ok_or_else(|| Refusal::new(Code::RequestConflict, "no such upload is under way"))
}
