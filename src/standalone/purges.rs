//! Who has asked for which caches to be purged.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::cache::PurgeRequest;
use crate::timestamp::Timestamp;

/// How long a request is shown: a worker that looks no more often than that has no caches so old.
const SHOWN: Duration = Duration::from_secs(24 * 60 * 60);
/// Requests that are remembered, the newest.
const MOST: usize = 1000;

/// Requests by pool.
#[derive(Default)]
pub(super) struct Purges(Mutex<Vec<(String, PurgeRequest)>>);

impl Purges {
    /// Asks for the caches of that name in a pool; a later request takes the place of an earlier one.
    pub(super) fn ask(&self, pool: &str, request: PurgeRequest) {
        let mut all = self.lock();
        all.retain(|(known, it)| known != pool || it.cache_name != request.cache_name);
        if all.len() >= MOST {
            all.remove(0);
        }
        all.push((pool.to_owned(), request));
    }

    /// What is asked for in a pool.
    pub(super) fn of(&self, pool: &str, now: Timestamp) -> Vec<PurgeRequest> {
        let mut all = self.lock();
        all.retain(|(_, it)| now.since(it.before) <= SHOWN);
        all.iter().filter(|(known, _)| known == pool).map(|(_, it)| it.clone()).collect()
    }

    /// Nobody panics while they hold it.
    fn lock(&self) -> MutexGuard<'_, Vec<(String, PurgeRequest)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(0).plus(Duration::from_secs(seconds))
    }

    fn request(name: &str, seconds: u64) -> PurgeRequest {
        PurgeRequest { cache_name: name.to_owned(), before: at(seconds) }
    }

    #[test]
    fn a_pool_is_shown_the_last_request_for_each_of_its_caches_for_a_day() {
        let purges = Purges::default();
        purges.ask("p/a", request("x", 1));
        purges.ask("p/b", request("x", 2));
        purges.ask("p/a", request("x", 3));
        assert_eq!(purges.of("p/a", at(3)), [request("x", 3)]);
        assert_eq!(purges.of("p/a", at(3 + SHOWN.as_secs())), [request("x", 3)]);
        assert_eq!(purges.of("p/a", at(4 + SHOWN.as_secs())), []);
        for number in 0..=MOST {
            purges.ask("p/c", request(&number.to_string(), 4));
        }
        assert_eq!((purges.of("p/c", at(4)).len(), &purges.of("p/c", at(4))[0]), (MOST, &request("1", 4)));
    }
}
