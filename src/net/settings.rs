//! What the configuration may say about the tasks' network.

use std::net::Ipv4Addr;

use serde::de::{Deserialize, Deserializer, Error};

use super::addresses::{AddressRange, DEFAULT_RANGE};

/// The `network` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct NetworkSettings {
    /// The range that tasks' addresses are taken from; nothing else on the host may use it.
    pub addresses: Option<AddressRange>,
    /// Name servers for tasks, where the host's own are out of their reach.
    #[serde(deserialize_with = "name_servers")]
    pub dns: Vec<Ipv4Addr>,
}

impl NetworkSettings {
    /// The range that tasks' addresses are taken from.
    pub fn addresses(&self) -> AddressRange {
        self.addresses.unwrap_or(DEFAULT_RANGE)
    }
}

/// In words of our own: the library has others for what is no address.
fn name_servers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Ipv4Addr>, D::Error> {
    let parse = |text: String| {
        text.parse()
            .map_err(|_| D::Error::custom(format!("{text:?} is no IPv4 address: write it like 192.0.2.53")))
    };
    Vec::<String>::deserialize(deserializer)?.into_iter().map(parse).collect()
}
