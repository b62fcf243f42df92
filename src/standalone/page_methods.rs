//! What the page asks beside the services' own methods: below `/page/`, signed as all calls are.

use serde::Serialize;
use serde_json::json;

use super::artifacts::{self, Content};
use super::exchange::{Exchange, ok};
use super::reply::{Code, Refusal, Reply, fault};
use super::{paging, tasks};
use crate::document::finding::{Finding, Findings};
use crate::payload::{Origin, Payload, TaskContext};
use crate::queue::definition::TaskDefinition;
use crate::queue::task_id::TaskId;
use crate::queue::{Part, RecentTask, StorageType};

/// Tasks that people are shown at once, at most.
const LATEST: usize = 200;

/// `recentTasks`: all tasks of the queue in pages, the latest first.
pub(super) async fn recent_tasks(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Listed {
        tasks: Vec<RecentTask>,
        #[serde(skip_serializing_if = "Option::is_none")]
        continuation_token: Option<String>,
    }
    let part: Part<i64> = paging::part(it)?;
    let part = Part { most: part.most.min(LATEST), ..part };
    let page = it.services.queue.recent_tasks(part).await?;
    ok(&Listed { tasks: page.items, continuation_token: paging::token(page.next) })
}

/// `validateTask`: what createTask would say of a definition now, and what a worker would of its payload.
pub(super) fn validate(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let document = it.payload()?;
    let task_id = TaskId::random().map_err(|error| fault("make an id", &error))?;
    let (mut findings, expires) = match TaskDefinition::requested(document, &task_id, it.now) {
        Ok(task) => (refused(tasks::permit(it, &task)), task.expires),
        Err(findings) => (findings.into_list(), it.now),
    };
    if let Some(payload) = document.get("payload") {
        let context = TaskContext {
            expires,
            origin: Origin::Queue,
            disabled_features: &[],
            max_task_run_time: None,
            pointer: "/payload",
        };
        findings.extend(Payload::parse(payload, &context).1);
    }
    ok(&json!({ "findings": findings }))
}

fn refused(permitted: Result<(), Refusal>) -> Vec<Finding> {
    let mut findings = Findings::default();
    if let Err(refusal) = permitted {
        findings.error("", refusal.message);
    }
    findings.into_list()
}

/// `readLog`: the bytes of a log, from this process while it grows. A page may not ask any other server for them.
pub(super) async fn read_log(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    match artifacts::follow(it, &it.params.run()?, it.params.artifact()?).await? {
        Content::Bytes { kind: StorageType::Reference, url } => {
            let served = match it.services.live_logs.get() {
                Some(logs) => logs.send(&url, it.range.as_deref()).await,
                None => None,
            };
            let elsewhere = || format!("the log is, or was, served by another server: {url}");
            served.ok_or_else(|| Refusal::new(Code::InputError, elsewhere()))
        }
        content => Ok(artifacts::lead(content)),
    }
}
