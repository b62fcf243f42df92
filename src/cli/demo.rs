//! `docker-worker demo`: a guided offline run of the main features.
//!
//! Every scene is a real `docker-worker run`, with directories of the demo's own that go with it.

mod image;
mod scenes;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use self::scenes::{CONFIG, SCENES, Scene, Task};
use super::operator::Operator;
use super::refusal::Refusal;
use super::{FAILED, HOST_UNFIT, INTERRUPTED};
use crate::config::Config;
use crate::demo_directory::{DemoDirectory, PLACE};
use crate::directories::Directories;
use crate::host::{self, Facts};
use crate::text::chain;

/// Options of `demo`.
#[derive(Debug, Args)]
pub struct DemoArguments {}

/// Why the demo does not go on.
enum Stop {
    Refused(Refusal),
    Interrupted,
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Refused(Refusal::new(FAILED, format!("failed to show the demo: {error}")))
    }
}

/// The command.
pub(super) fn main(_options: &DemoArguments, config: &Config, operator: &Operator) -> ExitCode {
    let directory = match DemoDirectory::create() {
        Ok(directory) => directory,
        Err(error) => {
            return operator.refuse(FAILED, &format!("failed to make a directory in {PLACE}: {error}"));
        }
    };
    let shown = show(&directory, config);
    if let Err(error) = directory.remove() {
        return operator.refuse(FAILED, &format!("failed to {}", chain(&error)));
    }
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(Stop::Refused(refusal)) => refusal.tell(operator),
    }
}

fn show(held: &DemoDirectory, config: &Config) -> Result<(), Stop> {
    let directory = held.path();
    let own = Config { directories: held.directories(), file: config.file.clone() };
    let facts = Facts::gather(&own);
    host::require(&facts).map_err(|unfit| Stop::Refused(Refusal::new(HOST_UNFIT, unfit.to_string())))?;
    image::write(&directory.join("image.tar"))
        .map_err(|error| Stop::Refused(Refusal::because(HOST_UNFIT, &error)))?;
    std::fs::write(directory.join("demo.yml"), CONFIG)?;
    writeln!(
        io::stdout(),
        "The image is made of this host's own tools: no network is used. Each scene is one task."
    )?;
    let notices = host::part(&facts, config.file.container_limits(), config.file.socketcall()).notices;
    if !notices.is_empty() {
        writeln!(io::stdout(), "What this host lacks, as the log of every other task here says:")?;
    }
    for notice in notices {
        writeln!(io::stdout(), "  {notice}")?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(play(directory, &own.directories))
}

async fn play(directory: &Path, places: &Directories) -> Result<(), Stop> {
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    let mut surprises = Vec::new();
    for (number, scene) in SCENES.iter().enumerate() {
        writeln!(io::stdout(), "\n── {}. {}: {}", number + 1, scene.title, scene.remark)?;
        let mut task = command(scene, directory, places)?.spawn()?;
        // A task is interrupted by the same key; the demo waits for it to end cleanly.
        let status = tokio::select! {
            status = task.wait() => status?,
            _ = interrupts.recv() => { task.wait().await?; return Err(Stop::Interrupted) }
            _ = terminations.recv() => { stop(&mut task).await?; return Err(Stop::Interrupted) }
        };
        let status = status.code().unwrap_or(-1);
        writeln!(io::stdout(), "   exit status {status}{}", artifacts(scene, directory)?)?;
        if status != scene.status {
            surprises.push(format!("\"{}\" gave {status} instead of {}", scene.title, scene.status));
        }
    }
    if surprises.is_empty() {
        writeln!(io::stdout(), "\nAll scenes went as they should; nothing of them is left on this host.")?;
        return Ok(());
    }
    Err(Stop::Refused(Refusal::new(FAILED, format!("not as it should be: {}", surprises.join(", ")))))
}

/// Passes a request to end on to the task's worker.
async fn stop(task: &mut tokio::process::Child) -> io::Result<()> {
    let raw = task.id().and_then(|id| i32::try_from(id).ok());
    if let Some(pid) = raw.and_then(rustix::process::Pid::from_raw) {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    }
    task.wait().await.map(drop)
}

fn command(scene: &Scene, directory: &Path, places: &Directories) -> io::Result<Command> {
    let image = format!("docker-archive:{}", directory.join("image.tar").display());
    let mut command = Command::new(std::env::current_exe()?);
    command
        .current_dir(directory)
        .env("DOCKER_WORKER_RUN", &places.run)
        .arg("--data")
        .arg(&places.data)
        .args(["run", "--host-is-known", "--network", "none", "--image", &image, "--artifacts"])
        .arg(directory.join("artifacts"))
        .args(scene.options);
    match &scene.task {
        Task::Script(script) => {
            let options: String = scene.options.iter().map(|option| format!("{option} ")).collect();
            writeln!(io::stdout(), "   docker-worker run {options}--image … -- sh -c '{script}'\n")?;
            command.args(["--", "sh", "-c", script]);
        }
        Task::Payload(payload) => {
            writeln!(io::stdout(), "   docker-worker run task.json, which is {payload}\n")?;
            let file = directory.join("task.json");
            std::fs::write(&file, payload)?;
            command.arg(file);
        }
    }
    Ok(command)
}

/// The payload's artifacts of a scene, as resolution.json lists them.
fn artifacts(scene: &Scene, directory: &Path) -> io::Result<String> {
    if !matches!(scene.task, Task::Payload(_)) {
        return Ok(String::new());
    }
    let document: Value =
        serde_json::from_slice(&std::fs::read(directory.join("artifacts/resolution.json"))?)?;
    let rows = document.get("artifacts").and_then(Value::as_array).cloned().unwrap_or_default();
    let row = |artifact: &Value| {
        let text = |key: &str| artifact.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        format!("\n   artifact {} ({}) {}", text("name"), text("storageType"), text("reason"))
    };
    Ok(rows.iter().map(row).collect())
}
