//! Which device nodes a container may make and open.
//!
//! Having a node is not enough: the kernel asks the group at `mknod` and at `open`. v1 has two files for
//! rules, v2 runs a program of ours ([`DevicePolicy::program`]); both are fed from one policy.
//!
//! Source: the kernel's `admin-guide/cgroup-v1/devices.rst`.
mod program;

use super::setting::Setting;
use crate::spec::{DeviceRule, DeviceType};
use std::fmt;

/// Added after the rules of the Spec, as runc does: making any node, and using the harmless ones.
const ALWAYS: [(NodeKind, Option<u32>, Option<u32>, Access); 10] = [
    (NodeKind::Character, None, None, Access::MAKE),
    (NodeKind::Block, None, None, Access::MAKE),
    (NodeKind::Character, Some(1), Some(3), Access::ALL), // null
    (NodeKind::Character, Some(1), Some(5), Access::ALL), // zero
    (NodeKind::Character, Some(1), Some(7), Access::ALL), // full
    (NodeKind::Character, Some(1), Some(8), Access::ALL), // random
    (NodeKind::Character, Some(1), Some(9), Access::ALL), // urandom
    (NodeKind::Character, Some(5), Some(0), Access::ALL), // tty
    (NodeKind::Character, Some(5), Some(2), Access::ALL), // ptmx
    (NodeKind::Character, Some(136), None, Access::ALL),  // pts/*
];

/// What the group allows: everything but the exceptions, or nothing but them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePolicy {
    allows: bool,
    exceptions: Vec<Exception>,
}

