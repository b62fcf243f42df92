//! From what a service answers to what a worker does about it.

use std::error::Error;

use crate::queue::QueueError;
use crate::text::escape_lines;

/// The status of a call whose signature is refused.
pub(super) const UNAUTHENTICATED: u16 = 401;
/// The status where nothing is.
const NOT_FOUND: u16 = 404;
/// Characters of a service's own words.
const MESSAGE_CHARS: usize = 1000;

/// What came of one attempt.
pub(super) enum Answer {
    /// What was asked for.
    Given(Vec<u8>),
    /// The service will not do it.
    Refused(Refusal),
    /// None, for now: there was no connection, the service was at fault, or it was not the service that answered.
    None(Box<dyn Error + Send + Sync>),
}

/// Why something is not done.
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) because: String,
    /// The service gave a reason in its own form (`message`). A front end that has no service behind it does not, nor
    /// does a server that is no deployment.
    pub(super) is_reasoned: bool,
}

impl Refusal {
    /// Whether the same call may be answered otherwise soon: it was a front end that found nothing, or the service does
    /// not take the signature, for which a clock that is off for a moment is enough, or credentials that are being
    /// replaced.
    pub(super) fn may_pass(&self) -> bool {
        !self.is_reasoned || self.status == UNAUTHENTICATED
    }
}

/// What a request that failed came to, by the status of its answer if there was one. A refusal without a reason is none,
/// but for the 404 that a wrong root URL earns.
pub(super) fn of_failure(
    status: Option<u16>,
    is_reasoned: bool,
    error: Box<dyn Error + Send + Sync>,
) -> Answer {
    match status {
        // Too many requests, or one that took too long to come: the next one may be right.
        Some(408 | 429) => Answer::None(error),
        Some(status @ 400..500) if is_reasoned || status == NOT_FOUND => {
            Answer::Refused(Refusal { status, because: message(&error.to_string()), is_reasoned })
        }
        Some(_) | None => Answer::None(error),
    }
}

/// The service's own words without the lines about the call that it adds to them.
fn message(text: &str) -> String {
    let words = text.split("\n---\n").next().unwrap_or_default().trim();
    let words = escape_lines(words).split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().take(MESSAGE_CHARS).collect()
}

/// What a refusal means.
pub(super) fn error(status: u16, what: String, because: String) -> QueueError {
    match status {
        UNAUTHENTICATED => QueueError::Unauthenticated { what, because },
        403 => QueueError::Unauthorized { what, because },
        NOT_FOUND => QueueError::NotFound { what },
        409 => QueueError::Conflict { what, because },
        400..500 => QueueError::Invalid { what, because },
        _ => QueueError::Internal { call: "make sense of its answer", source: because.into() },
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
        assert!(matches!(error(200), QueueError::Internal { .. }));
        assert!(matches!(error(302), QueueError::Internal { .. }));
    }

    #[test]
    fn only_what_is_the_callers_fault_is_a_refusal() {
        for (status, refused) in [
            (None, false),
            (Some(500), false),
            (Some(503), false),
            (Some(408), false),
            (Some(429), false),
            (Some(400), true),
            (Some(404), true),
            (Some(409), true),
        ] {
            let answer = of_failure(status, true, "x".into());
            assert_eq!(matches!(answer, Answer::Refused(_)), refused, "{status:?}");
        }
    }

    #[test]
    fn only_the_service_itself_refuses_for_good() {
        let statuses = [400, 401, 403, 404, 409];
        let answers = |is_reasoned| statuses.map(|status| of_failure(Some(status), is_reasoned, "x".into()));
        let may_pass = |answer| match answer {
            Answer::Refused(refusal) => Some(refusal.may_pass()),
            Answer::Given(_) | Answer::None(_) => None,
        };
        let reasoned = [Some(false), Some(true), Some(false), Some(false), Some(false)];
        assert_eq!(answers(true).map(may_pass), reasoned);
        assert_eq!(answers(false).map(may_pass), [None, None, None, Some(true), None]);
    }

    #[test]
    fn a_message_is_one_bounded_line_of_the_services_own_words() {
        let text =
            "Run 0 was\nalready resolved \u{1b}[31m\n\n---\n\n* method:     reclaimTask\n* statusCode: 409";
        assert_eq!(message(text), "Run 0 was already resolved \\u001b[31m");
        assert_eq!(message(&"é".repeat(5000)).chars().count(), MESSAGE_CHARS);
    }
}
