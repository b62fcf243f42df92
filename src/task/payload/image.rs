//! `payload.image`: which image the container is made of.

use images::source::Source;

use super::super::finding::Findings;
use super::super::limits;
use super::super::log::{escaped, excerpt};
use super::super::reader::{Object, Place};
use super::{NOT_YET, Origin};

/// An image as the payload names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageField {
    /// As written: `name[:tag][@digest]`, for the operator also `docker-archive:FILE` and the like.
    pub name: String,
    /// What it means.
    pub source: Source,
}

/// Reads the field: a name, or an object that says which kind of name.
pub(super) fn read(place: &Place<'_>, origin: Origin, findings: &mut Findings) -> Option<ImageField> {
    if place.value.is_string() {
        return read_name(place, origin, findings);
    }
    if !place.value.is_object() {
        place.expected("the name of an image, or an object with its \"type\"", findings);
        return None;
    }
    let image = place.object(findings)?;
    let kind = image.required("type", findings)?;
    match kind.string(findings)? {
        "docker-image" => {
            image.refuse_unknown(&["type", "name"], findings);
            read_name(&image.required("name", findings)?, origin, findings)
        }
        "indexed-image" => not_yet(&kind, &image, ["type", "namespace", "path"], findings),
        "task-image" => not_yet(&kind, &image, ["type", "taskId", "path"], findings),
        other => {
            let other = excerpt(other);
            kind.refuse(format!("Unrecognized image type. Image Type: {other}"), findings);
            findings.hint("known here: docker-image, indexed-image, task-image");
            None
        }
    }
}

/// An image that is an artifact: its fields are checked all the same, so that its author hears of everything at once.
fn not_yet(
    kind: &Place<'_>,
    image: &Object<'_>,
    fields: [&str; 3],
    findings: &mut Findings,
) -> Option<ImageField> {
    image.refuse_unknown(&fields, findings);
    for field in fields {
        image.required(field, findings).and_then(|place| place.string(findings));
    }
    kind.refuse(format!("an image of type {} {NOT_YET}", kind.value), findings);
    findings.hint("name an image of a registry");
    None
}

/// S27: a name that somebody put into a queue means a registry, whatever it looks like.
fn read_name(place: &Place<'_>, origin: Origin, findings: &mut Findings) -> Option<ImageField> {
    let name = place.string(findings)?;
    if name.len() > limits::IMAGE_NAME_BYTES {
        place.refuse(format!("must be at most {} bytes long", limits::IMAGE_NAME_BYTES), findings);
        return None;
    }
    match Source::parse(name) {
        Ok(source) if origin == Origin::Queue && source.is_local() => {
            place.refuse(format!("\"{}\" names a file of the worker's host", excerpt(name)), findings);
            findings.hint("name an image of a registry: [host[:port]/]name[:tag][@digest]");
            None
        }
        Ok(source) => Some(ImageField { name: name.to_owned(), source }),
        Err(error) => {
            place.refuse(escaped(&error.to_string()).to_string(), findings);
            None
        }
    }
}
