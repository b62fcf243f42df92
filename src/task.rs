//! One task from its claim to its resolution.

pub mod interrupt;
