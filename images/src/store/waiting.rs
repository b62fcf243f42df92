//! How async code waits for work that blocks.

use std::future::Future;
use std::io;
use std::thread;

use tokio::sync::oneshot;
use tokio::task::{JoinError, spawn_blocking};

use super::options::Cancel;
use super::{PullError, StoreError};

/// Waits for something unless the pull is cancelled first: then it is not even begun.
pub(super) async fn unless_cancelled<T>(
    cancel: &Cancel,
    name: &str,
    future: impl Future<Output = T>,
) -> Result<T, PullError> {
    let cancelled = || Err(PullError::Cancelled { name: name.to_owned() });
    if cancel.is_cancelled() {
        return cancelled();
    }
    tokio::select! {
        // What is done has a result that somebody may have to give back.
        biased;
        done = future => Ok(done),
        () = cancel.cancelled() => cancelled(),
    }
}

/// Runs something that may block for long on a thread of its own: unlike a runtime's blocking
/// task, it holds up neither a cancelled pull nor the end of the runtime. A result that nobody
/// waits for any more is given to `unwanted`.
pub(super) async fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    unwanted: impl FnOnce(T) + Send + 'static,
) -> Result<T, StoreError> {
    let (done, result) = oneshot::channel();
    let send = move || {
        if let Err(Ok(late)) = done.send(work()) {
            unwanted(late);
        }
    };
    let spawned = thread::Builder::new().name("store-wait".to_owned()).spawn(send);
    spawned.map_err(|source| StoreError::Thread { source })?;
    let panicked = |_closed| Err(StoreError::Thread { source: io::Error::other("it panicked") });
    result.await.unwrap_or_else(panicked)
}

/// Runs something that blocks for as long as the disk takes: it is waited for in any case.
pub(super) async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    joined(spawn_blocking(work).await)
}

/// The result of a task. Tasks are not aborted while someone waits for them; a panic goes on here.
pub(super) fn joined<T, E: From<StoreError>>(ended: Result<Result<T, E>, JoinError>) -> Result<T, E> {
    match ended.map_err(JoinError::try_into_panic) {
        Ok(result) => result,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(aborted)) => Err(StoreError::Thread { source: io::Error::other(aborted) }.into()),
    }
}
