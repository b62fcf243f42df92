//! Debian's docker-registry on a loopback port.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use super::image::WrittenImage;
use super::process::tool;
use super::scratch::Scratch;

/// A running registry with storage of its own, which ends with the value.
pub struct Registry {
    /// `127.0.0.1:PORT`
    pub address: String,
    storage: PathBuf,
    process: Child,
    /// What those say who may use it, if not everybody may: `NAME:PASSWORD`.
    member: Option<String>,
}

impl Registry {
    /// Starts a registry whose files lie in `scratch`.
    pub fn start(scratch: &Scratch) -> Registry {
        Registry::serve(scratch, None)
    }

    /// The same for one member only.
    pub fn for_member(scratch: &Scratch, name: &str, password: &str) -> Registry {
        fs::write(scratch.join("htpasswd"), tool("htpasswd", &["-Bbn", name, password])).unwrap();
        Registry::serve(scratch, Some(format!("{name}:{password}")))
    }

    fn serve(scratch: &Scratch, member: Option<String>) -> Registry {
        let storage = scratch.join("registry");
        let config = scratch.join("registry.yml");
        let auth = match &member {
            Some(_) => {
                format!("auth: {{htpasswd: {{realm: r, path: {}}}}}\n", scratch.join("htpasswd").display())
            }
            None => String::new(),
        };
        let text = format!(
            "version: 0.1\nlog: {{accesslog: {{disabled: true}}, level: info}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: \"127.0.0.1:0\"}}\n{auth}",
            storage.display()
        );
        fs::write(&config, text).unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("docker-registry: {error}; tests/setup test installs it"));
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = log
            .by_ref()
            .map(Result::unwrap)
            .find_map(|line| Some(line.split_once("listening on ")?.1.split('"').next()?.trim().to_owned()))
            .expect("docker-registry ended before it listened");
        // It goes on to log, and would block on a full pipe.
        thread::spawn(move || log.for_each(drop));
        Registry { address, storage, process, member }
    }

    /// Uploads with skopeo, which verifies what it reads. Returns `127.0.0.1:PORT/NAME`.
    pub fn push(&self, image: &WrittenImage, name: &str) -> String {
        let reference = format!("{}/{name}", self.address);
        let target = format!("docker://{reference}");
        let mut arguments = vec!["copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false"];
        if let Some(member) = &self.member {
            arguments.extend(["--dest-creds", member]);
        }
        arguments.extend([image.source.as_str(), &target]);
        tool("skopeo", &arguments);
        reference
    }

    /// The file from which the registry serves a blob: what is changed in it, the client gets.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.storage.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}
