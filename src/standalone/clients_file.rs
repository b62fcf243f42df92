//! Clients with limited scopes: `clients.json` in a data directory, beside `credentials.json`.
//!
//! Commands write it, one at a time, and whole or not at all. A server looks at it again when it has changed: whoever was
//! added may call at once, and whoever was removed may not any more, nor may temporary credentials of theirs.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::certificate::is_scope;
use super::clients::Client;
use super::credentials_file::{is_access_token, is_client_id, new_access_token};
use crate::file_lock::{self, Hold, LockError, Patience};
use crate::queue::Credentials;

/// The file's name.
const FILE: &str = "clients.json";

/// Its name until it is whole.
const DRAFT: &str = ".clients.json.new";

/// The names of clients that a server has by itself begin so.
const OWN: &str = "local/";

/// Bytes of the file, at most.
const FILE_BYTES: u64 = 4 << 20;

/// How long another command may take to write it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The clients of a data directory, as a server sees them.
#[derive(Debug)]
pub(super) struct ClientsFile {
    path: PathBuf,
    known: Mutex<Known>,
}

/// What stood in the file when it was read last.
#[derive(Debug, Default)]
struct Known {
    /// Nothing where there was no file.
    state: Option<State>,
    clients: Vec<Client>,
    /// It could not be read: it is not tried again before it changes.
    is_unreadable: bool,
}

/// A server does not know who its clients are. `docker-worker standalone client list` says why.
#[derive(Debug)]
pub(super) struct Unreadable;

/// By which a file is told from the one that took its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    inode: u64,
    bytes: u64,
    modified: SystemTime,
}

/// Why the clients cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ClientsFileError {
    /// The file cannot be read or written.
    #[error("{call} {}", path.display())]
    Io {
        /// What was tried.
        call: &'static str,
        /// Which file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Another command is at it, and stays so.
    #[error("change the clients in {}: {lock}", path.display())]
    Locked {
        /// Which directory.
        path: PathBuf,
        /// Who.
        lock: LockError,
    },
    /// Something else stands in it.
    #[error("use {}: {problem}; correct it, or remove it and add the clients again", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// It is no name that a client can be added by.
    #[error(
        "add the client {client_id:?}: a name is letters, digits and !@/:.+|_-, and does not begin with {OWN}"
    )]
    Name {
        /// Which.
        client_id: String,
    },
    /// It is no scope, or stands for more than it seems to.
    #[error(
        "give the scope {scope:?}: a scope is some printable ASCII, and a * can stand only once, at its end"
    )]
    Scope {
        /// Which.
        scope: String,
    },
    /// There is one of that name.
    #[error(
        "add the client {client_id}: there is one; remove it first, and its credentials are not good any more"
    )]
    Taken {
        /// Which.
        client_id: String,
    },
    /// There are too many.
    #[error("write {}: it would have more than {FILE_BYTES} bytes; remove clients first", path.display())]
    Full {
        /// Which file.
        path: PathBuf,
    },
    /// There is none of that name.
    #[error(
        "remove the client {client_id}: there is none; \"docker-worker standalone client list\" shows all"
    )]
    Unknown {
        /// Which.
        client_id: String,
    },
}

/// A client as it stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    client_id: String,
    access_token: String,
    scopes: Vec<String>,
}

impl From<Client> for Stored {
    fn from(Client { credentials, scopes }: Client) -> Stored {
        let Credentials { client_id, access_token, .. } = credentials;
        Stored { client_id, access_token, scopes }
    }
}

#[derive(Deserialize)]
struct Contents {
    clients: Vec<Stored>,
}

/// Adds a client; gives its credentials, which are shown nowhere else.
///
/// # Errors
///
/// [`ClientsFileError`].
pub fn add(data: &Path, client_id: &str, scopes: Vec<String>) -> Result<Credentials, ClientsFileError> {
    if !is_client_id(client_id) || client_id.starts_with(OWN) {
        return Err(ClientsFileError::Name { client_id: client_id.to_owned() });
    }
    if let Some(scope) = scopes.iter().find(|scope| !stands_for_what_it_seems(scope)) {
        return Err(ClientsFileError::Scope { scope: scope.clone() });
    }
    change(data, |clients| {
        if clients.iter().any(|client| client.credentials.client_id == client_id) {
            return Err(ClientsFileError::Taken { client_id: client_id.to_owned() });
        }
        let access_token = new_access_token().map_err(failed("make a token for", &path(data)))?;
        let credentials = Credentials { client_id: client_id.to_owned(), access_token, certificate: None };
        clients.push(Client { credentials: credentials.clone(), scopes });
        Ok(credentials)
    })
}

