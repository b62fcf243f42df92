//! What is mounted where: the kernel's file systems as docker mounts them, then the binds.

use std::path::PathBuf;

use oci_spec::runtime::Mount;

use super::{Limits, Profile};

/// Something of the host's that a task sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Where it is on the host. Never a path that a task had a say in.
    pub source: PathBuf,
    /// Where the task sees it: absolute and normal.
    pub destination: String,
    /// What it is, which decides what may be done with it.
    pub kind: BindSource,
}

/// What is bound, and so which flags the mount gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindSource {
    /// A cache or a volume: the task writes there, and programs in it run as in the image.
    Volume,
    /// A file that the worker made for this run: tasks add lines to `/etc/hosts`, as docker lets them.
    WorkerFile,
    /// A file that is only read or executed: the host's own, or one that all tasks' proxy reads.
    ReadOnlyFile,
}

/// All mounts in the order in which they are made: nothing that is bound can hide a file system
/// that the profile relies on, since binds inside `/proc`, `/sys` and `/dev` are refused earlier.
pub(super) fn mounts(profile: Profile, binds: &[Bind], limits: &Limits) -> Vec<Mount> {
    let mut mounts = match profile {
        Profile::Task | Profile::Sidecar => kernel_mounts(limits),
        Profile::Proxy => proxy_mounts(),
    };
    mounts.extend(binds.iter().map(bind));
    mounts
}

/// What a program cannot do without: it has the host's network, which `/sys` would describe, and shares no memory.
fn proxy_mounts() -> Vec<Mount> {
    vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "noexec", "ro", "mode=755", "size=64k"]),
    ]
}

fn kernel_mounts(limits: &Limits) -> Vec<Mount> {
    let shm_size = format!("size={}", limits.shm_bytes);
    vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", &shm_size]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ]
}

fn bind(bind: &Bind) -> Mount {
    let flags: &[&str] = match bind.kind {
        // Set-uid programs and programs at all work in a cache, as they do with docker; device
        // nodes are fenced by the device control group, as those of `/` are.
        BindSource::Volume => &["bind", "rw", "private"],
        BindSource::WorkerFile => &["bind", "rw", "nosuid", "nodev", "private"],
        BindSource::ReadOnlyFile => &["bind", "ro", "nosuid", "nodev", "private"],
    };
    let mut mount = mount(&bind.destination, "bind", flags);
    mount.set_source(Some(bind.source.clone()));
    mount
}

fn mount(destination: &str, kind: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(destination.into())
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(kind.into()))
        .set_options(Some(options.iter().map(|&option| option.to_owned()).collect()));
    mount
}
