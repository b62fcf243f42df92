//! The options of `start`, the words of the original's command line, and how both go with a configuration.

use std::env;
use std::ffi::OsString;

use clap::{Args, ValueEnum};

use crate::cli::environment::Secrets;
use crate::config::{ConfigFile, Profile};

/// The original's one short option; its value may be attached, as in `-c4`. No command of ours begins so.
const CAPACITY_OPTION: &str = "-c";

/// What else the original understands before its profile.
const ORIGINAL_OPTIONS: &[&str] = &[
    "--host",
    "--capacity",
    "--provisioner-id",
    "--worker-type",
    "--worker-group",
    "--worker-id",
    "--worker-node-type",
];

/// Options of `start`. Those that name a value win over the configuration's.
#[derive(Debug, Args)]
pub struct StartArguments {
    /// Defaults of the original's under the configuration.
    #[arg(value_name = "PROFILE", value_parser = profile)]
    profile: Option<Profile>,
    /// Who has started this worker: nobody in particular, or worker-runner, which speaks over standard input.
    #[arg(long, value_enum, default_value = "none")]
    pub(super) host: HostKind,
    /// Prints the configuration in force, without its secrets, and ends.
    #[arg(long)]
    pub(super) print_config: bool,
    /// Tasks at once.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    capacity: Option<u32>,
    /// The first half of the pool's name.
    #[arg(long, value_name = "ID")]
    provisioner_id: Option<String>,
    /// The second half of the pool's name.
    #[arg(long, value_name = "TYPE")]
    worker_type: Option<String>,
    /// Where this worker is.
    #[arg(long, value_name = "GROUP")]
    worker_group: Option<String>,
    /// Which one it is.
    #[arg(long, value_name = "ID")]
    worker_id: Option<String>,
    /// What kind of machine it is.
    #[arg(long, value_name = "TYPE")]
    worker_node_type: Option<String>,
    /// The secrets that the environment held.
    #[arg(skip)]
    pub(super) secrets: Secrets,
}

/// Who has started a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HostKind {
    /// An operator, or an init system. The original's own tests called that `test`.
    #[value(alias = "test")]
    None,
    /// Taskcluster's worker-runner.
    WorkerRunner,
}

fn profile(text: &str) -> Result<Profile, &'static str> {
    Profile::named(text).ok_or("the profiles are production and test")
}

/// The command line of the original, `docker-worker [OPTIONS] PROFILE`, as one of ours; any other as it is.
pub fn in_our_words(mut words: Vec<OsString>) -> Vec<OsString> {
    let first = words.get(1).and_then(|word| word.to_str()).unwrap_or_default();
    let option = first.split_once('=').map_or(first, |(option, _)| option);
    let is_attached = first.starts_with(CAPACITY_OPTION);
    if is_attached || ORIGINAL_OPTIONS.contains(&option) || Profile::named(first).is_some() {
        words.insert(1, "start".into());
    }
    words
}

impl StartArguments {
    /// Puts what the command line says over the configuration, and what the environment and the profile say below it.
    pub(super) fn complete(&self, file: &mut ConfigFile) {
        for (own, key) in [
            (&self.provisioner_id, &mut file.provisioner_id),
            (&self.worker_type, &mut file.worker_type),
            (&self.worker_group, &mut file.worker_group),
            (&self.worker_id, &mut file.worker_id),
            (&self.worker_node_type, &mut file.worker_node_type),
        ] {
            if own.is_some() {
                key.clone_from(own);
            }
        }
        if self.capacity.is_some() {
            file.capacity = self.capacity;
        }
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let secret = |name| self.secrets.get(name);
        let credentials = &mut file.taskcluster;
        // Together or not at all: a token of the one and a name of the other make no credentials.
        if credentials.client_id.is_none() && credentials.access_token.is_none() {
            credentials.client_id = variable("TASKCLUSTER_CLIENT_ID");
            credentials.access_token = secret("TASKCLUSTER_ACCESS_TOKEN");
            credentials.certificate = secret("TASKCLUSTER_CERTIFICATE");
        }
        file.root_url = file.root_url.take().or_else(|| variable("TASKCLUSTER_ROOT_URL"));
        let stateless = &mut file.stateless_hostname;
        stateless.secret = stateless.secret.take().or_else(|| secret("DNS_SERVER_SECRET"));
        if let Some(profile) = self.profile {
            file.apply(profile);
        }
    }
}
