//! One task from its claim to its resolution.
//!
//! ```text
//!   Claimed ──validate──► Validated ──image_ready──► ImageReady ──start──► Running ──wait──► Resolving
//!      │                      │                          │                                      ▲   │
//!      └── malformed ─────────┴── no image, no cache ────┴── does not start ────────────────────┘ resolve
//!                                                                                                   ▼
//!                                                                                               Resolved
//! ```
//!
//! Each phase is a type that can only be made from the one before, and holds what is true from then
//! on: a valid payload, an image and caches that nobody else can take away, a container. Whatever
//! happens, a run passes through [`resolving`] exactly once. One channel ([`interrupt`]) ends any of
//! them early; one pure function ([`resolve`]) says what is reported.

pub mod artifact_name;
pub mod claimed;
pub mod container;
pub mod definition;
pub mod env;
pub mod error;
pub mod finding;
pub mod image_ready;
pub mod interrupt;
pub mod limits;
pub mod log;
pub mod output;
pub mod payload;
mod reader;
pub mod resolution;
pub mod resolve;
pub mod resolving;
pub mod root_file_system;
pub mod run;
pub mod running;
pub mod spool;
pub mod task_id;
pub mod timer;
pub mod validated;

use claimed::Claimed;
use resolving::{Resolved, Resolving};

/// Takes a claimed run to its resolution.
pub async fn carry_out(claimed: Claimed) -> Resolved {
    let (Ok(resolving) | Err(resolving)) = to_its_end(claimed).await;
    resolving.resolve().await
}

/// All phases up to the end of the last process; an error is a run that came less far.
async fn to_its_end(claimed: Claimed) -> Result<Box<Resolving>, Box<Resolving>> {
    let validated = claimed.validate().await?;
    let ready = validated.image_ready().await?;
    let running = ready.start().await?;
    Ok(running.wait().await)
}
