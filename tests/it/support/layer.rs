//! Layers from a table of entries. The tar writer is our own, because libraries refuse the names and types that hostile
//! layers are made of.

use std::io::Write;

use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

const BLOCK: usize = 512;
/// The largest name that a ustar header holds; a longer one goes into a PAX record.
const NAME_MAX: usize = 100;

/// One tar entry, written as it is told, however wrong.
#[derive(Clone)]
pub struct Entry {
    name: Vec<u8>,
    type_flag: u8,
    link: Vec<u8>,
    content: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    modified: u64,
    device: (u32, u32),
    records: Vec<(String, Vec<u8>)>,
}

/// A regular file, mode 0644, owned by root.
pub fn file(name: &str, content: impl AsRef<[u8]>) -> Entry {
    Entry { content: content.as_ref().to_vec(), ..typed(name, b'0') }
}

/// A directory, mode 0755.
pub fn dir(name: &str) -> Entry {
    typed(name, b'5').mode(0o755)
}

/// A symbolic link to `target`, whatever that is.
pub fn symlink(name: &str, target: &str) -> Entry {
    Entry { link: target.into(), ..typed(name, b'2') }.mode(0o777)
}

/// A hard link to the entry `target`.
pub fn hardlink(name: &str, target: &str) -> Entry {
    Entry { link: target.into(), ..typed(name, b'1') }
}

/// A character device.
pub fn character(name: &str, major: u32, minor: u32) -> Entry {
    Entry { device: (major, minor), ..typed(name, b'3') }
}

/// A block device.
pub fn block(name: &str, major: u32, minor: u32) -> Entry {
    Entry { device: (major, minor), ..typed(name, b'4') }
}

/// A named pipe.
pub fn fifo(name: &str) -> Entry {
    typed(name, b'6')
}

/// An entry of any tar type.
pub fn typed(name: &str, type_flag: u8) -> Entry {
    Entry {
        name: name.into(),
        type_flag,
        link: Vec::new(),
        content: Vec::new(),
        mode: 0o644,
        owner: (0, 0),
        modified: 1_700_000_000,
        device: (0, 0),
        records: Vec::new(),
    }
}

impl Entry {
    /// Sets the permission bits, set-uid and sticky included.
    pub fn mode(self, mode: u32) -> Entry {
        Entry { mode, ..self }
    }

    /// Sets user and group by number.
    pub fn owner(self, user: u32, group: u32) -> Entry {
        Entry { owner: (user, group), ..self }
    }

    /// Adds an extended attribute.
    pub fn xattr(self, name: &str, value: impl AsRef<[u8]>) -> Entry {
        self.record(&format!("SCHILY.xattr.{name}"), value)
    }

    /// Adds a PAX record, `size` or `GNU.sparse.…` for example.
    pub fn record(mut self, key: &str, value: impl AsRef<[u8]>) -> Entry {
        self.records.push((key.to_owned(), value.as_ref().to_vec()));
        self
    }

    fn write_to(&self, out: &mut Vec<u8>) {
        let mut records = self.records.clone();
        for (key, value) in [("path", &self.name), ("linkpath", &self.link)] {
            if value.len() > NAME_MAX {
                records.push((key.to_owned(), value.clone()));
            }
        }
        if !records.is_empty() {
            let body: Vec<u8> = records.iter().flat_map(|(key, value)| pax_record(key, value)).collect();
            out.extend(Entry { content: body.clone(), ..typed("pax", b'x') }.header());
            extend_to_block(out, &body);
        }
        out.extend(self.header());
        extend_to_block(out, &self.content);
    }

    fn header(&self) -> [u8; BLOCK] {
        let mut header = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.name[..self.name.len().min(NAME_MAX)]);
        put(100, format!("{:07o}", self.mode).as_bytes());
        put(108, format!("{:07o}", self.owner.0).as_bytes());
        put(116, format!("{:07o}", self.owner.1).as_bytes());
        put(124, format!("{:011o}", self.content.len()).as_bytes());
        put(136, format!("{:011o}", self.modified).as_bytes());
        put(148, b"        ");
        put(156, &[self.type_flag]);
        put(157, &self.link[..self.link.len().min(NAME_MAX)]);
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}", self.device.0).as_bytes());
        put(337, format!("{:07o}", self.device.1).as_bytes());
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        header
    }
}

/// "LENGTH KEY=VALUE\n", where LENGTH counts itself.
fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + " =\n".len();
    let mut length = rest;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

fn extend_to_block(out: &mut Vec<u8>, content: &[u8]) {
    out.extend(content);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

/// A whole tar stream with its two closing blocks.
pub fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        entry.write_to(&mut out);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

/// How a layer lies in the image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// A layer as it lies in an image: the blob, and the digest that the image's config claims for its tar stream.
#[derive(Clone)]
pub struct Layer {
    pub blob: Vec<u8>,
    pub diff_id: String,
    pub compression: Compression,
}

impl Layer {
    /// A gzip layer of these entries.
    pub fn of(entries: &[Entry]) -> Layer {
        Layer::from_tar(&tar(entries), Compression::Gzip)
    }

    /// A layer whose tar stream is these bytes, well formed or not.
    pub fn from_tar(tar: &[u8], compression: Compression) -> Layer {
        Layer { blob: compress(tar, compression), diff_id: sha256(tar), compression }
    }
}

/// Compresses with one frame.
pub fn compress(bytes: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => bytes.to_vec(),
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => zstd::encode_all(bytes, 1).unwrap(),
    }
}

/// `sha256:` and 64 hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
