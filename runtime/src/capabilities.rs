//! Capabilities: the default set, and how a process gives up the others.
//!
//! Dropping happens in two halves around `setuid` (capabilities(7), "Effect of user ID changes"):
//!
//! ```text
//! drop_bounding              needs CAP_SETPCAP, so it comes while the process is still all-powerful
//! keep_over_setuid           without it, leaving uid 0 clears permitted and effective
//! setgroups, setgid, setuid  (not here)
//! restore_effective          leaving uid 0 cleared the effective set all the same
//! Filter::install            (not here) without no_new_privs it needs CAP_SYS_ADMIN, so it comes now
//! apply_sets                 inheritable, effective, permitted, ambient
//! ```
use crate::sys;
use caps::errors::CapsError;
use caps::{CapSet, CapsHashSet};
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};
use serde_json::Value;
use std::collections::HashSet;
use std::io;

/// What a container keeps unless its Spec says otherwise: as Docker's default.
///
/// Enough for package managers, `su`, `ping`, and servers on low ports. None of these reaches
/// beyond the container's own namespaces and control groups.
pub const DEFAULT: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// CAP_CHECKPOINT_RESTORE, the newest capability as of Linux 6.18 (`linux/capability.h`).
const NEWEST_KNOWN: u8 = 40;

/// The five sets of one process. A set that the Spec leaves out is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapabilitySets {
    bounding: CapsHashSet,
    effective: CapsHashSet,
    permitted: CapsHashSet,
    inheritable: CapsHashSet,
    ambient: CapsHashSet,
}

/// Which call failed, with what the kernel said.
#[derive(Debug, thiserror::Error)]
pub enum CapabilityError {
    /// The Spec wants what the runtime was started without.
    #[error(
        "keep {capability} in the bounding set: the runtime itself was started without it; take it out of the Spec"
    )]
    NotHeld {
        /// The capability that is missing.
        capability: caps::Capability,
    },
    /// `PR_CAPBSET_DROP` wants CAP_SETPCAP.
    #[error("drop {capability} from the bounding set; the runtime needs CAP_SETPCAP")]
    DropBounding {
        /// The capability that stayed.
        capability: caps::Capability,
        /// The call that failed.
        source: CapsError,
    },
    /// The same, for a capability that only the kernel has a name for.
    #[error("drop the capabilities above number {NEWEST_KNOWN} from the bounding set")]
    DropNewer(#[source] io::Error),
    /// `PR_SET_KEEPCAPS` is locked.
    #[error("keep capabilities over setuid; are the securebits of the calling process locked?")]
    Keep(#[source] CapsError),
    /// A set asks for more than the runtime itself has, or ambient for more than inheritable.
    #[error("set {set:?} capabilities to {{{wanted}}}; the runtime must hold each of them itself")]
    Apply {
        /// Which of the five sets.
        set: CapSet,
        /// Its members, as the Spec names them.
        wanted: String,
        /// The call that failed.
        source: CapsError,
    },
}

impl CapabilitySets {
    /// The sets as `process.capabilities` of a Spec gives them.
    pub fn from_spec(spec: &LinuxCapabilities) -> Self {
        Self {
            bounding: convert(spec.bounding().as_ref()),
            effective: convert(spec.effective().as_ref()),
            permitted: convert(spec.permitted().as_ref()),
            inheritable: convert(spec.inheritable().as_ref()),
            ambient: convert(spec.ambient().as_ref()),
        }
    }
}

impl CapabilitySets {
    /// The bounding set, for a line of text: sorted names.
    pub fn bounding(&self) -> String {
        names(&self.bounding)
    }

    /// The effective set, for a line of text: sorted names.
    pub fn effective(&self) -> String {
        names(&self.effective)
    }
}

/// Takes names that this build does not know out of a raw `process.capabilities` object, and
/// returns them, so that the caller can warn about each.
///
/// A capability that is not granted is harmless, and peers ignore such names too; left in, one of
/// them would fail the whole Spec.
pub fn take_unknown_names(capabilities: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    let sets = capabilities.as_object_mut().into_iter().flat_map(|object| object.values_mut());
    for names in sets.filter_map(Value::as_array_mut) {
        names.retain(|name| {
            // Anything but text is left for the Spec's own parser to refuse.
            let Some(text) = name.as_str() else { return true };
            let known = serde_json::from_value::<Capability>(name.clone()).is_ok();
            if !known && !unknown.iter().any(|other| other == text) {
                unknown.push(text.to_owned());
            }
            known
        });
    }
    unknown
}

/// Takes what the kernel would not grant out of the ambient set of a raw `process.capabilities` object,
/// and returns it, so that the caller can warn.
///
/// An ambient capability has to be permitted and inheritable as well (capabilities(7)). `runc spec`
/// writes bundles that name some without inheriting any; peers run them with fewer capabilities, and
/// the OCI specification wants a warning and no failure.
pub fn take_ambient_without_ground(capabilities: &mut Value) -> Vec<String> {
    let names = |set: &str| capabilities[set].as_array().cloned().unwrap_or_default();
    let (permitted, inheritable) = (names("permitted"), names("inheritable"));
    let mut taken = Vec::new();
    if let Some(ambient) = capabilities.get_mut("ambient").and_then(Value::as_array_mut) {
        ambient.retain(|name| {
            let granted = permitted.contains(name) && inheritable.contains(name);
            // Anything but text is left for the Spec's own parser to refuse.
            taken.extend(name.as_str().filter(|_| !granted).map(str::to_owned));
            granted || !name.is_string()
        });
    }
    taken
}

/// First half: what is not in the bounding set can never come back, not even by executing a
/// set-uid or file-capability program.
///
/// # Errors
///
/// [`CapabilityError::DropBounding`] for the first capability that could not be dropped.
pub fn drop_bounding(sets: &CapabilitySets) -> Result<(), CapabilityError> {
    for capability in caps::all() {
        if !sets.bounding.contains(&capability) {
            // An older kernel does not know the newest: what is not there is not held either.
            match caps::drop(None, CapSet::Bounding, capability) {
                Err(source) if is_held(capability) => {
                    return Err(CapabilityError::DropBounding { capability, source });
                }
                _ => {}
            }
        } else if !is_held(capability) {
            // The bounding set only shrinks: what the runtime was started without, it cannot give.
            return Err(CapabilityError::NotHeld { capability });
        }
    }
    // A kernel newer than this build may have more: uid 0 would get them back at `execve`.
    sys::capabilities::drop_bounding_from(NEWEST_KNOWN + 1).map_err(CapabilityError::DropNewer)
}

fn is_held(capability: caps::Capability) -> bool {
    caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false)
}

