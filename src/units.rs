//! Sizes and times as people write them: `512M`, `1h30m`.

/// Bytes of a text such as `1000`, `64k`, `1.5G` or `2 GiB`: powers of 1024, as docker counts memory.
///
/// # Errors
///
/// What the text has to be, as a sentence fragment.
pub fn parse_bytes(text: &str) -> Result<u64, &'static str> {
    const EXPECTED: &str = "must be a number of bytes, as 1000000, or with a unit, as 512M or 4G";
    let at = text.find(|character: char| !matches!(character, '0'..='9' | '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let shift = match unit.trim_start().to_ascii_lowercase().trim_end_matches("ib") {
        "" | "b" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(EXPECTED),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().map_err(|_| EXPECTED)?;
    let bytes = whole.checked_mul(1 << shift).ok_or(EXPECTED)?;
    bytes.checked_add(parse_fraction(fraction, shift).ok_or(EXPECTED)?).ok_or(EXPECTED)
}

/// Bytes of what follows the point, rounded down: half of a unit for `5`.
fn parse_fraction(digits: &str, shift: u32) -> Option<u64> {
    if digits.is_empty() {
        return Some(0);
    }
    // Nine digits are finer than any unit needs, and cannot overflow.
    if shift == 0 || digits.len() > 9 {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    let scale = 10_u128.pow(u32::try_from(digits.len()).ok()?);
    u64::try_from(u128::from(number) * (1 << shift) / scale).ok()
}

/// Seconds of a text such as `90`, `90s`, `1h30m` or `2d`.
///
/// # Errors
///
/// What the text has to be, as a sentence fragment.
pub fn parse_seconds(text: &str) -> Result<u64, &'static str> {
    const EXPECTED: &str = "must be seconds, as 90, or a time with units, as 90s, 20m or 1h30m";
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    let mut rest = text;
    let mut seconds = 0_u64;
    // Each unit once, the largest first: `30m1h` is rather a slip of the pen than a time.
    for (unit, length) in [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)] {
        let Some((number, after)) = rest.split_once(unit) else { continue };
        let number: u64 = number.parse().map_err(|_| EXPECTED)?;
        let part = number.checked_mul(length).ok_or(EXPECTED)?;
        seconds = seconds.checked_add(part).ok_or(EXPECTED)?;
        rest = after;
    }
    if rest.is_empty() && !text.is_empty() { Ok(seconds) } else { Err(EXPECTED) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        let cases = [
            ("0", Some(0)),
            ("1000", Some(1000)),
            ("1000b", Some(1000)),
            ("64k", Some(65_536)),
            ("64KiB", Some(65_536)),
            ("512M", Some(536_870_912)),
            ("1G", Some(1 << 30)),
            ("1.5G", Some(3 << 29)),
            ("2 TiB", Some(2 << 40)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("16777216T", None),
            ("1.5", None),
            ("-1", None),
            ("1GB", None),
            ("G", None),
            ("1 0", None),
            ("1.2.3G", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_bytes(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn times_have_units_or_are_seconds() {
        let cases = [
            ("0", Some(0)),
            ("90", Some(90)),
            ("90s", Some(90)),
            ("20m", Some(1200)),
            ("1h", Some(3600)),
            ("1h30m", Some(5400)),
            ("2d1s", Some(172_801)),
            ("30m1h", None),
            ("1h1h", None),
            ("1 h", None),
            ("1.5h", None),
            ("-5", None),
            ("h", None),
            ("99999999999999999999h", None),
            ("999999999999999999d", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_seconds(text).ok(), expected, "{text:?}");
        }
    }
}
