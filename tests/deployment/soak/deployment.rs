//! The deployment as the author of tasks sees it.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use docker_worker::queue::task_id::TaskId;
use docker_worker::timestamp::Timestamp;
use serde_json::{Value, json};
use taskcluster::{ClientBuilder, Credentials, Queue, Retry};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

/// How long a task may wait for its turn.
const DEADLINE: Duration = Duration::from_secs(3 * 3600);

/// Where `standalone` listens, and the pool whose tasks it carries out, unless it is told otherwise.
const OWN_QUEUE: (&str, &str) = ("http://127.0.0.1:8239", "local/docker-worker");

/// More than a queue takes that is killed, or has been, to be there again.
const AWAY: Retry = Retry {
    retries: 30,
    max_delay: Duration::from_secs(2),
    delay_factor: Duration::from_millis(100),
    randomization_factor: 0.25,
};

/// Tasks that are asked for in one call: as many as a queue answers in one part. The client of the crate signs a request for
/// a further part without its query, which no service accepts.
pub const AT_ONCE: usize = 500;

/// A client whose tasks are all of one group.
pub struct Deployment {
    root_url: String,
    pool: String,
    group: TaskId,
    queue: Queue,
}

/// One run, as the queue tells it.
#[derive(Debug)]
pub struct Run {
    pub run_id: u64,
    /// How it was resolved; nothing if it is not.
    pub reason: Option<String>,
    pub was_started: bool,
}

impl Deployment {
    /// That of a worker's configuration, with the credentials of the environment.
    pub fn new(config: &Value) -> Deployment {
        let key = |key: &str| {
            config[key].as_str().unwrap_or_else(|| panic!("the configuration has to say {key}")).to_owned()
        };
        let root_url = key("rootUrl");
        let credentials = Credentials::from_env().expect(
            "TASKCLUSTER_CLIENT_ID and TASKCLUSTER_ACCESS_TOKEN have to name a client that may make tasks",
        );
        let pool = format!("{}/{}", key("provisionerId"), key("workerType"));
        Deployment::at(root_url, pool, credentials)
    }

    /// The queue of `standalone`, once that has made its credentials in the data directory.
    pub async fn own(data: &Path) -> Deployment {
        let (file, begun) = (data.join("credentials.json"), Instant::now());
        while !file.exists() {
            assert!(begun.elapsed() < Duration::from_secs(60), "there is no {}", file.display());
            sleep(Duration::from_millis(50)).await;
        }
        let made: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        let credentials = Credentials::new(text(&made["clientId"]), text(&made["accessToken"]));
        let (root_url, pool) = OWN_QUEUE;
        Deployment::at(root_url.to_owned(), pool.to_owned(), credentials)
    }

    fn at(root_url: String, pool: String, credentials: Credentials) -> Deployment {
        let client = ClientBuilder::new(&root_url).credentials(credentials).retry(AWAY);
        Deployment { queue: Queue::new(client).unwrap(), root_url, pool, group: TaskId::random().unwrap() }
    }

    /// Makes a task.
    pub async fn create(&self, name: &str, scopes: &[&str], payload: &Value) -> String {
        let task_id = TaskId::random().unwrap();
        let now = Timestamp::now();
        let definition = json!({
            "taskQueueId": self.pool,
            "taskGroupId": self.group.as_str(),
            "retries": 20,
            "created": now,
            "deadline": now.plus(DEADLINE),
            "expires": now.plus(2 * DEADLINE),
            "scopes": scopes,
            "payload": payload,
            "metadata": {
                "name": name, "description": "one of many",
                "owner": "nobody@example.com", "source": "https://example.com/"
            },
        });
        self.queue.createTask(task_id.as_str(), &definition).await.unwrap();
        task_id.as_str().to_owned()
    }

    pub async fn cancel(&self, task_id: &str) {
        self.queue.cancelTask(task_id).await.unwrap();
    }

    /// State and runs of tasks; of [`AT_ONCE`] at most.
    pub async fn statuses(&self, task_ids: &[&str]) -> HashMap<String, (String, Vec<Run>)> {
        let asked = json!({ "taskIds": task_ids });
        let mut attempts = AWAY.retries;
        let found = loop {
            match self.queue.statuses(&asked, None, None).await {
                Ok(found) => break found,
                // A fault that was for the worker, which asks for states as well.
                Err(error) => assert!(attempts > 0, "{error}"),
            }
            attempts -= 1;
        };
        let found = found["statuses"].as_array().unwrap().iter().map(|it| {
            let status = &it["status"];
            let runs = status["runs"].as_array().unwrap().iter().map(read_run).collect();
            (text(&it["taskId"]), (text(&status["state"]), runs))
        });
        found.collect()
    }

    /// Names and kinds of storage of a run's artifacts.
    pub async fn artifacts(&self, task_id: &str, run_id: u64) -> Vec<(String, String)> {
        let list = self.queue.listArtifacts(task_id, &run_id.to_string(), None, None).await.unwrap();
        let list = list["artifacts"].as_array().unwrap().iter();
        list.map(|it| (text(&it["name"]), text(&it["storageType"]))).collect()
    }

    /// What is in a public artifact, as curl gets and decodes it; or curl's sentence.
    pub async fn fetch(&self, task_id: &str, run_id: u64, name: &str) -> Result<String, String> {
        let name = name.replace('/', "%2F");
        let url = format!("{}/api/queue/v1/task/{task_id}/runs/{run_id}/artifacts/{name}", self.root_url);
        let options = ["--silent", "--show-error", "--fail", "--location", "--compressed", &url];
        let output = Command::new("curl").args(options).output().await.unwrap();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
    }
}

fn read_run(run: &Value) -> Run {
    Run {
        run_id: run["runId"].as_u64().unwrap(),
        reason: run["reasonResolved"].as_str().map(str::to_owned),
        was_started: run["started"].is_string(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