/// Lets the permitted set survive the coming `setuid`; `execve` clears this again.
///
/// # Errors
///
/// [`CapabilityError::Keep`].
pub fn keep_over_setuid() -> Result<(), CapabilityError> {
    caps::securebits::set_keepcaps(true).map_err(CapabilityError::Keep)
}

/// After `setuid`: makes what was kept work again.
///
/// # Errors
///
/// [`CapabilityError::Apply`].
pub fn restore_effective() -> Result<(), CapabilityError> {
    let failed = |source| CapabilityError::Apply { set: CapSet::Permitted, wanted: String::new(), source };
    apply(CapSet::Effective, &caps::read(None, CapSet::Permitted).map_err(failed)?)
}

/// Second half, after `setuid`: the sets that the container's first program starts from.
///
/// # Errors
///
/// [`CapabilityError::Apply`] for the set that the kernel refused.
pub fn apply_sets(sets: &CapabilitySets) -> Result<(), CapabilityError> {
    restore_effective()?;
    // Inheritable first: adding to it needs CAP_SETPCAP. Effective must shrink before permitted.
    // Ambient last: it must be in permitted and inheritable already.
    apply(CapSet::Inheritable, &sets.inheritable)?;
    apply(CapSet::Effective, &sets.effective)?;
    apply(CapSet::Permitted, &sets.permitted)?;
    raise_ambient(&sets.ambient)
}

/// All at once, and then those that are wanted: nearly always none.
fn raise_ambient(wanted: &CapsHashSet) -> Result<(), CapabilityError> {
    let raised = caps::clear(None, CapSet::Ambient).and_then(|()| {
        wanted.iter().try_for_each(|capability| caps::raise(None, CapSet::Ambient, *capability))
    });
    raised.map_err(|source| CapabilityError::Apply { set: CapSet::Ambient, wanted: names(wanted), source })
}

fn apply(set: CapSet, wanted: &CapsHashSet) -> Result<(), CapabilityError> {
    caps::set(None, set, wanted).map_err(|source| CapabilityError::Apply {
        set,
        wanted: names(wanted),
        source,
    })
}

/// For an error message: sorted, so that two runs read the same.
fn names(set: &CapsHashSet) -> String {
    let mut names: Vec<String> = set.iter().map(ToString::to_string).collect();
    names.sort();
    names.join(" ")
}

fn convert(set: Option<&Capabilities>) -> CapsHashSet {
    let wanted: HashSet<String> = set.into_iter().flatten().map(ToString::to_string).collect();
    caps::all()
        .into_iter()
        .filter(|known| wanted.contains(known.to_string().trim_start_matches("CAP_")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_capability_of_a_spec_has_its_kernel_number() {
        for known in caps::all() {
            let spec: Capability = serde_json::from_value(json!(known.to_string())).unwrap();
            assert_eq!(convert(Some(&Capabilities::from([spec]))), CapsHashSet::from([known]), "{known}");
        }
        assert_eq!(caps::all().iter().map(caps::Capability::index).max(), Some(NEWEST_KNOWN));
    }

    #[test]
    fn a_set_that_the_spec_leaves_out_is_empty() {
        let spec: LinuxCapabilities = serde_json::from_value(json!({ "bounding": ["CAP_KILL"] })).unwrap();
        let expected = CapabilitySets {
            bounding: CapsHashSet::from([caps::Capability::CAP_KILL]),
            ..CapabilitySets::default()
        };
        assert_eq!(CapabilitySets::from_spec(&spec), expected);
    }

    #[test]
    fn unknown_names_are_taken_out_and_reported_once() {
        let mut raw =
            json!({ "bounding": ["CAP_KILL", "CAP_NEW"], "effective": ["CAP_NEW", "CAP_NEWER", 7] });
        assert_eq!(take_unknown_names(&mut raw), ["CAP_NEW", "CAP_NEWER"]);
        assert_eq!(raw, json!({ "bounding": ["CAP_KILL"], "effective": [7] }));
    }

    #[test]
    fn an_ambient_capability_stays_only_if_it_is_permitted_and_inheritable() {
        let mut raw = json!({
            "permitted": ["CAP_KILL", "CAP_CHOWN"],
            "inheritable": ["CAP_KILL", "CAP_FOWNER"],
            "ambient": ["CAP_KILL", "CAP_CHOWN", "CAP_FOWNER", 7],
        });
        assert_eq!(take_ambient_without_ground(&mut raw), ["CAP_CHOWN", "CAP_FOWNER"]);
        assert_eq!(raw["ambient"], json!(["CAP_KILL", 7]));
        for mut without in [json!({ "ambient": ["CAP_KILL"] }), json!({}), json!(7)] {
            take_ambient_without_ground(&mut without);
            assert!(without.get("ambient").is_none_or(|ambient| *ambient == json!([])), "{without}");
        }
    }
}
