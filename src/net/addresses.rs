//! Which addresses tasks get, and how long one rests after its task.
//!
//! An address is chosen at random in the configured range and claimed by its route (`link::claim`), so
//! workers that know nothing of each other never give one to two tasks. When its task is gone it rests:
//! what the outside still sends to it, or a peer still believes of it, must not reach the next task.
//! Resting addresses are lines of a file in the run directory, which all its workers share. Workers with
//! other run directories do not know them; between those chance decides, one to the size of the range.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::file_lock::{self, Hold, Patience};

/// How long an address is not given to another task.
pub const REST: Duration = Duration::from_secs(60);

/// How long another worker may take to note one.
const PATIENCE: Duration = Duration::from_secs(10);

/// The range unless the configuration says otherwise: private, and outside of what docker, libvirt,
/// kubernetes and home routers take by themselves.
pub const DEFAULT_RANGE: AddressRange = AddressRange { network: Ipv4Addr::new(10, 231, 0, 0), prefix: 16 };

/// Prefix lengths that make sense: at least two tasks, at most one of the old class A networks.
const PREFIXES: std::ops::RangeInclusive<u8> = 8..=30;

/// Bytes of the file of resting addresses that are read: some 40 000 lines.
const RESTING_BYTES: u64 = 1 << 20;

/// A range of IPv4 addresses, `10.231.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct AddressRange {
    network: Ipv4Addr,
    prefix: u8,
}

/// Why a text is no range.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no range of addresses: write it like 10.231.0.0/16, with a length from 8 to 30")]
pub struct RangeError(String);

impl FromStr for AddressRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<AddressRange, RangeError> {
        let refused = || RangeError(text.chars().take(64).collect());
        let (network, prefix) = text.split_once('/').ok_or_else(refused)?;
        let network: Ipv4Addr = network.parse().map_err(|_| refused())?;
        let prefix: u8 = prefix.parse().map_err(|_| refused())?;
        let range = AddressRange { network, prefix };
        if !PREFIXES.contains(&prefix) || network.to_bits() & !range.mask() != 0 {
            return Err(refused());
        }
        Ok(range)
    }
}

impl TryFrom<String> for AddressRange {
    type Error = RangeError;

    fn try_from(text: String) -> Result<AddressRange, RangeError> {
        text.parse()
    }
}

impl serde::Serialize for AddressRange {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.network, self.prefix)
    }
}

impl AddressRange {
    /// The range as a registry client knows it.
    pub fn block(&self) -> images::registry::AddressBlock {
        images::registry::AddressBlock { network: self.network.into(), prefix: self.prefix }
    }

    fn mask(&self) -> u32 {
        mask(self.prefix)
    }

    /// Whether a network has an address in common with this range.
    pub fn overlaps(&self, network: Ipv4Addr, prefix: u8) -> bool {
        let mask = self.mask() & mask(prefix);
        self.network.to_bits() & mask == network.to_bits() & mask
    }

    /// Whether a network lies in this range as a whole.
    pub fn holds(&self, network: Ipv4Addr, prefix: u8) -> bool {
        prefix >= self.prefix && self.overlaps(network, prefix)
    }

    /// How many tasks it has addresses for: neither the first nor the last is given.
    fn size(&self) -> u32 {
        !self.mask() - 1
    }

    /// All addresses that tasks may get, once around from one chosen by `random`.
    fn from(self, random: u32) -> impl Iterator<Item = Ipv4Addr> {
        let (base, size) = (self.network.to_bits(), self.size());
        let start = random % size;
        (0..size).map(move |step| Ipv4Addr::from_bits(base + 1 + (start + step) % size))
    }
}

/// The bits that count; `prefix` is 32 at most.
fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

/// Addresses of a range in random order, without those that rest.
///
/// # Errors
///
/// The file of resting addresses cannot be used, or the kernel has no random bytes.
pub fn candidates(range: AddressRange, resting: &Path) -> io::Result<impl Iterator<Item = Ipv4Addr> + use<>> {
    let (resting, _) = read(&open(resting)?, now())?;
    let mut random = [0_u8; 4];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    let free = range.from(u32::from_ne_bytes(random));
    Ok(free.filter(move |address| resting.iter().all(|(_, resting)| resting != address)))
}

