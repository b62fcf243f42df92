//! From a Spec to groups and settings: pure.
use super::setting::{self, Setting, SettingError};
use super::{DevicePolicy, DeviceRuleError, Hierarchies, Hierarchy, Version, cpu, io, memory};
use crate::spec::Resources;
use std::path::{Component, Path, PathBuf};

/// What a container needs of the control groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupPlan {
    /// To be created and joined, in this order.
    pub groups: Vec<Group>,
    /// v2: to be attached to the one group. v1 has the same among the settings of `devices`.
    pub device_program: Option<DevicePolicy>,
}

/// In which hierarchies of v1 a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// Those that its limits need, `devices`, and `freezer`: each more would cost its start.
    Needed,
    /// All that have a controller: somebody else will count there what it uses, or set limits that it has not now.
    All,
}

/// One directory of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Whose files it has.
    pub version: Version,
    /// v1: the controllers of its hierarchy. v2: those that its settings need, to be enabled above it.
    pub controllers: Vec<String>,
    /// Where the hierarchy is mounted.
    pub mount_point: PathBuf,
    /// The directory, below the mount point.
    pub path: PathBuf,
    /// To be written before anything runs in it.
    pub settings: Vec<Setting>,
}

/// A mount below a container's `/sys/fs/cgroup`, to be made read-only in its own cgroup namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupMount {
    /// Below `/sys/fs/cgroup`; empty for v2, which is mounted on it.
    pub name: String,
    /// Names beside it that point to it: `cpu` → `cpu,cpuacct`.
    pub links: Vec<String>,
}

/// Why a container cannot have the groups that its Spec asks for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CgroupPlanError {
    /// `cgroupsPath` leads nowhere, or somewhere else.
    #[error("use the cgroups path {}: it must name a group, without `.` or `..`", .path.display())]
    Path {
        /// As given.
        path: PathBuf,
    },
    /// v1, and no hierarchy has the controller.
    #[error(
        "set {setting}: no mounted hierarchy has the {controller} controller; mount it (`mount -t cgroup -o {controller} \
         none DIR`), enable it at boot (`cgroup_enable={controller}`), or take the limit out of the Spec"
    )]
    NoController {
        /// What needs it.
        setting: String,
        /// As in `/proc/cgroups`.
        controller: String,
    },
    /// A limit.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A device rule.
    #[error(transparent)]
    Device(#[from] DeviceRuleError),
}

/// Plans the groups of a container. `path` is the Spec's `cgroupsPath`: an absolute one counts from the
/// mount point, a relative one from the group of the calling process (on v2 from the one above it: only
/// groups without processes can have limited children).
///
/// # Errors
///
/// Every [`CgroupPlanError`] that there is.
pub fn plan(
    hierarchies: &Hierarchies,
    path: &Path,
    resources: &Resources,
    joined: Joined,
) -> Result<CgroupPlan, Vec<CgroupPlanError>> {
    let mut errors = Vec::new();
    let mut keep = |error: CgroupPlanError| errors.push(error);
    if !path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
        || path.file_name().is_none()
    {
        keep(CgroupPlanError::Path { path: path.to_owned() });
    }
    let version = hierarchies.version();
    let settings = settings(version, resources, &mut keep);
    let devices = DevicePolicy::from_spec(&resources.devices).map_err(|error| keep(error.into())).ok();

    let plan = match hierarchies {
        Hierarchies::V1(mounted) => {
            let device_settings = devices.iter().flat_map(DevicePolicy::settings);
            let settings: Vec<Setting> = settings.into_iter().chain(device_settings).collect();
            let mut groups = v1(mounted, path, settings, &mut keep);
            groups.retain(|group| is_joined(group, joined));
            CgroupPlan { groups, device_program: None }
        }
        Hierarchies::V2(unified) => {
            CgroupPlan { groups: vec![v2(unified, path, settings)], device_program: devices }
        }
    };
    if errors.is_empty() { Ok(plan) } else { Err(errors) }
}

/// The settings of all limits; devices have theirs in [`DevicePolicy`].
pub(super) fn settings(
    version: Version,
    resources: &Resources,
    keep: &mut impl FnMut(CgroupPlanError),
) -> Vec<Setting> {
    let sections = [
        memory::settings(version, &resources.memory),
        cpu::settings(version, &resources.cpu),
        Ok(setting::pids(&resources.pids)),
        io::settings(version, &resources.block_io),
        setting::huge_pages(version, &resources.huge_pages),
        setting::network(version, &resources.network),
        Ok(setting::rdma(&resources.rdma)),
        setting::unified(version, &resources.unified),
    ];
    let mut all = Vec::new();
    for section in sections {
        match section {
            Ok(settings) => all.extend(settings),
            Err(error) => keep(error.into()),
        }
    }
    all
}

