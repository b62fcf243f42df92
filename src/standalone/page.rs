//! The page at `/`, and the files that it loads. `make build` bundles them out of `page/`, and `embed.rs` there puts them into
//! the executable; where there was no Node.js to do so, the page says that.
//!
//! ```text
//!   /                      index.html, asked for anew each time (ETag)
//!   /page/assets/<name>    each named by its content, kept by browsers for ever
//!   /page/…                what the page calls: [`super::page_methods`]
//! ```
//!
//! The page executes and asks for nothing but what comes from here, and nobody frames it. Artifacts come from the same
//! origin, and tasks make them: [`SANDBOX`] keeps them from being taken for a part of the page.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Method, Request, StatusCode, Uri};

use super::reply::{Reply, full, set};

/// A file of the page.
struct Bundled {
    /// Where it is served.
    path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/bundled_page.rs"));

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; worker-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The policy under which browsers show what tasks have made: as from an origin of its own.
pub(super) const SANDBOX: &str = "sandbox allow-scripts; frame-ancestors 'none'";

/// What every file says of itself.
const HEADERS: [(HeaderName, &str); 4] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Whether a path is that of a file.
pub(super) fn is_file(path: &str) -> bool {
    path == "/" || path.starts_with("/page/assets/")
}

/// Answers a request for a file.
pub(super) fn answer<B>(request: &Request<B>) -> Reply {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut reply = full(StatusCode::METHOD_NOT_ALLOWED, b"Method not allowed\n".to_vec());
        set(&mut reply, header::ALLOW, "GET, HEAD");
        return reply;
    }
    match request.uri().path() {
        "/" => index(request.headers()),
        path => match FILES.iter().find(|file| file.path == path) {
            Some(file) => send(file.bytes, file.content_type, "public, max-age=31536000, immutable"),
            None => full(StatusCode::NOT_FOUND, b"Not found\n".to_vec()),
        },
    }
}

fn index(headers: &HeaderMap) -> Reply {
    let tag = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, INDEX.as_bytes()));
    let tag = format!("\"{tag}\"");
    let known = headers.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok());
    let is_known = known.is_some_and(|known| known.split(',').any(|known| known.trim() == tag));
    let mut reply =
        send(if is_known { b"" } else { INDEX.as_bytes() }, "text/html; charset=utf-8", "no-cache");
    if is_known {
        *reply.status_mut() = StatusCode::NOT_MODIFIED;
    }
    set(&mut reply, header::ETAG, &tag);
    reply
}

fn send(bytes: &'static [u8], content_type: &str, cached: &str) -> Reply {
    let mut reply = full(StatusCode::OK, bytes.to_vec());
    set(&mut reply, header::CONTENT_TYPE, content_type);
    set(&mut reply, header::CACHE_CONTROL, cached);
    for (name, value) in HEADERS {
        set(&mut reply, name, value);
    }
    reply
}

/// Whether a browser says that a page of another origin calls. `own` is the page's own where that is not the one that was
/// called: behind a reverse proxy.
pub(super) fn is_foreign(headers: &HeaderMap, own: Option<&str>) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let site = text(HeaderName::from_static("sec-fetch-site"));
    if site.is_some_and(|site| site != "same-origin" && site != "none") {
        return true;
    }
    let Some(origin) = text(header::ORIGIN) else { return false };
    let authority = origin.parse::<Uri>().ok().and_then(|origin| Some(origin.authority()?.to_string()));
    own != Some(origin) && authority.is_none_or(|authority| text(header::HOST) != Some(&authority))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_another_origin_is_told_by_what_its_browser_says() {
        let cases: &[(&[(&str, &str)], bool)] = &[
            (&[], false),
            (&[("origin", "http://localhost:8239")], false),
            (&[("origin", "https://localhost:8239"), ("sec-fetch-site", "same-origin")], false),
            (&[("origin", "https://tc.example.com")], false),
            (&[("origin", "http://tc.example.com")], true),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "same-site")], true),
            (&[("sec-fetch-site", "cross-site")], true),
            (&[("origin", "http://localhost:8240")], true),
            (&[("origin", "https://localhost:8239.example.com")], true),
            (&[("origin", "null")], true),
            (&[("origin", "")], true),
        ];
        for (said, foreign) in cases {
            let mut headers = HeaderMap::new();
            headers.insert("host", "localhost:8239".parse().unwrap());
            headers.extend(said.iter().map(|(name, value)| (name.parse().ok(), value.parse().unwrap())));
            assert_eq!(is_foreign(&headers, Some("https://tc.example.com")), *foreign, "{said:?}");
        }
    }
}
