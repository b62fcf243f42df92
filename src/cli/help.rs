//! What `--help` says beyond the options, and what is said about a command line that makes no sense.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use images::source::Source;

use super::Arguments;
use super::shell::word;
use crate::suggestion::did_you_mean;
use crate::text::excerpt;

/// Commands of later versions.
const LATER: &[&str] =
    &["validate", "ps", "logs", "exec", "shell", "kill", "encrypt-env", "keys", "completions", "man"];

/// Below the commands.
pub(super) const AFTER_HELP: &str = "\
Examples:
  docker-worker check
  docker-worker run --image debian:12 -- sh -c 'echo hello'
  docker-worker run --artifacts out task.yml
  docker-worker standalone

Environment:
  DOCKER_WORKER_DATA     directory for images and caches, as --data (/var/lib/docker-worker)
  DOCKER_WORKER_CONFIG   configuration file, as --config
  DOCKER_WORKER_RUN      directory for journals and bundles (/run/docker-worker)
  DOCKER_WORKER_RUNTIME  the executable docker-worker-runtime (beside docker-worker)

\"docker-worker help COMMAND\" has the rest.";

/// Below the options of `run`.
pub(super) const AFTER_RUN_HELP: &str = "\
Examples:
  docker-worker run --image debian:12 -- sh -c 'echo hello; uname -a'
  docker-worker run --image docker-archive:image.tar --network none -e LANG=C.UTF-8 -- make
  docker-worker run --artifacts out task.yml > log
  generate-task | docker-worker run --artifacts out -
  docker-worker run --root-url https://tc.example.com --task-id fN1SbArXTPSVFNUvaOlinQ --artifacts out

With --root-url the definition of that task is fetched, and its image is one of a registry, unless --image names another one.
TASKCLUSTER_ROOT_URL stands in for it where --task-id is given and no task file. Proxies that the environment names are used.
TASKCLUSTER_CLIENT_ID, TASKCLUSTER_ACCESS_TOKEN and TASKCLUSTER_CERTIFICATE are used where they are set.
Standard output carries exactly the task's log, standard error everything else.
Ctrl-C cancels the task and stores its log; a second Ctrl-C leaves at once.

Exit status:
  the command's own  it ran to its end
  2                  wrong use of the command line, or a task that cannot be had
  120                malformed payload, or a file that is neither JSON nor YAML
  121                the image is not available, or not for this task
  122                any other exception, e.g. SIGTERM (worker-shutdown)
  123                failed without a status of the command, e.g. a missing scope or a failed upload
  124, 130           maxRunTime was exceeded; cancelled from the keyboard
  125                this host cannot run tasks: \"docker-worker check\" says why
  126, 127           the command cannot be executed; it does not exist
A command's own 120 to 127 look the same: resolution.json beside the artifacts tells them apart.";

/// Below the options of `standalone`.
pub(super) const AFTER_STANDALONE_HELP: &str = "\
Examples:
  docker-worker standalone
  docker-worker standalone client add ci --scope 'queue:create-task:*' --scope 'queue:scheduler-id:*'
  docker-worker standalone --backup /srv/copies/queue.sqlite
  docker-worker standalone --restore /srv/copies/queue.sqlite
  docker-worker standalone --data /srv/queue --listen 127.0.0.1:8300 --config config.yml

The first lines on standard error say where the queue is, and what a shell has to export so that Taskcluster's clients
find it. Tasks for the pool local/docker-worker are carried out here; the configuration's provisionerId and workerType name
another one. The keys of the configuration are those of \"start\".
Behind a reverse proxy that speaks TLS, --root-url says where clients find the queue; the proxy passes paths on as they are.
Tasks, artifacts and credentials.json are kept in the data directory, for one process at a time.
Standard output is the worker's log, one JSON object a line.
SIGTERM and Ctrl-C end all tasks as worker-shutdown: they run again at the next start. A second Ctrl-C leaves at once.

Exit status:
  0    it was told to end
  1    the address, the data directory or credentials.json cannot be used
  2    wrong use of the command line, or of the configuration
  125  this host cannot run tasks: \"docker-worker check\" says why";

