//! Bytes from where a task or the queue says that they are: an artifact's, as a rule.
//!
//! Nothing that is secret is sent: who may read the artifact is told by its URL. That one may carry a signature, so that no
//! message has more of it than its host. What has broken off is gone on with where the same content can be had from there
//! on, which its entity tag tells; otherwise it begins anew.

mod dial;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::handshake;
use hyper::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HOST, HeaderMap, HeaderName,
    IF_RANGE, LOCATION, RANGE, USER_AGENT,
};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use images::store::Encoding;
use rustls::ClientConfig;
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};
use tower_service::Service;

use self::dial::{DialError, Dialler};
use crate::artifact::tls;
use crate::background::Background;
use crate::queue::{ArtifactPlace, Custody};
use crate::text::{chain, excerpt};

/// How long a connection may take to be made, whatever addresses and handshakes that takes.
const CONNECT: Duration = Duration::from_secs(30);
/// How long an answer may take to begin, and how long nothing of it may come.
const SILENCE: Duration = Duration::from_secs(60);
/// The time that is waited for bytes within which so many have to come.
const RATE_WINDOW: Duration = Duration::from_secs(120);
const RATE_BYTES: u64 = 120 * (10 << 10);
/// Redirects that are followed.
const REDIRECTS: usize = 5;

const AGENT: &str = concat!("docker-worker/", env!("CARGO_PKG_VERSION"));

/// Begins downloads; clones share what that takes.
#[derive(Clone, Debug, Default)]
pub struct Downloader {
    /// Made with the first one: most workers have none.
    tls: Arc<OnceCell<Arc<ClientConfig>>>,
}

/// One that has begun.
pub struct Download {
    response: Response<Incoming>,
    /// How its bytes are sent.
    pub encoding: Encoding,
    /// The bytes of the whole, as they are sent.
    pub total: Option<u64>,
    received: u64,
    /// Waited for bytes since that many had come.
    waited: Duration,
    counted: u64,
    tag: Option<String>,
    host: String,
    _driving: Background,
}

impl fmt::Debug for Download {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Download").field("host", &self.host).finish_non_exhaustive()
    }
}

/// From where on a download can be gone on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest {
    from: u64,
    total: u64,
    tag: String,
}

/// Why bytes do not come.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// They never will.
    #[error("{0}")]
    Refused(String),
    /// They may later.
    #[error("{0}")]
    Passing(String),
    /// They are not to be had from the middle on.
    #[error("{0} has other content by now, or none from the middle on")]
    NotTheRest(String),
}

impl Downloader {
    /// Asks for all of it, or for the rest.
    ///
    /// # Errors
    ///
    /// [`DownloadError`]; [`DownloadError::NotTheRest`] only where a rest was asked for.
    pub async fn begin(&self, place: &ArtifactPlace, rest: Option<&Rest>) -> Result<Download, DownloadError> {
        let mut url = parse(&place.url)?;
        let mut custody = place.custody;
        for _ in 0..=REDIRECTS {
            let (response, driving) = self.ask(&url, custody, rest).await?;
            if !response.status().is_redirection() || response.status() == StatusCode::NOT_MODIFIED {
                return Download::of(response, driving, rest, host(&url));
            }
            url = redirected(&url, response.headers())?;
            // Where a storage leads on to is no longer the deployment's word.
            custody = Custody::Stranger;
        }
        Err(DownloadError::Refused(format!("{} leads on more than {REDIRECTS} times", host(&url))))
    }

