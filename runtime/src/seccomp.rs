//! System call filters: the translation of OCI profiles to BPF.
//!
//! # Terms
//!
//! - **profile**: `linux.seccomp` of a Spec: a default action, and rules by call name and arguments.
//! - **filter**: the BPF program made of it. The kernel runs it at each call and obeys the verdict.
//! - **verdict**: a 32-bit `SECCOMP_RET_*` value: action in the upper half, errno in the lower.
//! - **instruction set**: an x86_64 kernel serves two, with different numbers: 64-bit and i386. The
//!   third, x32 (64-bit numbers with bit 30 set), gets ENOSYS whatever the profile says.
//!
//! # The shape of a filter
//!
//! ```text
//! instruction set? ─ x86_64 ─ number? binary search over ranges of equal decision ─┬─ verdict
//!                  ├ i386 ─── the same with its numbers                            └─ argument rules
//!                  └ other ── ENOSYS
//! ```
//!
//! The search keeps the filter short. That matters less when a call is made (the kernel caches the
//! numbers that are always allowed) than at installation, where the kernel emulates the filter for
//! every number: 0.7 ms for one comparison per call, 0.04 ms for this tree. Argument rules are
//! `seccompiler`'s.
//!
//! # Meaning of a profile
//!
//! As runc and crun have it through libseccomp, so that profiles of other tools mean the same:
//!
//! 1. A rule whose verdict is the default verdict is left out.
//! 2. A rule without arguments wins over all others for the same call; the first of several counts.
//! 3. The conditions of a rule must all hold; but if two of them are on the same argument, each
//!    condition of that rule stands alone (so two "not equal" on one argument are always true).
//! 4. Names that neither instruction set has are skipped.
//!
//! And where libseccomp says nothing, or something worse:
//!
//! 5. Rules with arguments are tried in the profile's order, and the first that matches decides.
//!    libseccomp sorts them its own way, which shows where rules of different verdicts overlap.
//! 6. Numbers above the newest call of this build get ENOSYS instead of a refusing default action, so
//!    that C libraries fall back to older calls.
//! 7. Arguments that the kernel reads as 32 bits are compared as 32 bits ([`compile`]). Otherwise
//!    `socket(1 << 32 | AF_ALG)` would pass a rule "family above 40" and still make an AF_ALG socket.
//! 8. An instruction set that the profile does not list gets ENOSYS, not a killed process.
mod check;
mod compile;
mod names;
#[cfg(test)]
mod simulator;
mod tree;

pub use check::CompileError;
pub use compile::compile;

use crate::sys::seccomp::Program;
use std::io;
use tree::{Backwards, Test};

/// Whether a rule for calls of this name has any effect: whether an instruction set has it.
pub fn has_call(name: &str) -> bool {
    names::X86_64.number(name).or(names::I386.number(name)).is_some()
}

/// A program that allows these calls of the 64-bit instruction set. Any other kills the process.
pub(crate) fn only(calls: &[libc::c_long]) -> Program {
    let mut program = Backwards::default();
    program.verdict(libc::SECCOMP_RET_KILL_PROCESS);
    let refused = program.len();
    for call in calls {
        let others = program.len();
        program.verdict(libc::SECCOMP_RET_ALLOW);
        // No call has a number that 32 bits do not hold.
        program.branch(Test::Equal, u32::try_from(*call).unwrap_or(u32::MAX), others);
    }
    program.load(tree::NUMBER);
    program.branch(Test::Equal, names::X86_64.audit_arch, refused);
    program.load(tree::ARCH);
    Program::new(&program.finish(), 0)
}

/// A compiled profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    program: Vec<seccompiler::sock_filter>,
    /// `SECCOMP_FILTER_FLAG_*`.
    flags: u64,
}

/// Why a filter could not be bound to the process.
#[derive(Debug, thiserror::Error)]
#[error(
    "install a seccomp filter of {instructions} instructions; without no_new_privs that needs CAP_SYS_ADMIN, and a \
     kernel with CONFIG_SECCOMP_FILTER"
)]
pub struct InstallError {
    instructions: usize,
    source: io::Error,
}

impl Filter {
    /// How long the program is, in BPF instructions. The kernel takes at most 4,096.
    pub fn instructions(&self) -> usize {
        self.program.len()
    }

    /// The filter as the kernel takes it, once it has said that it knows its kind. Two calls must be possible under
    /// it: `execve`, and `capset` where installing needs a capability that does not stay.
    ///
    /// # Errors
    ///
    /// The kernel does not know filters, or a flag of this one.
    pub fn prepare(&self) -> Result<Program, InstallError> {
        let program = Program::new(&self.program, self.flags);
        program.check().map_err(|source| self.refused(source))?;
        Ok(program)
    }

    /// The error for `source`.
    pub fn refused(&self, source: io::Error) -> InstallError {
        InstallError { instructions: self.program.len(), source }
    }
}
