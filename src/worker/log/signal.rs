//! What is counted and measured of a run's events, by the original's names.

use std::borrow::Cow;

use crate::event::RunEvent;
use crate::interrupt::Interrupt;

/// Something for the operator's curves.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Signal {
    /// It happened once more.
    Count(Cow<'static, str>),
    /// It was so much: milliseconds of a time, bytes of a size, bytes a second of a throughput.
    Measure(Cow<'static, str>, f64),
}

impl Signal {
    /// Those of an event. `region`: where this worker is.
    pub(super) fn of(event: &RunEvent<'_>, region: &str) -> Vec<Signal> {
        let count = |name: &'static str| vec![Signal::Count(name.into())];
        let measure = |name: &'static str, millis: u64| vec![Signal::Measure(name.into(), real(millis))];
        match *event {
            RunEvent::FeatureUsed { name } => vec![Signal::Count(format!("task.feature.{name}").into())],
            RunEvent::PayloadRefused => count("task.validationFailure"),
            RunEvent::ImageUnavailable => count("task.image.pullFailed"),
            RunEvent::ImagePulled { took_ms } => measure("task.dockerImage.downloadTime", took_ms),
            RunEvent::ImageReady { wait_ms, .. } => measure("task.image.totalLoadTime", wait_ms),
            RunEvent::CacheTaken { hit: true, .. } => count("cache.hit"),
            RunEvent::CacheTaken { hit: false, .. } => count("cache.miss"),
            RunEvent::Interrupted { reason: Interrupt::MaxRunTime, .. } => count("task.runtimeExceeded"),
            RunEvent::TaskAborted { .. } => count("task.state.abort"),
            RunEvent::ArtifactUploaded { sent_bytes, took_ms, .. } => uploaded(region, sent_bytes, took_ms),
            RunEvent::TaskClaimed
            | RunEvent::NextClaim { .. }
            | RunEvent::Reclaiming { .. }
            | RunEvent::Reclaimed { .. }
            | RunEvent::ReclaimFailed { .. }
            | RunEvent::ImageWanted { .. }
            | RunEvent::LayerStarted { .. }
            | RunEvent::LayerDone { .. }
            | RunEvent::CachePurged { .. }
            | RunEvent::CacheReleased { .. }
            | RunEvent::CacheRemoved { .. }
            | RunEvent::TaskStarted { .. }
            | RunEvent::StartFailed { .. }
            | RunEvent::ContainerExited { .. }
            | RunEvent::Interrupted { .. }
            | RunEvent::KilledHooksFailed { .. }
            | RunEvent::ArtifactUploading { .. }
            | RunEvent::ArtifactUploadFailed { .. }
            | RunEvent::ArtifactPublished { .. }
            | RunEvent::CredentialsUpdated
            | RunEvent::CredentialsUpdateFailed { .. }
            | RunEvent::ArtifactMissing { .. }
            | RunEvent::SecondaryResolved { .. }
            | RunEvent::TaskResolved { .. } => Vec::new(),
        }
    }
}

fn uploaded(region: &str, sent_bytes: u64, took_ms: u64) -> Vec<Signal> {
    let (size, time) = (real(sent_bytes), real(took_ms));
    let throughput = size * 1000.0 / time.max(1.0);
    let measure =
        |place: &str, what, value| Signal::Measure(format!("artifacts.{place}.{what}").into(), value);
    let of_place = |place: &str| {
        [("size", size), ("uploadTime", time), ("throughput", throughput)]
            .map(|(what, value)| measure(place, what, value))
    };
    [of_place("global"), of_place(&format!("region.{region}"))].concat()
}

/// Exact as far as anybody reads it.
fn real(whole: u64) -> f64 {
    whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_measured_for_all_and_for_the_region() {
        let event = RunEvent::ArtifactUploaded { name: "public/a", sent_bytes: 3000, took_ms: 1500 };
        let measured = |name: &'static str, value| Signal::Measure(name.into(), value);
        let expected = [
            measured("artifacts.global.size", 3000.0),
            measured("artifacts.global.uploadTime", 1500.0),
            measured("artifacts.global.throughput", 2000.0),
            measured("artifacts.region.here.size", 3000.0),
            measured("artifacts.region.here.uploadTime", 1500.0),
            measured("artifacts.region.here.throughput", 2000.0),
        ];
        assert_eq!(Signal::of(&event, "here"), expected);
    }
}
