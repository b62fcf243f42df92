//! What a worker of a deployment does not keep in its environment: proxies, and secrets.
//!
//! Deployment and storage are called directly, registries by way of the proxies that the environment names. The crate that
//! calls the deployment goes by the environment, and knows no other way: who reads a worker's calls is for the configuration
//! to say. A secret, which a proxy's URL may hold as well, could be read there as long as the process lives. What has been in
//! a process's environment can be taken away only where a process begins, so the worker executes itself once more without
//! both. They go along in a file that lies in memory only, and is closed once it is read.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use images::registry::Proxies;
use rustix::fs::{MemfdFlags, memfd_create};

use super::FAILED;
use super::operator::Operator;
use super::refusal::Refusal;
use crate::config::{ConfigFile, RegistryProxies, Secret};
use crate::known_features::RELENG_API_PROXY;

/// The variables of proxies, in upper or lower case.
const PROXIES: [&str; 3] = ["http_proxy", "https_proxy", "all_proxy"];

/// Those of secrets.
const SECRETS: [&str; 5] = [
    "TASKCLUSTER_ACCESS_TOKEN",
    "TASKCLUSTER_CERTIFICATE",
    "DNS_SERVER_SECRET",
    "TESTDROID_PASSWORD",
    "RELENG_API_TOKEN",
];

/// Says to the process begun anew which descriptor the secrets' file has.
const DESCRIPTOR: &str = "DOCKER_WORKER_SECRETS_FD";

/// What that file is called where descriptors are listed.
const FILE: &str = "docker-worker-secrets";

/// Bytes of it: more than an environment can have.
const MOST_BYTES: u64 = 8 << 20;

/// The secrets and proxies that the worker was started with, by their variables' names.
#[derive(Debug, Default)]
pub(super) struct Secrets(Vec<(String, Secret)>);

impl Secrets {
    /// Those that are in the environment now.
    pub(super) fn of_environment() -> Secrets {
        let all = env::vars_os().filter(|(name, value)| !value.is_empty() && is_left_out(name));
        let text = |text: OsString| text.into_string().ok();
        Secrets(all.filter_map(|(name, value)| Some((text(name)?, Secret::new(text(value)?)))).collect())
    }

    /// Puts the environment's proxies below what the configuration says of them. A variable is looked for in capitals first,
    /// as Go's programs do; what is no proxy is named, and not used.
    pub(super) fn complete(&self, proxies: &mut RegistryProxies, operator: &Operator) {
        let of = |scheme: &str| {
            let names = [scheme, "all_proxy"].into_iter();
            let found = names.flat_map(|name| [name.to_ascii_uppercase(), name.to_owned()]);
            found.filter_map(|name| Some((self.get(&name)?, name))).find(|(url, name)| {
                let read = Proxies::new(url.reveal(), "", "");
                let refuse = |error| operator.note(&format!("{name} {error}; it is not used"));
                read.map_err(refuse).is_ok()
            })
        };
        let url = |scheme| of(scheme).map(|(url, _)| url);
        proxies.https_proxy = proxies.https_proxy.take().or_else(|| url("https_proxy"));
        proxies.http_proxy = proxies.http_proxy.take().or_else(|| url("http_proxy"));
        let exceptions = || env::var("NO_PROXY").or_else(|_| env::var("no_proxy")).ok();
        proxies.no_proxy = proxies.no_proxy.take().or_else(exceptions);
    }