/// Notes that an address rests from now on.
///
/// # Errors
///
/// The file cannot be written.
pub fn rest(address: Ipv4Addr, resting: &Path) -> io::Result<()> {
    let mut file = open(resting)?;
    file_lock::lock(&file, Hold::Exclusive, Patience::of(PATIENCE)).map_err(io::Error::other)?;
    let now = now();
    let (mut kept, read) = read(&file, now)?;
    kept.push((now, address));
    if kept.len() < read {
        // Some are fit again: the file is written anew, so that it does not grow.
        file.set_len(0)?;
        file.rewind()?;
    } else {
        kept.drain(..kept.len() - 1);
    }
    let text: String = kept.iter().map(|(since, address)| format!("{since} {address}\n")).collect();
    file.write_all(text.as_bytes())
}

fn open(path: &Path) -> io::Result<File> {
    File::options().create(true).read(true).append(true).open(path)
}

/// What rests now, and how many lines there were. Lines of an earlier boot lie in the future or far
/// back; those that are none were cut by a crash.
fn read(file: &File, now: u64) -> io::Result<(Vec<(u64, Ipv4Addr)>, usize)> {
    let mut text = String::new();
    file.take(RESTING_BYTES).read_to_string(&mut text)?;
    let lines = text.lines().filter_map(|line| {
        let (since, address) = line.split_once(' ')?;
        Some((since.parse::<u64>().ok()?, address.parse().ok()?))
    });
    let resting = lines.filter(|(since, _)| (*since..=*since + REST.as_secs()).contains(&now)).collect();
    Ok((resting, text.lines().count()))
}

/// Seconds since the boot, suspension included.
fn now() -> u64 {
    u64::try_from(clock_gettime(ClockId::Boottime).tv_sec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_a_network_and_its_length() {
        for (text, size) in [("10.231.0.0/16", 65_534), ("192.168.4.0/30", 2), ("10.0.0.0/8", (1 << 24) - 2)]
        {
            let range: AddressRange = text.parse().unwrap();
            assert_eq!((range.to_string().as_str(), range.size()), (text, size));
        }
        for text in ["", "10.0.0.0", "10.0.0.1/16", "10.0.0.0/31", "10.0.0.0/7", "::/64", "10.0.0.0/x"] {
            assert!(text.parse::<AddressRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn networks_overlap_when_one_holds_the_other() {
        let range = DEFAULT_RANGE;
        for (network, prefix, expected) in [
            ([10, 231, 4, 0], 24, true),
            ([10, 0, 0, 0], 8, true),
            ([10, 230, 0, 0], 15, true),
            ([10, 230, 0, 0], 16, false),
            ([192, 0, 2, 0], 24, false),
            ([10, 231, 0, 1], 32, true),
        ] {
            assert_eq!(range.overlaps(network.into(), prefix), expected, "{network:?}/{prefix}");
        }
    }

    #[test]
    fn every_address_is_offered_once_but_the_first_and_the_last() {
        let range: AddressRange = "192.168.4.0/29".parse().unwrap();
        for random in [0, 3, u32::MAX] {
            let mut last: Vec<u8> = range.from(random).map(|address| address.octets()[3]).collect();
            last.sort_unstable();
            assert_eq!(last, [1, 2, 3, 4, 5, 6], "{random}");
        }
    }

    #[test]
    fn s52_an_address_rests_before_it_is_given_again() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("addresses");
        let range: AddressRange = "192.168.4.0/30".parse().unwrap();
        let [first, second] = [Ipv4Addr::new(192, 168, 4, 1), Ipv4Addr::new(192, 168, 4, 2)];
        rest(first, &file).unwrap();
        for _ in 0..8 {
            assert_eq!(candidates(range, &file).unwrap().collect::<Vec<_>>(), [second]);
        }
        rest(second, &file).unwrap();
        assert_eq!(candidates(range, &file).unwrap().count(), 0);
        // An earlier boot's, one that has rested enough, and a line cut by a crash.
        std::fs::write(&file, format!("{} {first}\n0 {second}\n12", now() + 1000)).unwrap();
        let free = candidates(range, &file).unwrap().count();
        assert_eq!(free, if now() > REST.as_secs() { 2 } else { 1 });
        rest(first, &file).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 1);
    }
}
