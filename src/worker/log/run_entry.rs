//! The phases of a run: their entries in the worker's log, and what is counted and measured of them.
//!
//! A run tells its events to whoever listens; here they become what readers of the original's log know. Both maps are
//! pure, and name every event, so that none is forgotten.

use serde::Serialize;

use crate::event::RunEvent;
use crate::interrupt::{Interrupt, Notice};
use crate::timestamp::Timestamp;

/// Something that happened to a run.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum RunEntry<'a> {
    /// It gets its directories and its log.
    #[serde(rename = "task start")]
    Start,
    /// Its image is looked for.
    #[serde(rename = "ensure image")]
    EnsureImage {
        /// As the payload names it.
        image: &'a str,
    },
    /// Its command runs.
    #[serde(rename = "task run")]
    Run {
        /// The container.
        container_id: &'a str,
    },
    /// Its command does not run.
    #[serde(rename = "error starting container")]
    ErrorStarting {
        /// One sentence.
        error: &'a str,
    },
    /// Its claim is left alone for a while.
    #[serde(rename = "next claim")]
    NextClaim {
        /// Milliseconds.
        after_ms: u64,
        /// Until when the claim holds.
        taken_until: Timestamp,
    },
    /// Its claim is being prolonged.
    #[serde(rename = "reclaiming task")]
    Reclaiming {
        /// Until when it holds so far.
        taken_until: Timestamp,
    },
    /// Its claim is prolonged.
    #[serde(rename = "reclaimed task")]
    Reclaimed {
        /// Until when it holds now.
        taken_until: Timestamp,
    },
    /// Its claim cannot be prolonged.
    #[serde(rename = "error reclaiming task")]
    ErrorReclaiming {
        /// Until when it holds.
        taken_until: Timestamp,
        /// One sentence.
        error: &'a str,
    },
    /// The queue says that somebody else has ended it.
    #[serde(rename = "cancelling task")]
    Cancelling {
        /// Why it ends.
        reason: Interrupt,
    },
    /// It was ended because somebody else had done so in the queue.
    #[serde(rename = "cancel task")]
    Cancel {
        /// Why it ends.
        reason: Interrupt,
        /// By what the worker knew it.
        notice: Notice,
    },
    /// It was ended because its time was over.
    #[serde(rename = "task max runtime timeout")]
    MaxRunTime {
        /// Seconds.
        #[serde(skip_serializing_if = "Option::is_none")]
        max_run_time: Option<u64>,
    },
    /// It did not come to its command's own end.
    #[serde(rename = "task aborted")]
    Aborted {
        /// As what it is reported.
        exception: &'a str,
    },
    /// What is done when the command is over did not succeed: a log could not be stored, or signed.
    #[serde(rename = "error killing states")]
    ErrorKilling {
        /// One sentence.
        error: &'a str,
    },
    /// It has an instance of a cache that an earlier one has used.
    #[serde(rename = "cache volume hit")]
    CacheHit {
        /// The cache's name.
        name: &'a str,
    },
    /// No instance was free.
    #[serde(rename = "cache volume miss")]
    CacheMiss {
        /// The cache's name.
        name: &'a str,
    },
    /// So it has a new one.
    #[serde(rename = "cache volume created")]
    CacheCreated {
        /// The cache's name.
        name: &'a str,
    },
    /// Nobody may have its instance any more.
    #[serde(rename = "cache volume purge")]
    CachePurge {
        /// The cache's name.
        name: &'a str,
    },
    /// It has given an instance back.
    #[serde(rename = "cache volume release")]
    CacheRelease {
        /// The cache's name.
        name: &'a str,
    },
    /// An instance that nobody may have is gone.
    #[serde(rename = "cache volume removed")]
    CacheRemoved {
        /// The cache's name.
        name: &'a str,
    },
    /// The bytes of an artifact are sent another time.
    #[serde(rename = "retrying artifact upload")]
    RetryingUpload {
        /// The artifact's name.
        name: &'a str,
        /// Which attempt this is.
        attempt_number: u32,
    },
    /// The image of the taskcluster proxy has new credentials.
    #[serde(rename = "Credentials updated")]
    CredentialsUpdated,
    /// It goes on with the old ones.
    #[serde(rename = "Credentials update failed")]
    ErrorUpdatingCredentials {
        /// One sentence.
        error: &'a str,
    },
    /// What the original has no word for, as the run tells it.
    #[serde(rename = "task event")]
    Other {
        /// What happened.
        #[serde(flatten)]
        event: &'a RunEvent<'a>,
    },
    /// `Uploading <name>` or `Error uploading <name>`: the artifact's name is part of the type.
    #[serde(untagged)]
    Upload {
        /// One of the two.
        r#type: String,
        /// What went wrong, if something did.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a str>,
    },
}

