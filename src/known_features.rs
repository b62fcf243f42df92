//! Every feature that docker-worker ever had, one row each: what payloads, configurations and the command line have to
//! know of it. What the features of this version do stands in `features/`, one file each.

use std::sync::LazyLock;

/// One feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownFeature {
    /// The key in `payload.features`.
    pub name: &'static str,
    /// What the task log calls it when a hook of it fails.
    pub handler: &'static str,
    /// Whether it runs when the payload does not mention it.
    pub on_by_default: bool,
    /// The scope that a task needs for it, if any.
    pub scope: Option<&'static str>,
    /// Names of artifacts that are the worker's alone in a task that has it.
    pub reserved: &'static [Reserved],
    /// Keys of the configuration that concern it, beside [`KnownFeature::switch`].
    pub settings: &'static [&'static str],
    /// What this version makes of it.
    pub support: Support,
    /// What it does, in one sentence without its end.
    pub summary: &'static str,
}

/// What this version makes of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It works.
    Here,
    /// A task that asks for it is refused by name.
    NotYet,
    /// It has lost its meaning, for this reason; a task that asks for it gets a warning.
    Gone(&'static str),
}

/// The name of an artifact that a feature publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// `payload.log`.
    LiveLog,
    /// The name that follows from `payload.log`.
    BackingLog,
    /// Always the same one, and what it is.
    Always(&'static str, &'static str),
    /// One for each of the payload's caches: [`cache_artifact`].
    Caches,
}

impl KnownFeature {
    /// The key of the configuration that switches it off.
    #[must_use]
    pub fn switch(&self) -> String {
        format!("features.{}.enabled", self.name)
    }
}

impl Reserved {
    /// What stands under that name.
    #[must_use]
    pub fn owner(self) -> &'static str {
        match self {
            Reserved::LiveLog => "live log",
            Reserved::BackingLog => "finished log",
            Reserved::Always(_, owner) => owner,
            Reserved::Caches => "saved cache",
        }
    }
}

/// The name of the log that `bulkLog` keeps.
pub const BULK_LOG_ARTIFACT: &str = "public/logs/terminal_bulk.log.gz";

/// The name of the log whose hash `chainOfTrust` certifies.
pub const CERTIFIED_LOG: &str = "public/logs/certified.log";

/// The name of what `chainOfTrust` certifies.
pub const STATEMENT: &str = "public/chain-of-trust.json";

/// The name of its signature.
pub const SIGNATURE: &str = "public/chain-of-trust.json.sig";

/// The name of the image that `dockerSave` makes.
pub const SAVED_IMAGE: &str = "public/dockerImage.tar";

/// The name of the archive that `dockerSave` makes of a cache.
#[must_use]
pub fn cache_artifact(cache: &str) -> String {
    format!("public/cache/{cache}.tar")
}

/// The log under the name that the payload gives it.
pub const LOCAL_LIVE_LOG: KnownFeature = KnownFeature {
    on_by_default: true,
    reserved: &[Reserved::LiveLog, Reserved::BackingLog],
    settings: &[
        "limits.log",
        "logging.liveLogAddress",
        "logging.liveLogPort",
        "logging.secureLiveLogging",
        "host",
        "statelessHostname",
    ],
    summary: "the log as `public/logs/live.log`: where it can be read while the task runs (not with `run`), then a link to `public/logs/live_backing.log` (the payload's `log` renames both)",
    ..here("localLiveLog")
};

/// The log once more, under a name that is always the same.
pub const BULK_LOG: KnownFeature = KnownFeature {
    handler: "bulkLogHandler",
    reserved: &[Reserved::Always(BULK_LOG_ARTIFACT, "bulk log")],
    settings: &["limits.log"],
    summary: "the log as `public/logs/terminal_bulk.log.gz`",
    ..here("bulkLog")
};

/// What the payload wants to keep.
pub const ARTIFACTS: KnownFeature = KnownFeature {
    handler: "artifactHandler",
    on_by_default: true,
    settings: &["artifacts.maxBytes", "artifacts.skipCompressionExtensions", "artifacts.storage"],
    summary: "the payload's artifacts",
    ..here("artifacts")
};

/// What ran, and what came out, signed by the worker.
pub const CHAIN_OF_TRUST: KnownFeature = KnownFeature {
    reserved: &[
        Reserved::Always(CERTIFIED_LOG, "certified log"),
        Reserved::Always(STATEMENT, "chain of trust"),
        Reserved::Always(SIGNATURE, "signature of the chain of trust"),
    ],
    settings: &["ed25519SigningKeyLocation"],
    summary: "a signed statement of what ran and what came out, as `public/chain-of-trust.json` and `public/chain-of-trust.json.sig`, and the log that it is about as `public/logs/certified.log`",
    ..here("chainOfTrust")
};

