//! From an OCI profile to a filter: pure.
use super::Filter;
use super::check::{CompileError, Fallback, MAX_INSTRUCTIONS, NO_SUCH_CALL, Rules, check, flags};
use super::names::{Abi, I386, X86_64};
use super::tree::{self, Backwards, Decision, Range, Test};
use crate::spec::{Architecture, Condition, Operator, Seccomp};
use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule, sock_filter};

/// Numbers from here on belong to the x32 instruction set (`__X32_SYSCALL_BIT`).
const X32_BIT: u32 = 0x4000_0000;

/// Arguments that a 64-bit kernel reads as `int` or `unsigned int`, by call and argument index,
/// among those that profiles have conditions on (`SYSCALL_DEFINE` in the kernel's sources).
const INT_ARGUMENTS: &[(&str, &[usize])] = &[
    ("fcntl", &[0, 1]),
    ("ioctl", &[0, 1]),
    ("kcmp", &[2]),
    ("keyctl", &[0]),
    ("personality", &[0]),
    ("prctl", &[0]),
    ("setns", &[0, 1]),
    ("socket", &[0, 1, 2]),
    ("socketpair", &[0, 1, 2]),
];

/// Translates a profile. What it means is said at the head of [`crate::seccomp`].
///
/// # Errors
///
/// Every [`CompileError`] that there is: each names what cannot be honoured.
pub fn compile(profile: &Seccomp) -> Result<Filter, Vec<CompileError>> {
    let mut errors = Vec::new();
    let default = Fallback::of(profile).map_err(|error| errors.push(error)).ok();
    let mut rules = Vec::new();
    for (index, entry) in profile.rules.iter().enumerate() {
        match check(entry, index) {
            Ok(rule) => rules.push(rule),
            Err(error) => errors.push(error),
        }
    }
    let flags = flags(profile).map_err(|error| errors.push(error)).ok();
    match (default, flags) {
        (Some(default), Some(flags)) if errors.is_empty() => {
            let program = program(profile, &rules, &default).map_err(|error| vec![error])?;
            Ok(Filter { program, flags })
        }
        _ => Err(errors),
    }
}

