//! `balrogVPNProxy`, `balrogStageVPNProxy`: Balrog as `http://balrog`, behind a VPN that a container of its own enters.
//!
//! It is there when it answers 401: the server at the other end of the tunnel wants to know who is calling. Any other
//! answer comes from somebody else.

use std::time::Duration;

use hyper::Method;
use tokio::time::sleep;

use super::sidecars::{self, Particulars, Row};
use super::{Feature, FeatureError, FeatureRow, Hook, Link, RunContext};
use crate::known_features::{BALROG_STAGE_VPN_PROXY, BALROG_VPN_PROXY};
use crate::sidecar::{Call, Door};
use crate::text::chain;

/// Their rows of the table.
pub(super) const ROW: FeatureRow =
    FeatureRow { feature: &BALROG_VPN_PROXY, start: |_| Box::new(Balrog(&sidecars::BALROG)) };
pub(super) const STAGE_ROW: FeatureRow =
    FeatureRow { feature: &BALROG_STAGE_VPN_PROXY, start: |_| Box::new(Balrog(&sidecars::BALROG_STAGE)) };

/// What a server says to whoever does not say who they are.
const UNAUTHORIZED: u16 = 401;

/// How often the tunnel's other end is looked for, and how long after one another.
const TRIES: usize = 15;
const PAUSE: Duration = Duration::from_secs(1);

/// How long one look may take.
const LOOK: Duration = Duration::from_secs(10);

/// Whoever answers is not Balrog.
#[derive(Debug, thiserror::Error)]
#[error("Could not connect to balrog server and receive expected response Status code: {0}")]
struct NotBalrog(String);

struct Balrog(&'static Row);

impl Feature for Balrog {
    fn link<'a>(&'a mut self, run: &'a RunContext, link: &'a mut Link<'_>) -> Hook<'a> {
        Box::pin(async {
            let particulars = Particulars::default();
            sidecars::serve(self.0, run, link, particulars, async |door| reach(door).await).await?;
            Ok(())
        })
    }
}

async fn reach(door: &Door) -> Result<(), FeatureError> {
    let mut last = String::new();
    for attempt in 0..TRIES {
        if attempt > 0 {
            sleep(PAUSE).await;
        }
        let look = Call { method: Method::GET, path: "/", content: None, limit: LOOK };
        last = match door.call(look).await {
            Ok(UNAUTHORIZED) => return Ok(()),
            Ok(status) => status.to_string(),
            Err(error) => format!("none (failed to {})", chain(&error)),
        };
    }
    Err(NotBalrog(last).into())
}
