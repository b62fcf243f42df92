//! Headers: ustar, and before it a PAX header for what that cannot say.
//!
//! Source: POSIX.1-2017 `pax`, "ustar Interchange Format" and "pax Extended Header".
use crate::layer::{Device, Timestamp, Xattr};

const BLOCK: usize = 512;
/// What a name or a link's target has room for.
const NAME_BYTES: usize = 100;
/// Eleven octal digits: sizes and times.
const LARGEST_LONG: u64 = (1 << 33) - 1;
/// Seven: owners.
const LARGEST_SHORT: u32 = (1 << 21) - 1;

pub const FILE: u8 = b'0';
pub const HARD_LINK: u8 = b'1';
pub const SYMLINK: u8 = b'2';
pub const CHAR_DEVICE: u8 = b'3';
pub const BLOCK_DEVICE: u8 = b'4';
pub const DIRECTORY: u8 = b'5';
pub const FIFO: u8 = b'6';
const PAX: u8 = b'x';

/// What a header says.
pub struct Header<'a> {
    pub kind: u8,
    pub name: &'a [u8],
    /// Target of a link, or nothing.
    pub link: &'a [u8],
    pub size: u64,
    pub mode: u32,
    pub owner: (u32, u32),
    pub modified: Timestamp,
    pub device: Device,
    pub xattrs: &'a [Xattr],
}

impl<'a> Header<'a> {
    /// Of a file that only its name matters of.
    pub fn mark(name: &'a [u8]) -> Header<'a> {
        Header {
            kind: FILE,
            name,
            link: b"",
            size: 0,
            mode: 0o600,
            owner: (0, 0),
            modified: Timestamp::default(),
            device: Device { major: 0, minor: 0 },
            xattrs: &[],
        }
    }

    /// The PAX records: `LENGTH KEY=VALUE\n`.
    pub fn records(&self) -> Vec<u8> {
        let mut records = Vec::new();
        if self.name.len() > NAME_BYTES {
            record(&mut records, b"path", self.name);
        }
        if self.link.len() > NAME_BYTES {
            record(&mut records, b"linkpath", self.link);
        }
        if self.size > LARGEST_LONG {
            record(&mut records, b"size", self.size.to_string().as_bytes());
        }
        for (key, number) in [(b"uid", self.owner.0), (b"gid", self.owner.1)] {
            if number > LARGEST_SHORT {
                record(&mut records, key, number.to_string().as_bytes());
            }
        }
        let seconds = u64::try_from(self.modified.seconds);
        if self.modified.nanoseconds != 0 || seconds.is_ok_and(|it| it > LARGEST_LONG) || seconds.is_err() {
            record(&mut records, b"mtime", time(self.modified).as_bytes());
        }
        for xattr in self.xattrs {
            record(&mut records, &[b"SCHILY.xattr.", &*xattr.name].concat(), &xattr.value);
        }
        records
    }

    /// All blocks before the contents.
    pub fn encode(&self, records: &[u8]) -> Vec<u8> {
        let mut blocks = Vec::with_capacity(BLOCK);
        if !records.is_empty() {
            let header =
                Header { kind: PAX, size: records.len() as u64, mode: 0o644, ..Header::mark(b"pax") };
            blocks.extend_from_slice(header.ustar().as_bytes());
            blocks.extend_from_slice(records);
            blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
        }
        blocks.extend_from_slice(self.ustar().as_bytes());
        blocks
    }

    /// What does not fit is cut or in base 256: readers take it from the PAX header.
    fn ustar(&self) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        let old = header.as_old_mut();
        old.linkflag = [self.kind];
        cut(&mut old.name, self.name);
        cut(&mut old.linkname, self.link);
        if let Some(header) = header.as_ustar_mut() {
            header.set_device_major(self.device.major);
            header.set_device_minor(self.device.minor);
        }
        header.set_size(self.size);
        header.set_mode(self.mode);
        header.set_uid(self.owner.0.into());
        header.set_gid(self.owner.1.into());
        header.set_mtime(u64::try_from(self.modified.seconds).unwrap_or(0));
        header.set_cksum();
        header
    }
}

fn cut(field: &mut [u8; NAME_BYTES], text: &[u8]) {
    for (to, from) in field.iter_mut().zip(text) {
        *to = *from;
    }
}

/// The length counts its own digits.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    for part in [key, b"=", value, b"\n"] {
        records.extend_from_slice(part);
    }
}

/// 13 seconds before 1970 and half a second forward is `-12.5`.
fn time(time: Timestamp) -> String {
    let (seconds, nanoseconds) = (time.seconds, time.nanoseconds);
    match nanoseconds {
        0 => seconds.to_string(),
        _ if seconds >= 0 => format!("{seconds}.{nanoseconds:09}"),
        _ => format!("-{}.{:09}", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_they_are_read() {
        let cases = [
            (0, 0, "0"),
            (1, 5, "1.000000005"),
            (-1, 0, "-1"),
            (-13, 500_000_000, "-12.500000000"),
            (-1, 250_000_000, "-0.750000000"),
        ];
        for (seconds, nanoseconds, expected) in cases {
            assert_eq!(time(Timestamp { seconds, nanoseconds }), expected);
        }
    }

    #[test]
    fn a_records_length_counts_its_own_digits() {
        for (value, expected) in
            [(4, "9 k="), (5, "11 k="), (91, "97 k="), (92, "98 k="), (93, "99 k="), (94, "101 k=")]
        {
            let mut records = Vec::new();
            record(&mut records, b"k", &vec![b'v'; value]);
            assert!(records.starts_with(expected.as_bytes()), "{}", records.escape_ascii());
            assert_eq!(records.len().to_string(), expected.trim_end_matches(" k="));
        }
    }

    #[test]
    fn what_fits_has_no_records() {
        let name = [b'n'; 100];
        let fits = Header { size: LARGEST_LONG, owner: (LARGEST_SHORT, 0), ..Header::mark(&name) };
        assert_eq!(fits.records(), b"");
        let long = Header { size: LARGEST_LONG + 1, owner: (0, LARGEST_SHORT + 1), ..Header::mark(b"n") };
        assert_eq!(long.records(), b"19 size=8589934592\n15 gid=2097152\n");
    }
}
