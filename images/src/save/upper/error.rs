//! Why a tree could not be written, and what was left out of it.
use std::io;

use crate::layer::{EntryName, EntryProblem};

/// Why an upper directory, or another one, could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SaveUpperError {
    /// An entry could not be opened, described or read.
    #[error("save {entry}: {call}")]
    Read {
        /// Its path below the tree's root.
        entry: EntryName,
        /// The call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// An entry is another one than a moment ago.
    #[error(
        "save {entry}: it changed while it was read; all processes that may write there have to end before"
    )]
    Changed {
        /// Its path.
        entry: EntryName,
    },
    /// An entry is something that no layer may contain.
    #[error("save {entry}: {problem}; remove it at the end of the task")]
    Entry {
        /// Its path.
        entry: EntryName,
        /// What is wrong with it.
        problem: EntryProblem,
    },
    /// An attribute of overlayfs's that its mount options rule out.
    #[error(
        "save {entry}: overlayfs has set {attribute}, which says that a part of it is elsewhere; was its directory mounted by something else?"
    )]
    Overlay {
        /// Its path.
        entry: EntryName,
        /// The attribute, escaped.
        attribute: String,
    },
    /// The tree holds more than an image may.
    #[error(
        "save {entry}: the {what} exceed the limit of {limit}; remove at the end of the task what need not be saved"
    )]
    TooLarge {
        /// The entry that crossed the limit.
        entry: EntryName,
        /// What was counted.
        what: &'static str,
        /// How many may be.
        limit: u64,
    },
    /// The sink did not take the tar stream.
    #[error("write the tar stream at byte {offset}")]
    Sink {
        /// Byte of the tar stream.
        offset: u64,
        /// The sink's own error.
        source: io::Error,
    },
    /// The caller's flag was raised.
    #[error("save it: cancelled")]
    Cancelled,
}

/// What the tree has and its tar stream does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Sockets.
    pub sockets: Names,
    /// Entries whose names begin with `.wh.`; what lies below them is not counted.
    pub hiding_names: Names,
    /// Entries that lack an attribute because its name has an equals sign.
    pub attributes: Names,
}

/// How many, and the first of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// How many.
    pub count: u64,
    /// The first one's path.
    pub first: Option<EntryName>,
}

impl Names {
    pub(super) fn add(&mut self, path: &[u8]) {
        self.count += 1;
        self.first.get_or_insert_with(|| EntryName::new(path));
    }
}

impl LeftOut {
    /// A sentence for each kind.
    pub fn sentences(&self) -> Vec<String> {
        let kinds = [
            (&self.sockets, "sockets", "an archive cannot hold them"),
            (
                &self.hiding_names,
                "entries named \".wh.…\"",
                "in an image, that name hides another file instead of being one",
            ),
            (
                &self.attributes,
                "extended attributes with an equals sign in their names",
                "an archive cannot hold them",
            ),
        ];
        let sentence = |(names, what, why): (&Names, &str, &str)| {
            let first = names.first.as_ref()?;
            Some(format!("{} {what} were left out, {first} the first: {why}", names.count))
        };
        kinds.into_iter().filter_map(sentence).collect()
    }
}
