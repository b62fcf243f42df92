//! Attaching the container's mounts: binds that the monitor holds, new file systems, control groups.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::proc::PROC_ATTRIBUTES;
use super::{Child, ChildError, call};
use crate::cgroup::CgroupMount;
use crate::plan::mount_options::attr;
use crate::plan::{Mount, MountKind};
use crate::rootfs::mount::{self, attach_at, new_file_system};
use crate::sys;

impl Child<'_> {
    pub(super) fn mount(&mut self, mount: &Mount) -> Result<(), ChildError> {
        let root = &self.root;
        let tree = match &mount.kind {
            MountKind::Cgroup => return self.mount_cgroups(mount),
            MountKind::Bind => {
                let missing = ChildError::Missing { what: "the copy of what a bind shows" };
                self.held.binds.remove(&mount.index).ok_or(missing)?
            }
            MountKind::FileSystem { name, data, .. }
                if name == "proc" && data.is_empty() && self.proc.is_some() =>
            {
                let proc = self.proc.take().ok_or(ChildError::Missing { what: "the procfs" })?;
                if mount.attributes.set != PROC_ATTRIBUTES {
                    call(
                        "set the attributes of /proc",
                        mount::set_exactly(proc.as_fd(), mount.attributes.set),
                    )?;
                }
                let plain = Mount { attributes: Default::default(), ..mount.clone() };
                return Ok(mount::attach(root, &plain, &proc)?);
            }
            MountKind::FileSystem { name, source, data } => {
                let tree = new_file_system(name, source.as_deref(), data, mount.attributes.set)?;
                let plain = Mount { attributes: Default::default(), ..mount.clone() };
                return Ok(mount::attach(root, &plain, &tree)?);
            }
        };
        Ok(mount::attach(root, mount, &tree)?)
    }

    /// v2: the container's own group. v1: a directory for each hierarchy in which it has one.
    fn mount_cgroups(&mut self, mount: &Mount) -> Result<(), ChildError> {
        let root = &self.root;
        let groups = std::mem::take(&mut self.held.cgroups);
        if let [(only, tree)] = groups.as_slice()
            && only.name.is_empty()
        {
            return Ok(mount::attach(root, mount, tree)?);
        }
        let data = [("mode".to_owned(), Some("0755".to_owned()))];
        let base = new_file_system("tmpfs", Some("cgroup"), &data, mount.attributes.set & !attr::RDONLY)?;
        let plain = Mount { attributes: Default::default(), ..mount.clone() };
        mount::attach(root, &plain, &base)?;
        for (named, tree) in &groups {
            attach_hierarchy(&base, named, tree, mount)?;
        }
        let change = sys::mount::MountAttr { set: mount.attributes.set, ..Default::default() };
        call(
            "set the attributes of the cgroup mount",
            sys::mount::mount_setattr(base.as_fd(), sys::mount::Reach::One, &change),
        )
    }
}

fn attach_hierarchy(
    base: &OwnedFd,
    named: &CgroupMount,
    tree: &OwnedFd,
    mount: &Mount,
) -> Result<(), ChildError> {
    let failed = |errno: rustix::io::Errno| ChildError::Call {
        call: "make a directory of the cgroup mount",
        source: errno.into(),
    };
    // A named hierarchy is called by its name alone, as systemd mounts it.
    let name = named.name.trim_start_matches("name=");
    rustix::fs::mkdirat(base, name, Mode::from_raw_mode(0o755)).map_err(failed)?;
    for link in &named.links {
        rustix::fs::symlinkat(name, base, link.as_str()).map_err(failed)?;
    }
    let at = rustix::fs::openat(base, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    call("set the attributes of a cgroup mount", mount::set_exactly(tree.as_fd(), mount.attributes.set))?;
    attach_at(tree.as_fd(), at.as_fd()).map_err(failed)
}
