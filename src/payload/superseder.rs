//! `payload.supersederUrl`: who says which other tasks a task stands for. It is looked at before the payload is, as another
//! task's payload may turn out to be the one that counts.

use serde_json::Value;

use crate::document::finding::Findings;
use crate::document::reader::Place;

/// The URL of a payload that may be good for nothing else.
#[must_use]
pub fn url_of(payload: &Value) -> Option<&str> {
    payload.get("supersederUrl").and_then(Value::as_str)
}

/// The original's pattern: `^https?://[\x20-\x7e]*$`.
#[must_use]
pub fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|rest| rest.bytes().all(|byte| matches!(byte, 0x20..=0x7e)))
}

pub(super) fn check(place: &Place<'_>, findings: &mut Findings) {
    if place.string(findings).is_some_and(|text| !is_url(text)) {
        place.refuse("must be a URL that begins with http:// or https://, in printable ASCII", findings);
    }
}
