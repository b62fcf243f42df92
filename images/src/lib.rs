//! Image references, registry client and layer store.
pub mod archive;
pub mod digest;
pub mod erofs;
pub mod image;
pub mod layer;
pub mod limits;
pub mod manifest;
pub mod mount;
pub mod reference;
pub mod registry;
pub mod source;
pub mod store;
pub mod sys;
pub mod tree;
