//! `mounts` → what is mounted where in the container.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use super::Findings;
use super::mount_options::{self, Attributes, Data, Depth, Options, Propagation};
use crate::limits::{DATA_BYTES, MOUNTS};
use crate::mount_attr as attr;
use crate::spec::{MountEntry, Spec};

/// One mount inside the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its index in the Spec, by which a bind finds the copy that the monitor made, if that had to.
    pub index: usize,
    /// Where, in the container: absolute, without `.` and `..`.
    pub target: PathBuf,
    /// What.
    pub kind: MountKind,
    /// Attributes of this mount.
    pub attributes: Attributes,
    /// Attributes of this mount and those below it.
    pub recursive: Attributes,
    /// Where its mount events go, and those of mounts below it; nowhere if there is none.
    pub propagation: Option<(Propagation, Depth)>,
    /// `ro` is set when all mounts and nodes are made, because some are to be made in this one.
    pub read_only_last: bool,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A file or directory of the host.
    Bind {
        /// Where it is, relative to the bundle.
        source: PathBuf,
        /// With or without the mounts below.
        depth: Depth,
    },
    /// The container's own control groups.
    Cgroup,
    /// A new instance of a file system.
    FileSystem {
        /// `proc`, `tmpfs`, …
        name: String,
        /// What the file system is told its source is.
        source: Option<String>,
        /// Its own options.
        data: Vec<(String, Option<String>)>,
        /// It starts with what is at its mount point.
        copy_up: bool,
    },
}

impl fmt::Display for Mount {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            MountKind::Bind { source, depth: Depth::One } => write!(out, "bind {} on", source.display())?,
            MountKind::Bind { source, depth: Depth::Recursive } => {
                write!(out, "rbind {} on", source.display())?
            }
            MountKind::Cgroup => write!(out, "cgroup")?,
            MountKind::FileSystem { name, .. } => write!(out, "{name}")?,
        }
        write!(out, " {} {}", self.target.display(), self.attributes)?;
        if !self.recursive.is_empty() {
            write!(out, " below {}", self.recursive)?;
        }
        if let Some((propagation, depth)) = self.propagation {
            write!(out, " {}", propagation.spelled(depth))?;
        }
        if let MountKind::FileSystem { data, copy_up, .. } = &self.kind {
            out.write_str(if *copy_up { " tmpcopyup" } else { "" })?;
            for (key, value) in data {
                write!(
                    out,
                    " {key}{}{}",
                    if value.is_some() { "=" } else { "" },
                    value.as_deref().unwrap_or("")
                )?;
            }
        }
        Ok(())
    }
}

/// What callers write into the options of every mount, for the tmpfs among them. mount(2) takes no data for a bind,
/// and runc passes it on there.
const IGNORED_BY_BINDS: [&str; 4] = ["mode", "size", "uid", "gid"];

/// Files of procfs that lxcfs serves, and that may be covered: runc has the same.
const SERVED_BY_LXCFS: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
];

/// Whether `target` is a file of procfs that a regular file may cover.
pub fn is_served_by_lxcfs(target: &Path) -> bool {
    SERVED_BY_LXCFS.iter().any(|served| target == Path::new(served))
}

impl Mount {
    /// Whether it can be made read-only only when all mounts are made: there are mount points, nodes or copies
    /// to be made in it.
    fn is_filled_later(&self, later: &[Mount]) -> bool {
        let below = |other: &Mount| other.target.starts_with(&self.target) && other.target != self.target;
        let is_copied_to = matches!(self.kind, MountKind::FileSystem { copy_up: true, .. });
        self.target == Path::new("/dev") || is_copied_to || later.iter().any(below)
    }
}

/// The Spec's mounts in order.
pub(super) fn mounts(spec: &Spec, findings: &mut Findings) -> Vec<Mount> {
    let mut mounts = Vec::new();
    if spec.mounts.len() > MOUNTS {
        findings.add("/mounts", format!("{} mounts: at most {MOUNTS} are made", spec.mounts.len()));
        return mounts;
    }
    let inherited = inherited(spec);
    for (index, entry) in spec.mounts.iter().enumerate() {
        let pointer = format!("/mounts/{index}");
        let Some(target) = target(&pointer, entry, findings) else { continue };
        match mount_options::parse(&entry.options) {
            Ok(options) => {
                let kind = kind(&pointer, (entry, &target), &options, findings);
                mounts.extend(kind.map(|kind| mount(index, (target, kind), options, inherited)));
            }
            Err(refused) => {
                for refused in refused {
                    findings.add(format!("{pointer}/options/{}", refused.index), refused.message);
                }
            }
        }
    }
    for index in 0..mounts.len() {
        let (made, later) = mounts.split_at_mut(index + 1);
        if let Some(mount) = made.last_mut().filter(|mount| mount.attributes.set & attr::RDONLY != 0) {
            mount.read_only_last = mount.is_filled_later(later);
        }
    }
    mounts
}

/// Where a bind's mount events go if its options say nothing: nowhere, unless the whole root's are let through.
fn inherited(spec: &Spec) -> Option<(Propagation, Depth)> {
    let root = spec.linux.rootfs_propagation.as_deref().and_then(Propagation::parse)?;
    let passed_on = matches!(root, (Propagation::Slave | Propagation::Shared, Depth::Recursive));
    passed_on.then_some(root)
}

