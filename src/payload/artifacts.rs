//! `payload.artifacts` and `payload.log`: what is kept of a task, under which names.

use std::collections::BTreeMap;

use crate::document::finding::Findings;
use crate::document::reader::{Object, Place};
use crate::known_features::{DOCKER_SAVE, Reserved, cache_artifact};
use crate::limits;
use crate::payload::mounts::{self, CacheName, MountPoint, Taken};
use crate::payload::{FeatureSwitches, TaskContext, superseder};
use crate::queue::artifact_name::ArtifactName;
use crate::text::excerpt;
use crate::timestamp::Timestamp;

/// The name of the live log where the payload names none.
const DEFAULT_LOG: &str = "public/logs/live.log";

/// One entry of `payload.artifacts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactEntry {
    /// Where it comes from.
    pub source: ArtifactSource,
    /// When it may be deleted; absent: with the task.
    pub expires: Option<Timestamp>,
}

/// Where an artifact comes from. Paths are the container's; a relative one starts at its `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArtifactSource {
    /// One file.
    File(String),
    /// All files below a directory, each an artifact `<name>/<path below>`.
    Directory(String),
    /// A directory of the host's, mounted here before the command starts; uploaded as a directory, even after a kill.
    Volume(MountPoint),
}

impl ArtifactSource {
    /// The payload's word for it: `file`, `directory` or `volume`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            ArtifactSource::File(_) => "file",
            ArtifactSource::Directory(_) => "directory",
            ArtifactSource::Volume(_) => "volume",
        }
    }

    /// The path in the container as the payload has it (a volume's: made normal).
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            ArtifactSource::File(path) | ArtifactSource::Directory(path) => path,
            ArtifactSource::Volume(mount_point) => mount_point.as_str(),
        }
    }
}

/// Reads `payload.log`: the live log's name.
pub(super) fn read_log(place: Option<Place<'_>>, findings: &mut Findings) -> Option<ArtifactName> {
    let Some(place) = place else {
        return ArtifactName::new(DEFAULT_LOG).ok();
    };
    let name = place.string(findings)?;
    let checked = ArtifactName::new(name).and_then(|log| log.backing().map(|_| log));
    checked
        .map_err(|error| {
            place.refuse(format!("the artifact name \"{}\" must {error}", excerpt(name)), findings)
        })
        .ok()
}

/// Reads `payload.artifacts`.
pub(super) fn read(
    place: Option<Place<'_>>,
    context: &TaskContext<'_>,
    taken: &mut Taken,
    findings: &mut Findings,
) -> BTreeMap<ArtifactName, ArtifactEntry> {
    let mut artifacts = BTreeMap::new();
    let Some(object) = place.as_ref().and_then(|place| place.object(findings)) else {
        return artifacts;
    };
    if let Some(place) = place.filter(|_| object.members().count() > limits::ARTIFACTS) {
        place.refuse(format!("must have at most {} artifacts", limits::ARTIFACTS), findings);
        return artifacts;
    }
    for (name, place) in object.members() {
        let checked = read_name(name, &place, findings);
        let entry = read_entry(name, &place, context, findings);
        let (Some(name), Some(entry)) = (checked, entry) else { continue };
        if let ArtifactSource::Volume(path) = &entry.source {
            mounts::take(path, format!("the artifact \"{name}\""), &place, taken, findings);
        }
        if artifacts.insert(name.clone(), entry).is_some() {
            place.refuse(format!("\"{name}\" is there twice, with and without a slash at its end"), findings);
        }
    }
    artifacts
}

/// A name; one slash at its end is dropped (O51: the original announced this and did not do it).
fn read_name(name: &str, place: &Place<'_>, findings: &mut Findings) -> Option<ArtifactName> {
    ArtifactName::new(name.strip_suffix('/').unwrap_or(name))
        .map_err(|error| {
            place.refuse(format!("the artifact name \"{}\" must {error}", excerpt(name)), findings)
        })
        .ok()
}

fn read_entry(
    name: &str,
    place: &Place<'_>,
    context: &TaskContext<'_>,
    findings: &mut Findings,
) -> Option<ArtifactEntry> {
    let entry = place.object(findings)?;
    entry.refuse_unknown(&["type", "path", "expires"], findings);
    let source = read_source(&entry, findings);
    let expires = entry.member("expires").and_then(|place| read_expires(name, &place, context, findings));
    Some(ArtifactEntry { source: source?, expires })
}

