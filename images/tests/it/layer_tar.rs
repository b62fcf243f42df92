//! Makes tar layers, honest and hostile ones, and indexes them.
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use images::digest::{Algorithm, Hasher};
use images::layer::{Budget, IndexLayerError, LayerIndex, Parts, SplitReader, index_layer};
use images::limits::Limits;

/// One entry of a layer, as raw as its header.
#[derive(Debug, Clone)]
pub struct Entry {
    pub name: Vec<u8>,
    pub kind: u8,
    pub link: Vec<u8>,
    pub body: Vec<u8>,
    /// What the size field says, if that is not the body's length.
    pub size: Option<u64>,
    pub mode: u32,
    pub owner: (u64, u64),
    pub modified: u64,
    pub device: (u32, u32),
    pub pax: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    pub fn new(kind: u8, name: impl AsRef<[u8]>) -> Entry {
        Entry {
            name: name.as_ref().to_vec(),
            kind,
            link: Vec::new(),
            body: Vec::new(),
            size: None,
            mode: if kind == b'5' { 0o755 } else { 0o644 },
            owner: (0, 0),
            modified: 1_600_000_000,
            device: (0, 0),
            pax: Vec::new(),
        }
    }

    pub fn mode(mut self, mode: u32) -> Entry {
        self.mode = mode;
        self
    }

    pub fn owner(mut self, uid: u64, gid: u64) -> Entry {
        self.owner = (uid, gid);
        self
    }

    pub fn modified(mut self, seconds: u64) -> Entry {
        self.modified = seconds;
        self
    }

    pub fn size(mut self, size: u64) -> Entry {
        self.size = Some(size);
        self
    }

    pub fn body(mut self, body: impl AsRef<[u8]>) -> Entry {
        self.body = body.as_ref().to_vec();
        self
    }

    pub fn pax(mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Entry {
        self.pax.push((key.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }

    pub fn xattr(self, name: &str, value: impl AsRef<[u8]>) -> Entry {
        self.pax(format!("SCHILY.xattr.{name}"), value)
    }

    /// Header and body in whole blocks, with a PAX header before it if it needs one.
    pub fn bytes(&self) -> Vec<u8> {
        let mut records = self.pax.clone();
        let has = |records: &[(Vec<u8>, Vec<u8>)], key: &[u8]| records.iter().any(|record| record.0 == key);
        if self.name.len() > 100 && !has(&records, b"path") {
            records.push((b"path".to_vec(), self.name.clone()));
        }
        if self.link.len() > 100 && !has(&records, b"linkpath") {
            records.push((b"linkpath".to_vec(), self.link.clone()));
        }
        let mut bytes = Vec::new();
        if !records.is_empty() {
            let body: Vec<u8> = records.iter().flat_map(|(key, value)| pax_record(key, value)).collect();
            bytes.extend(Entry::new(b'x', "pax").body(body).bytes());
        }
        bytes.extend_from_slice(self.header().as_bytes());
        bytes.extend_from_slice(&self.body);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    fn header(&self) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        let old = header.as_old_mut();
        let fit = |field: &mut [u8; 100], text: &[u8]| {
            let length = text.len().min(100);
            field[..length].copy_from_slice(&text[..length]);
        };
        fit(&mut old.name, &self.name);
        fit(&mut old.linkname, &self.link);
        old.linkflag[0] = self.kind;
        header.set_mode(self.mode);
        header.set_uid(self.owner.0);
        header.set_gid(self.owner.1);
        header.set_mtime(self.modified);
        header.set_size(self.size.unwrap_or(self.body.len() as u64));
        header.set_device_major(self.device.0).unwrap();
        header.set_device_minor(self.device.1).unwrap();
        header.set_cksum();
        header
    }
}

/// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
pub fn pax_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [format!("{length} ").as_bytes(), key, b"=", value, b"\n"].concat()
}

pub fn dir(name: impl AsRef<[u8]>) -> Entry {
    Entry::new(b'5', name)
}

pub fn file(name: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Entry {
    Entry::new(b'0', name).body(body)
}

pub fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Entry {
    Entry { link: target.as_ref().to_vec(), mode: 0o777, ..Entry::new(b'2', name) }
}

pub fn hardlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Entry {
    Entry { link: target.as_ref().to_vec(), ..Entry::new(b'1', name) }
}

pub fn char_device(name: &str, major: u32, minor: u32) -> Entry {
    Entry { device: (major, minor), ..Entry::new(b'3', name) }
}

pub fn block_device(name: &str, major: u32, minor: u32) -> Entry {
    Entry { device: (major, minor), ..Entry::new(b'4', name) }
}

pub fn fifo(name: &str) -> Entry {
    Entry::new(b'6', name)
}

/// A GNU long name (`L`) or long link (`K`) header.
pub fn gnu_long(kind: u8, name: &[u8]) -> Entry {
    Entry::new(kind, "././@LongLink").body([name, b"\0"].concat())
}

/// The archive with its end.
pub fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut bytes: Vec<u8> = entries.iter().flat_map(Entry::bytes).collect();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// An indexed layer with its files, which are gone with the directory.
pub struct Indexed {
    pub data: PathBuf,
    pub index_file: PathBuf,
    _directory: tempfile::TempDir,
}

impl Indexed {
    pub fn open(&self) -> File {
        File::open(&self.data).unwrap()
    }

    pub fn index(&self) -> LayerIndex {
        LayerIndex::open(File::open(&self.index_file).unwrap()).unwrap()
    }
}

pub fn index(tar: &[u8]) -> Result<Indexed, IndexLayerError> {
    index_with(tar, &Limits::default())
}

pub fn index_with(tar: &[u8], limits: &Limits) -> Result<Indexed, IndexLayerError> {
    index_stream(&mut &*tar, limits)
}

pub fn index_stream(tar: &mut dyn std::io::Read, limits: &Limits) -> Result<Indexed, IndexLayerError> {
    let directory = tempfile::tempdir().unwrap();
    let [data, index_file, split] = ["data", "index", "split"].map(|name| directory.path().join(name));
    let [file, index, split] = [&data, &index_file, &split]
        .map(|path| File::options().read(true).write(true).create_new(true).open(path).unwrap());
    let parts = Parts { data: &file, index: &index, split: Some(&split), disk: None };
    let mut tar = Hashing { stream: tar, hasher: Hasher::new(Algorithm::Sha256), bytes: 0 };
    index_layer(&mut tar, &parts, &Budget::new(limits), &AtomicBool::new(false))?;
    let indexed = Indexed { data, index_file, _directory: directory };
    assert_eq!(file.metadata().unwrap().len(), u64::from(indexed.index().data_blocks()) * 4096);
    // Whatever it was, it is written again as it came.
    let again = SplitReader::new(split, file).unwrap();
    assert_eq!(again.tar_bytes(), tar.bytes);
    let mut again = Hashing { stream: &mut { again }, hasher: Hasher::new(Algorithm::Sha256), bytes: 0 };
    io::copy(&mut again, &mut io::sink()).unwrap();
    assert_eq!(again.hasher.finish(), tar.hasher.finish());
    Ok(indexed)
}

struct Hashing<'a> {
    stream: &'a mut dyn Read,
    hasher: Hasher,
    bytes: u64,
}

impl Read for Hashing<'_> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(space)?;
        self.hasher.update(&space[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}
