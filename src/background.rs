//! Work that goes on beside a run and ends with it.

use std::future::Future;

use tokio::task::JoinHandle;

/// A task of the event loop, ended when this value goes.
#[derive(Debug)]
pub struct Background(JoinHandle<()>);

impl Background {
    /// Starts it. Inside a tokio runtime only.
    pub fn start(work: impl Future<Output = ()> + Send + 'static) -> Background {
        Background(tokio::spawn(work))
    }

    /// Ends it before the value goes.
    pub fn end(&self) {
        self.0.abort();
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}
