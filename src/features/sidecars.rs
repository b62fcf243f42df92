//! The features that put a container of the administrator's beside the task's: one row each, and what they have in common.
//!
//! ```text
//!   image named in the configuration ─► container, arguments, link to the task ─► it takes connections ─► it is as it should be
//!                                                              ─► its alias in the task's /etc/hosts
//! ```
//!
//! The container is the run's from the beginning ([`Sidecars`](crate::sidecar::Sidecars)): no feature ends it.

use std::net::Ipv4Addr;
use std::time::Duration;

use oci_spec::runtime::Capability;

use super::{FeatureError, Link, RunContext};
use crate::config::{ConfigFile, ImageName, Secret};
use crate::known_features::{
    BALROG_STAGE_VPN_PROXY, BALROG_VPN_PROXY, KnownFeature, RELENG_API_PROXY, TASKCLUSTER_PROXY,
    TESTDROID_PROXY,
};
use crate::net::names::Alias;
use crate::sidecar::{Door, Readiness, Secrets, SidecarError, Wanted};
use crate::spec::Device;
use crate::text::chain;

/// Where all of them listen, so that their URLs need no port.
const PORT: u16 = 80;

/// The permissions of a device node.
const DEVICE_MODE: u32 = 0o666;

/// One feature's container.
pub struct Row {
    /// Whose it is.
    pub feature: &'static KnownFeature,
    /// Its image, where the configuration has all that is needed for it.
    pub image: fn(&ConfigFile) -> Option<ImageName>,
    /// What a task needs to use that.
    pub image_scope: ImageScope,
    /// What the task calls it.
    alias: &'static str,
    /// How long it may take until it takes connections.
    limit: Duration,
    /// Its variables above the image's.
    environment: &'static [(&'static str, &'static str)],
    /// Names in its own `/etc/hosts`.
    hosts: &'static [(&'static str, Ipv4Addr)],
    /// Capabilities beyond a task's.
    capabilities: &'static [Capability],
    /// Character devices of the host's: path, major and minor number.
    devices: &'static [(&'static str, i64, i64)],
    /// Where the log says that it does not serve, this comes first.
    failure: &'static str,
}

/// Whether a task needs a scope for an image that the worker has credentials for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageScope {
    /// That of the image.
    OfImage,
    /// That of the feature stands for it.
    OfFeature,
}

/// In the place of the built-in one.
pub(super) const TASKCLUSTER: Row = Row {
    feature: &TASKCLUSTER_PROXY,
    image: ConfigFile::taskcluster_proxy_image,
    image_scope: ImageScope::OfImage,
    alias: "taskcluster",
    limit: Duration::from_secs(90),
    environment: &[],
    hosts: &[],
    capabilities: &[],
    devices: &[],
    failure: "Failed to initialize taskcluster proxy service.",
};

/// A tunnel to the production's server.
pub(super) const BALROG: Row = Row {
    feature: &BALROG_VPN_PROXY,
    image: |file| file.balrog_vpn_proxy_image.clone(),
    image_scope: ImageScope::OfFeature,
    alias: "balrog",
    limit: Duration::from_secs(2),
    environment: &[("PROXIED_SERVER", "https://aus4-admin.mozilla.org")],
    hosts: &[("aus4-admin.mozilla.org", Ipv4Addr::new(52, 26, 16, 60))],
    capabilities: &[Capability::NetAdmin],
    devices: &[("/dev/net/tun", 10, 200)],
    failure: "Failed to initialize balrog vpn proxy service.",
};

/// A tunnel to the staging server.
pub(super) const BALROG_STAGE: Row = Row {
    feature: &BALROG_STAGE_VPN_PROXY,
    environment: &[("PROXIED_SERVER", "https://balrog-admin.stage.mozaws.net/")],
    hosts: &[("balrog-admin.stage.mozaws.net", Ipv4Addr::new(52, 71, 237, 144))],
    ..BALROG
};

/// Phones.
pub(super) const TESTDROID: Row = Row {
    feature: &TESTDROID_PROXY,
    image: ConfigFile::testdroid_image,
    alias: "testdroid",
    limit: Duration::from_secs(5),
    failure: "Failed to initialize testdroid proxy service.",
    ..TASKCLUSTER
};

