//! How much memory all tasks together may have the process take, and of what that is the sum.
//!
//! | for | bytes |
//! |---|---|
//! | the program, its threads, the certificates of this host | 16 MiB |
//! | one order: new credentials of 4 MiB (what the worker reads of an answer), as they come and as they are read | 32 MiB |
//! | bodies that are kept to be sent again ([`KEPT_BYTES`]) | 32 MiB |
//! | connections: 176 places ([`places::ALL`]) of 1 MiB at most | 176 MiB |
//!
//! and for one place, which is a task's connection and the one to the outside that goes with it,
//!
//! | for | bytes |
//! |---|---|
//! | what is read: on either side a head that lives until it is passed on, a piece that waits to be written, and the next one, in buffers that hyper makes up to twice as large as [`BUFFER_BYTES`] | 192 KiB |
//! | what is written to the task: a signed URL twice, in a header and as the body; or a head, a label and a piece | 160 KiB |
//! | what is written to the outside: a head with its signature, and a piece | 64 KiB |
//! | TLS: 64 KiB of records to be sent, 64 KiB of the other end's certificates, what has come and is not read | 192 KiB |
//! | tables of header lines, and all that is small | 32 KiB |
//! | the kernel, for what is sent and received: it doubles what it is told ([`TASK_SOCKET_BYTES`], [`OUTSIDE_SOCKET_BYTES`]) | 384 KiB |
//!
//! The kernel's part counts where the container's group counts it: with control groups of version 2, always.

use super::places;

/// Memory of the container that the process is in, and of what the kernel holds for its sockets.
pub(in crate::proxy) const MEMORY_BYTES: i64 = 256 << 20;

/// Bytes of all tasks' requests that are kept to send them again.
pub(super) const KEPT_BYTES: usize = 32 << 20;

/// What hyper may hold of a request or a response beside the piece that is passed on, and so the length of a head: as much as
/// Node.js takes, which Taskcluster's services run on (`--max-http-header-size`).
pub(super) const BUFFER_BYTES: usize = 16 << 10;

/// Bytes of a URL that is to be signed: what else goes into the head of a request for it is no shorter than this.
pub(super) const URL_BYTES: usize = BUFFER_BYTES;

/// Bytes of a task's scopes and of its credentials' certificate, as JSON. They go along with each request, in base64, in a
/// header: of 48 KiB with all else that stands in it, which is what a queue of the worker's own takes. A deployment takes
/// less: Node.js heads of 16 KiB, Hawk headers of 4 KiB unless told otherwise (its limits.maxMatchLength). It is the
/// deployment's to say so; this is the bound above which nobody could.
pub(super) const SIGNED_BYTES: usize = 35 << 10;

/// Bytes of a label in a response: most clients take heads of 16 KiB at most, and a label is for the curious only.
pub(super) const LABEL_BYTES: usize = 4 << 10;

/// What the kernel is told to hold of what goes to a task, and of what comes: the task is on this host.
pub(super) const TASK_SOCKET_BYTES: usize = 32 << 10;

/// The same for a connection to the outside, which is further away: a megabyte in a second at 50 ms.
pub(super) const OUTSIDE_SOCKET_BYTES: u32 = 64 << 10;

/// What one place takes at most: see the module's head.
const PLACE_BYTES: usize = {
    let read = 2 * 3 * 2 * BUFFER_BYTES;
    let signed = SIGNED_BYTES.div_ceil(3) * 4;
    let to_task = 2 * (URL_BYTES + signed.div_ceil(3) * 4);
    let to_outside = BUFFER_BYTES + signed;
    let tls = 192 << 10;
    let small = 32 << 10;
    let kernel = 2 * 2 * TASK_SOCKET_BYTES + 2 * 2 * OUTSIDE_SOCKET_BYTES as usize;
    read + to_task + to_outside + tls + small + kernel
};

const _: () = {
    let (own, order) = (16 << 20, 32 << 20);
    assert!(PLACE_BYTES <= 1 << 20);
    let all = own + order + KEPT_BYTES + places::ALL * PLACE_BYTES;
    assert!(all as i64 <= MEMORY_BYTES);
};
