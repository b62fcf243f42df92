//! JSON from outside: parsed with a place for each mistake, and in messages no longer than a line.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

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

/// Parses JSON and says where it went wrong. Go, which other readers of the same documents are written in, takes
/// `config` for `Config` and the last of both: where that would give something else, the document is refused.
pub(crate) fn parse_json<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, JsonProblem> {
    let value = parse(json)?;
    parse::<OneSpelling>(json)?;
    Ok(value)
}

fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, JsonProblem> {
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

/// A document in which no field is spelled in two ways.
struct OneSpelling;

/// Fields whose keys are others' words, which may differ by case alone.
const FREE_KEYS: [&str; 4] = ["labels", "annotations", "volumes", "exposedports"];

impl<'de> Deserialize<'de> for OneSpelling {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OneSpelling, D::Error> {
        deserializer.deserialize_any(OneSpelling)
    }
}

impl<'de> Visitor<'de> for OneSpelling {
    type Value = OneSpelling;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OneSpelling, A::Error> {
        let mut spellings: HashMap<String, String> = HashMap::new();
        while let Some(key) = map.next_key::<String>()? {
            let folded = key.to_uppercase().to_lowercase();
            if FREE_KEYS.contains(&folded.as_str()) {
                map.next_value::<IgnoredAny>()?;
            } else {
                map.next_value::<OneSpelling>()?;
            }
            let known = spellings.entry(folded).or_insert_with(|| key.clone());
            if *known != key {
                let (one, other) = (shortened(known), shortened(&key));
                return Err(A::Error::custom(format_args!("it has both `{one}` and `{other}`")));
            }
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<OneSpelling, A::Error> {
        while sequence.next_element::<OneSpelling>()?.is_some() {}
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<OneSpelling, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<OneSpelling, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<OneSpelling, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<OneSpelling, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<OneSpelling, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<OneSpelling, E> {
        Ok(self)
    }
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
    fn two_spellings_of_a_field_are_refused_but_not_of_a_label() {
        let cases = [
            (r#"[{"Config":"a","Layers":[]},{"config":"b"}]"#, None),
            (r#"[{"Config":"a","config":"b"}]"#, Some("at [0]: it has both `Config` and `config`")),
            (
                r#"{"config":{"Env":null,"ENV":[1.5,true,-1]}}"#,
                Some("at config: it has both `Env` and `ENV`"),
            ),
            // Go folds the long s and the Kelvin sign as well.
            (r#"{"layers":[],"layer\u017f":[]}"#, Some("it has both")),
            (r#"{"config":{"Labels":{"a":"1","A":"2"},"Volumes":{"/a":{},"/A":{}}}}"#, None),
            (r#"{"annotations":{"a":"1","A":"2"},"unknown":1,"unknown":2}"#, None),
        ];
        for (json, expected) in cases {
            match (parse_json::<serde_json::Value>(json.as_bytes()), expected) {
                (Ok(_), None) => {}
                (Err(problem), Some(text)) if problem.to_string().contains(text) => {}
                (other, _) => panic!("{json}: {other:?}"),
            }
        }
    }

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
