//! Reading a JSON document that a stranger wrote: each step says what it expects, and every disappointment becomes a
//! finding with its place instead of an end to the reading.

use serde_json::{Map, Value};

use crate::document::finding::{Findings, pointer_to};
use crate::suggestion::did_you_mean;
use crate::text::excerpt;
use crate::timestamp::Timestamp;

/// An object of the document and its place.
#[derive(Clone, Debug)]
pub(crate) struct Object<'a> {
    members: &'a Map<String, Value>,
    pointer: String,
}

/// A value of the document and its place.
#[derive(Clone, Debug)]
pub(crate) struct Place<'a> {
    /// The value.
    pub(crate) value: &'a Value,
    /// Where it is (RFC 6901).
    pub(crate) pointer: String,
}

impl<'a> Object<'a> {
    /// The place of a member, if it is there.
    pub(crate) fn member(&self, key: &str) -> Option<Place<'a>> {
        let value = self.members.get(key)?;
        Some(Place { value, pointer: self.pointer_to(key) })
    }

    /// All members.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&'a str, Place<'a>)> {
        self.members.iter().map(|(key, value)| (key.as_str(), Place { value, pointer: self.pointer_to(key) }))
    }

    /// The member, or an error that says that it must be there.
    pub(crate) fn required(&self, key: &str, findings: &mut Findings) -> Option<Place<'a>> {
        let member = self.member(key);
        if member.is_none() {
            findings.error(self.pointer.clone(), format!("must have the field {key:?}"));
        }
        member
    }

    /// An error for each member that is not one of `known`, with the nearest known name as the hint.
    pub(crate) fn refuse_unknown(&self, known: &[&str], findings: &mut Findings) {
        for (key, place) in self.members() {
            if !known.contains(&key) {
                findings
                    .error(place.pointer, format!("\"{}\" is not a field that exists here", excerpt(key)));
                findings.hint(did_you_mean(key, known));
            }
        }
    }

    fn pointer_to(&self, key: &str) -> String {
        pointer_to(&self.pointer, key)
    }
}

impl<'a> Place<'a> {
    /// The document itself.
    pub(crate) fn root(value: &'a Value, pointer: &str) -> Place<'a> {
        Place { value, pointer: pointer.to_owned() }
    }

    /// An error here: `message` follows the pointer.
    pub(crate) fn refuse(&self, message: impl Into<String>, findings: &mut Findings) {
        findings.error(self.pointer.clone(), message);
    }

    /// An error here that says what was expected and what was found.
    pub(crate) fn expected(&self, what: &str, findings: &mut Findings) {
        self.refuse(format!("must be {what}, not {}", kind_of(self.value)), findings);
        if self.value.is_null() {
            findings.hint("leave the field out");
        }
    }

    /// The object here.
    pub(crate) fn object(&self, findings: &mut Findings) -> Option<Object<'a>> {
        let Value::Object(members) = self.value else {
            self.expected("an object", findings);
            return None;
        };
        Some(Object { members, pointer: self.pointer.clone() })
    }

    /// The elements of the list here.
    pub(crate) fn list(&self, findings: &mut Findings) -> Option<Vec<Place<'a>>> {
        let Value::Array(elements) = self.value else {
            self.expected("a list", findings);
            return None;
        };
        let place = |(index, value)| Place { value, pointer: format!("{}/{index}", self.pointer) };
        Some(elements.iter().enumerate().map(place).collect())
    }

    /// The string here.
    pub(crate) fn string(&self, findings: &mut Findings) -> Option<&'a str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.expected("a string", findings);
            if self.value.is_number() || self.value.is_boolean() {
                findings.hint("put it in quotes");
            }
        }
        text
    }

    /// The boolean here.
    pub(crate) fn boolean(&self, findings: &mut Findings) -> Option<bool> {
        let flag = self.value.as_bool();
        if flag.is_none() {
            self.expected("true or false", findings);
        }
        flag
    }

    /// The point in time here.
    pub(crate) fn time(&self, findings: &mut Findings) -> Option<Timestamp> {
        let text = self.string(findings)?;
        let time = Timestamp::parse(text).ok();
        if time.is_none() {
            self.refuse(format!("\"{}\" is not a date and time", excerpt(text)), findings);
            findings.hint("write it as 2020-03-01T12:00:00.000Z");
        }
        time
    }

    /// The whole number here; `3.0` is one (JSON Schema draft 6).
    pub(crate) fn integer(&self, findings: &mut Findings) -> Option<i64> {
        let number = whole_number(self.value);
        match (number, self.value.as_str()) {
            (Some(_), _) => {}
            (None, Some(text)) => {
                self.expected("a whole number", findings);
                if text.parse::<i64>().is_ok() {
                    findings.hint("take the quotes away");
                }
            }
            (None, None) if self.value.is_number() => {
                self.refuse("must be a whole number below 2^53", findings)
            }
            (None, None) => self.expected("a whole number", findings),
        }
        number
    }
}

/// A number without a fraction that a JavaScript reader would see as the same.
fn whole_number(value: &Value) -> Option<i64> {
    const EXACT: i64 = 1 << 53;
    let number = match value.as_i64() {
        Some(number) => number,
        // `{}` prints every float without an exponent, and whole ones without a point.
        None => value.as_f64()?.to_string().parse().ok()?,
    };
    (-EXACT..=EXACT).contains(&number).then_some(number)
}

/// What a value is, for a message.
pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_whole_number_is_one_that_javascript_keeps() {
        let cases = [
            (json!(3), Some(3)),
            (json!(3.0), Some(3)),
            (json!(-1), Some(-1)),
            (json!(3_000_000_000_u64), Some(3_000_000_000)),
            (json!(3.5), None),
            (json!(1e300), None),
            (json!(9_007_199_254_740_993_u64), None),
            (json!(u64::MAX), None),
            (json!("3"), None),
            (json!(null), None),
        ];
        for (value, expected) in cases {
            assert_eq!(whole_number(&value), expected, "{value}");
        }
    }
}
