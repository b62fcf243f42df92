//! What an artifact's bytes are called: its MIME type, and whether they are stored compressed.

use crate::config::ConfigFile;

/// The MIME type of logs.
pub const LOG_TYPE: &str = "text/plain; charset=utf-8";

/// The MIME type of what has no known extension.
const UNKNOWN_TYPE: &str = "application/octet-stream";

/// How an artifact's bytes are stored; HTTP's `Content-Encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentEncoding {
    /// As they are.
    Identity,
    /// Compressed by gzip.
    Gzip,
}

impl ContentEncoding {
    /// The header's value; none for bytes as they are.
    pub fn header(self) -> Option<&'static str> {
        match self {
            ContentEncoding::Identity => None,
            ContentEncoding::Gzip => Some("gzip"),
        }
    }
}

/// The MIME type by the extension of the path in the container, without a charset.
pub fn content_type(path: &str) -> String {
    mime_guess::from_path(path)
        .first_raw()
        .and_then(|known| known.split(';').next())
        .unwrap_or(UNKNOWN_TYPE)
        .to_owned()
}

/// Whether a file of this name is stored compressed.
pub fn content_encoding(path: &str, config: &ConfigFile) -> ContentEncoding {
    if config.skips_compression(path) { ContentEncoding::Identity } else { ContentEncoding::Gzip }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_goes_by_the_extension_of_the_path() {
        for (path, expected) in [
            ("/tmp/a.txt", "text/plain"),
            ("/tmp/a.json", "application/json"),
            ("/tmp/a.html", "text/html"),
            ("/tmp/a.tar.gz", "application/gzip"),
            ("/tmp/a.PNG", "image/png"),
            ("/tmp/a", UNKNOWN_TYPE),
            ("/tmp/.txt", UNKNOWN_TYPE),
            ("/tmp/a.unheard-of", UNKNOWN_TYPE),
        ] {
            assert_eq!(content_type(path), expected, "{path}");
        }
    }
}