/// Below the options of `start`.
pub(super) const AFTER_START_HELP: &str = "\
Examples:
  docker-worker start --config /etc/docker-worker/config.yml
  docker-worker start --config config.yml --print-config
  docker-worker --host worker-runner production     as worker-runner starts it

The configuration has to say rootUrl, taskcluster.clientId and .accessToken, provisionerId, workerType, workerGroup and
workerId; TASKCLUSTER_ROOT_URL, TASKCLUSTER_CLIENT_ID, TASKCLUSTER_ACCESS_TOKEN and TASKCLUSTER_CERTIFICATE stand in.
Standard output is the worker's log, one JSON object a line.
SIGTERM and Ctrl-C end all tasks as worker-shutdown, so that another worker takes them; a second Ctrl-C leaves at once.

Exit status:
  0    the worker was idle for long, or was told to end
  1    the deployment refuses the worker's credentials or names
  2    wrong use of the command line, or a configuration that lacks something (the original: 1)
  125  this host cannot run tasks: \"docker-worker check\" says why (the original: 1)";

/// Below the options of `pull`.
pub(super) const AFTER_PULL_HELP: &str = "\
Examples:
  docker-worker pull debian:12 ghcr.io/mozilla/build:1
  docker-worker pull oci:layout:latest

An image is a name in a registry, or docker-archive:FILE[:NAME], oci-archive:FILE[:TAG],
oci:DIR[:TAG] or dir:DIR. Layers that are in the store are not fetched again.
Registries and credentials are those of the configuration, and of Docker's config.json.
Standard output has a line for each image: its name in the store.
What has been fetched when it is interrupted is kept for the next try.

Exit status:
  0         all images are in the store
  1         something else went wrong, e.g. a full disk or a damaged image
  2         wrong use of the command line
  121       an image is not there, or not for you
  130, 143  it was interrupted from the keyboard; it was told to end";

/// Below the options of `rmi`.
pub(super) const AFTER_RMI_HELP: &str = "\
Examples:
  docker-worker rmi debian:12
  docker-worker rmi 3f57d9401f8d

An image is named as \"docker-worker images\" shows it; an id, or its first 12 or more digits,
stands for all names.
A task that uses the image goes on with it; then a later \"docker-worker gc\" frees it.

Exit status:
  0    the names are gone
  1    one is not there, or the store cannot be used
  2    wrong use of the command line";

/// Below the options of `save`.
pub(super) const AFTER_SAVE_HELP: &str = "\
Examples:
  docker-worker save -o debian.tar debian:12
  docker-worker save debian:12 busybox | gzip > images.tar.gz
  docker-worker save -o oci-archive:debian.tar debian:12

An archive is a docker-archive with the layers' tar streams, as \"docker save\" writes it, unless it
is oci-archive:FILE: then it has the layers, and the manifest, byte for byte as they came.
\"docker load\", podman and skopeo read both.
An image is a name or an id in the store, or docker-archive:FILE, oci-archive:FILE, oci:DIR or
dir:DIR, which is pulled first. For an oci-archive, a layer that garbage collection has removed as it
came is fetched again from the image's registry; that of an image from elsewhere, and one that the
registry does not give, is its tar stream.
A file is there when it is whole. On standard output an archive that could not be written whole ends
in its middle.

Exit status:
  0         the archive is written
  1         it could not be written, or an image is damaged
  2         wrong use of the command line
  121       an image is not in the store, or a layer of it is not to be had any more
  130, 143  it was interrupted from the keyboard; it was told to end";

/// Below the options of `load`.
pub(super) const AFTER_LOAD_HELP: &str = "\
Examples:
  docker-worker load -i images.tar
  docker save debian:12 | docker-worker load
  docker-worker load docker-archive:images.tar:debian:12

An archive is a file or a directory, whose format is found out, or docker-archive:FILE[:NAME],
oci-archive:FILE[:TAG], oci:DIR[:TAG] or dir:DIR; without one it is read from standard input.
It may be compressed.
The images get the names that the archive has for them, and one without gets the archive's. A task
that asks for such a name has that image: nothing is pulled. From standard input, an image without a
name has its id alone, by which \"save\" and \"rmi\" know it.
Standard output has a line for each image: its name in the store, or its id.

