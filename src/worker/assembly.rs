//! What all runs of a worker share, put together from the configuration and the host.

use std::ffi::OsString;
use std::sync::Arc;

use images::registry::{Access, DockerConfig};
use images::store::{PullOptions, Store, StoreError};
use runtime::lock;

use crate::apparmor_profiles::{DefaultProfile, Necessity};
use crate::cache::{CacheError, Caches};
use crate::config::{Config, ConfigFile, RegistryProxies};
use crate::event::Events;
use crate::host::Host;
use crate::live_log::LiveLogServer;
use crate::net::Network;
use crate::payload::Origin;
use crate::proxy::{Ground, Proxy};
use crate::registry::Registry;
use crate::signing_key::{SigningKey, SigningKeyError};
use crate::task::full_disk::FullDisk;
use crate::task::run::Worker;

/// How the names of variables begin that are about the worker, and may hold its secrets.
const OWN_VARIABLES: [&str; 5] =
    ["TASKCLUSTER_", "DOCKER_WORKER_", "DNS_SERVER_SECRET", "TESTDROID_", "RELENG_API_TOKEN"];

/// What a [`Worker`] is made of beside its store and its caches.
pub struct Parts {
    /// The configuration in force.
    pub config: Config,
    /// The tasks' network; they have loopback only without it.
    pub network: Option<Arc<Network>>,
    /// What this host is.
    pub host: Host,
    /// Who hears of what happens.
    pub events: Events,
    /// Serves logs that grow, if somebody may read them.
    pub live_log: Option<LiveLogServer>,
}

/// Why there is no place for images or caches, or no key.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// The image store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key to sign with cannot be used.
    #[error(transparent)]
    SigningKey(#[from] SigningKeyError),
    /// The caches cannot be used.
    #[error(transparent)]
    Caches(#[from] CacheError),
}

/// Opens the store and the caches, reads the key. The text is a notice for the operator.
///
/// # Errors
///
/// [`AssemblyError`].
pub fn assemble(parts: Parts) -> Result<(Worker, Option<String>), AssemblyError> {
    let Parts { config, network, host, events, live_log } = parts;
    let root = config.directories.images();
    let store = Store::open_within(&root, &config.file.image_limits(), |file| lock::holder(file))?;
    let notice = store
        .discarded_version()
        .map(|version| format!("the images in {root:?} were of version {version}: they are pulled again"));
    let caches = Caches::open(&config.directories.caches())?;
    let signing_key = SigningKey::of(&config.file)?.map(Arc::new);
    let registry = Registry::default();
    let proxy = config.file.root_url.as_deref().zip(network.clone()).map(|(root_url, network)| {
        let ground = Ground::of(root_url, &config, (network, &host));
        Arc::new(Proxy::new(ground, events.clone()))
    });
    let necessity = if config.file.require_app_armor { Necessity::Required } else { Necessity::Wanted };
    let profile = host
        .parser
        .as_deref()
        .map(|parser| Arc::new(DefaultProfile::new(&config.directories, parser, necessity)));
    let worker = Worker {
        network,
        profile,
        config,
        store,
        caches,
        events,
        live_log: live_log.map(Arc::new),
        proxy,
        signing_key,
        registry,
        full_disk: FullDisk::default(),
        host,
    };
    Ok((worker, notice))
}

/// How the image of a task may be pulled, by who wrote the task.
pub fn pull_options(file: &ConfigFile, origin: Origin) -> PullOptions {
    let access = match origin {
        Origin::Operator => Access::operator(),
        Origin::Queue => Access::default(),
    };
    let mut access = file.registry_access(access);
    access.credentials.docker_config = file
        .docker_config
        .credentials_file
        .clone()
        .map(|path| DockerConfig { path, environment: helpers_environment(&file.proxies) });
    PullOptions { limits: file.image_limits(), ..PullOptions::new(access) }
}

/// What credential helpers find in their environment: the worker's own, in which they may have their settings, but for what
/// is the worker's; and the proxies, which the worker may have taken out of there.
fn helpers_environment(proxies: &RegistryProxies) -> Vec<(OsString, OsString)> {
    let is_ours = |name: &OsString| {
        let name = name.to_string_lossy();
        OWN_VARIABLES.iter().any(|own| name.starts_with(own))
    };
    let mut environment: Vec<_> = std::env::vars_os().filter(|(name, _)| !is_ours(name)).collect();
    let urls = [("HTTPS_PROXY", &proxies.https_proxy), ("HTTP_PROXY", &proxies.http_proxy)];
    let urls = urls.into_iter().filter_map(|(name, url)| Some((name, url.as_ref()?.reveal())));
    let set = urls.chain(proxies.no_proxy.as_deref().map(|exceptions| ("NO_PROXY", exceptions)));
    for (name, value) in set {
        environment.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        environment.push((name.into(), value.into()));
    }
    environment
}
