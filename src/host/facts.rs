//! Looking at the host: every read of its state that the worker's decisions depend on.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use super::Controllers;
use super::space::measure;
use apparmor::policy::Unusable;

use crate::config::Config;
use crate::spec::process::RlimitCeilings;

/// The runtime's executable.
pub(super) const RUNTIME: &str = "docker-worker-runtime";

/// Bits of the effective capability set.
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_SYS_NICE: u64 = 1 << 23;
const CAP_SYS_RESOURCE: u64 = 1 << 24;

/// What was found.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The effective user is root.
    pub is_root: bool,
    /// The worker may mount and make namespaces.
    pub has_sys_admin: bool,
    /// The worker may raise limits.
    pub has_sys_resource: bool,
    /// The worker may lower a niceness.
    pub has_sys_nice: bool,
    /// As `uname -r` says.
    pub kernel_release: String,
    /// Its first two numbers.
    pub kernel_version: (u32, u32),
    /// The host's own name.
    pub name: String,
    /// EROFS is there or can be loaded.
    pub has_erofs: bool,
    /// Overlay is there or can be loaded.
    pub has_overlay: bool,
    /// Namespaces that the kernel lacks.
    pub missing_namespaces: Vec<&'static str>,
    /// Control groups.
    pub controllers: Controllers,
    /// System calls can be filtered.
    pub has_seccomp: bool,
    /// The program that compiles AppArmor profiles, or why there can be none.
    pub apparmor: Result<PathBuf, Unusable>,
    /// Tasks may not run without one.
    pub requires_apparmor: bool,
    /// Which rlimits the worker may set.
    pub ceilings: RlimitCeilings,
    /// The runtime's executable.
    pub runtime: Option<PathBuf>,
    /// The data directory.
    pub data: PathBuf,
    /// The type of its file system.
    pub data_file_system: String,
    /// Bytes that are free there.
    pub free_bytes: Option<u64>,
    /// Bytes that should be.
    pub wanted_free_bytes: u64,
    /// Bytes that the same file system has in all.
    pub disk_bytes: Option<u64>,
    /// Memory of the host in bytes.
    pub memory_bytes: u64,
    /// Processors, offline ones too.
    pub processors: usize,
    /// `nft` is there.
    pub has_nft: bool,
    /// The kernel forwards packets.
    pub forwards: bool,
}

impl Facts {
    /// Looks at this host. What cannot be read counts as not there.
    pub fn gather(config: &Config) -> Facts {
        let uname = rustix::system::uname();
        let release = uname.release().to_string_lossy().into_owned();
        let capabilities = effective_capabilities(&read("/proc/self/status"));
        let has_sys_resource = capabilities & CAP_SYS_RESOURCE != 0;
        let file_systems = read("/proc/filesystems");
        let mounts = read("/proc/self/mountinfo");
        let data = config.directories.data.clone();
        let nearest = super::existing(&data).to_owned();
        Facts {
            is_root: rustix::process::geteuid().is_root(),
            has_sys_admin: capabilities & CAP_SYS_ADMIN != 0,
            has_sys_resource,
            has_sys_nice: capabilities & CAP_SYS_NICE != 0,
            kernel_version: kernel_version(&release),
            name: uname.nodename().to_string_lossy().into_owned(),
            has_erofs: has_file_system("erofs", &file_systems, &release),
            has_overlay: has_file_system("overlay", &file_systems, &release),
            missing_namespaces: missing_namespaces(),
            controllers: Controllers::read(&mounts),
            has_seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
            apparmor: apparmor::policy::usable(),
            requires_apparmor: config.file.require_app_armor,
            ceilings: super::ceilings(has_sys_resource),
            runtime: find_runtime(),
            data_file_system: file_system_of(&nearest, &mounts),
            free_bytes: free_bytes(&nearest),
            disk_bytes: measure(&nearest).ok().map(|disk| disk.total),
            wanted_free_bytes: config.file.free_bytes(),
            data,
            memory_bytes: memory_bytes(),
            processors: processors(&read("/sys/devices/system/cpu/possible")),
            has_nft: crate::net::nft::find().is_some(),
            forwards: read("/proc/sys/net/ipv4/ip_forward").starts_with('1'),
            kernel_release: release,
        }
    }
}

