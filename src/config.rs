//! The worker's configuration: a YAML file, the command line over it, defaults below it.
//!
//! The keys are those of the original's configuration as far as they do something here; a key that
//! does nothing is refused by name, so that nobody relies on it.

mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use images::limits::Limits;
use images::registry::{Access, Addresses, HostRules, Scheme};
use serde::Deserialize;

use self::values::{absolute_path, at_least_one, known_features, memory_limit, size};
use crate::directories::Directories;
use crate::net::NetworkSettings;
use crate::spec::SocketCall;
use crate::spec::resources::{DEFAULT_PIDS, DEFAULT_SHM_BYTES};
use crate::yaml;

/// Largest configuration file in bytes.
const CONFIG_FILE_BYTES: u64 = 1 << 20;

/// Bytes of one task's output that its log keeps.
pub const DEFAULT_LOG_BYTES: u64 = 4 << 30;

/// Bytes of one artifact.
pub const DEFAULT_ARTIFACT_BYTES: u64 = 5 << 30;

/// Bytes that have to be free on the data directory's file system before `run` starts a task.
pub const DEFAULT_FREE_BYTES: u64 = 1_000_000_000;

/// Endings of file names whose contents do not get smaller by compressing them.
const SKIP_COMPRESSION: &[&str] = &[
    ".7z", ".bz2", ".deb", ".dmg", ".flv", ".gif", ".gz", ".jpeg", ".jpg", ".png", ".swf", ".tbz", ".tgz",
    ".webp", ".whl", ".woff", ".woff2", ".xz", ".zip", ".zst", "lz4",
];

/// The configuration in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where things lie.
    pub directories: Directories,
    /// What the file says, or the defaults.
    pub file: ConfigFile,
}

/// What stands in the file. Every key may be absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ConfigFile {
    /// Who provides the pool: the first half of its name.
    pub provisioner_id: Option<String>,
    /// The second half of the pool's name.
    pub worker_type: Option<String>,
    /// Where this worker is.
    pub worker_group: Option<String>,
    /// Which one it is.
    pub worker_id: Option<String>,
    /// What kind of machine it is; tasks see it as `TASKCLUSTER_INSTANCE_TYPE`.
    pub worker_node_type: Option<String>,
    /// The host's public address.
    pub public_ip: Option<String>,
    /// Where the worker runs, as JSON text; tasks see it as `TASKCLUSTER_WORKER_LOCATION`.
    pub worker_location: Option<String>,
    /// The deployment whose tasks these are; tasks see it as `TASKCLUSTER_ROOT_URL`.
    pub root_url: Option<String>,
    /// Switches by feature; only names of [`known_features`](crate::known_features) are there.
    #[serde(deserialize_with = "known_features")]
    pub features: BTreeMap<String, FeatureSwitch>,
    /// What becomes of artifacts.
    pub artifacts: ArtifactSettings,
    /// Where caches lie.
    pub cache: CacheSettings,
    /// What one task may use.
    pub limits: LimitSettings,
    /// What tasks' network is like.
    pub network: NetworkSettings,
    /// When the disk is too full to start.
    pub capacity_management: CapacityManagement,
    /// What containers are like.
    pub docker_config: DockerConfig,
    /// What images may be like.
    pub images: ImageSettings,
    /// Registries that are spoken to in another way than usual, by `HOST` or `HOST:PORT`.
    pub registries: BTreeMap<String, RegistrySettings>,
}

/// Whether tasks may use a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureSwitch {
    /// They may.
    pub enabled: bool,
}

/// The `artifacts` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ArtifactSettings {
    /// Endings of file names that are stored as they are.
    pub skip_compression_extensions: Option<Vec<String>>,
    /// Bytes of one artifact.
    #[serde(deserialize_with = "values::size")]
    pub max_bytes: Option<u64>,
}

/// The `cache` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct CacheSettings {
    /// Where caches lie, in a directory `docker-worker-caches`, instead of `<data>/caches`.
    #[serde(deserialize_with = "absolute_path")]
    pub volume_cache_path: Option<PathBuf>,
}

/// The `limits` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct LimitSettings {
    /// Bytes of output that a task's log keeps.
    #[serde(deserialize_with = "size")]
    pub log: Option<u64>,
    /// Memory of one task in bytes.
    #[serde(deserialize_with = "memory_limit")]
    pub memory: Option<u64>,
    /// Processes and threads of one task.
    #[serde(deserialize_with = "at_least_one")]
    pub pids: Option<u32>,
}

/// The `dockerConfig` section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct DockerConfig {
    /// 32-bit programs may make sockets, of every family.
    pub allow_socketcall: bool,
}

/// The `images` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ImageSettings {
    /// Bounds of one image.
    pub limits: ImageLimits,
}

/// Bounds of one image instead of [`images::limits::Limits::default`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ImageLimits {
    /// Layers.
    pub layers: Option<usize>,
    /// Bytes of one layer as it is fetched.
    pub layer_bytes: Option<u64>,
    /// Names in all layers.
    pub entries: Option<u64>,
    /// Bytes of memory for its index while it is made.
    pub index_bytes: Option<u64>,
    /// Bytes of a decompressor's window.
    pub window_bytes: Option<u64>,
}

/// How one registry is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct RegistrySettings {
    /// In the clear, without TLS; then also on this machine and in private networks.
    pub plain_http: bool,
    /// Whether tasks that are claimed may be sent to it at a private address.
    pub private_addresses: bool,
}

