//! Calls to a deployment's services, signed with credentials that may be replaced at any time.
//!
//! The `taskcluster` crate signs and sends; its own retrying is off, for it would repeat a signature until the queue finds
//! it stale. Here each attempt is signed anew, with whatever credentials are the present ones. What the crate hides: the
//! headers and the length of a refusal, and that it builds a client (and reads the host's certificates) for each pair of
//! credentials, which is therefore done on a thread that may block.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::HeaderMap;
use serde::de::{DeserializeOwned, Error as _, IgnoredAny};
use serde_json::Value;
use taskcluster::retry::Backoff;
use taskcluster::{Client, ClientBuilder, Retry};
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::clock::QueueClock;
use super::finder::{ArtifactPlace, Custody};
use super::refusal::{self, Answer};
use crate::queue::{Credentials, QueueError};

/// The waits between attempts: from 0.1 to 30 seconds, doubled each time, and a random part more.
const BACK_OFF: Retry = Retry {
    retries: usize::MAX,
    max_delay: Duration::from_secs(30),
    delay_factor: Duration::from_millis(100),
    randomization_factor: 0.25,
};
/// How long a refused signature is tried again: more than it takes to set a clock or to be sent other credentials. Those
/// of a claim that is long over are refused for ever.
const SIGNATURE_TIME: Duration = Duration::from_secs(30);
/// For errors.
const MAKE_CLIENT: &str = "make a client with its root URL and credentials";

const NO_RETRY: Retry = Retry { retries: 0, ..BACK_OFF };

/// A deployment, and who calls it.
#[derive(Debug)]
pub(super) struct Session {
    root_url: String,
    /// How long one attempt may take.
    timeout: Duration,
    pub(super) clock: Arc<QueueClock>,
    signer: Mutex<Arc<Signer>>,
    /// See [`Insists::UntilInVain`].
    in_vain: Arc<AtomicBool>,
}

/// One pair of credentials, or none, and, once there is a call, the client that signs with them.
struct Signer {
    credentials: Option<Credentials>,
    client: OnceCell<Client>,
}

/// One call.
pub(super) struct Call<'a> {
    pub(super) method: &'static str,
    /// Below the root URL.
    pub(super) path: String,
    pub(super) body: Option<&'a Value>,
    /// What is asked for, for errors: it follows "accept", "find" or "change".
    pub(super) what: String,
    /// How long it may be tried.
    pub(super) patience: Duration,
    /// Whether it is also tried again where there was an answer.
    pub(super) insists: Insists,
    /// Bytes of its answer.
    pub(super) most: usize,
}

/// Whether a call is tried again after an answer that may be another one soon: one that is not the service's own, such as
/// a front end's 404 or a page in place of JSON, or its refusal of the signature, for which a clock that is off for a
/// moment is enough, or credentials that are being replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Insists {
    /// Whoever calls can do without the answer, or tries again and wants to know what is in the way.
    Never,
    /// A run's result depends on it, and on others like it: where one of the session has insisted in vain, the others
    /// do not, for what a front end refuses for its name it always does.
    UntilInVain,
    /// A run's result depends on it.
    Always,
}

/// Why one attempt has brought nothing.
enum Failure {
    Unanswered(Box<dyn Error + Send + Sync>),
    Foreign(String),
    Refused { status: u16, because: String },
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.credentials.fmt(out)
    }
}

impl Session {
    pub(super) fn new(
        root_url: &str,
        credentials: Option<Credentials>,
        timeout: Duration,
        clock: Arc<QueueClock>,
    ) -> Session {
        Session {
            root_url: root_url.to_owned(),
            timeout,
            clock,
            signer: Mutex::new(Arc::new(Signer::new(credentials))),
            in_vain: Arc::default(),
        }
    }

    /// Makes the first call's client now, which blocks, and finds out what no call could be made with.
    pub(super) fn prepare(&self) -> Result<(), QueueError> {
        let signer = Arc::clone(&self.signer.lock().unwrap_or_else(PoisonError::into_inner));
        let client = build(&self.root_url, signer.credentials.clone(), self.timeout)?;
        // Where a call has made one meanwhile, that one stays.
        signer.client.set(client).ok();
        Ok(())
    }

    /// Another session of the same deployment.
    pub(super) fn with(&self, credentials: Credentials, timeout: Duration) -> Session {
        Session::new(&self.root_url, Some(credentials), timeout, Arc::clone(&self.clock))
    }

