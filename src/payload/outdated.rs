//! Fields that this version does not carry out: those of a later version, which are refused when they ask for
//! something, and those that have lost their meaning, which are looked past with a warning.

use serde_json::Value;

use crate::document::finding::Findings;
use crate::document::reader::{Object, Place};
use crate::payload::NOT_YET;

/// Fields without a meaning today, and why.
const WITHOUT_MEANING: &[(&str, &str)] = &[
    ("graphs", "task graphs are extended through the queue since 2016"),
    ("coalescer", "superseding took its place in 2016"),
];

/// Looks at all such fields of a payload.
pub(super) fn look_at(payload: &Object<'_>, findings: &mut Findings) {
    for (field, reason) in WITHOUT_MEANING {
        if let Some(place) = payload.member(field) {
            findings.warning(place.pointer, format!("is not looked at any more: {reason}"));
        }
    }
    if let Some(place) = payload.member("encryptedEnv") {
        look_at_encrypted_env(&place, findings);
    }
    if let Some(capabilities) = payload.member("capabilities").and_then(|place| place.object(findings)) {
        look_at_capabilities(&capabilities, findings);
    }
}

fn look_at_encrypted_env(place: &Place<'_>, findings: &mut Findings) {
    let Some(entries) = place.list(findings) else { return };
    for entry in &entries {
        entry.string(findings);
    }
    if !entries.is_empty() {
        place.refuse(format!("encryptedEnv {NOT_YET}"), findings);
    }
}

fn look_at_capabilities(capabilities: &Object<'_>, findings: &mut Findings) {
    capabilities.refuse_unknown(&["privileged", "disableSeccomp", "devices"], findings);
    for name in ["privileged", "disableSeccomp"] {
        if let Some(flag) = capabilities.member(name) {
            refuse_if_true(&format!("the capability {name}"), &flag, findings);
        }
    }
    let Some(devices) = capabilities.member("devices").and_then(|place| place.object(findings)) else {
        return;
    };
    let switches = ["loopbackVideo", "loopbackAudio", "hostSharedMemory", "kvm"];
    devices.refuse_unknown(&["loopbackVideo", "loopbackAudio", "hostSharedMemory", "kvm", "phone"], findings);
    for name in switches {
        if let Some(flag) = devices.member(name) {
            refuse_if_true(&format!("the device {name}"), &flag, findings);
        }
    }
    if let Some(phone) = devices.member("phone").filter(|place| *place.value != Value::Bool(false)) {
        phone.refuse(format!("the device phone {NOT_YET}"), findings);
    }
}

/// O1: only `true` asks for something.
fn refuse_if_true(what: &str, flag: &Place<'_>, findings: &mut Findings) {
    if flag.boolean(findings) == Some(true) {
        flag.refuse(format!("{what} {NOT_YET}"), findings);
    }
}
