//! The command line: that of runc, as far as it goes.

mod create;
mod delete;
mod exec;
mod kill;
mod list;
mod log;
mod pause;
mod plan;
mod ps;
mod spec;
mod start;
mod update;

use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lexopt::Arg;
use nix::sys::signal::{SigSet, Signal};
use rustix::fs::{CWD, OFlags};
use rustix::io::Errno;

use crate::execute::sentence;
use crate::holder;
use crate::id::{ContainerId, ContainerIdError};
use crate::launch::{Failed, FailureKind};
use crate::limits::CONFIG_BYTES;
use crate::open;
use log::Log;
use pause::Wanted;

const HELP: &str = "\
docker-worker-runtime runs OCI containers.

usage: docker-worker-runtime [OPTIONS] COMMAND [ARGUMENTS]

commands:
  run [-b DIR] ID          start a container, wait for its end, remove it
  create [-b DIR] ID       set a container up to the point where its command would start
  start ID                 start the command of a created container
  exec ID COMMAND...       run a further command in a container that runs, as its own is confined
  state ID                 print a container's state as JSON
  pause ID, resume ID      make a container stand still, and let it go on
  ps [-f json] ID [OPT...] list its processes by the host's numbers; options are those of ps
  update OPTIONS ID        set new limits
  kill [-a] ID [SIGNAL]    send a signal (default TERM) to a container's command; -a: to all but a holder whose command runs
  delete [-f] ID           remove what is left of a stopped container; -f kills it first
  list [-q] [-f json]      list containers
  plan [-b DIR] [ID]       print what would be done, one step a line; needs no privilege
  spec [-b DIR]            write an example config.json
  features                 print what this runtime can do, as JSON

options:
  --root DIR               where states are kept (default /run/docker-worker-runtime)
  --log FILE               append errors to FILE as well, and warnings instead of printing them
  --log-format text|json   how (default text)
  --debug                  log the steps of run and create before they are taken
  --help, --version

options of run and create:
  -b, --bundle DIR         directory with config.json (default .)
  --pid-file FILE          write PID 1's number there
  --console-socket PATH    send the pty to this socket
  --preserve-fds N         pass descriptors 3 to 2+N on to the command
  --no-new-keyring         keep the session keyring
  --no-subreaper           no effect: there is never one
  --hold                   the container outlives its command: a holder is its first process, and stays until it is told
                           to go, by `kill` with TERM after the command or KILL, by `delete -f`, or by a signal to `run`
  -d, --detach             run only: return once the command has started

options of exec, before ID:
  -p, --process FILE       the process as in config.json (- is standard input), in place of the container's own; what it
                           leaves out of capabilities, limits, profile, OOM score and no_new_privs is as the container's
  -t, --tty                with a terminal
  -u, --user USER[:GROUP]  by number, or by name as /etc/passwd and /etc/group of the container have it
  -g, --additional-gids N  a further group, by number
  -e, --env NAME=VALUE     a further variable
  --cwd DIR                where it starts
  -c, --cap NAME           a further capability
  --apparmor PROFILE       another profile
  --no-new-privs           set-uid programs give it nothing
  -d, --detach             return once it has started; without this it ends with exec
  --pid-file, --console-socket, --preserve-fds as of run

options of update, which leaves device rules as they are
  -r, --resources FILE     what linux.resources is in config.json (- is standard input); or one limit or more:
  --memory, --memory-swap, --memory-reservation BYTES (512M); --pids-limit, --cpu-quota, --cpu-period, --cpu-share,
  --cpu-burst, --cpu-idle, --cpu-rt-runtime, --cpu-rt-period, --blkio-weight, --memory-swappiness N;
  --cpuset-cpus, --cpuset-mems LIST

exit status of run and exec: the command's own; 128 + n if signal n ended it; 127 if there is no such command;
126 if it cannot be executed; 1 if the container could not be started; 2 for wrong use.
";

/// Options before the command.
struct Global {
    root: PathBuf,
    log: Log,
    debug: bool,
    systemd_cgroup: bool,
}

/// Why a command ended without success.
#[derive(Debug)]
enum Problem {
    /// The command line is wrong. Exit status 2.
    Usage(String),
    /// Something failed, in one sentence. Exit status 1.
    Failed(String),
    /// The container did not start: the exit status says in which way.
    NotStarted(Failed),
}

impl Problem {
    /// A failure to do `what`.
    fn because(what: &str, error: &dyn Error) -> Problem {
        Problem::Failed(format!("failed to {what}: {}", sentence(error)))
    }
}

impl Problem {
    /// What went wrong before there was anything to look after reaches the caller as well, if `report` sends it there.
    fn told(self, report: impl FnOnce(Failed) -> Result<(), Errno>) -> (Problem, Reached) {
        let failed = match &self {
            Problem::NotStarted(failed) => failed.clone(),
            Problem::Usage(sentence) | Problem::Failed(sentence) => {
                Failed { step: "command line".into(), kind: FailureKind::Host, message: sentence.clone() }
            }
        };
        match report(failed) {
            Ok(()) => (self, Reached::Caller),
            // Nobody is there to be told: what went wrong stays what it was.
            Err(Errno::PIPE | Errno::CONNRESET) => (self, Reached::Nobody),
            Err(errno) => {
                (Problem::because("report to the caller", &io::Error::from(errno)), Reached::Nobody)
            }
        }
    }
}

/// Who was told of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reached {
    Caller,
    Nobody,
}

impl From<lexopt::Error> for Problem {
    fn from(error: lexopt::Error) -> Problem {
        Problem::Usage(error.to_string())
    }
}

