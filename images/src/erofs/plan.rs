//! Where everything goes: decided before the first byte is written, so that writing is one pass.
use super::WriteImageError;
use super::directory;
use super::format::{
    CHUNK_BYTES, DEVICE_SLOT_BYTES, DataLayout, INODE_BYTES, LARGEST_XATTR_BYTES, NID_BYTES, SUPERBLOCK_AT,
    SUPERBLOCK_BYTES,
};
use super::xattrs::{self, Shared};
use crate::layer::{BLOCK_BYTES, Content, EntryName, FileBlocks, FileData, Kind, Node};
use crate::tree::{InodeId, NodeReader, Tree};

/// A chunk's size in blocks has five bits.
const LARGEST_CHUNK_BITS: u32 = 43;
const BLOCK_BITS: u32 = 12;
/// Not placed: no name leads to it.
const NOWHERE: u32 = u32::MAX;

/// Where everything of the whole image goes. What it is is read again when it is written.
#[derive(Debug)]
pub struct Layout<'a> {
    pub tree: &'a Tree,
    /// In the order of their places.
    pub inodes: Vec<Planned>,
    /// By inode of the tree: its position in `inodes`.
    positions: Vec<u32>,
    pub shared: Shared,
    /// Where the inodes begin: behind superblock and device table.
    pub inodes_at: u64,
    /// Where the shared attributes begin.
    pub shared_at: u64,
    /// Where whole blocks of directories and links begin.
    pub blocks_at: u64,
    /// Length of the image.
    pub end: u64,
}

/// One inode in its place.
#[derive(Debug)]
pub struct Planned {
    pub id: InodeId,
    /// For a directory's `..`.
    pub parent: InodeId,
    pub links: u32,
    /// Its place, in units of the format.
    pub nid: u32,
    /// Number of the first whole block; 0 without any.
    pub first_block: u32,
}

/// What follows from what an inode is.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub xattr_bytes: u64,
    pub size: u64,
    pub layout: DataLayout,
}

/// A file as chunks: how large, and where each starts.
pub struct Chunks<'a> {
    pub bits: u32,
    pub starts: ChunkStarts<'a>,
}

/// A run has its starts computed, a sparse file has them listed.
pub enum ChunkStarts<'a> {
    Run { first: u32, count: u64 },
    Listed(&'a [Option<u32>]),
}

impl ChunkStarts<'_> {
    pub fn count(&self) -> u64 {
        match self {
            ChunkStarts::Run { count, .. } => *count,
            ChunkStarts::Listed(starts) => starts.len() as u64,
        }
    }
}

/// The chunks of a file that is not empty: one for a run, unless it is beyond 8 TiB.
pub fn chunks(data: &FileData) -> Chunks<'_> {
    match &data.blocks {
        FileBlocks::Run(first) => {
            let bits = u64::BITS - data.size.saturating_sub(1).leading_zeros();
            let bits = bits.clamp(BLOCK_BITS, LARGEST_CHUNK_BITS);
            let count = data.size.div_ceil(1 << bits);
            Chunks { bits, starts: ChunkStarts::Run { first: *first, count } }
        }
        FileBlocks::Chunks { chunk_bits, starts } => {
            Chunks { bits: u32::from(*chunk_bits), starts: ChunkStarts::Listed(starts) }
        }
    }
}

