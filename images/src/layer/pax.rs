//! PAX records: `LENGTH KEY=VALUE\n`, of which the next file takes some over.
//!
//! Source: POSIX.1-2017 `pax`, "pax Extended Header"; GNU tar manual, "Storing Sparse Files".
use super::error::ArchiveProblem;
use super::header::{clamp, decimal};
use super::sparse::Piece;
use super::{Timestamp, Xattr};

/// Extended attributes, as star, GNU tar, Docker and all others write them.
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// What an extension header says of the next entry; `None` leaves the header's own value.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PaxRecords {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub modified: Option<Timestamp>,
    pub xattrs: Vec<Xattr>,
    pub sparse: PaxSparse,
}

/// The `GNU.sparse.*` records of all three versions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PaxSparse {
    pub major: Option<u64>,
    pub minor: Option<u64>,
    /// Length of the whole file: `size` in 0.0 and 0.1, `realsize` in 1.0.
    pub real_size: Option<u64>,
    /// The file's name in 0.1 and 1.0, where `path` is a made-up one.
    pub name: Option<Vec<u8>>,
    /// The map of 0.0 and 0.1.
    pub pieces: Option<Vec<Piece>>,
    /// 0.0 gives offset and length in records of their own.
    open_offset: Option<u64>,
}

