//! Bounds on what a task definition may bring in, on what is written about it, and on what a task may fill.

/// Bytes of a task file or of a definition from a queue (the queue's own bound is 1 MiB).
pub const DEFINITION_BYTES: usize = 4 << 20;
/// Nesting of objects and arrays in a definition.
pub const DEFINITION_DEPTH: usize = 64;
/// Scalars, keys and containers in a definition, YAML aliases expanded.
pub const DEFINITION_NODES: usize = 250_000;
/// Findings reported about one definition; further ones are counted only.
pub const FINDINGS: usize = 100;
/// Characters of an untrusted word in a message; the rest becomes `…`.
pub const QUOTED_CHARS: usize = 200;

/// Bytes of an artifact's name (queue: `maxLength` 1024).
pub const ARTIFACT_NAME_BYTES: usize = 1024;
/// Characters of the message of an error artifact (queue: `maxLength` 4096).
pub const ARTIFACT_MESSAGE_CHARS: usize = 4096;
/// Components of an artifact's name.
pub const ARTIFACT_NAME_DEPTH: usize = 64;
/// Bytes of a cache's name, which is metadata only.
pub const CACHE_NAME_BYTES: usize = 255;
/// Bytes of a path inside the container (`PATH_MAX` without its NUL).
pub const PATH_BYTES: usize = 4095;
/// Bytes of one component of such a path (`NAME_MAX`).
pub const PATH_COMPONENT_BYTES: usize = 255;
/// Caches of one task; each is a mount.
pub const CACHES: usize = 1_000;
/// Entries of `payload.artifacts`.
pub const ARTIFACTS: usize = 10_000;
/// Bytes of `command` and `env` together: what execve(2) takes is a quarter of the stack limit, 2 MiB by default.
pub const EXEC_BYTES: usize = 2 << 20;
/// Bytes of one argument or `NAME=value`, NUL included (execve(2), `MAX_ARG_STRLEN`).
pub const EXEC_STRING_BYTES: usize = 128 << 10;
/// Seconds after which a `maxRunTime` makes no difference any more: a century.
pub const MAX_RUN_TIME_SECONDS: u64 = 100 * 366 * 24 * 60 * 60;
/// Nodes that YAML aliases may repeat in all.
pub const DEFINITION_ALIASED_NODES: usize = 10_000;
/// Bytes that stay free on the data directory's file system for logs and clean-up.
pub const DISK_RESERVE_BYTES: u64 = 64 << 20;
/// Bytes of an image's name.
pub const IMAGE_NAME_BYTES: usize = 4096;
