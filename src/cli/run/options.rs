//! What can be said to `run`, and what becomes of the task by it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use crate::known_features::{FEATURE_NAMES, KnownFeature, Support, find};
use crate::payload::{CacheName, MountPoint, Origin, meant_by};
use crate::queue::definition::Submission;
use crate::queue::task_id::TaskId;
use crate::standalone::{RootUrl, RootUrlError};
use crate::suggestion::did_you_mean;
use crate::units::parse_seconds;

/// `maxRunTime` of a task that is made of `--image` alone, in seconds.
const DEFAULT_MAX_RUN_TIME: u64 = 3600;

/// Largest file of variables in bytes.
const ENV_FILE_BYTES: u64 = 1 << 20;

/// Follows the name of what a later version will have.
const NOT_YET: &str = "is not there yet in this version of docker-worker";

/// Options of `run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// A task definition or a bare payload, JSON or YAML; "-" reads it from standard input.
    #[arg(value_name = "TASK")]
    pub task: Option<PathBuf>,
    /// The command, over the payload's.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
    /// The image, over the payload's: a name, or docker-archive:FILE, oci-archive:FILE, oci:DIR,
    /// dir:DIR.
    #[arg(long, value_name = "REF", help_heading = "What runs")]
    pub image: Option<String>,
    /// The deployment that has the task --task-id: its definition runs here, and the deployment hears nothing of it
    /// (default: TASKCLUSTER_ROOT_URL, where there is no task file).
    #[arg(long, value_name = "URL", requires = "task_id", help_heading = "What runs")]
    pub root_url: Option<RootUrl>,
    /// The id that the task has here; with --root-url, which task of the deployment it is.
    // An id may begin with a hyphen.
    #[arg(long, value_name = "ID", value_parser = task_id, allow_hyphen_values = true, help_heading = "What runs")]
    pub task_id: Option<TaskId>,
    /// How long the command may run: seconds, or a time such as 20m or 1h30m.
    #[arg(long, value_name = "TIME", value_parser = run_time, help_heading = "What runs")]
    pub max_run_time: Option<u64>,
    /// Sets a variable of the task's; NAME alone passes on the worker's own.
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = variable, help_heading = "What the task has")]
    pub env: Vec<Variable>,
    /// Sets variables by the lines of a file, each as --env; "#" begins a comment.
    #[arg(long, value_name = "FILE", help_heading = "What the task has")]
    pub env_file: Vec<PathBuf>,
    /// Mounts a cache.
    #[arg(long, value_name = "NAME=PATH", value_parser = cache, help_heading = "What the task has")]
    pub cache: Vec<(String, String)>,
    /// Switches a feature on.
    #[arg(long, value_name = "NAME", value_parser = feature, help_heading = "What the task has")]
    pub feature: Vec<&'static str>,
    /// The task's network: one that leads outside, unless told otherwise.
    #[arg(long, value_enum, help_heading = "What the task has")]
    pub network: Option<NetworkMode>,
    /// Keeps artifacts below DIR under their names, and resolution.json.
    #[arg(long, value_name = "DIR", help_heading = "What is told and kept")]
    pub artifacts: Option<PathBuf>,
    /// Nothing on standard error but why a task did not run to its end.
    #[arg(short, long, conflicts_with = "json", help_heading = "What is told and kept")]
    pub quiet: bool,
    /// Everything on standard error as events, one JSON object a line.
    #[arg(long, help_heading = "What is told and kept")]
    pub json: bool,
    /// Whoever starts the task has said already what this host lacks.
    #[arg(long, hide = true)]
    pub host_is_known: bool,
    /// A shell in the task.
    #[arg(long, help_heading = "Not there yet")]
    pub interactive: bool,
}

