//! Credential helpers: programs `docker-credential-NAME` that know passwords which stand in no file.
//!
//! ```text
//!  docker-credential-NAME get    stdin: HOST    stdout: {"ServerURL": …, "Username": …, "Secret": …}
//! ```
//!
//! One that does not know the host ends with 1 and says so in the words below: then we are nobody there. Whatever else it
//! does is a fault of the host's, and its words are not repeated: they may be the secret. It has its own process group,
//! which is killed with whoever waits for it.
//! Source: docker-credential-helpers, `client` and `credentials/error.go`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::limits::Limits;
use crate::reference::DOCKER_HUB;

use super::credentials::Credentials;

/// What helpers know Docker Hub by.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// What a helper calls the user where the secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// What helpers say of a host that they do not know, whatever they call the place where they have looked.
const NOT_FOUND: &str = "credentials not found";

/// Why a helper gives nothing.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// Its name is no part of a file's name.
    #[error(
        "use the credential helper {name:?}: such a name has letters, digits, '.', '_' and '-' only; correct it in Docker's config.json"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// It is not installed.
    #[error("start the credential helper {program}: it is in no directory of PATH; install it")]
    Missing {
        /// `docker-credential-NAME`.
        program: String,
    },
    /// It cannot be executed, or not be spoken to.
    #[error("ask the credential helper {program}")]
    Io {
        /// `docker-credential-NAME`.
        program: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// It ended otherwise than well.
    #[error(
        "ask the credential helper {program} for {host}: it ended with {status}; try it by hand, with that name on its standard input"
    )]
    Failed {
        /// `docker-credential-NAME`.
        program: String,
        /// What it was asked for.
        host: String,
        /// As the kernel tells it.
        status: String,
    },
    /// It did not end.
    #[error(
        "ask the credential helper {program} for {host}: it did not answer within {limit:?} and was killed"
    )]
    Timeout {
        /// `docker-credential-NAME`.
        program: String,
        /// What it was asked for.
        host: String,
        /// How long it had.
        limit: Duration,
    },
    /// It said more than a name and a password.
    #[error(
        "ask the credential helper {program} for {host}: it wrote more than {limit} bytes and was killed"
    )]
    TooLong {
        /// `docker-credential-NAME`.
        program: String,
        /// What it was asked for.
        host: String,
        /// The limit.
        limit: u64,
    },
    /// It said something else.
    #[error("ask the credential helper {program} for {host}: its answer is not a name and a secret")]
    Answer {
        /// `docker-credential-NAME`.
        program: String,
        /// What it was asked for.
        host: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks a helper who we are to a host; `None` if it does not know that.
pub(super) async fn ask(
    name: &str,
    host: &str,
    environment: &[(OsString, OsString)],
    limits: &Limits,
) -> Result<Option<Credentials>, HelperError> {
    let (executable, program) = find(name, environment)?;
    let host = if host == DOCKER_HUB { DOCKER_HUB_KEY } else { host }.to_owned();
    let failed = |source| HelperError::Io { program: program.clone(), source };
    let mut command = Command::new(executable);
    command.arg("get").env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    let mut group = Group(Some(command.spawn().map_err(failed)?));
    let talking = tokio::time::timeout(limits.helper, group.talk(&host, limits.helper_bytes));
    let Ok(said) = talking.await else {
        return Err(HelperError::Timeout { program, host, limit: limits.helper });
    };
    let (status, said) = said.map_err(failed)?;
    if said.len() as u64 > limits.helper_bytes {
        return Err(HelperError::TooLong { program, host, limit: limits.helper_bytes });
    }
    let Some(status) = status.filter(|status| !status.success()) else {
        return credentials(&said).map(Some).ok_or(HelperError::Answer { program, host });
    };
    let words = String::from_utf8_lossy(&said).to_ascii_lowercase();
    if status.code() == Some(1) && words.trim_start().starts_with(NOT_FOUND) {
        return Ok(None);
    }
    Err(HelperError::Failed { program, host, status: status.to_string() })
}

fn credentials(said: &[u8]) -> Option<Credentials> {
    let Answer { username, secret } = serde_json::from_slice(said).ok()?;
    match username.as_str() {
        "" => None,
        TOKEN_USER => Some(Credentials::IdentityToken(secret)),
        _ => Some(Credentials::Password { username, password: secret }),
    }
}

/// The executable, and its name for messages.
fn find(name: &str, environment: &[(OsString, OsString)]) -> Result<(PathBuf, String), HelperError> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !name.bytes().all(is_name) {
        return Err(HelperError::Name { name: name.to_owned() });
    }
    let program = format!("docker-credential-{name}");
    let path = environment.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_os_str());
    let mut places = std::env::split_paths(path.unwrap_or(OsStr::new("")));
    let is_executable = |path: &PathBuf| {
        let metadata = path.metadata();
        // An entry without a slash at its beginning is relative to wherever the worker was started.
        path.is_absolute() && metadata.is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
    };
    let found = places.find_map(|place| Some(place.join(&program)).filter(is_executable));
    found.map(|path| (path, program.clone())).ok_or(HelperError::Missing { program })
}

/// A helper with whatever it has started. Killed if it is dropped before it was waited for.
struct Group(Option<Child>);

impl Group {
    /// Says what is wanted, and listens up to one byte more than `limit`. Then there is no status: it may not have ended.
    async fn talk(
        &mut self,
        host: &str,
        limit: u64,
    ) -> io::Result<(Option<std::process::ExitStatus>, Vec<u8>)> {
        let mut said = Vec::new();
        let Some(child) = &mut self.0 else { return Ok((None, said)) };
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let asking = async {
            match stdin {
                // One that knows the answer without reading the question has ended by now.
                Some(mut stdin) => match stdin.write_all(host.as_bytes()).await {
                    Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
                    _ => Ok(()),
                },
                None => Ok(()),
            }
        };
        let listening = async {
            match stdout {
                Some(stdout) => stdout.take(limit + 1).read_to_end(&mut said).await.map(drop),
                None => Ok(()),
            }
        };
        let (asked, listened) = tokio::join!(asking, listening);
        asked.and(listened)?;
        if said.len() as u64 > limit {
            return Ok((None, said));
        }
        let status = child.wait().await?;
        self.0 = None;
        Ok((Some(status), said))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Nobody has waited for the first of them: its number is still its own, and the group's.
        let leader = self.0.as_ref().and_then(Child::id).and_then(|id| i32::try_from(id).ok());
        if let Some(leader) = leader.and_then(Pid::from_raw) {
            match kill_process_group(leader, Signal::KILL) {
                // Those that have ended meanwhile need no signal.
                Ok(()) | Err(_) => {}
            }
        }
    }
}
