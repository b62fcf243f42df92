//! Attaching the container's mounts: binds that the monitor holds, new file systems, control groups.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::proc::PROC_ATTRIBUTES;
use super::{Child, ChildError, call};
use crate::cgroup::CgroupMount;
use crate::mount_attr as attr;
use crate::plan::mount_options::{Attributes, Depth};
use crate::plan::{Mount, MountKind};
use crate::rootfs::mount::{self, attach_at, new_file_system};
use crate::sys;

impl Child<'_> {
    pub(super) fn mount(&mut self, mount: &Mount) -> Result<(), ChildError> {
        // Set by the last step instead, for which the mount is held.
        let kept = if mount.read_only_last { attr::RDONLY } else { 0 };
        let now = Attributes { set: mount.attributes.set & !kept, ..mount.attributes };
        let root = &self.root;
        let (tree, attributes) = match &mount.kind {
            MountKind::Cgroup => return self.mount_cgroups(mount),
            MountKind::Bind { source, depth } => match self.held.binds.remove(&mount.index) {
                Some(tree) => (tree, now),
                None => (self.clone_bind(source, *depth)?, now),
            },
            MountKind::FileSystem { name, data, .. }
                if name == "proc" && data.is_empty() && self.proc.is_some() =>
            {
                let proc = self.proc.take().ok_or(ChildError::Missing { what: "the procfs" })?;
                if now.set != PROC_ATTRIBUTES {
                    call("set the attributes of /proc", mount::set_exactly(proc.as_fd(), now.set))?;
                }
                (proc, Attributes::default())
            }
            MountKind::FileSystem { name, source, data, copy_up } => {
                let data = mount::with_mode_of_mount_point(root, &mount.target, name, data);
                let tree = new_file_system(name, source.as_deref(), &data, now.set)?;
                if *copy_up {
                    mount::copy_mount_point(root, &mount.target, &tree)?;
                }
                (tree, Attributes::default())
            }
        };
        mount::attach(root, &Mount { attributes, ..mount.clone() }, &tree)?;
        if mount.read_only_last {
            self.read_only_last.push((mount.target.clone(), tree));
        }
        Ok(())
    }

    /// A source in the root, as the host sees it, is looked up in the container's: there it shows what has been
    /// mounted so far.
    fn clone_bind(&self, source: &Path, depth: Depth) -> Result<OwnedFd, ChildError> {
        match self.container.inside_root(source) {
            Some(inside) => Ok(mount::clone_inside(&self.root, &inside, depth)?),
            None => Ok(mount::clone_path(&self.container.bundle.join(source), depth)?),
        }
    }

    /// One of the mounts that were held for it, or the root.
    pub(super) fn make_read_only(&self, target: &Path) -> Result<(), ChildError> {
        let read_only = sys::mount::MountAttr { set: attr::RDONLY, ..Default::default() };
        let held =
            self.read_only_last.iter().filter(|(held, _)| held == target).map(|(_, tree)| tree.as_fd());
        let root = self.root.as_fd();
        let root = (target == Path::new("/")).then_some(root);
        held.chain(root).try_for_each(|mount| {
            call("make a mount read-only", sys::mount::mount_setattr(mount, Depth::One, &read_only))
        })
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
            sys::mount::mount_setattr(base.as_fd(), Depth::One, &change),
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
