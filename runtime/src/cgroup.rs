//! Control groups: which directories a container needs, what to write into them, how they end.
//!
//! # Terms
//!
//! - **hierarchy**: one mounted tree of groups. cgroup v2 has one for all controllers; v1 has one for
//!   each controller or for a few together.
//! - **group**: a directory in a hierarchy. A container has one in each hierarchy that it needs.
//! - **setting**: one file of a group and the text to write into it. The file's name begins with the
//!   controller's, so a setting says which controller it needs.
//!
//! # Course
//!
//! ```text
//! Hierarchies::parse    text of /proc/self/mountinfo and /proc/self/cgroup     pure
//! plan                  Spec and hierarchies → groups, settings, device rules  pure
//! create                mkdir, each noted in the journal first; v2: controllers enabled
//! OpenGroup::apply      settings
//! v1  open_tasks, then the child writes `0` into each and unshares the cgroup namespace
//! v2  attach_devices, then CLONE_INTO_CGROUP with OpenGroup::directory
//! counters, then removal by the journal (kill, wait, rmdir)
//! ```
//!
//! v1 groups are joined through `tasks` and not `cgroup.procs`: the first write to that file after a
//! pause waits 11 ms for a grace period (Linux 6.18), one thread writing `0` to `tasks` 0.04 ms.
//!
//! On a hybrid host, where controllers are on v1 and v2 only holds systemd's units, the v2 tree is left
//! alone. On v1 only these hierarchies are joined: those that a setting needs, `devices`, and `freezer`
//! so that the processes can be stopped together. A container of `create` is in all that have a controller: engines count
//! in them what it uses, and set limits later.
//!
//! Sources: the kernel's `admin-guide/cgroup-v2.rst` and `admin-guide/cgroup-v1/`; OCI runtime
//! specification, `config-linux.md`, "Control groups".
mod counters;
mod cpu;
mod devices;
mod freeze;
mod hierarchies;
mod io;
mod join;
mod memory;
mod plan;
mod remove;
mod setting;
mod tree;
mod update;

pub use counters::{Counters, counters};
pub use devices::{DevicePolicy, DeviceRuleError};
pub use freeze::FreezeError;
pub(crate) use freeze::{freeze, is_frozen, thaw};
pub use hierarchies::{Hierarchies, Hierarchy, Version};
pub(crate) use join::{Entrance, open_to_join, processes};
pub use plan::{CgroupMount, CgroupPlan, CgroupPlanError, Group, Joined, plan};
pub use remove::RemoveError;
pub(crate) use remove::{kill_members, remove, remove_if_empty, signal_members};
pub use setting::{Setting, SettingError};
pub use tree::{CgroupError, OpenGroup, create, join_tasks};
pub use update::UpdateError;
pub(crate) use update::update;
