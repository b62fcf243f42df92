//! What is in force where the configuration says nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use images::limits::Limits;

use super::{ConfigFile, ImageLimits, ImageName, Profile, Secret, Ssl, TestdroidSettings, TimeSpan};
use crate::known_features::{KNOWN_FEATURES, RELENG_API_PROXY, Support};
use crate::limits::DISK_RESERVE_BYTES;
use crate::spec::resources::DEFAULT_PIDS;

/// Endings of file names whose contents do not get smaller by compressing them.
pub(super) const SKIP_COMPRESSION: &[&str] = &[
    ".7z", ".bz2", ".deb", ".dmg", ".flv", ".gif", ".gz", ".jpeg", ".jpg", ".png", ".swf", ".tbz", ".tgz",
    ".webp", ".whl", ".woff", ".woff2", ".xz", ".zip", ".zst", "lz4",
];

/// Bytes of one task's output that its log keeps.
const LOG_BYTES: u64 = 4 << 30;

/// Bytes of one artifact.
const ARTIFACT_BYTES: u64 = 5 << 30;

/// Days that saved containers are kept.
const SAVED_DAYS: u64 = 7;

/// Bytes that have to be free on the data directory's file system before `run` starts a task.
const FREE_BYTES: u64 = 1_000_000_000;

/// Bytes that have to be free for each task of a deployment's worker.
const FREE_BYTES_OF_A_SLOT: u64 = 30_000_000_000;

/// Most tasks that a worker can have at once.
const CAPACITY: u32 = 1;

/// Seconds until an idle worker ends.
const IDLE_SECONDS: u64 = 300;

/// By what a claim's time is divided.
const RECLAIM_DIVISOR: f64 = 2.0;

/// Milliseconds without a request for tasks.
const POLL_INTERVAL_MS: u64 = 5000;

/// The least of them: a fault that lasts must not keep the worker busy.
const LEAST_POLL_INTERVAL_MS: u64 = 100;

/// Milliseconds between two signs of life.
const ALIVENESS_MS: u64 = 30_000;

/// Milliseconds between two reports of how worker and machine are used.
const METRICS_MS: u64 = 60_000;

/// The least of both: the worker has other things to do.
const LEAST_REPORT_MS: u64 = 1000;

/// Seconds between looks at a task's status.
const STATUS_POLL_SECONDS: u64 = 5;

/// Milliseconds until an image goes that nobody uses.
const IMAGE_EXPIRATION_MS: u64 = 7_200_000;

/// Milliseconds until what a container has left goes.
const CONTAINER_EXPIRATION_MS: u64 = 1_800_000;

/// Attempts to have something of a registry, the milliseconds between the first two, and by which part of them it is
/// more or less. Those of a deployment's worker, as the original's: a registry that is restarted costs no task. `run` has
/// those of [`images::limits::Limits`], which give up after some 15 seconds, for somebody waits there.
const PULL_ATTEMPTS: u32 = 5;
const PULL_DELAY_MS: u64 = 15_000;
const PULL_RANDOMIZATION: f64 = 0.25;

/// The files of the certificate and of its key, where the original's machines have them.
const CERTIFICATE: &str = "/etc/star_taskcluster-worker_net.crt";
const CERTIFICATE_KEY: &str = "/etc/star_taskcluster-worker_net.key";

/// What names of hosts that have none end in.
const STATELESS_DOMAIN: &str = "taskcluster-worker.net";

/// The niceness of a deployment's worker.
const NICE: i32 = 5;

/// The user that the built-in proxy is: nobody in particular, and nobody else.
const PROXY_USER: u32 = 65_533;

/// The images of features' containers for which the administrator has given all else that they need.
const TESTDROID_IMAGE: &str = "taskcluster/testdroid-proxy:0.0.7";
const RELENG_API_IMAGE: &str = "taskcluster/relengapi-proxy:2.3.1";

impl Profile {
    /// The profile of this name.
    pub fn named(name: &str) -> Option<Profile> {
        match name {
            "production" => Some(Profile::Production),
            "test" => Some(Profile::Test),
            _ => None,
        }
    }
}

impl ConfigFile {
    /// Puts the defaults of a profile below what is said already.
    pub fn apply(&mut self, profile: Profile) {
        match profile {
            Profile::Production => {
                self.logging.secure_live_logging.get_or_insert(true);
                self.stateless_hostname.enabled.get_or_insert(true);
            }
            Profile::Test => {
                self.task_queue.poll_interval.get_or_insert(1000);
                self.docker_config.delay_factor.get_or_insert(100);
                self.capacity_management.diskspace_threshold.get_or_insert(1_000_000_000);
                self.docker_volume.get_or_insert_with(|| PathBuf::from("/tmp"));
                self.cache.volume_cache_path.get_or_insert_with(|| PathBuf::from("/tmp/test-cache"));
            }
        }
    }

