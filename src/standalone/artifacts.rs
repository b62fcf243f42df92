//! Artifacts: what there is of a run, and where.

use std::time::Duration;

use hyper::{StatusCode, header};
use serde::Serialize;
use serde_json::json;

use super::exchange::{Exchange, done, ok};
use super::paging;
use super::reply::{Code, Refusal, Reply, json_reply, set};
use super::storage::Access;
use super::work::temporary;
use crate::document::finding::Findings;
use crate::document::reader::Object;
use crate::queue::artifact_name::ArtifactName;
use crate::queue::{
    Artifact, ArtifactContent, ArtifactInfo, ArtifactRequest, Created, ErrorReason, QueueError, RunId,
    RunStatus, StorageType, TaskStatus, WorkerIdentity,
};
use crate::scopes::ScopeExpression;
use crate::timestamp::Timestamp;

/// How long bytes may be put to a URL.
const PUT_TIME: Duration = Duration::from_secs(45 * 60);
/// How long bytes may be got from one.
const GET_TIME: Duration = Duration::from_secs(30 * 60);
/// How long an object may be uploaded.
const UPLOAD_TIME: Duration = Duration::from_secs(24 * 60 * 60);
/// How far a clock may be off.
const DRIFT: Duration = Duration::from_secs(15 * 60);
/// The media type of a link that names none.
const ANY_TYPE: &str = "application/binary";

/// `createArtifact`
pub(super) async fn create(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let (run, name) = (it.params.run()?, it.params.artifact()?);
    let request = it.read(read_request)?;
    let expires = request.expires;
    if it.now.since(expires) > DRIFT {
        return Err(Refusal::new(Code::InputError, format!("it would have expired at {expires}")));
    }
    let kind = request.content.storage_type();
    let content_type = request.content.content_type().to_owned();
    let created = it.services.queue.run(run.clone()).create_artifact(&name, &request).await;
    match created.map_err(unknown_is_wrong)? {
        Created::Done => ok(&json!({ "storageType": kind })),
        Created::Object(upload) => {
            let status = it.services.queue.status(&run.task_id).await?;
            let object = object_name(&run, &name);
            let until = expires.min(it.now.plus(UPLOAD_TIME));
            let client_id = uploader(&status, &run)?;
            let scope = format!("object:upload:{}:{object}", status.project_id);
            ok(&json!({
                "storageType": kind,
                "name": object,
                "projectId": status.project_id,
                "uploadId": upload.upload_id(),
                "expires": expires,
                "credentials": temporary(it, client_id, vec![scope], until)?,
            }))
        }
        Created::KeepBytes | Created::Put(_) => {
            let until = it.now.plus(PUT_TIME);
            ok(&json!({
                "storageType": kind,
                "contentType": content_type,
                "expires": until,
                "putUrl": it.services.storage.url(&it.origin, Access::Put, &object_name(&run, &name), until),
            }))
        }
    }
}

/// Who uploads an object, by name.
fn uploader(status: &TaskStatus, run: &RunId) -> Result<String, Refusal> {
    let worker = status.runs.iter().find(|known| known.run_id == run.run_id);
    let worker = worker.and_then(|known| known.worker.as_ref());
    let worker = worker.ok_or_else(|| QueueError::NotFound { what: run.to_string() })?;
    let WorkerIdentity { worker_group, worker_id } = worker;
    Ok(format!("artifact-upload/{}/{}/on/{worker_group}/{worker_id}", run.task_id, run.run_id))
}

/// `finishArtifact`
pub(super) async fn finish(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let (run, name) = (it.params.run()?, it.params.artifact()?);
    let upload_id = it.read(|payload, findings| {
        payload.refuse_unknown(&["uploadId"], findings);
        payload.required("uploadId", findings)?.string(findings).map(str::to_owned)
    })?;
    let is_object = |kind| kind == StorageType::Object;
    let known = it.services.queue.artifact(&run, &name).await?;
    let is_unfinished = known.as_ref().is_some_and(|known| known.upload_id.is_some());
    if is_unfinished && known.is_some_and(|known| is_object(known.request.content.storage_type())) {
        let stored = it.services.storage.describe(&object_name(&run, &name)).await;
        if stored.is_none() {
            return Err(Refusal::new(Code::InputError, "the object with the artifact's bytes is not there"));
        }
    }
    it.services.queue.run(run).finish_artifact(&name, &upload_id).await?;
    done()
}

/// `getArtifact`
pub(super) async fn get(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let name = it.params.artifact()?;
    require(it, std::slice::from_ref(&name))?;
    send(it, &it.params.run()?, name).await
}

