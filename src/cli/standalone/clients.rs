//! `docker-worker standalone client`: who may use the queue beside its root, and for what.

use std::io;
use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::FAILED;
use crate::cli::WRONG_USE;
use crate::cli::refusal::Refusal;
use crate::readiness::write_all;
use crate::standalone::clients_file::{self, ClientsFileError};

/// Options of `standalone client`.
#[derive(Debug, Args)]
pub struct ClientArguments {
    #[command(subcommand)]
    pub(super) action: ClientAction,
}

/// What becomes of which client.
#[derive(Debug, Subcommand)]
pub enum ClientAction {
    /// Adds a client, and prints its credentials, which are shown this once only.
    Add {
        /// Its name: letters, digits and !@/:.+|_-
        #[arg(value_name = "NAME")]
        name: String,
        /// What it may do; a * at the end stands for all that follows.
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<String>,
    },
    /// Prints the names of all clients that were added, and their scopes.
    List,
    /// Removes a client: its credentials are not good any more.
    Remove {
        /// Its name.
        #[arg(value_name = "NAME")]
        name: String,
    },
}

/// The command. It needs no server; one that runs knows of the change at the next call.
pub(super) fn change(action: &ClientAction, data: &Path) -> Result<(), Refusal> {
    let refused = |error: ClientsFileError| {
        let status = match error {
            ClientsFileError::Name { .. } | ClientsFileError::Scope { .. } => WRONG_USE,
            ClientsFileError::Io { .. }
            | ClientsFileError::Locked { .. }
            | ClientsFileError::Content { .. }
            | ClientsFileError::Taken { .. }
            | ClientsFileError::Full { .. }
            | ClientsFileError::Unknown { .. } => FAILED,
        };
        Refusal::because(status, &error)
    };
    match action {
        ClientAction::Add { name, scopes } => {
            let made = clients_file::add(data, name, scopes.clone()).map_err(refused)?;
            print(&json!({ "clientId": made.client_id, "accessToken": made.access_token }))
        }
        ClientAction::List => {
            let clients = clients_file::list(data).map_err(refused)?.into_iter();
            let shown =
                clients.map(|it| json!({ "clientId": it.credentials.client_id, "scopes": it.scopes }));
            print(&json!({ "clients": shown.collect::<Vec<_>>() }))
        }
        ClientAction::Remove { name } => clients_file::remove(data, name).map_err(refused),
    }
}

fn print(value: &Value) -> Result<(), Refusal> {
    write_all(io::stdout(), format!("{value:#}\n").as_bytes())
        .map_err(|error| Refusal::new(FAILED, format!("failed to write to standard output: {error}")))
}