fn read_source(entry: &Object<'_>, findings: &mut Findings) -> Option<ArtifactSource> {
    let kind = entry.required("type", findings).and_then(|place| Some((place.string(findings)?, place)));
    let path = entry.required("path", findings).and_then(|place| Some((place.string(findings)?, place)));
    if let Some((path, place)) = &path {
        check_path(path, place, findings);
    }
    let (kind, kind_place) = kind?;
    let (path, path_place) = path?;
    match kind {
        "file" => Some(ArtifactSource::File(path.to_owned())),
        "directory" => Some(ArtifactSource::Directory(path.to_owned())),
        "volume" => mounts::read_mount_point(path, &path_place, findings).map(ArtifactSource::Volume),
        other => {
            kind_place.refuse(
                format!("must be \"file\", \"directory\" or \"volume\", not \"{}\"", excerpt(other)),
                findings,
            );
            None
        }
    }
}

/// A path to read from later: nothing that no file can have.
fn check_path(path: &str, place: &Place<'_>, findings: &mut Findings) {
    if path.is_empty() {
        place.refuse("must not be empty", findings);
    } else if path.contains('\0') {
        place.refuse("must not have NUL characters", findings);
    } else if path.len() > limits::PATH_BYTES {
        place.refuse(format!("must be at most {} bytes long", limits::PATH_BYTES), findings);
    }
}

fn read_expires(
    name: &str,
    place: &Place<'_>,
    context: &TaskContext<'_>,
    findings: &mut Findings,
) -> Option<Timestamp> {
    let expires = place.time(findings)?;
    if expires > context.expires {
        let sentence = format!(
            "Artifact expiration for '{}' must not be greater than task expiration. \
             Artifact expiration is '{expires}' but task expiration is '{}'",
            excerpt(name),
            context.expires,
        );
        place.refuse(sentence, findings);
        return None;
    }
    Some(expires)
}

/// The names that the worker itself publishes for a task, each with what it is.
#[must_use]
pub fn reserved_names<'a>(
    log: &ArtifactName,
    features: &FeatureSwitches,
    (names_superseder, caches): (bool, impl Iterator<Item = &'a CacheName> + Clone),
) -> Vec<(ArtifactName, &'static str)> {
    let reserved = features.on().flat_map(|feature| feature.reserved);
    let lists = superseder::LISTS.iter().filter(|_| names_superseder);
    let lists = lists.map(|&name| Reserved::Always(name, "list of the tasks that it supersedes"));
    let named = reserved.copied().chain(lists).flat_map(|reserved| {
        let names = names_of(reserved, log, caches.clone());
        names.into_iter().map(move |name| (name, reserved.owner()))
    });
    named.collect()
}

/// The names themselves; none where it cannot be one, so that nothing is published under it either.
fn names_of<'a>(
    reserved: Reserved,
    log: &ArtifactName,
    caches: impl Iterator<Item = &'a CacheName>,
) -> Vec<ArtifactName> {
    match reserved {
        Reserved::LiveLog => vec![log.clone()],
        Reserved::BackingLog => log.backing().into_iter().collect(),
        Reserved::Always(name, _) => ArtifactName::new(name).into_iter().collect(),
        Reserved::Caches => {
            caches.filter_map(|cache| ArtifactName::new(&cache_artifact(cache.as_str())).ok()).collect()
        }
    }
}

/// Refuses caches that are to be saved and whose names can be no artifact's.
pub(super) fn refuse_unsaved(
    caches: &BTreeMap<CacheName, MountPoint>,
    features: &FeatureSwitches,
    place: &Place<'_>,
    findings: &mut Findings,
) {
    if !features.is_on(DOCKER_SAVE.name) {
        return;
    }
    for cache in caches.keys() {
        if let Err(error) = ArtifactName::new(&cache_artifact(cache.as_str())) {
            let pointer = crate::document::finding::pointer_to(&place.pointer, cache.as_str());
            let artifact = cache_artifact(&excerpt(cache.as_str()).to_string());
            findings
                .error(pointer, format!("the name of this cache's artifact, \"{artifact}\", must {error}"));
            findings.hint("choose another name, or drop dockerSave");
        }
    }
}

/// Refuses artifacts whose names the worker itself needs.
pub(super) fn refuse_reserved(
    artifacts: &BTreeMap<ArtifactName, ArtifactEntry>,
    reserved: &[(ArtifactName, &'static str)],
    place: &Place<'_>,
    findings: &mut Findings,
) {
    for (name, owner) in reserved {
        if artifacts.contains_key(name) {
            let pointer = crate::document::finding::pointer_to(&place.pointer, name.as_str());
            findings.error(pointer, format!("\"{name}\" is the name of this task's {owner}"));
            findings.hint("choose another name, or name the log otherwise with \"log\"");
        }
    }
}
