//! Resource limits of the container's first process: `process.rlimits` of the Spec.
use crate::spec::PosixLimit;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fmt;
use std::io;

/// `RLIM_INFINITY` of getrlimit(2): no limit.
const INFINITY: u64 = u64::MAX;

/// As Specs spell them.
pub(crate) const NAMES: [(&str, Resource); 16] = [
    ("RLIMIT_AS", Resource::As),
    ("RLIMIT_CORE", Resource::Core),
    ("RLIMIT_CPU", Resource::Cpu),
    ("RLIMIT_DATA", Resource::Data),
    ("RLIMIT_FSIZE", Resource::Fsize),
    ("RLIMIT_LOCKS", Resource::Locks),
    ("RLIMIT_MEMLOCK", Resource::Memlock),
    ("RLIMIT_MSGQUEUE", Resource::Msgqueue),
    ("RLIMIT_NICE", Resource::Nice),
    ("RLIMIT_NOFILE", Resource::Nofile),
    ("RLIMIT_NPROC", Resource::Nproc),
    ("RLIMIT_RSS", Resource::Rss),
    ("RLIMIT_RTPRIO", Resource::Rtprio),
    ("RLIMIT_RTTIME", Resource::Rttime),
    ("RLIMIT_SIGPENDING", Resource::Sigpending),
    ("RLIMIT_STACK", Resource::Stack),
];

/// As a Spec spells it.
pub(crate) fn name(resource: Resource) -> &'static str {
    NAMES.iter().find(|(_, named)| *named == resource).map_or("a limit", |(name, _)| name)
}

/// Why a limit could not be set.
#[derive(Debug, thiserror::Error)]
pub enum RlimitError {
    /// The hard value is above the caller's own.
    #[error(
        "set {name} to soft {soft}, hard {hard}: the runtime's own hard value is {own}, and it lacks CAP_SYS_RESOURCE to \
         raise it; lower the limit in the Spec or grant that capability"
    )]
    AboveOwn {
        /// As the Spec spells it.
        name: &'static str,
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
        name: &'static str,
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

/// Sees to it that this process may set the limit later, when it has given up the privilege that raising it takes. What
/// is in force meanwhile does not become less: a process that may open no file cannot set up a container.
///
/// # Errors
///
/// [`RlimitError`] names the limit and its values.
pub fn allow(limit: &PosixLimit) -> Result<(), RlimitError> {
    let own = getrlimit(limit.resource);
    let (name, soft, hard) = (name(limit.resource), Value(limit.soft), Value(limit.hard));
    let own_hard = Value(own.maximum.unwrap_or(INFINITY));
    if hard.0 <= own_hard.0 {
        return Ok(());
    }
    setrlimit(limit.resource, Rlimit { maximum: known(hard), ..own }).map_err(|errno| match errno {
        rustix::io::Errno::PERM => RlimitError::AboveOwn { name, soft, hard, own: own_hard },
        other => RlimitError::Refused { name, soft, hard, source: other.into() },
    })
}

/// As setrlimit(2) takes it; it is inherited over fork and `execve`.
pub fn values(limit: &PosixLimit) -> (Resource, Rlimit) {
    (limit.resource, Rlimit { current: known(Value(limit.soft)), maximum: known(Value(limit.hard)) })
}

fn known(value: Value) -> Option<u64> {
    (value.0 != INFINITY).then_some(value.0)
}
