//! Which artifact may take the place of which: pure.

use super::QueueError;
use super::model::{ArtifactContent, ArtifactRequest, StorageType};
use crate::limits::ARTIFACT_MESSAGE_CHARS;
use crate::queue::artifact_name::ArtifactName;
use crate::timestamp::Timestamp;

/// Characters of a content type.
const CONTENT_TYPE_CHARS: usize = 255;

/// What can be said against a request by itself.
pub(super) fn check(
    name: &ArtifactName,
    request: &ArtifactRequest,
    task_expires: Timestamp,
) -> Result<(), QueueError> {
    let invalid =
        |because: String| Err(QueueError::Invalid { what: format!("artifact \"{name}\""), because });
    if request.expires > task_expires {
        let (own, task) = (request.expires, task_expires);
        return invalid(format!("it would expire at {own}, after its task, which expires at {task}"));
    }
    if request.content.content_type().chars().count() > CONTENT_TYPE_CHARS {
        return invalid(format!("its content type has more than {CONTENT_TYPE_CHARS} characters"));
    }
    match &request.content {
        ArtifactContent::Error { message, .. } if message.chars().count() > ARTIFACT_MESSAGE_CHARS => {
            invalid(format!("its message has more than {ARTIFACT_MESSAGE_CHARS} characters"))
        }
        _ => Ok(()),
    }
}

/// What a request means for an artifact of that name: a link has no media type of its own where there is one already.
pub(super) fn settle(old: &ArtifactRequest, new: ArtifactRequest) -> ArtifactRequest {
    let ArtifactRequest { expires, content } = new;
    let content = match content {
        ArtifactContent::Link { artifact, .. } => {
            ArtifactContent::Link { artifact, content_type: old.content.content_type().to_owned() }
        }
        other => other,
    };
    ArtifactRequest { expires, content }
}

/// Whether `new` may take the place of `old`, which has the same name.
///
/// The content type stays, the expiry only grows. A reference may point elsewhere or become a link: that is how a live
/// log turns into a finished one. Anything else may be said again, not changed, except an object: each upload
/// has its own id.
pub(super) fn check_replacement(
    name: &ArtifactName,
    old: &ArtifactRequest,
    new: &ArtifactRequest,
) -> Result<(), QueueError> {
    let conflict = |because: &str| {
        Err(QueueError::Conflict { what: format!("artifact \"{name}\""), because: because.to_owned() })
    };
    let (from, to) = (old.content.storage_type(), new.content.storage_type());
    let may_change =
        from == StorageType::Reference && matches!(to, StorageType::Reference | StorageType::Link);
    if from != to && !may_change {
        return conflict("it exists with another storage type");
    }
    if old.content.content_type() != new.content.content_type() {
        return conflict("it exists with another content type");
    }
    if new.expires < old.expires {
        return conflict("it exists and expires later; an expiry may only grow");
    }
    if old.content != new.content && !may_change {
        return conflict("it exists with other content");
    }
    if to == StorageType::Object {
        return conflict("it exists with another upload");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::ErrorReason;

    const TEXT: &str = "text/plain; charset=utf-8";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn name() -> ArtifactName {
        ArtifactName::new("public/logs/live.log").unwrap()
    }

    fn s3(content_type: &str) -> ArtifactContent {
        ArtifactContent::S3 { content_type: content_type.to_owned() }
    }

    fn reference(url: &str) -> ArtifactContent {
        ArtifactContent::Reference { url: url.to_owned(), content_type: TEXT.to_owned() }
    }

    fn link(artifact: &str) -> ArtifactContent {
        ArtifactContent::Link {
            artifact: ArtifactName::new(artifact).unwrap(),
            content_type: TEXT.to_owned(),
        }
    }

    fn error(message: &str) -> ArtifactContent {
        ArtifactContent::Error { reason: ErrorReason::FileMissingOnWorker, message: message.to_owned() }
    }

    #[test]
    fn only_a_reference_may_change_what_it_is() {
        let object = ArtifactContent::Object { content_type: TEXT.to_owned() };
        let json_reference =
            ArtifactContent::Reference { url: "u".to_owned(), content_type: "application/json".to_owned() };
        let cases = [
            (s3(TEXT), s3(TEXT), true),
            (s3(TEXT), s3("text/html"), false),
            (s3(TEXT), object.clone(), false),
            (object.clone(), object, false),
            (s3(TEXT), reference("u"), false),
            (s3(TEXT), error("m"), false),
            (reference("u"), reference("u"), true),
            (reference("u"), reference("v"), true),
            (reference("u"), link("a"), true),
            (reference("u"), json_reference, false),
            (reference("u"), s3(TEXT), false),
            (reference("u"), error("m"), false),
            (link("a"), link("a"), true),
            (link("a"), link("b"), false),
            (link("a"), reference("u"), false),
            (error("m"), error("m"), true),
            (error("m"), error("n"), false),
            (error("m"), s3("application/json"), false),
        ];
        for (old, new, allowed) in cases {
            let request =
                |content: &ArtifactContent| ArtifactRequest { expires: at(9), content: content.clone() };
            let result = check_replacement(&name(), &request(&old), &request(&new));
            assert_eq!(result.is_ok(), allowed, "{old:?} → {new:?}");
            assert!(matches!(result, Ok(()) | Err(QueueError::Conflict { .. })), "{result:?}");
        }
    }

    #[test]
    fn a_link_takes_over_the_media_type_that_is_there() {
        let request = |content| ArtifactRequest { expires: at(9), content };
        let bare = ArtifactContent::Link {
            artifact: ArtifactName::new("a").unwrap(),
            content_type: "application/binary".to_owned(),
        };
        assert_eq!(settle(&request(reference("u")), request(bare)), request(link("a")));
        assert_eq!(settle(&request(reference("u")), request(s3("a/b"))), request(s3("a/b")));
    }

    #[test]
    fn an_expiry_only_grows() {
        for (old, new, allowed) in [(5, 5, true), (5, 6, true), (5, 4, false)] {
            let request = |seconds| ArtifactRequest { expires: at(seconds), content: s3(TEXT) };
            assert_eq!(
                check_replacement(&name(), &request(old), &request(new)).is_ok(),
                allowed,
                "{old} → {new}"
            );
        }
    }

    #[test]
    fn a_request_is_bounded_by_its_task_and_the_schema() {
        let cases = [
            (at(10), s3(TEXT), true),
            (at(11), s3(TEXT), false),
            (at(10), s3(&"x".repeat(255)), true),
            (at(10), s3(&"x".repeat(256)), false),
            (at(10), error(&"é".repeat(4096)), true),
            (at(10), error(&"é".repeat(4097)), false),
        ];
        for (expires, content, allowed) in cases {
            let request = ArtifactRequest { expires, content };
            let result = check(&name(), &request, at(10));
            assert_eq!(result.is_ok(), allowed, "{request:?}");
            assert!(matches!(result, Ok(()) | Err(QueueError::Invalid { .. })), "{result:?}");
        }
    }
}