fn program(
    profile: &Seccomp,
    rules: &[Rules<'_>],
    default: &Fallback,
) -> Result<Vec<sock_filter>, CompileError> {
    let mut program = Backwards::default();
    program.verdict(NO_SUCH_CALL);
    let other = program.len();
    if profile.architectures.contains(&Architecture::X86) {
        by_number(&I386, rules, default, &mut program)?;
    } else {
        program.verdict(NO_SUCH_CALL);
    }
    program.branch(Test::Equal, I386.audit_arch, other);
    let compat = program.len();
    by_number(&X86_64, rules, default, &mut program)?;
    program.branch(Test::Equal, X86_64.audit_arch, compat);
    program.load(tree::ARCH);
    if program.len() > MAX_INSTRUCTIONS {
        return Err(CompileError::TooLong { instructions: program.len() });
    }
    Ok(program.finish())
}

/// Loads the number, searches its range, decides. Numbers of equal decision are one range.
fn by_number(
    abi: &Abi,
    rules: &[Rules<'_>],
    default: &Fallback,
    program: &mut Backwards,
) -> Result<(), CompileError> {
    let mut ranges = decisions(abi, rules, default.verdict)?;
    let beyond = ranges.last().map_or(0, |newest| newest.first + 1);
    ranges.dedup_by(|next, range| next.decision == range.decision);
    ranges.push(Range { first: beyond, decision: Decision::Always(default.unknown) });
    ranges.push(Range { first: X32_BIT, decision: Decision::Always(NO_SUCH_CALL) });
    program.search(&ranges, default.verdict);
    program.load(tree::NUMBER);
    Ok(())
}

/// One range for each number up to the newest call's.
fn decisions(abi: &Abi, rules: &[Rules<'_>], default: u32) -> Result<Vec<Range>, CompileError> {
    let numbers = abi.numbers();
    let newest = numbers.values().max().copied().unwrap_or(0);
    let undecided = |first| Range { first, decision: Decision::Tried(Vec::new()) };
    let mut ranges: Vec<Range> = (0..=newest).map(undecided).collect();
    for rule in rules.iter().filter(|rule| rule.verdict != default) {
        for name in rule.names {
            let range = numbers.get(name.as_str()).and_then(|&number| ranges.get_mut(number as usize));
            let Some(Range { decision, .. }) = range else { continue };
            match decision {
                Decision::Always(_) => {}
                Decision::Tried(_) if rule.alternatives.is_empty() => {
                    *decision = Decision::Always(rule.verdict)
                }
                Decision::Tried(earlier) => {
                    for conditions in &rule.alternatives {
                        let translated = translate(abi, name, conditions);
                        let at = || format!("{}/args", rule.at);
                        let translated = translated.ok_or_else(|| CompileError::Argument { at: at() })?;
                        earlier.push((translated, rule.verdict));
                    }
                }
            }
        }
    }
    Ok(ranges)
}

/// `None` for an index above 5, which is all that `seccompiler` checks here: there is a condition.
fn translate(abi: &Abi, name: &str, conditions: &[Condition]) -> Option<SeccompRule> {
    let translated = conditions.iter().map(|condition| {
        let index = u8::try_from(condition.index).ok()?;
        let (operator, value) = compare(condition);
        SeccompCondition::new(index, width(abi, name, condition.index), operator, value).ok()
    });
    SeccompRule::new(translated.collect::<Option<_>>()?).ok()
}

fn width(abi: &Abi, name: &str, argument: usize) -> SeccompCmpArgLen {
    let is_int = |(call, arguments): &(&str, &[usize])| *call == name && arguments.contains(&argument);
    if abi.audit_arch == I386.audit_arch || INT_ARGUMENTS.iter().any(is_int) {
        SeccompCmpArgLen::Dword
    } else {
        SeccompCmpArgLen::Qword
    }
}

fn compare(condition: &Condition) -> (SeccompCmpOp, u64) {
    let value = condition.value;
    match condition.operator {
        Operator::NotEqual => (SeccompCmpOp::Ne, value),
        Operator::Less => (SeccompCmpOp::Lt, value),
        Operator::LessOrEqual => (SeccompCmpOp::Le, value),
        Operator::Equal => (SeccompCmpOp::Eq, value),
        Operator::GreaterOrEqual => (SeccompCmpOp::Ge, value),
        Operator::Greater => (SeccompCmpOp::Gt, value),
        // `value` is the mask, and `valueTwo` what must be left of the argument.
        Operator::MaskedEqual => (SeccompCmpOp::MaskedEq(value), condition.value_two.unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::names;
    use super::super::simulator::{Call, meaning, run};
    use super::*;
    use crate::seccomp::check::{MAX_ERRNO, MAX_TRACE};
    use crate::spec::{Action, FilterFlag};
    use proptest::prelude::*;
    use serde_json::json;

    fn profile(raw: serde_json::Value) -> Seccomp {
        crate::spec::read(&raw).unwrap()
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        let cases = [
            (
                json!({ "defaultAction": "SCMP_ACT_NOTIFY" }),
                CompileError::Notify { at: "/defaultErrnoRet".into() },
            ),
            (
                json!({ "defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1 }),
                CompileError::UnusedErrno { at: "/defaultErrnoRet".into(), action: Action::Allow },
            ),
            (
                json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096 }),
                CompileError::Errno {
                    at: "/defaultErrnoRet".into(),
                    errno: 4096,
                    action: Action::Errno,
                    max: 4095,
                },
            ),
            (
                json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                    { "names": ["read"], "action": "SCMP_ACT_KILL", "errnoRet": 1 }
                ] }),
                CompileError::UnusedErrno { at: "/syscalls/0/errnoRet".into(), action: Action::KillThread },
            ),
            (
                json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                    { "names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [
                        { "index": 6, "value": 0, "op": "SCMP_CMP_EQ" }
                    ] }
                ] }),
                CompileError::Argument { at: "/syscalls/0/args".into() },
            ),
            (
                json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"] }),
                CompileError::Flag { flag: FilterFlag::WaitKillable },
            ),
        ];
        for (raw, expected) in cases {
            assert_eq!(compile(&profile(raw.clone())), Err(vec![expected]), "{raw}");
        }
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let rule = json!({ "names": ["read"], "action": "SCMP_ACT_NOTIFY" });
        let raw = json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096, "syscalls": [rule, rule],
            "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        });
        assert_eq!(compile(&profile(raw)).unwrap_err().len(), 4);
    }

    #[test]
    fn a_profile_with_too_many_conditions_is_refused() {
        let rule = |value: u32| {
            json!({ "names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [
            { "index": 0, "value": value, "op": "SCMP_CMP_EQ" }
        ] })
        };
        let many: Vec<_> = (0..1000).map(rule).collect();
        let result = compile(&profile(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": many })));
        assert!(matches!(result.unwrap_err()[..], [CompileError::TooLong { .. }]));
    }

    fn action() -> impl Strategy<Value = (Action, Option<u32>)> {
        prop_oneof![
            Just((Action::Allow, None)),
            Just((Action::Errno, None)),
            (0..=MAX_ERRNO).prop_map(|errno| (Action::Errno, Some(errno))),
            Just((Action::KillThread, None)),
            Just((Action::KillThread, None)),
            Just((Action::KillProcess, None)),
            Just((Action::Trap, None)),
            Just((Action::Log, None)),
            (0..=MAX_TRACE).prop_map(|data| (Action::Trace, Some(data))),
        ]
    }

    /// Values at the edges of the halves and of one another.
    fn value() -> impl Strategy<Value = u64> {
        prop_oneof![
            0..6u64,
            Just(1 << 31),
            Just(u64::from(u32::MAX)),
            Just(1 << 32),
            Just((1 << 32) + 3),
            Just(u64::MAX),
            any::<u64>(),
        ]
    }

    fn condition() -> impl Strategy<Value = serde_json::Value> {
        const OPERATORS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
        (0..3usize, value(), proptest::option::of(value()), prop::sample::select(&OPERATORS[..])).prop_map(
            |(index, value, two, operator)| {
                json!({ "index": index, "value": value, "valueTwo": two, "op": format!("SCMP_CMP_{operator}") })
            },
        )
    }

    /// Neighbouring numbers, int arguments, one name of each instruction set only, and an unknown one.
    const NAMES: [&str; 9] =
        ["read", "write", "open", "socket", "personality", "ioctl", "mmap2", "arch_prctl", "no_such_call"];

    fn rule() -> impl Strategy<Value = serde_json::Value> {
        let names = prop::sample::subsequence(&NAMES[..], 1..4);
        (names, action(), prop::collection::vec(condition(), 0..4)).prop_map(|(names, (action, errno), args)| {
            json!({ "names": names, "action": action.to_string(), "errnoRet": errno, "args": args })
        })
    }

    fn any_profile() -> impl Strategy<Value = Seccomp> {
        let architectures =
            prop::sample::subsequence(&["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"][..], 0..=3);
        (action(), architectures, prop::collection::vec(rule(), 0..12)).prop_map(
            |((action, errno), architectures, rules)| {
                profile(json!({
                    "defaultAction": action.to_string(), "defaultErrnoRet": errno, "architectures": architectures,
                    "syscalls": rules,
                }))
            },
        )
    }

    fn any_call() -> impl Strategy<Value = Call> {
        let known = |abi: &'static names::Abi| {
            let numbers: Vec<u32> = NAMES.iter().filter_map(|name| abi.number(name)).collect();
            prop::sample::select(numbers)
        };
        let number = prop_oneof![
            4 => known(&X86_64),
            2 => known(&I386),
            1 => 0..=475u32,
            1 => prop::sample::select(vec![X32_BIT - 1, X32_BIT, X32_BIT | 1, u32::MAX]),
        ];
        let arch = prop_oneof![
            4 => Just(X86_64.audit_arch), 3 => Just(I386.audit_arch), 1 => Just(0xc000_00b7), 1 => any::<u32>(),
        ];
        (arch, number, prop::array::uniform6(value())).prop_map(|(arch, number, arguments)| Call {
            arch,
            number,
            arguments,
        })
    }

    proptest! {
        #[test]
        fn a_filter_decides_as_its_profile_reads(
            profile in any_profile(),
            calls in prop::collection::vec(any_call(), 40),
        ) {
            let filter = compile(&profile).unwrap();
            for call in calls {
                prop_assert_eq!(run(&filter, call), meaning(&profile, call), "{:x?}", call);
            }
        }
    }
}