Exit status: as of \"pull\".";

/// Below the options of `gc`.
pub(super) const AFTER_GC_HELP: &str = "\
Examples:
  docker-worker gc
  docker-worker gc --unused-for 7d
  docker-worker gc --until-free 20G

What no name leads to, and what killed processes have left, goes in any case. What a task uses
stays, and so does what is being pulled. Standard output has the names that are gone.

Exit status:
  0    done; with --until-free also where there is not as much to be freed
  1    the store cannot be used
  2    wrong use of the command line";

/// What the parser says about wrong use, in one line with its hint and where to read on.
pub(super) fn explain(error: &clap::Error, words: &[OsString]) -> String {
    let command = Named::by(words);
    if let Some(sentence) = later_command(error).filter(|_| command.path.is_empty()) {
        return sentence;
    }
    let text = problem(error, &command);
    let hint = image_hint(error, words).or_else(|| similar(error, &command)).unwrap_or_default();
    format!("{text}{hint} (docker-worker{} --help shows what there is)", command.path)
}

/// The command that words are about.
struct Named {
    /// Its name after those of the commands that it is below, with a space before each.
    path: String,
    /// The names of the commands below it.
    below: Vec<String>,
}

impl Named {
    fn by(words: &[OsString]) -> Named {
        let (mut command, mut path) = (Arguments::command(), String::new());
        for word in words.iter().skip(1).filter_map(|word| word.to_str()) {
            let Some(next) = command.find_subcommand(word).cloned() else { continue };
            path = format!("{path} {word}");
            command = next;
        }
        let below = command.get_subcommands().filter(|below| !below.is_hide_set());
        let below = below.map(|below| below.get_name().to_owned()).collect();
        Named { path, below }
    }
}

/// The option or value that may have been meant, as the parser says, or the command.
fn similar(error: &clap::Error, command: &Named) -> Option<String> {
    let wrong = error.get(ContextKind::InvalidSubcommand);
    if let (ErrorKind::InvalidSubcommand, Some(ContextValue::String(word))) = (error.kind(), wrong) {
        let names: Vec<&str> = command.below.iter().map(String::as_str).collect();
        return Some(format!("; {}", did_you_mean(word, &names)));
    }
    let kinds = [ContextKind::SuggestedArg, ContextKind::SuggestedValue];
    let similar = kinds.into_iter().find_map(|kind| error.get(kind))?;
    Some(format!("; did you mean {similar}?"))
}

fn later_command(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    let later = LATER.iter().find(|later| *later == word)?;
    Some(format!(
        "the command {later} is not there yet in this version of docker-worker (docker-worker --help shows what there is)"
    ))
}

/// What is wrong, without what may have been meant.
fn problem(error: &clap::Error, command: &Named) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    // An option stands there with the name of its value: `--image <REF>`.
    let whole = context(ContextKind::InvalidArg).unwrap_or_default();
    let option = first_word(whole);
    let word = excerpt(context(ContextKind::InvalidValue).unwrap_or_default());
    match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            let (last, others) =
                command.below.split_last().map_or(("", &[][..]), |(last, others)| (last, others));
            format!("name a command: {} or {last}", others.join(", "))
        }
        ErrorKind::MissingRequiredArgument => match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::Strings(missing)) => format!("this is missing: {}", missing.join(", ")),
            _ => "something is missing".to_owned(),
        },
        ErrorKind::InvalidSubcommand => {
            let word = excerpt(context(ContextKind::InvalidSubcommand).unwrap_or_default());
            format!("there is no command \"{word}\"")
        }
        ErrorKind::UnknownArgument if whole.starts_with('-') => {
            format!("there is no option {}", excerpt(whole))
        }
        ErrorKind::UnknownArgument => format!("\"{}\" is a word too many", excerpt(whole)),
        ErrorKind::InvalidValue if word.is_empty() => format!("{option} needs a value: {whole}"),
        ErrorKind::InvalidValue => match error.get(ContextKind::ValidValue) {
            Some(ContextValue::Strings(known)) => {
                format!("{option} cannot be \"{word}\", only {}", known.join(" or "))
            }
            _ => format!("{option} cannot be \"{word}\""),
        },
        ErrorKind::ValueValidation => {
            let why = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            format!("{option} \"{word}\": {why}")
        }
        ErrorKind::ArgumentConflict => match context(ContextKind::PriorArg).map(first_word) {
            Some(prior) if option.is_empty() => format!("{prior} goes with no command below this one"),
            Some(prior) if prior != option => format!("{option} and {prior} exclude each other"),
            _ => format!("{option} can be given only once"),
        },
        ErrorKind::TooManyValues => format!("{option} takes no value, not \"{word}\""),
        ErrorKind::InvalidUtf8 => "the command line has a word that is not UTF-8".to_owned(),
        kind => format!("the command line cannot be understood ({kind:?})"),
    }
}

