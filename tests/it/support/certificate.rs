//! A certificate of a test's own, as openssl makes it.

use docker_worker::config::Ssl;

use super::process::tool;
use super::scratch::Scratch;

/// A certificate for localhost and for the names that the original's workers make up, and its key. The next call
/// replaces both.
pub fn certify(scratch: &Scratch) -> Ssl {
    let (certificate, key) = (scratch.join("certificate.pem"), scratch.join("key.pem"));
    let files = ["-keyout", key.to_str().unwrap(), "-out", certificate.to_str().unwrap()];
    let request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"];
    // To some clients that of an authority is no server's.
    let extensions =
        ["basicConstraints=critical,CA:FALSE", "subjectAltName=DNS:localhost,DNS:*.taskcluster-worker.net"];
    let extensions = extensions.map(|extension| ["-addext", extension]).concat();
    tool("openssl", &[&request[..], &extensions, &files].concat());
    Ssl { certificate: Some(certificate), key: Some(key) }
}
