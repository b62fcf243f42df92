//! Words within the path of a URL.

use std::fmt::Write as _;

/// A word as one component of a path: whatever is in it, no character of it means anything to whoever reads the path.
pub(super) fn component(word: &str) -> String {
    word.bytes().fold(String::with_capacity(word.len()), |mut path, byte| {
        if byte.is_ascii_alphanumeric() || b"-_~.".contains(&byte) {
            path.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            write!(path, "%{byte:02X}").ok();
        }
        path
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_word_reaches_beyond_its_component() {
        let cases = [
            ("public/a b.log", "public%2Fa%20b.log"),
            ("a?b#c%2Fd", "a%3Fb%23c%252Fd"),
            ("é\u{0}", "%C3%A9%00"),
            ("fN1SbArXTPSVFNUvaOlinQ", "fN1SbArXTPSVFNUvaOlinQ"),
        ];
        for (word, expected) in cases {
            assert_eq!(component(word), expected);
        }
    }
}
