//! Task ids: slugids, i.e. version 4 UUIDs in base64url without padding, 22 characters.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Deserializer, Serialize};

/// The id of a task or of a task group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct TaskId(String);

/// Why a text is not a task id.
#[derive(Debug, thiserror::Error)]
#[error("read {text:?} as a task id: an id is a version 4 UUID in base64url, 22 characters")]
pub struct TaskIdError {
    text: String,
}

impl TaskId {
    /// A new id from the kernel's random numbers.
    ///
    /// # Errors
    ///
    /// The error of getrandom(2), which only a kernel before 3.17 gives.
    pub fn random() -> std::io::Result<TaskId> {
        let mut bytes = [0_u8; 16];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            filled += getrandom(rest, GetRandomFlags::empty())?;
        }
        let bits = u128::from_be_bytes(bytes);
        Ok(TaskId(URL_SAFE_NO_PAD.encode(as_version_4(bits).to_be_bytes())))
    }

    /// Checks an id that came from outside.
    ///
    /// # Errors
    ///
    /// [`TaskIdError`] for anything that the queue's pattern for slugids refuses.
    pub fn parse(text: &str) -> Result<TaskId, TaskIdError> {
        let refused = || TaskIdError { text: text.chars().take(64).collect() };
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| refused())?;
        let bits = u128::from_be_bytes(bytes.try_into().map_err(|_| refused())?);
        if as_version_4(bits) == bits { Ok(TaskId(text.to_owned())) } else { Err(refused()) }
    }

    /// The 22 characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Sets the version (4) and variant (RFC 9562: binary 10) fields.
fn as_version_4(bits: u128) -> u128 {
    const VERSION: u128 = 0xf << 76;
    const VARIANT: u128 = 0b11 << 62;
    (bits & !VERSION & !VARIANT) | (4 << 76) | (0b10 << 62)
}

impl fmt::Display for TaskId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TaskId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TaskId, D::Error> {
        let text = String::deserialize(deserializer)?;
        TaskId::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_id_is_one_that_the_queue_accepts_and_never_the_same() {
        let ids: std::collections::BTreeSet<_> = (0..64).map(|_| TaskId::random().unwrap()).collect();
        assert_eq!(ids.len(), 64);
        for id in ids {
            assert_eq!(id.as_str().len(), 22);
            assert_eq!(TaskId::parse(id.as_str()).unwrap(), id);
        }
    }

    #[test]
    fn only_version_4_slugids_are_task_ids() {
        assert!(TaskId::parse("fN1SbArXTPSVFNUvaOlinQ").is_ok());
        let refused = [
            "",
            "fN1SbArXTPSVFNUvaOlin",
            "fN1SbArXTPSVFNUvaOlinQ==",
            "fN1SbArXTPSVFNUvaOlinR",
            "AAAAAAAAAAAAAAAAAAAAAA",
            "fN1SbArXAPSVFNUvaOlinQ",
            "fN1SbArX/PSVFNUvaOlinQ",
            "../../../etc/passwd\n..",
        ];
        for text in refused {
            assert!(TaskId::parse(text).is_err(), "{text}");
        }
    }
}
