//! Policy: what one task's container may see and do, written as an OCI Spec.
//!
//! Everything here is pure. The worker gathers what it has to know beforehand (the payload, the
//! image's configuration, what this host lets it raise) and gets a [`Spec`] that any OCI runtime
//! could execute. The profile is docker's, tightened where nothing that tasks do depends on it:
//!
//! * new mount, pid, network, ipc, uts and cgroup namespaces, never a shared one;
//! * fourteen capabilities, none of them inheritable or ambient;
//! * no device but the harmless ones, in `/dev` and in the device control group alike;
//! * `/proc` and `/sys` with the parts masked or read-only that describe or steer the host.
//!
//! The golden file `tests/golden/spec.json` shows the whole of it; `tests/golden/proxy.json` that of the one container
//! that serves all tasks ([`Profile::Proxy`]).

pub mod devices;
pub mod filter;
pub mod mounts;
pub mod process;
pub mod resources;
pub mod security;
pub mod user;

use std::collections::HashMap;

use images::image::ImageConfig;
use oci_spec::runtime::{Capability, Linux, LinuxNamespace, LinuxNamespaceType, Root, Spec};
use runtime::id::ContainerId;
use runtime::launch::NETWORK_PATH;

pub use devices::Device;
pub use filter::SocketCall;
pub use mounts::{Bind, BindSource};
pub use process::RlimitCeilings;
pub use resources::Limits;
pub use user::ResolvedUser;

/// The version of the OCI runtime specification that is written.
const OCI_VERSION: &str = "1.1.0";

/// The control group above the containers' own: the limit of all tasks together holds there.
pub const PARENT_GROUP: &str = "/docker-worker";

/// Digits of the container's id that become its host name, as with docker.
const HOSTNAME_DIGITS: usize = 12;

/// Everything that decides what one container is like.
#[derive(Debug)]
pub struct ContainerRequest<'a> {
    /// The container's name: of its control group too, and its host name is made of it.
    pub id: &'a ContainerId,
    /// What it is for.
    pub profile: Profile,
    /// What the image says about entry point, command and working directory.
    pub image: &'a ImageConfig,
    /// The image's user, as numbers.
    pub user: &'a ResolvedUser,
    /// The payload's command; empty for the image's own.
    pub command: &'a [String],
    /// The whole environment, `NAME=value`.
    pub environment: Vec<String>,
    /// Caches and files of the worker's.
    pub binds: Vec<Bind>,
    /// Device nodes beside the harmless ones.
    pub devices: Vec<Device>,
    /// Capabilities beyond the fourteen.
    pub capabilities: Vec<Capability>,
    /// Which network it is in.
    pub network: NetworkChoice,
    /// What the container may use.
    pub limits: &'a Limits,
    /// What this host lets the worker give.
    pub ceilings: &'a RlimitCeilings,
    /// How many processors it has.
    pub processors: usize,
    /// Whether its 32-bit programs may make sockets.
    pub socketcall: SocketCall,
    /// The AppArmor profile that it runs under, which is loaded.
    pub apparmor: Option<&'a str>,
}

/// What a container is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// The task's command, at a terminal.
    Task,
    /// Something that serves the task: without a terminal, and outlives it where memory is short.
    Sidecar,
    /// What serves all tasks of a worker: without a terminal, without capabilities or a way to any, and with nothing to
    /// write to. Its root is made of read-only binds.
    Proxy,
}

/// Which network namespace a container is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkChoice {
    /// A new one, with loopback only.
    Loopback,
    /// The one that the worker has made for it and hands over with the launch.
    Prepared,
    /// The host's. For nothing that a task can choose: [`Profile::Proxy`] only.
    Host,
}

/// The host name of a container: the first twelve digits of its id.
pub fn hostname(id: &ContainerId) -> String {
    id.as_str().chars().take(HOSTNAME_DIGITS).collect()
}

/// Writes the Spec of one task's container.
///
/// # Errors
///
/// [`process::ProcessError`] when neither the payload nor the image says what to run.
pub fn write_spec(request: ContainerRequest<'_>) -> Result<Spec, process::ProcessError> {
    let mut spec = Spec::default();
    let hostname = hostname(request.id);
    let mounts = mounts::mounts(request.profile, &request.binds, request.limits);
    let linux = linux(&request);
    spec.set_version(OCI_VERSION.to_owned())
        .set_root(Some(root(request.profile)))
        .set_hostname(Some(hostname))
        .set_mounts(Some(mounts))
        .set_process(Some(process::process(request)?))
        .set_linux(Some(linux))
        .set_annotations(None);
    Ok(spec)
}

/// The root is handed over as a descriptor; the path is what other runtimes would look at.
fn root(profile: Profile) -> Root {
    let is_read_only = match profile {
        Profile::Task | Profile::Sidecar => false,
        Profile::Proxy => true,
    };
    let mut root = Root::default();
    root.set_path("rootfs".into()).set_readonly(Some(is_read_only));
    root
}

fn linux(request: &ContainerRequest<'_>) -> Linux {
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces(request.network)))
        .set_cgroups_path(Some(format!("{PARENT_GROUP}/{}", request.id).into()))
        .set_resources(Some(resources::resources(request.limits, &request.devices)))
        .set_devices(devices::nodes(&request.devices))
        .set_masked_paths(Some(security::masked_paths(request.processors)))
        .set_readonly_paths(Some(security::read_only_paths()))
        .set_rootfs_propagation(Some("private".to_owned()))
        .set_sysctl(sysctls(request.network))
        .set_seccomp(Some(security::seccomp(request.profile, &request.capabilities, request.socketcall)));
    linux
}

fn namespaces(network: NetworkChoice) -> Vec<LinuxNamespace> {
    [
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Network,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Cgroup,
    ]
    .into_iter()
    .filter(|kind| *kind != LinuxNamespaceType::Network || network != NetworkChoice::Host)
    .map(|kind| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind);
        if kind == LinuxNamespaceType::Network && network == NetworkChoice::Prepared {
            namespace.set_path(Some(NETWORK_PATH.into()));
        }
        namespace
    })
    .collect()
}

/// Inside the container's own network namespace only: any user may listen on any port and send pings, as with
/// docker. The host's is as it is.
fn sysctls(network: NetworkChoice) -> Option<HashMap<String, String>> {
    match network {
        NetworkChoice::Loopback | NetworkChoice::Prepared => Some(HashMap::from([
            ("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned()),
            ("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned()),
        ])),
        NetworkChoice::Host => None,
    }
}

#[cfg(test)]
mod tests;
