//! What the operator calls images that are in the store.

use images::digest::Digest;
use images::source::Source;
use images::store::{Store, StoreError};

/// Digits of an id that are enough, as `images` shows them.
const ENOUGH_DIGITS: usize = 12;

/// What a word stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meant {
    /// A name in the store.
    Name(String),
    /// An image by its id, with its names.
    Id(Vec<String>),
    /// An archive, which is no image of the store by itself.
    Archive(Source),
    /// The beginning of several ids.
    Several,
    /// Nothing that is there.
    Nothing,
}

/// Looks up a word: a name as it stands in the store or as people write it comes before an id.
pub(super) fn meant(store: &Store, word: &str) -> Result<Meant, StoreError> {
    Ok(among(&store.names()?, word))
}

fn among(names: &[(String, Digest)], word: &str) -> Meant {
    let source = Source::parse(word);
    let spelled = source.as_ref().ok().map(Store::name_of);
    let is_it = |name: &&(String, Digest)| name.0 == word || Some(&name.0) == spelled.as_ref();
    if let Some((name, _)) = names.iter().find(is_it) {
        return Meant::Name(name.clone());
    }
    match (source, by_id(names, word)) {
        (Ok(archive), _) if archive.is_local() => Meant::Archive(archive),
        (_, Meant::Nothing) => Meant::Nothing,
        (_, found) => found,
    }
}

fn by_id(names: &[(String, Digest)], word: &str) -> Meant {
    let digits = word.strip_prefix("sha256:").unwrap_or(word);
    if digits.len() < ENOUGH_DIGITS {
        return Meant::Nothing;
    }
    let found: Vec<_> = names.iter().filter(|(_, id)| id.hex().starts_with(digits)).collect();
    match found.split_first() {
        None => Meant::Nothing,
        Some(((_, first), rest)) if rest.iter().any(|(_, id)| id != first) => Meant::Several,
        Some(_) => Meant::Id(found.into_iter().map(|(name, _)| name.clone()).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_a_name_before_it_is_an_id() {
        let id = |first: char| Digest::parse(&format!("sha256:{first}{}", "a".repeat(63))).unwrap();
        let names: Vec<_> = [
            ("archive w/0/x", id('a')),
            ("docker.io/library/b:1", id('b')),
            ("docker.io/library/c:latest", id('b')),
            ("docker.io/library/aaaaaaaaaaaa:latest", id('c')),
            ("oci:/d", id('d')),
        ]
        .map(|(name, id)| (name.to_owned(), id))
        .into();
        let name = |text: &str| Meant::Name(text.to_owned());
        let cases = [
            ("b:1", name("docker.io/library/b:1")),
            ("c", name("docker.io/library/c:latest")),
            ("archive w/0/x", name("archive w/0/x")),
            ("oci:/d", name("oci:/d")),
            ("aaaaaaaaaaaa", name("docker.io/library/aaaaaaaaaaaa:latest")),
            ("aaaaaaaaaaaaa", Meant::Id(vec!["archive w/0/x".to_owned()])),
            (
                "sha256:baaaaaaaaaaa",
                Meant::Id(vec!["docker.io/library/b:1".to_owned(), "docker.io/library/c:latest".to_owned()]),
            ),
            ("baaaaaaaaaa", Meant::Nothing),
            ("b:2", Meant::Nothing),
            ("oci:/e", Meant::Archive(Source::parse("oci:/e").unwrap())),
        ];
        for (word, expected) in cases {
            assert_eq!(among(&names, word), expected, "{word}");
        }
        let close = |last: char| Digest::parse(&format!("sha256:{}{last}", "e".repeat(63))).unwrap();
        let close = [("x".to_owned(), close('1')), ("y".to_owned(), close('2'))];
        assert_eq!(among(&close, &"e".repeat(12)), Meant::Several);
    }
}
