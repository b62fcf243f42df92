//! What can be said to `run`, and what becomes of the task by it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use crate::task::definition::Submission;

/// `maxRunTime` of a task that is made of `--image` alone, in seconds.
const DEFAULT_MAX_RUN_TIME: u64 = 3600;

/// Follows the name of an option that a later version will have.
const NOT_YET: &str = "is not there yet in this version of docker-worker";

/// Options of `run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// A task definition or a bare payload, JSON or YAML.
    #[arg(value_name = "TASK")]
    pub task: Option<PathBuf>,
    /// The command, over the payload's.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
    /// The image, over the payload's: a name, or docker-archive:FILE, oci-archive:FILE, oci:DIR,
    /// dir:DIR.
    #[arg(long, value_name = "REF")]
    pub image: Option<String>,
    /// Keeps artifacts below DIR under their names, and resolution.json.
    #[arg(long, value_name = "DIR")]
    pub artifacts: Option<PathBuf>,
    /// Sets a variable of the task's.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub env: Vec<(String, String)>,
    /// Switches a feature on.
    #[arg(long, value_name = "NAME")]
    pub feature: Vec<String>,
    /// Mounts a cache.
    #[arg(long, value_name = "NAME=PATH", value_parser = pair)]
    pub cache: Vec<(String, String)>,
    /// Seconds that the command may run.
    #[arg(long, value_name = "SECONDS")]
    pub max_run_time: Option<u64>,
    /// The task's network: one that leads outside, unless told otherwise.
    #[arg(long, value_enum)]
    pub network: Option<NetworkMode>,
    /// Events on standard error, one JSON object a line.
    #[arg(long)]
    pub json: bool,
    /// Not there yet: a shell in the task.
    #[arg(long)]
    pub interactive: bool,
    /// Not there yet: runs that real task here.
    #[arg(long, value_name = "ID")]
    pub task_id: Option<String>,
    /// Not there yet: the deployment of --task-id.
    #[arg(long, value_name = "URL")]
    pub root_url: Option<String>,
}

/// What a task can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NetworkMode {
    /// Loopback only.
    None,
    /// The outside, never the host, other tasks or metadata services.
    Default,
}

/// Why the options make no task; one sentence each.
#[derive(Debug, thiserror::Error)]
pub enum OptionError {
    /// Neither a file nor an image.
    #[error("name a task file, or an image with --image REF -- COMMAND")]
    NothingToRun,
    /// An option of a later version.
    #[error("{0} {NOT_YET}")]
    NotYet(&'static str),
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}

impl RunArguments {
    /// Refuses what makes no sense, or not yet.
    ///
    /// # Errors
    ///
    /// [`OptionError`]
    pub fn check(&self) -> Result<(), OptionError> {
        let later = [
            ("--interactive", self.interactive),
            ("--task-id", self.task_id.is_some()),
            ("--root-url", self.root_url.is_some()),
        ];
        if let Some((name, _)) = later.iter().find(|(_, given)| *given) {
            return Err(OptionError::NotYet(name));
        }
        if self.task.is_none() && self.image.is_none() {
            return Err(OptionError::NothingToRun);
        }
        Ok(())
    }

    /// The payload of a task that is made of options alone.
    pub fn bare_payload(&self) -> Submission {
        let mut payload = Map::new();
        payload.insert("maxRunTime".to_owned(), json!(DEFAULT_MAX_RUN_TIME));
        Submission::BarePayload(Value::Object(payload))
    }

    /// Writes the options over what a submission's payload says. What is not as it should be there
    /// stays so, for the payload's check to find.
    pub fn apply(&self, submission: &mut Submission) {
        let payload = match submission {
            Submission::Task(document) => document.get_mut("payload"),
            Submission::BarePayload(payload) => Some(payload),
        };
        let Some(payload) = payload.and_then(Value::as_object_mut) else { return };
        if let Some(image) = &self.image {
            payload.insert("image".to_owned(), json!(image));
        }
        if !self.command.is_empty() {
            payload.insert("command".to_owned(), json!(self.command));
        }
        if let Some(seconds) = self.max_run_time {
            payload.insert("maxRunTime".to_owned(), json!(seconds));
        }
        let text = |pairs: &[(String, String)]| {
            pairs.iter().map(|(name, value)| (name.clone(), json!(value))).collect::<Vec<_>>()
        };
        merge(payload, "env", text(&self.env));
        merge(payload, "cache", text(&self.cache));
        merge(payload, "features", self.feature.iter().map(|name| (name.clone(), json!(true))).collect());
    }
}

fn merge(payload: &mut Map<String, Value>, field: &str, members: Vec<(String, Value)>) {
    if members.is_empty() {
        return;
    }
    let object = payload.entry(field).or_insert_with(|| json!({}));
    if let Some(object) = object.as_object_mut() {
        object.extend(members);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: RunArguments,
    }

    fn options(words: &[&str]) -> RunArguments {
        Line::try_parse_from(["run"].iter().chain(words)).unwrap().options
    }

    #[test]
    fn an_image_and_a_command_are_a_task() {
        let options = options(&["--image", "busybox", "--env", "A=b=c", "--", "sh", "-c", "x"]);
        let mut submission = options.bare_payload();
        options.apply(&mut submission);
        let expected = json!({
            "image": "busybox", "command": ["sh", "-c", "x"], "env": {"A": "b=c"}, "maxRunTime": 3600
        });
        assert_eq!(submission.payload(), &expected);
    }

    #[test]
    fn options_go_over_what_the_file_says() {
        let words =
            ["t.json", "--image", "i", "--cache", "c=/m", "--feature", "bulkLog", "--max-run-time", "5"];
        let options = options(&words);
        let payload = json!({"image": "j", "cache": {"d": "/n"}, "maxRunTime": 9, "command": ["kept"]});
        let mut submission = Submission::BarePayload(payload);
        options.apply(&mut submission);
        let expected = json!({
            "image": "i", "cache": {"d": "/n", "c": "/m"}, "maxRunTime": 5, "command": ["kept"],
            "features": {"bulkLog": true}
        });
        assert_eq!(submission.payload(), &expected);
    }

    #[test]
    fn what_makes_no_task_is_refused() {
        for (words, named) in [
            (&[][..], "name a task file"),
            (&["--interactive", "t"], "--interactive is not there yet"),
            (&["--task-id", "x"], "--task-id is not there yet"),
        ] {
            let error = options(words).check().unwrap_err().to_string();
            assert!(error.starts_with(named), "{error}");
        }
    }
}
