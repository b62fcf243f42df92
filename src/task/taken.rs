//! What a run takes of the host on its way, and has to give back whatever becomes of it.

use std::path::PathBuf;

use crate::apparmor_profiles::Use;
use crate::cache::CacheLease;
use crate::net::TaskNetwork;
use crate::sidecar::Sidecars;
use crate::task::resolution_document::ImageUsed;

/// All of it, as far as the run came.
#[derive(Default)]
pub(super) struct Taken {
    /// The image that it was given.
    pub(super) image: Option<ImageUsed>,
    /// The caches that nobody else has meanwhile.
    pub(super) caches: Vec<CacheLease>,
    /// The network that its container is in; none where tasks have loopback only.
    pub(super) network: Option<TaskNetwork>,
    /// The containers that serve its own.
    pub(super) sidecars: Sidecars,
    /// The AppArmor profile that its containers run under; none where they run without.
    pub(super) profile: Option<Use>,
    /// What is mounted for it in the worker's own mount namespace, in order.
    pub(super) mounts: Vec<PathBuf>,
}
