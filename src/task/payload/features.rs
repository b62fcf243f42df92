//! Every feature that docker-worker ever had, as data: the names that a payload may use, and which of them are on.

use std::collections::BTreeMap;

use super::super::finding::Findings;
use super::super::log::excerpt;
use super::super::reader::{Place, did_you_mean};
use super::{NOT_YET, TaskContext};

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

/// Which features run in a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureSwitches(BTreeMap<&'static str, bool>);

impl FeatureSwitches {
    /// Those of a payload that does not mention any.
    #[must_use]
    pub fn of_defaults(disabled: &[&str]) -> FeatureSwitches {
        let runs = |feature: &KnownFeature| feature.on_by_default && !disabled.contains(&feature.name);
        FeatureSwitches(KNOWN_FEATURES.iter().map(|feature| (feature.name, runs(feature))).collect())
    }

    /// Whether the feature of this name runs.
    #[must_use]
    pub fn is_on(&self, name: &str) -> bool {
        self.0.get(name).copied().unwrap_or(false)
    }
}

/// Reads `payload.features`. Only values count: naming a feature with `false` asks for nothing (O4).
pub(super) fn read(
    place: Option<Place<'_>>,
    context: &TaskContext<'_>,
    findings: &mut Findings,
) -> FeatureSwitches {
    let mut switches = FeatureSwitches::of_defaults(context.disabled_features);
    let Some(features) = place.and_then(|place| place.object(findings)) else {
        return switches;
    };
    for (name, flag) in features.members() {
        let Some(feature) = KNOWN_FEATURES.iter().find(|feature| feature.name == name) else {
            let names: Vec<_> = KNOWN_FEATURES.iter().map(|feature| feature.name).collect();
            flag.refuse(format!("{} is not part of valid features", excerpt(name)), findings);
            findings.hint(did_you_mean(name, &names));
            continue;
        };
        let runs = match flag.boolean(findings) {
            Some(true) => admit(feature, &flag, context, findings),
            Some(false) | None => false,
        };
        switches.0.insert(feature.name, runs);
    }
    switches
}

/// Whether a feature that the payload asks for can run here.
fn admit(
    feature: &KnownFeature,
    flag: &Place<'_>,
    context: &TaskContext<'_>,
    findings: &mut Findings,
) -> bool {
    match feature.support {
        Support::Gone(reason) => {
            findings.warning(
                flag.pointer.clone(),
                format!("{} is not looked at any more: {reason}", feature.name),
            );
            false
        }
        Support::NotYet => {
            flag.refuse(format!("the feature {} {NOT_YET}", feature.name), findings);
            false
        }
        Support::Here if context.disabled_features.contains(&feature.name) => {
            flag.refuse(format!("{} is not enabled on this worker", feature.name), findings);
            false
        }
        Support::Here => true,
    }
}
