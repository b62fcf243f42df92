//! The index on disk, which is the only form it has: what is read of it at a time is one record.
//!
//! ```text
//! head      256 bytes: magic, version, counts, digest of these and of all that follows
//! records   a node each, as they came in the layer
//! names     in tree order: parents before children, children of one directory in byte order
//! ```
//!
//! Every record is its length and what postcard makes of it. A head that does not fit, or another
//! digest, refuses the index, and the store has the layer indexed anew.
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Name, Node};
use crate::digest::{Algorithm, Hasher};

const MAGIC: &[u8; 12] = b"dw-layer-idx";
/// Goes up whenever the format or the meaning of an index changes.
const VERSION: u32 = 2;
const HEAD_BYTES: usize = 256;
const LENGTH_BYTES: usize = size_of::<u32>();
/// No record is longer: 64 attributes of 64 KiB, or the chunks of one sparse file.
const RECORD_BYTES: usize = 8 << 20;
/// Written and read at once; an image of many layers is read through as many windows.
const WINDOW_BYTES: usize = 16 << 10;
/// For a single record.
const SMALL_WINDOW_BYTES: usize = 256;

/// Why a stored index could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadIndexError {
    /// The file could not be read.
    #[error("read the layer's index")]
    Read(#[from] io::Error),
    /// Written by another version: the layer has to be indexed again.
    #[error("the layer's index has version {found}, this program reads {VERSION}")]
    Version {
        /// The version in the file.
        found: u32,
    },
    /// Not an index, or damaged: the layer has to be indexed again.
    #[error("the layer's index is damaged")]
    Damaged,
}

/// What an index says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub entries: u64,
    pub names: u64,
    pub lower_links: u64,
    pub memory_bytes: u64,
    pub unpacked_bytes: u64,
    pub dropped_xattrs: u64,
    pub data_blocks: u32,
    /// The root directory's node, if the layer describes it.
    pub root: Option<u64>,
    pub root_below: super::Below,
    /// What the writer adds.
    pub place: Place,
}

/// Where things are in the file, and the digest of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    names_at: u64,
    end: u64,
    digest: String,
}

impl Head {
    /// With the digest of all that follows the head, and of itself.
    fn signed(mut self, mut hasher: Hasher) -> io::Result<Head> {
        self.place.digest.clear();
        hasher.update(&encode(&self)?);
        self.place.digest = hasher.finish().hex().to_owned();
        Ok(self)
    }
}

/// What a layer changes in the tree below it, without the contents of its files: an open index.
#[derive(Debug)]
pub struct LayerIndex {
    file: File,
    pub(crate) head: Head,
}

impl LayerIndex {
    /// Opens an index and verifies it; it is read on demand.
    ///
    /// # Errors
    ///
    /// See [`ReadIndexError`].
    pub fn open(file: File) -> Result<LayerIndex, ReadIndexError> {
        let mut bytes = [0; HEAD_BYTES];
        file.read_exact_at(&mut bytes, 0).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ReadIndexError::Damaged,
            _ => ReadIndexError::Read(error),
        })?;
        let rest = bytes.strip_prefix(MAGIC).ok_or(ReadIndexError::Damaged)?;
        let (version, rest) = rest.split_first_chunk().ok_or(ReadIndexError::Damaged)?;
        let found = u32::from_le_bytes(*version);
        if found != VERSION {
            return Err(ReadIndexError::Version { found });
        }
        let head: Head = postcard::from_bytes(rest).map_err(|_| ReadIndexError::Damaged)?;
        let hasher = hash(&file, head.place.end)?.ok_or(ReadIndexError::Damaged)?;
        if head.clone().signed(hasher)? != head {
            return Err(ReadIndexError::Damaged);
        }
        Ok(LayerIndex { file, head })
    }

    /// Length of the data file in blocks of [`BLOCK_BYTES`](super::BLOCK_BYTES); at least one.
    pub fn data_blocks(&self) -> u32 {
        self.head.data_blocks
    }

    /// Bytes of all regular files, holes included: what counts against
    /// [`Limits::unpacked_bytes`](crate::limits::Limits).
    pub fn unpacked_bytes(&self) -> u64 {
        self.head.unpacked_bytes
    }

    /// What counts against [`Limits::entries`](crate::limits::Limits).
    pub fn entries(&self) -> u64 {
        self.head.entries
    }

    /// How many extended attributes were left out because no image may set them (`trusted.*` and so on).
    pub fn dropped_xattrs(&self) -> u64 {
        self.head.dropped_xattrs
    }

    /// All names, in tree order.
    pub(crate) fn names(&self) -> impl Iterator<Item = Result<Name, ReadIndexError>> {
        let mut records = Records::of(&self.file);
        let mut at = self.head.place.names_at;
        (0..self.head.names).map(move |_| {
            let (name, end) = records.read(at)?;
            at = end;
            Ok(name)
        })
    }

    /// Reads nodes by where they are; those that lie side by side come cheaply.
    pub(crate) fn nodes(&self) -> Nodes<'_> {
        Nodes(Records::of(&self.file))
    }
}

/// The nodes of one index.
#[derive(Debug)]
pub(crate) struct Nodes<'a>(Records<'a>);

