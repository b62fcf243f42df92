//! What a browser is shown at `/`.

use hyper::header::{self, HeaderName};
use hyper::{Method, StatusCode};

use super::reply::{Reply, full, set};

/// Nothing is loaded, nothing is executed, and nobody frames it.
const POLICY: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const NOTICE: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<title>docker-worker standalone</title>
<h1>docker-worker standalone</h1>
<p>The queue is here, its page is not part of this build.
<p>Taskcluster's clients use the queue by its API: where this address is their root URL, they find it below <code>/api/</code>.
";

/// Answers a request for the page.
pub(super) fn answer(method: &Method) -> Reply {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut reply = full(StatusCode::METHOD_NOT_ALLOWED, b"Method not allowed\n".to_vec());
        set(&mut reply, header::ALLOW, "GET, HEAD");
        return reply;
    }
    let mut reply = full(StatusCode::OK, NOTICE.as_bytes().to_vec());
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        set(&mut reply, name, value);
    }
    reply
}
