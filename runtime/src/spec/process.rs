//! `process` and `hooks`: what is executed, by whom.

use rustix::process::Resource;
use serde_json::Value;
use std::path::PathBuf;

use super::read::object;
use super::{Id, Notes, Read};
use crate::capabilities::CapabilitySets;
use crate::rlimits;

object! {
    /// `process`.
    Process {
        terminal: bool = "terminal",
        console_size: Option<ConsoleSize> = "consoleSize",
        user: User = "user",
        args: Vec<String> = "args",
        /// `NAME=value`.
        env: Vec<String> = "env",
        cwd: PathBuf = "cwd",
        capabilities: CapabilitySets = "capabilities",
        rlimits: Vec<PosixLimit> = "rlimits",
        no_new_privileges: bool = "noNewPrivileges",
        apparmor_profile: Option<String> = "apparmorProfile",
        oom_score_adj: Option<i32> = "oomScoreAdj",
    } refused {
        "selinuxLabel": "SELinux labels are not there yet: leave it out",
        "ioPriority": "I/O priorities are not there yet: leave it out",
        "scheduler": "scheduling policies are not there yet: leave it out",
        "execCPUAffinity": "processors of exec by themselves are not there yet: leave it out",
    } elsewhere { "commandLine" }
}

object! {
    /// In characters.
    ConsoleSize {
        height: u16 = "height",
        width: u16 = "width",
    }
}

object! {
    /// In the container's user namespace.
    User {
        uid: Id = "uid",
        gid: Id = "gid",
        umask: Option<u32> = "umask",
        additional_gids: Vec<Id> = "additionalGids",
    } elsewhere { "username" }
}

object! {
    /// A resource limit, in its own unit.
    PosixLimit {
        resource: Resource = "type",
        soft: u64 = "soft",
        hard: u64 = "hard",
    }
}

impl Read for Resource {
    fn read(value: &mut Value, notes: &mut Notes) -> Option<Resource> {
        notes.one_of(value, &rlimits::NAMES)
    }
}

object! {
    /// Programs that run at fixed points of the container's life.
    Hooks: Default {
        prestart: Vec<Hook> = "prestart",
        create_runtime: Vec<Hook> = "createRuntime",
        create_container: Vec<Hook> = "createContainer",
        start_container: Vec<Hook> = "startContainer",
        poststart: Vec<Hook> = "poststart",
        poststop: Vec<Hook> = "poststop",
    }
}

object! {
    /// One of them.
    Hook {
        path: PathBuf = "path",
        /// The first is the program's name.
        args: Vec<String> = "args",
        env: Option<Vec<String>> = "env",
        /// In seconds.
        timeout: Option<i64> = "timeout",
    }
}
