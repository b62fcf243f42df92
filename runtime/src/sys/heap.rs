//! mallopt(3), which only glibc has.

use libc::c_int;

/// Sets a parameter of the heap; whether glibc takes the value.
#[cfg(target_env = "gnu")]
fn set(parameter: c_int, value: c_int) -> bool {
    // SAFETY: it changes nothing but the heap's own parameters, under the heap's own lock.
    unsafe { libc::mallopt(parameter, value) == 1 }
}

/// One heap for all threads, and blocks of so many bytes or more are pages of their own.
#[cfg(target_env = "gnu")]
pub fn share(own_pages_from: c_int) -> bool {
    set(libc::M_ARENA_MAX, 1) && set(libc::M_MMAP_THRESHOLD, own_pages_from)
}

/// Other libraries have one heap, and nothing to set.
#[cfg(not(target_env = "gnu"))]
pub fn share(_own_pages_from: c_int) -> bool {
    true
}
