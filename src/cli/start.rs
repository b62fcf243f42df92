//! `docker-worker start`: a worker of a Taskcluster deployment.
//!
//! Standard output carries the worker's own log, and under worker-runner the protocol's messages between its lines.

use std::process::ExitCode;

use self::deployment::{Deployment, own};
use self::options::HostKind;
use super::environment::{self, Secrets};
use super::operator::Operator;
use super::recovery::recover;
use super::refusal::Refusal;
use super::serving::{self, Grounds, Process, Ready, cannot_start};
use super::{HOST_UNFIT, output};
use crate::config::{Config, ConfigFile};
use crate::line_writer::LineWriter;
use crate::worker::runner::Runner;

mod deployment;
mod options;

pub use self::options::{StartArguments, in_our_words};

impl StartArguments {
    /// Tells whoever has started this worker that its configuration cannot be used.
    pub(super) fn tell_no_start(&self, sentence: &str) {
        if !self.print_config {
            let out = serving::output();
            self.host.tell_no_start(&out, sentence);
            out.finish();
        }
    }

    /// Has the worker go on without the proxies and secrets that its environment names: in the same process, begun anew.
    pub(super) fn leave_environment(&mut self, operator: &Operator) -> Result<(), Refusal> {
        self.secrets =
            if self.print_config { Secrets::of_environment() } else { environment::leave_out(operator)? };
        Ok(())
    }
}

/// The command.
pub(super) fn main(options: &StartArguments, mut config: Config, operator: &Operator) -> ExitCode {
    options.complete(&mut config.file);
    options.secrets.complete(&mut config.file.proxies, operator);
    options.secrets.complete_features(&mut config.file);
    serving::complete(&mut config, ConfigFile::in_force);
    if options.print_config {
        return print(&config.file, operator);
    }
    if config.file.shutdown.node_termination_poll.is_there() {
        operator.note(
            "the cloud is not asked for the end of this machine: worker-runner, or SIGTERM, tells of it",
        );
    }
    let status = match start(options.host, config, operator) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => refusal.tell(operator),
    };
    operator.out().finish();
    status
}

fn start(host: HostKind, config: Config, operator: &Operator) -> Result<(), Refusal> {
    let out = serving::output();
    let ended = match prepare(config, &out, operator) {
        Ok(ready) => host.connect(&out).and_then(|runner| ready.serve(runner)),
        Err(refusal) => {
            host.tell_no_start(&out, &refusal.sentence);
            Err(refusal)
        }
    };
    out.finish();
    ended
}

/// Looks at the host, undoes what a dead worker has left, and makes what runs need.
fn prepare(config: Config, out: &LineWriter, operator: &Operator) -> Result<Ready, Refusal> {
    let Deployment { queue, identity } = Deployment::of(&config.file)?;
    let grounds = Grounds::prepare(&config, operator)?;
    let unfinished =
        recover(&config.directories, operator).map_err(|error| Refusal::because(HOST_UNFIT, &error))?;
    let unfinished = own(unfinished, &config.file, &identity, operator);
    let process = Process::begin(&config.file, out, operator)?;
    let service = process.service(config, grounds, (queue, identity))?;
    Ok(Ready { service, unfinished, process, queue: None })
}

impl HostKind {
    /// The way to whoever has started this worker.
    fn connect(self, out: &LineWriter) -> Result<Option<Runner>, Refusal> {
        match self {
            HostKind::None => Ok(None),
            HostKind::WorkerRunner => Runner::connect(out.clone()).map(Some).map_err(cannot_start),
        }
    }

    /// Tells whoever has started this worker why it does not start. Standard error has it as well, so that nothing is lost
    /// where this fails.
    fn tell_no_start(self, out: &LineWriter, sentence: &str) {
        match self {
            HostKind::None => {}
            HostKind::WorkerRunner => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
                // Only now: before this the process could have one thread only.
                if let (Ok(runtime), Ok(runner)) = (runtime, Runner::connect(out.clone())) {
                    runtime.block_on(runner.report_no_start(sentence));
                }
            }
        }
    }
}

fn print(file: &ConfigFile, operator: &Operator) -> ExitCode {
    // Plain strings, numbers and words: there is nothing that JSON cannot hold.
    let text = serde_json::to_string_pretty(file).unwrap_or_default() + "\n";
    output::print(&text, ExitCode::SUCCESS, operator)
}
