//! `payload.features`: which features run in a task.

use std::collections::BTreeMap;

use crate::document::finding::Findings;
use crate::document::reader::Place;
use crate::known_features::{FEATURE_NAMES, KNOWN_FEATURES, KnownFeature, Support, find};
use crate::payload::{NOT_YET, TaskContext};
use crate::suggestion::did_you_mean;
use crate::text::excerpt;

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

    /// Those that run, in the order of the table.
    pub fn on(&self) -> impl Iterator<Item = &'static KnownFeature> {
        KNOWN_FEATURES.iter().filter(|feature| self.is_on(feature.name))
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
        let Some(feature) = find(name) else {
            flag.refuse(format!("{} is not part of valid features", excerpt(name)), findings);
            findings.hint(did_you_mean(name, &FEATURE_NAMES));
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
