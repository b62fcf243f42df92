//! Capabilities: what a process keeps, and how it gives up the others.
//!
//! Dropping happens in two halves around `setuid` (capabilities(7), "Effect of user ID changes"):
//!
//! ```text
//! drop_bounding              needs CAP_SETPCAP, so it comes while the process is still all-powerful
//! keep_over_setuid           without it, leaving uid 0 clears permitted and effective
//! setgroups, setgid, setuid  (not here)
//! apply_sets                 inheritable, effective, permitted, ambient; with CAP_SYS_ADMIN if
//!                            a filter is to be installed without no_new_privs
//! filter, capset             (not here) the sets once more, without what only the filter needed
//! ```
use crate::spec::{Notes, Read, object, shown};
use crate::sys;
use caps::errors::CapsError;
use caps::{CapSet, CapsHashSet};
use rustix::thread::set_capabilities;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io;

/// CAP_CHECKPOINT_RESTORE, the newest capability as of Linux 6.18 (`linux/capability.h`).
const NEWEST_KNOWN: u8 = 40;

object! {
    /// The five sets of one process. A set that the Spec leaves out is empty.
    CapabilitySets: Default {
        bounding: CapabilitySet = "bounding",
        effective: CapabilitySet = "effective",
        permitted: CapabilitySet = "permitted",
        inheritable: CapabilitySet = "inheritable",
        ambient: CapabilitySet = "ambient",
    }
}

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapabilitySet(CapsHashSet);

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
    /// A set asks for more than the runtime itself has, or the effective one for more than the permitted.
    #[error(
        "set the capabilities to effective {{{effective}}}, permitted {{{permitted}}}, inheritable {{{inheritable}}}; the \
         runtime must hold each of them itself, and installing a filter without no_new_privs takes CAP_SYS_ADMIN"
    )]
    Apply {
        /// Wanted, as the Spec names them.
        effective: String,
        /// Wanted.
        permitted: String,
        /// Wanted.
        inheritable: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The ambient set asks for more than is permitted and inheritable.
    #[error("set the ambient capabilities to {{{wanted}}}; each must be permitted and inheritable as well")]
    Ambient {
        /// Its members, as the Spec names them.
        wanted: String,
        /// The call that failed.
        source: CapsError,
    },
}

impl Read for CapabilitySet {
    /// A name that this build does not know is not granted, which is harmless, and said in runc's words.
    fn read(value: &mut Value, notes: &mut Notes) -> Option<CapabilitySet> {
        let names = Vec::<String>::read(value, notes)?;
        let mut set = CapsHashSet::new();
        let mut unknown = BTreeSet::new();
        for name in &names {
            match parse(name) {
                Some(known) => drop(set.insert(known)),
                None => drop(unknown.insert(name.as_str())),
            }
        }
        if !unknown.is_empty() {
            let listed = unknown.into_iter().collect::<Vec<_>>().join(" ");
            let listed = shown(&listed.as_str().into());
            notes.warn(format!(
                "ignoring unknown or unavailable capabilities: [{}]",
                listed.trim_matches('"')
            ));
        }
        Some(CapabilitySet(set))
    }

    fn absent() -> Option<CapabilitySet> {
        Some(CapabilitySet::default())
    }
}

impl CapabilitySets {
    /// The bounding set, for a line of text: sorted names.
    pub fn bounding(&self) -> String {
        names(&self.bounding.0)
    }

    /// The effective set, for a line of text: sorted names.
    pub fn effective(&self) -> String {
        names(&self.effective.0)
    }

    /// These, and CAP_SYS_ADMIN permitted and effective.
    #[must_use]
    pub fn with_administration(&self) -> CapabilitySets {
        let mut more = self.clone();
        for set in [&mut more.effective, &mut more.permitted] {
            set.0.insert(caps::Capability::CAP_SYS_ADMIN);
        }
        more
    }

