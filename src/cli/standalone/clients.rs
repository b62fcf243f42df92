//! `docker-worker standalone client`: who may use the queue beside its root, and for what.

use std::io;
use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::refusal::Refusal;
use crate::cli::{FAILED, WRONG_USE, output};
use crate::directories::Directories;
use crate::queue::EmbeddedQueue;
use crate::readiness::write_all;
use crate::standalone::clients_file::{self, ClientsFileError};
use crate::text::chain;

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
pub(super) fn change(action: &ClientAction, directories: &Directories) -> Result<(), Refusal> {
    require_queue(directories)?;
    let data = &directories.data;
    match action {
        ClientAction::Add { name, scopes } => {
            require_reader()?;
            let made = clients_file::add(data, name, scopes.clone()).map_err(refused)?;
            print(&json!({ "clientId": made.client_id, "accessToken": made.access_token }))
                .map_err(|error| Refusal::new(FAILED, taken_back(data, name, &error)))
        }
        ClientAction::List => {
            let clients = clients_file::list(data).map_err(refused)?.into_iter();
            let shown =
                clients.map(|it| json!({ "clientId": it.credentials.client_id, "scopes": it.scopes }));
            print(&json!({ "clients": shown.collect::<Vec<_>>() }))
                .map_err(|error| Refusal::new(FAILED, output::unwritten(&error)))
        }
        ClientAction::Remove { name } => clients_file::remove(data, name).map_err(refused),
    }
}

/// Refuses a directory that no server looks into: it was mistyped, or there has been none yet.
fn require_queue(directories: &Directories) -> Result<(), Refusal> {
    if EmbeddedQueue::is_in(&directories.queue()) {
        return Ok(());
    }
    let place = directories.data.display();
    Err(Refusal::new(
        FAILED,
        format!(
            "there is no queue in {place}; name its directory with --data, or start \"docker-worker standalone\" once"
        ),
    ))
}

fn require_reader() -> Result<(), Refusal> {
    if output::leads_nowhere(io::stdout()) {
        return Err(Refusal::new(
            WRONG_USE,
            "standard output leads nowhere, and the new client's credentials are shown there, this once only",
        ));
    }
    Ok(())
}

/// Removes a client whose credentials nobody has; says what became of it.
fn taken_back(data: &Path, name: &str, error: &io::Error) -> String {
    let why = output::unwritten(error);
    match clients_file::remove(data, name) {
        Ok(()) => format!("{why}; the client {name} was not added, as nobody would have its credentials"),
        Err(problem) => {
            format!("{why}; nobody has the credentials of the client {name}: failed to {}", chain(&problem))
        }
    }
}

fn refused(error: ClientsFileError) -> Refusal {
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
}

fn print(value: &Value) -> io::Result<()> {
    write_all(io::stdout(), format!("{value:#}\n").as_bytes())
}
