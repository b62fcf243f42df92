//! The default profile, as data.
//!
//! An allow list: what is not named gets EPERM. It follows Docker's choice of calls (so that images
//! made for Docker run), and is stricter: `io_uring`, TIOCSTI, AF_ALG, the NUMA calls are refused.
//! Written from the kernel's tables and the manual pages of section 2; lists are in the order of the
//! alphabet.
use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArgBuilder,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Files, directories, mounts seen but not changed.
const FILES: &str = "
    access cachestat chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3
    faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2
    fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr file_getattr file_setattr flistxattr flock
    fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat
    getcwd getdents getdents64 getxattr getxattrat inotify_add_watch inotify_init inotify_init1
    inotify_rm_watch lchown lchown32 lgetxattr link linkat listmount listxattr listxattrat llistxattr
    _llseek lremovexattr lseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at
    newfstatat open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read
    readahead readlink readlinkat readv removexattr removexattrat rename renameat renameat2 rmdir
    sendfile sendfile64 setxattr setxattrat splice stat stat64 statfs statfs64 statmount statx symlink
    symlinkat sync sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat utime utimensat
    utimensat_time64 utimes vmsplice write writev
";

/// Memory, and what is shared between processes.
const MEMORY: &str = "
    brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2
    mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free
    pkey_mprotect process_mrelease remap_file_pages
    ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend
    mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop
    semtimedop_time64 shmat shmctl shmdt shmget
";

/// Processes and threads, who they are and what they may use. `clone` has rules of its own.
const PROCESSES: &str = "
    arch_prctl capget capset execve execveat exit exit_group fork get_robust_list get_thread_area getcpu
    getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpgrp getpid
    getppid getpriority getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid gettid
    getuid getuid32 ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lsm_get_self_attr lsm_list_modules modify_ldt nice pidfd_open pidfd_send_signal
    prctl prlimit64 process_vm_readv process_vm_writev ptrace rseq sched_get_priority_max
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
    sched_setscheduler sched_yield seccomp set_robust_list set_thread_area set_tid_address setfsgid
    setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setpgid setpriority setregid
    setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setuid
    setuid32 sysinfo tgkill tkill ugetrlimit uname uprobe uretprobe vfork wait4 waitid waitpid
";

/// Signals, waiting, time.
const EVENTS: &str = "
    pause restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
    rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack signalfd signalfd4
    sigprocmask sigreturn
    epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait
    eventfd eventfd2 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake io_cancel
    io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit _newselect poll ppoll
    ppoll_time64 pselect6 pselect6_time64 select
    adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime
    clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer getrandom gettimeofday nanosleep
    setitimer time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
    timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64
    times
";

/// Sockets, once they exist. `socket` has rules of its own.
const SOCKETS: &str = "
    accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg
    recvmmsg_time64 recvmsg sendmmsg sendmsg sendto setsockopt shutdown socketpair
";

