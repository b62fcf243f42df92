//! The places where an image may be had: the mirrors of its registry in their order, and the registry itself.
//!
//! A mirror that does not give what is asked for, for whatever reason, is left for the next place, and not asked again in
//! the same pull; so is one whose bytes turn out not to be those of a blob, which then is fetched anew. All are held to the same digests; what a name with a tag means is for the first to say that answers, as
//! it would be for the registry.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc::Sender;

use crate::limits::Limits;
use crate::manifest::{Descriptor, Offer, Platform};
use crate::reference::Reference;

use super::access::{Access, Fallback};
use super::error::RegistryError;
use super::fetch::Received;
use super::{Registry, origin};

/// Where one image comes from.
#[derive(Debug)]
pub(crate) struct Sources {
    /// The registry that the image's name spells.
    registry: String,
    mirrors: Vec<Registry>,
    last: Registry,
    /// How many mirrors were left.
    left: AtomicUsize,
}

impl Sources {
    /// Prepares requests for the image that a name spells; nothing is dialled yet.
    pub(crate) fn new(
        reference: &Reference,
        access: &Access,
        limits: &Limits,
    ) -> Result<Sources, RegistryError> {
        let mut names = names(reference, access)?;
        // There is at least the registry itself, or a mirror in its place.
        let last = names.pop().unwrap_or_else(|| reference.clone());
        // Where there is somebody else to ask, one attempt is enough.
        let hasty = Limits { attempts: 1, ..limits.clone() };
        let mirrors = names.iter().map(|name| Registry::new(name, access, &hasty));
        let (mirrors, last) = (mirrors.collect::<Result<_, _>>()?, Registry::new(&last, access, limits)?);
        let (registry, left) = (reference.registry().to_owned(), AtomicUsize::new(0));
        Ok(Sources { registry, mirrors, last, left })
    }

    /// The registry that the image's name spells, whoever stands in for it.
    pub(crate) fn registry(&self) -> &str {
        &self.registry
    }

    /// Whether one of them has been told who we are.
    pub(crate) fn know_us(&self) -> bool {
        self.mirrors.iter().chain([&self.last]).any(Registry::knows_us)
    }

    /// Resolves the name to an image for `platform`: see [`Registry::offer`]. `tell` hears of mirrors that are left.
    pub(crate) async fn offer(
        &self,
        platform: &Platform,
        tell: &(dyn Fn(String) + Send + Sync),
    ) -> Result<Offer, RegistryError> {
        for (index, mirror) in self.mirrors.iter().enumerate() {
            match mirror.offer(platform).await {
                Ok(offer) => return Ok(offer),
                Err(error) => tell(self.leave(index, &error)),
            }
        }
        self.last.offer(platform).await
    }

    /// Sends a blob's bytes from `from` on into a channel: see [`Registry::blob`]. Where a mirror breaks off, the next one
    /// goes on.
    pub(crate) async fn blob(
        &self,
        blob: &Descriptor,
        from: u64,
        out: &Sender<Received>,
        tell: &(dyn Fn(String) + Send + Sync),
    ) -> Result<(), RegistryError> {
        let mut sent = from;
        // Another blob may have been left by one meanwhile.
        while let index = self.left.load(Ordering::Relaxed)
            && let Some(mirror) = self.mirrors.get(index)
        {
            match mirror.blob(blob, &mut sent, out).await {
                Err(error) if !matches!(error, RegistryError::Abandoned { .. }) => {
                    tell(self.leave(index, &error))
                }
                ended => return ended,
            }
        }
        self.last.blob(blob, &mut sent, out).await
    }

    /// Which place would be asked for a blob now.
    pub(crate) fn place(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }

    /// Leaves the mirror at a place, if there is one, for what has been found wrong with a blob. Others that went on with the
    /// blob may be left for it next.
    pub(crate) fn leave_mirror(&self, place: usize, why: &dyn Error) -> Option<String> {
        self.mirrors.get(place).map(|_mirror| self.leave(place, why))
    }

    /// Goes on to the next place. Gives the sentence about it.
    fn leave(&self, index: usize, error: &dyn Error) -> String {
        self.left.fetch_max(index + 1, Ordering::Relaxed);
        let next = self.mirrors.get(index + 1).unwrap_or(&self.last);
        let causes = std::iter::successors(Some(error), |&error| error.source());
        let causes: Vec<_> = causes.map(ToString::to_string).collect();
        format!("WARNING: A mirror was left for {}: failed to {}", next.origin, causes.join(": "))
    }
}

/// By which names an image is asked for, and in which order. At least one.
pub(super) fn names(reference: &Reference, access: &Access) -> Result<Vec<Reference>, RegistryError> {
    let rules = access.rules(&origin(reference, access)?);
    let places = rules.map_or(&[][..], |rules| rules.mirrors.as_slice());
    let mirrored = places.iter().map(|place| reference.moved_to(place.host(), place.prefix()));
    let keeps_itself = places.is_empty() || rules.is_none_or(|rules| rules.fallback == Fallback::Registry);
    Ok(mirrored.chain(keeps_itself.then(|| reference.clone())).collect())
}
