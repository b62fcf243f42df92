//! Content digests: `sha256:` and 64 hex digits, or `sha512:` and 128.
//!
//! Anything else is refused here, before it can become part of a URL, a path or a log line: an
//! upper-case digit, a path, another algorithm. So a [`Digest`] is safe to put into all three.

use std::fmt;
use std::io;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256, Sha512};

/// The algorithms that the grammar admits. Registries use the first nearly always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, 64 hex digits.
    Sha256,
    /// SHA-512, 128 hex digits.
    Sha512,
}

impl Algorithm {
    /// The name as it stands before the colon, and as a directory of an OCI layout.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    fn hex_digits(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha512 => 128,
        }
    }
}

/// The digest of some content, e.g. of a manifest, a blob or a layer's tar stream.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    hex: String,
}

/// Why a text is not a digest. The text itself is not repeated: it may be hostile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Neither `sha256:` nor `sha512:` in front.
    #[error("parse a digest: it must start with \"sha256:\" or \"sha512:\"")]
    Algorithm,
    /// Too few, too many or other characters than 0-9 and a-f.
    #[error("parse a digest: {expected} lower-case hex digits must follow \"{algorithm}:\"")]
    Digits {
        /// The algorithm's name.
        algorithm: &'static str,
        /// How many digits it takes.
        expected: usize,
    },
}

impl Digest {
    /// Parses `ALGORITHM:HEX`.
    ///
    /// # Errors
    ///
    /// [`DigestError`] for everything but the two forms of the module's head.
    pub fn parse(text: &str) -> Result<Digest, DigestError> {
        let (algorithm, hex) = match text.split_once(':') {
            Some(("sha256", hex)) => (Algorithm::Sha256, hex),
            Some(("sha512", hex)) => (Algorithm::Sha512, hex),
            _ => return Err(DigestError::Algorithm),
        };
        let expected = algorithm.hex_digits();
        let is_hex = hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if hex.len() != expected || !is_hex {
            return Err(DigestError::Digits { algorithm: algorithm.name(), expected });
        }
        Ok(Digest { algorithm, hex: hex.to_owned() })
    }

    /// The digest with these hex digits; their number tells the algorithm. For names in the store.
    pub(crate) fn from_hex(hex: &str) -> Result<Digest, DigestError> {
        match hex.len() {
            128 => Digest::parse(&format!("sha512:{hex}")),
            _ => Digest::parse(&format!("sha256:{hex}")),
        }
    }

    /// The SHA-256 digest of bytes that are in memory.
    pub fn of(content: &[u8]) -> Digest {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(content);
        hasher.finish()
    }

    /// Whether it is the digest of `content`.
    ///
    /// # Errors
    ///
    /// The digest that `content` has instead.
    pub fn verify(&self, content: &[u8]) -> Result<(), Digest> {
        let mut hasher = Hasher::new(self.algorithm);
        hasher.update(content);
        hasher.verify(self)
    }

    /// Whether it is the digest of all that comes; if not, the one that it has instead.
    ///
    /// # Errors
    ///
    /// Those of `content`.
    pub(crate) fn verify_stream(&self, content: &mut impl io::Read) -> io::Result<Result<(), Digest>> {
        let mut hasher = Hasher::new(self.algorithm);
        let mut buffer = vec![0; 1 << 17];
        loop {
            match content.read(&mut buffer) {
                Ok(0) => return Ok(hasher.verify(self)),
                Ok(read) => hasher.update(buffer.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The algorithm before the colon.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hex digits after the colon: 64 or 128 lower-case ones.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// The first 12 digits, as Docker shows layers and images.
    pub fn short(&self) -> &str {
        self.hex.get(..12).unwrap_or(&self.hex)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        Digest::parse(text)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        Digest::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Computes a digest while the content streams by.
pub enum Hasher {
    /// State of SHA-256.
    Sha256(Sha256),
    /// State of SHA-512.
    Sha512(Sha512),
}

impl Hasher {
    /// Starts with no content.
    pub fn new(algorithm: Algorithm) -> Hasher {
        match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(Sha512::new()),
        }
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(state) => state.update(bytes),
            Hasher::Sha512(state) => state.update(bytes),
        }
    }

    /// Whether the bytes taken in are what a digest says.
    ///
    /// # Errors
    ///
    /// The digest that they have instead.
    pub fn verify(self, expected: &Digest) -> Result<(), Digest> {
        let found = self.finish();
        if found == *expected { Ok(()) } else { Err(found) }
    }

    /// The digest of all bytes taken in.
    pub fn finish(self) -> Digest {
        match self {
            Hasher::Sha256(state) => digest(Algorithm::Sha256, &state.finalize()),
            Hasher::Sha512(state) => digest(Algorithm::Sha512, &state.finalize()),
        }
    }
}

fn digest(algorithm: Algorithm, bytes: &[u8]) -> Digest {
    let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Digest { algorithm, hex }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn s25_only_the_two_exact_forms_are_digests() {
        let hex = &EMPTY[7..];
        let accepted = [EMPTY.to_owned(), format!("sha512:{hex}{hex}")];
        for text in accepted {
            assert_eq!(Digest::parse(&text).unwrap().to_string(), text);
        }
        let refused = [
            String::new(),
            hex.to_owned(),
            format!("md5:{}", &hex[..32]),
            format!("sha384:{hex}"),
            format!("SHA256:{hex}"),
            format!("sha256:{}", hex.to_uppercase()),
            format!("sha256:{}", &hex[..63]),
            format!("sha256:{hex}0"),
            format!("sha256:{}\n", &hex[..63]),
            format!("sha512:{hex}"),
            "sha256:../../x".to_owned(),
            format!("sha256:../../{}", &hex[..58]),
        ];
        for text in refused {
            assert!(Digest::parse(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_stream_hashes_as_the_whole_content() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(b"ab");
        hasher.update(b"c");
        assert_eq!(hasher.finish(), Digest::of(b"abc"));
        assert_eq!(Hasher::new(Algorithm::Sha512).finish().hex().len(), 128);
    }
}