/// Why a rule of the Spec was refused. `index` counts `/linux/resources/devices`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DeviceRuleError {
    /// Letters other than r, w, m, or none.
    #[error("set /devices/{index}/access: {access:?} is not made of r (read), w (write) and m (mknod)")]
    Access {
        /// Which rule.
        index: usize,
        /// As given.
        access: String,
    },
    /// Nodes that belong to no driver.
    #[error("set /devices/{index}/type: a rule is for \"c\", \"b\" or \"a\" (both) devices")]
    Type {
        /// Which rule.
        index: usize,
    },
    /// Not a device number.
    #[error("set /devices/{index}: {number} is not a device number; give 0 or more, or leave it out for all")]
    Number {
        /// Which rule.
        index: usize,
        /// As given.
        number: i64,
    },
    /// The kernel's list of exceptions cannot say "these, but not that one".
    #[error(
        "set /devices/{index}: it takes back a part of an earlier rule ({earlier}), which cgroup rules cannot express; \
         write the earlier rule without that part"
    )]
    PartOfEarlier {
        /// Which rule.
        index: usize,
        /// The earlier one, as the kernel prints it.
        earlier: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NodeKind {
    Character,
    Block,
}

/// `DEVCG_ACC_*`, with the values that an eBPF program is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Access(u8);

impl Access {
    const MAKE: Self = Self(1);
    const READ: Self = Self(2);
    const WRITE: Self = Self(4);
    const ALL: Self = Self(7);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Exception {
    kind: NodeKind,
    /// `None`: all.
    major: Option<u32>,
    minor: Option<u32>,
    access: Access,
}

impl DevicePolicy {
    /// The rules of a Spec, in order, and then [`ALWAYS`]. Without any, nothing more is allowed.
    ///
    /// # Errors
    ///
    /// [`DeviceRuleError`] names the rule.
    pub fn from_spec(rules: &[DeviceRule]) -> Result<Self, DeviceRuleError> {
        let mut policy = Self { allows: false, exceptions: Vec::new() };
        for (index, rule) in rules.iter().enumerate() {
            policy.add(index, rule)?;
        }
        for (kind, major, minor, access) in ALWAYS {
            // Where everything else is allowed too, these are, whatever the Spec took away.
            policy.note(Exception { kind, major, minor, access }, true);
        }
        Ok(policy)
    }

    fn add(&mut self, index: usize, rule: &DeviceRule) -> Result<(), DeviceRuleError> {
        let access = access(index, rule.access.as_deref().unwrap_or_default())?;
        let (major, minor) = (number(index, rule.major)?, number(index, rule.minor)?);
        let kinds: &[NodeKind] = match rule.kind {
            None | Some(DeviceType::All) => &[NodeKind::Character, NodeKind::Block],
            Some(DeviceType::Character) => &[NodeKind::Character],
            Some(DeviceType::Block) => &[NodeKind::Block],
            Some(DeviceType::Fifo) => return Err(DeviceRuleError::Type { index }),
        };
        if kinds.len() == 2 && (major, minor, access) == (None, None, Access::ALL) {
            *self = Self { allows: rule.allow, exceptions: Vec::new() };
            return Ok(());
        }
        for &kind in kinds {
            let exception = Exception { kind, major, minor, access };
            if rule.allow == self.allows {
                // It takes exceptions back: possible only for those that it covers whole.
                let cut = |earlier: &&Exception| earlier.overlaps(&exception) && !exception.covers(earlier);
                if let Some(earlier) = self.exceptions.iter().find(cut) {
                    return Err(DeviceRuleError::PartOfEarlier { index, earlier: earlier.to_string() });
                }
            }
            self.note(exception, rule.allow);
        }
        Ok(())
    }

    fn note(&mut self, exception: Exception, allow: bool) {
        if allow == self.allows {
            self.exceptions.retain(|earlier| !exception.covers(earlier));
        } else if let Some(same) =
            self.exceptions.iter_mut().find(|earlier| earlier.is_for_the_same(&exception))
        {
            same.access.0 |= exception.access.0; // As the kernel does for v1: r and w together allow rw.
        } else {
            self.exceptions.push(exception);
        }
    }

    /// v1: what to write, in order.
    pub fn settings(&self) -> Vec<Setting> {
        let (default, exceptions) =
            if self.allows { ("devices.allow", "devices.deny") } else { ("devices.deny", "devices.allow") };
        let rules = self.exceptions.iter().map(|exception| Setting::new(exceptions, exception));
        std::iter::once(Setting::new(default, "a")).chain(rules).collect()
    }
}

impl Exception {
    fn is_for_the_same(&self, other: &Self) -> bool {
        (self.kind, self.major, self.minor) == (other.kind, other.major, other.minor)
    }

    fn covers(&self, other: &Self) -> bool {
        let wider = |mine: Option<u32>, theirs| mine.is_none() || mine == theirs;
        self.kind == other.kind
            && wider(self.major, other.major)
            && wider(self.minor, other.minor)
            && self.access.0 & other.access.0 == other.access.0
    }

    fn overlaps(&self, other: &Self) -> bool {
        let meets =
            |mine: Option<u32>, theirs: Option<u32>| mine.is_none() || theirs.is_none() || mine == theirs;
        self.kind == other.kind
            && meets(self.major, other.major)
            && meets(self.minor, other.minor)
            && self.access.0 & other.access.0 != 0
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            NodeKind::Character => 'c',
            NodeKind::Block => 'b',
        };
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        write!(out, "{kind} {}:{} ", number(self.major), number(self.minor))?;
        let letters = [(Access::READ, "r"), (Access::WRITE, "w"), (Access::MAKE, "m")];
        letters
            .iter()
            .filter(|(bit, _)| self.access.0 & bit.0 != 0)
            .try_for_each(|(_, letter)| out.write_str(letter))
    }
}

fn access(index: usize, letters: &str) -> Result<Access, DeviceRuleError> {
    let bits = letters.chars().try_fold(0, |bits, letter| match letter {
        'r' => Some(bits | Access::READ.0),
        'w' => Some(bits | Access::WRITE.0),
        'm' => Some(bits | Access::MAKE.0),
        _ => None,
    });
    match bits {
        Some(0) => Ok(Access::ALL), // Left out: as in runc.
        Some(bits) => Ok(Access(bits)),
        None => Err(DeviceRuleError::Access { index, access: letters.to_owned() }),
    }
}

/// -1 is how some tools write "all".
fn number(index: usize, number: Option<i64>) -> Result<Option<u32>, DeviceRuleError> {
    match number {
        None | Some(-1) => Ok(None),
        Some(number) => {
            u32::try_from(number).map(Some).map_err(|_| DeviceRuleError::Number { index, number })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    /// A request: `c` or `b`, numbers, and letters.
    type Request = (&'static str, u32, u32, &'static str);

    fn policy(rules: &Value) -> Result<DevicePolicy, DeviceRuleError> {
        let rules: Vec<DeviceRule> = crate::spec::read(rules).unwrap();
        DevicePolicy::from_spec(&rules)
    }

    fn kind(letter: &str) -> NodeKind {
        if letter == "c" { NodeKind::Character } else { NodeKind::Block }
    }

    /// What the kernel's machine does with the program.
    fn run(program: &[u64], (letter, major, minor, letters): Request) -> bool {
        let wanted = u32::from(access(0, letters).unwrap().0);
        let kind: u32 = if letter == "b" { 1 } else { 2 };
        let context = [wanted << 16 | kind, major, minor];
        let mut registers = [0u32; 11];
        let mut next = 0;
        loop {
            let [code, operands, low, high, immediate @ ..] = program[next].to_le_bytes();
            let (to, from) = (usize::from(operands & 15), usize::from(operands >> 4));
            let offset = usize::from(u16::from_le_bytes([low, high]));
            let immediate = u32::from_le_bytes(immediate);
            next += 1;
            match code {
                0x61 => registers[to] = context[offset / 4],
                0xbc => registers[to] = registers[from],
                0xb4 => registers[to] = immediate,
                0x54 => registers[to] &= immediate,
                0x74 => registers[to] >>= immediate,
                0x16 if registers[to] == immediate => next += offset,
                0x56 if registers[to] != immediate => next += offset,
                0x16 | 0x56 => {}
                0x95 => return registers[0] == 1,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    /// What the v1 documentation says of the policy.
    fn meaning(policy: &DevicePolicy, (letter, major, minor, letters): Request) -> bool {
        let access = access(0, letters).unwrap();
        let asked = Exception { kind: kind(letter), major: Some(major), minor: Some(minor), access };
        if policy.allows {
            !policy.exceptions.iter().any(|exception| exception.overlaps(&asked))
        } else {
            policy.exceptions.iter().any(|exception| exception.covers(&asked))
        }
    }

    fn check(rules: Value, cases: &[(Request, bool)]) {
        let policy = policy(&rules).unwrap();
        for &(request, expected) in cases {
            assert_eq!(meaning(&policy, request), expected, "{rules}: {request:?}");
            assert_eq!(run(&policy.program(), request), expected, "{rules}: {request:?} in the program");
        }
    }

    #[test]
    fn without_rules_only_harmless_devices_open() {
        check(
            json!([]),
            &[
                (("c", 1, 3, "rw"), true),
                (("c", 136, 7, "rw"), true),
                (("c", 5, 2, "rwm"), true),
                (("b", 8, 0, "m"), true),
                (("b", 8, 0, "r"), false),
                (("b", 8, 0, "rm"), false),
                (("b", 1, 3, "r"), false),
                (("c", 1, 1, "r"), false),
                (("c", 10, 229, "rw"), false),
            ],
        );
    }

    #[test]
    fn a_device_can_be_added_for_some_uses() {
        check(
            json!([{ "allow": false, "access": "rwm" }, { "allow": true, "type": "c", "major": 10, "minor": 232, "access": "r" }]),
            &[(("c", 10, 232, "r"), true), (("c", 10, 232, "rw"), false), (("c", 10, 233, "r"), false)],
        );
    }

    #[test]
    fn rules_for_one_device_add_up() {
        let rule = |access| json!({ "allow": true, "type": "b", "major": 8, "minor": 1, "access": access });
        check(json!([rule("r"), rule("w")]), &[(("b", 8, 1, "rw"), true), (("b", 8, 1, "rwm"), false)]);
    }

    #[test]
    fn everything_but_one_device() {
        check(
            json!([{ "allow": true, "access": "rwm" }, { "allow": false, "type": "b", "major": 8, "access": "w" }]),
            &[
                (("b", 8, 3, "r"), true),
                (("b", 8, 3, "w"), false),
                (("b", 8, 3, "rw"), false),
                (("b", 9, 3, "rwm"), true),
            ],
        );
    }

    #[test]
    fn a_later_rule_for_everything_starts_anew() {
        let rules = json!([
            { "allow": true, "type": "b", "major": 8, "access": "rwm" },
            { "allow": false, "type": "a", "major": -1, "minor": -1, "access": "rwm" },
        ]);
        check(rules, &[(("b", 8, 0, "r"), false)]);
    }

    #[test]
    fn what_rules_cannot_express_is_refused() {
        let part = DeviceRuleError::PartOfEarlier { index: 1, earlier: "b 8:* rwm".into() };
        let cases = [
            (
                json!([{ "allow": true, "type": "b", "major": 8 }, { "allow": false, "type": "b", "major": 8, "minor": 1 }]),
                part,
            ),
            (
                json!([{ "allow": true, "access": "x" }]),
                DeviceRuleError::Access { index: 0, access: "x".into() },
            ),
            (json!([{ "allow": true, "type": "p" }]), DeviceRuleError::Type { index: 0 }),
            (json!([{ "allow": true, "major": -2 }]), DeviceRuleError::Number { index: 0, number: -2 }),
        ];
        for (rules, expected) in cases {
            assert_eq!(policy(&rules), Err(expected), "{rules}");
        }
    }

    #[test]
    fn v1_is_told_the_default_first() {
        let text =
            |rules| policy(&rules).unwrap().settings().iter().map(ToString::to_string).collect::<Vec<_>>();
        let none = text(json!([]));
        assert_eq!(
            none[..3],
            [r#"devices.deny="a""#, r#"devices.allow="c *:* m""#, r#"devices.allow="b *:* m""#]
        );
        assert_eq!(none[3], r#"devices.allow="c 1:3 rwm""#);
        assert_eq!(text(json!([{ "allow": true }])), [r#"devices.allow="a""#]);
    }

    fn any_rule() -> impl Strategy<Value = Value> {
        let number = || proptest::option::of(0..3u32);
        let letters = prop::sample::select(vec!["r", "w", "m", "rw", "rwm"]);
        (any::<bool>(), prop::sample::select(vec!["a", "b", "c"]), number(), number(), letters).prop_map(
            |(allow, typ, major, minor, access)| {
                json!({ "allow": allow, "type": typ, "major": major, "minor": minor, "access": access })
            },
        )
    }

    fn any_request() -> impl Strategy<Value = Request> {
        let letters = prop::sample::select(vec!["r", "w", "m", "rw", "rwm"]);
        (prop::sample::select(vec!["b", "c"]), 0..4u32, 0..4u32, letters)
    }

    proptest! {
        #[test]
        fn the_program_decides_as_the_policy_reads(
            rules in prop::collection::vec(any_rule(), 0..6),
            requests in prop::collection::vec(any_request(), 20),
        ) {
            let Ok(policy) = policy(&Value::Array(rules)) else { return Ok(()) };
            let program = policy.program();
            for request in requests {
                prop_assert_eq!(run(&program, request), meaning(&policy, request), "{:?} {:?}", policy, request);
            }
        }
    }
}
