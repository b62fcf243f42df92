//! Which part of a log a reader wants (RFC 9110 §14, and RFC 8673 for what grows).

/// The end of a part that goes on as long as the log does: a number that no log reaches, which clients take for that.
const UNKNOWN_END: u64 = (1 << 53) - 1;

/// What a reader wants of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All, until the log ends.
    Whole,
    /// From a byte on; to another one, or until the log ends.
    From {
        /// The first byte.
        first: u64,
        /// The last byte.
        last: Option<u64>,
    },
    /// So many bytes before what is its end now, and what follows.
    Last(u64),
}

impl Wanted {
    /// Reads a header `Range`. What is no range of bytes, or several, is ignored, as a server may.
    pub(super) fn parse(header: Option<&str>) -> Wanted {
        let Some(range) = header.and_then(|header| header.trim().strip_prefix("bytes=")) else {
            return Wanted::Whole;
        };
        let Some((first, last)) = range.split_once('-') else { return Wanted::Whole };
        match (number(first), number(last)) {
            (Some(Some(first)), Some(last)) if last.is_none_or(|last| first <= last) => {
                Wanted::From { first, last }
            }
            (Some(None), Some(Some(count))) => Wanted::Last(count),
            _ => Wanted::Whole,
        }
    }
}

/// A number, or nothing where there is none; not even that when it is something else.
fn number(text: &str) -> Option<Option<u64>> {
    let text = text.trim();
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| (!text.is_empty()).then(|| text.parse().unwrap_or(u64::MAX)))
}

/// The header `Content-Range` of a part from `first` to before `end`, of a log of `length` bytes; what is not known yet
/// is left open.
pub(super) fn content_range(first: u64, end: Option<u64>, length: Option<u64>) -> String {
    let last = end.map_or(UNKNOWN_END, |end| end.saturating_sub(1));
    let length = length.map_or_else(|| "*".to_owned(), |length| length.to_string());
    format!("bytes {first}-{last}/{length}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_of_bytes_is_understood_and_all_else_is_the_whole() {
        let from = |first, last| Wanted::From { first, last };
        for (header, wanted) in [
            ("bytes=0-", from(0, None)),
            ("bytes=5-9", from(5, Some(9))),
            ("bytes=9-9", from(9, Some(9))),
            (" bytes= 7 - 8 ", from(7, Some(8))),
            ("bytes=3-9007199254740991", from(3, Some(UNKNOWN_END))),
            ("bytes=99999999999999999999-", from(u64::MAX, None)),
            ("bytes=-100", Wanted::Last(100)),
            ("bytes=9-5", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=1-2,4-5", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
            ("", Wanted::Whole),
        ] {
            assert_eq!(Wanted::parse(Some(header)), wanted, "{header}");
        }
        assert_eq!(Wanted::parse(None), Wanted::Whole);
    }

    #[test]
    fn what_is_not_known_yet_is_left_open() {
        assert_eq!(content_range(5, Some(10), Some(20)), "bytes 5-9/20");
        assert_eq!(content_range(5, Some(10), None), "bytes 5-9/*");
        assert_eq!(content_range(5, None, None), "bytes 5-9007199254740991/*");
    }
}
