//! What has expired goes: the bytes of artifacts, then whatever the queue knows of them and of their tasks.

use std::sync::Arc;
use std::time::Duration;

use super::Services;
use super::artifacts::object_name;
use super::storage::Storage;
use crate::queue::{EmbeddedQueue, More, QueueError};
use crate::timestamp::Timestamp;

/// How often it is looked for.
const EVERY: Duration = Duration::from_secs(60 * 60);
/// How long something is kept after it has expired. Nobody can put the bytes of an artifact so late.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Sweeps now and then, for ever.
pub(super) async fn keep_swept(services: Arc<Services>) {
    loop {
        // What cannot be removed for now can be an hour later.
        sweep(&services.queue, &services.storage).await.unwrap_or_default();
        tokio::time::sleep(EVERY).await;
    }
}

/// Removes all that has expired long enough ago.
async fn sweep(queue: &EmbeddedQueue, storage: &Storage) -> Result<(), QueueError> {
    let kept = i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX);
    let before = Timestamp::from_millis(queue.now().as_millis().saturating_sub(kept));
    loop {
        let mut removed = Vec::new();
        for (run, name) in queue.expired_artifacts(before).await? {
            if storage.remove(&object_name(&run, &name)).await.is_ok() {
                removed.push((run, name));
            }
        }
        if removed.is_empty() {
            break;
        }
        queue.forget_artifacts(before, removed).await?;
    }
    while queue.forget_tasks(before).await? == More::Maybe {}
    while queue.shrink().await? == More::Maybe {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::queue::artifact_name::ArtifactName;
    use crate::queue::definition::{Submission, TaskDefinition};
    use crate::queue::task_id::TaskId;
    use crate::queue::{ArtifactContent, ArtifactRequest, RunId, WorkerIdentity};

    #[tokio::test]
    async fn the_bytes_of_an_artifact_go_a_day_after_it_has_expired_and_its_task_when_all_have_gone() {
        let hour = Arc::new(AtomicI64::new(0));
        let hand = Arc::clone(&hour);
        let clock = move || Timestamp::from_millis(hand.load(Ordering::Relaxed) * 3_600_000);
        let queue = EmbeddedQueue::in_memory(Box::new(clock)).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::open(directory.path().to_owned(), "secret").unwrap();
        let after = |hours: u64| Timestamp::from_millis(0).plus(Duration::from_secs(hours * 3600));

        let task_id = TaskId::random().unwrap();
        let submission = Submission::parse(br#"{"image": "i", "maxRunTime": 60}"#).unwrap();
        let task = submission.into_task(&task_id, queue.now()).unwrap().definition;
        let task = TaskDefinition { deadline: after(2), expires: after(48), ..task };
        queue.create_task(&task_id, &task).await.unwrap();
        let run = RunId { task_id: task_id.clone(), run_id: 0 };
        let worker = WorkerIdentity { worker_group: "g".to_owned(), worker_id: "w".to_owned() };
        queue.claim_run(&run, &worker).await.unwrap();
        for (name, expires) in [("public/early", after(24)), ("public/late", after(48))] {
            let name = ArtifactName::new(name).unwrap();
            let content = ArtifactContent::S3 { content_type: "text/plain".to_owned() };
            queue
                .run(run.clone())
                .create_artifact(&name, &ArtifactRequest { expires, content })
                .await
                .unwrap();
            std::fs::write(storage.path(&object_name(&run, &name)), "bytes").unwrap();
        }
        let files = || {
            let entries = std::fs::read_dir(directory.path()).unwrap();
            entries.filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_file()).count()
        };
        for (hours, left, is_known) in
            [(0, 2, true), (48, 2, true), (49, 1, true), (72, 1, true), (73, 0, false)]
        {
            hour.store(hours, Ordering::Relaxed);
            sweep(&queue, &storage).await.unwrap();
            assert_eq!(
                (files(), queue.status(&task_id).await.is_ok()),
                (left, is_known),
                "after {hours} hours"
            );
        }
    }
}