/// A variable and its value; `None`: nothing sets it.
type Variable = (String, Option<String>);

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
    /// An id, and no task for it.
    #[error(
        "name the deployment that has the task {0} with --root-url URL or TASKCLUSTER_ROOT_URL, or a task file that is to have that id"
    )]
    NoTask(TaskId),
    /// The environment's deployment is none.
    #[error("TASKCLUSTER_ROOT_URL {url:?}: {problem}; correct it, or say --root-url")]
    RootUrl {
        /// As written.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// A file, and a task of a deployment.
    #[error("--root-url names a task of a deployment: leave the task file {} out", .0.display())]
    TwoTasks(PathBuf),
    /// An option of a later version.
    #[error("{0} {NOT_YET}")]
    NotYet(&'static str),
    /// It is a file of this host.
    #[error("--image {image} is a file here; to run it: --image {meant}")]
    ImageFile {
        /// As written.
        image: String,
        /// As it has to be.
        meant: String,
    },
    /// A file of variables cannot be read.
    #[error("failed to read the variables in {}: {source}", path.display())]
    EnvFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A line of it is no variable.
    #[error("the variables in {}, line {line}: {problem}", path.display())]
    EnvLine {
        /// The file.
        path: PathBuf,
        /// Counts from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
}

/// `NAME=VALUE`, or `NAME` for the worker's own.
fn variable(text: &str) -> Result<Variable, String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, std::env::var(text).ok()),
    };
    if name.is_empty() || name.contains('\0') {
        return Err("write it as NAME=VALUE, or NAME alone for the worker's own".to_owned());
    }
    Ok((name.to_owned(), value))
}

fn task_id(text: &str) -> Result<TaskId, &'static str> {
    TaskId::parse(text)
        .map_err(|_| "an id has 22 letters, digits, \"-\" and \"_\", as fN1SbArXTPSVFNUvaOlinQ")
}

fn cache(text: &str) -> Result<(String, String), String> {
    let (name, path) = text.split_once('=').ok_or("write it as NAME=PATH")?;
    let name = CacheName::new(name).map_err(|error| error.to_string())?;
    let path = MountPoint::new(path).map_err(|error| format!("the mount point must {error}"))?;
    Ok((name.as_str().to_owned(), path.as_str().to_owned()))
}

fn run_time(text: &str) -> Result<u64, String> {
    match parse_seconds(text)? {
        0 => Err("must be at least 1 second".to_owned()),
        seconds => Ok(seconds),
    }
}

fn feature(name: &str) -> Result<&'static str, String> {
    match find(name) {
        Some(KnownFeature { name, support: Support::NotYet, .. }) => Err(format!("{name} {NOT_YET}")),
        Some(KnownFeature { name, .. }) => Ok(name),
        None => Err(did_you_mean(name, &FEATURE_NAMES)),
    }
}

