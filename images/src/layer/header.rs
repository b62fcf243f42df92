//! One 512-byte header block: checksum, numbers, names. Layouts are the `tar` crate's; reading is strict.
//!
//! Source: POSIX.1-2017 `pax`, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format".
use super::error::ArchiveProblem;
use super::{Device, Timestamp};

/// Bytes of a tar block.
pub const TAR_BLOCK: usize = 512;

/// Times outside this range are moved to its ends: what ext4 stores, 1901 to 2446.
const TIMES: std::ops::RangeInclusive<i64> = -(1 << 31)..=(1 << 34) - 1;

/// A header whose checksum fits.
pub struct Header(tar::Header);

impl Header {
    /// Takes a block as a header.
    pub fn parse(block: &[u8; TAR_BLOCK]) -> Result<Header, ArchiveProblem> {
        let header = tar::Header::from_byte_slice(block);
        let stored = number(&header.as_old().cksum, "checksum")?;
        // The field itself counts as spaces. Some old writers summed signed bytes.
        let field: i64 = header.as_old().cksum.iter().map(|byte| i64::from(*byte)).sum();
        let signed_field: i64 = header.as_old().cksum.iter().map(|byte| i64::from(byte.cast_signed())).sum();
        let spaces = 8 * i64::from(b' ');
        let unsigned = block.iter().map(|byte| i64::from(*byte)).sum::<i64>() - field + spaces;
        let signed =
            block.iter().map(|byte| i64::from(byte.cast_signed())).sum::<i64>() - signed_field + spaces;
        if stored != unsigned && stored != signed {
            return Err(ArchiveProblem::Checksum);
        }
        Ok(Header(header.clone()))
    }

    /// The type byte.
    pub fn kind(&self) -> u8 {
        let [kind] = self.0.as_old().linkflag;
        kind
    }

    /// Bytes of the body, as this header has them.
    pub fn size(&self) -> Result<u64, ArchiveProblem> {
        unsigned(&self.0.as_old().size, "size")
    }

    /// Permission bits, set-id and sticky bits.
    pub fn mode(&self) -> Result<u16, ArchiveProblem> {
        let mode = unsigned(&self.0.as_old().mode, "mode")?;
        u16::try_from(mode & 0o7777).map_err(|_| ArchiveProblem::Number { field: "mode" })
    }

    /// Owner.
    pub fn uid(&self) -> Result<u64, ArchiveProblem> {
        unsigned(&self.0.as_old().uid, "owner")
    }

    /// Group.
    pub fn gid(&self) -> Result<u64, ArchiveProblem> {
        unsigned(&self.0.as_old().gid, "group")
    }

    /// Modification time, clamped.
    pub fn modified(&self) -> Result<Timestamp, ArchiveProblem> {
        let seconds = number(&self.0.as_old().mtime, "time")?;
        Ok(clamp(Timestamp { seconds, nanoseconds: 0 }))
    }

    /// Device number; what does not fit becomes the largest, which no one accepts.
    pub fn device(&self) -> Result<Device, ArchiveProblem> {
        let (major, minor) = match (self.0.as_ustar(), self.0.as_gnu()) {
            (Some(header), _) => (&header.dev_major, &header.dev_minor),
            (None, Some(header)) => (&header.dev_major, &header.dev_minor),
            (None, None) => return Ok(Device { major: 0, minor: 0 }),
        };
        let major = unsigned(major, "device number")?;
        let minor = unsigned(minor, "device number")?;
        let fit = |number| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(Device { major: fit(major), minor: fit(minor) })
    }

    /// The name, with the prefix that ustar and star headers split off.
    pub fn name(&self) -> Vec<u8> {
        let name = text(&self.0.as_old().name);
        let Some(header) = self.0.as_ustar() else { return name.to_vec() };
        // star keeps access and change times in the last 24 bytes of the prefix, and says so at the end.
        let is_star = self.0.as_bytes().ends_with(b"tar\0");
        let (prefix, _) = header.prefix.split_at(if is_star { 131 } else { header.prefix.len() });
        match text(prefix) {
            b"" => name.to_vec(),
            prefix => [prefix, b"/", name].concat(),
        }
    }

