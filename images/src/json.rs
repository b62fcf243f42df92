//! JSON from outside: parsed with a place for each mistake, and in messages no longer than a line.

use std::fmt;

use serde::Deserialize;

/// Characters of a text of others that a message repeats.
const SHOWN: usize = 120;

/// What is wrong with a document, and where. Both may hold words of the document: they are escaped
/// and short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonProblem {
    /// Where in the document, e.g. `config.Env[2]`.
    pub place: String,
    /// What is wrong there.
    pub problem: String,
}

impl fmt::Display for JsonProblem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "at {}: {}", self.place, self.problem)
    }
}

/// Parses JSON and says where it went wrong.
pub(crate) fn parse_json<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, JsonProblem> {
    let problem = |place: &str, error: &serde_json::Error| JsonProblem {
        place: shortened(place),
        problem: shortened(&error.to_string()),
    };
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| problem(&error.path().to_string(), error.inner()))?;
    deserializer.end().map_err(|error| problem(".", &error))?;
    Ok(value)
}

/// A text of others for a message: escaped, its middle left out where it is long, since the end of a
/// message or path says most.
pub(crate) fn shortened(text: &str) -> String {
    let start: String = text.chars().take(SHOWN).collect();
    if start.len() == text.len() {
        return start.escape_debug().to_string();
    }
    let (start, end) = (text.chars().take(SHOWN / 2), text.chars().rev().take(SHOWN / 2));
    let end: Vec<char> = end.collect();
    let (start, end): (String, String) = (start.collect(), end.iter().rev().collect());
    format!("{}…{}", start.escape_debug(), end.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_or_value_makes_a_message_long_or_breaks_its_line() {
        #[derive(Debug, Deserialize)]
        #[expect(dead_code, reason = "only parsed")]
        struct Document {
            labels: std::collections::BTreeMap<String, u8>,
        }
        let long = "k\\n".repeat(1 << 20);
        for json in [format!(r#"{{"labels":{{"{long}":"x"}}}}"#), format!(r#"{{"labels":"{long}"}}"#)] {
            let problem = parse_json::<Document>(json.as_bytes()).unwrap_err().to_string();
            assert!(problem.len() < 1200 && !problem.contains('\n'), "{}", problem.len());
            assert!(problem.starts_with("at labels") && problem.contains("line 1 column"), "{problem}");
        }
    }
}
