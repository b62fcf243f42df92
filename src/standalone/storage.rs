//! The bytes of artifacts: files that are put and got by URLs which this server has signed, as S3's are.
//!
//! ```text
//!   /storage/<until, ms>/<HMAC-SHA256 of access, until, name>/<name>
//! ```
//!
//! A file has a head of fixed length, JSON and spaces, then the bytes. It gets its name when it is complete; whoever puts
//! again takes its place.

mod marks;

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Method, Request, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

use super::page::SANDBOX;
use super::reply::{Reply, full, set};
use super::stored_body::StoredBody;
use crate::random::random_hex;
use crate::timestamp::Timestamp;

pub(super) use self::marks::Listing;

/// Bytes of a file's head.
const HEAD_BYTES: usize = 2048;
/// Bytes of one artifact, as S3 takes them at once.
const MOST_BYTES: u64 = 5 << 30;
/// How long nothing may come of what is being put.
const SILENCE: Duration = Duration::from_secs(60);
/// How long it may come, drop by drop.
const PUT_TIME: Duration = Duration::from_secs(12 * 60 * 60);
/// Random bytes in the name of what is being put.
const DRAFT_BYTES: usize = 8;
/// Bytes of a header's value that is kept.
const VALUE_BYTES: usize = 255;

/// A directory of artifacts.
#[derive(Debug)]
pub(super) struct Storage {
    directory: PathBuf,
    key: hmac::Key,
    /// Held by whoever gives a file its name, or removes one for what it was when they looked.
    naming: Mutex<()>,
}

/// All that the directory knows of a name: its SHA-256.
pub(super) type NameDigest = [u8; digest::SHA256_OUTPUT_LEN];

/// What a URL is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Put,
    Get,
}

/// What is known of an artifact's bytes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Head {
    pub(super) sha256: String,
    bytes: u64,
    content_type: Option<String>,
    content_encoding: Option<String>,
}

