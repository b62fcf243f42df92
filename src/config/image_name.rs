//! Images that the administrator names.

use images::source::Source;
use serde::de::{Deserialize, Deserializer, Error};
use serde::{Serialize, Serializer};

/// The name of an image, as `docker-worker run --image` takes it too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageName {
    text: String,
    source: Source,
}

impl ImageName {
    /// Reads a name; nothing where it is none.
    pub fn read(text: &str) -> Option<ImageName> {
        Some(ImageName { text: text.to_owned(), source: Source::parse(text).ok()? })
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Where the image comes from.
    pub fn source(&self) -> &Source {
        &self.source
    }
}

impl<'de> Deserialize<'de> for ImageName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ImageName, D::Error> {
        let text = String::deserialize(deserializer)?;
        match Source::parse(&text) {
            Ok(source) => Ok(ImageName { text, source }),
            Err(error) => Err(D::Error::custom(format!("must be the name of an image: failed to {error}"))),
        }
    }
}

impl Serialize for ImageName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}
