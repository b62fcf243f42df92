//! The index on disk: little-endian records behind a versioned head, read in one go.
//!
//! ```text
//! magic "dw-layer" | version u32 | nodes u32 | names u32 | data blocks u32 | unpacked u64 | dropped u64 | body bytes u64
//! body: every node, then every name
//! ```
//!
//! What is read is checked as if a stranger had written it: counts and lengths against what is left
//! of the body, node numbers against the nodes. Another version is refused, and the layer indexed anew.
use std::io::{self, Read, Write};

use super::{Below, Content, Device, FileBlocks, FileData, LayerIndex, Metadata, Name, Node, Target};
use super::{Timestamp, Xattr};

const MAGIC: &[u8; 8] = b"dw-layer";
/// Goes up whenever the format or the meaning of an index changes.
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 48;
/// The smallest node and name: counts above `body / this` are lies and are not allocated for.
const SMALLEST_RECORD: usize = 2;
/// A hole among the chunks.
const HOLE: u32 = u32::MAX;

/// Why a stored index could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadIndexError {
    /// The file could not be read.
    #[error("read the layer's index")]
    Read(#[from] io::Error),
    /// Written by another version: index the layer again.
    #[error("the layer's index has version {found}, this program reads {VERSION}")]
    Version {
        /// The version in the file.
        found: u32,
    },
    /// Not an index, or damaged: index the layer again.
    #[error("the layer's index is damaged at byte {offset} of its body")]
    Damaged {
        /// Where it stopped making sense.
        offset: usize,
    },
}

impl LayerIndex {
    /// Writes the index; `out` needs no buffer of its own.
    ///
    /// # Errors
    ///
    /// Those of `out`; [`io::ErrorKind::InvalidInput`] for counts that do not fit, which limits exclude.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        let mut body = Encoder::default();
        for node in &self.nodes {
            body.node(node)?;
        }
        for name in &self.names {
            body.name(name)?;
        }
        let mut head = Encoder::default();
        head.0.extend_from_slice(MAGIC);
        head.u32(VERSION);
        head.length(self.nodes.len())?;
        head.length(self.names.len())?;
        head.u32(self.data_blocks);
        head.u64(self.unpacked_bytes);
        head.u64(self.dropped_xattrs);
        head.u64(body.0.len() as u64);
        out.write_all(&head.0)?;
        out.write_all(&body.0)
    }

    /// Reads what [`LayerIndex::write_to`] has written.
    ///
    /// # Errors
    ///
    /// See [`ReadIndexError`]; nothing in the file can make it panic or allocate beyond the file's own size.
    pub fn read_from(input: &mut impl Read) -> Result<LayerIndex, ReadIndexError> {
        let mut head = [0; HEAD_BYTES];
        input.read_exact(&mut head)?;
        let mut head = Decoder { rest: &head, length: HEAD_BYTES };
        if head.take(MAGIC.len())? != MAGIC {
            return Err(head.damaged());
        }
        let found = head.u32()?;
        if found != VERSION {
            return Err(ReadIndexError::Version { found });
        }
        let (nodes, names) = (head.u32()?, head.u32()?);
        let (data_blocks, unpacked_bytes, dropped_xattrs) = (head.u32()?, head.u64()?, head.u64()?);
        let length = head.u64()?;
        let mut body = Vec::new();
        input.take(length).read_to_end(&mut body)?;
        let mut body = Decoder { length: body.len(), rest: &body };
        if body.length as u64 != length {
            return Err(body.damaged());
        }
        let nodes = body.many(nodes, Decoder::node)?;
        let names = body.many(names, |body| body.name(nodes.len()))?;
        Ok(LayerIndex { nodes, names, data_blocks, unpacked_bytes, dropped_xattrs })
    }
}

mod tag {
    pub const DIRECTORY: u8 = 0;
    pub const OPAQUE_DIRECTORY: u8 = 1;
    pub const FILE: u8 = 2;
    pub const FILE_IN_CHUNKS: u8 = 3;
    pub const SYMLINK: u8 = 4;
    pub const CHAR_DEVICE: u8 = 5;
    pub const BLOCK_DEVICE: u8 = 6;
    pub const FIFO: u8 = 7;

    pub const NODE: u8 = 0;
    pub const LOWER: u8 = 1;
    pub const WHITEOUT: u8 = 2;

    pub const WITHOUT: u8 = 0;
    pub const WITH: u8 = 1;
}

#[derive(Default)]
struct Encoder(Vec<u8>);