/// `getLatestArtifact`
pub(super) async fn get_latest(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let name = it.params.artifact()?;
    require(it, std::slice::from_ref(&name))?;
    let run = latest(it).await?;
    send(it, &run, name).await
}

/// `listArtifacts`
pub(super) async fn list(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    show(it, &it.params.run()?).await
}

/// `listLatestArtifacts`
pub(super) async fn list_latest(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    show(it, &latest(it).await?).await
}

async fn show(it: &Exchange<'_>, run: &RunId) -> Result<Reply, Refusal> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Listed {
        artifacts: Vec<ArtifactInfo>,
        #[serde(skip_serializing_if = "Option::is_none")]
        continuation_token: Option<String>,
    }
    let page = it.services.queue.list_artifacts(run, paging::part(it)?).await?;
    ok(&Listed { artifacts: page.items, continuation_token: paging::token(page.next) })
}

/// `artifactInfo`
pub(super) async fn info(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    describe(it, &it.params.run()?, it.params.artifact()?).await
}

/// `latestArtifactInfo`
pub(super) async fn latest_info(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let name = it.params.artifact()?;
    describe(it, &latest(it).await?, name).await
}

/// Shows an artifact itself, also if it is a link.
async fn describe(it: &Exchange<'_>, run: &RunId, name: ArtifactName) -> Result<Reply, Refusal> {
    let found = find(it, run, &name).await?;
    ok(&ArtifactInfo::of(name, &found.request))
}

/// An artifact that is there.
async fn find(it: &Exchange<'_>, run: &RunId, name: &ArtifactName) -> Result<Artifact, Refusal> {
    let found = it.services.queue.artifact(run, name).await?;
    let missing = || QueueError::NotFound { what: format!("artifact \"{name}\" of {run}") };
    Ok(found.filter(|found| found.upload_id.is_none()).ok_or_else(missing)?)
}

/// The last run of a task.
async fn latest(it: &Exchange<'_>) -> Result<RunId, Refusal> {
    let task_id = it.params.task_id()?;
    let status = it.services.queue.status(&task_id).await?;
    let Some(RunStatus { run_id, .. }) = status.runs.last() else {
        return Err(QueueError::NotFound { what: format!("a run of task {task_id}") }.into());
    };
    Ok(RunId { task_id, run_id: *run_id })
}

/// `artifact`
pub(super) async fn content(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let name = it.params.artifact()?;
    tell(it, &it.params.run()?, name).await
}

/// `latestArtifact`
pub(super) async fn latest_content(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let name = it.params.artifact()?;
    tell(it, &latest(it).await?, name).await
}

/// What an artifact leads to.
pub(super) enum Content {
    Bytes { kind: StorageType, url: String },
    Nothing { reason: ErrorReason, message: String },
}

/// Tells the caller where an artifact's bytes are.
async fn tell(it: &Exchange<'_>, run: &RunId, name: ArtifactName) -> Result<Reply, Refusal> {
    match follow(it, run, name).await? {
        // The object service gives nothing out here: an object's bytes are got as all others are.
        Content::Bytes { kind: StorageType::Object, url } => ok(&json!({ "storageType": "s3", "url": url })),
        Content::Bytes { kind, url } => ok(&json!({ "storageType": kind, "url": url })),
        Content::Nothing { reason, message } => {
            ok(&json!({ "storageType": "error", "reason": reason, "message": message }))
        }
    }
}

/// Sends the caller to an artifact's bytes.
async fn send(it: &Exchange<'_>, run: &RunId, name: ArtifactName) -> Result<Reply, Refusal> {
    Ok(lead(follow(it, run, name).await?))
}

/// Sends a caller to what an artifact leads to.
pub(super) fn lead(content: Content) -> Reply {
    let (mut reply, kind) = match content {
        Content::Bytes { kind, url } => {
            let body = json!({ "storageType": kind, "url": url });
            let mut reply = json_reply(StatusCode::SEE_OTHER, &body);
            set(&mut reply, header::LOCATION, &url);
            (reply, kind)
        }
        Content::Nothing { reason, message } => {
            let body = json!({ "reason": reason, "message": message });
            (json_reply(StatusCode::FAILED_DEPENDENCY, &body), StorageType::Error)
        }
    };
    let kind = json!(kind).as_str().unwrap_or_default().to_owned();
    set(&mut reply, header::HeaderName::from_static("x-taskcluster-artifact-storage-type"), &kind);
    reply
}

