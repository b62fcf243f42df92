//! From bytes to a JSON document, whichever of the two languages they are in, within bounds.

pub mod finding;
pub mod reader;
mod unambiguous;

use serde_json::Value;

use self::unambiguous::Unambiguous;
use crate::document::reader::kind_of;
use crate::limits;
use crate::text::excerpt;
use crate::yaml;

/// Why some bytes are not a task.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// More than [`limits::DEFINITION_BYTES`].
    #[error("read the task: it has {bytes} bytes; at most {} are allowed", limits::DEFINITION_BYTES)]
    TooLarge {
        /// How many there are.
        bytes: usize,
    },
    /// Not UTF-8.
    #[error("read the task: byte {at} is not UTF-8 text")]
    NotText {
        /// The offset of the first bad byte.
        at: usize,
    },
    /// Begins as JSON and is none.
    #[error("read the task as JSON: line {line}, column {column}: {problem}")]
    Json {
        /// Counts from 1.
        line: usize,
        /// Counts from 1.
        column: usize,
        /// The parser's words.
        problem: String,
    },
    /// Neither.
    #[error("read the task as YAML (it does not begin as JSON): {0}")]
    Yaml(yaml::Problem),
    /// A document, but not an object.
    #[error(
        "read the task: it is {found}; a task definition or a payload is an object with fields such as \"image\""
    )]
    NotAnObject {
        /// What it is.
        found: &'static str,
    },
    /// Tasks are made of it; it is none.
    #[error(
        "read the task: it has a list of tasks, as a template such as .taskcluster.yml; make one task of it (json-e renders \
         it) and give that one"
    )]
    Template,
    /// Nested deeper than [`limits::DEFINITION_DEPTH`].
    #[error("read the task: objects and lists are nested more than {} deep", limits::DEFINITION_DEPTH)]
    TooDeep,
}

/// Reads an object. What begins with `{` is JSON and must be JSON to its end; the rest is YAML 1.2.
pub(super) fn read(bytes: &[u8]) -> Result<Value, DocumentError> {
    if bytes.len() > limits::DEFINITION_BYTES {
        return Err(DocumentError::TooLarge { bytes: bytes.len() });
    }
    let text =
        std::str::from_utf8(bytes).map_err(|error| DocumentError::NotText { at: error.valid_up_to() })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let document = if text.trim_start().starts_with('{') {
        read_json(text)?
    } else {
        yaml::read(text).map_err(DocumentError::Yaml)?
    };
    if !document.is_object() {
        return Err(DocumentError::NotAnObject { found: kind_of(&document) });
    }
    if is_template(&document) {
        return Err(DocumentError::Template);
    }
    if is_deeper_than(&document, limits::DEFINITION_DEPTH) {
        return Err(DocumentError::TooDeep);
    }
    Ok(document)
}

fn read_json(text: &str) -> Result<Value, DocumentError> {
    serde_json::from_str(text).map(|Unambiguous(document)| document).map_err(|error| {
        let message = error.to_string();
        // The parser ends its sentence with the place, which stands in front here.
        let problem = message.rsplit_once(" at line ").map_or(message.as_str(), |(problem, _)| problem);
        DocumentError::Json {
            line: error.line(),
            column: error.column(),
            problem: excerpt(problem).to_string(),
        }
    })
}

/// Whether it is what tasks are made of, in either version of `.taskcluster.yml`: it has `tasks`, which no task and no
/// payload has.
fn is_template(document: &Value) -> bool {
    let has = |key| document.get(key).is_some();
    has("tasks") && !has("payload") && !has("image")
}