    /// Puts below the configuration what the environment says for the containers of features.
    pub(super) fn complete_features(&self, file: &mut ConfigFile) {
        let plain = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let lender = &mut file.testdroid;
        lender.url = lender.url.take().or_else(|| plain("TESTDROID_URL"));
        lender.username = lender.username.take().or_else(|| plain("TESTDROID_USERNAME"));
        lender.password = lender.password.take().or_else(|| self.get("TESTDROID_PASSWORD"));
        if let Some(token) = self.get("RELENG_API_TOKEN") {
            let section = file.features.entry(RELENG_API_PROXY.name.to_owned()).or_default();
            section.token.get_or_insert(token);
        }
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
    let left_out: Vec<_> = env::vars_os().map(|(name, _)| name).filter(|name| is_left_out(name)).collect();
    if left_out.is_empty() {
        return Secrets::handed_over();
    }
    for name in left_out.iter().filter(|name| names_a_proxy(name)) {
        operator.note(&format!(
            "{} is used for registries: other connections the worker makes itself",
            name.display()
        ));
    }
    let secrets = Secrets::of_environment().hand_over()?;
    let mut again = Command::new(env::current_exe()?);
    again.args(env::args_os().skip(1)).env(DESCRIPTOR, secrets.as_raw_fd().to_string());
    for name in &left_out {
        again.env_remove(name);
    }
    Err(again.exec())
}

/// The variables that name a proxy now.
pub(super) fn proxies() -> Vec<String> {
    let set = env::vars_os().filter(|(name, value)| names_a_proxy(name) && !value.is_empty());
    set.map(|(name, _)| name.display().to_string()).collect()
}

/// Where the operator's own `docker login` writes: an image comes as it would for them.
pub(super) fn dockers_file() -> Option<PathBuf> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let directory = variable("DOCKER_CONFIG").or_else(|| Some(variable("HOME")?.join(".docker")));
    directory.map(|directory| directory.join("config.json"))
}

fn is_left_out(name: &OsStr) -> bool {
    names_a_proxy(name) || SECRETS.iter().any(|secret| name == *secret)
}

fn names_a_proxy(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| PROXIES.contains(&name.to_ascii_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::operator::Form;

    #[test]
    fn proxies_of_the_environment_stand_below_the_configurations() {
        let secrets = |pairs: &[(&str, &str)]| {
            let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), Secret::new((*value).to_owned()));
            Secrets(pairs.iter().map(pair).collect())
        };
        let operator = Operator::new(Form::FewSentences);
        type Case =
            (&'static [(&'static str, &'static str)], Option<&'static str>, [Option<&'static str>; 2]);
        let cases: [Case; 6] = [
            (&[], None, [None, None]),
            (
                &[("HTTPS_PROXY", "a:1"), ("https_proxy", "b:1"), ("http_proxy", "c:1")],
                None,
                [Some("a:1"), Some("c:1")],
            ),
            (&[("all_proxy", "d:1"), ("HTTP_PROXY", "e:1")], None, [Some("d:1"), Some("e:1")]),
            (&[("HTTPS_PROXY", "a:1")], Some(""), [Some(""), None]),
            (&[("HTTPS_PROXY", "a:1")], Some("own:1"), [Some("own:1"), None]),
            (&[("HTTPS_PROXY", "socks5://a:1"), ("ALL_PROXY", "d:1")], None, [Some("d:1"), Some("d:1")]),
        ];
        for (variables, configured, expected) in cases {
            let https_proxy = configured.map(|url| Secret::new(url.to_owned()));
            let mut proxies = RegistryProxies { https_proxy, ..RegistryProxies::default() };
            secrets(variables).complete(&mut proxies, &operator);
            let found =
                [&proxies.https_proxy, &proxies.http_proxy].map(|url| url.as_ref().map(Secret::reveal));
            assert_eq!(found, expected, "{variables:?}");
        }
    }

    #[test]
    fn secrets_of_features_stand_below_the_configurations() {
        let pair = |(name, value): (&str, &str)| (name.to_owned(), Secret::new(value.to_owned()));
        let secrets = Secrets([("TESTDROID_PASSWORD", "p"), ("RELENG_API_TOKEN", "t")].map(pair).to_vec());
        let mut file = ConfigFile::default();
        secrets.complete_features(&mut file);
        let password = file.testdroid.password.as_ref().map(Secret::reveal);
        assert_eq!((password, file.releng_api_token().map(Secret::reveal)), (Some("p"), Some("t")));
        file.testdroid.password = Some(Secret::new("own".to_owned()));
        secrets.complete_features(&mut file);
        assert_eq!(file.testdroid.password.as_ref().map(Secret::reveal), Some("own"));
    }

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
