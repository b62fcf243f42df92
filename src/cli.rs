//! The command line: one file a command.
//!
//! Wrong use ends with status 2 and one sentence on standard error. Standard output belongs to what
//! a command is for: `run` writes the task log there and nothing else.

pub mod check;
pub mod cleanup;
pub mod demo;
pub mod process;
pub mod run;

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ErrorKind};
use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError, ConfigFile, DEFAULT_DATA, DEFAULT_RUN, Directories};

/// The status of wrong use.
const WRONG_USE: u8 = 2;

/// The status when something went wrong that is not the user's.
const FAILED: u8 = 1;

/// The status when this host cannot run tasks.
pub(crate) const HOST_UNFIT: u8 = 125;

/// Runs Taskcluster docker-worker tasks without a Docker daemon.
#[derive(Debug, Parser)]
#[command(name = "docker-worker", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(flatten)]
    places: Places,
    #[command(subcommand)]
    command: Command,
}

/// Options that every command has.
#[derive(Debug, Args)]
pub(crate) struct Places {
    /// Directory for images and caches (default: DOCKER_WORKER_DATA, else /var/lib/docker-worker).
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Configuration file, YAML.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs one task here and now, no Taskcluster needed.
    Run(Box<run::options::RunArguments>),
    /// Shows the main features by running a few tasks, offline.
    Demo(demo::DemoArguments),
    /// Shows what this host offers and lacks, with the remedy.
    Check(check::CheckArguments),
    /// Undoes whatever a crash left behind.
    Cleanup(cleanup::CleanupArguments),
}

/// The whole program.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse_from(env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    let config = match arguments.places.config() {
        Ok(config) => config,
        Err(error) => {
            return complain(WRONG_USE, &format!("failed to {}", crate::task::error::chain(&error)));
        }
    };
    match arguments.command {
        Command::Run(options) => run::main(*options, config),
        Command::Demo(options) => demo::main(&options, &config),
        Command::Check(options) => check::main(&options, &config),
        Command::Cleanup(options) => cleanup::main(&options, &config),
    }
}

impl Places {
    fn config(&self) -> Result<Config, ConfigError> {
        let file = match &self.config {
            Some(path) => ConfigFile::read(path)?,
            None => ConfigFile::default(),
        };
        let from_environment = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let data = self.data.clone().map(OsString::from).or_else(|| from_environment("DOCKER_WORKER_DATA"));
        let directories = Directories {
            data: absolute(data.unwrap_or_else(|| DEFAULT_DATA.into())),
            run: absolute(from_environment("DOCKER_WORKER_RUN").unwrap_or_else(|| DEFAULT_RUN.into())),
            volume_caches: file.cache.volume_cache_path.clone(),
        };
        Ok(Config { directories, file })
    }
}

/// A path that does not depend on the working directory.
fn absolute(path: OsString) -> PathBuf {
    let path = PathBuf::from(path);
    std::path::absolute(&path).unwrap_or(path)
}

/// One sentence on standard error, and a status.
pub(crate) fn complain(status: u8, sentence: &str) -> ExitCode {
    say(sentence);
    ExitCode::from(status)
}

/// One sentence on standard error.
pub(crate) fn say(sentence: &str) {
    if writeln!(io::stderr(), "docker-worker: {sentence}").is_err() {
        // Nobody reads it: no reason to do anything else than with a reader.
    }
}

/// What the parser says about wrong use, in one line with its hint; help and version as asked for.
fn refuse(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return match error.print() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::from(FAILED),
        };
    }
    let text = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            "name a command: run, demo, check or cleanup".to_owned()
        }
        _ => first_paragraph(&error.to_string()),
    };
    let hint = error.get(ContextKind::SuggestedArg).or_else(|| error.get(ContextKind::SuggestedSubcommand));
    let hint = hint.map(|similar| format!("; did you mean {similar}?")).unwrap_or_default();
    complain(WRONG_USE, &format!("{text}{hint} (docker-worker --help shows what there is)"))
}

/// The message without the parser's prefix and what follows it, on one line.
fn first_paragraph(message: &str) -> String {
    let paragraph = message.split("\n\n").next().unwrap_or(message);
    let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    line.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn wrong_use_is_one_line() {
        let error = Arguments::try_parse_from(["docker-worker", "run", "--imago", "x"]).unwrap_err();
        let line = first_paragraph(&error.to_string());
        assert_eq!(line, "unexpected argument '--imago' found");
    }
}
