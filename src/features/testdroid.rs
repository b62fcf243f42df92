//! `testdroidProxy`: a phone of Testdroid's, borrowed by way of `http://testdroid` and given back when the task is over.
//!
//! The container has the credentials for Testdroid in its own arguments, which is where it looks for them: whoever is in the
//! task cannot see them, root on this host can. Those for Taskcluster that it wants too are placeholders. The original gave it
//! the worker's own, which are for no task's container; the claim's would be of no use to it, as it has no place for their
//! certificate, and so have no business there.

use std::time::Duration;

use hyper::Method;
use serde_json::Value;

use super::sidecars::{self, Particulars, nothing_to_prove};
use super::{Feature, FeatureError, FeatureRow, Hook, Killed, Link, RunContext, Wishes};
use crate::config::{Secret, TestdroidSettings};
use crate::known_features::TESTDROID_PROXY;
use crate::payload::DeviceWishes;
use crate::sidecar::{Call, CallError, Door};
use crate::text::chain;

/// Its row of the table.
pub(super) const ROW: FeatureRow = FeatureRow { feature: &TESTDROID_PROXY, start };

/// The task's variable with what it wants of a phone.
const VARIABLE: &str = "DEVICE_CAPABILITIES";

/// In the place of credentials.
const PLACEHOLDER: &str = "none";

/// What the proxy answers when it has given a phone back, and when there is none.
const RELEASED: u16 = 200;
const NOT_BORROWED: u16 = 400;

/// How long a phone may take to be given back.
const RELEASE: Duration = Duration::from_secs(30);

/// What the payload does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum NoPhone {
    #[error("Device configuration must be supplied in task payload")]
    NoDevices,
    #[error("Phone device configuration must be supplied in task payload")]
    NoPhone,
}

/// A phone may still be borrowed.
#[derive(Debug, thiserror::Error)]
enum NotReleased {
    #[error("The phone may not have been given back: failed to {}", chain(.0))]
    Call(CallError),
    #[error("The phone may not have been given back: the proxy answered {0}.")]
    Refused(u16),
}

struct TestdroidProxy {
    phone: Result<Value, NoPhone>,
    device_timeout: Duration,
    door: Option<Door>,
}

fn start(wishes: &Wishes<'_>) -> Box<dyn Feature> {
    let device_timeout = wishes.payload.map(|payload| payload.max_run_time).unwrap_or_default();
    let phone = wanted_phone(wishes.payload.and_then(|payload| payload.devices.as_ref()));
    Box::new(TestdroidProxy { phone, device_timeout, door: None })
}

fn wanted_phone(devices: Option<&DeviceWishes>) -> Result<Value, NoPhone> {
    devices.ok_or(NoPhone::NoDevices)?.phone.clone().ok_or(NoPhone::NoPhone)
}

impl Feature for TestdroidProxy {
    fn link<'a>(&'a mut self, run: &'a RunContext, link: &'a mut Link<'_>) -> Hook<'a> {
        Box::pin(async {
            let phone = self.phone.as_ref().map_err(|missing| *missing)?.to_string();
            let particulars = particulars(&run.config.testdroid, self.device_timeout);
            let door =
                sidecars::serve(&sidecars::TESTDROID, run, link, particulars, nothing_to_prove).await?;
            self.door = Some(door);
            link.contributions.environment.push((VARIABLE.to_owned(), phone));
            Ok(())
        })
    }

    fn killed<'a>(&'a mut self, _run: &'a RunContext, _killed: &'a mut Killed<'_>) -> Hook<'a> {
        Box::pin(async {
            match self.door.take() {
                Some(door) => release(door).await,
                None => Ok(()),
            }
        })
    }
}

/// A task that has given its phone back itself gets an answer too.
async fn release(door: Door) -> Result<(), FeatureError> {
    let call = Call { method: Method::POST, path: "/device/release", content: None, limit: RELEASE };
    match door.call(call).await.map_err(NotReleased::Call)? {
        RELEASED | NOT_BORROWED => Ok(()),
        status => Err(NotReleased::Refused(status).into()),
    }
}

fn particulars(settings: &TestdroidSettings, device_timeout: Duration) -> Particulars {
    let secret = |secret: &Option<Secret>| secret.as_ref().map_or(String::new(), |it| it.reveal().to_owned());
    let arguments = vec![
        format!("--cloud-url={}", settings.url.as_deref().unwrap_or_default()),
        format!("--username={}", settings.username.as_deref().unwrap_or_default()),
        format!("--password={}", secret(&settings.password)),
        format!("--taskcluster-client-id={PLACEHOLDER}"),
        format!("--taskcluster-access-token={PLACEHOLDER}"),
        format!("--device-timeout={}", device_timeout.as_secs()),
    ];
    let arguments = arguments.into_iter().map(Secret::new).collect();
    Particulars { arguments, secrets: settings.password.iter().cloned().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_has_to_be_described() {
        assert_eq!(wanted_phone(None), Err(NoPhone::NoDevices));
        let devices = DeviceWishes { phone: None };
        assert_eq!(wanted_phone(Some(&devices)), Err(NoPhone::NoPhone));
        let devices = DeviceWishes { phone: Some(serde_json::json!({ "type": "flame" })) };
        assert_eq!(wanted_phone(Some(&devices)).unwrap()["type"], "flame");
    }
}
