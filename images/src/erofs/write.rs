//! Writes what the plan says, from the first byte to the last.
use std::io::{self, Write};

use super::WriteImageError;
use super::directory;
use super::format::{
    self, CHUNK_BYTES, DataLayout, INODE_BYTES, InodeRecord, Superblock, Uuid, device_number,
};
use super::plan::{ChunkStarts, Layout, Planned, Shape, chunks, shape};
use super::xattrs;
use crate::layer::{BLOCK_BYTES, Content, FileData, Node};
use crate::tree::NodeReader;

/// Writes the whole image.
pub fn write(
    plan: &Layout<'_>,
    nodes: &mut NodeReader<'_>,
    uuid: Uuid,
    out: &mut impl Write,
) -> Result<(), WriteImageError> {
    let mut out = Output { out, at: 0 };
    out.write(&head(plan, uuid)?)?;
    for (number, planned) in plan.inodes.iter().enumerate() {
        let (layer, node) = nodes.read(plan.tree, planned.id)?;
        let shape = shape(plan.tree, (planned.id, planned.parent), &node);
        out.pad_to(planned.at())?;
        out.write(&record(number, planned, &node, shape).bytes())?;
        out.write(&plan.shared.behind_inode(&node.metadata.xattrs))?;
        match (&node.content, shape.layout) {
            (Content::File(data), DataLayout::Chunks) => {
                let head = INODE_BYTES + shape.xattr_bytes;
                out.pad_to(planned.at() + head.next_multiple_of(CHUNK_BYTES))?;
                write_chunks(layer, data, &mut out)?;
            }
            (Content::Directory, DataLayout::Inline) => {
                let last = directory::blocks(plan.tree, planned.id, planned.parent).last();
                out.write(&directory_block(plan, &last.unwrap_or_default()))?;
            }
            (Content::Symlink(target), DataLayout::Inline) => out.write(target)?,
            _ => {}
        }
    }
    out.pad_to(plan.shared_at)?;
    for (id, number) in plan.shared.owners() {
        let (_, node) = nodes.read(plan.tree, *id)?;
        let xattr = node.metadata.xattrs.get(usize::from(*number));
        out.write(&xattr.map(xattrs::entry).unwrap_or_default())?;
    }
    out.pad_to(plan.blocks_at)?;
    write_whole_blocks(plan, nodes, &mut out)
}

/// Directories' and links' blocks that do not fit behind their inodes. No first block has number 0.
fn write_whole_blocks(
    plan: &Layout<'_>,
    nodes: &mut NodeReader<'_>,
    out: &mut Output<'_, impl Write>,
) -> Result<(), WriteImageError> {
    for planned in plan.inodes.iter().filter(|planned| planned.first_block > 0) {
        let (_, node) = nodes.read(plan.tree, planned.id)?;
        let shape = shape(plan.tree, (planned.id, planned.parent), &node);
        let count = usize::try_from(shape.whole_blocks()).unwrap_or(usize::MAX);
        if let Content::Symlink(target) = &node.content {
            out.write(target)?;
            out.pad_to(out.at.next_multiple_of(BLOCK_BYTES))?;
            continue;
        }
        for block in directory::blocks(plan.tree, planned.id, planned.parent).take(count) {
            out.write(&directory_block(plan, &block))?;
            out.pad_to(out.at.next_multiple_of(BLOCK_BYTES))?;
        }
    }
    Ok(())
}

struct Output<'a, W> {
    out: &'a mut W,
    at: u64,
}

impl<W: Write> Output<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn pad_to(&mut self, position: u64) -> io::Result<()> {
        const ZEROS: [u8; 4096] = [0; 4096]; // Every gap ends at a block's end or before.
        let gap = usize::try_from(position.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let (zeros, _) = ZEROS.split_at(gap.min(ZEROS.len()));
        self.write(zeros)
    }
}

fn head(plan: &Layout<'_>, uuid: Uuid) -> Result<Vec<u8>, WriteImageError> {
    let too_large = |what| WriteImageError::TooLarge { what };
    let superblock = Superblock {
        uuid,
        root: u16::try_from(plan.nid(plan.tree.root())).map_err(|_| too_large("layers"))?,
        inodes: plan.inodes.len() as u64,
        blocks: u32::try_from(plan.end / BLOCK_BYTES).map_err(|_| too_large("metadata bytes"))?,
        shared_xattrs_block: u32::try_from(plan.shared_at / BLOCK_BYTES)
            .map_err(|_| too_large("metadata bytes"))?,
        devices: u16::try_from(plan.tree.layer_blocks().len()).map_err(|_| too_large("layers"))?,
    };
    let length = usize::try_from(plan.inodes_at).map_err(|_| too_large("layers"))?;
    Ok(format::head(&superblock, plan.tree.layer_blocks(), length))
}

fn record(number: usize, planned: &Planned, node: &Node, shape: Shape) -> InodeRecord {
    let metadata = &node.metadata;
    let (type_bits, location) = match &node.content {
        Content::Directory => (libc::S_IFDIR, planned.first_block),
        Content::File(data) if shape.layout == DataLayout::Chunks => {
            (libc::S_IFREG, format::chunk_form(chunks(data).bits))
        }
        Content::File(_) => (libc::S_IFREG, 0),
        Content::Symlink(_) => (libc::S_IFLNK, planned.first_block),
        Content::CharDevice(device) => (libc::S_IFCHR, device_number(*device)),
        Content::BlockDevice(device) => (libc::S_IFBLK, device_number(*device)),
        Content::Fifo => (libc::S_IFIFO, 0),
    };
    InodeRecord {
        layout: shape.layout,
        xattr_bytes: shape.xattr_bytes,
        mode: u16::try_from(type_bits).unwrap_or(0) | metadata.mode,
        size: shape.size,
        location,
        number: u32::try_from(number + 1).unwrap_or(u32::MAX),
        uid: metadata.uid,
        gid: metadata.gid,
        modified: metadata.modified,
        links: planned.links,
    }
}

fn write_chunks(layer: usize, data: &FileData, out: &mut Output<'_, impl Write>) -> io::Result<()> {
    let device = u16::try_from(layer + 1).unwrap_or(u16::MAX); // The head has checked the number of layers.
    let chunks = chunks(data);
    match chunks.starts {
        ChunkStarts::Run { first, count } => {
            for chunk in 0..count {
                let offset = chunk << (chunks.bits - BLOCK_BYTES.trailing_zeros());
                let start = first.saturating_add(u32::try_from(offset).unwrap_or(u32::MAX));
                out.write(&format::chunk(device, Some(start)))?;
            }
        }
        ChunkStarts::Listed(starts) => {
            for start in starts {
                out.write(&format::chunk(device, *start))?;
            }
        }
    }
    Ok(())
}

fn directory_block(plan: &Layout<'_>, block: &[directory::Entry<'_>]) -> Vec<u8> {
    let kind = |id| plan.tree.kind(id).map_or(0, directory::file_type_of);
    directory::block_bytes(block, |id| plan.nid(id), kind)
}
