//! `payload.image`: which image the container is made of.

use std::fmt;

use images::source::Source;
use serde_json::json;

use crate::document::finding::Findings;
use crate::document::reader::{Object, Place};
use crate::limits;
use crate::payload::Origin;
use crate::queue::artifact_name::ArtifactName;
use crate::queue::is_index_path;
use crate::queue::task_id::{TaskId, TaskIdError};
use crate::suggestion::nearest;
use crate::text::chain;
use crate::text::{escaped, excerpt};

/// Words for kinds of images.
const TASK_IMAGE: &str = "task-image";
const INDEXED_IMAGE: &str = "indexed-image";

/// What stands before the path of an image that is a file or directory of this host.
const TRANSPORTS: &[&str] = &["docker-archive", "oci-archive", "oci", "dir"];

/// Endings of the names of archives.
const ARCHIVES: &[&str] = &[".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2"];

/// An image as the payload names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageField {
    /// `name[:tag][@digest]`, for the operator also `docker-archive:FILE` and the like.
    Named {
        /// As the payload has it: scopes speak of it so.
        name: String,
        /// What it means.
        source: Source,
    },
    /// An artifact that is an archive of an image.
    Artifact(ArtifactImage),
}

/// An image that a task has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactImage {
    /// Which task.
    pub of: TaskName,
    /// The artifact's name.
    pub path: ArtifactName,
}

/// What a task is called whose artifact is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskName {
    /// By its id.
    Id(TaskId),
    /// The one that the index has under that name.
    Indexed(String),
}

impl ArtifactImage {
    /// What a task has to hold that uses it; nothing where everybody may.
    #[must_use]
    pub fn scope(&self) -> Option<String> {
        let path = self.path.as_str();
        (!path.starts_with("public/")).then(|| format!("queue:get-artifact:{path}"))
    }
}

/// As in the payload.
impl fmt::Display for ArtifactImage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.as_str();
        let text = match &self.of {
            TaskName::Id(task_id) => json!({ "type": TASK_IMAGE, "taskId": task_id, "path": path }),
            TaskName::Indexed(namespace) => {
                json!({ "type": INDEXED_IMAGE, "namespace": namespace, "path": path })
            }
        };
        text.fmt(out)
    }
}

impl fmt::Display for ImageField {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageField::Named { source, .. } => source.fmt(out),
            ImageField::Artifact(image) => image.fmt(out),
        }
    }
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
    let field = match kind.string(findings)? {
        "docker-image" => {
            image.refuse_unknown(&["type", "name"], findings);
            read_name(&image.required("name", findings)?, origin, findings)?
        }
        INDEXED_IMAGE => {
            let (namespace, path) = read_artifact(&image, "namespace", findings)?;
            if !is_index_path(&namespace) {
                let place = image.member("namespace")?;
                place.refuse(
                    "must be words with dots between them, as no task has another name in the index",
                    findings,
                );
                return None;
            }
            ImageField::Artifact(ArtifactImage { of: TaskName::Indexed(namespace), path })
        }
        TASK_IMAGE => {
            let (task_id, path) = read_artifact(&image, "taskId", findings)?;
            let task_id = TaskId::parse(&task_id);
            let task_id = task_id.map_err(|error| refuse_task_id(&image, &error, findings)).ok()?;
            ImageField::Artifact(ArtifactImage { of: TaskName::Id(task_id), path })
        }
        other => {
            let other = excerpt(other);
            kind.refuse(format!("Unrecognized image type. Image Type: {other}"), findings);
            findings.hint("known here: docker-image, indexed-image, task-image");
            return None;
        }
    };
    Some(field)
}

/// Of which task, and under which name, an image is an artifact.
fn read_artifact(
    image: &Object<'_>,
    of: &'static str,
    findings: &mut Findings,
) -> Option<(String, ArtifactName)> {
    image.refuse_unknown(&["type", of, "path"], findings);
    let task = image.required(of, findings).and_then(|place| place.string(findings).map(str::to_owned));
    let path = image.required("path", findings).and_then(|place| {
        let name = ArtifactName::new(place.string(findings)?);
        name.map_err(|error| place.refuse(format!("must {error}"), findings)).ok()
    });
    Some((task?, path?))
}

fn refuse_task_id(image: &Object<'_>, error: &TaskIdError, findings: &mut Findings) {
    if let Some(place) = image.member("taskId") {
        place.refuse(error.to_string(), findings);
    }
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
        Ok(source) => Some(ImageField::Named { name: name.to_owned(), source }),
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
