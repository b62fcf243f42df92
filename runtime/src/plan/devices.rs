//! The device nodes and links of `/dev`: those that every container has, and `linux.devices`.
//!
//! Source: OCI runtime specification, config-linux.md, "Default Devices".

use std::fmt;
use std::path::{Path, PathBuf};

use super::mounts::normal;
use super::{ChildStep, Findings};
use crate::spec::{DeviceEntry, DeviceType, Spec};

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Below `/dev`: `null`, `net/tun`.
    pub name: PathBuf,
    /// What kind of node.
    pub node: Node,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A node's kind and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// A character device.
    Character {
        /// Which driver.
        major: u32,
        /// Which device.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Which driver.
        major: u32,
        /// Which device.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

impl fmt::Display for Device {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ", self.name.display())?;
        match self.node {
            Node::Character { major, minor } => write!(out, "c {major}:{minor}")?,
            Node::Block { major, minor } => write!(out, "b {major}:{minor}")?,
            Node::Fifo => write!(out, "p")?,
        }
        write!(out, " {:04o} {}:{}", self.mode, self.uid, self.gid)
    }
}

/// Name, major, minor of the nodes that every container has.
const DEFAULT: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// The multiplexer of ptys.
const PTMX: Node = Node::Character { major: 5, minor: 2 };

/// Links that every container has.
const LINKS: [(&str, &str); 5] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// The steps that fill `/dev`.
pub(super) fn steps(spec: &Spec, findings: &mut Findings) -> Vec<ChildStep> {
    let mut devices = Vec::new();
    for (index, device) in spec.linux.devices.iter().enumerate() {
        match convert(device) {
            // The container's own, to which the link leads (config-linux.md, "Default Devices").
            Ok(Device { name, node: PTMX, .. }) if name == Path::new("ptmx") => {}
            Ok(device) => devices.push(device),
            Err(message) => findings.add(format!("/linux/devices/{index}"), message),
        }
    }
    let mut steps = Vec::new();
    for (name, major, minor) in DEFAULT {
        if !devices.iter().any(|device| device.name == Path::new(name)) {
            let node = Node::Character { major, minor };
            steps.push(ChildStep::Device(Device { name: name.into(), node, mode: 0o666, uid: 0, gid: 0 }));
        }
    }
    steps.extend(devices.into_iter().map(ChildStep::Device));
    steps.extend(
        LINKS.map(|(name, target)| ChildStep::DeviceLink { name: name.into(), target: target.into() }),
    );
    steps
}

fn convert(device: &DeviceEntry) -> Result<Device, String> {
    let path = normal(&device.path);
    let name = path.strip_prefix("/dev").map_err(|_| format!("{} is not below /dev", path.display()))?;
    if name.as_os_str().is_empty() {
        return Err("it would replace /dev itself".into());
    }
    // mknod(2) keeps 12 and 20 bits of them, and would make another device's node of more.
    let number = |what: &str, value: Option<u32>, most: u32| match value.unwrap_or(0) {
        value if value <= most => Ok(value),
        value => Err(format!("{what} {value} is no device number: they go from 0 to {most}")),
    };
    let (major, minor) = (number("major", device.major, 0xfff)?, number("minor", device.minor, 0xf_ffff)?);
    let node = match device.kind {
        DeviceType::Character => Node::Character { major, minor },
        DeviceType::Block => Node::Block { major, minor },
        DeviceType::Fifo => Node::Fifo,
        DeviceType::All => return Err("type \"a\" names no single device: use c, b or p".into()),
    };
    Ok(Device {
        name: name.to_owned(),
        node,
        mode: device.mode.unwrap_or(0o666) & 0o7777,
        uid: device.uid.map_or(0, |id| id.0),
        gid: device.gid.map_or(0, |id| id.0),
    })
}