/// A named hierarchy has no controller; it belongs to who has mounted it.
fn is_joined(group: &Group, joined: Joined) -> bool {
    let is_needed = !group.settings.is_empty() || group.has("freezer");
    is_needed || joined == Joined::All && group.controllers.iter().any(|name| !name.contains('='))
}

/// Each setting goes to the hierarchy with its controller.
fn v1(
    mounted: &[Hierarchy],
    path: &Path,
    settings: Vec<Setting>,
    keep: &mut impl FnMut(CgroupPlanError),
) -> Vec<Group> {
    let mut groups: Vec<Group> = mounted
        .iter()
        .map(|hierarchy| Group {
            version: Version::V1,
            controllers: hierarchy.controllers.clone(),
            mount_point: hierarchy.mount_point.clone(),
            path: below(path, &hierarchy.own),
            settings: Vec::new(),
        })
        .collect();
    for setting in settings {
        let controller = setting.controller().unwrap_or_default();
        match groups.iter_mut().find(|group| group.has(controller)) {
            Some(group) => group.settings.push(setting),
            None => {
                keep(CgroupPlanError::NoController {
                    setting: setting.to_string(),
                    controller: controller.to_owned(),
                });
            }
        }
    }
    // Made last, so undone first: frozen, the processes cannot outrun their end.
    groups.sort_by_key(|group| group.has("freezer"));
    groups
}

fn v2(unified: &Hierarchy, path: &Path, settings: Vec<Setting>) -> Group {
    let mut controllers: Vec<String> =
        settings.iter().filter_map(Setting::controller).map(str::to_owned).collect();
    controllers.sort();
    controllers.dedup();
    Group {
        version: Version::V2,
        controllers,
        mount_point: unified.mount_point.clone(),
        path: below(path, unified.own.parent().unwrap_or(Path::new(""))),
        settings,
    }
}

fn below(path: &Path, own: &Path) -> PathBuf {
    path.strip_prefix("/").map_or_else(|_| own.join(path), Path::to_owned)
}

impl CgroupPlan {
    /// What a container with a cgroup namespace mounts so as to see its own groups, and no others.
    pub fn mounts(&self) -> Vec<CgroupMount> {
        self.groups.iter().map(Group::mount).collect()
    }
}

