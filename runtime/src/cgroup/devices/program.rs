//! The policy as an eBPF program, which the kernel runs for each `mknod` and `open` in a v2 group.
//!
//! One block for each exception: tests that jump behind the block when they fail, then the answer. After the
//! last block comes the answer for everything else.
//!
//! Sources: the kernel's `bpf/standardization/instruction-set.rst`, and `bpf_cgroup_dev_ctx` in `linux/bpf.h`.
use super::{Access, DevicePolicy, Exception, NodeKind};

impl DevicePolicy {
    /// v2: an eBPF program that returns 1 to allow and 0 to refuse.
    pub fn program(&self) -> Vec<u64> {
        let mut program = vec![
            load(KIND, 0), // Access in the upper half, kind in the lower.
            copy(ACCESS, KIND),
            and(KIND, 0xffff),
            shift_right(ACCESS, 16),
            load(MAJOR, 4),
            load(MINOR, 8),
        ];
        for exception in &self.exceptions {
            program.extend(exception.program(!self.allows));
        }
        program.extend([set(RESULT, u32::from(self.allows)), EXIT]);
        program
    }
}

impl Exception {
    /// Ends with `allow` if the request is for this device; goes on behind itself otherwise.
    fn program(&self, allow: bool) -> Vec<u64> {
        let kind = match self.kind {
            NodeKind::Block => 1,     // BPF_DEVCG_DEV_BLOCK
            NodeKind::Character => 2, // BPF_DEVCG_DEV_CHAR
        };
        let access = match self.access {
            Access::ALL => None,
            // An exception to "nothing" must cover all that is asked for; one to "everything" refuses
            // whatever touches it.
            access if allow => Some(Test::AsksOnlyFor(access)),
            access => Some(Test::AsksFor(access)),
        };
        let tests = [
            Some(Test::Equal(KIND, kind)),
            access,
            self.major.map(|number| Test::Equal(MAJOR, number)),
            self.minor.map(|number| Test::Equal(MINOR, number)),
        ];
        let mut program = vec![set(RESULT, u32::from(allow)), EXIT];
        // Backwards: a test that fails jumps over all that is behind it.
        for test in tests.iter().rev().flatten() {
            let mut code = test.code(program.len());
            code.append(&mut program);
            program = code;
        }
        program
    }
}

#[derive(Clone, Copy)]
struct Register(u8);
const RESULT: Register = Register(0);
const CONTEXT: Register = Register(1);
const KIND: Register = Register(2);
const ACCESS: Register = Register(3);
const MAJOR: Register = Register(4);
const MINOR: Register = Register(5);
const SCRATCH: Register = Register(6);
const NONE: Register = Register(0);

const EXIT: u64 = instruction(0x95, NONE, NONE, 0, 0);

/// Goes on if it holds, and jumps if not.
enum Test {
    Equal(Register, u32),
    AsksOnlyFor(Access),
    AsksFor(Access),
}

impl Test {
    fn code(&self, over: usize) -> Vec<u64> {
        // One exception is some ten instructions long.
        let over = u16::try_from(over).unwrap_or(u16::MAX);
        let jump_if_equal = |register, value| instruction(0x16, register, NONE, over, value);
        let jump_unless_equal = |register, value| instruction(0x56, register, NONE, over, value);
        match *self {
            Self::Equal(register, value) => vec![jump_unless_equal(register, value)],
            Self::AsksOnlyFor(access) => {
                vec![copy(SCRATCH, ACCESS), and(SCRATCH, !u32::from(access.0)), jump_unless_equal(SCRATCH, 0)]
            }
            Self::AsksFor(access) => {
                vec![copy(SCRATCH, ACCESS), and(SCRATCH, access.0.into()), jump_if_equal(SCRATCH, 0)]
            }
        }
    }
}

/// A 32-bit word of the context.
const fn load(into: Register, offset: u16) -> u64 {
    instruction(0x61, into, CONTEXT, offset, 0)
}

const fn copy(into: Register, from: Register) -> u64 {
    instruction(0xbc, into, from, 0, 0)
}

const fn set(register: Register, value: u32) -> u64 {
    instruction(0xb4, register, NONE, 0, value)
}

const fn and(register: Register, mask: u32) -> u64 {
    instruction(0x54, register, NONE, 0, mask)
}

const fn shift_right(register: Register, bits: u32) -> u64 {
    instruction(0x74, register, NONE, 0, bits)
}

/// Opcode, destination and source, offset, immediate, from the lowest byte up.
const fn instruction(code: u8, to: Register, from: Register, offset: u16, immediate: u32) -> u64 {
    code as u64
        | (to.0 as u64) << 8
        | (from.0 as u64) << 12
        | (offset as u64) << 16
        | (immediate as u64) << 32
}
