//! Task groups.

use docker_worker::queue::task_id::TaskId;
use serde_json::{Value, json};

use super::Who::{Nobody, Root};
use super::{Player, definition};
use crate::support::call;

impl Player<'_> {
    pub(super) async fn group(&mut self) {
        let mut ids: Vec<TaskId> = (0..4).map(|_| TaskId::random().unwrap()).collect();
        // In this order they are listed.
        ids.sort();
        let group = TaskId::random().unwrap();
        self.ask_for_groups("of none", &group).await;
        self.ask("getTaskGroup of what is no id", Nobody, "GET queue/task-group/none", Value::Null).await;
        let of_group = |more: Value| {
            let mut task = definition(json!({ "taskGroupId": group, "schedulerId": "script" }));
            task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            task
        };
        let other = of_group(json!({"schedulerId": "other"}));
        let (first, second) = (of_group(json!({})), of_group(json!({"dependencies": [ids[0]]})));
        for (case, id, task) in [
            ("of a group", &ids[0], &first),
            ("of the same group", &ids[1], &second),
            ("of the same group and another scheduler", &ids[2], &other),
        ] {
            self.ask(&format!("createTask {case}"), Root, &format!("PUT queue/task/{id}"), task.clone())
                .await;
        }
        self.list_group(&group).await;
        let (seal, cancel) =
            (format!("POST queue/task-group/{group}/seal"), format!("POST queue/task-group/{group}/cancel"));
        for (name, who, asked) in [
            ("cancelTaskGroup that is not sealed", Root, &cancel),
            ("cancelTaskGroup that is not sealed, by nobody", Nobody, &cancel),
            ("sealTaskGroup by nobody", Nobody, &seal),
            ("sealTaskGroup", Root, &seal),
            ("sealTaskGroup again", Root, &seal),
        ] {
            self.ask(name, who, asked, Value::Null).await;
        }
        for (name, who) in [
            ("cancelTaskGroup by nobody", Nobody),
            ("cancelTaskGroup", Root),
            ("cancelTaskGroup again", Root),
        ] {
            self.ask(name, who, &cancel, Value::Null).await;
        }
        let list = format!("GET queue/task-group/{group}/list?limit=2");
        self.ask("listTaskGroup that is cancelled", Nobody, &list, Value::Null).await;
        for (case, id) in [("of a sealed group", &ids[3]), ("again, of a sealed group", &ids[0])] {
            let asked = format!("PUT queue/task/{id}");
            self.ask(&format!("createTask {case}"), Root, &asked, first.clone()).await;
        }
        for id in &ids {
            // The real queue makes a task in spite of its refusal.
            call(self.root_url, Some(self.root), &format!("POST queue/task/{id}/cancel"), &Value::Null).await;
        }
    }

    async fn ask_for_groups(&mut self, case: &str, group: &TaskId) {
        for (method, asked) in [
            ("getTaskGroup", format!("GET queue/task-group/{group}")),
            ("listTaskGroup", format!("GET queue/task-group/{group}/list")),
            ("sealTaskGroup", format!("POST queue/task-group/{group}/seal")),
            ("cancelTaskGroup", format!("POST queue/task-group/{group}/cancel")),
        ] {
            self.ask(&format!("{method} {case}"), Root, &asked, Value::Null).await;
        }
    }

    async fn list_group(&mut self, group: &TaskId) {
        let list = format!("GET queue/task-group/{group}/list");
        self.ask("getTaskGroup", Nobody, &format!("GET queue/task-group/{group}"), Value::Null).await;
        self.ask("listTaskGroup", Nobody, &list, Value::Null).await;
        self.ask("listTaskGroup in parts", Nobody, &format!("{list}?limit=1"), Value::Null).await;
        let token = self.last["continuationToken"].as_str().unwrap().to_owned();
        let rest = format!("{list}?continuationToken={token}&limit=1000");
        self.ask("listTaskGroup: the rest", Nobody, &rest, Value::Null).await;
        self.ask("listTaskGroup with a bad limit", Nobody, &format!("{list}?limit=-1"), Value::Null).await;
    }
}