impl Group {
    /// The directory, as a path on the host.
    pub fn directory(&self) -> PathBuf {
        self.mount_point.join(&self.path)
    }

    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }

    fn mount(&self) -> CgroupMount {
        match self.version {
            Version::V2 => CgroupMount { name: String::new(), links: vec![] },
            Version::V1 => CgroupMount {
                name: self.controllers.join(","),
                links: if self.controllers.len() > 1 { self.controllers.clone() } else { vec![] },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn v1_host() -> Hierarchies {
        let hierarchy = |name: &str| Hierarchy {
            controllers: name.split(',').map(str::to_owned).collect(),
            mount_point: Path::new("/sys/fs/cgroup").join(name),
            own: "jobs".into(),
        };
        Hierarchies::V1(
            ["cpu,cpuacct", "memory", "devices", "freezer", "blkio", "name=systemd"].map(hierarchy).into(),
        )
    }

    fn v2_host() -> Hierarchies {
        Hierarchies::V2(Hierarchy {
            controllers: vec![],
            mount_point: "/sys/fs/cgroup".into(),
            own: "system.slice/worker.service".into(),
        })
    }

    fn planned(host: &Hierarchies, path: &str, resources: Value) -> Result<CgroupPlan, Vec<CgroupPlanError>> {
        plan(host, Path::new(path), &crate::spec::read(&resources).unwrap(), Joined::Needed)
    }

    fn check(host: &Hierarchies, path: &str, resources: Value, expected: &[&str]) {
        let plan = planned(host, path, resources).unwrap();
        let directories: Vec<PathBuf> = plan.groups.iter().map(Group::directory).collect();
        assert_eq!(directories, expected.iter().map(PathBuf::from).collect::<Vec<_>>(), "{path}");
    }

    #[test]
    fn v1_joins_what_the_spec_names_and_devices_and_freezer() {
        check(&v1_host(), "/a/b", json!({}), &["/sys/fs/cgroup/devices/a/b", "/sys/fs/cgroup/freezer/a/b"]);
        check(
            &v1_host(),
            "/a/b",
            json!({ "memory": { "limit": 4096 }, "cpu": { "shares": 2 } }),
            &[
                "/sys/fs/cgroup/cpu,cpuacct/a/b",
                "/sys/fs/cgroup/memory/a/b",
                "/sys/fs/cgroup/devices/a/b",
                "/sys/fs/cgroup/freezer/a/b",
            ],
        );
    }

    #[test]
    fn a_relative_path_counts_from_the_callers_group() {
        check(
            &v1_host(),
            "x",
            json!({}),
            &["/sys/fs/cgroup/devices/jobs/x", "/sys/fs/cgroup/freezer/jobs/x"],
        );
        check(&v2_host(), "x", json!({}), &["/sys/fs/cgroup/system.slice/x"]);
        check(&v2_host(), "/x", json!({}), &["/sys/fs/cgroup/x"]);
    }

    #[test]
    fn v2_enables_the_controllers_of_its_settings() {
        let resources = json!({
            "memory": { "limit": 4096 }, "pids": { "limit": 5 },
            "unified": { "memory.high": "100", "cgroup.max.depth": "2" },
        });
        let plan = planned(&v2_host(), "/x", resources).unwrap();
        assert_eq!(plan.groups[0].controllers, ["memory", "pids"]);
        assert!(plan.device_program.is_some());
        assert_eq!(plan.mounts()[0].name, "");
    }

    #[test]
    fn controllers_that_share_a_hierarchy_share_a_mount() {
        let plan = planned(&v1_host(), "/x", json!({ "cpu": { "quota": 1000 } })).unwrap();
        let expected =
            CgroupMount { name: "cpu,cpuacct".into(), links: vec!["cpu".into(), "cpuacct".into()] };
        assert_eq!(plan.mounts()[0], expected);
        assert_eq!(plan.mounts()[1].links, Vec::<String>::new());
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let resources = json!({
            "pids": { "limit": 5 }, "unified": { "memory.high": "1" }, "memory": { "limit": -7 },
            "devices": [{ "allow": true, "access": "q" }],
        });
        let errors = planned(&v1_host(), "../x", resources).unwrap_err();
        let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let starts = [
            "use the cgroups path ../x:",
            "set /memory/limit: -7 is out of range",
            "set /unified: cgroup v1 has no such limit",
            "set /devices/0/access: \"q\"",
            "set pids.max=\"5\": no mounted hierarchy has the pids controller; mount it",
        ];
        assert_eq!(text.len(), starts.len(), "{text:?}");
        for (text, start) in text.iter().zip(starts) {
            assert!(text.starts_with(start), "{text}");
        }
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_refused() {
        for path in ["", "/", "..", "/a/../b", "./a"] {
            let error = planned(&v1_host(), path, json!({})).unwrap_err();
            assert_eq!(error, [CgroupPlanError::Path { path: path.into() }], "{path:?}");
        }
    }

    #[test]
    fn names_in_the_spec_cannot_leave_the_group() {
        for name in ["../memory.max", "memory", ".x.y", "a/b.c"] {
            let error = planned(&v2_host(), "/x", json!({ "unified": { name: "1" } })).unwrap_err();
            assert!(matches!(error[..], [CgroupPlanError::Setting(SettingError::Name { .. })]), "{name}");
        }
        let pages = json!({ "hugepageLimits": [{ "pageSize": "../2MB", "limit": 0 }] });
        assert!(planned(&v2_host(), "/x", pages).is_err());
    }

    #[test]
    fn who_is_looked_after_by_others_is_in_every_hierarchy_with_a_controller() {
        let resources = crate::spec::read(&json!({})).unwrap();
        let groups = |joined| {
            let planned = plan(&v1_host(), Path::new("/x"), &resources, joined).unwrap();
            planned.groups.iter().map(|group| group.controllers.join(",")).collect::<Vec<_>>()
        };
        assert_eq!(groups(Joined::Needed), ["devices", "freezer"]);
        assert_eq!(groups(Joined::All), ["cpu,cpuacct", "memory", "devices", "blkio", "freezer"]);
    }
}
