//! Values of the configuration that are more than their type: each is refused where it is read, so that the error has
//! its line.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;

use images::registry::Proxies;
use runtime::scheduling::ProcessorSet;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Unexpected, Visitor};

use super::{FeatureSwitch, Secret};
use crate::known_features::FEATURE_NAMES;
use crate::units::parse_bytes;

/// Less memory than a container can start with; docker's bound as well.
const LEAST_MEMORY_BYTES: u64 = 6 << 20;

/// Claims, which hold for 20 minutes, are prolonged every 12 seconds with it.
const MOST_DIVISOR: f64 = 100.0;

/// Bytes, as a number or with a unit.
pub(super) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    deserializer.deserialize_any(Size).map(Some)
}

/// Bytes of memory that a container can at least start with.
pub(super) fn memory_limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let bytes = deserializer.deserialize_any(Size)?;
    if bytes < LEAST_MEMORY_BYTES {
        return Err(D::Error::custom(format!(
            "must be at least {LEAST_MEMORY_BYTES} bytes (6M), as no container starts with {bytes}"
        )));
    }
    Ok(Some(bytes))
}

/// A number from 1.
pub(super) fn at_least_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    match u32::deserialize(deserializer)? {
        0 => Err(D::Error::custom("must be at least 1")),
        number => Ok(Some(number)),
    }
}

/// The number of a user that may do nothing by itself.
pub(super) fn user<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    match u32::deserialize(deserializer)? {
        // The last one means "as it is" to the kernel: setuid(2).
        0 | u32::MAX => Err(D::Error::custom("must be the number of a user, and not root's")),
        number => Ok(Some(number)),
    }
}

/// A path that means the same wherever the worker is started.
pub(super) fn absolute_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    if path.is_absolute() { Ok(Some(path)) } else { Err(D::Error::custom("must be an absolute path")) }
}

/// A name or an address as URLs can have it.
pub(super) fn host_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let name = Option::<String>::deserialize(deserializer)?;
    if name.as_ref().is_some_and(|name| !is_host(name)) {
        return Err(D::Error::custom("must be the name or the address of a host, without a port"));
    }
    Ok(name)
}

fn is_host(name: &str) -> bool {
    let is_address_6 = name.parse::<Ipv6Addr>().is_ok();
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    is_address_6 || (!name.is_empty() && name.bytes().all(is_of_name))
}

/// Switches of features that exist: a typo would leave on what was to be off.
pub(super) fn known_features<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, FeatureSwitch>, D::Error> {
    deserializer.deserialize_map(Features)
}

/// By what a claim's time is divided: more than 1, or the claim is over before it is prolonged; not so much more that the
/// worker does little else.
pub(super) fn divisor<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let number = f64::deserialize(deserializer)?;
    if number > 1.0 && number <= MOST_DIVISOR {
        Ok(Some(number))
    } else {
        Err(D::Error::custom(format!(
            "must be above 1 and at most {MOST_DIVISOR}, as 2: a claim is prolonged after half of its time"
        )))
    }
}

/// The URL of a proxy, which is not repeated: it may hold a password.
pub(super) fn proxy<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    let Some(url) = Option::<Secret>::deserialize(deserializer)? else { return Ok(None) };
    match Proxies::new(url.reveal(), "", "") {
        Ok(_) => Ok(Some(url)),
        Err(error) => Err(D::Error::custom(format!("what stands there {error}"))),
    }
}

/// A part of a whole.
pub(super) fn part<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let number = f64::deserialize(deserializer)?;
    if (0.0..=1.0).contains(&number) {
        Ok(Some(number))
    } else {
        Err(D::Error::custom("must be a number from 0 to 1"))
    }
}

/// As nice(2) has it.
pub(super) fn niceness<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i32>, D::Error> {
    match i32::deserialize(deserializer)? {
        number @ -20..=19 => Ok(Some(number)),
        _ => Err(D::Error::custom("must be a number from -20 to 19")),
    }
}

/// Processors, as the kernel lists them.
pub(super) fn processors<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<ProcessorSet>, D::Error> {
    deserializer.deserialize_any(Processors).map(Some)
}

struct Processors;

impl Visitor<'_> for Processors {
    type Value = ProcessorSet;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list of processors, as 0-3,8")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<ProcessorSet, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ProcessorSet, E> {
        text.parse().map_err(E::custom)
    }
}

struct Size;

impl Visitor<'_> for Size {
    type Value = u64;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a number of bytes, as 1000000, or with a unit, as 512M or 4G")
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<u64, E> {
        Ok(bytes)
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<u64, E> {
        u64::try_from(bytes).map_err(|_| E::invalid_value(Unexpected::Signed(bytes), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        parse_bytes(text).map_err(E::custom)
    }
}

struct Features;

impl<'de> Visitor<'de> for Features {
    type Value = BTreeMap<String, FeatureSwitch>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("features by name, each with its key \"enabled\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut features = BTreeMap::new();
        while let Some(name) = members.next_key::<String>()? {
            if !FEATURE_NAMES.contains(&name.as_str()) {
                return Err(A::Error::unknown_field(&name, &FEATURE_NAMES));
            }
            features.insert(name, members.next_value()?);
        }
        Ok(features)
    }
}
