//! The worker's configuration: a YAML file, the command line over it, defaults below it.
//!
//! The keys are those of the original's configuration, and ours beside them. What the original knew and this version
//! does not use is accepted, and named in one warning; what neither knows is refused, with its line.

mod defaults;
mod image_name;
mod registries;
mod secret;
mod sections;
mod time_span;
mod unused;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use images::limits::Limits;
use images::registry::Access;
use serde::{Deserialize, Serialize};

pub use self::image_name::ImageName;
pub use self::registries::RegistrySettings;
use self::registries::registries;
pub use self::secret::Secret;
pub use self::sections::{
    ArtifactSettings, ArtifactStorage, CacheSettings, CapacityManagement, CredentialSettings, DockerConfig,
    FeatureSwitch, GarbageCollection, ImageLimits, ImageSettings, LimitSettings, Logging, MetricsCollection,
    Profile, ProxySettings, RegistryProxies, SaveSettings, Shutdown, Ssl, StatelessHostname,
    SupersedingSettings, TaskQueueSettings, TaskSettings, TestdroidSettings, WorkerSettings,
};
pub use self::time_span::TimeSpan;
use self::unused::Unused;
use self::values::{absolute_path, at_least_one, host_name, known_features};
use crate::directories::Directories;
use crate::net::NetworkSettings;
use crate::spec::SocketCall;
use crate::spec::resources::{DEFAULT_PIDS, DEFAULT_SHM_BYTES};
use crate::yaml;

/// Largest configuration file in bytes.
const CONFIG_FILE_BYTES: u64 = 1 << 20;

/// The configuration in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where things lie.
    pub directories: Directories,
    /// What the file says, or the defaults.
    pub file: ConfigFile,
}

