//! The taskcluster proxy that is an image of the administrator's, in the place of the built-in one.
//!
//! No credentials stand in its arguments: it starts with placeholders, and the claim's are put in their place before the task
//! hears of it, and after each reclaim. The worker does so by a way that the task cannot listen to. What the proxy itself
//! takes from the task (`PUT /credentials` too, as the original's does) is the image's affair: the task has then taken its own
//! credentials away.

use std::net::IpAddr;
use std::time::Duration;

use hyper::{Method, Uri};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::background::Background;
use crate::config::Secret;
use crate::event::{RunEvent, RunEvents};
use crate::features::sidecars::{self, Particulars};
use crate::features::{FeatureError, Link, RunContext};
use crate::queue::Credentials;
use crate::random::random_fraction;
use crate::sidecar::{Call, CallError, Door, Secrets};
use crate::text::chain;

use super::scopes;

/// In the place of credentials.
const PLACEHOLDER: &str = "none";

/// How often new credentials are offered, and what is waited for between the first two offers and at most.
const OFFERS: u32 = 10;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The same while the task waits.
const FIRST_PAUSE_AT_START: Duration = Duration::from_millis(50);

/// By how much each further pause is longer.
const GROWTH: f64 = 1.311;

/// How long the proxy may take to answer one offer.
const ANSWER: Duration = Duration::from_secs(10);

/// What the proxy says when it has taken credentials.
const TAKEN: u16 = 200;

/// The proxy's credentials are not those that it should have.
#[derive(Debug, thiserror::Error)]
enum UpdateError {
    #[error("It answered {0} to the credentials of the task.")]
    Refused(u16),
    #[error("It did not take the credentials of the task: failed to {}", chain(.0))]
    Call(#[from] CallError),
    #[error("The credentials of the task could not be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Credentials as the proxy reads them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Update<'a> {
    client_id: &'a str,
    access_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<&'a str>,
}

/// Starts it; gives what keeps its credentials new, and is to be dropped with it.
///
/// # Errors
///
/// It does not serve, or does not take the credentials.
pub(super) async fn serve(
    run: &RunContext,
    link: &mut Link<'_>,
    (root_url, credentials): (&str, &watch::Receiver<Credentials>),
) -> Result<Background, FeatureError> {
    if is_on_loopback(root_url) {
        run.log.info(&format!(
            "The taskcluster proxy's image cannot reach {root_url}, which is this host's own: without taskclusterProxy.image the worker's proxy does."
        ));
    }
    let mut credentials = credentials.clone();
    let first = credentials.borrow_and_update().clone();
    let arguments = [
        format!("--client-id={PLACEHOLDER}"),
        format!("--access-token={PLACEHOLDER}"),
        format!("--root-url={root_url}"),
    ];
    let arguments = arguments.into_iter().chain(scopes(run)).map(Secret::new).collect();
    // It may print what it is given.
    let secrets = Secrets::default();
    hide(&secrets, &first);
    let particulars = Particulars { arguments, secrets: secrets.clone() };
    let offered = async |door: &Door| Ok(offer(door, &first, FIRST_PAUSE_AT_START).await?);
    let door = sidecars::serve(&sidecars::TASKCLUSTER, run, link, particulars, offered).await?;
    Ok(Background::start(keep_new((door, secrets), credentials, run.events.clone())))
}

/// Whether a URL means whatever loopback it is looked at from.
fn is_on_loopback(url: &str) -> bool {
    let host = url.parse::<Uri>().ok().and_then(|url| url.host().map(str::to_owned)).unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

/// Offers each new pair; what is not taken is the next one's to mend.
async fn keep_new(
    (door, secrets): (Door, Secrets),
    mut credentials: watch::Receiver<Credentials>,
    events: RunEvents,
) {
    while credentials.changed().await.is_ok() {
        let new = credentials.borrow_and_update().clone();
        hide(&secrets, &new);
        match offer(&door, &new, FIRST_PAUSE).await {
            Ok(()) => events.emit(&RunEvent::CredentialsUpdated),
            Err(error) => events.emit(&RunEvent::CredentialsUpdateFailed { message: &chain(&error) }),
        }
    }
}

fn hide(secrets: &Secrets, credentials: &Credentials) {
    let parts = [Some(&credentials.access_token), credentials.certificate.as_ref()];
    parts.into_iter().flatten().for_each(|part| secrets.add(Secret::new(part.clone())));
}

/// Offers credentials until they are taken, or it has been tried often enough.
async fn offer(door: &Door, credentials: &Credentials, first_pause: Duration) -> Result<(), UpdateError> {
    let text = serde_json::to_string(&Update {
        client_id: &credentials.client_id,
        access_token: &credentials.access_token,
        certificate: credentials.certificate.as_deref(),
    })?;
    let mut pause = first_pause;
    let mut tries = 1;
    loop {
        let content = Some(("text/json", text.clone()));
        let call = Call { method: Method::PUT, path: "/credentials", content, limit: ANSWER };
        let error = match door.call(call).await {
            Ok(TAKEN) => return Ok(()),
            Ok(status) => UpdateError::Refused(status),
            Err(error) => error.into(),
        };
        if tries == OFFERS {
            return Err(error);
        }
        tries += 1;
        sleep(pause.mul_f64(1.0 + random_fraction()).min(LONGEST_PAUSE)).await;
        pause = pause.mul_f64(GROWTH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_url_on_loopback_is_out_of_an_images_reach() {
        for (url, expected) in [
            ("http://127.0.0.1:8239", true),
            ("http://localhost/", true),
            ("http://[::1]:80", true),
            ("https://tc.example.com", false),
            ("https://192.0.2.1", false),
            ("nonsense", false),
        ] {
            assert_eq!(is_on_loopback(url), expected, "{url}");
        }
    }
}
