//! The command line: one file a command.
//!
//! Wrong use ends with status 2 and one sentence on standard error. Standard output belongs to what
//! a command is for: `run` writes the task log there and nothing else.

pub mod check;
pub mod cleanup;
pub mod demo;
mod environment;
pub mod features;
mod fence;
mod help;
pub mod image_store;
mod operator;
mod output;
pub mod process;
mod progress;
mod proxy;
mod recovery;
mod refusal;
pub mod run;
mod scheduling;
mod serving;
mod shell;
mod signals;
pub mod standalone;
pub mod start;

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use self::operator::{Form, Operator};
use crate::config::{Config, ConfigError, ConfigFile};
use crate::directories::{DEFAULT_DATA, DEFAULT_RUN, Directories};
use crate::text::chain;

/// The status of wrong use.
const WRONG_USE: u8 = 2;

/// The status when something went wrong that is not the user's.
const FAILED: u8 = 1;

/// The status of an image that is not there, or not for whoever asks.
const IMAGE_UNAVAILABLE: u8 = 121;

/// The status when this host cannot run tasks.
pub(crate) const HOST_UNFIT: u8 = 125;

/// The status of what was interrupted from the keyboard.
const INTERRUPTED: u8 = 130;

/// Runs Taskcluster docker-worker tasks without a Docker daemon.
#[derive(Debug, Parser)]
#[command(name = "docker-worker", version, after_help = help::AFTER_HELP)]
struct Arguments {
    #[command(flatten)]
    global: GlobalOptions,
    #[command(subcommand)]
    command: Command,
}

/// Options that every command has.
#[derive(Debug, Args)]
struct GlobalOptions {
    /// Directory for images and caches (default: DOCKER_WORKER_DATA, else /var/lib/docker-worker).
    #[arg(long, global = true, value_name = "DIR", help_heading = "This worker")]
    data: Option<PathBuf>,
    /// Configuration file, YAML or JSON (default: DOCKER_WORKER_CONFIG, if it is set).
    #[arg(long, global = true, value_name = "FILE", help_heading = "This worker")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs one task here and now, no Taskcluster needed.
    #[command(after_help = help::AFTER_RUN_HELP)]
    Run(Box<run::options::RunArguments>),
    /// Serves a queue of its own, which Taskcluster's clients drive, and carries its tasks out.
    #[command(after_help = help::AFTER_STANDALONE_HELP)]
    Standalone(Box<standalone::StandaloneArguments>),
    /// Claims tasks of a Taskcluster deployment and carries them out, until it is told to end.
    #[command(after_help = help::AFTER_START_HELP)]
    Start(Box<start::StartArguments>),
    /// Shows the main features by running a few tasks, offline.
    Demo(demo::DemoArguments),
    /// Shows what this host offers and lacks, with the remedy; status 125 where no task can run.
    Check(check::CheckArguments),
    /// Shows the features that tasks can have, or what there is to know of one.
    Features(features::FeaturesArguments),
    /// Brings images into the store.
    #[command(after_help = help::AFTER_PULL_HELP)]
    Pull(image_store::pull::PullArguments),
    /// Lists the images in the store, and what they take on the disk.
    Images(image_store::list::ImagesArguments),
    /// Forgets names of images, and frees what no name and no task needs.
    #[command(after_help = help::AFTER_RMI_HELP)]
    Rmi(image_store::remove::RmiArguments),
    /// Writes images of the store into an archive, which docker, podman and skopeo read.
    #[command(after_help = help::AFTER_SAVE_HELP)]
    Save(image_store::save::SaveArguments),
    /// Brings the images of an archive into the store, under the names in it.
    #[command(after_help = help::AFTER_LOAD_HELP)]
    Load(image_store::load::LoadArguments),
    /// Frees what no image needs, and images that nobody uses if asked to.
    #[command(after_help = help::AFTER_GC_HELP)]
    Gc(image_store::collect::GcArguments),
    /// Undoes whatever a crash left behind; status 1 where something stays.
    Cleanup(cleanup::CleanupArguments),
    /// Serves the tasks of a worker, which starts it.
    #[command(hide = true)]
    Proxy,
}

