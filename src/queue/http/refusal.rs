//! From what a service answers to what a worker does about it.

use std::error::Error;

use super::finder::ArtifactPlace;
use crate::queue::QueueError;
use crate::text::escape_lines;

/// The status of a call whose signature is refused.
pub(super) const UNAUTHENTICATED: u16 = 401;
/// The status of an artifact that has no content, with a reason of whoever made it.
const NO_CONTENT: u16 = 424;
/// What stands in a service's message between its own words and those about the call. A front end's has no such line.
const RULE: &str = "\n---\n";
/// Characters of a service's own words.
const MESSAGE_CHARS: usize = 1000;

/// What came of one attempt.
pub(super) enum Answer {
    /// What was asked for.
    Given(Vec<u8>),
    /// What was asked for is elsewhere, if it is said where.
    Elsewhere { status: String, place: Option<ArtifactPlace> },
    /// The service will not do it, and says why.
    Refused { status: u16, because: String },
    /// It was not the service that answered, but a front end that has none behind it, or a server of something else. What
    /// shows that.
    Foreign(String),
    /// None, for now: there was no connection, or the service was at fault.
    None(Box<dyn Error + Send + Sync>),
}

/// What a request that failed came to, by the status of its answer if there was one.
pub(super) fn of_failure(status: Option<u16>, error: Box<dyn Error + Send + Sync>) -> Answer {
    match status {
        // Too many requests, or one that took too long to come: the next one may be right.
        Some(408 | 429) => Answer::None(error),
        Some(status @ NO_CONTENT) => Answer::Refused { status, because: line(&error.to_string()) },
        Some(status @ 400..500) => {
            let text = error.to_string();
            match text.split_once(RULE) {
                Some((words, _about_the_call)) => Answer::Refused { status, because: line(words) },
                None => Answer::Foreign(line(&text)),
            }
        }
        Some(_) | None => Answer::None(error),
    }
}

/// One bounded line.
fn line(text: &str) -> String {
    let words = escape_lines(text).split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().take(MESSAGE_CHARS).collect()
}

/// What a service's refusal means.
pub(super) fn error(status: u16, what: String, because: String) -> QueueError {
    match status {
        UNAUTHENTICATED => QueueError::Unauthenticated { what, because },
        403 => QueueError::Unauthorized { what, because },
        404 => QueueError::NotFound { what },
        409 => QueueError::Conflict { what, because },
        NO_CONTENT => QueueError::NoContent { what, because },
        _ => QueueError::Invalid { what, because },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_is_one_thing_to_do() {
        let error = |status| error(status, "x".to_owned(), "y".to_owned());
        assert!(matches!(error(400), QueueError::Invalid { .. }));
        assert!(matches!(error(401), QueueError::Unauthenticated { .. }));
        assert!(matches!(error(403), QueueError::Unauthorized { .. }));
        assert!(matches!(error(404), QueueError::NotFound { .. }));
        assert!(matches!(error(409), QueueError::Conflict { .. }));
        assert!(matches!(error(413), QueueError::Invalid { .. }));
        assert!(matches!(error(424), QueueError::NoContent { .. }));
    }

    #[test]
    fn only_what_is_the_callers_fault_is_a_refusal_and_only_by_the_services_own_word() {
        for (status, is_fault) in [
            (None, false),
            (Some(500), false),
            (Some(503), false),
            (Some(408), false),
            (Some(429), false),
            (Some(400), true),
            (Some(401), true),
            (Some(404), true),
            (Some(409), true),
        ] {
            let of = |text: &str| of_failure(status, text.into());
            let reasoned = of("no\n\n---\n\n* method:     task");
            assert_eq!(matches!(reasoned, Answer::Refused { .. }), is_fault, "{status:?}");
            assert_eq!(matches!(of("no Route matched"), Answer::Foreign(_)), is_fault, "{status:?}");
        }
    }

    #[test]
    fn a_reason_is_one_bounded_line_of_the_services_own_words() {
        let text =
            "Run 0 was\nalready resolved \u{1b}[31m\n\n---\n\n* method:     reclaimTask\n* statusCode: 409";
        let Answer::Refused { because, .. } = of_failure(Some(409), text.into()) else { panic!("{text}") };
        assert_eq!(because, "Run 0 was already resolved \\u001b[31m");
        assert_eq!(line(&"é".repeat(5000)).chars().count(), MESSAGE_CHARS);
    }
}