impl PaxRecords {
    /// Takes a block of records apart. Any byte that does not fit refuses it: readers that
    /// disagree about a record's end would see different archives.
    pub fn parse(mut block: &[u8]) -> Result<PaxRecords, ArchiveProblem> {
        let mut records = PaxRecords::default();
        while !block.is_empty() {
            let (key, value, rest) = split_record(block).ok_or(ArchiveProblem::Pax)?;
            records.take(key, value)?;
            block = rest;
        }
        if records.sparse.open_offset.is_some() {
            return Err(ArchiveProblem::Pax);
        }
        // The last one of a name counts, as for every key.
        records.xattrs.reverse();
        records.xattrs.sort_by(|one, other| one.name.cmp(&other.name));
        records.xattrs.dedup_by(|later, first| later.name == first.name);
        Ok(records)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), ArchiveProblem> {
        if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
            self.xattrs.push(Xattr { name: name.into(), value: value.into() });
            return Ok(());
        }
        if value.is_empty() {
            return Ok(()); // "Delete the value": the header's own stays.
        }
        match key {
            b"path" => self.path = Some(without_zero(value)?),
            b"linkpath" => self.link = Some(without_zero(value)?),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(decimal(value)?),
            b"gid" => self.gid = Some(decimal(value)?),
            b"mtime" => self.modified = Some(time(value)?),
            b"GNU.sparse.major" => self.sparse.major = Some(decimal(value)?),
            b"GNU.sparse.minor" => self.sparse.minor = Some(decimal(value)?),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.real_size = Some(decimal(value)?),
            b"GNU.sparse.name" => self.sparse.name = Some(without_zero(value)?),
            b"GNU.sparse.map" => self.sparse.pieces = Some(map(value)?),
            b"GNU.sparse.offset" if self.sparse.open_offset.is_some() => return Err(ArchiveProblem::Pax),
            b"GNU.sparse.offset" => self.sparse.open_offset = Some(decimal(value)?),
            b"GNU.sparse.numbytes" => {
                let offset = self.sparse.open_offset.take().ok_or(ArchiveProblem::Pax)?;
                let piece = Piece { offset, length: decimal(value)? };
                self.sparse.pieces.get_or_insert_default().push(piece);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Key, value, and what follows the record.
fn split_record(block: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let digits = block.iter().position(|byte| *byte == b' ')?;
    let (length, _) = block.split_at(digits);
    let length = usize::try_from(decimal(length).ok()?).ok()?;
    let (record, rest) = block.split_at_checked(length)?;
    let record = record.get(digits + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let (key, value) = record.split_at(equals);
    let key_fits = !key.is_empty() && !key.contains(&0);
    key_fits.then_some((key, value.get(1..)?, rest))
}

fn without_zero(value: &[u8]) -> Result<Vec<u8>, ArchiveProblem> {
    if value.contains(&0) {
        return Err(ArchiveProblem::Pax);
    }
    Ok(value.to_vec())
}

/// `-12.5` is 13 seconds before 1970 and half a second forward.
fn time(value: &[u8]) -> Result<Timestamp, ArchiveProblem> {
    let (is_negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let mut parts = value.splitn(2, |byte| *byte == b'.');
    let seconds = decimal(parts.next().unwrap_or_default())?;
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX); // Clamped below.
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(ArchiveProblem::Pax);
    }
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    Ok(clamp(match (is_negative, nanoseconds) {
        (false, nanoseconds) => Timestamp { seconds, nanoseconds },
        (true, 0) => Timestamp { seconds: -seconds, nanoseconds: 0 },
        (true, nanoseconds) => Timestamp { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    }))
}

/// `offset,length,offset,length`
fn map(value: &[u8]) -> Result<Vec<Piece>, ArchiveProblem> {
    let mut numbers = value.split(|byte| *byte == b',').map(decimal);
    let mut pieces = Vec::new();
    while let Some(offset) = numbers.next() {
        let length = numbers.next().ok_or(ArchiveProblem::Pax)??;
        pieces.push(Piece { offset: offset?, length });
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_taken_apart_by_lengths() {
        let block = b"17 path=a=b\nc\xff d\n12 size=123\n8 size=\n30 SCHILY.xattr.user.x=a\0b\n\nc\n";
        let records = PaxRecords::parse(block).unwrap();
        assert_eq!(records.path.unwrap(), b"a=b\nc\xff d");
        assert_eq!(records.size, Some(123));
        assert_eq!(*records.xattrs[0].value, *b"a\0b\n\nc");
    }

    #[test]
    fn the_last_record_of_a_key_counts() {
        let block = b"9 size=1\n9 size=2\n25 SCHILY.xattr.user.x=1\n25 SCHILY.xattr.user.x=2\n";
        let records = PaxRecords::parse(block).unwrap();
        assert_eq!(records.size, Some(2));
        assert_eq!(records.xattrs.iter().map(|xattr| &*xattr.value).collect::<Vec<_>>(), [b"2"]);
    }

    #[test]
    fn a_malformed_block_is_refused() {
        let cases: &[&[u8]] = &[
            b"6 a=b",
            b"7 a=b\n",
            b"5 a=b\n",
            b"-6 a=b\n",
            b" 6 a=b\n",
            b"6\na=b\n",
            b"6 aab\n",
            b"5 =b\n",
            b"99999999999999999999 a=b\n",
            b"6 a=b\n\0\0",
            b"9 path=\0\n",
            b"11 size=-1\n",
            b"11 size=0x\n",
            b"13 mtime=1.x\n",
            b"13 mtime=1e3\n",
            b"23 GNU.sparse.offset=1\n",
            b"25 GNU.sparse.numbytes=1\n",
            b"24 GNU.sparse.map=1,2,3\n",
        ];
        for block in cases {
            assert_eq!(PaxRecords::parse(block), Err(ArchiveProblem::Pax), "{}", block.escape_ascii());
        }
    }

    #[test]
    fn times_keep_nanoseconds_and_are_clamped() {
        let cases: &[(&[u8], i64, u32)] = &[
            (b"1350244992.023960108", 1_350_244_992, 23_960_108),
            (b"1", 1, 0),
            (b"1.", 1, 0),
            (b"1.5", 1, 500_000_000),
            (b"1.1234567899", 1, 123_456_789),
            (b"-1", -1, 0),
            (b"-12.5", -13, 500_000_000),
            (b"99999999999999", (1 << 34) - 1, 0),
            (b"18446744073709551615", (1 << 34) - 1, 0),
            (b"-99999999999999.5", -(1 << 31), 0),
        ];
        for (value, seconds, nanoseconds) in cases {
            let expected = Timestamp { seconds: *seconds, nanoseconds: *nanoseconds };
            assert_eq!(time(value), Ok(expected), "{}", value.escape_ascii());
        }
    }
}