/// Why a request is refused, in S3's words.
struct Denied(StatusCode, &'static str);

const ACCESS_DENIED: Denied = Denied(StatusCode::FORBIDDEN, "AccessDenied");
const NO_SUCH_KEY: Denied = Denied(StatusCode::NOT_FOUND, "NoSuchKey");
const TIMEOUT: Denied = Denied(StatusCode::BAD_REQUEST, "RequestTimeout");
const FAULT: Denied = Denied(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");

impl Storage {
    /// The artifacts in a directory, which is made if there is none; URLs are signed with a secret. No other process may
    /// have it: what was being put when one was killed is removed.
    ///
    /// # Errors
    ///
    /// When there is no such directory to be had.
    pub(super) fn open(directory: PathBuf, secret: &str) -> io::Result<Storage> {
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        remove_drafts(&directory)?;
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let own = hmac::sign(&secret, b"storage");
        let key = hmac::Key::new(hmac::HMAC_SHA256, own.as_ref());
        Ok(Storage { directory, key, naming: Mutex::default() })
    }

    /// A URL for the bytes of that name, good until then. `origin` is how its user reaches this server.
    pub(super) fn url(&self, origin: &str, access: Access, name: &str, until: Timestamp) -> String {
        let until = until.as_millis();
        let signature = hmac::sign(&self.key, signed(access, until, name).as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(signature);
        format!("{origin}/storage/{until}/{signature}/{}", utf8_percent_encode(name, NON_ALPHANUMERIC))
    }

    /// What is known of the bytes of that name, if they are there.
    pub(super) async fn describe(&self, name: &str) -> Option<Head> {
        read_head(&mut File::open(self.path(name)).await.ok()?).await.ok()
    }

    /// As long as this is held no bytes come to be those of a name.
    pub(super) async fn hold_names(&self) -> MutexGuard<'_, ()> {
        self.naming.lock().await
    }

    /// Removes the bytes of that name, if they are there.
    pub(super) async fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        match tokio::fs::remove_file(&path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(at(&path)),
        }
    }

    /// Answers a request for a path below `/storage/`.
    pub(super) async fn answer(&self, request: Request<Incoming>, now: Timestamp) -> Reply {
        let access = match *request.method() {
            Method::PUT => Some(Access::Put),
            Method::GET => Some(Access::Get),
            _ => None,
        };
        let name = access.and_then(|access| self.permitted(request.uri().path(), access, now));
        let answered = match (access, name) {
            (Some(Access::Put), Some(name)) => self.put(&name, request).await,
            (Some(Access::Get), Some(name)) => self.get(&name, request.headers()).await,
            (Some(_), None) => Err(ACCESS_DENIED),
            (None, _) => Err(Denied(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed")),
        };
        answered.unwrap_or_else(|denied| denied.reply())
    }

    /// The name in a path that this server has signed for such an access and that is still good for it.
    fn permitted(&self, path: &str, access: Access, now: Timestamp) -> Option<String> {
        let mut parts = path.strip_prefix("/storage/")?.splitn(3, '/');
        let until: i64 = parts.next()?.parse().ok()?;
        let signature = URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
        let name = percent_decode_str(parts.next()?).decode_utf8().ok()?.into_owned();
        hmac::verify(&self.key, signed(access, until, &name).as_bytes(), &signature).ok()?;
        (Timestamp::from_millis(until) > now).then_some(name)
    }

    async fn put(&self, name: &str, request: Request<Incoming>) -> Result<Reply, Denied> {
        // As S3: it wants to know beforehand how much comes.
        let Some(bytes) = request.body().size_hint().exact() else {
            return Err(Denied(StatusCode::LENGTH_REQUIRED, "MissingContentLength"));
        };
        if bytes > MOST_BYTES {
            return Err(Denied(StatusCode::BAD_REQUEST, "EntityTooLarge"));
        }
        let head = Head {
            bytes,
            content_type: kept(request.headers(), &header::CONTENT_TYPE)?,
            content_encoding: kept(request.headers(), &header::CONTENT_ENCODING)?,
            ..Head::default()
        };
        let path = self.path(name);
        let draft = path.with_extension(random_hex(DRAFT_BYTES).map_err(|_| FAULT)?);
        let written = timeout(PUT_TIME, write(&draft, head, request.into_body()));
        let renamed = match written.await.unwrap_or(Err(TIMEOUT)) {
            Ok(()) => self.name(&draft, &path).await,
            Err(denied) => Err(denied),
        };
        if renamed.is_err() {
            // What is left of it has a name that nobody asks for.
            tokio::fs::remove_file(&draft).await.ok();
        }
        renamed.map(|()| full(StatusCode::OK, Vec::new()))
    }

    async fn name(&self, draft: &Path, path: &Path) -> Result<(), Denied> {
        let _names = self.hold_names().await;
        tokio::fs::rename(draft, path).await.map_err(|_| FAULT)
    }

    async fn get(&self, name: &str, asked: &HeaderMap) -> Result<Reply, Denied> {
        let mut file = File::open(self.path(name)).await.map_err(|_| NO_SUCH_KEY)?;
        let head = read_head(&mut file).await.map_err(|_| FAULT)?;
        let first = head.first_of_rest(asked);
        if let Some(first) = first {
            let from_here = i64::try_from(first).map_err(|_| FAULT)?;
            file.seek(io::SeekFrom::Current(from_here)).await.map_err(|_| FAULT)?;
        }
        let left = head.bytes - first.unwrap_or_default();
        let mut reply = Reply::new(StoredBody::new(file, left).boxed_unsync());
        if let Some(first) = first {
            *reply.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = format!("bytes {first}-{}/{}", head.bytes - 1, head.bytes);
            set(&mut reply, header::CONTENT_RANGE, &range);
        }
        set(&mut reply, header::ACCEPT_RANGES, "bytes");
        set(&mut reply, header::ETAG, &head.tag());
        set(&mut reply, header::CONTENT_LENGTH, &left.to_string());
        for (name, value) in
            [(header::CONTENT_TYPE, head.content_type), (header::CONTENT_ENCODING, head.content_encoding)]
        {
            if let Some(value) = value {
                set(&mut reply, name, &value);
            }
        }
        set(&mut reply, HeaderName::from_static("x-content-type-options"), "nosniff");
        set(&mut reply, header::CONTENT_SECURITY_POLICY, SANDBOX);
        Ok(reply)
    }

    /// The file of a name, which is a stranger's: only its digest is a path.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(hex(&name_digest(name)))
    }
}

impl Head {
    /// What tells these bytes from others.
    fn tag(&self) -> String {
        format!("\"{}\"", self.sha256)
    }

    /// Where the rest begins that is asked for, by whoever has had the bytes before it; of other ranges everything is sent,
    /// as a server may.
    fn first_of_rest(&self, asked: &HeaderMap) -> Option<u64> {
        let text = |name| asked.get(name).and_then(|value| value.to_str().ok());
        if text(header::IF_RANGE).is_some_and(|tag| tag != self.tag()) {
            return None;
        }
        let first = text(header::RANGE)?.strip_prefix("bytes=")?.strip_suffix('-')?;
        let is_number = first.bytes().all(|byte| byte.is_ascii_digit());
        first.parse().ok().filter(|first| is_number && *first < self.bytes)
    }
}

/// The digest of a name.
pub(super) fn name_digest(name: &str) -> NameDigest {
    let mut bytes = NameDigest::default();
    bytes.copy_from_slice(digest::digest(&digest::SHA256, name.as_bytes()).as_ref());
    bytes
}

/// The digest that is a file's name, if the file is one of the bytes of artifacts.
fn named_digest(file_name: &str) -> Option<NameDigest> {
    let mut digest = NameDigest::default();
    if file_name.len() != 2 * digest.len() {
        return None;
    }
    for (byte, digits) in digest.iter_mut().zip(file_name.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    // In the one spelling that it has here.
    (hex(&digest) == file_name).then_some(digest)
}

/// An error that says where.
fn at(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Removes what a server that was killed was being sent.
fn remove_drafts(directory: &Path) -> io::Result<()> {
    let is_hex =
        |text: &str, digits| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_draft = name.to_str().and_then(|name| name.split_once('.')).is_some_and(|(digest, random)| {
            named_digest(digest).is_some() && is_hex(random, 2 * DRAFT_BYTES)
        });
        if is_draft {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn signed(access: Access, until: i64, name: &str) -> String {
    let access = match access {
        Access::Put => "PUT",
        Access::Get => "GET",
    };
    format!("{access}\n{until}\n{name}")
}

/// A header that is given back with the bytes.
fn kept(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Denied> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| text.len() <= VALUE_BYTES);
    text.map(|text| Some(text.to_owned())).ok_or(Denied(StatusCode::BAD_REQUEST, "InvalidArgument"))
}

async fn write(path: &Path, mut head: Head, mut body: Incoming) -> Result<(), Denied> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).await.map_err(|_| FAULT)?;
    file.write_all(&[b' '; HEAD_BYTES]).await.map_err(|_| FAULT)?;
    let mut sha256 = digest::Context::new(&digest::SHA256);
    let cut = Denied(StatusCode::BAD_REQUEST, "IncompleteBody");
    loop {
        let Ok(frame) = timeout(SILENCE, body.frame()).await else {
            return Err(TIMEOUT);
        };
        let Some(frame) = frame else { break };
        let Ok(frame) = frame else { return Err(cut) };
        let Some(bytes) = frame.data_ref() else { continue };
        sha256.update(bytes);
        file.write_all(bytes).await.map_err(|_| FAULT)?;
    }
    head.sha256 = hex(sha256.finish().as_ref());
    let text = serde_json::to_vec(&head).map_err(|_| FAULT)?;
    file.rewind().await.map_err(|_| FAULT)?;
    file.write_all(&text).await.map_err(|_| FAULT)?;
    file.flush().await.map_err(|_| FAULT)?;
    // It is answered for from now on.
    file.sync_data().await.map_err(|_| FAULT)
}

async fn read_head(file: &mut File) -> io::Result<Head> {
    let mut bytes = vec![0; HEAD_BYTES];
    file.read_exact(&mut bytes).await?;
    Ok(serde_json::from_slice(&bytes)?)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Denied {
    fn reply(&self) -> Reply {
        let Denied(status, code) = self;
        let text = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code></Error>");
        let mut reply = full(*status, text.into_bytes());
        set(&mut reply, header::CONTENT_TYPE, "application/xml");
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_good_for_one_name_one_access_and_a_while() {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::open(directory.path().join("s"), "secret").unwrap();
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        let url = storage.url("", Access::Put, "t/x/0/public/é b", at(100));
        let permitted = |url: &str, access, now| storage.permitted(url, access, at(now));
        assert_eq!(permitted(&url, Access::Put, 99).as_deref(), Some("t/x/0/public/é b"));
        assert_eq!(permitted(&url, Access::Put, 100), None);
        assert_eq!(permitted(&url, Access::Get, 99), None);
        assert_eq!(permitted(&url.replace("100000", "200000"), Access::Put, 99), None);
        assert_eq!(permitted(&url.replace("public", "private"), Access::Put, 99), None);
        assert_eq!(permitted("/storage/", Access::Put, 99), None);
        let other = Storage::open(directory.path().join("s"), "another").unwrap();
        assert_eq!(other.permitted(&url, Access::Put, at(99)), None);
    }

    #[test]
    fn whoever_has_had_a_part_of_the_same_bytes_gets_the_rest_and_all_others_everything() {
        let head = Head { sha256: "ab".to_owned(), bytes: 10, ..Head::default() };
        for (range, if_range, expected) in [
            (Some("bytes=4-"), Some("\"ab\""), Some(4)),
            (Some("bytes=0-"), None, Some(0)),
            (Some("bytes=9-"), None, Some(9)),
            (Some("bytes=4-"), Some("\"cd\""), None),
            (Some("bytes=4-"), Some("W/\"ab\""), None),
            (Some("bytes=10-"), None, None),
            (Some("bytes=+1-"), None, None),
            (Some("bytes=-4"), None, None),
            (Some("bytes=1-2"), None, None),
            (Some("bytes=1-,3-"), None, None),
            (Some("lines=1-"), None, None),
            (None, Some("\"ab\""), None),
        ] {
            let mut asked = HeaderMap::new();
            for (name, value) in [(header::RANGE, range), (header::IF_RANGE, if_range)] {
                value.map(|value| asked.insert(name, value.parse().unwrap()));
            }
            assert_eq!(head.first_of_rest(&asked), expected, "{range:?} {if_range:?}");
        }
    }

    #[test]
    fn what_was_being_put_when_a_server_was_killed_is_gone_with_the_next_one() {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::open(directory.path().to_owned(), "secret").unwrap();
        let whole = storage.path("a");
        let draft = whole.with_extension(random_hex(DRAFT_BYTES).unwrap());
        let others = directory.path().join("notes.txt");
        [&whole, &draft, &others].into_iter().for_each(|path| std::fs::write(path, "").unwrap());
        Storage::open(directory.path().to_owned(), "secret").unwrap();
        assert_eq!([whole, draft, others].map(|path| path.exists()), [true, false, true]);
    }

    #[test]
    fn a_name_is_never_a_path() {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::open(directory.path().to_owned(), "secret").unwrap();
        for name in ["../../etc/passwd", "/etc/passwd", "a/b", ""] {
            assert_eq!(storage.path(name).parent(), Some(directory.path()), "{name}");
        }
    }
}
