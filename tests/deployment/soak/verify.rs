//! Whether each task is as it has to be in the queue: a sentence for all that is not.

use std::collections::BTreeMap;

use futures_util::StreamExt;

use super::deployment::{Deployment, Run};
use super::journal::Journal;
use super::kinds::{Expected, Kind};

const LOG: &str = "public/logs/live.log";
const BACKING_LOG: &str = "public/logs/live_backing.log";

/// Tasks that are looked at at the same time.
const AT_ONCE: usize = 4;

/// A task that was made, and what has become of it.
pub struct Ended {
    pub kind: Kind,
    pub task_id: String,
    pub runs: Vec<Run>,
}

/// How often each reason was given to runs that were not a task's last.
pub type Lost = BTreeMap<String, usize>;

/// What is wrong, with the task's kind.
pub async fn verify(deployment: &Deployment, journal: &Journal, tasks: &[Ended]) -> Vec<(Kind, String)> {
    let looks = tasks.iter().map(|task| look(deployment, journal, task));
    let found: Vec<Vec<(Kind, String)>> = futures_util::stream::iter(looks).buffered(AT_ONCE).collect().await;
    found.concat()
}

/// Reasons of the runs before each task's last.
pub fn lost(tasks: &[&Ended]) -> Lost {
    let mut lost = Lost::new();
    for run in tasks.iter().flat_map(|task| task.runs.split_last().unwrap().1) {
        *lost.entry(run.reason.clone().unwrap_or_default()).or_default() += 1;
    }
    lost
}

async fn look(deployment: &Deployment, journal: &Journal, task: &Ended) -> Vec<(Kind, String)> {
    let look = Look { deployment, journal, task, expected: task.kind.expected() };
    let mut problems = look.resolutions();
    let (last, earlier) = task.runs.split_last().unwrap();
    for run in earlier {
        problems.extend(look.lost_run(run).await);
    }
    problems.extend(look.last_run(last).await);
    let told = |problem| format!("task {} ({}): {problem}", task.task_id, task.kind.name());
    problems.into_iter().map(|problem| (task.kind, told(problem))).collect()
}

struct Look<'a> {
    deployment: &'a Deployment,
    journal: &'a Journal,
    task: &'a Ended,
    expected: Expected,
}

impl Look<'_> {
    /// Each run has one resolution: the last the expected one, those before it one that is nobody's fault.
    fn resolutions(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let last = self.task.runs.len() - 1;
        for (number, run) in self.task.runs.iter().enumerate() {
            let reason = run.reason.as_deref().unwrap_or("not at all");
            let fits = if number == last {
                reason == self.expected.reason
            } else {
                let asked = self.task.kind == Kind::AsksForAnotherTry && reason == "intermittent-task";
                asked || ["worker-shutdown", "claim-expired"].contains(&reason)
            };
            if !fits {
                problems.push(format!("run {number} of {} was resolved as {reason}", last + 1));
            }
            let told = self.journal.resolutions(&(self.task.task_id.clone(), run.run_id));
            if let Some(other) = told.into_iter().flatten().find(|told| *told != reason) {
                problems.push(format!("run {number} was resolved as {reason}, and the worker says {other}"));
            }
        }
        problems
    }

    /// What a killed worker has left of a run whose command had begun: its log, as far as it came.
    async fn lost_run(&self, run: &Run) -> Option<String> {
        let key = (self.task.task_id.clone(), run.run_id);
        if run.reason.as_deref() != Some("worker-shutdown") || !self.journal.was_started(&key) {
            return None;
        }
        let log = self.fetch(run, LOG).await;
        // The queue may have refused to hear how it ended.
        let ended = |log: String| whole(&log, -1).or_else(|_| whole(&log, self.expected.exit_code));
        let problem = log.and_then(ended).err()?;
        Some(format!("the log of run {}: {problem}", run.run_id))
    }

    async fn last_run(&self, run: &Run) -> Vec<String> {
        // Somebody else may have taken the task before anybody began.
        if !run.was_started {
            return Vec::new();
        }
        let mut problems = self.kinds_of_artifacts(run).await;
        let log = self.fetch(run, LOG).await;
        let checked = log.and_then(|log| {
            whole(&log, self.expected.exit_code)?;
            let count = log.matches(&self.expected.words).count();
            if count == 0 {
                Err(format!("what the task prints is not there: {}", end_of(&log)))
            } else {
                Ok(())
            }
        });
        problems.extend(checked.err().map(|problem| format!("the log: {problem}")));
        for (name, content) in &self.expected.artifacts {
            let Some(content) = content else { continue };
            match self.fetch(run, name).await {
                Ok(found) if found == *content => {}
                Ok(found) => problems.push(format!(
                    "the artifact {name} has {} bytes that are not those of the task",
                    found.len()
                )),
                Err(problem) => problems.push(format!("the artifact {name}: {problem}")),
            }
        }
        problems
    }

    /// Exactly those artifacts are there that have to be.
    async fn kinds_of_artifacts(&self, run: &Run) -> Vec<String> {
        let kind = |storage: &str| if storage == "object" { "s3".to_owned() } else { storage.to_owned() };
        let found = self.deployment.artifacts(&self.task.task_id, run.run_id).await;
        let found: BTreeMap<String, String> =
            found.into_iter().map(|(name, storage)| (name, kind(&storage))).collect();
        let of_payload = self.expected.artifacts.iter().map(|(name, content)| {
            ((*name).to_owned(), if content.is_some() { "s3" } else { "error" }.to_owned())
        });
        let of_log = [(LOG, "link"), (BACKING_LOG, "s3")];
        let of_log = of_log.map(|(name, storage)| (name.to_owned(), storage.to_owned()));
        let expected: BTreeMap<String, String> = of_log.into_iter().chain(of_payload).collect();
        if found == expected { Vec::new() } else { vec![format!("its artifacts are {found:?}")] }
    }

    async fn fetch(&self, run: &Run, name: &str) -> Result<String, String> {
        self.deployment.fetch(&self.task.task_id, run.run_id, name).await
    }
}

/// A log begins with its header and ends with the line that says how the run ended.
fn whole(log: &str, exit_code: i32) -> Result<(), String> {
    let footer = format!("task run with exit code: {exit_code} completed in ");
    if !log.starts_with("[taskcluster ") {
        return Err(format!("it does not begin with a header: {}", log.lines().next().unwrap_or_default()));
    }
    if !log.lines().last().unwrap_or_default().contains(&footer) {
        return Err(format!("it does not end with exit code {exit_code}: {}", end_of(log)));
    }
    Ok(())
}

fn end_of(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    format!("{:?}", lines.split_at(lines.len().saturating_sub(6)).1)
}
