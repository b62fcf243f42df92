//! Certificate authorities of a test's own, by openssl.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An authority; its files lie in a directory of the caller's.
pub struct Authority {
    directory: PathBuf,
    name: String,
}

impl Authority {
    pub fn new(directory: &Path, name: &str) -> Authority {
        let authority = Authority { directory: directory.to_owned(), name: name.to_owned() };
        let (certificate, key) = (authority.certificate(), authority.path("key"));
        let subject = format!("/CN={name}");
        openssl(&["req", "-x509", "-days", "2", "-subj", &subject], &key, &certificate);
        authority
    }

    /// Its own certificate, for those who trust it.
    pub fn certificate(&self) -> PathBuf {
        self.path("crt")
    }

    /// A certificate for the addresses and names of tests that it has signed, and its key.
    pub fn server(&self) -> (PathBuf, PathBuf) {
        self.sign("server", "subjectAltName=IP:127.0.0.1,IP:203.0.113.5,DNS:localhost")
    }

    /// One for somebody who connects.
    pub fn client(&self) -> (PathBuf, PathBuf) {
        self.sign("client", "extendedKeyUsage=clientAuth")
    }

    fn sign(&self, what: &str, extension: &str) -> (PathBuf, PathBuf) {
        let name = format!("{}-{what}", self.name);
        let (certificate, key) =
            (self.directory.join(format!("{name}.crt")), self.directory.join(format!("{name}.key")));
        let extensions = self.directory.join(format!("{name}.ext"));
        let request = self.directory.join(format!("{name}.csr"));
        fs::write(&extensions, format!("basicConstraints=critical,CA:FALSE\n{extension}\n")).unwrap();
        openssl(&["req", "-subj", &format!("/CN={name}")], &key, &request);
        let output = Command::new("openssl")
            .args(["x509", "-req", "-days", "2", "-CAcreateserial", "-CA"])
            .args([&self.certificate(), Path::new("-CAkey"), &self.path("key"), Path::new("-extfile")])
            .args([&extensions, Path::new("-in"), &request, Path::new("-out"), &certificate])
            .output()
            .expect("openssl is installed");
        assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
        (certificate, key)
    }

    fn path(&self, ending: &str) -> PathBuf {
        self.directory.join(format!("{}.{ending}", self.name))
    }
}

fn openssl(arguments: &[&str], key: &Path, out: &Path) {
    let output = Command::new("openssl")
        .args(arguments)
        .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout"])
        .args([key, Path::new("-out"), out])
        .output()
        .expect("openssl is installed");
    assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
}