/// What stands in the file. Every key may be absent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
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
    /// The kind of machine in its cloud's words, for the worker's own log.
    pub instance_type: Option<String>,
    /// The machine's name in its cloud, for the worker's own log.
    pub instance_id: Option<String>,
    /// Where the machine is, for the worker's own log.
    pub region: Option<String>,
    /// The host's public address.
    pub public_ip: Option<String>,
    /// The host's address in its own network, for what the worker certifies.
    pub private_ip: Option<String>,
    /// The host's public name, for live logs.
    #[serde(deserialize_with = "host_name")]
    pub host: Option<String>,
    /// Where the worker runs, as JSON text; tasks see it as `TASKCLUSTER_WORKER_LOCATION`.
    pub worker_location: Option<String>,
    /// The deployment whose tasks these are; tasks see it as `TASKCLUSTER_ROOT_URL`.
    pub root_url: Option<String>,
    /// What the worker claims with.
    pub taskcluster: CredentialSettings,
    /// Tasks at once.
    #[serde(deserialize_with = "at_least_one")]
    pub capacity: Option<u32>,
    /// When the disk is too full to start.
    pub capacity_management: CapacityManagement,
    /// When an idle worker ends.
    pub shutdown: Shutdown,
    /// How claims are kept.
    pub task: TaskSettings,
    /// How tasks are asked for.
    pub task_queue: TaskQueueSettings,
    /// How tasks are carried out in place of others.
    pub superseding: SupersedingSettings,
    /// Seconds between two looks at a running task's status, so that a cancellation is noticed; 0: only when it is
    /// reclaimed.
    pub task_status_poll_seconds: Option<u64>,
    /// Milliseconds between two signs of life in the worker's own log; 0: none.
    pub aliveness_check_interval: Option<u64>,
    /// What is measured of the worker and its machine.
    pub metrics_collection: MetricsCollection,
    /// The longest `maxRunTime` that a payload may have, in seconds.
    #[serde(deserialize_with = "at_least_one")]
    pub max_task_run_time: Option<u32>,
    /// What the worker itself may use of the machine.
    pub worker: WorkerSettings,
    /// Each task has one processor, and there are as many tasks at once.
    #[serde(rename = "restrictCPU", alias = "isolatedContainers")]
    pub restrict_cpu: bool,
    /// Where live logs are served.
    pub logging: Logging,
    /// The certificate of live logs and interactive sessions.
    pub ssl: Ssl,
    /// Names for hosts that have none.
    pub stateless_hostname: StatelessHostname,
    /// What goes when it was not used for long.
    pub garbage_collection: GarbageCollection,
    /// A directory on one more disk that is measured, beside the data directory's.
    #[serde(deserialize_with = "absolute_path")]
    pub docker_volume: Option<PathBuf>,
    /// The file with the key that certifies what tasks do.
    #[serde(rename = "ed25519SigningKeyLocation", deserialize_with = "absolute_path")]
    pub ed25519_signing_key_location: Option<PathBuf>,
    /// Switches by feature; only names of [`known_features`](crate::known_features) are there.
    #[serde(deserialize_with = "known_features")]
    pub features: BTreeMap<String, FeatureSwitch>,
    /// What becomes of artifacts.
    pub artifacts: ArtifactSettings,
    /// How long saved containers are kept.
    pub docker_save: SaveSettings,
    /// Where caches lie.
    pub cache: CacheSettings,
    /// What one task may use.
    pub limits: LimitSettings,
    /// What tasks' network is like.
    pub network: NetworkSettings,
    /// What containers are like.
    pub docker_config: DockerConfig,
    /// Tasks do not run without an AppArmor profile.
    pub require_app_armor: bool,
    /// What images may be like.
    pub images: ImageSettings,
    /// Registries that are spoken to in another way than usual, by `HOST` or `HOST:PORT`, and who the worker is to them or,
    /// with a prefix of names, to parts of them.
    #[serde(deserialize_with = "registries")]
    pub registries: BTreeMap<String, RegistrySettings>,
    /// By way of whom registries are reached.
    pub proxies: RegistryProxies,
    /// The image of both of Balrog's proxies, which is trusted with the host's network.
    #[serde(rename = "balrogVPNProxyImage")]
    pub balrog_vpn_proxy_image: Option<ImageName>,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub create_queue: Unused,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub device_management: Unused,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub dind_image: Unused,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub docker_worker_private_key: Unused,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub influx: Unused,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub interactive: Unused,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub metrics: Unused,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub monitor_project: Unused,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub phone: Unused,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub pulse: Unused,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub schema: Unused,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub signing_key_location: Unused,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub taskcluster_log_image: Unused,
    /// The process that calls Taskcluster for tasks.
    pub taskcluster_proxy: ProxySettings,
    /// The original's name for the image of [`ProxySettings`].
    pub taskcluster_proxy_image: Option<ImageName>,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub test_mode: Unused,
    /// Who lends phones, and whom to.
    pub testdroid: TestdroidSettings,
    /// The image that borrows them.
    pub testdroid_proxy_image: Option<ImageName>,
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

    /// Which registries may be spoken to, how, and as whom: `access`, with what the file says of single ones.
    pub fn registry_access(&self, mut access: Access) -> Access {
        for (name, settings) in &self.registries {
            settings.add_to(&mut access, name);
        }
        // They have been looked at when they were read.
        if let Ok(proxies) = self.proxies.read() {
            access.proxies = proxies;
        }
        access.excluded.push(self.network.addresses().block());
        access
    }

    /// What an image may be like, how often it is tried to have it, and what stays free on the disk beside it.
    pub fn image_limits(&self) -> Limits {
        let (set, tries, default) = (&self.images.limits, &self.docker_config, Limits::default());
        // The longest pause is the whole pull's time.
        let backoff = tries.delay_factor.map(|millis| (Duration::from_millis(millis), default.pull));
        Limits {
            attempts: tries.max_attempts.unwrap_or(default.attempts),
            backoff: backoff.unwrap_or(default.backoff),
            backoff_spread_percent: tries
                .randomization_factor
                .map_or(default.backoff_spread_percent, percent),
            layers: set.layers.unwrap_or(default.layers),
            layer_compressed_bytes: set.layer_bytes.unwrap_or(default.layer_compressed_bytes),
            entries: set.entries.unwrap_or(default.entries),
            index_bytes: set.index_bytes.unwrap_or(default.index_bytes),
            window_bytes: set.window_bytes.unwrap_or(default.window_bytes),
            free_disk_bytes: self.reserve_bytes(),
            free_disk_percent: 0,
            ..default
        }
    }

    /// What one container may use.
    pub fn container_limits(&self) -> crate::spec::Limits {
        crate::spec::Limits {
            pids: Some(self.limits.pids.map_or(DEFAULT_PIDS, i64::from)),
            memory_bytes: self.limits.memory.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
            processor: None,
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
            None => defaults::SKIP_COMPRESSION.iter().any(|ending| file_name.ends_with(ending)),
        }
    }
}

/// Of a part of a whole.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is 0 to 100")]
fn percent(part: f64) -> u32 {
    (part.clamp(0.0, 1.0) * 100.0).round() as u32
}

#[cfg(test)]
mod tests;
