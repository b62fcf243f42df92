//! How urgent tasks are once somebody thinks otherwise, and many tasks in one call.

use std::time::Duration;

use docker_worker::queue::task_id::TaskId;
use serde_json::{Value, json};

use super::Who::{Nobody, Root, Worker};
use super::{Player, definition};
use crate::support::call;

impl Player<'_> {
    pub(super) async fn look_at_many(&mut self) {
        let mut ids: Vec<TaskId> = (0..4).map(|_| TaskId::random().unwrap()).collect();
        // In this order they are listed.
        ids.sort();
        let group = TaskId::random().unwrap();
        for (id, priority) in ids.iter().zip(["low", "medium", "low", "high"]) {
            let of_group = json!({ "taskGroupId": group, "schedulerId": "script", "priority": priority });
            let asked = format!("PUT queue/task/{id}");
            self.ask("createTask, one of many", Root, &asked, definition(of_group)).await;
        }
        let cancel = format!("POST queue/task/{}/cancel", ids[3]);
        self.ask("cancelTask, one of many", Root, &cancel, Value::Null).await;
        let waits = TaskId::random().unwrap();
        self.await_resolution(&ids[3], &waits).await;
        self.change_priority(&ids).await;
        self.change_priority_of_group(&group).await;
        self.ask_for_many("tasks", "POST queue/tasks", &ids).await;
        self.ask_for_many("statuses", "POST queue/tasks/status", &ids).await;
        for id in ids.iter().chain([&waits]) {
            call(self.root_url, Some(self.root), &format!("POST queue/task/{id}/cancel"), &Value::Null).await;
        }
    }

    /// Waits until the real queue knows itself that a task has been resolved, which it does soon after it has scheduled what
    /// waits for that.
    async fn await_resolution(&self, resolved: &TaskId, waits: &TaskId) {
        let task = definition(json!({ "dependencies": [resolved], "requires": "all-resolved" }));
        call(self.root_url, Some(self.root), &format!("PUT queue/task/{waits}"), &task).await;
        self.await_state(waits, "pending").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    async fn change_priority(&mut self, ids: &[TaskId]) {
        let none = TaskId::random().unwrap();
        let to = |priority: &str| json!({ "newPriority": priority });
        for (case, who, id, payload) in [
            ("by nobody", Nobody, &ids[0], to("high")),
            ("without the scopes", Worker, &ids[0], to("high")),
            ("of none", Root, &none, to("high")),
            ("to no priority", Root, &ids[0], to("urgent")),
            ("to nothing", Root, &ids[0], json!({})),
            ("with a field too many", Root, &ids[0], json!({ "newPriority": "high", "other": 1 })),
            ("to high", Root, &ids[0], to("high")),
            ("to what it is", Root, &ids[0], to("high")),
            ("of a cancelled one", Root, &ids[3], to("low")),
        ] {
            let asked = format!("POST queue/task/{id}/priority");
            self.ask(&format!("changeTaskPriority {case}"), who, &asked, payload).await;
        }
        self.ask("task of another priority", Nobody, &format!("GET queue/task/{}", ids[0]), Value::Null)
            .await;
    }

    async fn change_priority_of_group(&mut self, group: &TaskId) {
        let none = TaskId::random().unwrap();
        for (case, who, group, priority) in [
            ("by nobody", Nobody, group, "medium"),
            ("without the scopes", Worker, group, "medium"),
            ("of none", Root, &none, "medium"),
            ("to no priority", Root, group, "urgent"),
            ("to medium", Root, group, "medium"),
            ("to what it is", Root, group, "medium"),
        ] {
            let asked = format!("POST queue/task-group/{group}/priority");
            let payload = json!({ "newPriority": priority });
            self.ask(&format!("changeTaskGroupPriority {case}"), who, &asked, payload).await;
        }
    }

    async fn ask_for_many(&mut self, method: &str, asked: &str, ids: &[TaskId]) {
        let none = TaskId::random().unwrap();
        let named = json!({ "taskIds": [ids[3], ids[0], none, ids[1]] });
        for (case, who, payload) in [
            ("by nobody", Nobody, named.clone()),
            ("without the scopes", Worker, named.clone()),
            ("of several", Root, named.clone()),
            ("of one twice", Root, json!({ "taskIds": [ids[0], ids[0]] })),
            ("of none", Root, json!({ "taskIds": [] })),
            ("of what is no id", Root, json!({ "taskIds": ["none"] })),
            ("of something else", Root, json!({ "taskIds": [1] })),
            ("of nothing", Root, json!({})),
            ("with a field too many", Root, json!({ "taskIds": [], "other": 1 })),
        ] {
            self.ask(&format!("{method} {case}"), who, asked, payload).await;
        }
        let part = format!("{asked}?limit=2");
        self.ask(&format!("{method} in parts"), Root, &part, named.clone()).await;
        let Some(token) = self.last["continuationToken"].as_str().map(str::to_owned) else { return };
        let rest = format!("{asked}?limit=2&continuationToken={token}");
        self.ask(&format!("{method}: the rest"), Root, &rest, named).await;
    }
}
