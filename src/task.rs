//! One task from its claim to its resolution.

pub mod artifact_name;
pub mod definition;
pub mod env;
pub mod finding;
pub mod interrupt;
pub mod limits;
pub mod log;
pub mod payload;
mod reader;
pub mod resolution;
pub mod resolve;
pub mod task_id;
