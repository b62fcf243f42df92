//! The only `unsafe` of this crate: system calls that neither rustix nor nix offers in safe form.
//!
//! One file for each family of calls. Each function is call-shaped: it does what the call does and
//! returns the kernel's answer; meaning is given by the caller.

pub mod bpf;
pub mod capabilities;
pub mod clone3;
pub mod descriptors;
pub mod entry;
pub mod exec;
pub mod exit;
pub mod heap;
pub mod interface;
pub mod keyring;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod seccomp;
pub mod shared_word;
pub mod signals;
pub mod spawn;
pub mod wait;
