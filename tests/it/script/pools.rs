//! Tasks that are run again, and lists of what there is to do.

use docker_worker::queue::task_id::TaskId;
use serde_json::{Value, json};

use super::Who::{Nobody, Root, Run, Worker};
use super::{Player, TEXT, definition, from_now};

impl Player<'_> {
    /// In a task queue that nobody else uses: the real one counts for a while what is resolved.
    pub(super) async fn look_at_a_pool(&mut self) {
        let pool = self.own_pool.clone();
        let ids: Vec<TaskId> = (0..2).map(|_| TaskId::random().unwrap()).collect();
        self.look("of none").await;
        for id in &ids {
            let task = definition(json!({"taskQueueId": pool}));
            self.ask("createTask of another pool", Root, &format!("PUT queue/task/{id}"), task).await;
        }
        self.look("of two").await;
        let pending = format!("GET queue/task-queues/{}/pending", pool.replace('/', "%2F"));
        self.ask("listPendingTasks in parts", Root, &format!("{pending}?limit=1"), Value::Null).await;
        let token = self.last["continuationToken"].as_str().unwrap().to_owned();
        let rest = format!("{pending}?limit=1&continuationToken={token}");
        self.ask("listPendingTasks: the rest", Root, &rest, Value::Null).await;
        let claim = json!({"workerGroup": "g", "workerId": "w"});
        for id in &ids {
            let run = format!("POST queue/task/{id}/runs/0");
            self.ask("claimTask of another pool", Root, &format!("{run}/claim"), claim.clone()).await;
            self.look("of one less").await;
        }
        for name in ["pending/%", "task-queues/%/counts", "task-queues/%/pending", "task-queues/%/claimed"] {
            let asked = format!("GET queue/{}", name.replace('%', "nothing"));
            self.ask(&format!("{name} of what is no pool"), Root, &asked, Value::Null).await;
        }
        self.run_again(&ids[1]).await;
    }

    async fn look(&mut self, case: &str) {
        let pool = self.own_pool.replace('/', "%2F");
        for (method, path) in [
            ("pendingTasks", format!("pending/{pool}")),
            ("taskQueueCounts", format!("task-queues/{pool}/counts")),
            ("listPendingTasks", format!("task-queues/{pool}/pending")),
            ("listClaimedTasks", format!("task-queues/{pool}/claimed")),
        ] {
            self.ask(&format!("{method} {case}"), Root, &format!("GET queue/{path}"), Value::Null).await;
        }
        self.ask(
            "taskQueueCounts by a worker",
            Worker,
            &format!("GET queue/task-queues/{pool}/counts"),
            Value::Null,
        )
        .await;
    }

    /// A task that has its first run.
    async fn run_again(&mut self, id: &TaskId) {
        let (task, none) = (format!("queue/task/{id}"), TaskId::random().unwrap());
        self.make_small_artifacts(&task).await;
        for (name, who, asked) in [
            ("rerunTask of none", Root, format!("POST queue/task/{none}/rerun")),
            ("rerunTask by nobody", Nobody, format!("POST {task}/rerun")),
            ("rerunTask that runs", Root, format!("POST {task}/rerun")),
            ("reportFailed to be run again", Run, format!("POST {task}/runs/0/failed")),
            ("rerunTask", Root, format!("POST {task}/rerun")),
            ("rerunTask that is pending", Root, format!("POST {task}/rerun")),
            ("reportFailed again of the first run", Run, format!("POST {task}/runs/0/failed")),
            ("listLatestArtifacts of a new run", Nobody, format!("GET {task}/artifacts")),
            ("latestArtifactInfo of a new run", Nobody, format!("GET {task}/artifact-info/public%2F1")),
            ("cancelTask of a new run", Root, format!("POST {task}/cancel")),
        ] {
            self.ask(name, who, &asked, Value::Null).await;
        }
        let s3 = json!({"storageType": "s3", "expires": from_now(60), "contentType": TEXT});
        let asked = format!("POST {task}/runs/1/artifacts/late");
        self.ask("createArtifact of a run that nobody had", Root, &asked, s3).await;
    }

    async fn make_small_artifacts(&mut self, task: &str) {
        let run = format!("{task}/runs/0");
        for name in ["public%2F1", "public%2F2", "private%2F3"] {
            let reference = json!({
                "storageType": "reference", "expires": from_now(60), "contentType": TEXT,
                "url": "https://example.com/",
            });
            self.ask("createArtifact to be listed", Run, &format!("POST {run}/artifacts/{name}"), reference)
                .await;
        }
        self.ask("listArtifacts in parts", Nobody, &format!("GET {run}/artifacts?limit=2"), Value::Null)
            .await;
        let token = self.last["continuationToken"].as_str().unwrap().to_owned();
        for (name, asked) in [
            ("listArtifacts: the rest", format!("{run}/artifacts?continuationToken={token}")),
            ("listLatestArtifacts in parts", format!("{task}/artifacts?limit=2")),
            ("listArtifacts with a bad limit", format!("{run}/artifacts?limit=x")),
            ("artifactInfo", format!("{run}/artifact-info/public%2F1")),
            ("artifactInfo of none", format!("{run}/artifact-info/public%2F9")),
            ("artifactInfo of another run", format!("{task}/runs/1/artifact-info/public%2F1")),
            ("latestArtifactInfo", format!("{task}/artifact-info/private/3")),
        ] {
            self.ask(name, Nobody, &format!("GET {asked}"), Value::Null).await;
        }
    }
}
