//! Where everything goes: decided before the first byte is written, so that writing is one pass.
use super::WriteImageError;
use super::directory;
use super::format::{
    CHUNK_BYTES, DEVICE_SLOT_BYTES, DataLayout, INODE_BYTES, LARGEST_XATTR_BYTES, NID_BYTES, SUPERBLOCK_AT,
    SUPERBLOCK_BYTES,
};
use super::xattrs::Shared;
use crate::layer::{BLOCK_BYTES, EntryName, FileBlocks, FileData};
use crate::tree::{Entries, Inode, InodeId, InodeKind, Tree};

/// A chunk's size in blocks has five bits.
const LARGEST_CHUNK_BITS: u32 = 43;
const BLOCK_BITS: u32 = 12;

/// The whole image.
#[derive(Debug)]
pub struct Plan<'a> {
    pub tree: &'a Tree,
    /// In the order of their places.
    pub inodes: Vec<Planned<'a>>,
    /// By inode of the tree: its place, 0 if no name leads to it.
    pub places: Vec<u64>,
    pub shared: Shared<'a>,
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
pub struct Planned<'a> {
    pub id: InodeId,
    pub inode: &'a Inode,
    /// For a directory's `..`.
    pub parent: InodeId,
    pub links: u32,
    pub at: u64,
    pub xattr_bytes: u64,
    pub layout: DataLayout,
    pub size: u64,
    /// Number of the first whole block; 0 without any.
    pub first_block: u32,
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

impl<'a> Plan<'a> {
    pub fn new(tree: &'a Tree) -> Result<Plan<'a>, WriteImageError> {
        let table_bytes = DEVICE_SLOT_BYTES * tree.layer_blocks().len();
        let inodes_at = (SUPERBLOCK_AT + SUPERBLOCK_BYTES + table_bytes) as u64;
        let inodes_at = inodes_at.next_multiple_of(BLOCK_BYTES);
        let mut plan = Plan {
            tree,
            inodes: Vec::new(),
            places: vec![0; tree.len()],
            shared: Shared::default(),
            inodes_at,
            shared_at: inodes_at,
            blocks_at: inodes_at,
            end: inodes_at,
        };
        plan.walk()?;
        plan.shared_at = plan.end.next_multiple_of(BLOCK_BYTES);
        plan.blocks_at = (plan.shared_at + plan.shared.length()).next_multiple_of(BLOCK_BYTES);
        plan.end = plan.blocks_at;
        plan.place_blocks()?;
        Ok(plan)
    }

    /// The place of an inode in units of the format.
    pub fn nid(&self, id: InodeId) -> u64 {
        self.places.get(id.index()).copied().unwrap_or(0) / NID_BYTES
    }

    /// Places every inode that a name leads to and counts its names. The root comes first: the
    /// superblock has 16 bits for its place.
    fn walk(&mut self) -> Result<(), WriteImageError> {
        let mut order = vec![0_usize; self.tree.len()]; // By inode of the tree: 1 + its position in `inodes`.
        self.place(InodeId::ROOT, InodeId::ROOT, b"/")?;
        let mut directories = vec![(InodeId::ROOT, 0)];
        while let Some((parent, position)) = directories.pop() {
            let Some(Inode { kind: InodeKind::Directory(entries), .. }) = self.tree.inode(parent) else {
                continue;
            };
            let mut subdirectories = Vec::new();
            for (name, id) in entries {
                let known = order.get(id.index()).copied().unwrap_or(0);
                if known > 0 {
                    self.count_link(known - 1);
                    continue;
                }
                self.place(*id, parent, name)?;
                if let Some(slot) = order.get_mut(id.index()) {
                    *slot = self.inodes.len();
                }
                if matches!(self.tree.inode(*id).map(|inode| &inode.kind), Some(InodeKind::Directory(_))) {
                    self.count_link(position); // Its `..`.
                    subdirectories.push((*id, self.inodes.len() - 1));
                }
            }
            directories.extend(subdirectories.into_iter().rev());
        }
        Ok(())
    }

    fn count_link(&mut self, position: usize) {
        if let Some(planned) = self.inodes.get_mut(position) {
            planned.links += 1;
        }
    }

    fn place(&mut self, id: InodeId, parent: InodeId, name: &[u8]) -> Result<(), WriteImageError> {
        let Some(inode) = self.tree.inode(id) else { return Ok(()) };
        let xattr_bytes = self.shared.add(&inode.metadata.xattrs);
        if xattr_bytes > LARGEST_XATTR_BYTES {
            return Err(WriteImageError::Xattrs { entry: EntryName::new(name) });
        }
        let (size, links) = match &inode.kind {
            InodeKind::Directory(entries) => (directory_size(entries, id, parent), 2),
            InodeKind::File { data, .. } => (data.size, 1),
            InodeKind::Symlink(target) => (target.len() as u64, 1),
            InodeKind::CharDevice(_) | InodeKind::BlockDevice(_) | InodeKind::Fifo => (0, 1),
        };
        let head = INODE_BYTES + xattr_bytes;
        let tail = size % BLOCK_BYTES;
        let (layout, behind) = match &inode.kind {
            InodeKind::File { data, .. } if size > 0 => {
                let chunks_at = head.next_multiple_of(CHUNK_BYTES);
                (DataLayout::Chunks, chunks_at + CHUNK_BYTES * chunks(data).starts.count())
            }
            InodeKind::Directory(_) | InodeKind::Symlink(_) if tail > 0 && head + tail <= BLOCK_BYTES => {
                (DataLayout::Inline, head + tail)
            }
            _ => (DataLayout::Plain, head),
        };
        let mut at = self.end.next_multiple_of(NID_BYTES);
        // What stands behind an inode as its contents must lie in one block.
        if layout == DataLayout::Inline && at % BLOCK_BYTES + behind > BLOCK_BYTES {
            at = at.next_multiple_of(BLOCK_BYTES);
        }
        self.end = at + behind;
        if let Some(place) = self.places.get_mut(id.index()) {
            *place = at;
        }
        self.inodes.push(Planned { id, inode, parent, links, at, xattr_bytes, layout, size, first_block: 0 });
        Ok(())
    }

    /// Whole blocks of directories and links, in the order of their inodes.
    fn place_blocks(&mut self) -> Result<(), WriteImageError> {
        for planned in &mut self.inodes {
            let count = planned.whole_blocks();
            if count > 0 {
                let first = u32::try_from(self.end / BLOCK_BYTES);
                planned.first_block = first.map_err(|_| WriteImageError::TooLarge { what: "directories" })?;
                self.end += count * BLOCK_BYTES;
            }
        }
        Ok(())
    }
}

impl Planned<'_> {
    /// How many blocks of its own the inode has in the image.
    pub fn whole_blocks(&self) -> u64 {
        match self.layout {
            DataLayout::Chunks => 0,
            DataLayout::Inline => self.size / BLOCK_BYTES,
            DataLayout::Plain => self.size.div_ceil(BLOCK_BYTES),
        }
    }
}

fn directory_size(entries: &Entries, id: InodeId, parent: InodeId) -> u64 {
    directory::size(&directory::entries(entries, id, parent))
}
