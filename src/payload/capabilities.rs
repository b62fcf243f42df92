//! `payload.capabilities`: what a task may have beyond others. Of it there are phones so far; the rest is refused when it is
//! asked for.

use serde_json::Value;

use crate::document::finding::Findings;
use crate::document::reader::{Object, Place};
use crate::known_features::TESTDROID_PROXY;
use crate::payload::{FeatureSwitches, NOT_YET};

/// Devices that are nodes of the host's.
const NODES: [&str; 4] = ["loopbackVideo", "loopbackAudio", "hostSharedMemory", "kvm"];

/// What a phone is described by; all of it, each a string.
const OF_A_PHONE: [&str; 4] = ["type", "sims", "build", "memory"];

/// `payload.capabilities.devices`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceWishes {
    /// The phone that `testdroidProxy` is to borrow, as the payload has it.
    pub phone: Option<Value>,
}

/// Reads them; gives what they say of devices, if they say anything.
pub(super) fn read(
    place: Option<Place<'_>>,
    features: &FeatureSwitches,
    findings: &mut Findings,
) -> Option<DeviceWishes> {
    let capabilities = place?.object(findings)?;
    capabilities.refuse_unknown(&["privileged", "disableSeccomp", "devices"], findings);
    for name in ["privileged", "disableSeccomp"] {
        if let Some(flag) = capabilities.member(name) {
            refuse_if_true(&format!("the capability {name}"), &flag, findings);
        }
    }
    let devices = capabilities.member("devices")?.object(findings)?;
    devices.refuse_unknown(&[&NODES[..], &["phone"]].concat(), findings);
    for name in NODES {
        if let Some(flag) = devices.member(name) {
            refuse_if_true(&format!("the device {name}"), &flag, findings);
        }
    }
    Some(DeviceWishes { phone: read_phone(&devices, features, findings) })
}

/// O1: only `true` asks for something.
fn refuse_if_true(what: &str, flag: &Place<'_>, findings: &mut Findings) {
    if flag.boolean(findings) == Some(true) {
        flag.refuse(format!("{what} {NOT_YET}"), findings);
    }
}

fn read_phone(devices: &Object<'_>, features: &FeatureSwitches, findings: &mut Findings) -> Option<Value> {
    let place = devices.member("phone").filter(|place| *place.value != Value::Bool(false))?;
    let phone = place.object(findings)?;
    phone.refuse_unknown(&OF_A_PHONE, findings);
    for name in OF_A_PHONE {
        if let Some(word) = phone.required(name, findings) {
            word.string(findings);
        }
    }
    if !features.is_on(TESTDROID_PROXY.name) {
        let name = TESTDROID_PROXY.name;
        findings.warning(place.pointer.clone(), format!("is for the feature {name} only, which is not on"));
    }
    Some(place.value.clone())
}
