//! `taskclusterProxy`: the deployment as `http://taskcluster`, for this task and with its scopes.
//!
//! Requests may do what the task's definition says, without its roles (the deployment knows those itself), and make
//! artifacts of the run. Who carries them out is the worker's own proxy, or an image that the configuration names ([`image`]).

mod image;

use std::net::TcpListener;
use std::sync::Arc;

use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use super::{Feature, FeatureError, FeatureRow, Hook, Killed, Link, RunContext, Wishes};
use crate::background::Background;
use crate::known_features::TASKCLUSTER_PROXY;
use crate::net::AttachError;
use crate::net::link::GATEWAY;
use crate::net::names::Alias;
use crate::proxy::{Caller, ProxyError, Serving};
use crate::text::chain;

/// Its row of the table.
pub(super) const ROW: FeatureRow = FeatureRow { feature: &TASKCLUSTER_PROXY, start };

/// What the task calls it.
const NAME: &str = "taskcluster";

/// Where it listens, so that its URL needs no port.
const PORT: u16 = 80;

/// The variable that has its URL.
const VARIABLE: &str = "TASKCLUSTER_PROXY_URL";

/// Why the task has none.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    /// There is nobody to call.
    #[error(
        "This worker has no deployment to call. Let the task run with `start` or `standalone`, or drop taskclusterProxy."
    )]
    NoDeployment,
    /// The task could not reach it.
    #[error("A task without a network (`--network none`) has nothing to reach the proxy by.")]
    NoNetwork,
    /// Its socket.
    #[error("Failed to {}", chain(.0))]
    Listen(#[from] AttachError),
    /// The thread that was to make its socket.
    #[error("Failed to make a socket for the proxy: {0}")]
    Panicked(#[from] JoinError),
    /// The proxy itself.
    #[error("Failed to {}", chain(.0))]
    Serve(#[from] ProxyError),
}

#[derive(Default)]
struct TaskclusterProxy {
    /// Its end has to come before that of the task's network.
    opening: Option<JoinHandle<Result<TcpListener, AttachError>>>,
    serving: Option<Serving>,
    /// Of an image that has the place of both.
    keeping_new: Option<Background>,
}

fn start(_wishes: &Wishes<'_>) -> Box<dyn Feature> {
    Box::new(TaskclusterProxy::default())
}

impl Feature for TaskclusterProxy {
    fn link<'a>(&'a mut self, run: &'a RunContext, link: &'a mut Link<'_>) -> Hook<'a> {
        Box::pin(async {
            if run.config.taskcluster_proxy_image().is_some() {
                self.serve_by_image(run, link).await?;
            } else {
                self.serve(run, link).await?;
            }
            link.contributions.environment.push((VARIABLE.to_owned(), format!("http://{NAME}")));
            Ok(())
        })
    }

    fn killed<'a>(&'a mut self, _run: &'a RunContext, _killed: &'a mut Killed<'_>) -> Hook<'a> {
        Box::pin(async {
            self.keeping_new = None;
            if let Some(serving) = self.serving.take() {
                serving.end().await;
            }
            match self.opening.take() {
                // What it has made goes with the network, if only it is there by then.
                Some(opening) => Ok(opening.await.map(drop)?),
                None => Ok(()),
            }
        })
    }
}

impl TaskclusterProxy {
    async fn serve(&mut self, run: &RunContext, link: &mut Link<'_>) -> Result<(), LinkError> {
        let (Some(proxy), Some(credentials)) = (&run.proxy, &run.credentials) else {
            return Err(LinkError::NoDeployment);
        };
        let attached = link.network.as_mut().ok_or(LinkError::NoNetwork)?;
        let address = attached.task.address();
        let listening = attached.task.listening(PORT, attached.record);
        let network = Arc::clone(attached.network);
        let opening = self.opening.insert(spawn_blocking(move || network.listen(&listening)));
        let opened = opening.await;
        self.opening = None;
        let caller = Caller { address, credentials: credentials.clone(), scopes: scopes(run) };
        self.serving.insert(proxy.begin(opened??, caller)?).begun().await?;
        link.contributions.aliases.push(Alias { name: NAME.to_owned(), address: GATEWAY });
        Ok(())
    }

    async fn serve_by_image(&mut self, run: &RunContext, link: &mut Link<'_>) -> Result<(), FeatureError> {
        let (Some(root_url), Some(credentials)) = (&run.config.root_url, &run.credentials) else {
            return Err(LinkError::NoDeployment.into());
        };
        self.keeping_new = Some(image::serve(run, link, (root_url, credentials)).await?);
        Ok(())
    }
}

/// What the task's requests may do.
fn scopes(run: &RunContext) -> Vec<String> {
    let own = format!("queue:create-artifact:{}/{}", run.run.task_id.as_str(), run.run.run_id);
    run.scopes.iter().cloned().chain([own]).collect()
}