    /// The same with the defaults of a deployment's worker spelt out: what is in force.
    #[must_use]
    pub fn in_force(mut self) -> ConfigFile {
        self.worker_node_type.get_or_insert_with(|| "standalone".to_owned());
        self.host.get_or_insert_with(|| "localhost".to_owned());
        self.region.get_or_insert_with(|| "none".to_owned());
        self.capacity.get_or_insert(CAPACITY);
        self.capacity_management.diskspace_threshold.get_or_insert(FREE_BYTES_OF_A_SLOT);
        self.shutdown.enabled.get_or_insert(true);
        self.shutdown.after_idle_seconds.get_or_insert(IDLE_SECONDS);
        self.task.reclaim_divisor.get_or_insert(RECLAIM_DIVISOR);
        self.task_queue.poll_interval.get_or_insert(POLL_INTERVAL_MS);
        self.superseding.enabled.get_or_insert(true);
        self.task_status_poll_seconds.get_or_insert(STATUS_POLL_SECONDS);
        self.aliveness_check_interval.get_or_insert(ALIVENESS_MS);
        self.metrics_collection.host_metrics_interval.get_or_insert(METRICS_MS);
        self.worker.nice.get_or_insert(NICE);
        self.taskcluster_proxy.user = Some(self.proxy_user());
        self.network.addresses = Some(self.network.addresses());
        self.logging.secure_live_logging.get_or_insert(false);
        self.logging.live_log_address.get_or_insert(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        self.logging.live_log_port.get_or_insert(0);
        self.ssl = Ssl {
            certificate: Some(self.ssl.certificate().to_owned()),
            key: Some(self.ssl.key().to_owned()),
        };
        self.stateless_hostname.enabled.get_or_insert(false);
        self.stateless_hostname.domain.get_or_insert_with(|| STATELESS_DOMAIN.to_owned());
        self.garbage_collection.image_expiration.get_or_insert(IMAGE_EXPIRATION_MS);
        self.garbage_collection.container_expiration.get_or_insert(CONTAINER_EXPIRATION_MS);
        self.docker_config.max_attempts.get_or_insert(PULL_ATTEMPTS);
        self.docker_config.delay_factor.get_or_insert(PULL_DELAY_MS);
        self.docker_config.randomization_factor.get_or_insert(PULL_RANDOMIZATION);
        self.artifacts.max_bytes.get_or_insert(ARTIFACT_BYTES);
        self.docker_save.expiration.get_or_insert_with(|| TimeSpan::days(SAVED_DAYS));
        self.limits.log.get_or_insert(LOG_BYTES);
        self.limits.pids.get_or_insert(u32::try_from(DEFAULT_PIDS).unwrap_or(u32::MAX));
        let endings = || SKIP_COMPRESSION.iter().map(|&ending| ending.to_owned()).collect();
        self.artifacts.skip_compression_extensions.get_or_insert_with(endings);
        for feature in KNOWN_FEATURES.iter().filter(|feature| feature.support == Support::Here) {
            self.features.entry(feature.name.to_owned()).or_default();
        }
        self.images.limits = self.images.limits.in_force();
        self
    }

    /// The same for a worker with a queue of its own, which stays until somebody ends it, and leaves no more of the disk
    /// free than `run` does.
    #[must_use]
    pub fn in_force_with_own_queue(mut self) -> ConfigFile {
        self.shutdown.enabled = Some(false);
        self.capacity_management.diskspace_threshold.get_or_insert(FREE_BYTES);
        self.provisioner_id = Some(self.provisioner_id().to_owned());
        self.worker_type = Some(self.worker_type().to_owned());
        self.worker_group = Some(self.worker_group().to_owned());
        self.in_force()
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
        self.limits.log.unwrap_or(LOG_BYTES)
    }

    /// Bytes that have to be free before a task starts.
    pub fn free_bytes(&self) -> u64 {
        self.capacity_management.diskspace_threshold.unwrap_or(FREE_BYTES)
    }

    /// Bytes that a pull leaves free. No more than a task needs to run: a worker that may take a task because the threshold
    /// is met must be able to pull its image.
    pub fn reserve_bytes(&self) -> u64 {
        self.free_bytes().min(FREE_BYTES)
    }

    /// Bytes that a worker tries to keep free while tasks run: what a pull leaves, and in any case more than ends them.
    pub fn low_mark_bytes(&self) -> u64 {
        self.reserve_bytes().max(2 * DISK_RESERVE_BYTES)
    }

    /// Bytes that one artifact of a task may have; the log is bounded by itself.
    pub fn artifact_bytes(&self) -> u64 {
        self.artifacts.max_bytes.unwrap_or(ARTIFACT_BYTES)
    }

    /// How long what `dockerSave` has made is kept at most.
    pub fn saved_expiration(&self) -> Duration {
        let days = || TimeSpan::days(SAVED_DAYS);
        self.docker_save.expiration.clone().unwrap_or_else(days).duration()
    }

    /// The number of the user that the built-in proxy is.
    pub fn proxy_user(&self) -> u32 {
        self.taskcluster_proxy.user.unwrap_or(PROXY_USER)
    }

    /// The image that takes the place of the built-in proxy.
    pub fn taskcluster_proxy_image(&self) -> Option<ImageName> {
        self.taskcluster_proxy.image.clone().or_else(|| self.taskcluster_proxy_image.clone())
    }

    /// The image that borrows phones; nothing where nobody lends them.
    pub fn testdroid_image(&self) -> Option<ImageName> {
        let TestdroidSettings { url, username, password } = &self.testdroid;
        let lends = url.is_some() && username.is_some() && password.is_some();
        let image = || self.testdroid_proxy_image.clone().or_else(|| ImageName::read(TESTDROID_IMAGE));
        lends.then(image).flatten()
    }

    /// The image that calls release engineering's services; nothing without a token for them.
    pub fn releng_api_image(&self) -> Option<ImageName> {
        let section = self.features.get(RELENG_API_PROXY.name)?;
        section.token.as_ref()?;
        section.image.clone().or_else(|| ImageName::read(RELENG_API_IMAGE))
    }

    /// What is given to it.
    pub fn releng_api_token(&self) -> Option<&Secret> {
        self.features.get(RELENG_API_PROXY.name)?.token.as_ref()
    }

    /// Tasks at once.
    pub fn capacity(&self) -> u32 {
        self.capacity.unwrap_or(CAPACITY)
    }

    /// How long an image stays that nobody uses.
    pub fn image_expiration(&self) -> Duration {
        Duration::from_millis(self.garbage_collection.image_expiration.unwrap_or(IMAGE_EXPIRATION_MS))
    }

    /// How long what a container has left may stay.
    pub fn container_expiration(&self) -> Duration {
        Duration::from_millis(self.garbage_collection.container_expiration.unwrap_or(CONTAINER_EXPIRATION_MS))
    }

    /// How long an idle worker stays; `None`: for ever.
    pub fn idle_time(&self) -> Option<Duration> {
        let seconds = self.shutdown.after_idle_seconds.unwrap_or(IDLE_SECONDS);
        (self.shutdown.enabled.unwrap_or(true) && seconds > 0).then(|| Duration::from_secs(seconds))
    }

    /// How long the worker asks for no tasks after a request that failed, or that was answered early without any.
    pub fn poll_interval(&self) -> Duration {
        let millis = self.task_queue.poll_interval.unwrap_or(POLL_INTERVAL_MS);
        Duration::from_millis(millis.max(LEAST_POLL_INTERVAL_MS))
    }

    /// Whether a task's superseder is asked.
    pub fn supersedes(&self) -> bool {
        self.superseding.enabled.unwrap_or(true)
    }

    /// Between two looks at a running task's status; `None`: it is not looked at.
    pub fn status_poll(&self) -> Option<Duration> {
        let seconds = self.task_status_poll_seconds.unwrap_or(STATUS_POLL_SECONDS);
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    /// Between two signs of life in the worker's log; `None`: there are none.
    pub fn aliveness_interval(&self) -> Option<Duration> {
        report_interval(self.aliveness_check_interval.unwrap_or(ALIVENESS_MS))
    }

    /// Between two reports there of how worker and machine are used; `None`: there are none.
    pub fn metrics_interval(&self) -> Option<Duration> {
        report_interval(self.metrics_collection.host_metrics_interval.unwrap_or(METRICS_MS))
    }

    /// By what the time of a claim is divided, to know how long it is left alone.
    pub fn reclaim_divisor(&self) -> f64 {
        self.task.reclaim_divisor.unwrap_or(RECLAIM_DIVISOR)
    }
}

fn report_interval(millis: u64) -> Option<Duration> {
    (millis > 0).then(|| Duration::from_millis(millis.max(LEAST_REPORT_MS)))
}

impl ImageLimits {
    fn in_force(&self) -> ImageLimits {
        let default = Limits::default();
        ImageLimits {
            layers: self.layers.or(Some(default.layers)),
            layer_bytes: self.layer_bytes.or(Some(default.layer_compressed_bytes)),
            entries: self.entries.or(Some(default.entries)),
            index_bytes: self.index_bytes.or(Some(default.index_bytes)),
            window_bytes: self.window_bytes.or(Some(default.window_bytes)),
        }
    }
}

impl Ssl {
    /// The file of the certificate and of those that vouch for it.
    pub fn certificate(&self) -> &Path {
        self.certificate.as_deref().unwrap_or(Path::new(CERTIFICATE))
    }

    /// The file of its key.
    pub fn key(&self) -> &Path {
        self.key.as_deref().unwrap_or(Path::new(CERTIFICATE_KEY))
    }
}