    /// Adds the capabilities to those that are bounding, permitted and effective. Returns names that nobody knows.
    pub(crate) fn add<'a>(&mut self, names: &'a [String]) -> Vec<&'a str> {
        let mut unknown = Vec::new();
        for name in names {
            match parse(name) {
                Some(known) => {
                    for set in [&mut self.bounding, &mut self.permitted, &mut self.effective] {
                        set.0.insert(known);
                    }
                }
                None => unknown.push(name.as_str()),
            }
        }
        unknown
    }

    /// The three sets that capset(2) sets in one call.
    pub fn at_once(&self) -> rustix::thread::CapabilitySets {
        let bits = |set: &CapabilitySet| {
            let bits = set.0.iter().fold(0, |bits, one| bits | one.bitmask());
            rustix::thread::CapabilitySet::from_bits_retain(bits)
        };
        rustix::thread::CapabilitySets {
            effective: bits(&self.effective),
            permitted: bits(&self.permitted),
            inheritable: bits(&self.inheritable),
        }
    }

    fn refused(&self, source: io::Error) -> CapabilityError {
        CapabilityError::Apply {
            effective: names(&self.effective.0),
            permitted: names(&self.permitted.0),
            inheritable: names(&self.inheritable.0),
            source,
        }
    }

    /// Takes what the kernel would not grant out of the ambient set, and returns its sorted names.
    ///
    /// An ambient capability has to be permitted and inheritable as well (capabilities(7)). `runc spec`
    /// writes bundles that name some without inheriting any; peers run them with fewer capabilities.
    pub(crate) fn take_ambient_without_ground(&mut self) -> String {
        let ground = &self.permitted.0 & &self.inheritable.0;
        let taken = names(&(&self.ambient.0 - &ground));
        self.ambient.0.retain(|capability| ground.contains(capability));
        taken
    }
}

/// First half: what is not in the bounding set can never come back, not even by executing a
/// set-uid or file-capability program.
///
/// # Errors
///
/// [`CapabilityError::DropBounding`] for the first capability that could not be dropped.
pub fn drop_bounding(sets: &CapabilitySets) -> Result<(), CapabilityError> {
    for capability in caps::all() {
        if !sets.bounding.0.contains(&capability) {
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

/// Second half, after `setuid`: the sets that the container's first program starts from.
///
/// # Errors
///
/// [`CapabilityError::Apply`] for the set that the kernel refused.
pub fn apply_sets(sets: &CapabilitySets) -> Result<(), CapabilityError> {
    // Leaving uid 0 emptied the effective set; adding to the inheritable one needs CAP_SETPCAP.
    let failed = |errno: rustix::io::Errno| sets.refused(errno.into());
    let held = rustix::thread::capabilities(None).map_err(failed)?;
    let raised = rustix::thread::CapabilitySets { effective: held.permitted, ..held };
    set_capabilities(None, raised).map_err(failed)?;
    set_capabilities(None, sets.at_once()).map_err(failed)?;
    // Last: it must be in permitted and inheritable already.
    raise_ambient(&sets.ambient.0)
}

/// All at once, and then those that are wanted: nearly always none.
fn raise_ambient(wanted: &CapsHashSet) -> Result<(), CapabilityError> {
    let raised = caps::clear(None, CapSet::Ambient).and_then(|()| {
        wanted.iter().try_for_each(|capability| caps::raise(None, CapSet::Ambient, *capability))
    });
    raised.map_err(|source| CapabilityError::Ambient { wanted: names(wanted), source })
}

/// `CAP_KILL`, `KILL` or `kill`.
fn parse(name: &str) -> Option<caps::Capability> {
    let upper = name.to_uppercase();
    format!("CAP_{}", upper.trim_start_matches("CAP_")).parse().ok()
}

/// For an error message: sorted, so that two runs read the same.
fn names(set: &CapsHashSet) -> String {
    let mut names: Vec<String> = set.iter().map(ToString::to_string).collect();
    names.sort();
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_capability_of_the_kernel_is_read() {
        for known in caps::all() {
            let read: CapabilitySet = crate::spec::read(&json!([known.to_string()])).unwrap();
            assert_eq!(read.0, CapsHashSet::from([known]), "{known}");
        }
        assert_eq!(caps::all().iter().map(caps::Capability::index).max(), Some(NEWEST_KNOWN));
    }

    #[test]
    fn an_ambient_capability_stays_only_if_it_is_permitted_and_inheritable() {
        let mut sets: CapabilitySets = crate::spec::read(&json!({
            "permitted": ["CAP_KILL", "CAP_CHOWN"],
            "inheritable": ["CAP_KILL", "CAP_FOWNER"],
            "ambient": ["CAP_KILL", "CAP_CHOWN", "CAP_FOWNER"],
        }))
        .unwrap();
        assert_eq!(sets.take_ambient_without_ground(), "CAP_CHOWN CAP_FOWNER");
        assert_eq!(names(&sets.ambient.0), "CAP_KILL");
        assert_eq!(sets.take_ambient_without_ground(), "");
    }
}
