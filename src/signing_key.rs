//! The key with which the worker certifies what tasks do (`ed25519SigningKeyLocation`).

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::ConfigFile;
use crate::known_features::CHAIN_OF_TRUST;

/// Where the original looked for it.
const USUAL_PLACE: &str = "/etc/docker-worker-ed25519-cot-signing-key.key";

/// Bytes of the secret half, from which all else follows.
const SEED_BYTES: usize = 32;

/// More than a file with a key has.
const FILE_BYTES: u64 = 1024;

/// An Ed25519 key. What it is made of cannot be got out of it.
#[derive(Debug)]
pub struct SigningKey(Ed25519KeyPair);

/// Why the worker cannot sign.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    /// It cannot be read.
    #[error("read the signing key {}: check ed25519SigningKeyLocation", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It holds something else.
    #[error(
        "use the signing key {} (ed25519SigningKeyLocation): it has to hold the base64 of 64 bytes, an Ed25519 seed and the public key that belongs to it",
        path.display()
    )]
    Content {
        /// The file.
        path: PathBuf,
    },
}

impl SigningKey {
    /// The file of the worker's key, if it has one.
    pub fn location(file: &ConfigFile) -> Option<PathBuf> {
        let usual = || Path::new(USUAL_PLACE).exists().then(|| PathBuf::from(USUAL_PLACE));
        file.ed25519_signing_key_location.clone().or_else(usual)
    }

    /// The key of this worker, if it has one: only what the configuration does not name may be missing.
    ///
    /// # Errors
    ///
    /// [`SigningKeyError`]
    pub fn of(file: &ConfigFile) -> Result<Option<SigningKey>, SigningKeyError> {
        if file.is_disabled(CHAIN_OF_TRUST.name) {
            return Ok(None);
        }
        match &file.ed25519_signing_key_location {
            Some(path) => SigningKey::read(path).map(Some),
            None => match SigningKey::read(Path::new(USUAL_PLACE)) {
                Err(SigningKeyError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    Ok(None)
                }
                read => read.map(Some),
            },
        }
    }

    fn read(path: &Path) -> Result<SigningKey, SigningKeyError> {
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(FILE_BYTES).read_to_string(&mut text));
        match read {
            // Bytes that are no text are no base64 either.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
            read => drop(read.map_err(|source| SigningKeyError::Read { path: path.to_owned(), source })?),
        }
        SigningKey::parse(&text).ok_or_else(|| SigningKeyError::Content { path: path.to_owned() })
    }

    fn parse(text: &str) -> Option<SigningKey> {
        let bytes = STANDARD.decode(text.trim_end()).ok()?;
        let (seed, public) = bytes.split_at_checked(SEED_BYTES)?;
        Ed25519KeyPair::from_seed_and_public_key(seed, public).ok().map(SigningKey)
    }

    /// The 64 bytes of a detached signature over `message`.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).as_ref().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, test 2.
    const SECRET: &str = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
    const PUBLIC: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
    const SIGNATURE: &str = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";

    fn bytes(hex: &str) -> Vec<u8> {
        let pairs = (0..hex.len()).step_by(2);
        pairs.map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn text(parts: &[&str]) -> String {
        STANDARD.encode(bytes(&parts.concat()))
    }

    #[test]
    fn a_key_of_the_originals_signs_as_the_standard_says() {
        for end in ["", "\n", " \r\n"] {
            let key = SigningKey::parse(&(text(&[SECRET, PUBLIC]) + end)).unwrap();
            assert_eq!(key.sign(&[0x72]), bytes(SIGNATURE));
        }
    }

    #[test]
    fn what_is_no_key_is_refused_before_anything_is_signed() {
        let other = SECRET.replace("4c", "4d");
        for wrong in [
            String::new(),
            "no base64".to_owned(),
            text(&[SECRET]),
            text(&[SECRET, PUBLIC, "00"]),
            text(&[&other, PUBLIC]),
            text(&[PUBLIC, SECRET]),
        ] {
            assert!(SigningKey::parse(&wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn only_a_key_that_nobody_names_may_be_missing() {
        let named = |path: &Path| ConfigFile {
            ed25519_signing_key_location: Some(path.to_owned()),
            ..ConfigFile::default()
        };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let error = |file: &ConfigFile| SigningKey::of(file).unwrap_err().to_string();
        assert!(error(&named(&path)).contains("check ed25519SigningKeyLocation"));
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(error(&named(&path)).contains("has to hold the base64 of 64 bytes"));
        std::fs::write(&path, text(&[SECRET, PUBLIC])).unwrap();
        assert!(SigningKey::of(&named(&path)).unwrap().is_some());
        assert_eq!(
            SigningKey::of(&ConfigFile::default()).unwrap().is_some(),
            Path::new(USUAL_PLACE).exists()
        );
    }
}
