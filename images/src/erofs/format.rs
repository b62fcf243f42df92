//! The records of the format as bytes. All numbers are little-endian.
use crate::layer::{Device, Timestamp};

pub const SUPERBLOCK_AT: usize = 1024;
pub const SUPERBLOCK_BYTES: usize = 128;
pub const DEVICE_SLOT_BYTES: usize = 128;
pub const INODE_BYTES: u64 = 64;
/// Inodes are named by their byte offset in units of this.
pub const NID_BYTES: u64 = 32;
pub const CHUNK_BYTES: u64 = 8;
pub const DIRENT_BYTES: usize = 12;
pub const XATTR_HEADER_BYTES: u64 = 12;

const MAGIC: u32 = 0xE0F5_E1E2;
const BLOCK_BITS: u8 = 12;
const COMPAT_CHECKSUM: u32 = 0x1;
const COMPAT_MTIME: u32 = 0x2;
const INCOMPAT_CHUNKED_FILE: u32 = 0x4;
const INCOMPAT_DEVICE_TABLE: u32 = 0x8;
const CHUNK_HAS_DEVICE: u16 = 0x20;
/// Block number of a hole.
const HOLE: u32 = u32::MAX;

/// File types in directory entries.
pub mod file_type {
    pub const REGULAR: u8 = 1;
    pub const DIRECTORY: u8 = 2;
    pub const CHAR_DEVICE: u8 = 3;
    pub const BLOCK_DEVICE: u8 = 4;
    pub const FIFO: u8 = 5;
    pub const SYMLINK: u8 = 7;
}

/// How an inode's contents are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataLayout {
    /// In whole blocks.
    Plain = 0,
    /// In whole blocks, the last bytes behind the inode.
    Inline = 2,
    /// In chunks that may lie on other devices.
    Chunks = 4,
}

/// What tells one image's file system from another's; zeros stand for none.
pub type Uuid = [u8; 16];

/// Numbers of the superblock that differ between images.
pub struct Superblock {
    pub uuid: Uuid,
    pub root: u16,
    pub inodes: u64,
    pub blocks: u32,
    pub shared_xattrs_block: u32,
    pub devices: u16,
}

/// Block 0 and as many more as the device table needs, with the checksum.
pub fn head(superblock: &Superblock, device_blocks: &[u32], length: usize) -> Vec<u8> {
    let mut head = vec![0; SUPERBLOCK_AT];
    head.extend_from_slice(&MAGIC.to_le_bytes());
    head.extend_from_slice(&[0; 4]); // The checksum, below.
    head.extend_from_slice(&(COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes());
    head.extend_from_slice(&[BLOCK_BITS, 0]); // No extension slots.
    head.extend_from_slice(&superblock.root.to_le_bytes());
    head.extend_from_slice(&superblock.inodes.to_le_bytes());
    head.extend_from_slice(&[0; 12]); // Build time: inodes have their own.
    head.extend_from_slice(&superblock.blocks.to_le_bytes());
    head.extend_from_slice(&[0; 4]); // Inodes are counted from block 0.
    head.extend_from_slice(&superblock.shared_xattrs_block.to_le_bytes());
    head.extend_from_slice(&superblock.uuid);
    head.extend_from_slice(&[0; 16]); // Volume name.
    head.extend_from_slice(&(INCOMPAT_CHUNKED_FILE | INCOMPAT_DEVICE_TABLE).to_le_bytes());
    head.extend_from_slice(&[0; 2]); // No compression.
    head.extend_from_slice(&superblock.devices.to_le_bytes());
    let table_at = (SUPERBLOCK_AT + SUPERBLOCK_BYTES) / DEVICE_SLOT_BYTES;
    head.extend_from_slice(&u16::try_from(table_at).unwrap_or(u16::MAX).to_le_bytes());
    head.resize(SUPERBLOCK_AT + SUPERBLOCK_BYTES, 0);
    for blocks in device_blocks {
        head.extend_from_slice(&[0; 64]); // Tag.
        head.extend_from_slice(&blocks.to_le_bytes());
        head.extend_from_slice(&[0; 60]); // Not mapped into the address space of the first device.
    }
    head.resize(length, 0);
    let sum = head.get(SUPERBLOCK_AT..1 << BLOCK_BITS).map(crc32c).unwrap_or_default();
    if let Some(field) = head.get_mut(SUPERBLOCK_AT + 4..SUPERBLOCK_AT + 8) {
        field.copy_from_slice(&sum.to_le_bytes());
    }
    head
}

/// CRC-32C as the kernel computes it: all ones first, no inversion at the end.
fn crc32c(bytes: &[u8]) -> u32 {
    const REVERSED_CASTAGNOLI: u32 = 0x82F6_3B78;
    bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (REVERSED_CASTAGNOLI & (sum & 1).wrapping_neg())
        })
    })
}

