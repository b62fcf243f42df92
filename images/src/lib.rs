//! Image references, registry client and layer store.
#![deny(unsafe_code)]
pub mod archive;
pub mod digest;
pub mod disk;
pub mod erofs;
pub mod image;
mod inflate;
pub mod layer;
pub mod limits;
pub mod manifest;
pub mod mount;
pub mod reference;
pub mod registry;
pub mod source;
pub mod store;
#[allow(unsafe_code)]
mod sys;
pub mod tree;
