//! The queue's clock, by what its answers say.
//!
//! Claims and deadlines go by the queue's time, and this host's wall clock may be off or be set meanwhile. So the
//! present is reckoned from the last answer's `Date` and the time since, suspends included.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::timestamp::Timestamp;

/// How far apart two clocks may be before it is worth a word: the queue takes signatures that are off by 15 minutes.
const WORTH_A_WORD: Duration = Duration::from_secs(30);

/// Clocks that are no farther apart show the same time: `Date` has whole seconds, and an answer takes its time to come.
const SAME_MILLIS: i64 = 5000;

/// The queue's clock.
#[derive(Debug)]
pub(super) struct QueueClock {
    /// The queue's time less this host's time since boot, in milliseconds.
    offset: AtomicI64,
    /// The milliseconds by which this host's wall clock is ahead, as they were told last.
    told: AtomicI64,
}

impl QueueClock {
    /// Until an answer has come, the queue's time is this host's.
    pub(super) fn new() -> QueueClock {
        QueueClock {
            offset: AtomicI64::new(Timestamp::now().as_millis() - since_boot()),
            told: AtomicI64::new(0),
        }
    }

    /// The present.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.offset.load(Ordering::Relaxed).saturating_add(since_boot()))
    }

    /// When a moment of the queue's is on this host's wall clock; a little later where the two differ by more than
    /// `Date` is wrong.
    pub(super) fn here(&self, moment: Timestamp) -> Timestamp {
        translate(moment, Timestamp::now(), self.now())
    }

    /// Notes an answer's `Date`, in whole seconds; one that is no date says nothing.
    pub(super) fn note(&self, date: &str) {
        let parser = jiff::fmt::rfc2822::DateTimeParser::new();
        if let Ok(date) = parser.parse_timestamp(date) {
            // On average half a second has gone since the second that it names began.
            let now = date.as_millisecond().saturating_add(500);
            self.offset.store(now.saturating_sub(since_boot()), Ordering::Relaxed);
        }
    }

    /// What is wrong with this host's wall clock, if it is worth a word. In the same words as long as it is the same as far
    /// as can be told: what repeats them can be seen to say nothing new.
    pub(super) fn skew(&self) -> Option<String> {
        let ahead = ahead(Timestamp::now(), self.now());
        let told = self.told.load(Ordering::Relaxed);
        if ahead.saturating_sub(told).saturating_abs() <= SAME_MILLIS {
            return describe(told);
        }
        self.told.store(ahead, Ordering::Relaxed);
        describe(ahead)
    }
}

fn translate(moment: Timestamp, here: Timestamp, queue: Timestamp) -> Timestamp {
    let ahead = ahead(here, queue);
    if ahead.saturating_abs() <= SAME_MILLIS {
        return moment;
    }
    Timestamp::from_millis(moment.as_millis().saturating_add(ahead).saturating_add(SAME_MILLIS))
}

/// Milliseconds by which this host's clock is ahead.
fn ahead(here: Timestamp, queue: Timestamp) -> i64 {
    here.as_millis().saturating_sub(queue.as_millis())
}

fn describe(ahead: i64) -> Option<String> {
    let by = Duration::from_millis(ahead.unsigned_abs());
    let word = if ahead < 0 { "behind" } else { "ahead of" };
    (by > WORTH_A_WORD).then(|| format!("this host's clock is {} s {word} the queue's: set it", by.as_secs()))
}

/// Milliseconds since this host was started, those in which it was suspended included.
fn since_boot() -> i64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_present_goes_by_the_last_answer() {
        let clock = QueueClock::new();
        assert!(clock.now().since(Timestamp::now()) < Duration::from_secs(1));
        assert_eq!(clock.skew(), None);
        for no_date in ["", "yesterday", "\u{1f600}"] {
            clock.note(no_date);
            assert_eq!(clock.skew(), None, "{no_date}");
        }
        clock.note("Sun, 29 Nov 2026 10:39:12 GMT");
        let told = Timestamp::parse("2026-11-29T10:39:12Z").unwrap();
        assert!(clock.now().since(told) < Duration::from_secs(10));
    }

    #[test]
    fn a_clock_that_is_off_is_told_alike_until_it_is_off_by_more_or_less() {
        let clock = QueueClock::new();
        let skew_at = |ahead: i64| {
            clock.offset.store(Timestamp::now().as_millis() - since_boot() - ahead, Ordering::Relaxed);
            clock.skew()
        };
        let told = skew_at(100_400).unwrap();
        for ahead in [101_400, 99_400, 100_400] {
            assert_eq!(skew_at(ahead).as_ref(), Some(&told), "{ahead}");
        }
        assert!(skew_at(200_500).unwrap().contains(" 200 s ahead"));
        assert_eq!(skew_at(0), None);
    }

    #[test]
    fn a_moment_of_the_queues_is_found_on_a_clock_that_is_off() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        assert_eq!(translate(at(50), at(100), at(105)), at(50), "as exact as it can be told");
        assert_eq!(translate(at(50), at(200), at(100)), at(155), "this host is ahead");
        assert_eq!(translate(at(150), at(100), at(200)), at(55), "and behind");
    }

    #[test]
    fn a_clock_that_is_off_is_named_with_its_direction() {
        assert_eq!(describe(-30_000), None);
        let ahead = describe(100_000).unwrap();
        assert_eq!(ahead, "this host's clock is 100 s ahead of the queue's: set it");
        let behind = describe(-100_000).unwrap();
        assert_eq!(behind, "this host's clock is 100 s behind the queue's: set it");
    }
}