/// The extended form: 64-bit sizes, owners beyond 65,535, times of its own.
pub struct InodeRecord {
    pub layout: DataLayout,
    pub xattr_bytes: u64,
    pub mode: u16,
    pub size: u64,
    /// First block, device number, or form of the chunks.
    pub location: u32,
    /// Small number for 32-bit programs.
    pub number: u32,
    pub uid: u32,
    pub gid: u32,
    pub modified: Timestamp,
    pub links: u32,
}

impl InodeRecord {
    pub fn bytes(&self) -> Vec<u8> {
        const EXTENDED: u16 = 1;
        let form = EXTENDED | (self.layout as u16) << 1;
        let mut record = Vec::with_capacity(64);
        record.extend_from_slice(&form.to_le_bytes());
        record.extend_from_slice(&xattr_count(self.xattr_bytes).to_le_bytes());
        record.extend_from_slice(&self.mode.to_le_bytes());
        record.extend_from_slice(&[0; 2]);
        record.extend_from_slice(&self.size.to_le_bytes());
        record.extend_from_slice(&self.location.to_le_bytes());
        record.extend_from_slice(&self.number.to_le_bytes());
        record.extend_from_slice(&self.uid.to_le_bytes());
        record.extend_from_slice(&self.gid.to_le_bytes());
        record.extend_from_slice(&self.modified.seconds.to_le_bytes());
        record.extend_from_slice(&self.modified.nanoseconds.to_le_bytes());
        record.extend_from_slice(&self.links.to_le_bytes());
        record.extend_from_slice(&[0; 16]);
        record
    }
}

/// Bytes of attributes that the 16-bit field can say.
pub const LARGEST_XATTR_BYTES: u64 = XATTR_HEADER_BYTES + 4 * (u16::MAX as u64 - 1);

/// The header counts as one, the rest in units of four bytes.
fn xattr_count(bytes: u64) -> u16 {
    match bytes.checked_sub(XATTR_HEADER_BYTES) {
        Some(rest) => u16::try_from(1 + rest / 4).unwrap_or(u16::MAX),
        None => 0,
    }
}

/// A device number as inodes hold it: 8 low bits of the minor, 12 of the major, the minor's rest.
pub fn device_number(device: Device) -> u32 {
    (device.minor & 0xff) | (device.major << 8) | ((device.minor & !0xff) << 12)
}

/// What an inode in chunks of `2^chunk_bits` bytes has as its location.
pub fn chunk_form(chunk_bits: u32) -> u32 {
    u32::from(CHUNK_HAS_DEVICE) | chunk_bits.saturating_sub(u32::from(BLOCK_BITS))
}

/// Where one chunk is; devices count from 1.
pub fn chunk(device: u16, start: Option<u32>) -> [u8; 8] {
    let mut record = [0; 8];
    let device = if start.is_some() { device } else { 0 };
    record[2..4].copy_from_slice(&device.to_le_bytes());
    record[4..8].copy_from_slice(&start.unwrap_or(HOLE).to_le_bytes());
    record
}

/// One entry of a directory block; its name stands at `name_at` of that block.
pub fn dirent(nid: u64, name_at: u16, file_type: u8) -> [u8; DIRENT_BYTES] {
    let mut record = [0; DIRENT_BYTES];
    record[..8].copy_from_slice(&nid.to_le_bytes());
    record[8..10].copy_from_slice(&name_at.to_le_bytes());
    record[10] = file_type;
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_the_kernels() {
        for (major, minor, number) in
            [(1, 3, 0x103), (8, 0, 0x800), (0xfff, 0xf_ffff, 0xffff_ffff), (0, 256, 0x10_0000)]
        {
            assert_eq!(device_number(Device { major, minor }), number);
        }
    }

    #[test]
    fn the_checksum_is_crc32c() {
        assert_eq!(!crc32c(b"123456789"), 0xE306_9283);
    }
}
