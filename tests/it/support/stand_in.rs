//! A program in the runtime's place, which kills whom it is told at an exact step of a container's life.

use std::fs;
use std::path::{Path, PathBuf};

use super::fixtures::compiled;
use super::worker::{Worker, runtime_executable};

/// `tests/stand_in.c` in a directory of its own, with its orders.
pub struct StandIn {
    directory: PathBuf,
}

impl StandIn {
    pub fn new(worker: &Worker) -> StandIn {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand_in.c");
        let program = compiled("stand-in", &fs::read_to_string(source).unwrap());
        let stand_in = StandIn { directory: worker.fresh("stand-in") };
        fs::create_dir(&stand_in.directory).unwrap();
        fs::copy(program, stand_in.executable()).unwrap();
        stand_in
    }

    /// What the worker takes for the runtime.
    pub fn executable(&self) -> PathBuf {
        self.directory.join("docker-worker-runtime")
    }

    /// The next monitor stops after `step`; `victims` as `tests/stand_in.c` lists them.
    pub fn order(&self, step: usize, victims: &str) {
        let orders = format!("{step} {victims} {}\n", runtime_executable().display());
        fs::write(self.directory.join("orders"), orders).unwrap();
        fs::remove_file(self.directory.join("stopped")).unwrap_or_default();
    }

    /// The container whose monitor was stopped; `None` if it came to its end before the step.
    pub fn stopped(&self) -> Option<String> {
        fs::read_to_string(self.directory.join("stopped")).ok()
    }
}
