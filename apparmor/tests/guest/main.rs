//! Against a kernel with AppArmor. Run by `tests/vm/test`.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use apparmor::{EXEC_ATTRIBUTES, enter_on_exec, is_enabled};
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

/// A profile that is loaded while this lives.
struct Loaded(&'static str);

impl Loaded {
    fn new(name: &'static str) -> Self {
        let loaded = Self(name);
        loaded.parser("--replace");
        loaded
    }

    fn parser(&self, action: &str) {
        let mut parser = Command::new("apparmor_parser").arg(action).stdin(Stdio::piped()).spawn().unwrap();
        let text = format!("profile {} {{ file, deny /etc/hostname r, }}\n", self.0);
        parser.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(parser.wait().unwrap().success(), "apparmor_parser {action}");
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.parser("--remove");
    }
}

/// On a thread of its own: the request is the thread's, and its children inherit it.
fn run(profile: &str, attribute: &str, command: &[&str]) -> io::Result<(bool, String)> {
    let confined = || {
        std::fs::write(Path::new("/proc/thread-self").join(attribute), enter_on_exec(profile).unwrap())?;
        let output = Command::new(command[0]).args(&command[1..]).output()?;
        Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).trim_end().to_owned()))
    };
    thread::scope(|scope| scope.spawn(confined).join()).unwrap()
}

#[test]
fn the_next_exec_enters_the_profile() {
    assert!(is_enabled().unwrap());
    let profile = Loaded::new("docker-worker-guest-enter");
    for attribute in EXEC_ATTRIBUTES {
        let entered = run(profile.0, attribute, &["cat", "/proc/self/attr/current"]).unwrap();
        assert_eq!(entered, (true, format!("{} (enforce)", profile.0)), "{attribute}");
        assert!(!run(profile.0, attribute, &["cat", "/etc/hostname"]).unwrap().0, "{attribute}");
    }
}

#[test]
fn s46_a_profile_that_is_not_loaded_cannot_be_asked_for() {
    for attribute in EXEC_ATTRIBUTES {
        let error = run("docker-worker-guest-absent", attribute, &["true"]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{attribute}");
    }
}
