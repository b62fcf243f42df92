//! BPF building blocks, and the binary search over call numbers.
//!
//! Source: the kernel's `Documentation/networking/filter.rst`: a classic BPF program only jumps
//! forward, and conditional jumps skip at most 255 instructions.
use seccompiler::sock_filter;

const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP_ALWAYS: u16 = 0x05; // BPF_JMP | BPF_JA
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// `offsetof(struct seccomp_data, nr)`.
pub(crate) const NUMBER: u32 = 0;
/// `offsetof(struct seccomp_data, arch)`.
pub(crate) const ARCH: u32 = 4;

/// What a conditional jump compares the loaded word with.
#[derive(Clone, Copy)]
pub(crate) enum Test {
    /// BPF_JMP | BPF_JEQ | BPF_K
    Equal = 0x15,
    /// BPF_JMP | BPF_JGE | BPF_K
    AtLeast = 0x35,
}

/// Loads a word of `struct seccomp_data`.
pub(crate) fn load(offset: u32) -> sock_filter {
    sock_filter { code: LOAD_WORD, jt: 0, jf: 0, k: offset }
}

/// Ends the program with a verdict.
pub(crate) fn verdict(value: u32) -> sock_filter {
    sock_filter { code: RETURN, jt: 0, jf: 0, k: value }
}

/// Runs `yes` or `no`. Both must end with a verdict.
pub(crate) fn branch(
    test: Test,
    value: u32,
    yes: Vec<sock_filter>,
    no: Vec<sock_filter>,
) -> Vec<sock_filter> {
    let code = test as u16;
    let mut program = match u8::try_from(yes.len()) {
        Ok(over_yes) => vec![sock_filter { code, jt: 0, jf: over_yes, k: value }],
        Err(_) => {
            let over_yes = u32::try_from(yes.len()).unwrap_or(u32::MAX);
            vec![
                sock_filter { code, jt: 1, jf: 0, k: value },
                sock_filter { code: JUMP_ALWAYS, jt: 0, jf: 0, k: over_yes },
            ]
        }
    };
    program.extend(yes);
    program.extend(no);
    program
}

/// From its first number up to the next range's first, every call gets the same code.
pub(crate) struct Range {
    pub(crate) first: u32,
    pub(crate) code: Vec<sock_filter>,
}

/// Finds the range of the loaded word and runs its code. Ranges are in order; the first begins at 0.
pub(crate) fn search(mut ranges: Vec<Range>) -> Vec<sock_filter> {
    if ranges.len() <= 1 {
        return ranges.pop().map(|range| range.code).unwrap_or_default();
    }
    let upper = ranges.split_off(ranges.len() / 2);
    let first = upper.first().map_or(0, |range| range.first);
    branch(Test::AtLeast, first, search(upper), search(ranges))
}
