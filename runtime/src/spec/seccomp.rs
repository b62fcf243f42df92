//! `linux.seccomp`: a filter of system calls, as [`crate::seccomp`] compiles it.

use super::read::{names, object};

object! {
    /// A default action, and rules.
    Seccomp {
        default_action: Action = "defaultAction",
        default_errno: Option<u32> = "defaultErrnoRet",
        architectures: Vec<Architecture> = "architectures",
        flags: Vec<FilterFlag> = "flags",
        rules: Vec<SyscallRule> = "syscalls",
    } refused {
        "listenerPath": "a seccomp listener is not there yet: use an action of its own for each call",
        "listenerMetadata": "a seccomp listener is not there yet: leave it out",
    }
}

object! {
    /// What happens to calls of these names, if the conditions hold.
    SyscallRule {
        names: Vec<String> = "names",
        action: Action = "action",
        errno: Option<u32> = "errnoRet",
        conditions: Vec<Condition> = "args",
    }
}

object! {
    /// A comparison of one argument of a call.
    Condition {
        index: usize = "index",
        value: u64 = "value",
        value_two: Option<u64> = "valueTwo",
        operator: Operator = "op",
    }
}

names! {
    /// What happens to a call.
    Action {
        KillThread = "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD",
        KillProcess = "SCMP_ACT_KILL_PROCESS",
        Trap = "SCMP_ACT_TRAP",
        Errno = "SCMP_ACT_ERRNO",
        Trace = "SCMP_ACT_TRACE",
        Log = "SCMP_ACT_LOG",
        Allow = "SCMP_ACT_ALLOW",
        Notify = "SCMP_ACT_NOTIFY",
    }
}

impl Action {
    /// The kernel's `SECCOMP_RET_*`. Without a value `errno` and `trace` carry EPERM, as in libseccomp.
    pub(crate) fn verdict(self, errno: Option<u32>) -> u32 {
        let errno = errno.unwrap_or(libc::EPERM.cast_unsigned());
        match self {
            Action::KillThread => libc::SECCOMP_RET_KILL_THREAD,
            Action::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
            Action::Trap => libc::SECCOMP_RET_TRAP,
            Action::Errno => libc::SECCOMP_RET_ERRNO | errno,
            Action::Trace => libc::SECCOMP_RET_TRACE | errno,
            Action::Log => libc::SECCOMP_RET_LOG,
            Action::Allow => libc::SECCOMP_RET_ALLOW,
            Action::Notify => libc::SECCOMP_RET_USER_NOTIF,
        }
    }
}

names! {
    /// Which instruction sets have calls. Of those that this machine does not have nothing comes of it.
    Architecture {
        X86_64 = "SCMP_ARCH_X86_64",
        X86 = "SCMP_ARCH_X86",
        // x32 has no calls here, and the others are other machines'.
        None = "SCMP_ARCH_X32" | "SCMP_ARCH_ARM" | "SCMP_ARCH_AARCH64" | "SCMP_ARCH_LOONGARCH64"
            | "SCMP_ARCH_M68K" | "SCMP_ARCH_MIPS" | "SCMP_ARCH_MIPS64" | "SCMP_ARCH_MIPS64N32"
            | "SCMP_ARCH_MIPSEL" | "SCMP_ARCH_MIPSEL64" | "SCMP_ARCH_MIPSEL64N32" | "SCMP_ARCH_PARISC"
            | "SCMP_ARCH_PARISC64" | "SCMP_ARCH_PPC" | "SCMP_ARCH_PPC64" | "SCMP_ARCH_PPC64LE"
            | "SCMP_ARCH_RISCV64" | "SCMP_ARCH_S390" | "SCMP_ARCH_S390X" | "SCMP_ARCH_SH"
            | "SCMP_ARCH_SHEB",
    }
}

names! {
    /// How the kernel is to install the filter.
    FilterFlag {
        ThreadSync = "SECCOMP_FILTER_FLAG_TSYNC",
        Log = "SECCOMP_FILTER_FLAG_LOG",
        SpecAllow = "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        WaitKillable = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    }
}

names! {
    /// How an argument is compared.
    Operator {
        NotEqual = "SCMP_CMP_NE",
        Less = "SCMP_CMP_LT",
        LessOrEqual = "SCMP_CMP_LE",
        Equal = "SCMP_CMP_EQ",
        GreaterOrEqual = "SCMP_CMP_GE",
        Greater = "SCMP_CMP_GT",
        MaskedEqual = "SCMP_CMP_MASKED_EQ",
    }
}
