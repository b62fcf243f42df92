//! `payload.image`: which image the container is made of.

use images::source::Source;

use crate::document::finding::Findings;
use crate::document::reader::{Object, Place};
use crate::limits;
use crate::payload::{NOT_YET, Origin};
use crate::suggestion::nearest;
use crate::text::chain;
use crate::text::{escaped, excerpt};

/// What stands before the path of an image that is a file or directory of this host.
const TRANSPORTS: &[&str] = &["docker-archive", "oci-archive", "oci", "dir"];

/// Endings of the names of archives.
const ARCHIVES: &[&str] = &[".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2"];

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
        // Docker Hub's own images have no such names: no need to ask it.
        Ok(source) if origin == Origin::Operator && !name.contains('/') && meant_by(name).is_some() => {
            place.refuse(format!("\"{}\" names no image", escaped(&source.to_string())), findings);
            hint(name, origin, findings);
            None
        }
        Ok(source) => Some(ImageField { name: name.to_owned(), source }),
        Err(error) => {
            place.refuse(escaped(&chain(&error)).to_string(), findings);
            hint(name, origin, findings);
            None
        }
    }
}

fn hint(name: &str, origin: Origin, findings: &mut Findings) {
    if let Some(meant) = meant_by(name).filter(|_| origin == Origin::Operator) {
        findings.hint(format!("did you mean \"{}\"?", excerpt(&meant)));
    }
}

/// What somebody may have meant whose image's name is a path, or has a slip of the pen before the colon.
#[must_use]
pub fn meant_by(name: &str) -> Option<String> {
    if let Some((transport, path)) = name.split_once(':')
        && !TRANSPORTS.contains(&transport)
        && let Some(known) = nearest(transport, TRANSPORTS)
        // A short word is rather the name of an image: `dind:24`.
        && (known.contains('-') || path.starts_with(['/', '.']))
    {
        return Some(format!("{known}:{path}"));
    }
    let is_archive = ARCHIVES.iter().any(|ending| name.ends_with(ending));
    let is_path = name.starts_with(['/', '.']);
    match (is_archive, is_path) {
        (true, _) if Source::parse(name).is_ok_and(|source| source.is_local()) => None,
        (true, _) => Some(format!("docker-archive:{name}")),
        (false, true) => Some(format!("oci:{name}")),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_a_slip_of_the_pen_are_understood() {
        let cases = [
            ("/tmp/x.tar", Some("docker-archive:/tmp/x.tar")),
            ("image.tar.gz", Some("docker-archive:image.tar.gz")),
            ("./layout", Some("oci:./layout")),
            ("docker-archiv:/tmp/x.tar", Some("docker-archive:/tmp/x.tar")),
            ("docker-archiv:x.tar", Some("docker-archive:x.tar")),
            ("oci_archive:x", Some("oci-archive:x")),
            ("ocl:/d", Some("oci:/d")),
            ("docker-archive:x.tar", None),
            ("dind:24", None),
            ("dir:x.tar", None),
            ("busybox:1.36", None),
            ("registry.example/a/b@sha256:abc", None),
        ];
        for (name, expected) in cases {
            assert_eq!(meant_by(name).as_deref(), expected, "{name}");
        }
    }
}
