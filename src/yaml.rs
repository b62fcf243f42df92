//! YAML 1.2 within bounds, and what is wrong with it in words of our own.
//!
//! Task files and the configuration are read by the same rules: what a reader could take for two things stays what is
//! written, and nobody's document fills the memory.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_saphyr::Error;
use serde_saphyr::budget::BudgetBreach;

use crate::limits;
use crate::suggestion::did_you_mean;
use crate::text::excerpt;

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line and column, counted from 1, where the parser can say.
    pub place: Option<(u64, u64)>,
    /// A sentence fragment in one line.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.place {
            write!(out, "line {line}, column {column}: ")?;
        }
        out.write_str(&self.text)
    }
}

/// Reads one document.
///
/// # Errors
///
/// The first [`Problem`].
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: limits::DEFINITION_DEPTH,
            max_nodes: limits::DEFINITION_NODES,
            max_total_scalar_bytes: limits::DEFINITION_BYTES,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: limits::DEFINITION_ALIASED_NODES,
        },
        // As YAML 1.2: `yes` and `on` are words.
        strict_booleans: true,
        // What a reader could take for a number in another base stays as it is written: `MODE: 0755`.
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| Problem {
        place: error.location().map(|place| (place.line(), place.column())),
        text: describe(&error),
    })
}

/// The library's words are for whoever calls the library; these are for the author of the text.
fn describe(error: &Error) -> String {
    match error.without_snippet() {
        Error::AliasError { error, .. } => describe(error),
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("the field \"{}\" is there twice", excerpt(key))
        }
        Error::DuplicateMappingKey { key: None, .. } => "a field is there twice".to_owned(),
        Error::MultipleDocuments { .. } | Error::Budget { breach: BudgetBreach::Documents { .. }, .. } => {
            "a second document begins, and a file holds one (take the line \"---\" away)".to_owned()
        }
        Error::Budget { breach, .. } => describe_breach(breach),
        Error::AliasReplayLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayCounterOverflow { .. } => "its aliases repeat more than is allowed".to_owned(),
        Error::UnknownAnchor { .. } => "an alias names an anchor that is not there".to_owned(),
        Error::Eof { .. } => "it ends too early".to_owned(),
        Error::SerdeUnknownField { field, expected, .. } => {
            let hint = did_you_mean(field, expected);
            format!("\"{}\" is not a key that exists here ({hint})", excerpt(field))
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            format!(
                "\"{}\" is not a word that is known here ({})",
                excerpt(variant),
                did_you_mean(variant, expected)
            )
        }
        Error::SerdeMissingField { field, .. } => format!("the key \"{field}\" has to be there"),
        Error::SerdeInvalidType { unexpected, expected, .. }
        | Error::SerdeInvalidValue { unexpected, expected, .. } => {
            format!("must be {expected}, not {}", excerpt(unexpected))
        }
        Error::Unexpected { expected, .. } => format!("must be {}", kind_of_node(expected)),
        Error::InvalidScalar { ty, .. } => format!("must be {}", kind_of_number(ty)),
        Error::InvalidBooleanStrict { .. } => "must be true or false".to_owned(),
        Error::NullIntoString { .. } => "must be a text; leave the key out where there is none".to_owned(),
        Error::NonFiniteFloat { value, .. } => {
            format!("\"{}\" is not a number that JSON knows", excerpt(value))
        }
        other => parsers_own(other),
    }
}

fn describe_breach(breach: &BudgetBreach) -> String {
    match breach {
        BudgetBreach::Depth { .. } => {
            format!("objects and lists are nested more than {} deep", limits::DEFINITION_DEPTH)
        }
        BudgetBreach::ScalarBytes { .. } => {
            format!("its texts have more than {} bytes together", limits::DEFINITION_BYTES)
        }
        BudgetBreach::Aliases { .. } | BudgetBreach::Anchors { .. } => {
            "it has more aliases than are allowed".to_owned()
        }
        _ => format!("it has more than {} values", limits::DEFINITION_NODES),
    }
}

/// What a value has to be, by the parser's name of what it begins with.
fn kind_of_node(expected: &str) -> &'static str {
    if expected.contains("mapping") {
        "an object, with a key and a value each"
    } else if expected.contains("sequence") {
        "a list"
    } else {
        "a single value"
    }
}

/// What a number has to be, by the name of its type.
fn kind_of_number(kind: &str) -> &'static str {
    match kind {
        "u32" => "a whole number from 0 to 4294967295",
        _ if kind.starts_with('u') => "a whole number of 0 or more",
        _ if kind.starts_with('f') => "a number",
        _ => "a whole number",
    }
}

/// What the parser says of a text that is no YAML, without the place at its end, which stands in front in ours.
fn parsers_own(error: &Error) -> String {
    let message = error.to_string();
    let line = message.lines().next().unwrap_or_default();
    let problem = line.rsplit_once(" at line ").map_or(line, |(problem, _)| problem);
    excerpt(problem).to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;

    fn check<T: DeserializeOwned + fmt::Debug>(text: &str, expected: &str) {
        let problem = read::<T>(text).unwrap_err().to_string();
        assert!(problem.starts_with(expected), "{text:?}: {problem}");
        for word in ["Policy", "budget", "serde", "deserialize", "Option"] {
            assert!(!problem.contains(word), "{text:?}: {problem}");
        }
    }

    #[test]
    fn a_problem_is_said_in_words_of_our_own_with_its_place() {
        check::<Value>("a: 1\nb: 2\na: 3\n", "line 3, column 1: the field \"a\" is there twice");
        check::<Value>("a: 1\n---\nb: 2\n", "line 2, column 1: a second document begins");
        check::<Value>("a: *b\n", "line 1, column 4: an alias names an anchor that is not there");
        check::<Value>("a: .nan\n", "line 1, column 4: \".nan\" is not a number that JSON knows");
        check::<Value>("a: [b\n", "line 1, column 4: unclosed bracket '['");
        check::<Value>(&format!("a: {}{}", "[".repeat(100), "]".repeat(100)), "line 1, column");
        check::<BTreeMap<String, u64>>("a: -1\n", "line 1, column 4: must be a whole number of 0 or more");
        check::<BTreeMap<String, bool>>("a: yes\n", "line 1, column 4: must be true or false");
        check::<BTreeMap<String, String>>("a: [x]\n", "line 1, column 4: must be a single value");
        check::<BTreeMap<String, String>>("- a\n", "line 1, column 1: must be an object");
        check::<BTreeMap<String, Vec<u8>>>("a: 1\n", "line 1, column 4: must be a list");
        check::<BTreeMap<String, String>>("a: ~\n", "line 1, column 4: must be a text; leave the key out");
    }
}
