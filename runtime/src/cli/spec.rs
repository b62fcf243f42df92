//! `spec` and `features`: an example to start from, and what this runtime can do.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use lexopt::Arg;
use serde_json::{Value, json};

use super::{Problem, print};
use crate::state::OCI_VERSION;

pub(super) fn spec(mut arguments: lexopt::Parser) -> Result<u8, Problem> {
    let mut bundle = PathBuf::from(".");
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("bundle") | Arg::Short('b') => bundle = arguments.value()?.into(),
            Arg::Long("rootless") => {
                return Err(Problem::Failed("`spec --rootless` is not there yet".into()));
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let path = bundle.join("config.json");
    let because =
        |error: &dyn std::error::Error| Problem::because(&format!("write {}", path.display()), error);
    let file = OpenOptions::new().write(true).create_new(true).open(&path);
    file.and_then(|mut file| file.write_all(EXAMPLE.as_bytes())).map_err(|error| because(&error))?;
    Ok(0)
}

/// A shell in a terminal, with the namespaces, mounts and masks that containers usually have.
const EXAMPLE: &str = include_str!("example.json");

pub(super) fn features(mut arguments: lexopt::Parser) -> Result<u8, Problem> {
    if let Some(argument) = arguments.next()? {
        return Err(argument.unexpected().into());
    }
    print(&format!("{:#}\n", description()))
}

/// Source: OCI runtime specification, features.md.
fn description() -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": [
            "async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec", "iversion", "lazytime", "loud",
            "mand", "noatime", "nodev", "nodiratime", "noexec", "noiversion", "nolazytime", "nomand", "norelatime",
            "nostrictatime", "nosuid", "nosymfollow", "private", "ratime", "rbind", "rdev", "rdiratime", "relatime",
            "rexec", "rnoatime", "rnodev", "rnodiratime", "rnoexec", "rnostrictatime", "rnosuid", "rnosymfollow", "ro",
            "rprivate", "rrelatime", "rro", "rrw", "rshared", "rslave", "rstrictatime", "rsuid", "rsymfollow",
            "runbindable", "rw", "shared", "silent", "slave", "strictatime", "suid", "symfollow", "sync", "tmpcopyup",
            "unbindable"
        ],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            "cgroup": { "v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": true },
            "seccomp": { "enabled": true },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": false },
            "intelRdt": { "enabled": false },
            "mountExtensions": { "idmap": { "enabled": false } }
        }
    })
}