fn read_variables(path: &Path) -> Result<Vec<Variable>, OptionError> {
    let failed = |source| OptionError::EnvFile { path: path.to_owned(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    // One byte more than is allowed, so that the limit is noticed.
    let bytes = file.take(ENV_FILE_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if bytes as u64 > ENV_FILE_BYTES {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim_start()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(line, text)| {
            variable(text).map_err(|problem| OptionError::EnvLine { path: path.to_owned(), line, problem })
        })
        .collect()
}

impl RunArguments {
    /// Takes the deployment from the environment, where it is a task of one that is to run.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn complete(&mut self, root_url: Option<&str>) -> Result<(), OptionError> {
        let is_open = self.task.is_none() && self.root_url.is_none();
        if let Some(text) = root_url.filter(|text| !text.is_empty() && is_open && self.task_id.is_some()) {
            let url = text.parse().map_err(|error: RootUrlError| {
                let (url, problem) = (text.to_owned(), error.to_string());
                OptionError::RootUrl { url, problem }
            })?;
            self.root_url = Some(url);
        }
        Ok(())
    }

    /// Refuses what makes no sense, or not yet.
    ///
    /// # Errors
    ///
    /// [`OptionError`]
    pub fn check(&self) -> Result<(), OptionError> {
        if self.interactive {
            return Err(OptionError::NotYet("--interactive"));
        }
        match (&self.task, &self.root_url, &self.task_id) {
            (Some(file), Some(_), _) => return Err(OptionError::TwoTasks(file.clone())),
            (None, None, Some(task_id)) if self.image.is_none() => {
                return Err(OptionError::NoTask(task_id.clone()));
            }
            (None, None, None) if self.image.is_none() => return Err(OptionError::NothingToRun),
            (Some(_), None, _) | (None, _, _) => {}
        }
        match &self.image {
            // `image.tar` could be a name of a registry's; beside a file of that name it is a slip.
            Some(image) if Path::new(image).is_file() && meant_by(image).is_some() => {
                let meant = meant_by(image).unwrap_or_default();
                Err(OptionError::ImageFile { image: image.clone(), meant })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The variables that options set: those of files first, so that single ones go over them.
    fn variables(&self) -> Result<Vec<(String, Value)>, OptionError> {
        let mut variables = Vec::new();
        for path in &self.env_file {
            variables.extend(read_variables(path)?);
        }
        variables.extend(self.env.iter().cloned());
        Ok(variables.into_iter().filter_map(|(name, value)| Some((name, json!(value?)))).collect())
    }

    /// Who has named the image: where the task is a deployment's, somebody who could put it into a queue.
    pub fn origin(&self) -> Origin {
        match (&self.root_url, &self.image) {
            (Some(_), None) => Origin::Queue,
            (Some(_), Some(_)) | (None, _) => Origin::Operator,
        }
    }

    /// The payload of a task that is made of options alone.
    pub fn bare_payload(&self) -> Submission {
        let mut payload = Map::new();
        payload.insert("maxRunTime".to_owned(), json!(DEFAULT_MAX_RUN_TIME));
        Submission::BarePayload(Value::Object(payload))
    }

    /// Writes the options over what a submission's payload says. What is not as it should be there
    /// stays so, for the payload's check to find.
    ///
    /// # Errors
    ///
    /// [`OptionError`] when a file of variables cannot be used.
    pub fn apply(&self, submission: &mut Submission) -> Result<(), OptionError> {
        let variables = self.variables()?;
        let payload = match submission {
            Submission::Task(document) => document.get_mut("payload"),
            Submission::BarePayload(payload) => Some(payload),
        };
        let Some(payload) = payload.and_then(Value::as_object_mut) else { return Ok(()) };
        if let Some(image) = &self.image {
            payload.insert("image".to_owned(), json!(image));
        }
        if !self.command.is_empty() {
            payload.insert("command".to_owned(), json!(self.command));
        }
        if let Some(seconds) = self.max_run_time {
            payload.insert("maxRunTime".to_owned(), json!(seconds));
        }
        merge(payload, "env", variables);
        let caches = self.cache.iter().map(|(name, path)| (name.clone(), json!(path)));
        merge(payload, "cache", caches.collect());
        merge(
            payload,
            "features",
            self.feature.iter().map(|name| ((*name).to_owned(), json!(true))).collect(),
        );
        Ok(())
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
        let options = options(&["--image", "busybox", "-e", "A=b=c", "--", "sh", "-c", "x"]);
        let mut submission = options.bare_payload();
        options.apply(&mut submission).unwrap();
        let expected = json!({
            "image": "busybox", "command": ["sh", "-c", "x"], "env": {"A": "b=c"}, "maxRunTime": 3600
        });
        assert_eq!(submission.payload(), &expected);
    }

    #[test]
    fn options_go_over_what_the_file_says() {
        let words =
            ["t.json", "--image", "i", "--cache", "c=/m", "--feature", "bulkLog", "--max-run-time", "1h30m"];
        let options = options(&words);
        let payload = json!({"image": "j", "cache": {"d": "/n"}, "maxRunTime": 9, "command": ["kept"]});
        let mut submission = Submission::BarePayload(payload);
        options.apply(&mut submission).unwrap();
        let expected = json!({
            "image": "i", "cache": {"d": "/n", "c": "/m"}, "maxRunTime": 5400, "command": ["kept"],
            "features": {"bulkLog": true}
        });
        assert_eq!(submission.payload(), &expected);
    }

    #[test]
    fn variables_come_from_options_files_and_the_worker() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("env");
        std::fs::write(&path, "# words\n\nA=1\n  B=x y \nC=\nPATH\nNOBODY_SETS_THIS\n").unwrap();
        let file = path.to_str().unwrap();
        let options =
            options(&["--image", "i", "-e", "A=2", "--env-file", file, "--env", "NOBODY_SETS_THIS"]);
        let mut submission = options.bare_payload();
        options.apply(&mut submission).unwrap();
        let path_of_worker = std::env::var("PATH").unwrap();
        let expected = json!({ "A": "2", "B": "x y ", "C": "", "PATH": path_of_worker });
        assert_eq!(submission.payload()["env"], expected);

        std::fs::write(&path, "A=1\n=2\n").unwrap();
        let refused = options.apply(&mut submission).unwrap_err().to_string();
        assert!(refused.contains("line 2: write it as NAME=VALUE"), "{refused}");
    }

    #[test]
    fn what_makes_no_task_is_refused() {
        let id = ["--task-id", "fN1SbArXTPSVFNUvaOlinQ"];
        let url = ["--root-url", "https://tc.example.com"];
        for (words, named) in [
            (&[][..], "name a task file"),
            (&["--interactive", "t"], "--interactive is not there yet"),
            (&id, "name the deployment that has the task fN1SbArXTPSVFNUvaOlinQ with --root-url URL or"),
            (&[&id[..], &url, &["t.yml"]].concat(), "--root-url names a task of a deployment"),
        ] {
            let error = options(words).check().unwrap_err().to_string();
            assert!(error.starts_with(named), "{error}");
        }
    }

    #[test]
    fn the_environment_names_the_deployment_of_a_task_without_a_file() {
        let id = ["--task-id", "fN1SbArXTPSVFNUvaOlinQ"];
        let url = "https://tc.example.com";
        for (words, in_environment, expected) in [
            (id.to_vec(), Some(url), Some(url)),
            (id.to_vec(), Some(""), None),
            (id.to_vec(), None, None),
            ([&id[..], &["--image", "i"]].concat(), Some(url), Some(url)),
            ([&id[..], &["--image", "i"]].concat(), None, None),
            ([&id[..], &["t.yml"]].concat(), Some(url), None),
            (vec!["--image", "i"], Some(url), None),
            (
                [&id[..], &["--root-url", "https://other.example.com"]].concat(),
                Some(url),
                Some("https://other.example.com"),
            ),
        ] {
            let mut options = options(&words);
            options.complete(in_environment).unwrap();
            assert_eq!(options.root_url.map(|url| url.to_string()).as_deref(), expected, "{words:?}");
        }
        let refused = options(&id).complete(Some("nonsense")).unwrap_err().to_string();
        assert!(refused.starts_with("TASKCLUSTER_ROOT_URL \"nonsense\": "), "{refused}");
    }

    #[test]
    fn an_image_is_its_authors_unless_the_operator_names_one() {
        let of_deployment = ["--task-id", "fN1SbArXTPSVFNUvaOlinQ", "--root-url", "https://tc.example.com"];
        for (words, expected) in [
            (&of_deployment[..], Origin::Queue),
            (&[&of_deployment[..], &["--image", "i"]].concat(), Origin::Operator),
            (&["t.yml"], Origin::Operator),
            (&["--task-id", "fN1SbArXTPSVFNUvaOlinQ", "t.yml"], Origin::Operator),
        ] {
            let options = options(words);
            options.check().unwrap();
            assert_eq!(options.origin(), expected, "{words:?}");
        }
    }
}
