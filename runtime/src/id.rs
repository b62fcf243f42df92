//! The name of a container: checked once, here, and trusted from then on.
//!
//! An id becomes a directory name below the state root and the last component of control group
//! paths, so its alphabet leaves no room for `/`, `..` or a leading dash.

use std::fmt;

use crate::limits::CONTAINER_ID_BYTES;

/// A container's id: `[A-Za-z0-9][A-Za-z0-9_.+-]*`, at most 255 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(String);

/// Why a text cannot name a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContainerIdError {
    /// Nothing was given.
    #[error("use an empty container id: name the container")]
    Empty,
    /// Longer than a directory name may be.
    #[error("use a container id of {length} bytes: at most {CONTAINER_ID_BYTES} fit a directory name")]
    TooLong {
        /// Bytes given.
        length: usize,
    },
    /// A character that could change the meaning of a path or an option.
    #[error("use {id:?} as a container id: start with a letter or digit, go on with those and _ . + -")]
    Character {
        /// What was given.
        id: String,
    },
}

impl ContainerId {
    /// Checks `text` and keeps it.
    ///
    /// # Errors
    ///
    /// Names the rule of the alphabet or length that `text` breaks.
    pub fn new(text: &str) -> Result<ContainerId, ContainerIdError> {
        let Some(first) = text.bytes().next() else { return Err(ContainerIdError::Empty) };
        if text.len() > CONTAINER_ID_BYTES {
            return Err(ContainerIdError::TooLong { length: text.len() });
        }
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte);
        if !first.is_ascii_alphanumeric() || !text.bytes().all(inner) {
            return Err(ContainerIdError::Character { id: text.to_owned() });
        }
        Ok(ContainerId(text.to_owned()))
    }

    /// The id as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, allowed: bool) {
        assert_eq!(ContainerId::new(text).is_ok(), allowed, "{text:?}");
    }

    #[test]
    fn an_id_cannot_be_a_path_an_option_or_empty() {
        for text in ["a", "0", "task-1_x.y+z", "A..b", &"x".repeat(255)] {
            check(text, true);
        }
        for text in ["", ".", "..", "-a", "_a", "a/b", "a b", "a\n", "ä", "a\0", &"x".repeat(256)] {
            check(text, false);
        }
    }
}
