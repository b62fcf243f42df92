//! How much freed memory a process keeps.

use crate::sys;

/// Heaps of one process. With one, a pull takes a tenth more of the processors, as its threads wait for one another.
const ARENAS: i32 = 2;

/// Makes a process that lives long and mostly waits keep little of the memory that its threads once needed: by itself
/// glibc has a heap for each of them, up to eight for each processor.
///
/// Call it before threads begin.
pub fn keep_small() {
    if !sys::heap::set_arenas(ARENAS) {
        // It only costs memory.
    }
}
