//! The payload that looks at its confinement from inside: `tests/probe.c`, compiled for one test.
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A static executable in a directory of its own, which goes with it.
pub struct Probe {
    directory: tempfile::TempDir,
}

impl Probe {
    /// Compiles it.
    pub fn build() -> Self {
        let directory =
            tempfile::Builder::new().prefix("docker-worker-probe-").tempdir().expect("a directory");
        // Also for users that are not root.
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("chmod");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/probe.c");
        let probe = Self { directory };
        let compiler =
            Command::new("cc").args(["-static", "-O1", "-o"]).arg(probe.path()).arg(source).status();
        assert!(compiler.expect("cc is installed").success(), "cc compiles tests/probe.c");
        probe
    }

    /// The executable.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("probe")
    }

    /// Room for a test's files.
    #[allow(dead_code, reason = "not every test binary needs it")]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A command that runs one probe.
    #[allow(dead_code, reason = "not every test binary needs it")]
    pub fn command(&self, words: &str) -> Command {
        let mut command = Command::new(self.path());
        command.args(words.split_ascii_whitespace());
        command
    }
}

/// The line that a probe printed.
pub fn line(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    assert!(output.status.success(), "{}: {said} {}", output.status, String::from_utf8_lossy(&output.stderr));
    said
}