impl Nodes<'_> {
    pub fn read(&mut self, at: u64) -> Result<Node, ReadIndexError> {
        self.0.read(at).map(|(node, _)| node)
    }
}

/// Records of a file, read through a window.
#[derive(Debug)]
struct Records<'a> {
    file: &'a File,
    window_bytes: usize,
    window_at: u64,
    window: Vec<u8>,
}

impl<'a> Records<'a> {
    fn of(file: &'a File) -> Records<'a> {
        Records { file, window_bytes: WINDOW_BYTES, window_at: 0, window: Vec::new() }
    }

    /// The record at a place, and where the next one is.
    fn read<T: DeserializeOwned>(&mut self, at: u64) -> Result<(T, u64), ReadIndexError> {
        let length = self.take(at, LENGTH_BYTES)?.first_chunk().ok_or(ReadIndexError::Damaged)?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > RECORD_BYTES {
            return Err(ReadIndexError::Damaged);
        }
        let body = at.saturating_add(LENGTH_BYTES as u64);
        let record = postcard::from_bytes(self.take(body, length)?).map_err(|_| ReadIndexError::Damaged)?;
        Ok((record, body.saturating_add(length as u64)))
    }

    fn take(&mut self, at: u64, length: usize) -> Result<&[u8], ReadIndexError> {
        let end = at.saturating_add(length as u64);
        if at < self.window_at || end > self.window_at + self.window.len() as u64 {
            self.window.resize(length.max(self.window_bytes), 0);
            self.window_at = at;
            let filled = read_at_most(self.file, &mut self.window, at)?;
            self.window.truncate(filled);
        }
        let start = usize::try_from(at - self.window_at).unwrap_or(usize::MAX);
        self.window.get(start..start.saturating_add(length)).ok_or(ReadIndexError::Damaged)
    }
}

/// An index that is being written.
pub(super) struct IndexWriter<'a> {
    file: &'a File,
    hasher: Hasher,
    /// Where the buffer's first byte belongs.
    start: u64,
    buffer: Vec<u8>,
    names_at: Option<u64>,
}

impl<'a> IndexWriter<'a> {
    pub fn new(file: &'a File) -> IndexWriter<'a> {
        let hasher = Hasher::new(Algorithm::Sha256);
        IndexWriter { file, hasher, start: HEAD_BYTES as u64, buffer: Vec::new(), names_at: None }
    }

    /// Appends a node and tells where it is.
    pub fn node(&mut self, node: &Node) -> io::Result<u64> {
        self.append(node)
    }

    /// Appends a name; no node comes after the first one.
    pub fn name(&mut self, name: &Name) -> io::Result<()> {
        let at = self.append(name)?;
        self.names_at.get_or_insert(at);
        Ok(())
    }

    /// A node that was written before.
    pub fn read(&mut self, at: u64) -> Result<Node, ReadIndexError> {
        if at >= self.start {
            self.flush()?;
        }
        let mut records = Records { window_bytes: SMALL_WINDOW_BYTES, ..Records::of(self.file) };
        records.read(at).map(|(node, _)| node)
    }

    /// Writes the rest, and the head last.
    pub fn finish(&mut self, head: Head) -> io::Result<()> {
        self.flush()?;
        let (names_at, end) = (self.names_at.unwrap_or(self.start), self.start);
        let hasher = std::mem::replace(&mut self.hasher, Hasher::new(Algorithm::Sha256));
        let place = Place { names_at, end, ..Place::default() };
        let head = Head { place, ..head }.signed(hasher)?;
        let mut bytes = [&MAGIC[..], &VERSION.to_le_bytes(), &encode(&head)?].concat();
        bytes.resize(bytes.len().max(HEAD_BYTES), 0);
        self.file.write_all_at(&bytes, 0)
    }

    /// Bytes written and to be written.
    pub fn bytes(&self) -> u64 {
        self.start + self.buffer.len() as u64
    }

    fn append(&mut self, record: &impl Serialize) -> io::Result<u64> {
        let at = self.bytes();
        let record = encode(record)?;
        let length = u32::try_from(record.len()).map_err(io::Error::other)?;
        self.buffer.extend_from_slice(&length.to_le_bytes());
        self.buffer.extend_from_slice(&record);
        if self.buffer.len() >= WINDOW_BYTES {
            self.flush()?;
        }
        Ok(at)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.start)?;
        self.hasher.update(&self.buffer);
        self.start += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

fn encode(record: &impl Serialize) -> io::Result<Vec<u8>> {
    postcard::to_allocvec(record).map_err(io::Error::other)
}

/// Hashes what follows the head; `None` if the file is not as long as it says.
fn hash(file: &File, end: u64) -> io::Result<Option<Hasher>> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut window = vec![0; WINDOW_BYTES];
    let mut at = HEAD_BYTES as u64;
    loop {
        let filled = read_at_most(file, &mut window, at)?;
        if filled == 0 {
            return Ok((at == end).then_some(hasher));
        }
        hasher.update(window.get(..filled).unwrap_or_default());
        at += filled as u64;
    }
}

/// Fills the space as far as the file goes.
fn read_at_most(file: &File, space: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = space.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