fn first_word(text: &str) -> &str {
    text.split_once(' ').map_or(text, |(word, _)| word)
}

/// `run busybox echo hi` is what users of docker write, and `run --image busybox echo hi`; here the first word that is no
/// option's is a file.
fn image_hint(error: &clap::Error, words: &[OsString]) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    // As far as the parser came: the word where the task file stands.
    let parsed = Arguments::command().ignore_errors(true).try_get_matches_from(words).ok()?;
    let run = parsed.subcommand_matches("run")?;
    let task: &PathBuf = run.try_get_one("task").ok()??;
    let has_image = run.try_get_one::<String>("image").ok()?.is_some();
    let is_task = |(at, word): (usize, &OsString)| {
        let is_image = words.get(at.checked_sub(1)?).is_some_and(|before| before == "--image");
        (word == task.as_os_str() && !is_image).then_some(at)
    };
    let at = words.iter().enumerate().find_map(is_task)?;
    let line = |words: &[OsString]| -> String {
        words.iter().map(|text| format!(" {}", word(&text.to_string_lossy()))).collect()
    };
    if has_image && !task.exists() {
        let (options, command) = (words.get(1..at)?, words.get(at..)?);
        return Some(format!(
            "; a command stands after \"--\": docker-worker{} --{}",
            line(options),
            line(command)
        ));
    }
    let (image, command) = (image_called(task)?, words.get(at + 1..)?);
    Some(format!("; to run a command in an image: docker-worker run --image {image} --{}", line(command)))
}

