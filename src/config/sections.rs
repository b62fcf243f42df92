//! The sections of the configuration file.

use std::net::IpAddr;
use std::path::PathBuf;

use images::registry::{Proxies, ProxyError};
use runtime::scheduling::ProcessorSet;
use serde::{Deserialize, Serialize};

use super::image_name::ImageName;
use super::secret::{Secret, json_text};
use super::time_span::TimeSpan;
use super::unused::Unused;
use super::values::{
    absolute_path, at_least_one, divisor, memory_limit, niceness, part, processors, proxy, size, user,
};

/// Whether tasks may use a feature.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct FeatureSwitch {
    /// They may. Before features could be switched off, a section without this key said of what a feature is made.
    pub enabled: bool,
    /// The image of `relengAPIProxy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageName>,
    /// Its token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
}

impl Default for FeatureSwitch {
    fn default() -> FeatureSwitch {
        FeatureSwitch { enabled: true, image: None, token: None }
    }
}

/// The `artifacts` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ArtifactSettings {
    /// Endings of file names that are stored as they are.
    pub skip_compression_extensions: Option<Vec<String>>,
    /// Bytes of one artifact.
    #[serde(deserialize_with = "size")]
    pub max_bytes: Option<u64>,
    /// Where a deployment's queue keeps their bytes.
    pub storage: ArtifactStorage,
}

/// Where a deployment's queue keeps the bytes of artifacts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ArtifactStorage {
    /// In a bucket of its own.
    #[default]
    S3,
    /// In the object service.
    Object,
}

/// The `dockerSave` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct SaveSettings {
    /// How long what it saves is kept, if the task is kept so long.
    pub expiration: Option<TimeSpan>,
}

/// The `taskclusterProxy` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ProxySettings {
    /// Takes the place of the built-in proxy.
    pub image: Option<ImageName>,
    /// The number of the user that the built-in proxy is.
    #[serde(deserialize_with = "user")]
    pub user: Option<u32>,
}

/// The `testdroid` section: who lends phones, and who the worker is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct TestdroidSettings {
    /// Where that is.
    pub url: Option<String>,
    /// Who the worker is.
    pub username: Option<String>,
    /// What proves it.
    pub password: Option<Secret>,
}

/// The `cache` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct CacheSettings {
    /// Where caches lie, in a directory `docker-worker-caches`, instead of `<data>/caches`.
    #[serde(deserialize_with = "absolute_path")]
    pub volume_cache_path: Option<PathBuf>,
}

/// The `limits` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct DockerConfig {
    /// 32-bit programs may make sockets, of every family.
    pub allow_socketcall: bool,
    /// Attempts to have something of a registry that is at fault or cannot be reached.
    #[serde(deserialize_with = "at_least_one")]
    pub max_attempts: Option<u32>,
    /// Milliseconds between the first two of them; twice as many before each further one.
    pub delay_factor: Option<u64>,
    /// The part of that time by which it is longer or shorter at random.
    #[serde(deserialize_with = "part")]
    pub randomization_factor: Option<f64>,
    /// Docker's `config.json`, or what has its form: the worker's credentials beside those of `registries`.
    #[serde(deserialize_with = "absolute_path")]
    pub credentials_file: Option<PathBuf>,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub allow_disable_seccomp: Unused,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub allow_privileged: Unused,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub default_registry: Unused,
}

/// The `proxies` section: by way of whom registries are reached. Empty is nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct RegistryProxies {
    /// For those with TLS. It may hold a password.
    #[serde(deserialize_with = "proxy")]
    pub https_proxy: Option<Secret>,
    /// For those without.
    #[serde(deserialize_with = "proxy")]
    pub http_proxy: Option<Secret>,
    /// Who is reached without.
    pub no_proxy: Option<String>,
}

impl RegistryProxies {
    /// What they mean to pulls.
    ///
    /// # Errors
    ///
    /// One of the two is no proxy.
    pub fn read(&self) -> Result<Proxies, ProxyError> {
        let url =
            |proxy: &Option<Secret>| proxy.as_ref().map_or(String::new(), |url| url.reveal().to_owned());
        let exceptions = self.no_proxy.as_deref().unwrap_or_default();
        Proxies::new(&url(&self.https_proxy), &url(&self.http_proxy), exceptions)
    }
}

/// The `images` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ImageSettings {
    /// Bounds of one image.
    pub limits: ImageLimits,
}