/// Removes a client.
///
/// # Errors
///
/// [`ClientsFileError`].
pub fn remove(data: &Path, client_id: &str) -> Result<(), ClientsFileError> {
    change(data, |clients| {
        let at = clients.iter().position(|client| client.credentials.client_id == client_id);
        let at = at.ok_or_else(|| ClientsFileError::Unknown { client_id: client_id.to_owned() })?;
        clients.remove(at);
        Ok(())
    })
}

/// All clients that were added, oldest first.
///
/// # Errors
///
/// [`ClientsFileError`].
pub fn list(data: &Path) -> Result<Vec<Client>, ClientsFileError> {
    let path = path(data);
    match File::open(&path) {
        Ok(file) => read(&path, file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed("read", &path)(error)),
    }
}

impl ClientsFile {
    pub(super) fn of(data: &Path) -> ClientsFile {
        ClientsFile { path: path(data), known: Mutex::default() }
    }

    /// The client of that name, if there is one now. Reads the file if it has changed.
    pub(super) fn find(&self, client_id: &str) -> Result<Option<Client>, Unreadable> {
        // A panic under the lock leaves what was known.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match File::open(&self.path) {
            Ok(file) => {
                let state = State::of(&file).map_err(|_| Unreadable)?;
                if known.state != Some(state) {
                    let read = read(&self.path, file);
                    let is_unreadable = read.is_err();
                    *known = Known { state: Some(state), clients: read.unwrap_or_default(), is_unreadable };
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => *known = Known::default(),
            Err(_) => return Err(Unreadable),
        }
        if known.is_unreadable {
            return Err(Unreadable);
        }
        Ok(known.clients.iter().find(|client| client.credentials.client_id == client_id).cloned())
    }
}

impl State {
    fn of(file: &File) -> io::Result<State> {
        let metadata = file.metadata()?;
        Ok(State { inode: metadata.ino(), bytes: metadata.len(), modified: metadata.modified()? })
    }
}

/// Whether a scope means what whoever gives it means: within it a * would be a letter like any other.
fn stands_for_what_it_seems(scope: &str) -> bool {
    let before_end = scope.strip_suffix('*').unwrap_or(scope);
    !scope.is_empty() && is_grantable(scope) && !before_end.contains('*')
}

/// Whether a client can have this scope.
fn is_grantable(scope: &str) -> bool {
    is_scope(scope) && !scope.ends_with("**")
}

fn path(data: &Path) -> PathBuf {
    data.join(FILE)
}

fn failed(call: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ClientsFileError {
    move |source| ClientsFileError::Io { call, path: path.to_owned(), source }
}

fn read(path: &Path, file: File) -> Result<Vec<Client>, ClientsFileError> {
    let unfit = |problem: String| ClientsFileError::Content { path: path.to_owned(), problem };
    let mut text = Vec::new();
    file.take(FILE_BYTES + 1).read_to_end(&mut text).map_err(failed("read", path))?;
    if text.len() as u64 > FILE_BYTES {
        return Err(unfit(format!("it has more than {FILE_BYTES} bytes")));
    }
    // The parser's own words may quote a token.
    let contents: Contents = serde_json::from_slice(&text).map_err(|error| {
        unfit(format!("it is not as commands write it (line {}, column {})", error.line(), error.column()))
    })?;
    let client = |Stored { client_id, access_token, scopes }| {
        let problem = if !is_client_id(&client_id) || client_id.starts_with(OWN) {
            "its clientId is none that a client can be added by"
        } else if !is_access_token(&access_token) {
            "its accessToken must be 22 to 66 letters, digits, - and _"
        } else if !scopes.iter().all(|scope| is_grantable(scope)) {
            "a scope is printable ASCII, with one * at most at its end"
        } else {
            let credentials = Credentials { client_id, access_token, certificate: None };
            return Ok(Client { credentials, scopes });
        };
        Err(unfit(format!("the client {client_id:?} is not as commands write it: {problem}")))
    };
    contents.clients.into_iter().map(client).collect()
}

/// Changes the list while nobody else does.
fn change<T>(
    data: &Path,
    change: impl FnOnce(&mut Vec<Client>) -> Result<T, ClientsFileError>,
) -> Result<T, ClientsFileError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(data);
    let directory = made.and_then(|()| File::open(data)).map_err(failed("use", data))?;
    file_lock::lock(&directory, Hold::Exclusive, Patience::of(PATIENCE))
        .map_err(|lock| ClientsFileError::Locked { path: data.to_owned(), lock })?;
    let mut clients = list(data)?;
    let result = change(&mut clients)?;
    let text =
        format!("{:#}\n", json!({ "clients": clients.into_iter().map(Stored::from).collect::<Vec<_>>() }));
    if text.len() as u64 > FILE_BYTES {
        return Err(ClientsFileError::Full { path: path(data) });
    }
    write(data, &directory, &text).map_err(failed("write", &path(data)))?;
    Ok(result)
}

/// Under another name first, for its owner only. A command that is killed leaves that to the next one.
fn write(data: &Path, directory: &File, text: &str) -> io::Result<()> {
    let draft = data.join(DRAFT);
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path(data))?;
    directory.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn a_server_knows_who_was_added_or_removed_since() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let server = ClientsFile::of(&data);
        let known = |client_id| server.find(client_id).unwrap();
        assert!(known("ci").is_none());
        let ci = add(&data, "ci", texts(&["queue:create-task:*"])).unwrap();
        let found = known("ci").unwrap();
        assert_eq!((found.credentials, found.scopes), (ci.clone(), texts(&["queue:create-task:*"])));
        let other = add(&data, "team/other", Vec::new()).unwrap();
        assert_ne!(other.access_token, ci.access_token);
        assert_eq!(known("ci").unwrap().credentials, ci);
        remove(&data, "ci").unwrap();
        assert!(known("ci").is_none() && known("team/other").is_some());
        let mode = fs::metadata(path(&data)).unwrap().permissions().mode();
        assert_eq!((mode & 0o7777, fs::read_dir(&data).unwrap().count()), (0o600, 1));
        fs::write(path(&data), format!("{{\"clients\": \"{}\"}}", other.access_token)).unwrap();
        assert!(server.find("team/other").is_err() && server.find("team/other").is_err());
        let refused = list(&data).unwrap_err().to_string();
        assert!(refused.contains("line 1") && !refused.contains(&other.access_token), "{refused}");
        fs::remove_file(path(&data)).unwrap();
        assert!(known("team/other").is_none());
    }

    #[test]
    fn what_somebody_has_written_into_the_file_counts_only_if_a_command_could_have() {
        let directory = tempfile::tempdir().unwrap();
        let server = ClientsFile::of(directory.path());
        let token = new_access_token().unwrap();
        for (client_id, access_token, scopes, fits) in [
            ("ci", token.as_str(), vec!["a:*"], true),
            ("ci", "", vec![], false),
            ("ci", "short", vec![], false),
            ("local/root", token.as_str(), vec![], false),
            ("c i", token.as_str(), vec![], false),
            ("ci", token.as_str(), vec!["**"], false),
        ] {
            let client = json!({ "clientId": client_id, "accessToken": access_token, "scopes": scopes });
            fs::write(path(directory.path()), json!({ "clients": [client] }).to_string()).unwrap();
            assert_eq!(server.find(client_id).is_ok(), fits, "{client}");
        }
    }

    #[test]
    fn a_command_that_was_killed_leaves_nothing_that_the_next_one_does_not_use() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(DRAFT), "{\"clients\": [").unwrap();
        add(directory.path(), "ci", Vec::new()).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_added_or_removed_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        add(directory.path(), "ci", Vec::new()).unwrap();
        let added = |client_id: &str, scopes: &[&str]| add(directory.path(), client_id, texts(scopes));
        assert!(matches!(added("ci", &[]), Err(ClientsFileError::Taken { .. })));
        for name in ["", "a b", "local/root", "\u{e9}"] {
            assert!(matches!(added(name, &[]), Err(ClientsFileError::Name { .. })), "{name}");
        }
        for scope in ["", "a\nb", "\u{e9}", "queue:**", "queue:*:local/*", "*a"] {
            assert!(matches!(added("x", &[scope]), Err(ClientsFileError::Scope { .. })), "{scope}");
        }
        assert!(matches!(remove(directory.path(), "x"), Err(ClientsFileError::Unknown { .. })));
        let names: Vec<_> =
            list(directory.path()).unwrap().into_iter().map(|it| it.credentials.client_id).collect();
        assert_eq!(names, ["ci"]);
    }
}