fn mount(
    index: usize,
    (target, kind): (PathBuf, MountKind),
    options: Options,
    inherited: Option<(Propagation, Depth)>,
) -> Mount {
    let Options { mut attributes, mut recursive, mut propagation, .. } = options;
    match kind {
        MountKind::Bind { .. } => propagation = propagation.or(inherited),
        // It is several mounts on v1, each with all the attributes.
        MountKind::Cgroup => attributes.apply(std::mem::take(&mut recursive)),
        MountKind::FileSystem { .. } => {}
    }
    Mount { index, target, kind, attributes, recursive, propagation, read_only_last: false }
}

fn kind(
    pointer: &str,
    (entry, target): (&MountEntry, &Path),
    options: &Options,
    findings: &mut Findings,
) -> Option<MountKind> {
    let kind = match (options.bind, entry.kind.as_deref()) {
        (Some(depth), _) => bind(pointer, (entry, target), depth, findings)?,
        (None, Some("bind")) => bind(pointer, (entry, target), Depth::One, findings)?,
        (None, Some("cgroup" | "cgroup2")) => MountKind::Cgroup,
        (None, Some(name)) => file_system(pointer, (entry, name), options, findings),
        (None, None) => {
            findings.add(pointer, "it has neither a type nor the option bind: give one of them");
            return None;
        }
    };
    let is = |wanted: &str| matches!(&kind, MountKind::FileSystem { name, .. } if name == wanted);
    if let Some(index) = options.copy_up.filter(|_| !is("tmpfs")) {
        findings
            .add(format!("{pointer}/options/{index}"), "option \"tmpcopyup\" is for a tmpfs: leave it out");
    }
    let is_proc = is("proc");
    if target == Path::new("/proc") && !is_proc && !matches!(kind, MountKind::Bind { .. }) {
        // Masks and labels would be asked of whatever it is (CVE-2019-16884).
        findings.add(format!("{pointer}/type"), "on /proc nothing can be mounted but proc");
    }
    let (what, is_file_system) = match kind {
        MountKind::Bind { .. } => ("a bind", false),
        MountKind::Cgroup => ("the view of control groups", false),
        MountKind::FileSystem { .. } => ("", true),
    };
    let is_bind = matches!(kind, MountKind::Bind { .. });
    let is_dropped =
        |data: &Data| is_file_system || (is_bind && IGNORED_BY_BINDS.contains(&data.key.as_str()));
    for data in options.data.iter().filter(|data| !is_dropped(data)) {
        let message = format!("option {:?} means nothing to {what}: correct it or leave it out", data.key);
        findings.add(format!("{pointer}/options/{}", data.index), message);
    }
    Some(kind)
}

fn file_system(
    pointer: &str,
    (entry, name): (&MountEntry, &str),
    options: &Options,
    findings: &mut Findings,
) -> MountKind {
    let source = entry.source.as_ref().and_then(|source| source.to_str()).map(str::to_owned);
    if source.as_ref().is_some_and(|source| source.len() > DATA_BYTES) {
        let message = format!("it is longer than the {DATA_BYTES} bytes that fsconfig(2) takes");
        findings.add(format!("{pointer}/source"), message);
    }
    let data = options.data.iter().map(|data| (data.key.clone(), data.value.clone())).collect();
    MountKind::FileSystem { name: name.to_owned(), source, data, copy_up: options.copy_up.is_some() }
}

fn bind(
    pointer: &str,
    (entry, target): (&MountEntry, &Path),
    depth: Depth,
    findings: &mut Findings,
) -> Option<MountKind> {
    // A file of somebody's choice inside procfs or sysfs would lie to the container's programs
    // and, worse, to a runtime that enters it later (CVE-2019-19921).
    let inside = |kernel: &str| target.starts_with(kernel) && target != Path::new(kernel);
    if (inside("/proc") || inside("/sys")) && !is_served_by_lxcfs(target) {
        findings.add(
            format!("{pointer}/destination"),
            "a bind inside /proc or /sys would fake the kernel's own files: leave it out",
        );
    }
    match &entry.source {
        Some(source) => Some(MountKind::Bind { source: source.clone(), depth }),
        None => {
            findings.add(format!("{pointer}/source"), "a bind needs a source");
            None
        }
    }
}

/// The destination without `.` and `..`: a relative one starts at the root, as in runc.
fn target(pointer: &str, mount: &MountEntry, findings: &mut Findings) -> Option<PathBuf> {
    let target = normal(&mount.destination);
    if target == Path::new("/") {
        findings.add(
            format!("{pointer}/destination"),
            "nothing can be mounted over the root: set root.path instead",
        );
        return None;
    }
    Some(target)
}

/// `path` as an absolute path, with `.` and `..` taken by name.
pub(super) fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                normal.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_cannot_climb_out_by_name() {
        for (path, expected) in [
            ("/a/b", "/a/b"),
            ("a", "/a"),
            ("/../../etc", "/etc"),
            ("/a/./../b/", "/b"),
            ("//proc//sys", "/proc/sys"),
            ("", "/"),
        ] {
            assert_eq!(normal(Path::new(path)), Path::new(expected), "{path:?}");
        }
    }
}
