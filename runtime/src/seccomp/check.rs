//! What a profile asks for, looked at entry by entry: whether a filter can do it.
use crate::spec::{Action, Condition, FilterFlag, Seccomp, SyscallRule};

/// `BPF_MAXINSNS`.
pub(super) const MAX_INSTRUCTIONS: usize = 4096;
/// `MAX_ERRNO`: the kernel would clamp a larger one silently.
pub(super) const MAX_ERRNO: u32 = 4095;
/// `SECCOMP_RET_DATA`: what reaches a tracer.
pub(super) const MAX_TRACE: u32 = 0xffff;
/// `SECCOMP_RET_ERRNO | ENOSYS`.
pub(super) const NO_SUCH_CALL: u32 = 0x0005_0000 | 38;

/// Why a profile was refused. `at` is a JSON pointer below `/linux/seccomp`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CompileError {
    /// User notification is not there.
    #[error("compile {at}: SCMP_ACT_NOTIFY is not supported; use SCMP_ACT_ERRNO or SCMP_ACT_ALLOW")]
    Notify {
        /// Where.
        at: String,
    },
    /// Only ERRNO and TRACE carry a value; the specification wants anything else refused.
    #[error("compile {at}: an errno is given, but {action} returns none; remove it or use SCMP_ACT_ERRNO")]
    UnusedErrno {
        /// Where.
        at: String,
        /// The action beside it.
        action: Action,
    },
    /// Too large.
    #[error("compile {at}: {errno} is out of range; {action} takes at most {max}")]
    Errno {
        /// Where.
        at: String,
        /// As given.
        errno: u32,
        /// The action beside it.
        action: Action,
        /// What it could carry.
        max: u32,
    },
    /// A call has arguments 0 to 5.
    #[error("compile {at}: an index is out of range; a system call has arguments 0 to 5")]
    Argument {
        /// Where.
        at: String,
    },
    /// The kernel takes this flag only with user notification.
    #[error("compile /flags: {flag} needs SCMP_ACT_NOTIFY, which is not supported; remove it")]
    Flag {
        /// As given.
        flag: FilterFlag,
    },
    /// Too many argument rules.
    #[error(
        "compile {instructions} instructions: the kernel takes {MAX_INSTRUCTIONS}; use fewer argument conditions"
    )]
    TooLong {
        /// How long it became.
        instructions: usize,
    },
}

/// One entry of the profile, checked. Each alternative is a set of conditions that must all hold.
pub(super) struct Rules<'a> {
    pub at: String,
    pub names: &'a [String],
    pub alternatives: Vec<&'a [Condition]>,
    pub verdict: u32,
}

/// What happens to calls without a rule.
pub(super) struct Fallback {
    pub verdict: u32,
    /// To calls that are newer than this build: a permissive profile lets them through.
    pub unknown: u32,
}

impl Fallback {
    pub fn of(profile: &Seccomp) -> Result<Self, CompileError> {
        let verdict = verdict(profile.default_action, profile.default_errno, "/defaultErrnoRet")?;
        let unknown = match profile.default_action {
            Action::Allow | Action::Log | Action::Trace => verdict,
            _ => NO_SUCH_CALL,
        };
        Ok(Self { verdict, unknown })
    }
}

/// The `SECCOMP_RET_*` value of an action. Without a value ERRNO and TRACE carry EPERM.
fn verdict(action: Action, errno: Option<u32>, at: &str) -> Result<u32, CompileError> {
    let at = || at.to_owned();
    let max = match action {
        Action::Notify => return Err(CompileError::Notify { at: at() }),
        Action::Errno => Some(MAX_ERRNO),
        Action::Trace => Some(MAX_TRACE),
        _ => None,
    };
    match (errno, max) {
        (Some(_), None) => Err(CompileError::UnusedErrno { at: at(), action }),
        (Some(errno), Some(max)) if errno > max => Err(CompileError::Errno { at: at(), errno, action, max }),
        _ => Ok(action.verdict(errno)),
    }
}

pub(super) fn check(entry: &SyscallRule, index: usize) -> Result<Rules<'_>, CompileError> {
    let at = format!("/syscalls/{index}");
    let verdict = verdict(entry.action, entry.errno, &format!("{at}/errnoRet"))?;
    let conditions = entry.conditions.as_slice();
    let repeated = (0..=5).any(|argument| conditions.iter().filter(|c| c.index == argument).count() > 1);
    let alternatives = match conditions {
        [] => vec![],
        all if repeated => all.chunks(1).collect(),
        all => vec![all],
    };
    Ok(Rules { at, names: &entry.names, alternatives, verdict })
}

pub(super) fn flags(profile: &Seccomp) -> Result<u64, CompileError> {
    profile.flags.iter().try_fold(0, |flags, &flag| match flag {
        // The runtime has one thread: there is nothing to synchronise.
        FilterFlag::ThreadSync => Ok(flags),
        FilterFlag::Log => Ok(flags | libc::SECCOMP_FILTER_FLAG_LOG),
        FilterFlag::SpecAllow => Ok(flags | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW),
        FilterFlag::WaitKillable => Err(CompileError::Flag { flag }),
    })
}
