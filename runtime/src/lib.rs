//! An OCI container runtime: plan, execute, undo.
//!
//! # Terminology
//!
//! *Spec*: the OCI `config.json` of a *bundle*. *Plan*: the Spec turned into plain steps, each one line
//! of text. *Monitor*: the process that carries out the host's steps and stays until the container has
//! ended. *PID 1*: the process that carries out the container's steps and becomes its command.
//! *Usher*: the process that `exec` sends ahead into a container that runs, where nobody can see it; it makes ready what
//! the further process is to have, and forks that.
//! *Holder*: what PID 1 becomes in place of its command where the container is to outlive that ([`holder`]).
//! *Journal*: the lines that say how the host's steps are taken back, written before they are done.
#![deny(unsafe_code)]

pub mod capabilities;
pub mod cgroup;
pub mod cli;
mod execute;
mod groups;
pub mod heap;
mod holder;
mod hooks;
pub mod host;
pub mod id;
pub mod journal;
pub mod launch;
mod limits;
pub mod lock;
mod mount_attr;
mod open;
pub mod plan;
pub mod rlimits;
mod rootfs;
pub mod scheduling;
pub mod seccomp;
pub mod spec;
mod state;
#[allow(unsafe_code)]
mod sys;
mod terminal;
pub mod undo;