/// Bounds of one image instead of [`images::limits::Limits::default`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ImageLimits {
    /// Layers.
    pub layers: Option<usize>,
    /// Bytes of one layer as it is fetched.
    #[serde(deserialize_with = "size")]
    pub layer_bytes: Option<u64>,
    /// Names in all layers.
    pub entries: Option<u64>,
    /// Bytes of memory for its index while it is made.
    #[serde(deserialize_with = "size")]
    pub index_bytes: Option<u64>,
    /// Bytes of a decompressor's window.
    #[serde(deserialize_with = "size")]
    pub window_bytes: Option<u64>,
}

/// The `capacityManagement` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct CapacityManagement {
    /// Bytes that have to be free before a task starts.
    #[serde(deserialize_with = "size")]
    pub diskspace_threshold: Option<u64>,
}

/// The `taskcluster` section: credentials of the worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct CredentialSettings {
    /// Who the worker is.
    pub client_id: Option<String>,
    /// What proves it.
    pub access_token: Option<Secret>,
    /// The certificate of temporary credentials: JSON, as text or spelt out.
    #[serde(deserialize_with = "json_text")]
    pub certificate: Option<Secret>,
}

/// The `shutdown` section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Shutdown {
    /// An idle worker ends.
    pub enabled: Option<bool>,
    /// After so many seconds without a task; 0: never.
    pub after_idle_seconds: Option<u64>,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub minimum_cycle_seconds: Unused,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub node_termination_poll: Unused,
}

/// The `task` section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct TaskSettings {
    /// A claim is prolonged when this part of its time is over: 2 for half of it. More than 1.
    #[serde(deserialize_with = "divisor")]
    pub reclaim_divisor: Option<f64>,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub dequeue_count: Unused,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub slowdown_divisor: Unused,
}

/// The `taskQueue` section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct TaskQueueSettings {
    /// Milliseconds without a request for tasks after one that failed, or that was answered early without any.
    pub poll_interval: Option<u64>,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub expiration: Unused,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub max_retries: Unused,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub poll_interval_multiplier: Unused,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub request_retry_interval: Unused,
}

/// The `superseding` section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct SupersedingSettings {
    /// Whether a task's superseder is asked which other tasks it stands for.
    pub enabled: Option<bool>,
    /// Whether a task may name a superseder at an address of this host or of its neighbours.
    pub allow_private_addresses: bool,
}

/// The `metricsCollection` section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct MetricsCollection {
    /// Milliseconds between two reports in the worker's own log of how it and its machine are used; 0: none.
    pub host_metrics_interval: Option<u64>,
}

/// The `worker` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct WorkerSettings {
    /// The processors that the worker's own work runs on, as `0-1,4`; all without it.
    #[serde(deserialize_with = "processors")]
    pub cpus: Option<ProcessorSet>,
    /// The niceness of the worker's own work (nice(2)).
    #[serde(deserialize_with = "niceness")]
    pub nice: Option<i32>,
}

/// The `logging` section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Logging {
    /// Live logs are served over TLS, with the certificate of [`Ssl`].
    pub secure_live_logging: Option<bool>,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub bulk_log_expires: Unused,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub live_log_chunk_interval: Unused,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub live_log_expires: Unused,
    /// The address that live logs are served on.
    pub live_log_address: Option<IpAddr>,
    /// Its port; 0: any that is free.
    pub live_log_port: Option<u16>,
}

/// The `ssl` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Ssl {
    /// A file of certificates, PEM.
    #[serde(deserialize_with = "absolute_path")]
    pub certificate: Option<PathBuf>,
    /// The file of their key, PEM.
    #[serde(deserialize_with = "absolute_path")]
    pub key: Option<PathBuf>,
}

/// The `statelessHostname` section: names that a DNS server makes up from the address in them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct StatelessHostname {
    /// Whether they are used.
    pub enabled: Option<bool>,
    /// What signs them.
    pub secret: Option<Secret>,
    /// The domain that they end in.
    pub domain: Option<String>,
}

/// The `garbageCollection` section; times in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct GarbageCollection {
    /// How long an image stays that nobody uses.
    pub image_expiration: Option<u64>,
    /// How long what a container has left may stay.
    pub container_expiration: Option<u64>,
    /// Accepted, not used.
    #[serde(skip_serializing)]
    pub interval: Unused,
}

/// The original's profiles: defaults under the file's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Public names and TLS.
    Production,
    /// Short times, little disk.
    Test,
}
