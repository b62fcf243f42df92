//! What `make build` does about the page where Node.js is missing, old or out of order: stand-ins for it say so.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::Scratch;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/standalone/page");

/// A directory with the script and what it once made, and the only programs that it finds.
struct Place {
    scratch: Scratch,
}

impl Place {
    fn new() -> Place {
        let place = Place { scratch: Scratch::new() };
        let path = |name: &str| place.scratch.join(name);
        for directory in ["bin", "page", "page/dist"] {
            fs::create_dir(path(directory)).unwrap();
        }
        fs::copy(Path::new(PAGE).join("bundle"), path("page/bundle")).unwrap();
        fs::write(path("page/dist/index.html"), "of an earlier time").unwrap();
        for name in ["bash", "dirname", "realpath", "rm"] {
            let program = [Path::new("/bin"), Path::new("/usr/bin")].map(|directory| directory.join(name));
            symlink(program.iter().find(|path| path.exists()).unwrap(), path("bin").join(name)).unwrap();
        }
        place
    }

    /// Has a program do what a script says; it writes its words down first.
    fn with(self, program: &str, script: &str) -> Place {
        let path = self.scratch.join("bin").join(program);
        let calls = self.calls_file();
        fs::write(&path, format!("#!/bin/bash\necho {program} $* >>{}\n{script}\n", calls.display()))
            .unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        self
    }

    fn calls_file(&self) -> PathBuf {
        self.scratch.join("calls")
    }

    /// Runs the script, which has to succeed; gives what it says, and which calls it has made.
    fn bundle(&self) -> (String, Vec<String>) {
        let mut command = Command::new(self.scratch.join("page/bundle"));
        let Output { status, stderr, .. } =
            command.env_clear().env("PATH", self.scratch.join("bin")).output().unwrap();
        let told = String::from_utf8(stderr).unwrap();
        assert!(status.success(), "{told}");
        let calls = fs::read_to_string(self.calls_file()).unwrap_or_default();
        (told, calls.lines().map(str::to_owned).collect())
    }

    fn has_page(&self) -> bool {
        self.scratch.join("page/dist").exists()
    }
}

const NODE: (&str, &str) = ("node", "echo v20.1.0");

#[test]
fn a_page_that_cannot_be_bundled_is_left_out_and_one_sentence_says_why() {
    let fails = "case $1 in ci) exit 1;; ls) exit 1;; esac";
    let builds_nothing = "case $1 in run) exit 1;; esac";
    for (stand_ins, expected) in [
        (vec![], "npm is missing; install Node.js"),
        (vec![("npm", "")], "npm is there and node is not"),
        (vec![("npm", ""), ("node", "echo v12.22.9")], "Node.js is v12.22.9, and bundling needs 18 or later"),
        (vec![("npm", ""), ("node", "echo what")], "Node.js is what, and bundling needs 18"),
        (vec![("npm", fails), NODE], "npm could not install what bundling needs"),
        (vec![("npm", builds_nothing), NODE], "it could not be bundled"),
    ] {
        let place =
            stand_ins.into_iter().fold(Place::new(), |place, (name, script)| place.with(name, script));
        let (told, _) = place.bundle();
        assert!(
            told.starts_with("the page of standalone is left out: ") && told.contains(expected),
            "{told}"
        );
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(!place.has_page(), "{told}");
    }
}

#[test]
fn packages_are_installed_where_they_are_others_or_not_whole() {
    let (current, stale) = ("", "case $1 in ls) exit 1;; esac");
    // As if something of it were missing: it builds once it has been installed anew.
    let damaged = "case $1 in ci) rm -f dist/index.html;; run) [ ! -e dist/index.html ];; esac";
    let (ls, ci, run) =
        ("npm ls --silent --omit=dev", "npm ci --silent --omit=dev", "npm run --silent build");
    for (npm, expected) in [
        (current, vec!["node --version", ls, run]),
        (stale, vec!["node --version", ls, ci, run]),
        (damaged, vec!["node --version", ls, run, ci, run]),
    ] {
        let place = Place::new().with("npm", npm).with(NODE.0, NODE.1);
        let (told, calls) = place.bundle();
        assert_eq!((told.as_str(), calls), ("", expected.iter().map(|&call| call.to_owned()).collect()));
        assert!(place.has_page());
    }
}