/// Calls that come with a capability: they do nothing dangerous without it, or all they do needs it.
const WITH_CAPABILITY: &[(Capability, &str)] = &[
    (Capability::Bpf, "bpf"),
    (Capability::DacReadSearch, "open_by_handle_at"),
    (Capability::Perfmon, "perf_event_open"),
    (
        Capability::SysAdmin,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_set_self_attr mount
         mount_setattr move_mount open_tree open_tree_attr perf_event_open pivot_root quotactl quotactl_fd
         setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    (Capability::SysBoot, "reboot"),
    (Capability::SysChroot, "chroot"),
    (Capability::SysModule, "delete_module finit_module init_module"),
    (
        Capability::SysNice,
        "get_mempolicy mbind migrate_pages move_pages set_mempolicy set_mempolicy_home_node",
    ),
    (Capability::SysPacct, "acct"),
    (Capability::SysPtrace, "kcmp pidfd_getfd process_madvise"),
    (Capability::SysRawio, "ioperm iopl"),
    (Capability::SysTime, "clock_settime clock_settime64 settimeofday stime"),
    (Capability::SysTtyConfig, "vhangup"),
    (Capability::Syslog, "syslog"),
];

/// Every CLONE_NEW* that clone(2) takes: a new namespace of any kind.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// PER_LINUX32 (`uname` says i686) and UNAME26 (it says 2.6) of personality(2).
const PLAIN_DOMAINS: u64 = 0x0002_0008;

/// ADDR_NO_RANDOMIZE of personality(2): debuggers set it for what they start.
const ADDR_NO_RANDOMIZE: u64 = 0x0004_0000;

/// The profile for a container that may ever hold `capabilities`: its bounding set.
///
/// ```
/// use oci_spec::runtime::{Capability, LinuxSeccompAction};
/// let profile = runtime::seccomp::default_profile(&runtime::capabilities::DEFAULT.into());
/// assert_eq!(profile.default_action(), LinuxSeccompAction::ScmpActErrno);
/// ```
pub fn default_profile(capabilities: &Capabilities) -> LinuxSeccomp {
    let held = |capability: Capability| capabilities.contains(&capability);
    let mut rules: Vec<LinuxSyscall> = [FILES, MEMORY, PROCESSES, EVENTS, SOCKETS].map(allow).into();
    for (_, names) in WITH_CAPABILITY.iter().filter(|(capability, _)| held(*capability)) {
        rules.push(allow(names));
    }
    if !held(Capability::SysAdmin) {
        rules.push(allow_if("clone", 0, Operator::ScmpCmpMaskedEq, (NEW_NAMESPACES, 0)));
        // Its flags are behind a pointer, where no filter can look. C libraries fall back to clone.
        rules.push(refuse("clone3", ENOSYS));
    }
    let harmless =
        if held(Capability::SysPtrace) { PLAIN_DOMAINS | ADDR_NO_RANDOMIZE } else { PLAIN_DOMAINS };
    rules.extend(personality(harmless));
    rules.extend(socket());
    rules.extend(ioctl());

    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(Action::ScmpActErrno)
        .set_default_errno_ret(Some(EPERM))
        .set_architectures(Some(vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86]))
        .set_syscalls(Some(rules));
    profile
}

/// Any mix of the harmless bits, and the question which ones are set.
fn personality(harmless: u64) -> [LinuxSyscall; 2] {
    let others = u64::from(u32::MAX) & !harmless;
    [
        allow_if("personality", 0, Operator::ScmpCmpMaskedEq, (others, 0)),
        allow_if("personality", 0, Operator::ScmpCmpEq, (0xffff_ffff, 0)),
    ]
}

/// All address families but AF_ALG (38: the kernel's cryptography, a large surface) and AF_VSOCK (40:
/// the hypervisor). Two "not equal" conditions would be alternatives, and so always true.
fn socket() -> [LinuxSyscall; 4] {
    [
        allow_if("socket", 0, Operator::ScmpCmpLt, (38, 0)),
        allow_if("socket", 0, Operator::ScmpCmpEq, (39, 0)),
        allow_if("socket", 0, Operator::ScmpCmpGt, (40, 0)),
        // The 32-bit multiplexer has the family behind a pointer. 32-bit C libraries that know no
        // other way have no network.
        refuse("socketcall", ENOSYS),
    ]
}

/// All commands but TIOCSTI (0x5412) and TIOCLINUX (0x541c), which type on the terminal as if the
/// operator did.
fn ioctl() -> [LinuxSyscall; 5] {
    let all_but_two_bits = 0xffff_fffc;
    [
        allow_if("ioctl", 1, Operator::ScmpCmpLt, (0x5412, 0)),
        allow_if("ioctl", 1, Operator::ScmpCmpEq, (0x5413, 0)),
        allow_if("ioctl", 1, Operator::ScmpCmpMaskedEq, (all_but_two_bits, 0x5414)),
        allow_if("ioctl", 1, Operator::ScmpCmpMaskedEq, (all_but_two_bits, 0x5418)),
        allow_if("ioctl", 1, Operator::ScmpCmpGt, (0x541c, 0)),
    ]
}

fn allow(names: &str) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.split_ascii_whitespace().map(str::to_owned).collect())
        .set_action(Action::ScmpActAllow);
    rule
}

fn allow_if(name: &str, argument: usize, operator: Operator, (value, value_two): (u64, u64)) -> LinuxSyscall {
    let condition = LinuxSeccompArgBuilder::default()
        .index(argument)
        .value(value)
        .value_two(value_two)
        .op(operator)
        .build();
    // With every field given, building cannot fail; if it did, the empty condition allows next to nothing.
    let condition = condition.unwrap_or_default();
    let mut rule = allow(name);
    rule.set_args(Some(vec![condition]));
    rule
}

fn refuse(name: &str, errno: u32) -> LinuxSyscall {
    let mut rule = allow(name);
    rule.set_action(Action::ScmpActErrno).set_errno_ret(Some(errno));
    rule
}

