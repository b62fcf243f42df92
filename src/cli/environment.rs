//! What a worker of a deployment does not keep in its environment: proxies, and secrets.
//!
//! Registries and storage are called directly. The crate that calls the deployment goes by the environment, and knows no
//! other way: half of a worker's traffic by way of a proxy helps nobody who needs one, and who reads its calls is for the
//! configuration to say. A secret could be read there as long as the process lives. What has been in a process's
//! environment can be taken away only where a process begins, so the worker executes itself once more without both. The
//! secrets go along in a file that lies in memory only, and is closed once it is read.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{MemfdFlags, memfd_create};

use super::FAILED;
use super::operator::Operator;
use super::refusal::Refusal;
use crate::config::Secret;

/// The variables of proxies, in upper or lower case.
const PROXIES: [&str; 3] = ["http_proxy", "https_proxy", "all_proxy"];

/// Those of secrets.
const SECRETS: [&str; 3] = ["TASKCLUSTER_ACCESS_TOKEN", "TASKCLUSTER_CERTIFICATE", "DNS_SERVER_SECRET"];

/// Says to the process begun anew which descriptor the secrets' file has.
const DESCRIPTOR: &str = "DOCKER_WORKER_SECRETS_FD";

/// What that file is called where descriptors are listed.
const FILE: &str = "docker-worker-secrets";

/// Bytes of it: more than an environment can have.
const MOST_BYTES: u64 = 8 << 20;

/// The secrets that the worker was started with, by their variables' names.
#[derive(Debug, Default)]
pub(super) struct Secrets(Vec<(String, Secret)>);

impl Secrets {
    /// Those that are in the environment now.
    pub(super) fn of_environment() -> Secrets {
        let value = |name: &&str| env::var(name).ok().filter(|value| !value.is_empty());
        let secrets = SECRETS.iter().filter_map(|name| Some(((*name).to_owned(), Secret::new(value(name)?))));
        Secrets(secrets.collect())
    }

    /// What the variable of that name said.
    pub(super) fn get(&self, name: &str) -> Option<Secret> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, secret)| secret.clone())
    }

    /// Writes them to a file that a program which this process executes finds open.
    fn hand_over(&self) -> io::Result<File> {
        let create = |flags| memfd_create(FILE, flags);
        // A kernel before 6.3 does not know the flag, and a later one may want it.
        let created = create(MemfdFlags::NOEXEC_SEAL).or_else(|_| create(MemfdFlags::empty()));
        let mut file = File::from(created?);
        let pairs: Vec<_> = self.0.iter().map(|(name, secret)| (name, secret.reveal())).collect();
        serde_json::to_writer(&mut file, &pairs)?;
        Ok(file)
    }

    /// Reads and closes that file, if this process was begun anew.
    fn handed_over() -> io::Result<Secrets> {
        let Some(descriptor) = env::var_os(DESCRIPTOR) else { return Ok(Secrets::default()) };
        let number = descriptor.to_str().and_then(|text| text.parse::<RawFd>().ok());
        let number = number.ok_or_else(|| io::Error::other(format!("{DESCRIPTOR} is no number")))?;
        let mut text = Vec::new();
        // By another opening of the file, which begins at its first byte.
        File::open(format!("/proc/self/fd/{number}"))?.take(MOST_BYTES).read_to_end(&mut text)?;
        nix::unistd::close(number)?;
        // What stands there is not told: it may be a secret.
        serde_json::from_slice(&text).map(Secrets).map_err(|_| io::Error::other("they cannot be read"))
    }
}

/// Goes on without proxies and secrets in the environment. Before anything is begun that a process cannot do twice. Gives
/// the secrets that were there.
///
/// # Errors
///
/// The executable is not where it was, or cannot be executed.
pub(super) fn leave_out(operator: &Operator) -> Result<Secrets, Refusal> {
    let what = "failed to start without the proxies and secrets of the environment";
    begin_anew(operator).map_err(|error| Refusal::new(FAILED, format!("{what}: {error}")))
}

fn begin_anew(operator: &Operator) -> io::Result<Secrets> {
    let names = env::vars_os().map(|(name, _)| name);
    let (proxies, others): (Vec<_>, Vec<_>) = names.partition(|name| names_a_proxy(name));
    let is_secret = others.iter().any(|name| SECRETS.iter().any(|secret| name == secret));
    if proxies.is_empty() && !is_secret {
        return Secrets::handed_over();
    }
    for name in &proxies {
        operator.note(&format!("{} is not used: the worker makes its connections itself", name.display()));
    }
    let secrets = Secrets::of_environment().hand_over()?;
    let mut again = Command::new(env::current_exe()?);
    again.args(env::args_os().skip(1)).env(DESCRIPTOR, secrets.as_raw_fd().to_string());
    for name in &proxies {
        again.env_remove(name);
    }
    for name in SECRETS {
        again.env_remove(name);
    }
    Err(again.exec())
}

/// The variables that name a proxy now.
pub(super) fn proxies() -> Vec<String> {
    let set = env::vars_os().filter(|(name, value)| names_a_proxy(name) && !value.is_empty());
    set.map(|(name, _)| name.display().to_string()).collect()
}

fn names_a_proxy(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| PROXIES.contains(&name.to_ascii_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_named_in_either_case_and_its_exceptions_name_none() {
        for (name, expected) in [
            ("HTTP_PROXY", true),
            ("https_proxy", true),
            ("ALL_PROXY", true),
            ("NO_PROXY", false),
            ("HTTP_PROXY_USER", false),
            ("PATH", false),
        ] {
            assert_eq!(names_a_proxy(OsStr::new(name)), expected, "{name}");
        }
    }
}
