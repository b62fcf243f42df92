//! Which control groups this host has.

use std::fs;
use std::path::Path;

/// How control groups are mounted, and what can be controlled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Controllers {
    /// A version 1 hierarchy with a controller is mounted.
    pub version_1: bool,
    /// The version 2 hierarchy is mounted.
    pub version_2: bool,
    /// Memory can be limited.
    pub memory: bool,
    /// The number of processes can be limited.
    pub pids: bool,
    /// Processor time can be limited.
    pub cpu: bool,
    /// A group can be bound to processors.
    pub cpuset: bool,
}

/// One hierarchy's line of mountinfo.
struct Mounted<'a> {
    at: &'a str,
    kind: &'a str,
    options: &'a str,
}

fn parse(mounts: &str) -> impl Iterator<Item = Mounted<'_>> {
    mounts.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let kind = after.next().filter(|kind| matches!(*kind, "cgroup" | "cgroup2"))?;
        Some(Mounted { at: before.split(' ').nth(4)?, kind, options: after.nth(1).unwrap_or_default() })
    })
}

impl Controllers {
    /// Looks at what is mounted; `mounts` is the content of `/proc/self/mountinfo`.
    pub fn read(mounts: &str) -> Controllers {
        let mut found = Controllers::default();
        for Mounted { at, kind, options } in parse(mounts) {
            match kind {
                "cgroup" => found.add_version_1(options),
                _ => found.add_version_2(Path::new(at)),
            }
        }
        found
    }

    fn add_version_1(&mut self, options: &str) {
        for name in options.split(',') {
            let controller = match name {
                "memory" => &mut self.memory,
                "pids" => &mut self.pids,
                "cpu" => &mut self.cpu,
                "cpuset" => &mut self.cpuset,
                "devices" | "freezer" => &mut self.version_1,
                _ => continue,
            };
            *controller = true;
            self.version_1 = true;
        }
    }

    fn add_version_2(&mut self, at: &Path) {
        self.version_2 = true;
        // What cannot be read offers no controller.
        let listed = fs::read_to_string(at.join("cgroup.controllers")).unwrap_or_default();
        for name in listed.split_whitespace() {
            match name {
                "memory" => self.memory = true,
                "pids" => self.pids = true,
                "cpu" => self.cpu = true,
                "cpuset" => self.cpuset = true,
                _ => {}
            }
        }
    }

    /// Whether there are control groups at all.
    pub fn is_there(&self) -> bool {
        self.version_1 || self.version_2
    }

    /// One sentence about them.
    pub fn describe(&self) -> String {
        let version = match (self.version_1, self.version_2) {
            (true, true) => "version 1 with an empty version 2 beside it",
            (true, false) => "version 1",
            (false, true) => "version 2",
            (false, false) => return "no control groups are mounted".to_owned(),
        };
        let all = [("memory", self.memory), ("pids", self.pids), ("cpu", self.cpu)];
        let names = |wanted: bool| {
            let names: Vec<_> = all.iter().filter(|it| it.1 == wanted).map(|it| it.0).collect();
            names.join(", ")
        };
        let lacking = names(false);
        if lacking.is_empty() {
            format!("{version}, with {}", names(true))
        } else {
            format!("{version}, without {lacking}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_found_in_either_version() {
        let v1 = "30 29 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
            31 29 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
            33 29 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n";
        let found = Controllers::read(v1);
        assert_eq!((found.version_1, found.version_2), (true, false));
        assert_eq!((found.memory, found.cpu, found.pids), (true, true, false));
        assert_eq!(found.describe(), "version 1, without pids");

        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        let v2 = format!("1 1 0:1 / {} rw - cgroup2 cgroup2 rw\n", directory.path().display());
        assert_eq!(Controllers::read(&v2).describe(), "version 2, with memory, pids, cpu");
        assert!(!Controllers::read("1 1 0:1 / / rw - ext4 /dev/vda rw\n").is_there());
    }
}