#[cfg(test)]
mod tests {
    use super::super::compile;
    use super::super::names::{Abi, I386, X86_64};
    use super::super::simulator::{ALLOW, Call, ENOSYS, EPERM, meaning, run};
    use super::*;
    use crate::capabilities::DEFAULT;

    /// A call's name or number, its first arguments, and the verdict.
    type Row = (&'static str, &'static [u64], u32);

    fn check(capabilities: &Capabilities, abi: &Abi, cases: &[Row]) {
        let profile = default_profile(capabilities);
        let profile = crate::spec::read(&serde_json::to_value(profile).unwrap()).unwrap();
        let filter = compile(&profile).unwrap();
        for &(name, given, expected) in cases {
            let number = abi.number(name).unwrap_or_else(|| name.parse().expect("a known call, or a number"));
            let mut arguments = [0; 6];
            arguments[..given.len()].copy_from_slice(given);
            let call = Call { arch: abi.audit_arch, number, arguments };
            assert_eq!(run(&filter, call), expected, "{name} {given:x?}");
            assert_eq!(meaning(&profile, call), expected, "{name} {given:x?}, as the rules read");
        }
    }

    /// The rows of the table in the security model, in its order.
    const ROWS: &[Row] = &[
        ("openat", &[], ALLOW),
        ("landlock_create_ruleset", &[], ALLOW),
        ("pidfd_open", &[], ALLOW),
        ("openat2", &[], ALLOW),
        ("close_range", &[], ALLOW),
        ("statx", &[], ALLOW),
        ("rseq", &[], ALLOW),
        ("memfd_create", &[], ALLOW),
        ("chroot", &[], ALLOW),
        ("clone", &[0x0100_0011], ALLOW),
        ("clone", &[0x1000_0000], EPERM),
        ("clone", &[0x0002_0000 | 0x11], EPERM),
        ("clone", &[0x0200_0000], EPERM),
        ("unshare", &[], EPERM),
        ("setns", &[], EPERM),
        ("clone3", &[], ENOSYS),
        ("470", &[], ENOSYS),
        ("999", &[], ENOSYS),
        ("4294967295", &[], ENOSYS),
        ("mount", &[], EPERM),
        ("umount2", &[], EPERM),
        ("pivot_root", &[], EPERM),
        ("fsopen", &[], EPERM),
        ("fsconfig", &[], EPERM),
        ("fsmount", &[], EPERM),
        ("fspick", &[], EPERM),
        ("open_tree", &[], EPERM),
        ("open_tree_attr", &[], EPERM),
        ("move_mount", &[], EPERM),
        ("mount_setattr", &[], EPERM),
        ("bpf", &[], EPERM),
        ("perf_event_open", &[], EPERM),
        ("userfaultfd", &[], EPERM),
        ("io_uring_setup", &[], EPERM),
        ("io_uring_enter", &[], EPERM),
        ("io_uring_register", &[], EPERM),
        ("kexec_load", &[], EPERM),
        ("init_module", &[], EPERM),
        ("finit_module", &[], EPERM),
        ("delete_module", &[], EPERM),
        ("iopl", &[], EPERM),
        ("ioperm", &[], EPERM),
        ("acct", &[], EPERM),
        ("swapon", &[], EPERM),
        ("swapoff", &[], EPERM),
        ("reboot", &[], EPERM),
        ("settimeofday", &[], EPERM),
        ("clock_settime", &[], EPERM),
        ("quotactl", &[], EPERM),
        ("lookup_dcookie", &[], EPERM),
        ("nfsservctl", &[], EPERM),
        ("uselib", &[], EPERM),
        ("ustat", &[], EPERM),
        ("sysfs", &[], EPERM),
        ("_sysctl", &[], EPERM),
        ("mbind", &[], EPERM),
        ("move_pages", &[], EPERM),
        ("migrate_pages", &[], EPERM),
        ("keyctl", &[], EPERM),
        ("add_key", &[], EPERM),
        ("request_key", &[], EPERM),
        ("open_by_handle_at", &[], EPERM),
        ("fanotify_init", &[], EPERM),
        ("syslog", &[], EPERM),
        ("ptrace", &[], ALLOW),
        ("process_vm_readv", &[], ALLOW),
        ("kcmp", &[], EPERM),
        ("pidfd_getfd", &[], EPERM),
        ("process_madvise", &[], EPERM),
        ("personality", &[0], ALLOW),
        ("personality", &[8], ALLOW),
        ("personality", &[0x20000], ALLOW),
        ("personality", &[0x20008], ALLOW),
        ("personality", &[0xffff_ffff], ALLOW),
        ("personality", &[u64::MAX], ALLOW), // (int) -1, sign-extended by the caller
        ("personality", &[ADDR_NO_RANDOMIZE], EPERM),
        ("personality", &[0x0040_0000], EPERM), // READ_IMPLIES_EXEC
        ("socket", &[1], ALLOW),
        ("socket", &[16], ALLOW),
        ("socket", &[37], ALLOW),
        ("socket", &[38], EPERM),
        ("socket", &[39], ALLOW),
        ("socket", &[40], EPERM),
        ("socket", &[41], ALLOW),
        ("socket", &[1 << 32 | 38], EPERM), // the kernel reads the lower half
        ("socket", &[1 << 63 | 40], EPERM),
        ("ioctl", &[0, 0x5401], ALLOW),
        ("ioctl", &[0, 0x5411], ALLOW),
        ("ioctl", &[0, 0x5412], EPERM),
        ("ioctl", &[0, 0x5413], ALLOW),
        ("ioctl", &[0, 0x541b], ALLOW),
        ("ioctl", &[0, 0x541c], EPERM),
        ("ioctl", &[0, 0x541d], ALLOW),
        ("ioctl", &[0, 0x8004_5430], ALLOW),
        ("ioctl", &[0, 0xffff_ffff_8004_5430], ALLOW), // TIOCGPTN, sign-extended by the caller
        ("ioctl", &[0, 1 << 32 | 0x5412], EPERM),
        ("ioctl", &[0, u64::MAX << 32 | 0x541c], EPERM),
        ("mknod", &[], ALLOW),
    ];

