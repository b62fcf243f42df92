//! An image of the store, and what its configuration says about the command to run.
//!
//! All of it is data from outside: user names, directories and variables are interpreted by who
//! builds the container, under its own rules.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::Digest;
use crate::json::{JsonProblem, parse_json};
use crate::limits::Limits;

/// An image in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its name: the canonical reference, or the transport it came by where it has none.
    pub name: String,
    /// The digest of its configuration, which Docker calls the image id.
    pub id: Digest,
    /// The digest of its manifest; what is logged and attested.
    pub digest: Digest,
    /// What its name led to: the manifest, the index that it was chosen from, or the archive that came as a stream.
    pub resolved: Digest,
    /// What the configuration says.
    pub config: ImageConfig,
    /// The diff ids (digests of the uncompressed tar streams) of its layers, lowest first.
    pub layers: Vec<Digest>,
    /// The bytes of file contents in its layers.
    pub size_bytes: u64,
}

/// The part of an image's configuration that concerns its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// Operating system; only `linux` is admitted.
    pub os: String,
    /// Architecture, as Go names it (`amd64`).
    pub architecture: String,
    /// `NAME=VALUE` each.
    pub env: Vec<String>,
    /// Words in front of the command.
    pub entrypoint: Vec<String>,
    /// The command if the task gives none.
    pub cmd: Vec<String>,
    /// `USER[:GROUP]`, names or numbers; empty is root.
    pub user: String,
    /// Where the command starts; empty is `/`.
    pub working_dir: String,
    /// Directories that shall exist and be empty.
    pub volumes: Vec<String>,
    /// Name or number of the signal that asks the command to stop; empty is SIGTERM.
    pub stop_signal: String,
    /// Words in front of a command given as a string; empty is `/bin/sh -c`.
    pub shell: Vec<String>,
    /// Free annotations.
    pub labels: BTreeMap<String, String>,
}

/// An image's configuration as parsed: the container's part and its layers' diff ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Configuration {
    pub config: ImageConfig,
    pub diff_ids: Vec<Digest>,
}

/// Why a configuration is refused. Nothing of its text is repeated beyond a serde message.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON, or other types than the image specification has.
    #[error("read the image configuration {digest} {problem}; rebuild the image")]
    Parse {
        /// The configuration's digest.
        digest: Digest,
        /// What is wrong with it, and where.
        problem: JsonProblem,
    },
    /// More nesting than any configuration needs.
    #[error("read the image configuration {digest}: it nests deeper than {limit} levels")]
    TooDeep {
        /// The configuration's digest.
        digest: Digest,
        /// The limit.
        limit: u32,
    },
    /// Not for this kind of host.
    #[error("use the image with configuration {digest}: it is for {os:?}, and only linux images run here")]
    OperatingSystem {
        /// The configuration's digest.
        digest: Digest,
        /// What it is for.
        os: String,
    },
    /// The layers of the manifest and the configuration's list differ in number.
    #[error(
        "use the image with configuration {digest}: it lists {diff_ids} layers and the manifest {layers}; \
         rebuild the image"
    )]
    LayerCount {
        /// The configuration's digest.
        digest: Digest,
        /// Layers by the configuration.
        diff_ids: usize,
        /// Layers by the manifest.
        layers: usize,
    },
}

/// Parses a configuration whose digest has been verified, for a manifest with `layers` layers.
///
/// Lenient where Docker is: `null` for absent, a string for a list of one, unknown fields.
///
/// # Errors
///
/// [`ConfigError`]: not JSON of this shape, too deep, not linux, or another number of layers.
pub(crate) fn parse_configuration(
    digest: &Digest,
    json: &[u8],
    layers: usize,
    limits: &Limits,
) -> Result<Configuration, ConfigError> {
    if json_depth(json) > limits.json_depth {
        return Err(ConfigError::TooDeep { digest: digest.clone(), limit: limits.json_depth });
    }
    let document: Document =
        parse_json(json).map_err(|problem| ConfigError::Parse { digest: digest.clone(), problem })?;
    let config = document.config.unwrap_or_default().into_config(document.os, document.architecture);
    if !config.os.is_empty() && config.os != "linux" {
        let os = config.os.chars().take(40).collect();
        return Err(ConfigError::OperatingSystem { digest: digest.clone(), os });
    }
    let diff_ids = document.rootfs.diff_ids;
    if diff_ids.len() != layers {
        let diff_ids = diff_ids.len();
        return Err(ConfigError::LayerCount { digest: digest.clone(), diff_ids, layers });
    }
    Ok(Configuration { config, diff_ids })
}

