//! The way of an artifact's bytes into the object service.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::session::{Call, Insists, Session};
use super::{ANSWER_BYTES, LASTING, component};
use crate::queue::QueueError;
use crate::queue::model::PutTarget;
use crate::timestamp::Timestamp;

/// An artifact that is to become an object. It is listed once
/// [`RunQueue::finish_artifact`](crate::queue::RunQueue::finish_artifact) has been told its id.
#[derive(Debug)]
pub struct ObjectUpload {
    upload_id: String,
    /// None: the bytes stay with the caller, the queue is in its own process.
    service: Option<Service>,
}

#[derive(Debug)]
struct Service {
    session: Session,
    name: String,
    project_id: String,
    expires: Timestamp,
}

impl ObjectUpload {
    pub(in crate::queue) fn in_process(upload_id: String) -> ObjectUpload {
        ObjectUpload { upload_id, service: None }
    }

    pub(super) fn in_service(
        session: Session,
        name: String,
        project_id: String,
        upload_id: String,
        expires: Timestamp,
    ) -> ObjectUpload {
        ObjectUpload { upload_id, service: Some(Service { session, name, project_id, expires }) }
    }

    /// The word for [`RunQueue::finish_artifact`](crate::queue::RunQueue::finish_artifact).
    #[must_use]
    pub fn upload_id(&self) -> &str {
        &self.upload_id
    }

    /// Where the bytes are to be put; nowhere if they stay with the caller.
    ///
    /// # Errors
    ///
    /// [`QueueError`].
    pub async fn begin(&self, content_type: &str, bytes: u64) -> Result<Option<PutTarget>, QueueError> {
        let Some(service) = &self.service else { return Ok(None) };
        let body = json!({
            "projectId": service.project_id,
            "uploadId": self.upload_id,
            "expires": service.expires,
            "proposedUploadMethods": { "putUrl": { "contentType": content_type, "contentLength": bytes } },
        });
        let reply: BeginReply = service.session.ask(service.call("PUT", "upload", &body)).await?;
        let PutUrl { url, expires, headers } = reply.upload_method.put_url.ok_or_else(|| {
            let what = format!("object \"{}\"", service.name);
            QueueError::Invalid { what, because: "the object service takes no bytes put to a URL".to_owned() }
        })?;
        let headers = headers.into_iter().filter_map(|(name, value)| match value {
            Value::String(value) => Some((name, value)),
            _ => None,
        });
        Ok(Some(PutTarget { url, headers: headers.collect(), until: expires }))
    }

    /// Says that bytes of this SHA-256, in hexadecimal digits, have been put.
    ///
    /// # Errors
    ///
    /// [`QueueError`].
    pub async fn end(&self, sha256: &str) -> Result<(), QueueError> {
        let Some(service) = &self.service else { return Ok(()) };
        let body = json!({
            "projectId": service.project_id,
            "uploadId": self.upload_id,
            "hashes": { "sha256": sha256 },
        });
        service.session.tell(service.call("POST", "finish-upload", &body)).await
    }
}

impl Service {
    fn call<'a>(&self, method: &'static str, step: &str, body: &'a Value) -> Call<'a> {
        Call {
            method,
            path: format!("api/object/v1/{step}/{}", component(&self.name)),
            body: Some(body),
            what: format!("object \"{}\"", self.name),
            patience: LASTING,
            insists: Insists::UntilInVain,
            most: ANSWER_BYTES,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BeginReply {
    upload_method: UploadMethod,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UploadMethod {
    put_url: Option<PutUrl>,
}

#[derive(Deserialize)]
struct PutUrl {
    url: String,
    expires: Timestamp,
    headers: Map<String, Value>,
}