/// Requests to the deployment.
pub const TASKCLUSTER_PROXY: KnownFeature = KnownFeature {
    settings: &["rootUrl", "taskclusterProxy.user", "taskclusterProxy.image", "taskclusterProxyImage"],
    summary: "requests to Taskcluster at `http://taskcluster`, also `$TASKCLUSTER_PROXY_URL`, signed with the task's scopes (not with `run`)",
    ..here("taskclusterProxy")
};

/// Tracing of the task's own processes.
pub const ALLOW_PTRACE: KnownFeature = KnownFeature {
    scope: Some("docker-worker:feature:allowPtrace"),
    summary: "gdb and strace on every process of the task: the capability SYS_PTRACE, and where the host has AppArmor a profile of the task's own",
    ..here("allowPtrace")
};

/// A way to Balrog.
pub const BALROG_VPN_PROXY: KnownFeature = scoped(
    KnownFeature {
        settings: &["balrogVPNProxyImage"],
        summary: "Balrog at `http://balrog`, by way of a VPN that a container beside the task enters",
        ..here("balrogVPNProxy")
    },
    "docker-worker:feature:balrogVPNProxy",
);

/// A way to Balrog's staging.
pub const BALROG_STAGE_VPN_PROXY: KnownFeature = scoped(
    KnownFeature {
        settings: &["balrogVPNProxyImage"],
        summary: "the same with Balrog's staging",
        ..here("balrogStageVPNProxy")
    },
    "docker-worker:feature:balrogStageVPNProxy",
);

/// Requests to Mozilla's release engineering.
pub const RELENG_API_PROXY: KnownFeature = KnownFeature {
    settings: &["features.relengAPIProxy.token", "features.relengAPIProxy.image"],
    summary: "services of Mozilla's release engineering at `http://relengapi`, with the permissions that the task's scopes `docker-worker:relengapi-proxy:PERMISSION` name",
    ..here("relengAPIProxy")
};

/// Phones.
pub const TESTDROID_PROXY: KnownFeature = KnownFeature {
    settings: &["testdroid.url", "testdroid.username", "testdroid.password", "testdroidProxyImage"],
    summary: "a phone as the payload's `capabilities.devices.phone` (also `$DEVICE_CAPABILITIES`) wants it, borrowed from Testdroid at `http://testdroid`",
    ..here("testdroidProxy")
};

/// What is left of the task, to be looked at elsewhere.
pub const DOCKER_SAVE: KnownFeature = KnownFeature {
    reserved: &[Reserved::Always(SAVED_IMAGE, "saved image"), Reserved::Caches],
    settings: &["artifacts.maxBytes", "artifacts.storage", "dockerSave.expiration"],
    summary: "the container as an image for `docker load`, as `public/dockerImage.tar`, and its caches as `public/cache/NAME.tar`, once the command has ended by itself, however it has",
    ..here("dockerSave")
};

/// All of them, from 2014 to 2026.
pub const KNOWN_FEATURES: &[KnownFeature] = &[
    LOCAL_LIVE_LOG,
    BULK_LOG,
    ARTIFACTS,
    TASKCLUSTER_PROXY,
    KnownFeature {
        handler: "dockerInteractive",
        ..later("interactive", "a shell in the task, for as long as somebody uses it")
    },
    ALLOW_PTRACE,
    CHAIN_OF_TRUST,
    DOCKER_SAVE,
    later("dind", "a Docker daemon of the task's own"),
    BALROG_VPN_PROXY,
    BALROG_STAGE_VPN_PROXY,
    RELENG_API_PROXY,
    TESTDROID_PROXY,
    gone("azureLiveLog", "the live log is served by the worker since 2016"),
    gone("generateCertificate", "chainOfTrust took its place in 2016"),
];

const fn here(name: &'static str) -> KnownFeature {
    KnownFeature {
        name,
        handler: name,
        on_by_default: false,
        scope: None,
        reserved: &[],
        settings: &[],
        support: Support::Here,
        summary: "",
    }
}

const fn later(name: &'static str, summary: &'static str) -> KnownFeature {
    KnownFeature { support: Support::NotYet, summary, ..here(name) }
}

const fn gone(name: &'static str, reason: &'static str) -> KnownFeature {
    KnownFeature { support: Support::Gone(reason), summary: reason, ..here(name) }
}

const fn scoped(feature: KnownFeature, scope: &'static str) -> KnownFeature {
    KnownFeature { scope: Some(scope), ..feature }
}

/// The names of all of them.
pub static FEATURE_NAMES: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| KNOWN_FEATURES.iter().map(|feature| feature.name).collect());

/// The feature of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static KnownFeature> {
    KNOWN_FEATURES.iter().find(|feature| feature.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_a_line_for_each_feature_that_works() {
        let readme = include_str!("../README.md");
        for feature in KNOWN_FEATURES.iter().filter(|feature| feature.support == Support::Here) {
            let default = if feature.on_by_default { "on" } else { "off" };
            let line = format!("| `{}` | {default} | {} |", feature.name, feature.summary);
            assert!(readme.contains(&line), "{line}");
        }
    }
}
