//! One task from its claim to its resolution.
//!
//! ```text
//!   claim ──begin──► Claimed ──validate──► Validated ──image_ready──► ImageReady ──start──► Running ──wait──► Resolving
//!     │                 │                      │                          │                                      ▲   │
//!     │                 └── malformed, ────────┴── no image, no cache ────┴── does not start ────────────────────┘ resolve
//!     │                     not allowed                                                                               ▼
//!     └── no room for it ──► NotBegun ──resolve──► Resolved                  Resolved, and Holdings ──give_back──► ∅
//! ```
//!
//! Each phase is a type that can only be made from the one before, and owns what is there from then on: a valid payload,
//! an image and caches that nobody else can take away, a container. `run` is what all of them hand on, `taken` the list
//! of what has to be given back. Whatever happens, a run passes through [`resolving`] exactly once, or through [`resolved`]
//! alone where it has no log. One channel ([`interrupt`](crate::interrupt)) ends any of them early; one pure function
//! ([`outcome`]) says what is reported.
//!
//! Beside the phases there is a file for each thing that they need: before the first one its place ([`opening`]) and its
//! claim ([`reclaim`]); then what the task may do (`authorization`), its network and features (`linking`), its image
//! ([`image`], `artifact_image`), its time ([`timer`]), the runs that it makes superfluous ([`secondaries`]); and for the end what is told of it ([`resolution_document`],
//! [`resources`]) and what is given back ([`holdings`]). Its container is [`container`](crate::container)'s.

mod artifact_image;
mod authorization;
pub mod claimed;
pub mod error;
mod fence;
pub mod full_disk;
pub mod holdings;
pub mod image;
pub mod image_ready;
mod linking;
pub mod opening;
pub mod outcome;
pub mod reclaim;
pub mod resolution_document;
pub mod resolved;
pub mod resolving;
pub mod resources;
pub mod run;
pub mod running;
pub mod secondaries;
mod taken;
pub mod timer;
pub mod validated;

pub use authorization::judge;

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;

use claimed::Claimed;
use holdings::Holdings;
use outcome::End;
use resolved::Resolved;
use resolving::Resolving;

/// Takes a claimed run to its resolution; what it still holds then is to be given back. A panic on the way is this run's
/// internal error and nobody else's; what the run held is for a clean-up.
pub async fn carry_out(claimed: Claimed) -> (Resolved, Option<Holdings>) {
    let identity = claimed.identity();
    let to_its_resolution = async {
        let (Ok(resolving) | Err(resolving)) = to_its_end(claimed).await;
        resolving.resolve().await
    };
    match catch_panic(to_its_resolution).await {
        Ok((resolved, holdings)) => (resolved, Some(holdings)),
        // What it held is a dead run's from then on.
        Err(why) => {
            let why =
                format!("The worker panicked ({why}); \"docker-worker cleanup\" undoes what the task held.");
            (identity.resolve_without_log(End::WorkerFault, why).await, None)
        }
    }
}

/// The result of `future`, or the message of its panic. What it held is dropped by then.
async fn catch_panic<F: Future>(future: F) -> Result<F::Output, String> {
    let mut future = Box::pin(future);
    let polled = poll_fn(move |context| {
        // Nothing of the future is looked at again after a panic.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(message(panic.as_ref()))),
        }
    });
    polled.await
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

/// All phases up to the end of the last process; an error is a run that came less far.
async fn to_its_end(claimed: Claimed) -> Result<Box<Resolving>, Box<Resolving>> {
    let validated = claimed.validate().await?;
    let ready = validated.image_ready().await?;
    let running = ready.start().await?;
    Ok(running.wait().await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_result_and_drops_what_was_held() {
        assert_eq!(catch_panic(async { 7 }).await, Ok(7));
        let held = std::sync::Arc::new(());
        let its = std::sync::Arc::clone(&held);
        let panicking = async move {
            let _its = its;
            tokio::task::yield_now().await;
            panic!("at {}", "noon")
        };
        let result: Result<(), String> = catch_panic(panicking).await;
        assert_eq!(result, Err("at noon".to_owned()));
        assert_eq!(std::sync::Arc::strong_count(&held), 1);
    }
}
