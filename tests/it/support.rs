//! What the end-to-end tests are written with: images made for one test, the real registry, a worker with directories
//! of its own, and a canary that shows whether anything left its place.

mod canary;
mod fixtures;
mod image;
mod layer;
mod process;
mod registry;
mod scratch;
mod worker;

pub use canary::Canary;
pub use fixtures::{busybox_image, debian_image, probe_image};
pub use image::{Image, WrittenImage};
pub use layer::{
    Compression, Entry, Layer, block, character, compress, dir, fifo, file, hardlink, sha256, symlink, tar,
    typed,
};
pub use process::{Finished, finish, tool};
pub use registry::Registry;
pub use scratch::Scratch;
pub use worker::{Run, Worker, runtime_executable, shell_payload};
