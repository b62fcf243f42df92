//! From decisions to a program: BPF building blocks, and the binary search over call numbers.
//!
//! Source: the kernel's `Documentation/networking/filter.rst`: a classic BPF program only jumps
//! forward, and conditional jumps skip at most 255 instructions.
use seccompiler::{BpfProgram, SeccompRule, sock_filter};

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

/// What happens to a call.
#[derive(PartialEq)]
pub(crate) enum Decision {
    Always(u32),
    /// In order; if none matches, the default verdict.
    Tried(Vec<(SeccompRule, u32)>),
}

/// From its first number up to the next range's first, every call gets the same decision.
pub(crate) struct Range {
    pub(crate) first: u32,
    pub(crate) decision: Decision,
}

/// A program that is written from its end, so that what a jump skips is there when the jump is written.
#[derive(Default)]
pub(crate) struct Backwards {
    reversed: Vec<sock_filter>,
}

impl Backwards {
    /// Loads a word of `struct seccomp_data`.
    pub(crate) fn load(&mut self, offset: u32) {
        self.reversed.push(sock_filter { code: LOAD_WORD, jt: 0, jf: 0, k: offset });
    }

    /// Ends the program with a verdict.
    pub(crate) fn verdict(&mut self, value: u32) {
        self.reversed.push(sock_filter { code: RETURN, jt: 0, jf: 0, k: value });
    }

    /// How long it is, counted from its end.
    pub(crate) fn len(&self) -> usize {
        self.reversed.len()
    }

    /// Runs what was written since the program was `no` long if the test holds, and what was there then if not.
    /// Both must end with a verdict.
    pub(crate) fn branch(&mut self, test: Test, value: u32, no: usize) {
        let code = test as u16;
        let yes = self.len() - no;
        if let Ok(over_yes) = u8::try_from(yes) {
            self.reversed.push(sock_filter { code, jt: 0, jf: over_yes, k: value });
        } else {
            let over_yes = u32::try_from(yes).unwrap_or(u32::MAX);
            self.reversed.push(sock_filter { code: JUMP_ALWAYS, jt: 0, jf: 0, k: over_yes });
            self.reversed.push(sock_filter { code, jt: 1, jf: 0, k: value });
        }
    }

    /// Finds the range of the loaded number and decides. Ranges are in order; the first begins at 0.
    pub(crate) fn search(&mut self, ranges: &[Range], default: u32) {
        if let [range] = ranges {
            return self.decide(&range.decision, default);
        }
        let (lower, upper) = ranges.split_at(ranges.len() / 2);
        if let Some(middle) = upper.first() {
            self.search(lower, default);
            let below = self.len();
            self.search(upper, default);
            self.branch(Test::AtLeast, middle.first, below);
        }
    }

    fn decide(&mut self, decision: &Decision, default: u32) {
        match decision {
            Decision::Always(verdict) => self.verdict(*verdict),
            Decision::Tried(rules) => {
                self.verdict(default);
                for (rule, verdict) in rules.iter().rev() {
                    // A rule that does not match jumps over the one instruction behind it.
                    self.verdict(*verdict);
                    self.reversed.extend(BpfProgram::from(rule.clone()).into_iter().rev());
                }
            }
        }
    }

    /// The program, in the order in which it runs.
    pub(crate) fn finish(mut self) -> Vec<sock_filter> {
        self.reversed.reverse();
        self.reversed
    }
}