impl Facts {
    /// Whether more is to be free on the data directory's disk than it has in all.
    pub fn disk_is_too_small(&self) -> bool {
        self.disk_bytes.is_some_and(|bytes| bytes < self.wanted_free_bytes)
    }
}

/// The runtime's executable: named by `DOCKER_WORKER_RUNTIME`, else beside this program, else in
/// `PATH`.
pub fn find_runtime() -> Option<PathBuf> {
    if let Some(named) = env::var_os("DOCKER_WORKER_RUNTIME") {
        return Some(PathBuf::from(named)).filter(|path| path.is_file());
    }
    let beside = env::current_exe().ok().map(|program| program.with_file_name(RUNTIME));
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).map(|directory| directory.join(RUNTIME));
    beside.into_iter().chain(in_path).find(|candidate| candidate.is_file())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn effective_capabilities(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0)
}

/// `6.18.44-x` is (6, 18).
fn kernel_version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Built in or loaded, or there as a module that mounting loads.
fn has_file_system(name: &str, file_systems: &str, release: &str) -> bool {
    let listed = file_systems.lines().any(|line| line.split_whitespace().last() == Some(name));
    listed || Path::new("/lib/modules").join(release).join("kernel/fs").join(directory_of(name)).is_dir()
}

fn directory_of(file_system: &str) -> &str {
    if file_system == "overlay" { "overlayfs" } else { file_system }
}

fn missing_namespaces() -> Vec<&'static str> {
    ["mnt", "pid", "net", "ipc", "uts", "cgroup"]
        .into_iter()
        .filter(|name| !Path::new("/proc/self/ns").join(name).exists())
        .collect()
}

/// The type of the file system that a path lies on: that of the longest mount point above it.
fn file_system_of(path: &Path, mounts: &str) -> String {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut best = (0, "unknown");
    for line in mounts.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let at = before.split(' ').nth(4).unwrap_or_default();
        if path.starts_with(at) && at.len() >= best.0 {
            best = (at.len(), after.split(' ').next().unwrap_or_default());
        }
    }
    best.1.to_owned()
}

fn memory_bytes() -> u64 {
    read("/proc/meminfo")
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        .unwrap_or(0)
        .saturating_mul(1024)
}

/// `0-3` is 4, `0` is 1.
fn processors(possible: &str) -> usize {
    let last = possible.trim().rsplit(['-', ',']).next().unwrap_or_default();
    last.parse::<usize>().map_or(1, |last| last.saturating_add(1).min(MOST_PROCESSORS))
}

/// More than Linux supports on any machine.
const MOST_PROCESSORS: usize = 8192;

/// Bytes that the worker may still write on a directory's file system.
pub fn free_bytes(directory: &Path) -> Option<u64> {
    measure(directory).ok().map(|space| space.free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_understood() {
        assert_eq!(kernel_version("6.18.44-fc-v657"), (6, 18));
        assert_eq!(kernel_version("5.4"), (5, 4));
        assert_eq!(kernel_version(""), (0, 0));
        assert_eq!(effective_capabilities("Name:\tx\nCapEff:\t0000000001200000\n"), 0x0120_0000);
        assert_eq!(processors("0-3\n"), 4);
        assert_eq!(processors("0\n"), 1);
        assert_eq!(processors(""), 1);
        let mounts = "1 1 8:1 / / rw - ext4 /dev/vda rw\n2 1 0:2 / /proc rw - proc proc rw\n";
        assert_eq!(file_system_of(Path::new("/proc/self"), mounts), "proc");
        assert_eq!(file_system_of(Path::new("/etc"), mounts), "ext4");
    }
}