    async fn ask(
        &self,
        url: &Uri,
        custody: Custody,
        rest: Option<&Rest>,
    ) -> Result<(Response<Incoming>, Background), DownloadError> {
        let request = request(url, rest)?;
        let tls = self.tls().await?;
        let mut connector = HttpsConnector::from((Dialler(custody), tls));
        let connecting = async {
            let stream = connector.call(url.clone()).await.map_err(|error| of_connecting(url, error))?;
            let builder = handshake::<_, Empty<Bytes>>(stream).await;
            builder.map_err(|error| passing(url, chain(&error)))
        };
        let late = |_| passing(url, "it takes too long".to_owned());
        let (mut sender, connection) = timeout(CONNECT, connecting).await.map_err(late)??;
        // Its errors reach whoever waits for the response.
        let driving = Background::start(async { drop(connection.await) });
        let response = timeout(SILENCE, sender.send_request(request)).await.map_err(late)?;
        Ok((response.map_err(|error| passing(url, chain(&error)))?, driving))
    }

    async fn tls(&self) -> Result<Arc<ClientConfig>, DownloadError> {
        let made = self.tls.get_or_try_init(async || match spawn_blocking(tls).await {
            Ok(Ok(config)) => Ok(Arc::new(config)),
            Ok(Err(error)) => Err(DownloadError::Refused(format!("set up TLS: {}", chain(&error)))),
            Err(error) => Err(DownloadError::Refused(format!("set up TLS: {}", chain(&error)))),
        });
        made.await.cloned()
    }
}

impl Download {
    fn of(
        response: Response<Incoming>,
        driving: Background,
        rest: Option<&Rest>,
        host: String,
    ) -> Result<Download, DownloadError> {
        let headers = response.headers();
        let (received, total) = match (response.status(), rest) {
            (StatusCode::OK, None) => (0, length(headers)),
            (StatusCode::PARTIAL_CONTENT, Some(rest)) if rest.is_in(headers) => (rest.from, Some(rest.total)),
            (StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE, Some(_)) => {
                return Err(DownloadError::NotTheRest(host));
            }
            (status, _) => return Err(of_status(status, &host)),
        };
        let encoding = match text(headers, &CONTENT_ENCODING).map(str::to_ascii_lowercase).as_deref() {
            None | Some("" | "identity") => Encoding::Identity,
            Some("gzip" | "x-gzip") => Encoding::Gzip,
            Some(other) => {
                let other = excerpt(other);
                let why = format!(
                    "{host} sends it with the content encoding \"{other}\", of which gzip is known here"
                );
                return Err(DownloadError::Refused(why));
            }
        };
        let tag = text(headers, &ETAG).filter(|tag| tag.starts_with('"')).map(str::to_owned);
        let (waited, counted) = (Duration::ZERO, received);
        Ok(Download { response, encoding, total, received, waited, counted, tag, host, _driving: driving })
    }

    /// Bytes so far, as they were sent, with those before the rest.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The next bytes, or nothing after the last ones.
    ///
    /// # Errors
    ///
    /// [`DownloadError::Passing`]
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, DownloadError> {
        loop {
            let began = Instant::now();
            let frame = timeout(SILENCE, self.response.body_mut().frame()).await;
            self.waited += began.elapsed();
            let broken = |why: String| DownloadError::Passing(format!("{}: {why}", self.host));
            let frame = match frame {
                Err(_late) => return Err(broken(format!("nothing has come for {} s", SILENCE.as_secs()))),
                Ok(None) => return self.check_end().map(|()| None),
                Ok(Some(frame)) => frame.map_err(|error| broken(chain(&error)))?,
            };
            let Ok(bytes) = frame.into_data() else { continue };
            self.received += bytes.len() as u64;
            self.check_rate()?;
            return Ok(Some(bytes));
        }
    }

    /// What is left of it, where that can be told from other content.
    pub fn rest(&self) -> Option<Rest> {
        let (total, tag) = (self.total?, self.tag.clone()?);
        Some(Rest { from: self.received, total, tag })
    }

    fn check_rate(&mut self) -> Result<(), DownloadError> {
        if self.waited < RATE_WINDOW {
            return Ok(());
        }
        let came = self.received - self.counted;
        (self.waited, self.counted) = (Duration::ZERO, self.received);
        if came < RATE_BYTES {
            let seconds = RATE_WINDOW.as_secs();
            return Err(DownloadError::Passing(format!("{}: {came} bytes came in {seconds} s", self.host)));
        }
        Ok(())
    }

