//! The index service: tasks by names.

use serde_json::Value;

use super::exchange::{Exchange, ok};
use super::reply::{Code, Refusal, Reply};
use crate::document::finding::Findings;
use crate::document::reader::Object;
use crate::queue::IndexedTask;
use crate::queue::task_id::TaskId;

/// `findTask`
pub(super) async fn find(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let path = it.params.text("indexPath");
    let found = it.services.queue.find_indexed(path).await?;
    ok(&found.ok_or_else(|| Refusal::new(Code::ResourceNotFound, "Indexed task not found"))?)
}

/// `insertTask`
pub(super) async fn insert(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let wanted = it.read(|payload, findings| read(it.params.text("namespace"), payload, findings))?;
    ok(&it.services.queue.insert_indexed(wanted).await?)
}

fn read(namespace: &str, payload: &Object<'_>, findings: &mut Findings) -> Option<IndexedTask> {
    payload.refuse_unknown(&["taskId", "rank", "data", "expires"], findings);
    let task_id = payload.required("taskId", findings).and_then(|place| {
        let read = TaskId::parse(place.string(findings)?).ok();
        if read.is_none() {
            place.refuse("must be a slugid", findings);
        }
        read
    });
    let rank = payload.required("rank", findings).and_then(|place| match place.value {
        Value::Number(rank) => Some(rank.clone()),
        _ => {
            place.expected("a number", findings);
            None
        }
    });
    let data = payload.required("data", findings).and_then(|place| match place.value {
        Value::Object(data) => Some(data.clone()),
        _ => {
            place.expected("an object", findings);
            None
        }
    });
    let expires = payload.required("expires", findings).and_then(|place| place.time(findings));
    Some(IndexedTask {
        namespace: namespace.to_owned(),
        task_id: task_id?,
        rank: rank?,
        data: data?,
        expires: expires?,
    })
}
