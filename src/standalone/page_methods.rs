//! What the page asks beside the services' own methods: below `/page/`, signed as all calls are.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::artifacts::{self, Content};
use super::clients::expand;
use super::exchange::{Exchange, ok};
use super::reply::{Code, Refusal, Reply, fault};
use super::{paging, tasks};
use crate::config::ConfigFile;
use crate::document::finding::{Finding, Findings};
use crate::payload::{Origin, Payload, TaskContext};
use crate::queue::definition::TaskDefinition;
use crate::queue::task_id::TaskId;
use crate::queue::{Part, RecentTask, StorageType};
use crate::task;
use crate::text::escaped;

/// Longer than any task lasts: a century.
const EVER: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

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

/// `validateTask`: what createTask would say of a definition now, and what the worker would of its payload.
pub(super) fn validate(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let document = it.payload()?;
    let task_id = TaskId::random().map_err(|error| fault("make an id", &error))?;
    let (task, mut findings) = match TaskDefinition::requested(document, &task_id, it.now) {
        Ok(task) => {
            let refused = refused(tasks::permit(it, &task));
            (Some(task), refused)
        }
        Err(findings) => (None, findings.into_list()),
    };
    if let Some(payload) = document.get("payload") {
        findings.extend(judge(it, payload, task.as_ref()));
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

/// What the worker of this process says of a payload, by its own settings.
fn judge(it: &Exchange<'_>, payload: &Value, task: Option<&TaskDefinition>) -> Vec<Finding> {
    let file = it.services.worker.get().map(|worker| &worker.config.file);
    let disabled_features = file.map(ConfigFile::disabled_features).unwrap_or_default();
    let context = TaskContext {
        // Where there is no telling when it expires, nothing is too late for that.
        expires: task.map_or(it.now.plus(EVER), |task| task.expires),
        origin: Origin::Queue,
        disabled_features: &disabled_features,
        max_task_run_time: file.and_then(|file| file.max_task_run_time).map(u64::from),
        pointer: "/payload",
    };
    let (payload, mut list) = Payload::parse(payload, &context);
    let mut findings = Findings::default();
    if let (Some(file), Some(task)) = (file, task) {
        let pool = file.worker_pool();
        if task.task_queue_id != pool {
            let message = format!("is not the pool of the worker here, which is {}", escaped(&pool));
            findings.warning("/taskQueueId", message);
        } else if let Some(payload) = &payload {
            task::judge(payload, &expand(&task.scopes), (&pool, context.pointer), &mut findings);
        }
    }
    list.extend(findings.into_list());
    list
}

/// `readLog`: the bytes of a log, from this process while it grows. A page may not ask any other server for them.
pub(super) async fn read_log(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    match artifacts::follow(it, &it.params.run()?, it.params.artifact()?).await? {
        Content::Bytes { kind: StorageType::Reference, url } => {
            let live_logs = it.services.worker.get().and_then(|worker| worker.live_log.as_ref());
            let served = match live_logs {
                Some(server) => server.logs().send(&url, it.range.as_deref()).await,
                None => None,
            };
            let elsewhere = || format!("the log is, or was, served by another server: {url}");
            served.ok_or_else(|| Refusal::new(Code::InputError, elsewhere()))
        }
        content => Ok(artifacts::lead(content)),
    }
}
