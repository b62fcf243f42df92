//! Images out of the store and of containers, for other programs.
pub mod upper;