impl<'a> Layout<'a> {
    pub fn new(tree: &'a Tree, nodes: &mut NodeReader<'_>) -> Result<Layout<'a>, WriteImageError> {
        let table_bytes = DEVICE_SLOT_BYTES * tree.layer_blocks().len();
        let inodes_at = (SUPERBLOCK_AT + SUPERBLOCK_BYTES + table_bytes) as u64;
        let inodes_at = inodes_at.next_multiple_of(BLOCK_BYTES);
        let mut plan = Layout {
            tree,
            inodes: Vec::new(),
            positions: vec![NOWHERE; tree.len()],
            shared: Shared::default(),
            inodes_at,
            shared_at: inodes_at,
            blocks_at: inodes_at,
            end: inodes_at,
        };
        let whole_blocks = plan.walk(nodes)?;
        plan.shared_at = plan.end.next_multiple_of(BLOCK_BYTES);
        plan.blocks_at = (plan.shared_at + plan.shared.length()).next_multiple_of(BLOCK_BYTES);
        plan.end = plan.blocks_at;
        plan.place_blocks(&whole_blocks)?;
        Ok(plan)
    }

    /// The place of an inode in units of the format.
    pub fn nid(&self, id: InodeId) -> u64 {
        let planned = self.position(id).and_then(|position| self.inodes.get(position));
        planned.map_or(0, |planned| u64::from(planned.nid))
    }

    fn position(&self, id: InodeId) -> Option<usize> {
        self.positions
            .get(id.index())
            .filter(|position| **position != NOWHERE)
            .map(|position| *position as usize)
    }

    /// Places every inode that a name leads to and counts its names. The root comes first: the
    /// superblock has 16 bits for its place. Gives those that have whole blocks, and how many.
    fn walk(&mut self, nodes: &mut NodeReader<'_>) -> Result<Vec<(u32, u32)>, WriteImageError> {
        let tree = self.tree;
        let mut whole_blocks = Vec::new();
        let mut add = |plan: &mut Self, id, parent, name: &[u8]| {
            let (_, node) = nodes.read(tree, id)?;
            let blocks = plan.place(id, parent, (name, &node))?;
            let position = u32::try_from(plan.inodes.len() - 1).unwrap_or(NOWHERE);
            if blocks > 0 {
                whole_blocks.push((position, blocks));
            }
            if let Some(known) = plan.positions.get_mut(id.index()) {
                *known = position;
            }
            Ok::<_, WriteImageError>(position as usize)
        };
        let root = add(self, tree.root(), tree.root(), b"/")?;
        let mut directories = vec![(tree.root(), root)];
        while let Some((parent, position)) = directories.pop() {
            let first = directories.len();
            for (name, id) in tree.entries(parent) {
                if let Some(known) = self.position(id) {
                    self.count_link(known);
                    continue;
                }
                let placed = add(self, id, parent, name)?;
                if tree.kind(id) == Some(Kind::Directory) {
                    self.count_link(position); // Its `..`.
                    directories.push((id, placed));
                }
            }
            directories.get_mut(first..).unwrap_or_default().reverse();
        }
        Ok(whole_blocks)
    }

    fn count_link(&mut self, position: usize) {
        if let Some(planned) = self.inodes.get_mut(position) {
            planned.links += 1;
        }
    }

    /// Places one inode and tells how many whole blocks it has.
    fn place(
        &mut self,
        id: InodeId,
        parent: InodeId,
        (name, node): (&[u8], &Node),
    ) -> Result<u32, WriteImageError> {
        let too_large = |what| WriteImageError::TooLarge { what };
        let shape = shape(self.tree, (id, parent), node);
        if shape.xattr_bytes > LARGEST_XATTR_BYTES {
            return Err(WriteImageError::Xattrs { entry: EntryName::new(name) });
        }
        if !self.shared.add(id, &node.metadata.xattrs) {
            return Err(too_large("extended attributes"));
        }
        let head = INODE_BYTES + shape.xattr_bytes;
        let behind = match (&node.content, shape.layout) {
            (Content::File(data), DataLayout::Chunks) => {
                head.next_multiple_of(CHUNK_BYTES) + CHUNK_BYTES * chunks(data).starts.count()
            }
            (_, DataLayout::Inline) => head + shape.size % BLOCK_BYTES,
            _ => head,
        };
        let mut at = self.end.next_multiple_of(NID_BYTES);
        // What stands behind an inode as its contents must lie in one block.
        if shape.layout == DataLayout::Inline && at % BLOCK_BYTES + behind > BLOCK_BYTES {
            at = at.next_multiple_of(BLOCK_BYTES);
        }
        self.end = at + behind;
        let nid = u32::try_from(at / NID_BYTES).map_err(|_| too_large("inodes"))?;
        let links = if node.content == Content::Directory { 2 } else { 1 };
        self.inodes.push(Planned { id, parent, links, nid, first_block: 0 });
        u32::try_from(shape.whole_blocks()).map_err(|_| too_large("directories"))
    }

    /// Whole blocks of directories and links, in the order of their inodes.
    fn place_blocks(&mut self, whole_blocks: &[(u32, u32)]) -> Result<(), WriteImageError> {
        for (position, count) in whole_blocks {
            let first = u32::try_from(self.end / BLOCK_BYTES);
            let first = first.map_err(|_| WriteImageError::TooLarge { what: "directories" })?;
            if let Some(planned) = self.inodes.get_mut(*position as usize) {
                planned.first_block = first;
            }
            self.end += u64::from(*count) * BLOCK_BYTES;
        }
        Ok(())
    }
}

impl Planned {
    /// Where it lies.
    pub fn at(&self) -> u64 {
        u64::from(self.nid) * NID_BYTES
    }
}

/// What an inode's record says beside what its node does: the same whenever it is asked.
pub fn shape(tree: &Tree, (id, parent): (InodeId, InodeId), node: &Node) -> Shape {
    let xattr_bytes = xattrs::bytes_behind(&node.metadata.xattrs);
    let size = match &node.content {
        Content::Directory => directory::size(tree, id, parent),
        Content::File(data) => data.size,
        Content::Symlink(target) => target.len() as u64,
        Content::CharDevice(_) | Content::BlockDevice(_) | Content::Fifo => 0,
    };
    let tail = size % BLOCK_BYTES;
    let layout = match &node.content {
        Content::File(_) if size > 0 => DataLayout::Chunks,
        Content::Directory | Content::Symlink(_)
            if tail > 0 && INODE_BYTES + xattr_bytes + tail <= BLOCK_BYTES =>
        {
            DataLayout::Inline
        }
        _ => DataLayout::Plain,
    };
    Shape { xattr_bytes, size, layout }
}

impl Shape {
    /// How many blocks of its own the inode has in the image.
    pub fn whole_blocks(&self) -> u64 {
        match self.layout {
            DataLayout::Chunks => 0,
            DataLayout::Inline => self.size / BLOCK_BYTES,
            DataLayout::Plain => self.size.div_ceil(BLOCK_BYTES),
        }
    }
}