/// The whole program.
pub fn main() -> ExitCode {
    let words = start::in_our_words(env::args_os().collect());
    let mut arguments = match Arguments::try_parse_from(&words) {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error, &words),
    };
    let operator = Operator::new(arguments.command.form());
    // It has no configuration, and its only descriptor from the worker.
    if let Command::Proxy = arguments.command {
        return proxy::main(&operator);
    }
    // Before anything is said, which would be said twice, and before the configuration is read: a pipe has it only once.
    if let Command::Start(options) = &mut arguments.command
        && let Err(refusal) = options.leave_environment(&operator)
    {
        options.tell_no_start(&refusal.sentence);
        return refusal.tell(&operator);
    }
    if let Command::Standalone(options) = &mut arguments.command
        && let Err(refusal) = options.leave_environment(&operator)
    {
        return refusal.tell(&operator);
    }
    let config = match arguments.global.config() {
        Ok(config) => config,
        Err(error) => {
            let sentence = format!("failed to {}", chain(&error));
            if let Command::Start(options) = &arguments.command {
                options.tell_no_start(&sentence);
            }
            return operator.refuse(WRONG_USE, &sentence);
        }
    };
    let unused = config.file.unused();
    if !unused.is_empty() {
        let keys = unused.join(", ");
        operator.note(&format!("these keys of the configuration have no effect in this version: {keys}"));
    }
    match arguments.command {
        Command::Run(options) => run::main(*options, config, &operator),
        Command::Standalone(options) => standalone::main(&options, config, &operator),
        Command::Start(options) => start::main(&options, config, &operator),
        Command::Demo(options) => demo::main(&options, &config, &operator),
        Command::Check(options) => check::main(&options, &config, &operator),
        Command::Features(options) => features::main(&options, &config, &operator),
        Command::Pull(options) => image_store::pull::main(&options, config, &operator),
        Command::Images(options) => image_store::list::main(&options, &config, &operator),
        Command::Rmi(options) => image_store::remove::main(&options, &config, &operator),
        Command::Save(options) => image_store::save::main(&options, config, &operator),
        Command::Load(options) => image_store::load::main(&options, config, &operator),
        Command::Gc(options) => image_store::collect::main(&options, &config, &operator),
        Command::Cleanup(options) => cleanup::main(&options, &config, &operator),
        Command::Proxy => proxy::main(&operator),
    }
}

impl Command {
    /// What the operator wants to read on standard error.
    fn form(&self) -> Form {
        match self {
            Command::Run(options) if options.json => Form::Json,
            Command::Run(options) if options.quiet => Form::FewSentences,
            Command::Check(options) if options.json => Form::Json,
            Command::Images(options) if options.json => Form::Json,
            Command::Pull(options) if options.quiet => Form::FewSentences,
            Command::Run(_)
            | Command::Standalone(_)
            | Command::Start(_)
            | Command::Check(_)
            | Command::Demo(_)
            | Command::Features(_)
            | Command::Pull(_)
            | Command::Images(_)
            | Command::Rmi(_)
            | Command::Save(_)
            | Command::Load(_)
            | Command::Gc(_)
            | Command::Cleanup(_)
            | Command::Proxy => Form::Sentences,
        }
    }
}

impl GlobalOptions {
    fn config(&self) -> Result<Config, ConfigError> {
        let from_environment = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let named = from_environment("DOCKER_WORKER_CONFIG").map(PathBuf::from);
        let file = match self.config.as_ref().or(named.as_ref()) {
            Some(path) => ConfigFile::read(path)?,
            None => ConfigFile::default(),
        };
        let data = self.data.clone().map(OsString::from).or_else(|| from_environment("DOCKER_WORKER_DATA"));
        let directories = Directories {
            data: absolute(data.unwrap_or_else(|| DEFAULT_DATA.into())),
            run: absolute(from_environment("DOCKER_WORKER_RUN").unwrap_or_else(|| DEFAULT_RUN.into())),
            volume_caches: file.cache.volume_cache_path.clone().map(|path| absolute(path.into())),
        };
        Ok(Config { directories, file })
    }
}

/// A path that does not depend on the working directory.
fn absolute(path: OsString) -> PathBuf {
    let path = PathBuf::from(path);
    std::path::absolute(&path).unwrap_or(path)
}

/// Wrong use; help and version as asked for.
fn refuse(error: &clap::Error, words: &[OsString]) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return match error.print().and_then(|()| io::stdout().flush()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(FAILED),
            Err(error) => Operator::new(Form::Sentences).refuse(FAILED, &output::unwritten(&error)),
        };
    }
    // The parser gave up, perhaps before it came to the option.
    let own = words.iter().take_while(|word| *word != "--");
    let form = if own.into_iter().any(|word| word == "--json") { Form::Json } else { Form::Sentences };
    Operator::new(form).refuse(WRONG_USE, &help::explain(error, words))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
