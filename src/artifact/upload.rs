//! Uploads: a PUT of known length to a URL that somebody gave out, tried until it is done or will never be.
//!
//! ```text
//!   200                              done
//!   408, 429, 5xx, no connection,    again, after a while that grows
//!     a cut, a silence
//!   403, an expired token            again, to a fresh URL; some times only
//!   any other                        never
//! ```
//!
//! A URL carries a signature, so that no message has more of it than its host.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::body::Body;
use super::connect::Connector;
use super::copy::{Copied, CopyError, Patience};
use super::spooled::{Reading, Spooled};
use crate::queue::PutTarget;
use crate::random::random_fraction;
use crate::text::excerpt;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, HOST, HeaderName, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Response, StatusCode, Uri};
use tokio::sync::Semaphore;

/// By how much each wait is longer than the one before.
const GROWTH: f64 = 1.311;

/// The longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Bytes of a reply that are looked at.
const REPLY_BYTES: usize = 4 << 10;

/// Uploads of tasks' files at the same time, whatever the worker's capacity: each has buffers, and a thread for as long as
/// the storage takes its time.
const UPLOADS: usize = 32;

/// How often, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Attempts in all.
    pub attempts: u32,
    /// URLs that may be refused.
    pub refusals: u32,
    /// The shortest wait between two attempts; each has up to as much again by chance.
    pub wait: Duration,
    /// How long a connection may take.
    pub connect: Duration,
    /// How long nothing may move.
    pub silence: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            attempts: 11,
            refusals: 3,
            wait: Duration::from_secs(1),
            connect: Duration::from_secs(30),
            silence: Duration::from_secs(5 * 60),
        }
    }
}

/// Why bytes are not where they should be; fits "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// Whoever gave out the URL made a mistake.
    #[error("upload it to the URL that the queue gave: {0}")]
    Target(String),
    /// It will never be taken.
    #[error("upload it to {host}: {refusal}")]
    Refused {
        /// Where.
        host: String,
        /// What it answers.
        refusal: Refusal,
    },
    /// It was not taken, however often it was tried.
    #[error("upload it to {host} in {attempts} attempts: {why}")]
    Unavailable {
        /// Where.
        host: String,
        /// How often.
        attempts: u32,
        /// What became of the last one.
        why: String,
    },
    /// It cannot be read.
    #[error("read it: {0}")]
    Read(#[source] io::Error),
    /// The task was interrupted meanwhile.
    #[error("upload it: the task was interrupted")]
    Interrupted,
}

/// An answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    status: StatusCode,
    /// The storage's own word for it, or nothing.
    code: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "status code {}", self.status.as_u16())?;
        if self.code.is_empty() { Ok(()) } else { write!(out, " ({})", self.code) }
    }
}

/// What became of one attempt that did not succeed.
enum Failure {
    /// Worth another one.
    Passing(String),
    /// Worth another one with a fresh URL.
    Expired(Refusal),
    /// Not worth another one.
    Refused(Refusal),
    /// The same.
    Unsendable(UploadError),
}

/// How an upload goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt<'a> {
    /// One begins, of this number.
    Begins(u32),
    /// It did not succeed.
    Failed(&'a str),
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Passing(why) => out.write_str(why),
            Failure::Expired(refusal) | Failure::Refused(refusal) => refusal.fmt(out),
            Failure::Unsendable(error) => error.fmt(out),
        }
    }
}

/// Makes uploads; clones share their connections and their places.
#[derive(Clone, Debug)]
pub struct Uploader {
    connector: Arc<Connector>,
    pace: Pace,
    turns: Arc<Semaphore>,
}

impl Uploader {
    /// With the authorities that this host trusts.
    ///
    /// # Errors
    ///
    /// When TLS cannot be set up.
    pub fn new(pace: Pace) -> Result<Uploader, rustls::Error> {
        let connector = Arc::new(Connector::new(pace.connect)?);
        Ok(Uploader { connector, pace, turns: Arc::new(Semaphore::new(UPLOADS)) })
    }

    /// The places of those who upload for tasks.
    pub(super) fn turns(&self) -> &Semaphore {
        &self.turns
    }

