//! Capabilities, the system-call filter, and the paths that are hidden or read-only.

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, LinuxSeccomp};

use super::filter::{self, SocketCall};
use super::{ContainerRequest, Profile};

/// Hidden: what describes the host's hardware, its neighbours' timing, or its kernel's memory.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Visible, but what is written there would steer the host.
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// How often each processor was too hot tells neighbours apart: one path for each.
pub(super) fn masked_paths(processors: usize) -> Vec<String> {
    let of_processors =
        (0..processors).map(|number| format!("/sys/devices/system/cpu/cpu{number}/thermal_throttle"));
    MASKED.iter().map(|&path| path.to_owned()).chain(of_processors).collect()
}

pub(super) fn read_only_paths() -> Vec<String> {
    READ_ONLY.iter().map(|&path| path.to_owned()).collect()
}

/// The fourteen that docker keeps: enough for package managers, `su`, `ping`, and servers on low ports. None
/// of them reaches beyond the container's own namespaces and control groups.
pub(super) const CAPABILITIES: [Capability; 14] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// What a container's processes can ever hold: those of every task's, and more. The proxy's can hold none.
fn bounding(profile: Profile, more: &[Capability]) -> Capabilities {
    match profile {
        Profile::Task | Profile::Sidecar => CAPABILITIES.iter().chain(more).copied().collect(),
        Profile::Proxy => Capabilities::new(),
    }
}

/// Nothing is inheritable or ambient, so a program with file capabilities gets no more than it asks for; a user
/// other than root starts with none.
pub(super) fn capabilities(request: &ContainerRequest<'_>) -> LinuxCapabilities {
    let bounding = bounding(request.profile, &request.capabilities);
    let held = if request.user.uid == 0 { bounding.clone() } else { Capabilities::new() };
    let mut capabilities = LinuxCapabilities::default();
    capabilities
        .set_bounding(Some(bounding))
        .set_permitted(Some(held.clone()))
        .set_effective(Some(held))
        .set_inheritable(Some(Capabilities::new()))
        .set_ambient(Some(Capabilities::new()));
    capabilities
}

pub(super) fn seccomp(profile: Profile, more: &[Capability], socketcall: SocketCall) -> LinuxSeccomp {
    match profile {
        Profile::Task | Profile::Sidecar => filter::profile(&bounding(profile, more), socketcall),
        Profile::Proxy => filter::proxy_profile(),
    }
}
