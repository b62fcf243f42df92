//! The procfs that PID 1 opens for itself, and what it writes there.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::{Child, ChildError, process};
use crate::mount_attr as attr;
use crate::plan::ChildStep;
use crate::rootfs::mount::new_file_system;

/// Of the procfs from the first moment on.
pub(super) const PROC_ATTRIBUTES: u64 = attr::NOSUID | attr::NODEV | attr::NOEXEC;

impl Child<'_> {
    /// Made before anything of the image's exists, and opened through while it is attached nowhere: so no
    /// mount of the image's or the Spec's can stand in for one of the kernel's files (CVE-2019-16884,
    /// CVE-2025-52881).
    pub(super) fn open_proc(&mut self) -> Result<(), ChildError> {
        let proc = detached()?;
        let namespace = "self/ns/mnt";
        let opened = rustix::fs::openat(&proc, namespace, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        self.mount_namespace =
            Some(opened.map_err(|errno| ChildError::Proc { path: namespace, source: errno.into() })?);
        if self.container.plan.child.iter().any(|step| matches!(step, ChildStep::Label { .. })) {
            self.label = process::open_label(&proc)?;
        }
        self.proc = Some(proc);
        Ok(())
    }

    pub(super) fn write_proc(&self, path: &str, value: &str) -> Result<(), ChildError> {
        write(self.proc.as_ref().ok_or(ChildError::Missing { what: "the procfs" })?, path, value)
    }
}

/// A procfs that is attached nowhere.
pub(super) fn detached() -> Result<OwnedFd, ChildError> {
    Ok(new_file_system("proc", Some("proc"), &[], PROC_ATTRIBUTES)?)
}

/// Writes into a file of `proc`.
pub(super) fn write(proc: &OwnedFd, path: &str, value: &str) -> Result<(), ChildError> {
    let failed = |errno: rustix::io::Errno| ChildError::Write {
        name: path.to_owned(),
        value: value.to_owned(),
        source: errno.into(),
    };
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(proc, path, flags, Mode::empty(), inside).map_err(failed)?;
    rustix::io::write(&file, value.as_bytes()).map(drop).map_err(failed)
}

/// `net.ipv4.ip_forward` → `sys/net/ipv4/ip_forward`. If the first separator is a slash, slashes separate
/// and dots belong to names (sysctl(8)).
pub(super) fn sysctl_path(name: &str) -> String {
    let slashes = name.find('/').is_some_and(|slash| name.find('.').is_none_or(|dot| slash < dot));
    let swap = |character| match character {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let path: String = if slashes { name.to_owned() } else { name.chars().map(swap).collect() };
    format!("sys/{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_parameter_may_be_spelled_with_dots_or_slashes() {
        for (name, path) in [
            ("net.ipv4.ip_forward", "sys/net/ipv4/ip_forward"),
            ("net/ipv4/conf/eth0.1/forwarding", "sys/net/ipv4/conf/eth0.1/forwarding"),
            ("net.ipv4.conf.eth0/1.forwarding", "sys/net/ipv4/conf/eth0.1/forwarding"),
        ] {
            assert_eq!(sysctl_path(name), path);
        }
    }
}
