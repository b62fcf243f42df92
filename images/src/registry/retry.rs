//! Further attempts after errors that may pass.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::limits::Limits;

use super::error::RegistryError;

/// Counts attempts and waits between them.
pub(super) struct Attempts<'a> {
    limits: &'a Limits,
    failed: u32,
}

impl Attempts<'_> {
    pub(super) fn new(limits: &Limits) -> Attempts<'_> {
        Attempts { limits, failed: 0 }
    }

    /// Waits before the next attempt, or gives the error back: it is permanent, or the last.
    pub(super) async fn again(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.failed += 1;
        if !error.is_transient() || self.failed >= self.limits.attempts {
            return Err(error);
        }
        let pause = error.retry_after().map_or_else(|| self.backoff(), |asked| asked.max(self.backoff()));
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Doubles with each failure, more or less.
    fn backoff(&self) -> Duration {
        let (first, most) = self.limits.backoff;
        let pause = first.saturating_mul(1 << (self.failed - 1).min(16)).min(most);
        // A hasher's random seed is all the randomness that is needed here.
        let random = u32::try_from(RandomState::new().hash_one(self.failed) % 1001).unwrap_or(500);
        let spread = f64::from(self.limits.backoff_spread_percent.min(100)) / 100.0;
        pause.mul_f64(1.0 + spread * (f64::from(random) / 500.0 - 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        for (spread, backoff_spread_percent) in [(0.0, 0), (0.25, 25), (1.0, 100)] {
            let limits = Limits { backoff_spread_percent, ..Limits::default() };
            for (failed, seconds) in [(1, 1.0), (2, 2.0), (3, 4.0), (6, 30.0), (60, 30.0)] {
                let pause = Attempts { limits: &limits, failed }.backoff().as_secs_f64();
                let likely = (1.0 - spread) * seconds..=(1.0 + spread) * seconds;
                assert!(likely.contains(&pause), "{failed}: {pause} is not in {likely:?}");
            }
        }
    }
}