impl<'a> RunEntry<'a> {
    /// What is written of an event, in this order.
    pub(super) fn of(event: &'a RunEvent<'a>) -> Vec<RunEntry<'a>> {
        vec![match *event {
            RunEvent::TaskClaimed => RunEntry::Start,
            RunEvent::NextClaim { after_ms, taken_until } => RunEntry::NextClaim { after_ms, taken_until },
            RunEvent::Reclaiming { taken_until } => RunEntry::Reclaiming { taken_until },
            RunEvent::Reclaimed { taken_until } => RunEntry::Reclaimed { taken_until },
            RunEvent::ReclaimFailed { taken_until, message } => {
                RunEntry::ErrorReclaiming { taken_until, error: message }
            }
            RunEvent::ImageWanted { image } => RunEntry::EnsureImage { image },
            RunEvent::CacheTaken { name, hit: true } => RunEntry::CacheHit { name },
            RunEvent::CacheTaken { name, hit: false } => {
                return vec![RunEntry::CacheMiss { name }, RunEntry::CacheCreated { name }];
            }
            RunEvent::CachePurged { name } => RunEntry::CachePurge { name },
            RunEvent::CacheReleased { name } => RunEntry::CacheRelease { name },
            RunEvent::CacheRemoved { name } => RunEntry::CacheRemoved { name },
            RunEvent::TaskStarted { container_id, .. } => RunEntry::Run { container_id },
            RunEvent::StartFailed { message } => RunEntry::ErrorStarting { error: message },
            RunEvent::Interrupted { reason, notice, max_run_time } => match reason {
                Interrupt::Cancelled
                | Interrupt::CancelledHere
                | Interrupt::Deadline
                | Interrupt::LostClaim => RunEntry::Cancel { reason, notice },
                Interrupt::MaxRunTime => RunEntry::MaxRunTime { max_run_time },
                // That it is aborted follows.
                Interrupt::RefusedClaim | Interrupt::Shutdown => RunEntry::Other { event },
            },
            RunEvent::TaskAborted { reason } => RunEntry::Aborted { exception: reason },
            RunEvent::KilledHooksFailed { message } => RunEntry::ErrorKilling { error: message },
            RunEvent::ArtifactUploading { name, attempt } => {
                let uploading = RunEntry::Upload { r#type: format!("Uploading {name}"), error: None };
                if attempt == 1 {
                    return vec![uploading];
                }
                return vec![RunEntry::RetryingUpload { name, attempt_number: attempt }, uploading];
            }
            RunEvent::ArtifactUploadFailed { name, message } => {
                RunEntry::Upload { r#type: format!("Error uploading {name}"), error: Some(message) }
            }
            // Only counted, or measured.
            RunEvent::FeatureUsed { .. }
            | RunEvent::PayloadRefused
            | RunEvent::ImagePulled { .. }
            | RunEvent::ImageUnavailable
            | RunEvent::ArtifactUploaded { .. } => return Vec::new(),
            RunEvent::CredentialsUpdated => RunEntry::CredentialsUpdated,
            RunEvent::CredentialsUpdateFailed { message } => {
                RunEntry::ErrorUpdatingCredentials { error: message }
            }
            RunEvent::LayerStarted { .. }
            | RunEvent::LayerDone { .. }
            | RunEvent::ImageReady { .. }
            | RunEvent::ContainerExited { .. }
            | RunEvent::ArtifactPublished { .. }
            | RunEvent::ArtifactMissing { .. }
            | RunEvent::SecondaryResolved { .. }
            | RunEvent::TaskResolved { .. } => RunEntry::Other { event },
        }]
    }
}
