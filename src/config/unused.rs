//! Keys that the original knew and that have no effect here: accepted, so that its configuration files work, and named
//! once, so that nobody relies on them.

use serde::de::{Deserialize, Deserializer, IgnoredAny};
use serde::{Serialize, Serializer};

use super::ConfigFile;
use crate::known_features::RELENG_API_PROXY;

/// The value of a key that has no effect: only whether it was there is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unused(bool);

impl Unused {
    /// Whether the file has the key.
    pub fn is_there(self) -> bool {
        self.0
    }
}

impl<'de> Deserialize<'de> for Unused {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Unused, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|IgnoredAny| Unused(true))
    }
}

impl Serialize for Unused {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl ConfigFile {
    /// The keys of the file that only the worker of a deployment has a use for, by name.
    pub fn of_deployments_only(&self) -> Vec<&'static str> {
        let access = &self.taskcluster;
        let keys = [
            ("rootUrl", self.root_url.is_some()),
            ("taskcluster.clientId", access.client_id.is_some()),
            ("taskcluster.accessToken", access.access_token.is_some()),
            ("taskcluster.certificate", access.certificate.is_some()),
            ("shutdown.enabled", self.shutdown.enabled.is_some()),
            ("shutdown.afterIdleSeconds", self.shutdown.after_idle_seconds.is_some()),
        ];
        keys.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name).collect()
    }

    /// The keys of the file that have no effect in this version, by name.
    pub fn unused(&self) -> Vec<String> {
        let fixed = [
            ("createQueue", self.create_queue),
            ("deviceManagement", self.device_management),
            ("dindImage", self.dind_image),
            ("dockerConfig.allowDisableSeccomp", self.docker_config.allow_disable_seccomp),
            ("dockerConfig.allowPrivileged", self.docker_config.allow_privileged),
            ("dockerConfig.defaultRegistry", self.docker_config.default_registry),
            ("dockerWorkerPrivateKey", self.docker_worker_private_key),
            ("garbageCollection.interval", self.garbage_collection.interval),
            ("influx", self.influx),
            ("interactive", self.interactive),
            ("logging.bulkLogExpires", self.logging.bulk_log_expires),
            ("logging.liveLogChunkInterval", self.logging.live_log_chunk_interval),
            ("logging.liveLogExpires", self.logging.live_log_expires),
            ("metrics", self.metrics),
            ("monitorProject", self.monitor_project),
            ("phone", self.phone),
            ("pulse", self.pulse),
            ("schema", self.schema),
            ("shutdown.minimumCycleSeconds", self.shutdown.minimum_cycle_seconds),
            ("shutdown.nodeTerminationPoll", self.shutdown.node_termination_poll),
            ("signingKeyLocation", self.signing_key_location),
            ("task.dequeueCount", self.task.dequeue_count),
            ("task.slowdownDivisor", self.task.slowdown_divisor),
            ("taskQueue.expiration", self.task_queue.expiration),
            ("taskQueue.maxRetries", self.task_queue.max_retries),
            ("taskQueue.pollIntervalMultiplier", self.task_queue.poll_interval_multiplier),
            ("taskQueue.requestRetryInterval", self.task_queue.request_retry_interval),
            ("taskclusterLogImage", self.taskcluster_log_image),
            ("testMode", self.test_mode),
        ];
        let mut unused: Vec<String> =
            fixed.into_iter().filter(|(_, key)| key.is_there()).map(|(name, _)| name.to_owned()).collect();
        for (host, registry) in &self.registries {
            let keys = [("email", registry.email), ("serveraddress", registry.serveraddress)];
            let there = keys.into_iter().filter(|(_, key)| key.is_there());
            unused.extend(there.map(|(key, _)| format!("registries.{host}.{key}")));
        }
        for (name, feature) in self.features.iter().filter(|(name, _)| *name != RELENG_API_PROXY.name) {
            let keys = [("image", feature.image.is_some()), ("token", feature.token.is_some())];
            let there = keys.into_iter().filter(|(_, is_there)| *is_there);
            unused.extend(there.map(|(key, _)| format!("features.{name}.{key}")));
        }
        unused
    }
}
