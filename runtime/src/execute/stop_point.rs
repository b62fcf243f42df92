//! Tests only: a point at which the monitor stops itself, so that whoever started it can kill there whom it wants.
//!
//! Steps are counted from one: those of the monitor, those of PID 1, then those of the undoing (everything
//! killed, each line of the journal undone, the directory gone).
//!
//! A build without the feature `test-stop-points`, as every build for use is, has none of it.

#[cfg(not(feature = "test-stop-points"))]
pub use nowhere::StopPoint;
#[cfg(feature = "test-stop-points")]
pub use somewhere::StopPoint;
#[cfg(feature = "test-stop-points")]
pub(super) use somewhere::stop;

#[cfg(not(feature = "test-stop-points"))]
mod nowhere {
    /// Nothing stops.
    #[derive(Debug, Default)]
    pub struct StopPoint;

    impl StopPoint {
        pub(in super::super) fn go_on_after(&mut self, _number: usize) {}

        pub(in super::super) fn pass(&mut self) {}
    }
}

#[cfg(feature = "test-stop-points")]
mod somewhere {
    use rustix::process::{Signal, getpid, kill_process};

    /// How far a container has come, and where it stops.
    #[derive(Debug, Default)]
    pub struct StopPoint {
        after: Option<usize>,
        passed: usize,
    }

    impl StopPoint {
        /// Stops after the step with this number.
        pub fn after(number: usize) -> StopPoint {
            StopPoint { after: Some(number), passed: 0 }
        }

        /// Whether the step with this number is the one.
        pub(in super::super) fn is_after(&self, number: usize) -> bool {
            self.after == Some(number)
        }

        /// Counts on behind steps that another process has taken.
        pub(in super::super) fn go_on_after(&mut self, number: usize) {
            self.passed = number;
        }

        /// A step is done: if it is the one, this process stops here until it is continued.
        pub(in super::super) fn pass(&mut self) {
            self.passed += 1;
            if self.is_after(self.passed) {
                stop();
            }
        }
    }

    /// Stops this process as job control does.
    pub(in super::super) fn stop() {
        // It cannot fail, and if it did the test would see a process that ended instead of stopping.
        if kill_process(getpid(), Signal::STOP).is_err() {
            crate::sys::exit::exit_now(137);
        }
    }
}
