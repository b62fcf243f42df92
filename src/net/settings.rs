//! What the configuration may say about the tasks' network.

use std::net::Ipv4Addr;

use serde::Deserialize;

use super::addresses::{AddressRange, DEFAULT_RANGE};

/// The `network` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct NetworkSettings {
    /// The range that tasks' addresses are taken from; nothing else on the host may use it.
    pub addresses: Option<AddressRange>,
    /// Name servers for tasks, where the host's own are out of their reach.
    pub dns: Vec<Ipv4Addr>,
}

impl NetworkSettings {
    /// The range that tasks' addresses are taken from.
    pub fn addresses(&self) -> AddressRange {
        self.addresses.unwrap_or(DEFAULT_RANGE)
    }
}