    /// Puts bytes where `target` says; it is asked again when that is no good any more. `tell` hears of each attempt. Gives
    /// what was sent, before compression.
    ///
    /// # Errors
    ///
    /// What `target` says, or an [`UploadError`].
    pub(super) async fn upload<E: From<UploadError>>(
        &self,
        spooled: &Spooled,
        patience: &Patience,
        mut target: impl AsyncFnMut() -> Result<PutTarget, E>,
        tell: &dyn Fn(Attempt<'_>),
    ) -> Result<Copied, E> {
        let mut to = target().await?;
        let (mut attempts, mut refusals) = (0, 0);
        loop {
            tell(Attempt::Begins(attempts + 1));
            let failure = match self.attempt(spooled, patience, &to).await {
                Ok(content) => return Ok(content),
                Err(failure) => failure,
            };
            tell(Attempt::Failed(&failure.to_string()));
            attempts += 1;
            let is_last = attempts >= self.pace.attempts;
            match failure {
                Failure::Passing(_) if !is_last => self.wait(attempts, patience).await?,
                Failure::Expired(_) if !is_last && refusals + 1 < self.pace.refusals => {
                    refusals += 1;
                    self.wait(attempts, patience).await?;
                    to = target().await?;
                }
                Failure::Passing(why) => {
                    return Err(UploadError::Unavailable { host: host(&to), attempts, why }.into());
                }
                Failure::Expired(refusal) | Failure::Refused(refusal) => {
                    return Err(UploadError::Refused { host: host(&to), refusal }.into());
                }
                Failure::Unsendable(error) => return Err(error.into()),
            }
        }
    }

    async fn attempt(
        &self,
        spooled: &Spooled,
        patience: &Patience,
        to: &PutTarget,
    ) -> Result<Copied, Failure> {
        let url = url(to).map_err(Failure::Unsendable)?;
        let (body, reading) = spooled.body(patience);
        let mut progress = body.progress();
        let request = request(&url, to, spooled, body).map_err(Failure::Unsendable)?;
        let exchange = async {
            let (connection, response) = match self.connector.send(&url, request).await {
                Ok(answered) => answered,
                Err(why) => {
                    // What could not be read is why nothing could be sent.
                    read_to_end(reading).await?;
                    return Err(Failure::Passing(why));
                }
            };
            judge(response).await?;
            let sent = read_to_end(reading).await?;
            self.connector.keep(connection);
            let content = spooled.content().cloned().or(sent);
            content.ok_or_else(|| Failure::Passing("it took only a part".to_owned()))
        };
        tokio::select! {
            biased;
            () = patience.over() => Err(Failure::Unsendable(UploadError::Interrupted)),
            () = progress.stalled(self.pace.silence) => {
                Err(Failure::Passing(format!("nothing has moved for {} s", self.pace.silence.as_secs())))
            }
            ended = exchange => ended,
        }
    }

    /// Waits before the next attempt.
    async fn wait(&self, attempts: u32, patience: &Patience) -> Result<(), UploadError> {
        let growth = GROWTH.powi(i32::try_from(attempts).unwrap_or(i32::MAX));
        let wait = self.pace.wait.mul_f64(growth * (1.0 + random_fraction()));
        tokio::select! {
            biased;
            () = patience.over() => Err(UploadError::Interrupted),
            () = tokio::time::sleep(wait.min(LONGEST_WAIT)) => Ok(()),
        }
    }
}

fn url(to: &PutTarget) -> Result<Uri, UploadError> {
    // What is wrong with it is not told: it may be quoted there.
    let parsed: Option<Uri> = to.url.parse().ok();
    let useful =
        parsed.filter(|url| url.host().is_some() && matches!(url.scheme_str(), Some("http" | "https")));
    useful.ok_or_else(|| UploadError::Target("it is no URL of HTTP".to_owned()))
}

fn request(url: &Uri, to: &PutTarget, spooled: &Spooled, body: Body) -> Result<Request<Body>, UploadError> {
    let wrong = |why: String| UploadError::Target(why);
    let path = url.path_and_query().map_or("/", PathAndQuery::as_str);
    let mut request = Request::put(path).body(body).map_err(|error| wrong(error.to_string()))?;
    let host = match (url.host(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    };
    let host = HeaderValue::from_str(&host).map_err(|error| wrong(error.to_string()))?;
    request.headers_mut().insert(HOST, host);
    let headers = request.headers_mut();
    for (name, value) in &to.headers {
        let name: HeaderName =
            name.parse().map_err(|error| wrong(format!("the name of a header: {error}")))?;
        let value =
            HeaderValue::from_str(value).map_err(|error| wrong(format!("the header {name}: {error}")))?;
        if name == CONTENT_LENGTH && value != HeaderValue::from(spooled.length()) {
            return Err(wrong(format!("it is for other bytes than these {}", spooled.length())));
        }
        headers.insert(name, value);
    }
    if let Some(encoding) = spooled.encoding().header() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    headers.insert(CONTENT_LENGTH, spooled.length().into());
    Ok(request)
}

/// The host of a URL; the rest of it is a secret.
fn host(to: &PutTarget) -> String {
    let url = url(to).ok();
    url.as_ref().and_then(Uri::host).unwrap_or("an unknown host").to_owned()
}

/// What has been read, if it was read for this attempt to its end. That nobody wanted the rest is no error here.
async fn read_to_end(reading: Option<Reading>) -> Result<Option<Copied>, Failure> {
    let Some(reading) = reading else { return Ok(None) };
    match reading.end().await {
        Ok(content) => Ok(Some(content)),
        Err(CopyError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(None),
        Err(CopyError::Interrupted) => Err(Failure::Unsendable(UploadError::Interrupted)),
        Err(CopyError::Read(error) | CopyError::Write(error)) => {
            Err(Failure::Unsendable(UploadError::Read(error)))
        }
        Err(CopyError::Make(error)) => Err(Failure::Unsendable(UploadError::Read(io::Error::other(error)))),
    }
}

/// Whether a reply says that the bytes are stored.
async fn judge(response: Response<Incoming>) -> Result<(), Failure> {
    let refusal = Refusal { status: response.status(), code: code(response).await };
    let is_passing = match refusal.status {
        StatusCode::OK => return Ok(()),
        StatusCode::FORBIDDEN => return Err(Failure::Expired(refusal)),
        StatusCode::BAD_REQUEST if refusal.code == "ExpiredToken" => return Err(Failure::Expired(refusal)),
        // What S3 says of a connection on which nothing came for a while.
        StatusCode::BAD_REQUEST => refusal.code == "RequestTimeout",
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => true,
        // Without the storage's own word it is a front end's that has lost its storage for a moment.
        StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED => refusal.code.is_empty(),
        status if status.is_redirection() => refusal.code.is_empty(),
        status => status.is_server_error(),
    };
    if is_passing { Err(Failure::Passing(refusal.to_string())) } else { Err(Failure::Refused(refusal)) }
}

/// The storage's own word in a reply, `<Code>` of S3's; empty if there is none.
async fn code(response: Response<Incoming>) -> String {
    let body = Limited::new(response.into_body(), REPLY_BYTES).collect().await;
    let Ok(body) = body else { return String::new() };
    let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    let word = code.map_or("", |(code, _)| code);
    if word.chars().all(|letter| letter.is_ascii_alphanumeric()) {
        excerpt(word).to_string()
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests;
