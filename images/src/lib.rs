//! Images: from a registry or an archive into a store that indexes each layer once, and from there
//! to a mounted root file system.
//!
//! ```text
//!  name, transport ──► reference, source
//!        │
//!  registry, archive   what a source offers: manifest, configuration, layers' blobs
//!        │
//!     store            blobs ─► layers ─► images ─► names; shared by all processes of a host
//!        │
//!  layer ─► tree ─► erofs      tar stream ─► index and data ─► merged ─► metadata image
//!                     │
//!                   mount      EROFS, and a writable overlay on it
//! ```
//!
//! # Terminology
//!
//! * **blob**: bytes with a digest, as a registry serves them: a manifest, a configuration, a layer.
//! * **layer**: a tar stream, plain or compressed. Its **diff id** is the digest of the plain stream.
//! * **image**: a configuration and the layers it lists. Its **id** is the configuration's digest.
//! * **manifest**: names an image's blobs; an **index** names manifests by platform.
//! * **lease**: what keeps an image in the store while something uses it.
//!
//! # What is deliberately absent
//!
//! * No file of a layer is created under a name that the layer chose, and nothing of an archive is
//!   extracted: what comes from outside has no path on this host.
//! * No unverified content is visible in the store, and no credential is kept in it.
//! * Nothing here knows what a task is.
#![deny(unsafe_code)]
pub mod archive;
pub mod digest;
pub mod disk;
pub mod erofs;
pub mod image;
mod inflate;
pub mod json;
pub mod layer;
pub mod limits;
pub mod manifest;
pub mod mount;
mod name_table;
pub mod reference;
pub mod registry;
pub mod save;
mod scratch;
pub mod source;
pub mod store;
#[allow(unsafe_code)]
mod sys;
pub mod tree;
