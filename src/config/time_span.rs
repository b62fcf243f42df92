//! Spans of time as the original's configuration has them: `7 days`, `1 day 12 hours`, `30 min`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The units with their spellings, the largest first, in seconds.
const UNITS: [(&[&str], u64); 7] = [
    (&["y", "yr", "year", "years"], 365 * 86_400),
    (&["mo", "month", "months"], 30 * 86_400),
    (&["w", "wk", "week", "weeks"], 7 * 86_400),
    (&["d", "day", "days"], 86_400),
    (&["h", "hr", "hour", "hours"], 3600),
    (&["m", "min", "minute", "minutes"], 60),
    (&["s", "sec", "second", "seconds"], 1),
];

/// A span of time, and how it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeSpan {
    text: String,
    seconds: u64,
}

impl TimeSpan {
    /// So many days.
    pub(super) fn days(days: u64) -> TimeSpan {
        TimeSpan { text: format!("{days} days"), seconds: days.saturating_mul(86_400) }
    }

    /// How long it is.
    pub fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// Each unit once, the largest first.
    fn parse(text: &str) -> Option<TimeSpan> {
        let (mut rest, mut units, mut seconds) = (text.trim(), UNITS.iter(), 0_u64);
        while !rest.is_empty() {
            let digits = rest.find(|character: char| !character.is_ascii_digit())?;
            let (number, behind) = rest.split_at(digits);
            let behind = behind.trim_start();
            let letters = behind.find(|character: char| !character.is_ascii_alphabetic());
            let (word, after) = behind.split_at(letters.unwrap_or(behind.len()));
            let (_, length) = units.find(|(words, _)| words.contains(&word))?;
            let number: u64 = number.parse().ok()?;
            seconds = seconds.checked_add(number.checked_mul(*length)?)?;
            rest = after.trim_start();
        }
        (seconds > 0).then(|| TimeSpan { text: text.trim().to_owned(), seconds })
    }
}

impl Serialize for TimeSpan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for TimeSpan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TimeSpan, D::Error> {
        let text = String::deserialize(deserializer)?;
        let expected = "must be a time with units, the largest first, as 7 days or 1 day 12 hours";
        TimeSpan::parse(&text).ok_or_else(|| serde::de::Error::custom(expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_the_original_reads_them() {
        let cases = [
            ("7 days", Some(604_800)),
            ("1 day 12 hours", Some(129_600)),
            ("1d12h", Some(129_600)),
            (" 30 min ", Some(1800)),
            ("1 year 1 month", Some(395 * 86_400)),
            ("2 weeks 1 second", Some(1_209_601)),
            ("1 hour 1 day", None),
            ("1 hour 1 hour", None),
            ("-1 day", None),
            ("0 days", None),
            ("1", None),
            ("days", None),
            ("1 fortnight", None),
            ("99999999999999999999 days", None),
            ("999999999999999999 years", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(TimeSpan::parse(text).map(|span| span.seconds), expected, "{text:?}");
        }
    }
}
