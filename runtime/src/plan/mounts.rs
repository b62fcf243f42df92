//! `mounts` → what is mounted where in the container.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use super::Findings;
use super::mount_options::{self, Attributes, Depth, Options, Propagation};
use crate::limits::MOUNTS;
use crate::spec::{MountEntry, Spec};

/// One mount inside the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its index in the Spec, by which a bind finds the copy that the monitor made.
    pub index: usize,
    /// Where, in the container: absolute, without `.` and `..`.
    pub target: PathBuf,
    /// What.
    pub kind: MountKind,
    /// Attributes of this mount.
    pub attributes: Attributes,
    /// Attributes of this mount and those below it.
    pub recursive: Attributes,
    /// Where its mount events go, and those of mounts below it.
    pub propagation: Option<(Propagation, Depth)>,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A file or directory of the host, as the monitor cloned it.
    Bind,
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
    },
}

impl fmt::Display for Mount {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            MountKind::Bind => write!(out, "bind")?,
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
        if let MountKind::FileSystem { data, .. } = &self.kind {
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

/// A bind's source, for the monitor.
pub(super) struct Source {
    pub mount: usize,
    pub path: PathBuf,
    pub depth: Depth,
}

/// The Spec's mounts in order, and the sources of its binds.
#[derive(Default)]
pub(super) struct Mounts {
    pub mounts: Vec<Mount>,
    pub sources: Vec<Source>,
}

/// A mount of the Spec, with its place in the list.
#[derive(Clone, Copy)]
struct Listed<'a> {
    index: usize,
    mount: &'a MountEntry,
}

impl Mounts {
    /// Whether something of the host lies at the container's `/dev`: then it is not ours to fill.
    pub fn dev_is_a_bind(&self) -> bool {
        self.mounts.iter().any(|mount| mount.target == Path::new("/dev") && mount.kind == MountKind::Bind)
    }

    pub fn shows_cgroups(&self) -> bool {
        self.mounts.iter().any(|mount| mount.kind == MountKind::Cgroup)
    }
}

pub(super) fn mounts(spec: &Spec, findings: &mut Findings) -> Mounts {
    let mut mounts = Mounts::default();
    let listed = &spec.mounts;
    if listed.len() > MOUNTS {
        findings.add("/mounts", format!("{} mounts: at most {MOUNTS} are made", listed.len()));
        return mounts;
    }
    for (index, mount) in listed.iter().enumerate() {
        let pointer = format!("/mounts/{index}");
        let Some(target) = target(&pointer, mount, findings) else { continue };
        let listed = Listed { index, mount };
        match mount_options::parse(&mount.options) {
            Ok(options) => mounts.add(listed, target, options, findings),
            Err(refused) => {
                for refused in refused {
                    findings.add(format!("{pointer}/options/{}", refused.index), refused.message);
                }
            }
        }
    }
    mounts
}

impl Mounts {
    fn add(&mut self, listed: Listed<'_>, target: PathBuf, options: Options, findings: &mut Findings) {
        let Listed { index, mount } = listed;
        let kind = match (options.bind, mount.kind.as_deref()) {
            (Some(depth), _) => self.add_bind(listed, &target, depth, findings),
            (None, Some("bind")) => self.add_bind(listed, &target, Depth::One, findings),
            (None, Some("cgroup" | "cgroup2")) => MountKind::Cgroup,
            (None, Some(name)) => MountKind::FileSystem {
                name: name.to_owned(),
                source: mount.source.as_ref().and_then(|source| source.to_str()).map(str::to_owned),
                data: options.data,
            },
            (None, None) => {
                let message = "it has neither a type nor the option bind: give one of them";
                findings.add(format!("/mounts/{index}"), message);
                return;
            }
        };
        let (attributes, recursive, propagation) =
            (options.attributes, options.recursive, options.propagation);
        self.mounts.push(Mount { index, target, kind, attributes, recursive, propagation });
    }

    fn add_bind(
        &mut self,
        listed: Listed<'_>,
        target: &Path,
        depth: Depth,
        findings: &mut Findings,
    ) -> MountKind {
        let Listed { index, mount } = listed;
        // A file of somebody's choice inside procfs or sysfs would lie to the container's programs
        // and, worse, to a runtime that enters it later (CVE-2019-19921).
        let inside = |kernel: &str| target.starts_with(kernel) && target != Path::new(kernel);
        if inside("/proc") || inside("/sys") {
            findings.add(
                format!("/mounts/{index}/destination"),
                "a bind inside /proc or /sys would fake the kernel's own files: leave it out",
            );
        }
        match &mount.source {
            Some(path) => {
                self.sources.push(Source { mount: index, path: path.clone(), depth });
            }
            None => findings.add(format!("/mounts/{index}/source"), "a bind needs a source"),
        }
        MountKind::Bind
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
