//! The making of a container beside a task's, from its image to its first connection.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use images::image::ImageConfig;
use images::store::{Cancel, Lease, PullError, PullEvent, PullOptions, Store};
use runtime::id::ContainerId;
use runtime::launch::Launch;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::task::spawn_blocking;

use super::output::Output;
use super::{Made, SidecarError, Wanted};
use crate::apparmor_profiles::{DefaultProfile, Fence, Use};
use crate::container::Container;
use crate::container::bundle::{Bundle, BundleError, Files, Names};
use crate::host::Host;
use crate::net::sidecar::link_containers;
use crate::net::{Network, TaskNetwork, names};
use crate::payload::env::{self, Sources};
use crate::root_file_system::{self, RootFileSystem};
use crate::run_directory::{ContainerDirectory, random_id};
use crate::spec::{self, ContainerRequest, Limits, NetworkChoice, Profile, ResolvedUser, SocketCall};

/// What a making needs, and keeps for itself.
pub(super) struct Making {
    pub(super) what: Wanted,
    pub(super) store: Store,
    pub(super) options: PullOptions,
    pub(super) observer: Arc<dyn Fn(&PullEvent) + Send + Sync>,
    pub(super) host: Host,
    pub(super) limits: Limits,
    pub(super) socketcall: SocketCall,
    pub(super) profile: Option<Arc<DefaultProfile>>,
    pub(super) network: Arc<Network>,
    pub(super) task: OwnedFd,
    pub(super) number: u8,
    pub(super) stop: Cancel,
}

impl Making {
    /// All of it. What is made is noted in `made` as soon as it is there.
    pub(super) async fn make(
        self,
        made: &mut Made,
        directory: &ContainerDirectory,
    ) -> Result<Ipv4Addr, SidecarError> {
        let Making { what, host, .. } = &self;
        let image = self.bring().await?;
        made.profile = self.enter_profile().await?;
        let id = random_id().map_err(SidecarError::Prepare)?;
        let address = self.connect(made, directory, &id).await?;

        let (store, data) = (self.store.clone(), directory.data().to_owned());
        let (root, mounts) = root_file_system::make(store, data, image, self.still_wanted()).await?;
        made.mounts = mounts;
        let RootFileSystem { root, user, lease } = root?;
        let image = &made.image.insert(lease).image().config;

        let (read, write) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|errno| SidecarError::Prepare(errno.into()))?;
        made.output = Some(Output::collect(read).map_err(SidecarError::Prepare)?);
        let mut files = Files::default();
        let place = (&id, directory, made.network.as_ref());
        let profile = made.profile.as_ref().map(Use::name);
        let mut launch = self.describe(place, image, (&user, &root, profile), &mut files)?;
        launch.output = Some(write);
        spawn_blocking(move || files.write()).await??;
        if self.stop.is_cancelled() {
            return Err(SidecarError::Unwanted);
        }
        let container = made.container.insert(Container::launch(launch)?);
        let serves = async {
            made.created = Some(container.started(host.memory_for_all).await?);
            what.readiness.wait(address, self.task.as_fd(), container).await?;
            Ok(address)
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(SidecarError::Unwanted),
            serves = serves => serves,
        }
    }

    /// Its image, from the store or from where it is.
    async fn bring(&self) -> Result<Lease, PullError> {
        let Making { what, store, options, observer, .. } = self;
        match store.find(&what.image, options).await? {
            Some(lease) => Ok(lease),
            None => store.pull(&what.image, options, &|event| observer(&event)).await,
        }
    }

    /// The profile that it is to be under; without one where there cannot be any, which the task's log says.
    async fn enter_profile(&self) -> Result<Option<Use>, SidecarError> {
        let Some(profile) = self.profile.as_ref().map(Arc::clone) else { return Ok(None) };
        let still_wanted = self.still_wanted();
        match spawn_blocking(move || profile.enter(&still_wanted)).await?? {
            Fence::Profile(entered) => Ok(Some(entered)),
            Fence::None(_) => Ok(None),
        }
    }

    /// The container as the image and what is wanted have it.
    fn describe(
        &self,
        (id, directory, network): (&ContainerId, &ContainerDirectory, Option<&TaskNetwork>),
        image: &ImageConfig,
        (user, root, profile): (&ResolvedUser, &OwnedFd, Option<&str>),
        files: &mut Files,
    ) -> Result<Launch, BundleError> {
        let Making { what, host, .. } = self;
        let hostname = spec::hostname(id);
        let resolvers = names::resolvers(self.network.dns());
        let names = Names {
            hostname: &hostname,
            address: network.map(TaskNetwork::address),
            aliases: &what.hosts,
            resolvers: Some(&resolvers),
        };
        let mut binds = what.binds.clone();
        binds.extend(names.provide(directory, files));
        let environment = env::environment(&Sources {
            image: &image.env,
            features: &what.environment,
            payload: &BTreeMap::new(),
            reserved: None,
            home: &user.home,
            hostname: &hostname,
        });
        // A profile looks at the family of each socket, however it is asked for.
        let socketcall = if profile.is_some() { SocketCall::Allowed } else { self.socketcall };
        let command: Vec<String> = what.arguments.iter().map(|it| it.reveal().to_owned()).collect();
        let request = ContainerRequest {
            id,
            profile: Profile::Sidecar,
            image,
            user,
            command: &command,
            environment,
            binds,
            devices: what.devices.clone(),
            capabilities: what.capabilities.clone(),
            network: NetworkChoice::Prepared,
            limits: &self.limits,
            ceilings: &host.ceilings,
            processors: host.processors,
            socketcall,
            apparmor: profile,
        };
        let bundle = Bundle {
            runtime: &host.runtime,
            directory,
            request,
            root: Some(root.as_fd()),
            network: network.map(TaskNetwork::namespace),
            scheduling: host.scheduling.clone(),
            output: None,
        };
        bundle.prepare(files)
    }

    /// Its own network, and the link to the task. Gives the address that the task finds it at.
    async fn connect(
        &self,
        made: &mut Made,
        directory: &ContainerDirectory,
        id: &ContainerId,
    ) -> Result<Ipv4Addr, SidecarError> {
        let (network, record, id) = (Arc::clone(&self.network), directory.network(), id.clone());
        let still_wanted = self.still_wanted();
        let attached = spawn_blocking(move || network.attach(&id, &record, &still_wanted)).await??;
        let own = made.network.insert(attached).namespace().try_clone_to_owned();
        let own = own.map_err(SidecarError::Prepare)?;
        let task = self.task.try_clone().map_err(SidecarError::Prepare)?;
        let number = self.number;
        let linked = spawn_blocking(move || link_containers([task.as_fd(), own.as_fd()], number)).await??;
        let [_, address] = linked;
        Ok(address)
    }

    fn still_wanted(&self) -> impl Fn() -> bool + Send + use<> {
        let stop = self.stop.clone();
        move || !stop.is_cancelled()
    }
}