/// Looks where an artifact leads. A link is followed as if the caller had asked for what it leads to.
pub(super) async fn follow(it: &Exchange<'_>, run: &RunId, name: ArtifactName) -> Result<Content, Refusal> {
    let mut names = vec![name];
    loop {
        require(it, &names)?;
        let Some(name) = names.last() else {
            return Err(Refusal::new(Code::InternalServerError, "no artifact was asked for"));
        };
        let found = find(it, run, name).await?;
        if found.request.expires < it.now {
            return Err(Refusal::new(Code::ResourceExpired, format!("artifact \"{name}\" has expired")));
        }
        let kind = found.request.content.storage_type();
        match found.request.content {
            ArtifactContent::Link { artifact, .. } if names.contains(&artifact) => {
                return Err(Refusal::new(Code::InputError, "the artifact leads back to itself"));
            }
            ArtifactContent::Link { artifact, .. } => names.push(artifact),
            ArtifactContent::Error { reason, message } => return Ok(Content::Nothing { reason, message }),
            ArtifactContent::Reference { url, .. } => return Ok(Content::Bytes { kind, url }),
            ArtifactContent::S3 { .. } | ArtifactContent::Object { .. } => {
                let (object, until) = (object_name(run, name), it.now.plus(GET_TIME));
                let url = it.services.storage.url(&it.origin, Access::Get, &object, until);
                return Ok(Content::Bytes { kind, url });
            }
        }
    }
}

fn require(it: &Exchange<'_>, names: &[ArtifactName]) -> Result<(), Refusal> {
    let each = names.iter().map(|name| ScopeExpression::Scope(format!("queue:get-artifact:{name}")));
    it.require(&ScopeExpression::AllOf(each.collect()))
}

/// What an artifact's bytes are called in storage.
pub(super) fn object_name(run: &RunId, name: &ArtifactName) -> String {
    format!("t/{}/{}/{name}", run.task_id, run.run_id)
}

/// The queue's own word: to name a run in vain is wrong here, not merely without result.
fn unknown_is_wrong(error: QueueError) -> Refusal {
    match error {
        QueueError::NotFound { .. } => Refusal { code: Code::InputError, ..Refusal::from(error) },
        error => error.into(),
    }
}

const FIELDS: &[(&str, &[&str])] = &[
    ("s3", &["storageType", "expires", "contentType", "contentLength"]),
    ("object", &["storageType", "expires", "contentType", "contentLength"]),
    ("reference", &["storageType", "expires", "contentType", "url"]),
    ("link", &["storageType", "expires", "contentType", "artifact"]),
    ("error", &["storageType", "expires", "reason", "message"]),
];

fn read_request(payload: &Object<'_>, findings: &mut Findings) -> Option<ArtifactRequest> {
    let place = payload.required("storageType", findings)?;
    let kind = place.string(findings)?;
    let Some((_, fields)) = FIELDS.iter().find(|(known, _)| *known == kind) else {
        place.refuse("is no way of storing an artifact", findings);
        return None;
    };
    payload.refuse_unknown(fields, findings);
    let expires: Option<Timestamp> = payload.required("expires", findings).and_then(|it| it.time(findings));
    let content = read_content(kind, payload, findings);
    Some(ArtifactRequest { expires: expires?, content: content? })
}

fn read_content(kind: &str, payload: &Object<'_>, findings: &mut Findings) -> Option<ArtifactContent> {
    let mut text = |key| Some(payload.required(key, findings)?.string(findings)?.to_owned());
    match kind {
        "s3" => Some(ArtifactContent::S3 { content_type: text("contentType")? }),
        "object" => Some(ArtifactContent::Object { content_type: text("contentType")? }),
        "reference" => {
            Some(ArtifactContent::Reference { url: text("url")?, content_type: text("contentType")? })
        }
        "error" => {
            let (word, message) = (text("reason")?, text("message")?);
            let reason: Result<ErrorReason, _> = serde_json::from_value(json!(word));
            if reason.is_err() {
                findings.error("/reason", "is no reason for which an artifact has no content");
            }
            Some(ArtifactContent::Error { reason: reason.ok()?, message })
        }
        _ => {
            let artifact = text("artifact")?;
            let content_type = match payload.member("contentType") {
                Some(place) => place.string(findings)?.to_owned(),
                None => ANY_TYPE.to_owned(),
            };
            match ArtifactName::new(&artifact) {
                Ok(artifact) => Some(ArtifactContent::Link { artifact, content_type }),
                Err(error) => {
                    findings.error("/artifact", format!("must {error}"));
                    None
                }
            }
        }
    }
}
