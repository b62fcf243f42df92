//! What the command line of `standalone` says.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::clients::ClientArguments;
use crate::cli::WRONG_USE;
use crate::cli::environment::Secrets;
use crate::cli::operator::Operator;
use crate::cli::refusal::Refusal;
use crate::config::{ConfigFile, CredentialSettings};
use crate::queue::definition::is_queue_id;
use crate::standalone::{RootUrl, WORKER_NAME, is_worker_name};
use crate::text::escaped;

/// "TCDW" on the keys of a telephone: below the ports that a kernel gives out by itself, so that no connection of this host
/// takes it by chance, and none of those that other servers for developers like.
const PORT: u16 = 8239;

/// Nobody but this host reaches the queue, unless its operator says so: who has its credentials is root here.
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT);

/// Options of `standalone`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct StandaloneArguments {
    #[command(subcommand)]
    pub(super) action: Option<Action>,
    /// Address that the queue listens on, with or without a port (0: any free one).
    #[arg(long, value_name = "ADDR", value_parser = address, default_value_t = ADDRESS)]
    pub(super) listen: SocketAddr,
    /// Where clients find the queue, if it is behind a reverse proxy: https://HOST.
    #[arg(long, value_name = "URL")]
    pub(super) root_url: Option<RootUrl>,
    /// Only copies the queue to a file, also while it is served; the bytes of artifacts are not in it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["listen", "root_url"])]
    pub(super) backup: Option<PathBuf>,
    /// Only has the queue be what --backup has copied to a file; the queue that there was is gone.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["listen", "root_url", "backup"])]
    pub(super) restore: Option<PathBuf>,
    /// The secrets that the environment held.
    #[arg(skip)]
    pub(super) secrets: Secrets,
}

/// What can be done instead of serving.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Adds, shows or removes clients with limited scopes.
    Client(ClientArguments),
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let (host, port) = match text.rsplit_once(':') {
        Some(("localhost", port)) => ("127.0.0.1", port.parse().ok()),
        _ if text == "localhost" => ("127.0.0.1", Some(PORT)),
        _ => (text, Some(PORT)),
    };
    let with_port = text.parse().ok();
    let without = host.parse().ok().zip(port).map(|(ip, port)| SocketAddr::new(ip, port));
    with_port.or(without).ok_or_else(|| format!("write it as an address of this host and a port: {ADDRESS}"))
}

/// Refuses names with which the queue would give the worker no tasks.
pub(super) fn require_names(file: &ConfigFile) -> Result<(), Refusal> {
    let pool = file.worker_pool();
    if !is_queue_id(&pool) {
        return Err(Refusal::new(
            WRONG_USE,
            format!(
                "there can be no pool {}: provisionerId must be 1 to 38 letters, digits, - and _, and workerType 1 to 38 small letters, digits and -, the first a letter and the last no -",
                escaped(&pool)
            ),
        ));
    }
    let own = [("workerGroup", Some(file.worker_group())), ("workerId", file.worker_id.as_deref())];
    for (key, name) in own {
        if let Some(name) = name.filter(|name| !is_worker_name(name)) {
            let problem = format!("{key} is {}: it must be {WORKER_NAME}", escaped(name));
            return Err(Refusal::new(WRONG_USE, problem));
        }
    }
    Ok(())
}

impl StandaloneArguments {
    /// Takes from the configuration what only the worker of a deployment needs, and puts in what goes by the address.
    pub(super) fn complete(&self, file: &mut ConfigFile, operator: &Operator) {
        let without_meaning = file.of_deployments_only();
        if !without_meaning.is_empty() {
            let keys = without_meaning.join(", ");
            operator.note(&format!(
                "these keys of the configuration have no effect here, as the queue is the worker's own: {keys}"
            ));
        }
        file.taskcluster = CredentialSettings::default();
        let stateless = &mut file.stateless_hostname;
        stateless.secret = stateless.secret.take().or_else(|| self.secrets.get("DNS_SERVER_SECRET"));
        self.secrets.complete(&mut file.proxies, operator);
        self.secrets.complete_features(file);
        // Who reaches the queue reaches the live logs that it leads to, and nobody else.
        let ip = self.listen.ip();
        file.logging.live_log_address.get_or_insert(ip);
        if !ip.is_unspecified() {
            file.host.get_or_insert_with(|| ip.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_leave_out_its_port_and_loopback_has_a_name() {
        for (text, expected) in [
            ("127.0.0.1:80", Some("127.0.0.1:80")),
            ("0.0.0.0", Some("0.0.0.0:8239")),
            ("localhost", Some("127.0.0.1:8239")),
            ("localhost:0", Some("127.0.0.1:0")),
            ("[::1]:9", Some("[::1]:9")),
            ("::1", Some("[::1]:8239")),
            ("localhost:x", None),
            ("example.com:80", None),
            ("127.0.0.1:65536", None),
            ("", None),
        ] {
            let read = address(text).ok().map(|address| address.to_string());
            assert_eq!(read.as_deref(), expected, "{text:?}");
        }
    }
}