impl From<ContainerIdError> for Problem {
    fn from(error: ContainerIdError) -> Problem {
        Problem::Usage(format!("failed to {error}"))
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    let mut global = Global {
        root: PathBuf::from("/run/docker-worker-runtime"),
        log: Log::default(),
        debug: false,
        systemd_cgroup: false,
    };
    // A limit on the caller's files is an error of the write that exceeds it, not the end of this process in the middle of
    // its work. If this is refused it is as it was.
    SigSet::from(Signal::SIGXFSZ).thread_block().unwrap_or(());
    match dispatch(&mut global) {
        Ok(status) => ExitCode::from(status),
        Err(problem) => {
            let (status, sentence) = match problem {
                Problem::Usage(sentence) => (2, format!("{sentence} (see --help)")),
                Problem::Failed(sentence) => (1, sentence),
                Problem::NotStarted(failed) => (status_of(failed.kind), text_of(&failed)),
            };
            global.log.error(&sentence);
            ExitCode::from(status)
        }
    }
}

fn status_of(kind: FailureKind) -> u8 {
    match kind {
        FailureKind::CommandNotFound => 127,
        FailureKind::CommandNotExecutable => 126,
        FailureKind::Spec | FailureKind::Host => 1,
    }
}

fn text_of(failed: &Failed) -> String {
    format!("failed to {} (step: {})", failed.message, failed.step)
}

fn dispatch(global: &mut Global) -> Result<u8, Problem> {
    let mut arguments = lexopt::Parser::from_env();
    let command = loop {
        match arguments.next()? {
            Some(Arg::Long("root")) => global.root = arguments.value()?.into(),
            Some(Arg::Long("log")) => global.log.file = Some(arguments.value()?.into()),
            Some(Arg::Long("log-format")) => global.log.format = log_format(&arguments.value()?)?,
            Some(Arg::Long("systemd-cgroup")) => global.systemd_cgroup = true,
            Some(Arg::Long("debug")) => global.debug = true,
            Some(Arg::Long("help") | Arg::Short('h')) => return print(HELP),
            Some(Arg::Long("version") | Arg::Short('v')) => {
                let version = env!("CARGO_PKG_VERSION");
                let spec = crate::state::OCI_VERSION;
                return print(&format!("docker-worker-runtime version {version}\nspec: {spec}\n"));
            }
            Some(Arg::Value(command)) => break command,
            Some(other) => return Err(other.unexpected().into()),
            None => return Err(Problem::Usage("give a command".into())),
        }
    };
    // What stands in the command of `exec` is that command's.
    let asks = |word: &OsString| word == "-h" || word == "--help";
    if !["exec", "ps"].iter().any(|name| command == *name)
        && arguments.raw_args()?.as_slice().iter().any(asks)
    {
        return print(HELP);
    }
    match command.to_string_lossy().as_ref() {
        holder::COMMAND if become_holder(arguments.raw_args()?.as_slice()).is_some() => Ok(0),
        "run" => create::run(global, arguments),
        "create" => create::create(global, arguments),
        "start" => start::start(global, arguments),
        "exec" => exec::exec(global, arguments),
        "state" => list::state(global, arguments),
        "kill" => kill::kill(global, arguments),
        "delete" => delete::delete(global, arguments),
        "list" => list::list(global, arguments),
        "plan" => plan::plan(arguments),
        "spec" => spec::spec(arguments),
        "features" => spec::features(arguments),
        "pause" => pause::pause(global, arguments, Wanted::Still),
        "resume" => pause::pause(global, arguments, Wanted::Running),
        "ps" => ps::ps(global, arguments),
        "update" => update::update(global, arguments),
        "events" => {
            Err(Problem::Failed("`events` is not there yet in this version of docker-worker-runtime".into()))
        }
        other => Err(Problem::Usage(format!("unknown command {other:?}"))),
    }
}

/// Not for operators: what a container's first process executes. Returns if this is none.
fn become_holder(words: &[OsString]) -> Option<()> {
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    holder::main(&words)
}

fn log_format(text: &OsString) -> Result<log::Format, Problem> {
    match text.to_str() {
        Some("json") => Ok(log::Format::Json),
        Some("text") => Ok(log::Format::Text),
        _ => Err(Problem::Usage(format!("unknown log format {text:?}: text or json"))),
    }
}

/// Prints to standard output; that nobody reads it is no failure.
fn print(text: &str) -> Result<u8, Problem> {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Problem::because("write to standard output", &error))
        }
        _ => Ok(0),
    }
}

/// The container's id, given once and nothing else.
fn only_id(arguments: lexopt::Parser) -> Result<ContainerId, Problem> {
    id_among(arguments, |other| Err(other.unexpected().into()))
}

/// The container's id, which is the first word that is no option; `take` gets all else.
fn id_among(
    mut arguments: lexopt::Parser,
    mut take: impl FnMut(Arg<'_>) -> Result<(), Problem>,
) -> Result<ContainerId, Problem> {
    let mut id = None;
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Value(text) if id.is_none() => id = Some(ContainerId::new(&text.to_string_lossy())?),
            other => take(other)?,
        }
    }
    id.ok_or_else(|| Problem::Usage("give the container's id".into()))
}

/// The text at `path`, bounded as a Spec is; `-` is standard input.
fn read_text(path: &Path) -> io::Result<Vec<u8>> {
    match path.to_str() {
        Some("-") => read_bounded(&mut io::stdin().lock()),
        _ => read_bounded(&mut open::regular(CWD, path, OFlags::RDONLY)?),
    }
}

fn read_bounded(from: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    from.take(CONFIG_BYTES + 1).read_to_end(&mut text)?;
    match text.len() as u64 > CONFIG_BYTES {
        true => Err(io::Error::other(format!("it is larger than {CONFIG_BYTES} bytes"))),
        false => Ok(text),
    }
}
