//! `MOUNT_ATTR_*` of linux/mount.h: what a mount forbids. A plan and a system call speak of the same bits.

/// No writing.
pub const RDONLY: u64 = 0x1;
/// Set-uid and set-gid bits and file capabilities have no effect.
pub const NOSUID: u64 = 0x2;
/// Device nodes cannot be opened.
pub const NODEV: u64 = 0x4;
/// Nothing can be executed.
pub const NOEXEC: u64 = 0x8;
/// Mask of the access time modes, among which 0 is relatime.
pub const ATIME: u64 = 0x70;
/// Access times are never updated.
pub const NOATIME: u64 = 0x10;
/// Access times are always updated.
pub const STRICTATIME: u64 = 0x20;
/// Access times of directories are never updated.
pub const NODIRATIME: u64 = 0x80;
/// Symbolic links are not followed.
pub const NOSYMFOLLOW: u64 = 0x0020_0000;

/// How far a bind or a change reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The mount itself.
    One,
    /// It and the mounts below it.
    Recursive,
}
