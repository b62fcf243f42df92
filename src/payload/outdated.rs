//! Fields that this version does not carry out: those of a later version, which are refused when they ask for
//! something, and those that have lost their meaning, which are looked past with a warning.

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