/// The word, if it is no file and could be the name of an image.
pub(super) fn image_called(task: &Path) -> Option<&str> {
    let name = task.to_str()?;
    let is_image = !task.exists() && Source::parse(name).is_ok();
    // `task.yml` is a possible name, and surely not meant so.
    let is_document = [".json", ".yml", ".yaml"].iter().any(|ending| name.ends_with(ending));
    (is_image && !is_document).then_some(name)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn explained(words: &[&str]) -> String {
        let words: Vec<OsString> = ["docker-worker"].iter().chain(words).map(OsString::from).collect();
        explain(&Arguments::try_parse_from(&words).unwrap_err(), &words)
    }

    #[test]
    fn the_commands_about_the_image_store_say_it_in_a_hundred_columns() {
        for name in ["pull", "images", "rmi", "save", "load", "gc"] {
            let mut command = Arguments::command();
            let help = command.find_subcommand_mut(name).unwrap().render_long_help().to_string();
            let wide: Vec<&str> = help.lines().filter(|line| line.chars().count() > 100).collect();
            assert_eq!(wide, [""; 0], "{name}");
        }
    }

    #[test]
    fn wrong_use_is_one_line_with_a_hint_and_a_place_to_read_on() {
        let cases: [(&[&str], &str); 17] = [
            (
                &[],
                "name a command: run, standalone, start, demo, check, features, pull, images, rmi, save, load, gc or cleanup (docker-worker --help shows what there is)",
            ),
            (
                &["run", "--imago", "x"],
                "there is no option --imago; did you mean --image? (docker-worker run --help shows what there is)",
            ),
            (
                &["rnu"],
                "there is no command \"rnu\"; did you mean \"run\"? (docker-worker --help shows what there is)",
            ),
            (&["validate"], "the command validate is not there yet in this version of docker-worker"),
            (
                &["standalone", "--listen", "here"],
                "--listen \"here\": write it as an address of this host and a port: 127.0.0.1:8239 (docker-worker standalone",
            ),
            (
                &["run", "--network", "nome", "x"],
                "--network cannot be \"nome\", only none or default; did you mean none? (",
            ),
            (&["run", "--feature", "bulklog", "x"], "--feature \"bulklog\": did you mean \"bulkLog\"?"),
            (&["run", "--max-run-time", "0", "x"], "--max-run-time \"0\": must be at least 1 second"),
            (
                &["run", "--image"],
                "--image needs a value: --image <REF> (docker-worker run --help shows what there is)",
            ),
            (&["run", "--env=", "x"], "--env \"\": write it as NAME=VALUE, or NAME alone"),
            (
                &["run", "t", "--image", "a", "--image", "b"],
                "--image can be given only once (docker-worker run",
            ),
            (&["run", "t", "--quiet", "--json"], "--quiet and --json exclude each other (docker-worker run"),
            (&["run", "t", "--json=1"], "--json takes no value, not \"1\" (docker-worker run"),
            (&["--data"], "--data needs a value: --data <DIR> (docker-worker --help"),
            (&["run", "-x"], "there is no option -x (docker-worker run --help"),
            (&["check\nthat\u{1b}[31m"], "there is no command \"check\\nthat\\u001b[31m\"; known here: run"),
            (&["check", "x"], "\"x\" is a word too many (docker-worker check --help shows what there is)"),
        ];
        for (words, expected) in cases {
            let line = explained(words);
            assert!(line.starts_with(expected), "{words:?}: {line}");
            assert_eq!(line.lines().count(), 1, "{words:?}: {line}");
        }
    }

    #[test]
    fn a_command_without_its_dashes_is_shown_with_them() {
        let cases: [(&[&str], &str); 5] = [
            (
                &["run", "busybox", "echo", "hi"],
                "\"echo\" is a word too many; to run a command in an image: docker-worker run --image busybox -- echo hi (",
            ),
            (
                &["run", "busybox", "sh", "-c", "x"],
                "\"sh\" is a word too many; to run a command in an image: docker-worker run --image busybox -- sh -c x (",
            ),
            (
                &["run", "--image", "sh", "sh", "-c", "echo hi"],
                "there is no option -c; a command stands after \"--\": docker-worker run --image sh -- sh -c 'echo hi' (",
            ),
            (
                &["run", "--image=busybox", "--network", "none", "echo", "hi"],
                "\"hi\" is a word too many; a command stands after \"--\": docker-worker run --image=busybox --network none -- echo hi (",
            ),
            (
                &["run", "--image", "busybox", "Cargo.toml", "x"],
                "\"x\" is a word too many (docker-worker run",
            ),
        ];
        for (words, expected) in cases {
            let line = explained(words);
            assert!(line.starts_with(expected), "{words:?}: {line}");
        }
    }

    #[test]
    fn wrong_use_below_a_command_names_what_is_there() {
        let cases: [(&[&str], &str); 6] = [
            (
                &["standalone", "client"],
                "name a command: add, list or remove (docker-worker standalone client --help shows what there is)",
            ),
            (&["standalone", "client", "ad"], "there is no command \"ad\"; did you mean \"add\"? ("),
            (&["standalone", "clients"], "there is no command \"clients\"; did you mean \"client\"? (docker"),
            (
                &["standalone", "client", "add", "ci"],
                "this is missing: --scope <SCOPE> (docker-worker standalone client add --help",
            ),
            (&["standalone", "client", "remove"], "this is missing: <NAME> (docker-worker standalone client"),
            (
                &["standalone", "--backup", "f", "client", "list"],
                "--backup goes with no command below this one (",
            ),
        ];
        for (words, expected) in cases {
            let line = explained(words);
            assert!(line.starts_with(expected), "{words:?}: {line}");
        }
    }
}
