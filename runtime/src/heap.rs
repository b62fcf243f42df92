//! How much freed memory a process keeps.

use crate::sys;

/// glibc's own choice at first; it raises it to whatever was freed once.
const OWN_PAGES_FROM: i32 = 128 << 10;

/// Makes a process that lives long and mostly waits give freed memory back. By itself glibc has a heap for each of many
/// threads, of which each keeps what it once needed, and keeps the larger a block the larger those were that it has seen.
///
/// Call it before threads begin. Whether the C library has taken it; where not, it only costs memory.
pub fn keep_small() -> bool {
    sys::heap::share(OWN_PAGES_FROM)
}
