//! `root`, `mounts` and `linux`: what the container is made of.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::read::{names, object};
use super::{Id, Resources, Seccomp};

object! {
    /// `root`.
    Root {
        path: PathBuf = "path",
        readonly: bool = "readonly",
    }
}

/// Advice for id-mapped mounts.
const NO_ID_MAPS: &str = "id-mapped mounts are not there yet: chown the source instead";

object! {
    /// One of `mounts`.
    MountEntry {
        destination: PathBuf = "destination",
        kind: Option<String> = "type",
        source: Option<PathBuf> = "source",
        options: Vec<String> = "options",
    } refused {
        "uidMappings": NO_ID_MAPS,
        "gidMappings": NO_ID_MAPS,
    }
}

object! {
    /// `linux`.
    Linux: Default {
        uid_mappings: Vec<IdMapping> = "uidMappings",
        gid_mappings: Vec<IdMapping> = "gidMappings",
        sysctl: BTreeMap<String, String> = "sysctl",
        resources: Resources = "resources",
        cgroups_path: Option<PathBuf> = "cgroupsPath",
        namespaces: Vec<NamespaceEntry> = "namespaces",
        devices: Vec<DeviceEntry> = "devices",
        seccomp: Option<Seccomp> = "seccomp",
        rootfs_propagation: Option<String> = "rootfsPropagation",
        personality: Option<Personality> = "personality",
        masked_paths: Vec<PathBuf> = "maskedPaths",
        readonly_paths: Vec<PathBuf> = "readonlyPaths",
    } refused {
        "mountLabel": "SELinux labels are not there yet: leave it out",
        "intelRdt": "cache allocation is not there yet: leave it out",
        "memoryPolicy": "NUMA policies are not there yet: leave it out",
        "netDevices":
            "moving network devices is not there yet: move them into a namespace and give its path",
        "timeOffsets": "time namespaces are not there yet: leave it out",
    }
}

object! {
    /// How the kernel takes the command's calls.
    Personality {
        domain: Domain = "domain",
    } refused {
        "flags": "no flags of an execution domain are defined: leave them out",
    }
}

names! {
    /// An execution domain.
    Domain {
        Linux = "LINUX",
        Linux32 = "LINUX32",
    }
}

object! {
    /// A range of users or groups of the new user namespace.
    IdMapping {
        container_id: u32 = "containerID",
        host_id: u32 = "hostID",
        size: u32 = "size",
    }
}

object! {
    /// A namespace that is made, or joined if it has a path.
    NamespaceEntry {
        kind: Namespace = "type",
        path: Option<PathBuf> = "path",
    }
}

names! {
    /// A kind of namespace.
    Namespace {
        User = "user",
        Mount = "mount",
        Pid = "pid",
        Network = "network",
        Ipc = "ipc",
        Uts = "uts",
        Cgroup = "cgroup",
    }
}

object! {
    /// A node in `/dev`.
    DeviceEntry {
        path: PathBuf = "path",
        kind: DeviceType = "type",
        major: Option<u32> = "major",
        minor: Option<u32> = "minor",
        mode: Option<u32> = "fileMode",
        uid: Option<Id> = "uid",
        gid: Option<Id> = "gid",
    }
}

names! {
    /// A kind of node.
    DeviceType {
        All = "a",
        Block = "b",
        Character = "c" | "u",
        Fifo = "p",
    }
}