/// The deepest nesting of brackets outside strings. Of malformed JSON it may be anything, but it
/// bounds what the parser would recurse into.
fn json_depth(json: &[u8]) -> u32 {
    let (mut depth, mut deepest) = (0_u32, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    os: Option<String>,
    #[serde(default)]
    architecture: Option<String>,
    #[serde(default)]
    config: Option<ContainerPart>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ContainerPart {
    #[serde(deserialize_with = "list")]
    env: Vec<String>,
    #[serde(deserialize_with = "list")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "list")]
    cmd: Vec<String>,
    user: Option<String>,
    working_dir: Option<String>,
    volumes: Option<BTreeMap<String, serde_json::Value>>,
    stop_signal: Option<String>,
    #[serde(deserialize_with = "list")]
    shell: Vec<String>,
    labels: Option<BTreeMap<String, String>>,
}

impl ContainerPart {
    fn into_config(self, os: Option<String>, architecture: Option<String>) -> ImageConfig {
        ImageConfig {
            os: os.unwrap_or_default(),
            architecture: architecture.unwrap_or_default(),
            env: self.env,
            entrypoint: self.entrypoint,
            cmd: self.cmd,
            user: self.user.unwrap_or_default(),
            working_dir: self.working_dir.unwrap_or_default(),
            volumes: self.volumes.unwrap_or_default().into_keys().collect(),
            stop_signal: self.stop_signal.unwrap_or_default(),
            shell: self.shell,
            labels: self.labels.unwrap_or_default(),
        }
    }
}

/// `null`, one string, or a list of strings: images of Docker 1.x have all three.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Option::<OneOrMany>::deserialize(deserializer)? {
        None => Vec::new(),
        Some(OneOrMany::One(word)) => vec![word],
        Some(OneOrMany::Many(words)) => words,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str, layers: usize) -> Result<Configuration, ConfigError> {
        parse_configuration(&Digest::of(json.as_bytes()), json.as_bytes(), layers, &Limits::default())
    }

    #[test]
    fn absent_null_string_and_list_are_all_understood() {
        let none = parse(r#"{"rootfs":{"type":"layers","diff_ids":[]}}"#, 0).unwrap();
        assert_eq!(none.config, ImageConfig::default());
        let nulls = r#"{"os":"linux","config":{"Env":null,"Cmd":null,"User":null,"Volumes":null,"Labels":null},
            "rootfs":{"diff_ids":[]},"history":null}"#;
        assert_eq!(parse(nulls, 0).unwrap().config.os, "linux");
        let full = r#"{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":[]},"config":{
            "Env":["A=1"],"Entrypoint":"/e","Cmd":["a","b"],"User":"u:g","WorkingDir":"/w",
            "Volumes":{"/v":{}},"StopSignal":"9","Labels":{"k":"v"},"Healthcheck":{"Test":["NONE"]}}}"#;
        let config = parse(full, 0).unwrap().config;
        assert_eq!(
            (config.entrypoint, config.cmd),
            (vec!["/e".to_owned()], vec!["a".to_owned(), "b".to_owned()])
        );
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("u:g", "/w"));
        assert_eq!((config.volumes, config.stop_signal.as_str()), (vec!["/v".to_owned()], "9"));
    }

    #[test]
    fn s15_one_diff_id_too_few_is_refused() {
        assert!(matches!(parse(r#"{"rootfs":{"diff_ids":[]}}"#, 1), Err(ConfigError::LayerCount { .. })));
    }

    #[test]
    fn hostile_documents_are_refused_and_point_at_the_place() {
        let windows = r#"{"os":"windows","rootfs":{"diff_ids":[]}}"#;
        assert!(matches!(parse(windows, 0), Err(ConfigError::OperatingSystem { .. })));
        let deep = format!("{{\"x\":{}{}}}", "[".repeat(64), "]".repeat(64));
        assert!(matches!(parse(&deep, 0), Err(ConfigError::TooDeep { .. })));
        let bracket_in_string = format!(r#"{{"x":"\"{}","rootfs":{{"diff_ids":[]}}}}"#, "[".repeat(99));
        assert!(parse(&bracket_in_string, 0).is_ok());
        let wrong = r#"{"rootfs":{"diff_ids":["sha256:../../x"]}}"#;
        match parse(wrong, 1) {
            Err(ConfigError::Parse { problem, .. }) => assert_eq!(problem.place, "rootfs.diff_ids[0]"),
            other => panic!("{other:?}"),
        }
        for text in ["", "null", "[]", "<html>", r#"{"rootfs":{"diff_ids":[]}} x"#] {
            assert!(matches!(parse(text, 0), Err(ConfigError::Parse { .. })), "{text}");
        }
    }
}
