//! Points in time as Taskcluster writes them: UTC, milliseconds, `Z`.
//!
//! The original's `Date.toJSON()` gives `2020-03-01T12:00:00.000Z` in every interface (task definitions, artifact
//! expiries, log lines). A finer fraction in the input is cut, so that two ways of writing one millisecond compare equal.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time, in whole milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(jiff::Timestamp);

/// Why a text is not a point in time.
#[derive(Debug, thiserror::Error)]
#[error("read {text:?} as a date and time: write it as 2020-03-01T12:00:00.000Z")]
pub struct TimestampError {
    text: String,
}

impl Timestamp {
    /// The present, by the wall clock of this host.
    #[must_use]
    pub fn now() -> Timestamp {
        Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
    }

    /// Reads an RFC 3339 date and time. The offset may be any (`Z`, `+02:00`); it must be there.
    ///
    /// # Errors
    ///
    /// [`TimestampError`] for anything else, dates without a time included.
    pub fn parse(text: &str) -> Result<Timestamp, TimestampError> {
        text.parse::<jiff::Timestamp>()
            .map(|time| Timestamp::from_millis(time.as_millisecond()))
            .map_err(|_| TimestampError { text: text.chars().take(64).collect() })
    }

    /// The point `millis` milliseconds after the epoch; out of range gives the nearest that exists.
    #[must_use]
    pub fn from_millis(millis: i64) -> Timestamp {
        let end = if millis < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        Timestamp(jiff::Timestamp::from_millisecond(millis).unwrap_or(end))
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        self.0.as_millisecond()
    }

    /// This point and `later` more; stops at the end of time.
    #[must_use]
    pub fn plus(self, later: Duration) -> Timestamp {
        let millis = i64::try_from(later.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(self.as_millis().saturating_add(millis))
    }

    /// How long ago `earlier` was, seen from here; zero when it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Timestamp) -> Duration {
        let millis = self.as_millis().saturating_sub(earlier.as_millis());
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0.strftime("%Y-%m-%dT%H:%M:%S.%3fZ"))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        Timestamp::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_with_exactly_three_digits_and_z() {
        let cases = [
            ("2020-03-01T12:00:00Z", "2020-03-01T12:00:00.000Z"),
            ("2020-03-01T12:00:00.5Z", "2020-03-01T12:00:00.500Z"),
            ("2016-05-28T16:12:56.693817Z", "2016-05-28T16:12:56.693Z"),
            ("2020-03-01T14:00:00+02:00", "2020-03-01T12:00:00.000Z"),
        ];
        for (text, expected) in cases {
            let time = Timestamp::parse(text).unwrap();
            assert_eq!(time.to_string(), expected, "{text}");
            assert_eq!(serde_json::to_value(time).unwrap(), serde_json::json!(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_date_with_time_and_offset_is_refused() {
        for text in
            ["", "tomorrow", "2020-03-01", "2020-03-01T12:00:00", "2020-13-01T12:00:00Z", "1583064000"]
        {
            assert!(Timestamp::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn arithmetic_stops_at_the_ends_of_time() {
        let start = Timestamp::from_millis(1_000);
        assert_eq!(start.plus(Duration::MAX), Timestamp::from_millis(i64::MAX));
        assert_eq!(start.plus(Duration::from_secs(2)).since(start), Duration::from_secs(2));
        assert_eq!(start.since(start.plus(Duration::from_secs(2))), Duration::ZERO);
    }
}