/// The `capacityManagement` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct CapacityManagement {
    /// Bytes that have to be free before a task starts.
    #[serde(deserialize_with = "size")]
    pub diskspace_threshold: Option<u64>,
}

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("read the configuration {}: check the path given with --config", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// It has more than [`CONFIG_FILE_BYTES`].
    #[error("use the configuration {}: it has more than {CONFIG_FILE_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is not YAML, or has a key that does nothing, or a value that cannot be.
    #[error("use the configuration {}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and on which line.
        problem: yaml::Problem,
    },
}

impl ConfigFile {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with the line and the key that is wrong.
    pub fn read(path: &Path) -> Result<ConfigFile, ConfigError> {
        use std::io::Read;
        let failed = |source| ConfigError::Read { path: path.to_owned(), source };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(failed)?;
        // One byte more than is allowed, so that the limit is noticed.
        file.take(CONFIG_FILE_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > CONFIG_FILE_BYTES {
            return Err(ConfigError::TooLarge { path: path.to_owned() });
        }
        ConfigFile::parse(&text).map_err(|problem| ConfigError::Content { path: path.to_owned(), problem })
    }

    fn parse(text: &str) -> Result<ConfigFile, yaml::Problem> {
        if text.trim().is_empty() {
            return Ok(ConfigFile::default());
        }
        yaml::read(text)
    }

    /// Whether the operator has switched a feature off. `run` leaves all on that are not named: the
    /// operator who could switch them on is the one who runs.
    pub fn is_disabled(&self, feature: &str) -> bool {
        self.features.get(feature).is_some_and(|switch| !switch.enabled)
    }

    /// The features that the operator has switched off.
    pub fn disabled_features(&self) -> Vec<&str> {
        self.features.keys().map(String::as_str).filter(|name| self.is_disabled(name)).collect()
    }

    /// Where this worker is.
    pub fn worker_group(&self) -> &str {
        self.worker_group.as_deref().unwrap_or("local")
    }

    /// What kind of machine it is.
    pub fn worker_node_type(&self) -> &str {
        self.worker_node_type.as_deref().unwrap_or("standalone")
    }

    /// `provisionerId/workerType`, the pool's name.
    pub fn worker_pool(&self) -> String {
        format!("{}/{}", self.provisioner_id(), self.worker_type())
    }

    /// The first half of the pool's name.
    pub fn provisioner_id(&self) -> &str {
        self.provisioner_id.as_deref().unwrap_or("local")
    }

    /// The second half of the pool's name.
    pub fn worker_type(&self) -> &str {
        self.worker_type.as_deref().unwrap_or("docker-worker")
    }

    /// Bytes of output that a task's log keeps.
    pub fn log_bytes(&self) -> u64 {
        self.limits.log.unwrap_or(DEFAULT_LOG_BYTES)
    }

    /// Bytes that have to be free before a task starts.
    pub fn free_bytes(&self) -> u64 {
        self.capacity_management.diskspace_threshold.unwrap_or(DEFAULT_FREE_BYTES)
    }

    /// Bytes that one artifact of a task may have; the log is bounded by itself.
    pub fn artifact_bytes(&self) -> u64 {
        self.artifacts.max_bytes.unwrap_or(DEFAULT_ARTIFACT_BYTES)
    }

    /// Which registries the operator's commands may speak to, and how.
    pub fn registry_access(&self) -> Access {
        let mut access = Access::operator();
        for (host, settings) in &self.registries {
            let scheme = if settings.plain_http { Scheme::Http } else { Scheme::Https };
            let private = settings.private_addresses;
            let addresses = if private { Addresses::Private } else { Addresses::Ordinary };
            access.set(host, HostRules { scheme, addresses, ..HostRules::default() });
        }
        access.excluded.push(self.network.addresses().block());
        access
    }

    /// What an image may be like, and what stays free on the disk beside it.
    pub fn image_limits(&self) -> Limits {
        let (set, default) = (&self.images.limits, Limits::default());
        Limits {
            layers: set.layers.unwrap_or(default.layers),
            layer_compressed_bytes: set.layer_bytes.unwrap_or(default.layer_compressed_bytes),
            entries: set.entries.unwrap_or(default.entries),
            index_bytes: set.index_bytes.unwrap_or(default.index_bytes),
            window_bytes: set.window_bytes.unwrap_or(default.window_bytes),
            // What the operator wants to have free is kept free by a pull as well, and no more.
            free_disk_bytes: self.free_bytes(),
            free_disk_percent: 0,
            ..default
        }
    }

    /// What one container may use.
    pub fn container_limits(&self) -> crate::spec::Limits {
        crate::spec::Limits {
            pids: Some(self.limits.pids.map_or(DEFAULT_PIDS, i64::from)),
            memory_bytes: self.limits.memory.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
            shm_bytes: DEFAULT_SHM_BYTES,
        }
    }

    /// Whether 32-bit programs may make sockets.
    pub fn socketcall(&self) -> SocketCall {
        if self.docker_config.allow_socketcall { SocketCall::Allowed } else { SocketCall::Absent }
    }

    /// Whether a file of this name is stored as it is, because compressing would not help.
    pub fn skips_compression(&self, file_name: &str) -> bool {
        match &self.artifacts.skip_compression_extensions {
            Some(endings) => endings.iter().any(|ending| file_name.ends_with(ending)),
            None => SKIP_COMPRESSION.iter().any(|ending| file_name.ends_with(ending)),
        }
    }
}

#[cfg(test)]
mod tests;