    /// A session for a part of what this one is for, with credentials for just that.
    pub(super) fn part(&self, credentials: Credentials) -> Session {
        let part = self.with(credentials, self.timeout);
        Session { in_vain: Arc::clone(&self.in_vain), ..part }
    }

    /// From now on calls, those that are being tried included, are signed with these.
    pub(super) fn replace(&self, credentials: Credentials) {
        let signer = Arc::new(Signer::new(Some(credentials)));
        *self.signer.lock().unwrap_or_else(PoisonError::into_inner) = signer;
    }

    /// The answer to a call: tried again while the deployment cannot be reached or is at fault.
    pub(super) async fn ask<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, QueueError> {
        self.try_for_long(call, |answer| content(answer, |bytes| serde_json::from_slice(bytes))).await
    }

    /// Where a call's answer leads to that is not answered by content.
    pub(super) async fn locate(&self, call: Call<'_>) -> Result<ArtifactPlace, QueueError> {
        self.try_for_long(call, |answer| match answer {
            Answer::Elsewhere { place: Some(place), .. } => Ok(place),
            answer => content(answer, |_| Err(serde_json::Error::custom("content"))),
        })
        .await
    }

    /// The same for a call whose answer says nothing, as far as it has a body at all.
    pub(super) async fn tell(&self, call: Call<'_>) -> Result<(), QueueError> {
        let read = |bytes: &[u8]| match bytes {
            [] => Ok(()),
            bytes => serde_json::from_slice(bytes).map(|IgnoredAny| ()),
        };
        self.try_for_long(call, |answer| content(answer, read)).await
    }

