//! Text of ours for people: words that are not ours made harmless, errors made one line.

use std::error::Error;
use std::fmt::{self, Write};

use crate::limits;

/// Whether a character is one that a log line must not carry: control characters, line and paragraph separators, the
/// byte order mark and all controls of the Unicode bidirectional algorithm.
#[must_use]
pub fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || character == '\u{feff}'
}

/// An untrusted word for a line of ours: what [`is_unprintable`] appears as JSON writes it (`\n`, `\u001b`).
#[must_use]
pub fn escaped(word: &str) -> Escaped<'_> {
    Escaped { word, most: usize::MAX }
}

/// The same, cut after [`limits::QUOTED_CHARS`]: for words that no rule bounds.
#[must_use]
pub fn excerpt(word: &str) -> Escaped<'_> {
    Escaped { word, most: limits::QUOTED_CHARS }
}

/// A text of several lines of our own making: as [`escaped`], but `\n` stays.
#[must_use]
pub fn escape_lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(|line| escaped(line).to_string()).collect();
    lines.join("\n")
}

/// See [`escaped`].
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a> {
    word: &'a str,
    most: usize,
}

impl Escaped<'_> {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.word.is_empty()
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, character) in self.word.chars().enumerate() {
            if index >= self.most {
                return out.write_char('…');
            }
            match character {
                '\n' => out.write_str("\\n")?,
                '\r' => out.write_str("\\r")?,
                '\t' => out.write_str("\\t")?,
                _ if is_unprintable(character) => write!(out, "\\u{:04x}", u32::from(character))?,
                _ => out.write_char(character)?,
            }
        }
        Ok(())
    }
}

/// An error and what caused it, as one line: `what: why: why`.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let why = error.to_string();
        // Some errors print their source themselves.
        if !text.ends_with(&why) {
            text.push_str(": ");
            text.push_str(&why);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn s60_what_could_break_or_reorder_a_line_is_spelt_out() {
        let cases = [
            ("plain näme", "plain näme"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\u{1b}[31m", "\\u001b[31m"),
            ("\u{9b}31m\u{7f}\0", "\\u009b31m\\u007f\\u0000"),
            ("\u{202e}exe", "\\u202eexe"),
            ("\u{2066}\u{2069}\u{200f}\u{61c}", "\\u2066\\u2069\\u200f\\u061c"),
            ("\u{2028}\u{2029}\u{85}", "\\u2028\\u2029\\u0085"),
        ];
        for (word, expected) in cases {
            assert_eq!(escaped(word).to_string(), expected, "{word:?}");
        }
    }

    #[test]
    fn an_excerpt_is_cut_after_its_limit() {
        let word = "é".repeat(limits::QUOTED_CHARS + 1);
        let cut = excerpt(&word).to_string();
        assert_eq!(cut.chars().count(), limits::QUOTED_CHARS + 1);
        assert!(cut.ends_with('…'));
        assert_eq!(escaped(&word).to_string(), word);
    }

    proptest! {
        #[test]
        fn an_escaped_word_is_one_printable_line(word in any::<String>()) {
            prop_assert!(!escaped(&word).to_string().chars().any(is_unprintable));
        }

        #[test]
        fn a_printable_word_is_left_alone(word in "\\PC*") {
            if !word.chars().any(is_unprintable) {
                prop_assert_eq!(escaped(&word).to_string(), word);
            }
        }
    }
}
