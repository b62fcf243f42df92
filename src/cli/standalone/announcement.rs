//! The first lines of `standalone`: where the queue is, and how its clients come to it.

use std::net::SocketAddr;

use crate::cli::operator::Operator;
use crate::cli::shell::word;
use crate::config::Config;
use crate::queue::Credentials;
use crate::standalone::credentials_file;

/// Says where the queue is. The token itself is not shown: the lines for a shell read it where it lies.
pub(super) fn announce(config: &Config, root: &Credentials, listens: SocketAddr, operator: &Operator) {
    let root_url = config.file.root_url.as_deref().unwrap_or_default();
    let pool = config.file.worker_pool();
    let credentials = credentials_file::path(&config.directories.data);
    let file = credentials.display().to_string();
    operator.note(&format!("the queue is at {root_url}; tasks of {pool} are carried out here"));
    operator.note(&format!(
        "who has the credentials in {file} may do everything; Taskcluster's clients find them by"
    ));
    for line in exports(root_url, &root.client_id, &file) {
        operator.out().line(&line);
    }
    if !listens.ip().is_loopback() {
        operator.note(&format!(
            "{listens} is not on loopback: whoever reaches it can read tasks and public artifacts, and calls are not encrypted; let others come by way of a reverse proxy with TLS"
        ));
    }
}

/// What a shell has to be told before it starts an official client.
fn exports(root_url: &str, client_id: &str, file: &str) -> [String; 3] {
    let token = r#"s/.*"accessToken": *"\([^"]*\)".*/\1/p"#;
    [
        format!("export TASKCLUSTER_ROOT_URL={}", word(root_url)),
        format!("export TASKCLUSTER_CLIENT_ID={}", word(client_id)),
        format!("export TASKCLUSTER_ACCESS_TOKEN=$(sed -n '{token}' {})", word(file)),
    ]
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_that_is_told_so_knows_the_token() {
        let directory = tempfile::Builder::new().prefix("it's a \"place\" $").tempdir().unwrap();
        let made = credentials_file::read_or_make(directory.path()).unwrap();
        let file = credentials_file::path(directory.path()).display().to_string();
        let lines = exports("http://[::1]:1", &made.client_id, &file).join("\n");
        assert!(!lines.contains(&made.access_token), "{lines}");
        let print = "env | grep ^TASKCLUSTER_ | sort";
        let told = Command::new("sh").args(["-c", &format!("{lines}\n{print}")]).output().unwrap();
        let expected = format!(
            "TASKCLUSTER_ACCESS_TOKEN={}\nTASKCLUSTER_CLIENT_ID={}\nTASKCLUSTER_ROOT_URL=http://[::1]:1\n",
            made.access_token, made.client_id
        );
        assert_eq!(String::from_utf8(told.stdout).unwrap(), expected);
    }
}