    /// The target of a link.
    pub fn link(&self) -> Vec<u8> {
        text(&self.0.as_old().linkname).to_vec()
    }

    /// The fields of an old GNU sparse file.
    pub fn gnu(&self) -> Option<&tar::GnuHeader> {
        self.0.as_gnu()
    }
}

/// What stands before the first zero byte.
pub fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number that cannot be negative.
pub fn unsigned(field: &[u8], name: &'static str) -> Result<u64, ArchiveProblem> {
    u64::try_from(number(field, name)?).map_err(|_| ArchiveProblem::Number { field: name })
}

/// Octal digits between spaces and zero bytes, or base 256 if the first bit is set.
fn number(field: &[u8], name: &'static str) -> Result<i64, ArchiveProblem> {
    let wrong = ArchiveProblem::Number { field: name };
    match field.first() {
        Some(first) if first & 0x80 != 0 => base_256(field).ok_or(wrong),
        _ => octal(field).ok_or(wrong),
    }
}

fn octal(field: &[u8]) -> Option<i64> {
    let blank = |byte: &u8| *byte == b' ' || *byte == 0;
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let (_, rest) = field.split_at(start);
    let digits = rest.split(|byte| blank(byte)).next().unwrap_or_default();
    digits.iter().try_fold(0_i64, |sum, digit| match digit {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

/// Two's complement, most significant byte first; the first bit marks the form and the second is the sign.
fn base_256(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    let start = if first & 0x40 != 0 { i64::from(first | 0x80) - 256 } else { i64::from(first & 0x3f) };
    rest.iter().try_fold(start, |sum, byte| sum.checked_mul(256)?.checked_add(i64::from(*byte)))
}

/// A decimal number of a PAX record: digits only, no sign, no space.
pub fn decimal(digits: &[u8]) -> Result<u64, ArchiveProblem> {
    let add = |sum: u64, digit: &u8| match digit {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    };
    if digits.is_empty() {
        return Err(ArchiveProblem::Pax);
    }
    digits.iter().try_fold(0, add).ok_or(ArchiveProblem::Pax)
}

/// Moves a time into the range that file systems keep.
pub fn clamp(time: Timestamp) -> Timestamp {
    match time.seconds {
        seconds if seconds < *TIMES.start() => Timestamp { seconds: *TIMES.start(), nanoseconds: 0 },
        seconds if seconds > *TIMES.end() => Timestamp { seconds: *TIMES.end(), nanoseconds: 0 },
        _ => time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256_and_nothing_else() {
        let cases: &[(&[u8], Option<i64>)] = &[
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"77777777777\0", Some(0o77777777777)),
            (b"777777777777", Some(0o777777777777)),
            (b"0000648\0", None),
            (b"-000644\0", None),
            (b"0x00644\0", None),
            (b"\x80\0\0\0\0\0\0\x01", Some(1)),
            (b"\x80\0\0\0\x02\0\0\0\0\0\0\0", Some(1 << 57)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None), // 2^63
            (b"\xff\0\0\0\0\0\0\0\0\0\0\0", None),   // far below -2^63
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ];
        for (field, expected) in cases {
            assert_eq!(number(field, "test").ok(), *expected, "{}", field.escape_ascii());
        }
    }

    #[test]
    fn a_negative_size_is_refused() {
        assert_eq!(unsigned(&[0xff; 12], "size"), Err(ArchiveProblem::Number { field: "size" }));
    }

    #[test]
    fn a_wrong_checksum_is_refused() {
        let mut header = tar::Header::new_ustar();
        header.set_cksum();
        let mut block = *header.as_bytes();
        assert!(Header::parse(&block).is_ok());
        block[0] ^= 1;
        assert!(matches!(Header::parse(&block), Err(ArchiveProblem::Checksum)));
    }
}