/// Release engineering's services.
pub(super) const RELENG_API: Row = Row {
    feature: &RELENG_API_PROXY,
    image: ConfigFile::releng_api_image,
    alias: "relengapi",
    limit: Duration::from_secs(30),
    failure: "Failed to initialize releng API proxy service due to: Error:",
    ..TASKCLUSTER
};

/// All of them.
pub const ROWS: &[Row] = &[TASKCLUSTER, BALROG, BALROG_STAGE, TESTDROID, RELENG_API];

/// What only the run knows of a container.
#[derive(Debug, Default)]
pub(super) struct Particulars {
    /// Its arguments.
    pub(super) arguments: Vec<Secret>,
    /// What it knows, by them or later, that nobody may read in a log.
    pub(super) secrets: Secrets,
}

/// Why a feature's container does not serve.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    /// The administrator has not said of what it is made.
    #[error("This worker's configuration does not have what it takes: {}.", .0.join(", "))]
    NotConfigured(&'static [&'static str]),
    /// The task could not reach it.
    #[error("A task without a network (`--network none`) has nothing to reach it by.")]
    NoNetwork,
    /// It is not there.
    #[error("{failure} Failed to {}", chain(source))]
    NotThere {
        /// The row's.
        failure: &'static str,
        /// Why not.
        source: SidecarError,
    },
    /// It is there, and not as it should be.
    #[error("{failure} {}", chain(source.as_ref()))]
    NotRight {
        /// The row's.
        failure: &'static str,
        /// Why not: a sentence.
        source: FeatureError,
    },
}

/// Puts a container beside the task's and waits until it serves. The task finds it by its alias once `prove` has been
/// content with it too.
///
/// # Errors
///
/// [`ServeError`]; the log has what it printed last.
pub(super) async fn serve(
    row: &Row,
    run: &RunContext,
    link: &mut Link<'_>,
    particulars: Particulars,
    prove: impl AsyncFnOnce(&Door) -> Result<(), FeatureError>,
) -> Result<Door, ServeError> {
    let image = (row.image)(&run.config).ok_or(ServeError::NotConfigured(row.feature.settings))?;
    let attached = link.network.as_mut().ok_or(ServeError::NoNetwork)?;
    let not_there = |source| ServeError::NotThere { failure: row.failure, source };
    let place = (attached.network, &*attached.task);
    let started = attached.sidecars.start(&attached.place, place, row.wanted(&image, particulars));
    let sidecar = started.map_err(not_there)?;
    let served = async {
        let address = sidecar.ready().await.map_err(not_there)?;
        let door = sidecar.door(PORT).map_err(SidecarError::Prepare).map_err(not_there)?;
        match prove(&door).await {
            Ok(()) => Ok((address, door)),
            Err(source) => Err(ServeError::NotRight { failure: row.failure, source }),
        }
    };
    let (address, door) = match served.await {
        Ok(served) => served,
        Err(error) => {
            run.log.last_words(row.feature.name, &sidecar.last_words());
            return Err(error);
        }
    };
    link.contributions.aliases.push(Alias { name: row.alias.to_owned(), address });
    Ok(door)
}

/// For those of which it is enough that they take connections.
pub(super) async fn nothing_to_prove(_door: &Door) -> Result<(), FeatureError> {
    Ok(())
}

impl Row {
    fn wanted(&self, image: &ImageName, Particulars { arguments, secrets }: Particulars) -> Wanted {
        let device = |&(path, major, minor): &(&str, i64, i64)| Device {
            path: path.to_owned(),
            major,
            minor,
            mode: DEVICE_MODE,
        };
        let environment =
            self.environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let hosts =
            self.hosts.iter().map(|(name, address)| Alias { name: (*name).to_owned(), address: *address });
        Wanted {
            name: self.feature.name,
            image: image.source().clone(),
            arguments,
            secrets,
            environment: environment.collect(),
            hosts: hosts.collect(),
            binds: Vec::new(),
            devices: self.devices.iter().map(device).collect(),
            capabilities: self.capabilities.to_vec(),
            readiness: Readiness::Port { port: PORT, limit: self.limit },
        }
    }
}
