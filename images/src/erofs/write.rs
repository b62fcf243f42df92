//! Writes what the plan says, from the first byte to the last.
use std::io::{self, Write};

use super::WriteImageError;
use super::directory;
use super::format::{
    self, CHUNK_BYTES, DataLayout, INODE_BYTES, InodeRecord, NID_BYTES, Superblock, Uuid, device_number,
};
use super::plan::{ChunkStarts, Plan, Planned, chunks};
use crate::layer::{BLOCK_BYTES, FileData};
use crate::tree::{InodeId, InodeKind};

/// Writes the whole image.
pub fn write(plan: &Plan<'_>, uuid: Uuid, out: &mut impl Write) -> Result<(), WriteImageError> {
    let mut out = Output { out, at: 0 };
    out.write(&head(plan, uuid)?)?;
    for (number, planned) in plan.inodes.iter().enumerate() {
        out.pad_to(planned.at)?;
        out.write(&record(number, planned).bytes())?;
        out.write(&plan.shared.behind_inode(&planned.inode.metadata.xattrs))?;
        match (&planned.inode.kind, planned.layout) {
            (InodeKind::File { layer, data }, DataLayout::Chunks) => {
                let head = INODE_BYTES + planned.xattr_bytes;
                out.pad_to(planned.at + head.next_multiple_of(CHUNK_BYTES))?;
                write_chunks(*layer, data, &mut out)?;
            }
            (_, DataLayout::Inline) => {
                let contents = contents(plan, planned);
                let (_, tail) = contents.split_at(whole_bytes(planned).min(contents.len()));
                out.write(tail)?;
            }
            _ => {}
        }
    }
    out.pad_to(plan.shared_at)?;
    out.write(&plan.shared.bytes())?;
    out.pad_to(plan.blocks_at)?;
    for planned in plan.inodes.iter().filter(|planned| planned.whole_blocks() > 0) {
        let contents = contents(plan, planned);
        let (whole, _) = contents.split_at(whole_bytes(planned).min(contents.len()));
        out.write(whole)?;
        out.pad_to(out.at.next_multiple_of(BLOCK_BYTES))?;
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

fn head(plan: &Plan<'_>, uuid: Uuid) -> Result<Vec<u8>, WriteImageError> {
    let too_large = |what| WriteImageError::TooLarge { what };
    let superblock = Superblock {
        uuid,
        root: u16::try_from(plan.nid(InodeId::ROOT)).map_err(|_| too_large("layers"))?,
        inodes: plan.inodes.len() as u64,
        blocks: u32::try_from(plan.end / BLOCK_BYTES).map_err(|_| too_large("metadata bytes"))?,
        shared_xattrs_block: u32::try_from(plan.shared_at / BLOCK_BYTES)
            .map_err(|_| too_large("metadata bytes"))?,
        devices: u16::try_from(plan.tree.layer_blocks().len()).map_err(|_| too_large("layers"))?,
    };
    let length = usize::try_from(plan.inodes_at).map_err(|_| too_large("layers"))?;
    Ok(format::head(&superblock, plan.tree.layer_blocks(), length))
}

fn record(number: usize, planned: &Planned<'_>) -> InodeRecord {
    let metadata = &planned.inode.metadata;
    let (type_bits, location) = match &planned.inode.kind {
        InodeKind::Directory(_) => (libc::S_IFDIR, planned.first_block),
        InodeKind::File { data, .. } if planned.layout == DataLayout::Chunks => {
            (libc::S_IFREG, format::chunk_form(chunks(data).bits))
        }
        InodeKind::File { .. } => (libc::S_IFREG, 0),
        InodeKind::Symlink(_) => (libc::S_IFLNK, planned.first_block),
        InodeKind::CharDevice(device) => (libc::S_IFCHR, device_number(*device)),
        InodeKind::BlockDevice(device) => (libc::S_IFBLK, device_number(*device)),
        InodeKind::Fifo => (libc::S_IFIFO, 0),
    };
    InodeRecord {
        layout: planned.layout,
        xattr_bytes: planned.xattr_bytes,
        mode: u16::try_from(type_bits).unwrap_or(0) | metadata.mode,
        size: planned.size,
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

/// Bytes of the contents that lie in blocks of their own.
fn whole_bytes(planned: &Planned<'_>) -> usize {
    usize::try_from(planned.whole_blocks() * BLOCK_BYTES).unwrap_or(usize::MAX)
}

/// Contents of a directory or link, blocks of a directory padded but for the last.
fn contents(plan: &Plan<'_>, planned: &Planned<'_>) -> Vec<u8> {
    let names = match &planned.inode.kind {
        InodeKind::Directory(names) => names,
        InodeKind::Symlink(target) => return target.to_vec(),
        _ => return Vec::new(),
    };
    let block_bytes = usize::try_from(BLOCK_BYTES).unwrap_or(usize::MAX);
    let entries = directory::entries(names, planned.id, planned.parent);
    let kind = |id| plan.tree.inode(id).map_or(0, |inode| directory::file_type_of(&inode.kind));
    let mut contents = Vec::new();
    for block in directory::blocks(&entries) {
        contents.resize(contents.len().next_multiple_of(block_bytes), 0);
        contents.extend(directory::block_bytes(block, |id| plan.nid(id), kind));
    }
    debug_assert_eq!(contents.len() as u64, planned.size);
    debug_assert!(planned.at.is_multiple_of(NID_BYTES));
    contents
}
