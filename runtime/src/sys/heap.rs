//! mallopt(3), which only glibc has.

use libc::c_int;

/// So many heaps for all threads; whether glibc takes it.
#[cfg(target_env = "gnu")]
pub fn set_arenas(most: c_int) -> bool {
    // SAFETY: it changes nothing but a parameter of the heap, under the heap's own lock.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, most) == 1 }
}

/// Other libraries have one heap, and nothing to set.
#[cfg(not(target_env = "gnu"))]
pub fn set_arenas(_most: c_int) -> bool {
    true
}
