//! Resource limits of the container's first process: `process.rlimits` of the Spec.
use oci_spec::runtime::{PosixRlimit, PosixRlimitType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fmt;
use std::io;

/// `RLIM_INFINITY` of getrlimit(2): no limit.
const INFINITY: u64 = u64::MAX;

/// Why a limit could not be set.
#[derive(Debug, thiserror::Error)]
pub enum RlimitError {
    /// The kernel would answer EINVAL.
    #[error(
        "set {name}: its soft value {soft} is above its hard value {hard}; swap them or lower the soft one"
    )]
    SoftAboveHard {
        /// As the Spec spells it, `RLIMIT_NOFILE`.
        name: PosixRlimitType,
        /// Wanted, in the limit's own unit.
        soft: Value,
        /// Wanted, in the limit's own unit.
        hard: Value,
    },
    /// The hard value is above the caller's own.
    #[error(
        "set {name} to soft {soft}, hard {hard}: the runtime's own hard value is {own}, and it lacks CAP_SYS_RESOURCE to \
         raise it; lower the limit in the Spec or grant that capability"
    )]
    AboveOwn {
        /// As the Spec spells it.
        name: PosixRlimitType,
        /// Wanted.
        soft: Value,
        /// Wanted.
        hard: Value,
        /// What the process has.
        own: Value,
    },
    /// Any other refusal.
    #[error("set {name} to soft {soft}, hard {hard}")]
    Refused {
        /// As the Spec spells it.
        name: PosixRlimitType,
        /// Wanted.
        soft: Value,
        /// Wanted.
        hard: Value,
        /// The call that failed.
        source: io::Error,
    },
}

/// One value of a limit, which prints as a number or as `unlimited`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value(pub u64);

impl fmt::Display for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            INFINITY => out.write_str("unlimited"),
            number => write!(out, "{number}"),
        }
    }
}

/// Sets one limit on this process; it is inherited over fork and `execve`.
///
/// # Errors
///
/// [`RlimitError`] names the limit and its values.
pub fn apply(limit: &PosixRlimit) -> Result<(), RlimitError> {
    let (name, soft, hard) = (limit.typ(), Value(limit.soft()), Value(limit.hard()));
    if soft.0 > hard.0 {
        return Err(RlimitError::SoftAboveHard { name, soft, hard });
    }
    let resource = resource(name);
    setrlimit(resource, Rlimit { current: known(soft), maximum: known(hard) }).map_err(|errno| match errno {
        rustix::io::Errno::PERM => {
            let own = Value(getrlimit(resource).maximum.unwrap_or(INFINITY));
            RlimitError::AboveOwn { name, soft, hard, own }
        }
        other => RlimitError::Refused { name, soft, hard, source: other.into() },
    })
}

fn known(value: Value) -> Option<u64> {
    (value.0 != INFINITY).then_some(value.0)
}

fn resource(name: PosixRlimitType) -> Resource {
    match name {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}