impl Encoder {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn length(&mut self, length: usize) -> io::Result<()> {
        self.u32(u32::try_from(length).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?);
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.length(bytes.len())?;
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn node(&mut self, node: &Node) -> io::Result<()> {
        match &node.content {
            Content::Directory { below: Below::Kept } => self.u8(tag::DIRECTORY),
            Content::Directory { below: Below::Hidden } => self.u8(tag::OPAQUE_DIRECTORY),
            Content::File(file) => self.file(file)?,
            Content::Symlink(target) => {
                self.u8(tag::SYMLINK);
                self.bytes(target)?;
            }
            Content::CharDevice(device) => self.device(tag::CHAR_DEVICE, *device),
            Content::BlockDevice(device) => self.device(tag::BLOCK_DEVICE, *device),
            Content::Fifo => self.u8(tag::FIFO),
        }
        match &node.metadata {
            None => self.u8(tag::WITHOUT),
            Some(metadata) => {
                self.u8(tag::WITH);
                self.metadata(metadata)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, file: &FileData) -> io::Result<()> {
        match &file.blocks {
            FileBlocks::Run(start) => {
                self.u8(tag::FILE);
                self.u64(file.size);
                self.u32(*start);
            }
            FileBlocks::Chunks { chunk_bits, starts } => {
                self.u8(tag::FILE_IN_CHUNKS);
                self.u64(file.size);
                self.u8(*chunk_bits);
                self.length(starts.len())?;
                for start in starts {
                    self.u32(start.unwrap_or(HOLE));
                }
            }
        }
        Ok(())
    }

    fn device(&mut self, tag: u8, device: Device) {
        self.u8(tag);
        self.u32(device.major);
        self.u32(device.minor);
    }

    fn metadata(&mut self, metadata: &Metadata) -> io::Result<()> {
        self.u16(metadata.mode);
        self.u32(metadata.uid);
        self.u32(metadata.gid);
        self.u64(metadata.modified.seconds.cast_unsigned());
        self.u32(metadata.modified.nanoseconds);
        self.length(metadata.xattrs.len())?;
        for xattr in &metadata.xattrs {
            self.bytes(&xattr.name)?;
            self.bytes(&xattr.value)?;
        }
        Ok(())
    }

    fn name(&mut self, name: &Name) -> io::Result<()> {
        self.u32(name.parent);
        self.bytes(&name.name)?;
        match &name.target {
            Target::Node(node) => {
                self.u8(tag::NODE);
                self.u32(*node);
            }
            Target::Lower(path) => {
                self.u8(tag::LOWER);
                self.bytes(path)?;
            }
            Target::Whiteout => self.u8(tag::WHITEOUT),
        }
        Ok(())
    }
}

struct Decoder<'a> {
    rest: &'a [u8],
    length: usize,
}

impl<'a> Decoder<'a> {
    fn damaged(&self) -> ReadIndexError {
        ReadIndexError::Damaged { offset: self.length - self.rest.len() }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ReadIndexError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.damaged())?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], ReadIndexError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(|| self.damaged())?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, ReadIndexError> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, ReadIndexError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, ReadIndexError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, ReadIndexError> {
        self.array().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> Result<Box<[u8]>, ReadIndexError> {
        let length = self.u32()? as usize;
        Ok(self.take(length)?.into())
    }

    fn many<T>(
        &mut self,
        count: u32,
        mut one: impl FnMut(&mut Self) -> Result<T, ReadIndexError>,
    ) -> Result<Vec<T>, ReadIndexError> {
        let count = count as usize;
        if count > self.rest.len() / SMALLEST_RECORD {
            return Err(self.damaged());
        }
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            all.push(one(self)?);
        }
        Ok(all)
    }

    fn node(&mut self) -> Result<Node, ReadIndexError> {
        let content = match self.u8()? {
            tag::DIRECTORY => Content::Directory { below: Below::Kept },
            tag::OPAQUE_DIRECTORY => Content::Directory { below: Below::Hidden },
            tag::FILE => Content::File(FileData { size: self.u64()?, blocks: FileBlocks::Run(self.u32()?) }),
            tag::FILE_IN_CHUNKS => Content::File(self.chunks()?),
            tag::SYMLINK => Content::Symlink(self.bytes()?),
            tag::CHAR_DEVICE => Content::CharDevice(self.device()?),
            tag::BLOCK_DEVICE => Content::BlockDevice(self.device()?),
            tag::FIFO => Content::Fifo,
            _ => return Err(self.damaged()),
        };
        let metadata = match self.u8()? {
            tag::WITHOUT => None,
            tag::WITH => Some(self.metadata()?),
            _ => return Err(self.damaged()),
        };
        Ok(Node { metadata, content })
    }

    fn chunks(&mut self) -> Result<FileData, ReadIndexError> {
        let (size, chunk_bits, count) = (self.u64()?, self.u8()?, self.u32()?);
        let starts = self.many(count, |body| body.u32().map(|start| (start != HOLE).then_some(start)))?;
        let is_whole = (12..=43).contains(&chunk_bits) && size.div_ceil(1 << chunk_bits) == u64::from(count);
        if !is_whole {
            return Err(self.damaged());
        }
        Ok(FileData { size, blocks: FileBlocks::Chunks { chunk_bits, starts: starts.into() } })
    }

    fn device(&mut self) -> Result<Device, ReadIndexError> {
        Ok(Device { major: self.u32()?, minor: self.u32()? })
    }

    fn metadata(&mut self) -> Result<Metadata, ReadIndexError> {
        let (mode, uid, gid) = (self.u16()?, self.u32()?, self.u32()?);
        let modified = Timestamp { seconds: self.u64()?.cast_signed(), nanoseconds: self.u32()? };
        let count = self.u32()?;
        let xattrs = self.many(count, |body| Ok(Xattr { name: body.bytes()?, value: body.bytes()? }))?;
        Ok(Metadata { mode, uid, gid, modified, xattrs: xattrs.into() })
    }

    fn name(&mut self, nodes: usize) -> Result<Name, ReadIndexError> {
        let (parent, name) = (self.u32()?, self.bytes()?);
        let target = match self.u8()? {
            tag::NODE => Target::Node(self.u32()?),
            tag::LOWER => Target::Lower(self.bytes()?),
            tag::WHITEOUT => Target::Whiteout,
            _ => return Err(self.damaged()),
        };
        let known = |node: u32| (node as usize) < nodes;
        match target {
            Target::Node(node) if !known(node) => Err(self.damaged()),
            _ if !known(parent) => Err(self.damaged()),
            target => Ok(Name { parent, name, target }),
        }
    }
}