    fn check_end(&self) -> Result<(), DownloadError> {
        match self.total {
            Some(total) if total != self.received => Err(DownloadError::Passing(format!(
                "Expected response size is '{total}' but received '{}'",
                self.received
            ))),
            Some(_) | None => Ok(()),
        }
    }
}

impl Rest {
    /// Whether a partial answer is just this.
    fn is_in(&self, headers: &HeaderMap) -> bool {
        let wanted = format!("bytes {}-{}/{}", self.from, self.total.saturating_sub(1), self.total);
        text(headers, &CONTENT_RANGE) == Some(wanted.as_str())
            && text(headers, &ETAG).is_none_or(|tag| tag == self.tag)
    }
}

fn parse(url: &str) -> Result<Uri, DownloadError> {
    // What is wrong with it is not told: it may be quoted there.
    let parsed: Option<Uri> = url.parse().ok();
    let useful =
        parsed.filter(|url| url.host().is_some() && matches!(url.scheme_str(), Some("http" | "https")));
    useful.ok_or_else(|| DownloadError::Refused("its URL is none of HTTP".to_owned()))
}

fn redirected(from: &Uri, headers: &HeaderMap) -> Result<Uri, DownloadError> {
    let to = text(headers, &LOCATION).unwrap_or_default();
    let authority = from.authority().map_or("", |authority| authority.as_str());
    let scheme = from.scheme_str().unwrap_or_default();
    let to = match to.strip_prefix('/') {
        Some(path) if !path.starts_with('/') => format!("{scheme}://{authority}/{path}"),
        _ => to.to_owned(),
    };
    let to = parse(&to)?;
    if scheme == "https" && to.scheme_str() == Some("http") {
        let (from, to) = (host(from), host(&to));
        return Err(DownloadError::Refused(format!("{from} leads on to {to} without TLS")));
    }
    Ok(to)
}

fn request(url: &Uri, rest: Option<&Rest>) -> Result<Request<Empty<Bytes>>, DownloadError> {
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let authority = match (url.host(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    };
    let mut request = Request::get(path)
        .header(HOST, authority)
        .header(USER_AGENT, AGENT)
        .header(ACCEPT_ENCODING, "gzip, identity");
    if let Some(rest) = rest {
        request = request.header(RANGE, format!("bytes={}-", rest.from)).header(IF_RANGE, &rest.tag);
    }
    let request = request.body(Empty::new());
    request.map_err(|_invalid| DownloadError::Refused("its URL is none of HTTP".to_owned()))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn length(headers: &HeaderMap) -> Option<u64> {
    text(headers, &CONTENT_LENGTH)?.parse().ok()
}

/// The host of a URL; the rest of it is a secret.
fn host(url: &Uri) -> String {
    excerpt(url.host().unwrap_or("an unknown host")).to_string()
}

fn passing(url: &Uri, why: String) -> DownloadError {
    DownloadError::Passing(format!("{}: {why}", host(url)))
}

/// Why there is no connection; what is refused here stays so.
fn of_connecting(url: &Uri, error: Box<dyn Error + Send + Sync>) -> DownloadError {
    let mut causes =
        std::iter::successors(Some(&*error as &(dyn Error + 'static)), |error| (*error).source());
    let is_refusal = causes
        .any(|cause| matches!(cause.downcast_ref(), Some(DialError::Refused { .. } | DialError::NoHost)));
    let why = chain(&*error);
    if is_refusal { DownloadError::Refused(why) } else { passing(url, why) }
}

fn of_status(status: StatusCode, host: &str) -> DownloadError {
    let why = format!("{host} answers with status code {}", status.as_u16());
    match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => DownloadError::Passing(why),
        status if status.is_server_error() => DownloadError::Passing(why),
        _ => DownloadError::Refused(why),
    }
}

#[cfg(test)]
mod tests;
