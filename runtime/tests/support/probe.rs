//! The payload that looks at its confinement from inside: `tests/probe.c`, compiled for one test.
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

/// A static executable in a directory of its own, which goes with it.
pub struct Probe {
    directory: tempfile::TempDir,
}

impl Probe {
    /// Compiles it, once for all tests of the process.
    pub fn build() -> Self {
        static EXECUTABLE: LazyLock<Vec<u8>> = LazyLock::new(compile);
        let probe = Self { directory: directory() };
        // Also for users that are not root.
        std::fs::set_permissions(probe.directory(), Permissions::from_mode(0o755)).expect("chmod");
        // By another process: a descriptor of ours, open for writing, would be in whatever another test
        // forks at the same time, and the executable busy.
        let mut copy = Command::new("sh");
        copy.args(["-c", "cat >\"$0\" && chmod 755 \"$0\""]).arg(probe.path()).stdin(Stdio::piped());
        let mut copy = copy.spawn().expect("a shell");
        copy.stdin.take().expect("a pipe").write_all(&EXECUTABLE).expect("room for the probe");
        assert!(copy.wait().expect("the shell's status").success(), "copy the probe");
        probe
    }

    /// The executable.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("probe")
    }

    /// Room for a test's files.
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

fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("docker-worker-probe-").tempdir().expect("a directory")
}

fn compile() -> Vec<u8> {
    let directory = directory();
    let (source, executable) =
        (Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/probe.c"), directory.path().join("probe"));
    let compiler = Command::new("cc").args(["-static", "-O1", "-o"]).arg(&executable).arg(source).status();
    assert!(compiler.expect("cc is installed").success(), "cc compiles tests/probe.c");
    std::fs::read(executable).expect("cc has written it")
}

/// The line that a probe printed.
pub fn line(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    assert!(output.status.success(), "{}: {said} {}", output.status, String::from_utf8_lossy(&output.stderr));
    said
}
