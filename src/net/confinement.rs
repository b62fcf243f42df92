//! What a process on the host's network that serves tasks may reach: no more than tasks themselves.
//!
//! The built-in proxy (the room `proxy`) reads what tasks send. Its own code asks for no address of the host's and for no
//! metadata service; a task that has got the better of that code is held by rules of the packet filter, which go by
//! who has opened a socket. So the rules are there before the process is, and stay until it is gone. What a task is answered
//! goes by its link, and passes as it always does.
//!
//! Some of what is the host's has to be open all the same: where the deployment is, and who is asked for names.
//!
//! Why not by control group: only its second version is told by a rule. Why not by mark: who may set one may set another.

use std::net::IpAddr;

use super::tables::{self, TablesError};
use super::{AttachError, Network, elements};

/// Something that a process may reach wherever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Opening {
    /// By which protocol.
    pub protocol: Protocol,
    /// Where.
    pub address: IpAddr,
    /// At which port.
    pub port: u16,
}

/// A protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Of connections.
    Tcp,
    /// Of datagrams.
    Udp,
}

/// A process may be started: the rules for it are in force.
#[derive(Debug)]
#[must_use = "the rules stay until they are taken back by it"]
pub struct Confinement(());

impl Protocol {
    /// Its number (`linux/in.h`).
    pub(super) fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }
}

impl Network {
    /// The group that a confined process has to be of.
    pub fn group(&self) -> u32 {
        self.names.group
    }

    /// Confines the process that will be of [`Network::group`], one at a time. Blocks.
    ///
    /// # Errors
    ///
    /// [`AttachError`], and nothing has changed.
    pub fn confine(&self, openings: &[Opening]) -> Result<Confinement, AttachError> {
        let mut share = self.share();
        if share.presence.is_none()
            && let Err(error) = self.enter(&mut share, tables::patience(&|| true), || ())
        {
            // Nobody of this process needs them, so nobody would take them back.
            drop(share.presence.take());
            // Why they could not be made is told; the next clean-up tries again.
            drop(tables::sweep(&self.place, &self.names));
            return Err(error);
        }
        share.users += 1;
        drop(share);
        let confinement = Confinement(());
        match self.open(openings) {
            Ok(()) => Ok(confinement),
            Err(error) => {
                self.set_free(confinement)?;
                Err(error.into())
            }
        }
    }

    /// Has the confined process reach `openings` and nothing else of what is the host's. With it
    /// the processes of other workers of the run directory, until one of those says otherwise. Blocks.
    ///
    /// # Errors
    ///
    /// [`TablesError`]: it may reach what it could before.
    pub fn open(&self, openings: &[Opening]) -> Result<(), TablesError> {
        let mut share = self.share();
        let socket = share.socket().map_err(TablesError::Look)?;
        elements::open(socket, &self.names, openings).map_err(TablesError::Open)
    }

    /// Takes the rules back, after the end of the process. With the last who needs them the tables go. Blocks.
    ///
    /// # Errors
    ///
    /// [`TablesError`]; the next clean-up tries again.
    pub fn set_free(&self, confinement: Confinement) -> Result<(), TablesError> {
        let Confinement(()) = confinement;
        let mut share = self.share();
        let Some(presence) = share.let_go() else { return Ok(()) };
        let socket = share.socket().map_err(TablesError::Look)?;
        tables::leave(&self.place, &self.names, presence, socket).map(drop)
    }
}
