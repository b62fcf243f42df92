//! What the host mounts, read from text alone.
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The two interfaces: other files, other rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy for each controller, or for a few.
    V1,
    /// One hierarchy for all.
    V2,
}

/// One mounted tree of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// v1: as in the mount's options: `memory`; `cpu` and `cpuacct`; `name=systemd`. v2: empty, because
    /// there each group has a list of its own.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// The group that the reading process is in, below the mount point; empty for the mount's own.
    pub own: PathBuf,
}

/// The hierarchies that containers use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hierarchies {
    /// Controllers are on v1, whatever else v2 is used for.
    V1(Vec<Hierarchy>),
    /// Everything is on v2.
    V2(Hierarchy),
}

/// A cgroup or cgroup2 line of mountinfo.
struct Mount {
    root: PathBuf,
    mount_point: PathBuf,
    options: Vec<String>,
    version: Version,
}

impl Hierarchies {
    /// Reads the text of `/proc/self/mountinfo` and `/proc/self/cgroup` (proc(5), cgroups(7)). `None` if neither
    /// version is mounted with anything to offer.
    pub fn parse(mountinfo: &str, cgroup: &str) -> Option<Self> {
        let mounts: Vec<Mount> = mountinfo.lines().filter_map(mount).collect();
        let mut v1 = Vec::new();
        let mut v2 = None;
        for line in cgroup.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(own)) = (fields.next(), fields.next()) else { continue };
            let own = Path::new(own);
            if controllers.is_empty() {
                v2 = hierarchy(&mounts, &[], own);
            } else {
                let controllers: Vec<String> = controllers.split(',').map(str::to_owned).collect();
                v1.extend(hierarchy(&mounts, &controllers, own));
            }
        }
        let has_controller =
            |hierarchy: &Hierarchy| hierarchy.controllers.iter().any(|name| !name.contains('='));
        if v1.iter().any(has_controller) { Some(Self::V1(v1)) } else { v2.map(Self::V2) }
    }

    /// Which interface containers use here.
    pub fn version(&self) -> Version {
        match self {
            Self::V1(_) => Version::V1,
            Self::V2(_) => Version::V2,
        }
    }
}

/// Finds a mount that shows the process's own group. No controllers: the v2 hierarchy.
fn hierarchy(mounts: &[Mount], controllers: &[String], own: &Path) -> Option<Hierarchy> {
    let version = if controllers.is_empty() { Version::V2 } else { Version::V1 };
    let serves = |mount: &&Mount| {
        mount.version == version && controllers.iter().all(|wanted| mount.options.contains(wanted))
    };
    mounts.iter().filter(serves).find_map(|mount| {
        // A container without a cgroup namespace sees only a part: the mount's root says which.
        let own = own.strip_prefix(&mount.root).ok()?;
        Some(Hierarchy {
            controllers: controllers.to_vec(),
            mount_point: mount.mount_point.clone(),
            own: own.to_owned(),
        })
    })
}

/// `36 35 98:0 /root /mount/point rw,noatime master:1 - type source options`
fn mount(line: &str) -> Option<Mount> {
    let (place, kind) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, mount_point) = (unescape(place.next()?), unescape(place.next()?));
    let mut kind = kind.split(' ');
    let version = match kind.next()? {
        "cgroup" => Version::V1,
        "cgroup2" => Version::V2,
        _ => return None,
    };
    let options = kind.nth(1)?.split(',').map(str::to_owned).collect();
    Some(Mount { root, mount_point, options, version })
}

/// Space, tab, newline and backslash are written as `\040`, `\011`, `\012`, `\134`.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = tail.get(..3).filter(|_| *first == b'\\');
        let code = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { tail.get(3..).unwrap_or_default() } else { tail };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mountinfo: &[&str], cgroup: &[&str], expected: Option<Hierarchies>) {
        assert_eq!(Hierarchies::parse(&mountinfo.join("\n"), &cgroup.join("\n")), expected, "{mountinfo:?}");
    }

    fn hierarchy(controllers: &[&str], mount_point: &str, own: &str) -> Hierarchy {
        Hierarchy {
            controllers: controllers.iter().map(|name| (*name).to_owned()).collect(),
            mount_point: mount_point.into(),
            own: own.into(),
        }
    }

    #[test]
    fn a_pure_v2_host_has_one_hierarchy() {
        check(
            &[
                "22 27 0:21 / /proc rw,relatime - proc proc rw",
                "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate",
            ],
            &["0::/system.slice/worker.service"],
            Some(Hierarchies::V2(hierarchy(&[], "/sys/fs/cgroup", "system.slice/worker.service"))),
        );
    }

    #[test]
    fn on_a_hybrid_host_the_v2_tree_is_left_alone() {
        check(
            &[
                "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755",
                "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct",
                "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
                "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd",
                "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
            ],
            &["4:memory:/jobs/a", "3:cpu,cpuacct:/", "2:pids:/", "1:name=systemd:/", "0::/"],
            Some(Hierarchies::V1(vec![
                hierarchy(&["memory"], "/sys/fs/cgroup/memory", "jobs/a"),
                hierarchy(&["cpu", "cpuacct"], "/sys/fs/cgroup/cpu,cpuacct", ""),
                hierarchy(&["name=systemd"], "/sys/fs/cgroup/systemd", ""),
            ])),
        );
    }

    #[test]
    fn a_named_v1_hierarchy_alone_does_not_hide_v2() {
        check(
            &[
                "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd",
                "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
            ],
            &["1:name=systemd:/", "0::/"],
            Some(Hierarchies::V2(hierarchy(&[], "/sys/fs/cgroup/unified", ""))),
        );
    }

    #[test]
    fn a_mount_that_shows_a_part_is_used_if_it_shows_this_process() {
        check(
            &[
                "35 31 0:32 /other /a rw - cgroup cgroup rw,memory",
                "36 31 0:32 /docker/1 /b\\040c rw - cgroup cgroup rw,memory",
            ],
            &["4:memory:/docker/1/sub"],
            Some(Hierarchies::V1(vec![hierarchy(&["memory"], "/b c", "sub")])),
        );
    }

    #[test]
    fn a_host_without_control_groups_has_none() {
        check(&["22 27 0:21 / /proc rw,relatime - proc proc rw", "not a line"], &["0::/", "x"], None);
    }
}
