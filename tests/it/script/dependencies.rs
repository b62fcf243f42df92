//! Tasks that wait for others.

use std::time::{Duration, Instant};

use docker_worker::queue::task_id::TaskId;
use serde_json::{Value, json};

use super::Who::{Nobody, Root};
use super::{Player, definition, from_now};
use crate::support::call;

impl Player<'_> {
    pub(super) async fn depend(&mut self) {
        // In this order they are listed.
        let mut ids: Vec<TaskId> = (0..10).map(|_| TaskId::random().unwrap()).collect();
        ids.sort();
        self.refuse_dependencies(&ids[8]).await;
        let [required, first, second, short] = [&ids[0], &ids[1], &ids[2], &ids[3]];
        self.make("to be required", required, json!({})).await;
        self.make("that waits", first, json!({"dependencies": [required]})).await;
        self.make("that waits, again", first, json!({"dependencies": [required]})).await;
        self.make("that waits for two", second, json!({"dependencies": [required, first]})).await;
        let soon = json!({"deadline": from_now(60), "expires": from_now(120)});
        self.make("that expires soon", short, soon).await;
        self.make("that waits for one that expires", &ids[4], json!({"dependencies": [short]})).await;
        self.list_dependents(required).await;
        let claim = json!({"workerGroup": "g", "workerId": "w"});
        self.ask(
            "claimTask of an unscheduled one",
            Root,
            &format!("POST queue/task/{first}/runs/0/claim"),
            claim,
        )
        .await;
        for (name, asked) in [
            ("listArtifacts of an unscheduled one", format!("GET queue/task/{first}/runs/0/artifacts")),
            ("listLatestArtifacts of an unscheduled one", format!("GET queue/task/{first}/artifacts")),
        ] {
            self.ask(name, Nobody, &asked, Value::Null).await;
        }
        self.schedule_by_hand(&ids[4]).await;
        self.resolve_dependencies(&ids).await;
        for id in &ids {
            call(self.root_url, Some(self.root), &format!("POST queue/task/{id}/cancel"), &Value::Null).await;
        }
    }

    async fn make(&mut self, case: &str, id: &TaskId, more: Value) {
        let name = format!("createTask {case}");
        self.ask(&name, Root, &format!("PUT queue/task/{id}"), definition(more)).await;
    }

    async fn refuse_dependencies(&mut self, id: &TaskId) {
        let none = TaskId::random().unwrap();
        self.make("that requires what is not there", id, json!({"dependencies": [none]})).await;
        self.ask("status of what was refused", Nobody, &format!("GET queue/task/{id}/status"), Value::Null)
            .await;
        self.make("that requires one twice", id, json!({"dependencies": [none, none]})).await;
        self.make("that requires what is no id", id, json!({"dependencies": ["a"]})).await;
        self.make("that requires something else", id, json!({"requires": "all"})).await;
    }

    async fn list_dependents(&mut self, required: &TaskId) {
        let list = format!("GET queue/task/{required}/dependents");
        let none = TaskId::random().unwrap();
        for (case, who, asked) in [
            ("", Root, list.clone()),
            (" by nobody", Nobody, list.clone()),
            (" of none", Root, format!("GET queue/task/{none}/dependents")),
            (" in parts", Root, format!("{list}?limit=1")),
        ] {
            self.ask(&format!("listDependentTasks{case}"), who, &asked, Value::Null).await;
        }
        let token = self.last["continuationToken"].as_str().unwrap().to_owned();
        for (case, query) in [
            (": the rest", format!("limit=1&continuationToken={token}")),
            (", none at a time", "limit=0".to_owned()),
            (" with a bad limit", "limit=many".to_owned()),
            (" with a bad token", "continuationToken=a!".to_owned()),
            (" with a parameter too many", "other=1".to_owned()),
        ] {
            let asked = format!("{list}?{query}");
            self.ask(&format!("listDependentTasks{case}"), Root, &asked, Value::Null).await;
        }
        self.ask(
            "status with a parameter",
            Nobody,
            &format!("GET queue/task/{required}/status?limit=1"),
            Value::Null,
        )
        .await;
    }

    async fn schedule_by_hand(&mut self, id: &TaskId) {
        let none = TaskId::random().unwrap();
        self.make("that waits for itself", id, json!({"dependencies": [id]})).await;
        let schedule = format!("POST queue/task/{id}/schedule");
        for (case, who, asked) in [
            (" by nobody", Nobody, &schedule),
            (" of none", Root, &format!("POST queue/task/{none}/schedule")),
            ("", Root, &schedule),
            (" again", Root, &schedule),
        ] {
            self.ask(&format!("scheduleTask{case}"), who, asked, Value::Null).await;
        }
    }

    async fn resolve_dependencies(&mut self, ids: &[TaskId]) {
        let [required, first, second, failing] = [&ids[0], &ids[1], &ids[2], &ids[5]];
        self.make("to be cancelled", failing, json!({})).await;
        self.make("that waits for its completion", &ids[6], json!({"dependencies": [failing]})).await;
        let resolved = json!({"dependencies": [failing], "requires": "all-resolved"});
        self.make("that waits for its resolution", &ids[7], resolved).await;
        self.ask(
            "cancelTask that others wait for",
            Root,
            &format!("POST queue/task/{failing}/cancel"),
            Value::Null,
        )
        .await;
        self.await_state(&ids[7], "pending").await;
        for (name, id) in [("still waits", &ids[6]), ("waits no longer", &ids[7])] {
            let asked = format!("GET queue/task/{id}/status");
            self.ask(&format!("status of a task that {name}"), Nobody, &asked, Value::Null).await;
        }
        let cancel = format!("POST queue/task/{}/cancel", ids[6]);
        self.ask("cancelTask that waits", Root, &cancel, Value::Null).await;
        let schedule = format!("POST queue/task/{}/schedule", ids[6]);
        self.ask("scheduleTask that is cancelled", Root, &schedule, Value::Null).await;
        let claim = json!({"workerGroup": "g", "workerId": "w"});
        let run = format!("POST queue/task/{required}/runs/0");
        self.ask("claimTask that others wait for", Root, &format!("{run}/claim"), claim).await;
        self.ask("reportCompleted that others wait for", Root, &format!("{run}/completed"), Value::Null)
            .await;
        self.await_state(first, "pending").await;
        for (name, id) in [("waited for one", first), ("waits for another", second)] {
            let asked = format!("GET queue/task/{id}/status");
            self.ask(&format!("status of a task that {name}"), Nobody, &asked, Value::Null).await;
        }
        self.make("that waits for a completed one", &ids[8], json!({"dependencies": [required]})).await;
        self.make("that waits for another too", &ids[9], json!({"dependencies": [required, first]})).await;
    }

    /// Waits until a task is in a state: the real queue is not there at once.
    pub(super) async fn await_state(&self, id: &TaskId, state: &str) {
        let begin = Instant::now();
        loop {
            let status =
                call(self.root_url, None, &format!("GET queue/task/{id}/status"), &Value::Null).await;
            if status.body["status"]["state"] == state {
                return;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "{status:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
