//! Every feature that docker-worker ever had, as data: the names that payloads and configurations use.

use std::sync::LazyLock;

/// One feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownFeature {
    /// The key in `payload.features`.
    pub name: &'static str,
    /// Whether it runs when the payload does not mention it.
    pub on_by_default: bool,
    /// The scope that a task needs for it, if any.
    pub scope: Option<&'static str>,
    /// What this version makes of it.
    pub support: Support,
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

const fn feature(name: &'static str, support: Support) -> KnownFeature {
    KnownFeature { name, on_by_default: false, scope: None, support }
}

const fn on(feature: KnownFeature) -> KnownFeature {
    KnownFeature { on_by_default: true, ..feature }
}

const fn scoped(feature: KnownFeature, scope: &'static str) -> KnownFeature {
    KnownFeature { scope: Some(scope), ..feature }
}

/// All of them, from 2014 to 2026.
pub const KNOWN_FEATURES: &[KnownFeature] = &[
    on(feature("localLiveLog", Support::Here)),
    on(feature("artifacts", Support::Here)),
    feature("bulkLog", Support::Here),
    feature("taskclusterProxy", Support::NotYet),
    feature("interactive", Support::NotYet),
    scoped(feature("allowPtrace", Support::NotYet), "docker-worker:feature:allowPtrace"),
    feature("chainOfTrust", Support::NotYet),
    feature("dockerSave", Support::NotYet),
    feature("dind", Support::NotYet),
    scoped(feature("balrogVPNProxy", Support::NotYet), "docker-worker:feature:balrogVPNProxy"),
    scoped(feature("balrogStageVPNProxy", Support::NotYet), "docker-worker:feature:balrogStageVPNProxy"),
    feature("relengAPIProxy", Support::NotYet),
    feature("testdroidProxy", Support::NotYet),
    feature("azureLiveLog", Support::Gone("the live log is served by the worker since 2016")),
    feature("generateCertificate", Support::Gone("chainOfTrust took its place in 2016")),
];

/// The names of all of them.
pub static FEATURE_NAMES: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| KNOWN_FEATURES.iter().map(|feature| feature.name).collect());

/// The feature of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static KnownFeature> {
    KNOWN_FEATURES.iter().find(|feature| feature.name == name)
}
