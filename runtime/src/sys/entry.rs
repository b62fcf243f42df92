//! The first code that the executable runs: it executes itself again from a copy that cannot be written (why is said in
//! `launch::self_exec`), before libc and Rust's library have set themselves up for a process that ends here anyway.
//! In a virtual machine, where each of libc's CPUID instructions is a trap, that is a tenth of a container's start.
//!
//! The linker is told of this function by `build.rs`. Nothing has been set up when it runs: no thread-local memory, no
//! `errno`, and in a static executable no address has been relocated yet. So the code here uses its stack, its
//! arguments and system calls, nothing else: no table, no string function, nothing that could panic. Where something
//! cannot be had it gives up, and `launch::self_exec` finds the executable unprotected and does what is left to do.

use std::arch::{asm, naked_asm};
use std::ffi::{CStr, c_long};
use std::mem::MaybeUninit;

use rustix::mount::OpenTreeFlags;

use super::mount::MountAttr;
use crate::mount_attr as attr;

const OWN: &CStr = c"/proc/self/exe";

/// Protects the executable, then starts the program as if nothing had been.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn docker_worker_runtime_entry() -> ! {
    // At a process's start `rsp` points to the count of arguments, aligned to 16, and `rdx` holds what libc is to call
    // at exit (System V ABI, "Process Initialization"). `protect` keeps `rbx` and the stack above itself.
    naked_asm!(
        "mov rbx, rdx",
        "mov rdi, rsp",
        "call {protect}",
        "mov rdx, rbx",
        "jmp _start",
        protect = sym protect,
    )
}

/// Does not return if it could execute the copy.
extern "C" fn protect(words: *const usize) {
    let start = Start { words };
    if !start.is_of_container() || is_on_read_only_mount() {
        return;
    }
    let tree_flags =
        (OpenTreeFlags::OPEN_TREE_CLONE.bits() | OpenTreeFlags::OPEN_TREE_CLOEXEC.bits()) as usize;
    let here = libc::AT_FDCWD.cast_unsigned() as usize;
    let Ok(tree) = call(libc::SYS_open_tree, [here, OWN.as_ptr().addr(), tree_flags, 0, 0]) else { return };
    let attributes = MountAttr {
        set: attr::RDONLY | attr::NOSUID | attr::NODEV,
        propagation: libc::MS_PRIVATE,
        clear: 0,
        user_namespace: 0,
    };
    let (address, size) = ((&raw const attributes).addr(), size_of::<MountAttr>());
    let (itself, at_itself) = (c"".as_ptr().addr(), libc::AT_EMPTY_PATH.cast_unsigned() as usize);
    if call(libc::SYS_mount_setattr, [tree, itself, at_itself, address, size]).is_ok() {
        // Returns only if it fails; then the program goes on, and `launch::self_exec` says what is wrong.
        let _failed =
            call(libc::SYS_execveat, [tree, itself, start.arguments(), start.environment(), at_itself]);
    }
    let _closed = call(libc::SYS_close, [tree, 0, 0, 0, 0]);
}

/// What the kernel has put on a new process's stack: the count of arguments, the address of each, 0, those of the
/// environment, 0. Addresses, because there is nothing that they could be converted to here.
struct Start {
    words: *const usize,
}

impl Start {
    fn word(&self, at: usize) -> usize {
        // SAFETY: `at` is at most the count that the first word gives, so this lies within the kernel's list.
        unsafe { self.words.wrapping_add(at).read() }
    }

    fn arguments(&self) -> usize {
        self.words.wrapping_add(1).addr()
    }

    fn environment(&self) -> usize {
        self.words.wrapping_add(self.word(0) + 2).addr()
    }

    /// Whether one of the arguments is `run`, `create` or `exec`. It need not be the command: to protect needlessly costs
    /// a moment only.
    fn is_of_container(&self) -> bool {
        let mut at = 1;
        while at <= self.word(0) {
            let word = self.word(at);
            if is(word, *b"run\0") || is(word, *b"create\0") || is(word, *b"exec\0") {
                return true;
            }
            at += 1;
        }
        false
    }
}

/// Whether the argument at this address is `name`, its NUL included.
fn is<const LENGTH: usize>(argument: usize, name: [u8; LENGTH]) -> bool {
    for (address, byte) in (argument..).zip(name) {
        // SAFETY: all bytes before were equal and none was the NUL that ends the argument.
        if unsafe { std::ptr::with_exposed_provenance::<u8>(address).read() } != byte {
            return false;
        }
    }
    true
}

fn is_on_read_only_mount() -> bool {
    // `struct statfs` of asm/statfs.h on this architecture: 15 words, the eleventh of which holds the mount's flags. That
    // of libc hides it.
    let mut answer = MaybeUninit::<[u64; 15]>::uninit();
    let read = call(libc::SYS_statfs, [OWN.as_ptr().addr(), answer.as_mut_ptr().addr(), 0, 0, 0]);
    if read.is_err() {
        return false;
    }
    // SAFETY: the kernel has filled it.
    let [.., flags, _, _, _, _] = unsafe { answer.assume_init() };
    flags & libc::ST_RDONLY != 0
}

/// A system call, without libc, which keeps its error in memory that does not exist yet.
fn call(number: c_long, [a, b, c, d, e]: [usize; 5]) -> Result<usize, ()> {
    let answer: c_long;
    // SAFETY: `syscall` clobbers rcx and r11 only. Each caller gives what its call takes, in memory that lives past it.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => answer,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    usize::try_from(answer).map_err(|_| ())
}
