//! Who may do everything in a queue of one's own: `credentials.json` in its data directory.
//!
//! Made at the first start, for its owner only, and whole or not at all. What stands there counts from then on: somebody
//! who writes another token into it has it used at the next start.

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::process::geteuid;
use serde_json::json;

use crate::queue::Credentials;
use crate::queue::task_id::TaskId;

/// The file's name.
const FILE: &str = "credentials.json";

/// Its name until it is whole: one that was left so is written anew.
const DRAFT: &str = ".credentials.json.new";

/// Who that is, unless the file says otherwise.
const CLIENT_ID: &str = "local/root";

/// Bytes of the file, at most.
const FILE_BYTES: u64 = 64 << 10;

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsFileError {
    /// The file cannot be read or made.
    #[error("{call} {}", path.display())]
    Io {
        /// What was tried.
        call: &'static str,
        /// Which file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Something else stands in it.
    #[error("use {}: {problem}; correct it, or remove it and have new credentials made", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// Where they are, in a data directory.
#[must_use]
pub fn path(data: &Path) -> PathBuf {
    data.join(FILE)
}

/// What stands in the file of a data directory; both are made if they are missing. Waits for the disk.
///
/// # Errors
///
/// [`CredentialsFileError`].
pub fn read_or_make(data: &Path) -> Result<Credentials, CredentialsFileError> {
    let path = path(data);
    let failed = |call| {
        let path = path.clone();
        move |source| CredentialsFileError::Io { call, path, source }
    };
    match File::open(&path) {
        Ok(file) => return read(&path, file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("read")(error)),
    }
    make(data, &path).map_err(failed("make"))?;
    // Whoever was quicker has written what counts.
    read(&path, File::open(&path).map_err(failed("read"))?)
}

fn read(path: &Path, file: File) -> Result<Credentials, CredentialsFileError> {
    let unfit = |problem: String| CredentialsFileError::Content { path: path.to_owned(), problem };
    let metadata = file.metadata();
    let metadata = metadata.map_err(|source| CredentialsFileError::Io {
        call: "look at",
        path: path.to_owned(),
        source,
    })?;
    if metadata.uid() != geteuid().as_raw() || metadata.mode() & 0o077 != 0 {
        return Err(unfit(
            "others can read or change it; have it owned by who starts this, with mode 0600".to_owned(),
        ));
    }
    let mut text = Vec::new();
    let taken = file.take(FILE_BYTES + 1).read_to_end(&mut text);
    taken.map_err(|source| CredentialsFileError::Io { call: "read", path: path.to_owned(), source })?;
    if text.len() as u64 > FILE_BYTES {
        return Err(unfit(format!("it has more than {FILE_BYTES} bytes")));
    }
    // What the parser says may quote what stands there, except where.
    let credentials: Credentials = serde_json::from_slice(&text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        unfit(format!("it is no JSON object with clientId and accessToken (line {line}, column {column})"))
    })?;
    if credentials.certificate.is_some() {
        return Err(unfit("temporary credentials cannot have others issued".to_owned()));
    }
    if !is_client_id(&credentials.client_id) {
        return Err(unfit("clientId must be letters, digits and !@/:.+|_-".to_owned()));
    }
    if !is_access_token(&credentials.access_token) {
        return Err(unfit("accessToken must be 22 to 66 letters, digits, - and _".to_owned()));
    }
    Ok(credentials)
}

/// Under another name first; it gets its own when it is whole and on the disk, and only where there is none. For the process
/// that has the queue.
fn make(data: &Path, path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(data)?;
    let text = json!({ "clientId": CLIENT_ID, "accessToken": new_access_token()? });
    let draft = data.join(DRAFT);
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
    file.write_all(format!("{text:#}\n").as_bytes())?;
    file.sync_all()?;
    match renameat_with(CWD, &draft, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => File::open(data)?.sync_all(),
        Err(Errno::EXIST) => std::fs::remove_file(draft),
        Err(errno) => Err(errno.into()),
    }
}

/// A token that nobody guesses.
///
/// # Errors
///
/// When the kernel has no random numbers.
pub fn new_access_token() -> io::Result<String> {
    Ok(format!("{}{}", TaskId::random()?, TaskId::random()?))
}

/// Whether this can be the name of a client.
pub(super) fn is_client_id(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!@/:.+|_-".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}

/// Whether this can be a client's token.
pub(super) fn is_access_token(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (22..=66).contains(&text.len()) && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn credentials_are_made_once_for_their_owner_only_and_are_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("new/data");
        let made = read_or_make(&data).unwrap();
        assert_eq!(read_or_make(&data).unwrap(), made);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&path(&data)), mode(&data)), (0o600, 0o700));
        assert!(is_access_token(&made.access_token) && is_client_id(&made.client_id), "{made:?}");
        assert!(!format!("{made:?}").contains(&made.access_token));
        assert_eq!(fs::read_dir(&data).unwrap().count(), 1);
        for mode in [0o644, 0o660, 0o602] {
            fs::set_permissions(path(&data), fs::Permissions::from_mode(mode)).unwrap();
            let refused = read_or_make(&data).unwrap_err().to_string();
            assert!(refused.contains("mode 0600") && !refused.contains(&made.access_token), "{refused}");
        }
        fs::remove_file(path(&data)).unwrap();
        assert_ne!(read_or_make(&data).unwrap().access_token, made.access_token);
    }

    #[test]
    fn a_file_with_something_else_is_refused_without_a_word_of_it() {
        let secret = "asecretwhichnobodymayread";
        let cases = [
            (secret.to_owned(), false),
            (format!(r#"{{"clientId": "a", "accessToken": "{secret}""#), false),
            (format!(r#"{{"clientId": 5, "accessToken": "{secret}"}}"#), false),
            (format!(r#"{{"clientId": "a b", "accessToken": "{secret}"}}"#), false),
            (format!(r#"{{"clientId": "a", "accessToken": "{secret}", "certificate": "{{}}"}}"#), false),
            (r#"{"clientId": "a", "accessToken": "short"}"#.to_owned(), false),
            (format!("{}{secret}", " ".repeat(1 << 16)), false),
            (format!(r#"{{"clientId": "a/b", "accessToken": "{secret}", "rootUrl": "u"}}"#), true),
        ];
        for (text, is_fit) in cases {
            let directory = tempfile::tempdir().unwrap();
            fs::write(path(directory.path()), &text).unwrap();
            fs::set_permissions(path(directory.path()), fs::Permissions::from_mode(0o600)).unwrap();
            let read = read_or_make(directory.path());
            assert_eq!(read.is_ok(), is_fit, "{text}");
            let told = read.map_err(|error| error.to_string()).err().unwrap_or_default();
            assert!(!told.contains(secret), "{told}");
        }
    }
}