    async fn try_for_long<T>(
        &self,
        call: Call<'_>,
        read: impl Fn(Answer) -> Result<T, Failure>,
    ) -> Result<T, QueueError> {
        let began = Instant::now();
        let mut back_off = Backoff::new(&BACK_OFF);
        loop {
            let failure = match read(self.attempt(&call).await?) {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let wait = back_off.next_backoff().unwrap_or(BACK_OFF.max_delay);
            if began.elapsed() + wait >= self.patience(&call, &failure) {
                return Err(self.give_up(call, failure).await);
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// How long after its begin a call is tried again that has failed so.
    fn patience(&self, call: &Call<'_>, failure: &Failure) -> Duration {
        let insists = match call.insists {
            Insists::Never => false,
            Insists::UntilInVain => !self.in_vain.load(Ordering::Relaxed),
            Insists::Always => true,
        };
        match failure {
            Failure::Unanswered(_) => call.patience,
            Failure::Foreign(_) if insists => call.patience,
            Failure::Refused { status: refusal::UNAUTHENTICATED, .. } if insists => {
                call.patience.min(SIGNATURE_TIME)
            }
            Failure::Foreign(_) | Failure::Refused { .. } => Duration::ZERO,
        }
    }

    async fn give_up(&self, Call { what, insists, .. }: Call<'_>, failure: Failure) -> QueueError {
        match failure {
            Failure::Unanswered(source) => QueueError::Unreachable { what, source },
            Failure::Foreign(because) => {
                if insists == Insists::UntilInVain {
                    self.in_vain.store(true, Ordering::Relaxed);
                }
                QueueError::Foreign { what, because }
            }
            Failure::Refused { status: status @ refusal::UNAUTHENTICATED, because } => {
                refusal::error(status, what, self.with_skew(because).await)
            }
            Failure::Refused { status, because } => refusal::error(status, what, because),
        }
    }

    async fn attempt(&self, call: &Call<'_>) -> Result<Answer, QueueError> {
        let signer = Arc::clone(&self.signer.lock().unwrap_or_else(PoisonError::into_inner));
        let client = signer.client(&self.root_url, self.timeout).await?;
        let mut response = match client.request(call.method, &call.path, None, call.body).await {
            Ok(response) => response,
            Err(error) => {
                let status = taskcluster::err_status_code(&error).map(|status| status.as_u16());
                return Ok(refusal::of_failure(status, error.into()));
            }
        };
        if let Some(Ok(date)) = response.headers().get("date").map(|date| date.to_str()) {
            self.clock.note(date);
        }
        let status = response.status();
        if status.is_redirection() {
            return Ok(elsewhere(status.to_string(), response.headers()));
        }
        if !status.is_success() {
            return Ok(Answer::Foreign(format!("it answered {status}")));
        }
        let mut bytes = Vec::new();
        loop {
            match response.chunk().await {
                Ok(None) => return Ok(Answer::Given(bytes)),
                Ok(Some(chunk)) if chunk.len() > call.most - bytes.len() => {
                    let because = format!("its answer is longer than {} bytes", call.most);
                    return Ok(Answer::Foreign(because));
                }
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Err(error) => return Ok(Answer::None(error.into())),
            }
        }
    }

    /// A signature is refused where the clocks differ. A refusal's date is not to be had, so the queue is asked.
    async fn with_skew(&self, because: String) -> String {
        let ping = Call {
            method: "GET",
            path: "api/queue/v1/ping".to_owned(),
            body: None,
            what: String::new(),
            patience: Duration::ZERO,
            insists: Insists::Never,
            most: 64 << 10,
        };
        // Where that says nothing, what is known is from an earlier answer.
        drop(self.attempt(&ping).await);
        match self.clock.skew() {
            Some(skew) => format!("{because}; {skew}"),
            None => because,
        }
    }
}

/// What a call's answer says that is to be content.
fn content<T>(answer: Answer, read: impl Fn(&[u8]) -> Result<T, serde_json::Error>) -> Result<T, Failure> {
    Err(match answer {
        Answer::Given(bytes) => match read(&bytes) {
            Ok(content) => return Ok(content),
            Err(error) => Failure::Foreign(form(&error)),
        },
        Answer::Elsewhere { status, .. } => Failure::Foreign(format!("it answered {status}")),
        Answer::Refused { status, because } => Failure::Refused { status, because },
        Answer::Foreign(because) => Failure::Foreign(because),
        Answer::None(source) => Failure::Unanswered(source),
    })
}

/// Where a service sends its callers to.
fn elsewhere(status: String, headers: &HeaderMap) -> Answer {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let place = header("location").map(|url| ArtifactPlace {
        url: url.to_owned(),
        // What says nothing of its kind may be anybody's.
        custody: match header("x-taskcluster-artifact-storage-type") {
            Some("s3" | "object") => Custody::Deployment,
            _ => Custody::Stranger,
        },
    });
    Answer::Elsewhere { status, place }
}

/// What is said of an answer that is not as it should be: where, and not what stands there, which may be a secret.
pub(super) fn misshapen(call: &'static str, error: &serde_json::Error) -> QueueError {
    QueueError::Internal { call, source: form(error).into() }
}

fn form(error: &serde_json::Error) -> String {
    format!("it is of another form (line {}, column {})", error.line(), error.column())
}

impl Signer {
    fn new(credentials: Option<Credentials>) -> Signer {
        Signer { credentials, client: OnceCell::new() }
    }

    async fn client(&self, root_url: &str, timeout: Duration) -> Result<&Client, QueueError> {
        let make = async || {
            let (root_url, credentials) = (root_url.to_owned(), self.credentials.clone());
            match spawn_blocking(move || build(&root_url, credentials, timeout)).await {
                Ok(built) => built,
                Err(error) => Err(QueueError::Internal { call: MAKE_CLIENT, source: error.into() }),
            }
        };
        self.client.get_or_try_init(make).await
    }
}

/// Reads this host's certificates: blocks.
fn build(root_url: &str, credentials: Option<Credentials>, timeout: Duration) -> Result<Client, QueueError> {
    let mut builder = ClientBuilder::new(root_url).retry(NO_RETRY).timeout(timeout);
    if let Some(Credentials { client_id, access_token, certificate }) = credentials {
        builder = builder.credentials(taskcluster::Credentials { client_id, access_token, certificate });
    }
    builder.build().map_err(|error| QueueError::Internal { call: MAKE_CLIENT, source: error.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::chain;

    #[test]
    fn what_is_wrong_with_an_answer_is_told_without_what_it_says() {
        for answer in [r#"{"accessToken": "secret"}"#, r#"["secret", 1]"#, r#""secret""#, "secret"] {
            let error = serde_json::from_str::<Vec<u8>>(answer).unwrap_err();
            let said = chain(&misshapen("read a task that it gave out", &error));
            assert!(said.contains("line 1, column") && !said.contains("secret"), "{said}");
        }
    }
}
