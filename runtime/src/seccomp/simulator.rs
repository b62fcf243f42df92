//! For tests: what the kernel would do with a filter, and what the profile says it should.
//!
//! Both are written from their definitions and share nothing with the compiler: the machine from
//! the kernel's `Documentation/networking/filter.rst`, the meaning from the head of `seccomp.rs`.
use super::Filter;
use super::names::{I386, X86_64};
use crate::spec::{Action, Architecture, Condition, Operator, Seccomp};

/// One system call, as `struct seccomp_data` has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) arch: u32,
    pub(crate) number: u32,
    pub(crate) arguments: [u64; 6],
}

const ENOSYS: u32 = 0x0005_0026;

/// Runs the program.
pub(crate) fn run(filter: &Filter, call: Call) -> u32 {
    let mut accumulator = 0;
    let mut next = 0;
    loop {
        let instruction = &filter.program[next];
        next += 1;
        let k = instruction.k;
        let jump = |holds: bool| usize::from(if holds { instruction.jt } else { instruction.jf });
        match instruction.code {
            0x20 => accumulator = word(call, k),
            0x54 => accumulator &= k,
            0x05 => next += k as usize,
            0x15 => next += jump(accumulator == k),
            0x25 => next += jump(accumulator > k),
            0x35 => next += jump(accumulator >= k),
            0x06 => return k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn word(call: Call, offset: u32) -> u32 {
    let argument = || {
        let position = offset as usize - 16;
        let bytes = call.arguments.map(u64::to_ne_bytes).concat();
        u32::from_ne_bytes(bytes[position..position + 4].try_into().expect("four bytes"))
    };
    match offset {
        0 => call.number,
        4 => call.arch,
        _ => argument(),
    }
}

/// Reads the profile, rule by rule.
pub(crate) fn meaning(profile: &Seccomp, call: Call) -> u32 {
    let default = profile.default_action.verdict(profile.default_errno);
    let abi = match call.arch {
        arch if arch == X86_64.audit_arch => &X86_64,
        arch if arch == I386.audit_arch && profile.architectures.contains(&Architecture::X86) => &I386,
        _ => return ENOSYS,
    };
    if call.number & 0x4000_0000 != 0 {
        return ENOSYS;
    }
    if abi.calls().all(|(number, _)| number < call.number) {
        let lets_through = [Action::Allow, Action::Log, Action::Trace];
        return if lets_through.contains(&profile.default_action) { default } else { ENOSYS };
    }
    let Some((_, name)) = abi.calls().find(|&(number, _)| number == call.number) else { return default };

    let mut conditional = None;
    for entry in &profile.rules {
        let verdict = entry.action.verdict(entry.errno);
        if verdict == default || !entry.names.iter().any(|listed| listed == name) {
            continue;
        }
        let conditions = &entry.conditions;
        if conditions.is_empty() {
            return verdict;
        }
        let narrow = |argument| call.arch == I386.audit_arch || is_int(name, argument);
        let mut results = conditions.iter().map(|condition| holds(condition, call, narrow(condition.index)));
        let once = |c: &Condition| conditions.iter().filter(|o| o.index == c.index).count() == 1;
        let matches = if conditions.iter().all(once) { results.all(|r| r) } else { results.any(|r| r) };
        if matches && conditional.is_none() {
            conditional = Some(verdict);
        }
    }
    conditional.unwrap_or(default)
}

/// Among the arguments that the tests look at: manual pages of section 2.
fn is_int(name: &str, argument: usize) -> bool {
    [("socket", 0), ("socket", 1), ("socket", 2), ("personality", 0), ("ioctl", 0), ("ioctl", 1)]
        .contains(&(name, argument))
}

fn holds(condition: &Condition, call: Call, narrow: bool) -> bool {
    let width = if narrow { u64::from(u32::MAX) } else { u64::MAX };
    let argument = call.arguments[condition.index] & width;
    let value = condition.value & width;
    match condition.operator {
        Operator::NotEqual => argument != value,
        Operator::Less => argument < value,
        Operator::LessOrEqual => argument <= value,
        Operator::Equal => argument == value,
        Operator::GreaterOrEqual => argument >= value,
        Operator::Greater => argument > value,
        Operator::MaskedEqual => argument & value == condition.value_two.unwrap_or(0) & value,
    }
}
