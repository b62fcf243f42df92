//! The system calls that tasks may make, as data.
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

/// AF_INET and AF_INET6.
const INTERNET: [u64; 2] = [2, 10];

/// SOCK_STREAM and SOCK_DGRAM.
const STREAM: u64 = 1;
const DATAGRAM: u64 = 2;

/// What TCP and UDP go by as protocols of the Internet. With 0 they are what a stream and a datagram socket are by themselves.
const TCP: u64 = 6;
const UDP: u64 = 17;

/// What the proxy has no use for: its listeners come from the worker, and it looks into no process, its own included.
const NOT_FOR_THE_PROXY: [&str; 5] =
    ["listen", "process_vm_readv", "process_vm_writev", "ptrace", "socketpair"];

/// Any type of socket but for SOCK_CLOEXEC and SOCK_NONBLOCK, which come with it.
const SOCKET_TYPE: u64 = 0xffff_ffff & !0x0008_0800;

/// Whether programs of 32 bits may make sockets.
///
/// Their C libraries do it by `socketcall`, where the family is behind a pointer and out of a filter's sight.
/// So it opens AF_ALG and AF_VSOCK too, the first of them with holes that reached other tasks' files
/// (CVE-2026-31431); allowed it should be only where something else denies those families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketCall {
    /// With any family.
    Allowed,
    /// Such programs have no sockets.
    Absent,
}

/// The profile for a container that may ever hold `capabilities`: its bounding set.
pub(super) fn profile(capabilities: &Capabilities, socketcall: SocketCall) -> LinuxSeccomp {
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
    rules.push(match socketcall {
        SocketCall::Allowed => allow("socketcall"),
        SocketCall::Absent => refuse("socketcall", ENOSYS),
    });
    rules.extend(ioctl());

    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(Action::ScmpActErrno)
        .set_default_errno_ret(Some(EPERM))
        .set_architectures(Some(vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86]))
        .set_syscalls(Some(rules));
    profile
}

/// The profile for the proxy, which has the host's network: sockets for what it says to others, and for what it asks the
/// kernel about addresses. In that network there are abstract Unix sockets of the host's, which no permissions guard.
pub(super) fn proxy_profile() -> LinuxSeccomp {
    let mut profile = profile(&Capabilities::new(), SocketCall::Absent);
    let mut rules = profile.syscalls().clone().unwrap_or_default();
    rules.retain(|rule| *rule.names() != ["socket"]);
    for names in rules.iter_mut().filter(|rule| rule.args().is_none()) {
        let is_of_use = |name: &&String| !NOT_FOR_THE_PROXY.contains(&name.as_str());
        let others = names.names().iter().filter(is_of_use).cloned().collect();
        names.set_names(others);
    }
    rules.extend(proxy_sockets());
    profile.set_syscalls(Some(rules));
    profile
}

/// Connections and questions for names; AF_NETLINK (16) for NETLINK_ROUTE (0) alone, by which C libraries learn what
/// addresses this host has; pairs of AF_UNIX (1), one of which the event loop wakes itself by. Streams only: an end of a
/// pair of datagram sockets can be connected anew, and sends to any address, those of the host's abstract sockets as well.
/// No other protocols: some make sockets of their own within the kernel (SMC, MPTCP), whose packets are nobody's to a firewall
/// that asks who has sent them.
fn proxy_sockets() -> Vec<LinuxSyscall> {
    let is = |argument, value| (argument, Operator::ScmpCmpEq, (value, 0));
    let has_type = |kind| (1, Operator::ScmpCmpMaskedEq, (SOCKET_TYPE, kind));
    let mut rules = vec![
        allow_if_all("socket", &[is(0, 16), is(2, 0)]),
        allow_if_all("socketpair", &[is(0, 1), has_type(STREAM)]),
    ];
    for family in INTERNET {
        for (kind, protocols) in [(STREAM, [0, TCP]), (DATAGRAM, [0, UDP])] {
            let with = |protocol| allow_if_all("socket", &[is(0, family), has_type(kind), is(2, protocol)]);
            rules.extend(protocols.map(with));
        }
    }
    rules
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
fn socket() -> [LinuxSyscall; 3] {
    [
        allow_if("socket", 0, Operator::ScmpCmpLt, (38, 0)),
        allow_if("socket", 0, Operator::ScmpCmpEq, (39, 0)),
        allow_if("socket", 0, Operator::ScmpCmpGt, (40, 0)),
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

/// An argument's number, and what it is compared by and with.
type Condition = (usize, Operator, (u64, u64));

fn allow_if(name: &str, argument: usize, operator: Operator, values: (u64, u64)) -> LinuxSyscall {
    allow_if_all(name, &[(argument, operator, values)])
}

fn allow_if_all(name: &str, conditions: &[Condition]) -> LinuxSyscall {
    let conditions = conditions.iter().map(|&(argument, operator, (value, value_two))| {
        let condition = LinuxSeccompArgBuilder::default()
            .index(argument)
            .value(value)
            .value_two(value_two)
            .op(operator)
            .build();
        // With every field given, building cannot fail; if it did, the empty condition allows next to nothing.
        condition.unwrap_or_default()
    });
    let mut rule = allow(name);
    rule.set_args(Some(conditions.collect()));
    rule
}

fn refuse(name: &str, errno: u32) -> LinuxSyscall {
    let mut rule = allow(name);
    rule.set_action(Action::ScmpActErrno).set_errno_ret(Some(errno));
    rule
}

#[cfg(test)]
mod tests;