/// Whether objects and lists are nested more than `levels` deep. Recursion ends there.
fn is_deeper_than(value: &Value, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else {
        return value.is_object() || value.is_array();
    };
    match value {
        Value::Array(elements) => elements.iter().any(|element| is_deeper_than(element, below)),
        Value::Object(members) => members.values().any(|member| is_deeper_than(member, below)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn json_and_yaml_give_the_same_document() {
        let expected =
            json!({ "image": "busybox", "command": ["echo", "yes"], "env": { "A": "1" }, "maxRunTime": 5 });
        let yaml = "# a comment\n---\nimage: busybox\ncommand: [echo, yes]\nenv:\n  A: '1'\nmaxRunTime: 5\n";
        assert_eq!(read(yaml.as_bytes()).unwrap(), expected);
        for json in [expected.to_string(), format!("\u{feff}\n {expected:#}\n")] {
            assert_eq!(read(json.as_bytes()).unwrap(), expected, "{json}");
        }
    }

    #[test]
    fn yaml_words_stay_what_their_author_wrote() {
        let cases = [
            ("yes", json!("yes")),
            ("off", json!("off")),
            ("true", json!(true)),
            ("0755", json!("0755")),
            ("1_000", json!("1_000")),
            ("3600", json!(3600)),
            ("1.5", json!(1.5)),
            ("2027-01-01T00:00:00Z", json!("2027-01-01T00:00:00Z")),
            ("12:30:45", json!("12:30:45")),
            ("~", json!(null)),
            ("'1'", json!("1")),
        ];
        for (word, expected) in cases {
            assert_eq!(read(format!("a: {word}\n").as_bytes()).unwrap(), json!({ "a": expected }), "{word}");
        }
        for key in ["1", "true", "0755", "1.0"] {
            assert_eq!(read(format!("{key}: x\n").as_bytes()).unwrap(), json!({ key: "x" }), "{key}");
        }
    }

    #[test]
    fn an_error_names_the_language_and_the_place() {
        let cases = [
            ("{\n  \"image\": busybox\n}", "read the task as JSON: line 2, column 12: expected value"),
            ("{\"image\": \"x\"", "read the task as JSON: line 1, column 13: EOF while parsing an object"),
            (
                "{\"image\": \"a\",\n \"image\": \"b\"}",
                "read the task as JSON: line 2, column 8: the field \"image\" is there twice",
            ),
            ("{} {}", "read the task as JSON: line 1, column 4: trailing characters"),
            (
                "image: [a\nmaxRunTime: 1\n",
                "read the task as YAML (it does not begin as JSON): line 2, column",
            ),
            (
                "a: 1\na: 2\n",
                "read the task as YAML (it does not begin as JSON): line 2, column 1: the field \"a\" is there twice",
            ),
            ("just a text", "read the task: it is a string; a task definition"),
            ("", "read the task: it is null; a task"),
            ("- image: x", "read the task: it is a list; a task"),
            (
                "version: 1\npolicy: {}\ntasks:\n  $if: x\n  then: []\n",
                "read the task: it has a list of tasks, as a",
            ),
            ("{\"version\": 0, \"tasks\": []}", "read the task: it has a list of tasks, as a template"),
            (
                "a: 1\n---\na: 2\n",
                "read the task as YAML (it does not begin as JSON): line 2, column 1: a second document begins",
            ),
            (
                "a: .inf\n",
                "read the task as YAML (it does not begin as JSON): line 1, column 4: \".inf\" is not a number",
            ),
        ];
        for (text, expected) in cases {
            let message = read(text.as_bytes()).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{text:?}: {message}");
            assert_eq!(message.lines().count(), 1, "{message}");
        }
    }

    #[test]
    fn json_values_of_every_kind_are_kept() {
        let document =
            json!({ "a": [null, true, -1, 18_446_744_073_709_551_615_u64, 1.5, "é\u{0}", { "b": {} }, []] });
        assert_eq!(read(document.to_string().as_bytes()).unwrap(), document);
    }

    #[test]
    fn what_is_not_utf_8_is_refused_with_its_offset() {
        assert!(matches!(read(b"image: \xff"), Err(DocumentError::NotText { at: 7 })));
    }

    #[test]
    fn s60_a_parser_error_cannot_carry_control_characters() {
        for text in ["{\"a\u{1b}[31m\": x}", "a: \u{7}\u{1b}[31m *b", "? *\u{202e}x\n"] {
            if let Err(error) = read(text.as_bytes()) {
                assert!(!error.to_string().chars().any(crate::text::is_unprintable), "{error}");
            }
        }
    }

    #[test]
    fn a_document_is_bounded_in_size_and_depth() {
        let padded = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
        assert!(read(padded(limits::DEFINITION_BYTES).as_bytes()).is_ok());
        let refused = read(padded(limits::DEFINITION_BYTES + 1).as_bytes());
        assert!(matches!(refused, Err(DocumentError::TooLarge { .. })));

        let nested =
            |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(read(nested(limits::DEFINITION_DEPTH).as_bytes()).is_ok());
        assert!(matches!(read(nested(limits::DEFINITION_DEPTH + 1).as_bytes()), Err(DocumentError::TooDeep)));
        assert!(matches!(read(nested(100_000).as_bytes()), Err(DocumentError::Json { .. })));
        let yaml = format!("a: {}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(matches!(read(yaml.as_bytes()), Err(DocumentError::Yaml(_))));
    }

    #[test]
    fn an_alias_bomb_is_refused_before_it_fills_the_memory() {
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..20 {
            let below = format!("*a{}", level - 1);
            laughs += &format!("a{level}: &a{level} [{}]\n", [below.as_str(); 10].join(", "));
        }
        assert!(matches!(read(laughs.as_bytes()), Err(DocumentError::Yaml(_))));

        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), ["*a"; 5_000].join(", "));
        assert!(matches!(read(long.as_bytes()), Err(DocumentError::Yaml(_))));
    }

    proptest! {
        #[test]
        fn any_text_is_an_object_or_an_error(text in "[-\\[\\]{}:,?*&!|>'\"%@#~\\\\ \n\ta-c01.<=]{0,64}") {
            if let Ok(document) = read(text.as_bytes()) {
                prop_assert!(document.is_object());
            }
        }
    }
}
