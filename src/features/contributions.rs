//! What features add to a task's container.

use oci_spec::runtime::Capability;

use crate::net::names::Alias;
use crate::spec::{Bind, Device};

/// Additions of all features of a run, in the order of the table. Whoever carries them out takes this apart without a
/// rest, so that no kind can be forgotten.
#[derive(Debug, Default)]
pub struct Contributions {
    /// Variables below those of the payload; of two with one name the first counts.
    pub environment: Vec<(String, String)>,
    /// What the container will see of the host's.
    pub binds: Vec<Bind>,
    /// Names for those who serve the task, in its `/etc/hosts`.
    pub aliases: Vec<Alias>,
    /// Device nodes of the host's that it may open.
    pub devices: Vec<Device>,
    /// Capabilities beyond those of every container.
    pub capabilities: Vec<Capability>,
}
