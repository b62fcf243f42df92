//! Loads `config.json` and refuses, by name, what this runtime cannot honour.
//!
//! `oci-spec` forgets fields that it does not know, and a field that is forgotten may be the one that was
//! to isolate. So the raw JSON is walked against the table in [`schema`] first. An unknown property at the
//! top is a warning, because the OCI runtime specification (config.md, "Extensibility") forbids an error;
//! inside `process`, `linux`, `mounts`, `root` and `hooks` it is an error, because there it changes what
//! the container may do. All findings come at once.

mod schema;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde::Deserialize;
use serde_json::Value;

use crate::capabilities;
use crate::limits::CONFIG_BYTES;

/// One thing wrong with a Spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// JSON pointer of the field, `/linux/seccomp/flags/0`.
    pub pointer: String,
    /// What is wrong with it, and what to do.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.pointer, self.message)
    }
}

/// Prints findings on one line.
pub(crate) fn join(findings: &[Finding]) -> String {
    findings.iter().map(Finding::to_string).collect::<Vec<_>>().join("; ")
}

/// A Spec, with what was left out of account.
#[derive(Debug)]
pub struct Loaded {
    /// The Spec.
    pub spec: Spec,
    /// Unknown top-level properties and unknown capabilities: ignored, as the specification wants.
    pub warnings: Vec<Finding>,
}

/// Why a bundle has no usable Spec.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no readable `config.json`.
    #[error("read {}: is this the bundle's directory?", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// More than [`CONFIG_BYTES`].
    #[error("read {}: it is larger than {CONFIG_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Not JSON.
    #[error("parse {}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where, by line and column.
        source: serde_json::Error,
    },
    /// JSON, but not a Spec that this runtime can honour.
    #[error("accept {}: {}", path.display(), join(findings))]
    Refused {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it.
        findings: Vec<Finding>,
    },
}

/// Loads `config.json` of the bundle at `bundle`.
///
/// # Errors
///
/// The file cannot be read, is too large, is not JSON, or asks for what is not there.
pub fn load(bundle: &Path) -> Result<Loaded, LoadError> {
    let path = bundle.join("config.json");
    let read = |source| LoadError::Read { path: path.clone(), source };
    let mut text = Vec::with_capacity(64 << 10);
    let file = File::open(&path).map_err(read)?;
    file.take(CONFIG_BYTES + 1).read_to_end(&mut text).map_err(read)?;
    if text.len() as u64 > CONFIG_BYTES {
        return Err(LoadError::TooLarge { path });
    }
    let value: Value =
        serde_json::from_slice(&text).map_err(|source| LoadError::Json { path: path.clone(), source })?;
    parse(value).map_err(|findings| LoadError::Refused { path, findings })
}

/// Reads a Spec from JSON.
///
/// # Errors
///
/// Every unknown or unsupported field, and the first value of a wrong type.
pub fn parse(mut value: Value) -> Result<Loaded, Vec<Finding>> {
    let mut walk = schema::walk(&value);
    if let Some(sets) = value.pointer_mut("/process/capabilities") {
        for name in capabilities::take_unknown_names(sets) {
            let message = format!("{name} is unknown here and not granted");
            walk.warnings.push(Finding { pointer: "/process/capabilities".into(), message });
        }
        let taken = capabilities::take_ambient_without_ground(sets).join(", ");
        if !taken.is_empty() {
            let message = format!("{taken}: not granted, as what is not permitted and inheritable cannot be");
            walk.warnings.push(Finding { pointer: "/process/capabilities/ambient".into(), message });
        }
    }
    if let Ok(spec) = Spec::deserialize(&value) {
        return if walk.errors.is_empty() {
            Ok(Loaded { spec, warnings: walk.warnings })
        } else {
            Err(walk.errors)
        };
    }
    // Once more, and slower, to say where the mistake is.
    match serde_path_to_error::deserialize::<_, Spec>(value) {
        Ok(_) => Err(walk.errors),
        Err(error) => {
            let pointer = pointer_of(error.path());
            walk.errors.push(Finding { pointer, message: error.into_inner().to_string() });
            Err(walk.errors)
        }
    }
}

fn pointer_of(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => pointer.push_str(&format!("/{key}")),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn minimal(extra: Value) -> Value {
        let mut spec = json!({
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs"},
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/"},
            "linux": {},
        });
        for (key, value) in extra.as_object().unwrap() {
            merge(&mut spec[key], value);
        }
        spec
    }

    fn merge(into: &mut Value, from: &Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                for (key, value) in from {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
            (into, from) => *into = from.clone(),
        }
    }

    fn check(extra: Value, pointers: &[&str]) {
        let found = parse(minimal(extra.clone())).err().unwrap_or_default();
        let found: Vec<&str> = found.iter().map(|finding| finding.pointer.as_str()).collect();
        assert_eq!(found, pointers, "{extra}");
    }

    #[test]
    fn a_field_that_could_isolate_and_is_not_known_is_refused_by_name() {
        check(json!({}), &[]);
        check(json!({"linux": {"readonlyPath": ["/proc/sys"]}}), &["/linux/readonlyPath"]);
        check(json!({"process": {"noNewPrivilege": true}}), &["/process/noNewPrivilege"]);
        check(json!({"mounts": [{"destination": "/x", "optoins": ["ro"]}]}), &["/mounts/0/optoins"]);
        check(
            json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "x": 1}}}),
            &["/linux/seccomp/x"],
        );
        check(json!({"root": {"path": "r", "readOnly": true}}), &["/root/readOnly"]);
    }

    #[test]
    fn a_list_does_not_pass_for_an_object() {
        check(json!({"linux": []}), &["/linux"]);
        check(json!({"root": ["/", false]}), &["/root"]);
        check(json!({"mounts": [["/x"]]}), &["/mounts/0"]);
        assert!(parse(json!([])).is_err());
    }

    #[test]
    fn all_findings_come_at_once() {
        let spec = json!({"linux": {"a": 1, "intelRdt": {"closID": "x"}}, "process": {"b": 1, "cwd": 5}});
        check(spec, &["/process/b", "/linux/a", "/linux/intelRdt", "/process/cwd"]);
    }

    #[test]
    fn a_known_field_that_is_not_there_yet_is_refused_unless_it_is_empty() {
        check(json!({"process": {"selinuxLabel": "system_u:x"}}), &["/process/selinuxLabel"]);
        check(json!({"process": {"selinuxLabel": ""}, "linux": {"intelRdt": null, "netDevices": {}}}), &[]);
    }

    #[test]
    fn an_unknown_property_at_the_top_and_an_unknown_capability_are_warnings() {
        let mut spec = minimal(json!({"process": {"capabilities": {"bounding": ["CAP_KILL", "CAP_FLY"]}}}));
        spec["unknown"] = json!("property");
        let loaded = parse(spec).unwrap();
        let pointers: Vec<_> = loaded.warnings.iter().map(|warning| warning.pointer.as_str()).collect();
        assert_eq!(pointers, ["/unknown", "/process/capabilities"]);
    }
}
