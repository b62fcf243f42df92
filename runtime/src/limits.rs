//! Every bound on what comes from outside, in one place.

use std::time::Duration;

/// Bytes in a container id: it is a directory name.
pub const CONTAINER_ID_BYTES: usize = 255;

/// Bytes of `config.json`. The largest that Docker writes (a full seccomp profile) is about 60 KiB.
pub const CONFIG_BYTES: u64 = 4 << 20;

/// Findings about one Spec that are told; of more only their number.
pub const FINDINGS: usize = 32;

/// Characters of one finding.
pub const FINDING_CHARACTERS: usize = 400;

/// Bytes of one file of `/proc` or of our own state directory.
pub const SMALL_FILE_BYTES: u64 = 1 << 20;

/// Bytes kept of a line that another version wrote into a journal: it goes into an error's sentence.
pub const FOREIGN_LINE_BYTES: usize = 200;

/// Bytes of one message between our own processes: two texts of which JSON may make six bytes of one, and a little.
pub const MESSAGE_BYTES: usize = 14 * SENTENCE_BYTES;

/// Descriptors in one message: the init's, its namespace and root, a pty, and one for each hierarchy.
pub const MESSAGE_DESCRIPTORS: usize = 32;

/// Bytes kept of an error's sentence, so that it fits a message.
pub const SENTENCE_BYTES: usize = 4 << 10;

/// How long a control group may take to become empty after everything in it was killed.
pub const CGROUP_EMPTY: Duration = Duration::from_secs(10);

/// How long the processes of a container may take to stand still.
pub const STANDSTILL: Duration = Duration::from_secs(10);

/// How long a holder may take to tell how the command ended, or to end when it is told to.
pub const HOLDER: Duration = Duration::from_secs(10);

/// How long in all the command may be traced when it has ended: who traces it is told before its holder.
pub const TRACED: Duration = Duration::from_secs(60);

/// How long a further process of a container may take until it is its command: one that was paused meanwhile, or stopped
/// from within, never will be.
pub const ENTRY: Duration = Duration::from_secs(30);

/// Bytes that a pty holds at most (64 KiB in tty_buffer.c, a page in n_tty.c), with room to spare.
pub const PTY_BYTES: usize = 128 << 10;

/// Bytes of a host name or domain name: `__NEW_UTS_LEN` of linux/utsname.h.
pub const NAME_BYTES: usize = 64;

/// Bytes of a mount option's name or value, or of a mount's source: fsconfig(2) takes no more.
pub const DATA_BYTES: usize = 255;

/// Directories below one another that `tmpcopyup` copies: each level holds three descriptors.
pub const COPY_DEPTH: usize = 64;

/// Mounts in a Spec.
pub const MOUNTS: usize = 4096;

/// Retries of a path lookup that a concurrent rename disturbed (`EAGAIN` of openat2(2)).
pub const LOOKUP_RETRIES: u32 = 32;

/// How long a hook may run if the Spec gives it no timeout of its own.
pub const HOOK: Duration = Duration::from_secs(60);

/// How long `delete` waits for a killed process to end.
pub const KILLED: Duration = Duration::from_secs(10);

/// How long `delete --force` waits until the monitor of a container that it has killed lets go of it: that kills
/// what is left, undoes everything and runs hooks.
pub const MONITOR: Duration = Duration::from_secs(30);
