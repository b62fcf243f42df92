//! `payload.command` and `payload.env`: what execve(2) will be given.

use std::collections::BTreeMap;

use serde_json::{Number, Value};

use crate::document::finding::Findings;
use crate::document::reader::Place;
use crate::limits;
use crate::payload::env::is_reserved;
use crate::text::excerpt;

/// Reads `payload.command`.
pub(super) fn read_command(place: Option<Place<'_>>, findings: &mut Findings) -> Vec<String> {
    let Some(place) = place else { return Vec::new() };
    let Some(words) = read_words(&place, findings) else { return Vec::new() };
    let mut total = 0;
    let mut command = Vec::new();
    for word in words {
        let Some(text) = word.string(findings) else { continue };
        check_string(text, &word, findings);
        total += text.len();
        command.push(text.to_owned());
    }
    check_total(total, &place, findings);
    command
}

fn read_words<'a>(place: &Place<'a>, findings: &mut Findings) -> Option<Vec<Place<'a>>> {
    if place.value.is_string() {
        place.expected("a list of strings", findings);
        findings.hint("for a shell: [\"/bin/sh\", \"-c\", \"…\"]");
        return None;
    }
    place.list(findings)
}

/// Reads `payload.env`. Numbers and booleans become their text, as the original made of them, with a warning.
pub(super) fn read_env(place: Option<Place<'_>>, findings: &mut Findings) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let Some(object) = place.as_ref().and_then(|place| place.object(findings)) else {
        return env;
    };
    let mut total = 0;
    for (name, place) in object.members() {
        if name.is_empty() || name.contains(['=', '\0']) {
            place.refuse(format!("\"{}\" cannot be the name of a variable", excerpt(name)), findings);
            findings.hint("a name has at least one character, and no \"=\" or NUL");
        }
        let Some(value) = read_value(&place, findings) else { continue };
        check_string(&value, &place, findings);
        if is_reserved(name) {
            let message =
                "is not passed on: only the worker sets this variable, where its configuration has a value";
            findings.warning(place.pointer.clone(), message);
        }
        total += name.len() + value.len();
        env.insert(name.to_owned(), value);
    }
    if let Some(place) = place {
        check_total(total, &place, findings);
    }
    env
}

fn read_value(place: &Place<'_>, findings: &mut Findings) -> Option<String> {
    let text = match place.value {
        Value::Number(number) => as_javascript(number),
        Value::Bool(flag) => flag.to_string(),
        _ => return place.string(findings).map(str::to_owned),
    };
    findings
        .warning(place.pointer.clone(), format!("is not a string; the variable gets the text \"{text}\""));
    findings.hint("put it in quotes");
    Some(text)
}

/// A number as JavaScript makes a string of it: `1` for 1.0, `1e+21` for 1e21.
fn as_javascript(number: &Number) -> String {
    let Some(float) = number.as_f64().filter(|_| number.is_f64()) else {
        return number.to_string();
    };
    let plain = float == 0.0 || (1e-6..1e21).contains(&float.abs());
    let text = if plain { float.abs().to_string() } else { format!("{:e}", float.abs()) };
    let text = if float.abs() >= 1e21 { text.replacen('e', "e+", 1) } else { text };
    if float < 0.0 { format!("-{text}") } else { text }
}

/// One argument or value: what no program could be given is refused here, not at its start.
fn check_string(text: &str, place: &Place<'_>, findings: &mut Findings) {
    if text.contains('\0') {
        place.refuse("must not have NUL characters", findings);
    }
    if text.len() >= limits::EXEC_STRING_BYTES {
        place.refuse(format!("must be shorter than {} bytes", limits::EXEC_STRING_BYTES), findings);
        findings.hint("put long texts into a file");
    }
}

fn check_total(bytes: usize, place: &Place<'_>, findings: &mut Findings) {
    if bytes > limits::EXEC_BYTES {
        place.refuse(format!("must be at most {} bytes long in all", limits::EXEC_BYTES), findings);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_number_becomes_the_text_that_javascript_makes_of_it() {
        let cases = [
            (json!(1), "1"),
            (json!(1.0), "1"),
            (json!(-0.5), "-0.5"),
            (json!(-0.0), "0"),
            (json!(0.000001), "0.000001"),
            (json!(0.0000001), "1e-7"),
            (json!(1e20), "100000000000000000000"),
            (json!(1e21), "1e+21"),
            (json!(-1.5e300), "-1.5e+300"),
        ];
        for (value, expected) in cases {
            let Value::Number(number) = &value else { panic!("{value}") };
            assert_eq!(as_javascript(number), expected, "{value}");
        }
    }
}