    #[test]
    fn each_row_of_the_security_model_holds() {
        check(&DEFAULT.into(), &X86_64, ROWS);
    }

    #[test]
    fn thirty_two_bit_programs_are_held_to_the_same_rules() {
        let cases: &[Row] = &[
            ("mmap2", &[], ALLOW),
            ("_llseek", &[], ALLOW),
            ("clock_gettime64", &[], ALLOW),
            ("socketcall", &[1], ENOSYS),
            ("socket", &[38], EPERM),
            ("socket", &[2], ALLOW),
            ("clone", &[0x1000_0000], EPERM),
            ("clone3", &[], ENOSYS),
            ("umount", &[], EPERM),
            ("vm86", &[], EPERM),
            ("stime", &[], EPERM),
            ("ioctl", &[0, 0x5412], EPERM),
        ];
        check(&DEFAULT.into(), &I386, cases);
    }

    #[test]
    fn a_capability_brings_the_calls_that_it_is_for() {
        let cases: [(Capability, &[Row]); 4] = [
            (
                Capability::SysAdmin,
                &[("mount", &[], ALLOW), ("clone3", &[], ALLOW), ("clone", &[1 << 28], ALLOW)],
            ),
            (Capability::SysPtrace, &[("kcmp", &[], ALLOW), ("personality", &[ADDR_NO_RANDOMIZE], ALLOW)]),
            (Capability::Syslog, &[("syslog", &[], ALLOW), ("mount", &[], EPERM)]),
            (Capability::SysNice, &[("mbind", &[], ALLOW)]),
        ];
        for (capability, calls) in cases {
            check(&Capabilities::from([capability]), &X86_64, calls);
        }
        check(&Capabilities::new(), &X86_64, &[("chroot", &[], EPERM)]);
    }

    #[test]
    fn every_name_is_a_call_and_is_listed_once() {
        let profile = default_profile(&caps_all());
        let mut seen = std::collections::HashSet::new();
        for rule in profile.syscalls().iter().flatten().filter(|rule| rule.args().is_none()) {
            for name in rule.names() {
                assert!(X86_64.number(name).or(I386.number(name)).is_some(), "{name} is no call");
                let shared = ["bpf", "perf_event_open", "syslog"].contains(&name.as_str());
                assert!(seen.insert(name.clone()) || shared, "{name} is there twice");
            }
        }
    }

    fn caps_all() -> Capabilities {
        WITH_CAPABILITY.iter().map(|(capability, _)| *capability).collect()
    }

    #[test]
    fn an_x32_call_is_no_call() {
        check(&DEFAULT.into(), &X86_64, &[("1073741824", &[], ENOSYS), ("1073742335", &[], ENOSYS)]);
    }
}
