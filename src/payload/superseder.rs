//! `payload.supersederUrl`: who says which other tasks a task stands for. It is looked at before the payload is, as another
//! task's payload may turn out to be the one that counts.

use hyper::Uri;
use serde_json::Value;

use crate::document::finding::Findings;
use crate::document::reader::Place;
use crate::payload::Origin;
use crate::queue::task_id::TaskId;

/// What a task that stands for others publishes: under the original's name, and the documents'.
pub const LISTS: [&str; 2] = ["public/supersedes.json", "public/superses.json"];

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

/// Where the tasks are asked for that stand for one: as the original, `?taskId=` follows also where there is a query.
#[must_use]
pub fn question(url: &str, task_id: &TaskId) -> String {
    let (asked, _fragment) = url.split_once('#').unwrap_or((url, ""));
    format!("{}?taskId={task_id}", asked.replace(' ', "%20"))
}

/// Whether the same host is asked by two of them.
#[must_use]
pub fn is_one_host(one: &str, other: &str) -> bool {
    let origin = |url: &str| {
        let url: Uri = url.replace(' ', "%20").parse().ok()?;
        Some((url.scheme_str()?.to_owned(), url.authority()?.as_str().to_ascii_lowercase()))
    };
    origin(one).is_some_and(|origin_of_one| origin(other) == Some(origin_of_one))
}

pub(super) fn check(place: &Place<'_>, origin: Origin, findings: &mut Findings) {
    if place.string(findings).is_some_and(|text| !is_url(text)) {
        place.refuse("must be a URL that begins with http:// or https://, in printable ASCII", findings);
    } else if origin == Origin::Operator {
        findings.warning(place.pointer.clone(), "is not looked at: this task came from no queue");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_task_follows_whatever_the_url_holds() {
        let task_id = TaskId::parse("fN1SbArXTPSVFNUvaOlinQ").unwrap();
        for (url, asked) in [
            ("http://a/b", "http://a/b?taskId="),
            ("http://a/b?c=d", "http://a/b?c=d?taskId="),
            ("http://a/b c#d", "http://a/b%20c?taskId="),
        ] {
            assert_eq!(question(url, &task_id), format!("{asked}{task_id}"));
        }
    }

    #[test]
    fn a_host_is_the_same_with_its_scheme_and_port_only() {
        assert!(is_one_host("http://a.example/x y", "http://A.example/z#1"));
        for other in ["https://a.example/", "http://a.example:8080/", "http://b.example/", "http://", ""] {
            assert!(!is_one_host("http://a.example/", other), "{other}");
        }
        assert!(!is_one_host("", ""));
    }
}
