//! What an artifact's bytes are called: its MIME type, and whether they are stored compressed.

use std::ffi::OsStr;
use std::path::Path;

use crate::config::ConfigFile;

/// The MIME type of logs.
pub const LOG_TYPE: &str = "text/plain; charset=utf-8";

/// The MIME type of what has no known extension.
const UNKNOWN_TYPE: &str = "application/octet-stream";

/// Where the original's types differ from those that `mime_guess` knows; only of what tasks are seen to publish.
const ORIGINAL_TYPES: &[(&str, &[&str])] = &[
    ("application/java-vm", &["class"]),
    ("application/javascript", &["js"]),
    ("application/json", &["map"]),
    ("application/node", &["cjs"]),
    ("application/rls-services+xml", &["rs"]),
    ("application/toml", &["toml"]),
    ("application/vnd.ms-cab-compressed", &["cab"]),
    ("application/x-redhat-package-manager", &["rpm"]),
    ("application/xml", &["xml", "xsd", "xsl"]),
    ("application/xml-dtd", &["dtd"]),
    ("application/xslt+xml", &["xslt"]),
    ("audio/x-flac", &["flac"]),
    ("font/otf", &["otf"]),
    ("font/woff", &["woff"]),
    ("image/vnd.microsoft.icon", &["ico"]),
    ("text/jsx", &["jsx"]),
    ("text/x-asm", &["asm", "s"]),
    ("text/x-c", &["c", "cc", "cpp", "cxx", "h", "hh"]),
    ("text/x-java-source", &["java"]),
    ("text/yaml", &["yaml", "yml"]),
    ("video/mp2t", &["ts"]),
    (UNKNOWN_TYPE, &["cfg", "cs", "dll", "hpp", "inc", "lst", "mk", "py", "reg", "tgz", "vbs", "z"]),
];

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

/// The MIME type by the extension of the path in the container, without a charset: the original's.
pub fn content_type(path: &str) -> &'static str {
    let extension = Path::new(path).extension().and_then(OsStr::to_str).unwrap_or_default();
    let extension = extension.to_ascii_lowercase();
    if let Some((original, _)) = ORIGINAL_TYPES.iter().find(|row| row.1.contains(&extension.as_str())) {
        return original;
    }
    mime_guess::from_path(path).first_raw().and_then(|known| known.split(';').next()).unwrap_or(UNKNOWN_TYPE)
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
            ("/tmp/report.xml", "application/xml"),
            ("/tmp/a.YML", "text/yaml"),
            ("/tmp/a.js", "application/javascript"),
            ("/tmp/a.py", UNKNOWN_TYPE),
            ("/tmp/a.log", "text/plain"),
            ("/tmp/a.xz", "application/x-xz"),
            ("/tmp/a.unheard-of", UNKNOWN_TYPE),
        ] {
            assert_eq!(content_type(path), expected, "{path}");
        }
    }
}
