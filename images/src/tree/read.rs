//! Paths in the tree, resolved as a process inside would resolve them, and contents of small files.
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{InodeId, InodeKind, Tree};
use crate::layer::{BLOCK_BYTES, EntryName, FileBlocks, FileData};

/// Links followed in one path, as in the kernel (`MAXSYMLINKS`).
const LINKS_FOLLOWED: u32 = 40;

/// Why a path could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// Symbolic links that lead in a circle.
    #[error("look up {path} in the image: more than {limit} symbolic links")]
    LinkLoop {
        /// The path asked for.
        path: EntryName,
        /// How many are followed.
        limit: u32,
    },
}

/// Why a file of the image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadFileError {
    /// Its path could not be resolved.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// More than `max_bytes` long.
    #[error("read {path} of the image: it has {size} bytes, more than {max_bytes}")]
    TooLong {
        /// The path asked for.
        path: EntryName,
        /// Bytes it has.
        size: u64,
        /// Bytes it may have.
        max_bytes: u64,
    },
    /// The layer's data file could not be read.
    #[error("read {path} of the image from the data of layer {layer}")]
    Read {
        /// The path asked for.
        path: EntryName,
        /// Position of the layer, 1 is the lowest.
        layer: usize,
        /// The file system's error.
        source: io::Error,
    },
}

/// Whether a link at the very end of a path is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LastLink {
    Follow,
    Keep,
}

impl Tree {
    /// Finds what a path leads to. All links are followed within the image; `..` stops at its root.
    ///
    /// # Errors
    ///
    /// [`LookupError::LinkLoop`] after 40 links.
    pub fn lookup(&self, path: &[u8]) -> Result<Option<InodeId>, LookupError> {
        self.resolve(path, LastLink::Follow)
    }

    /// The same, but a link at the end stands for itself.
    ///
    /// # Errors
    ///
    /// [`LookupError::LinkLoop`] after 40 links.
    pub fn lookup_no_follow(&self, path: &[u8]) -> Result<Option<InodeId>, LookupError> {
        self.resolve(path, LastLink::Keep)
    }

    /// Reads a regular file, following links inside the image; `Ok(None)` if there is none.
    ///
    /// `data` are the layers' data files, lowest first.
    ///
    /// # Errors
    ///
    /// A file of more than `max_bytes`, links in a circle, and read errors.
    pub fn read_file(
        &self,
        path: &[u8],
        data: &[File],
        max_bytes: u64,
    ) -> Result<Option<Vec<u8>>, ReadFileError> {
        let Some(inode) = self.lookup(path)?.and_then(|id| self.inode(id)) else { return Ok(None) };
        let InodeKind::File { layer, data: file } = &inode.kind else { return Ok(None) };
        let name = || EntryName::new(path);
        if file.size > max_bytes {
            return Err(ReadFileError::TooLong { path: name(), size: file.size, max_bytes });
        }
        let contents = match data.get(*layer) {
            Some(data) => read(data, file),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        let layer = layer + 1;
        contents.map(Some).map_err(|source| ReadFileError::Read { path: name(), layer, source })
    }

    fn resolve(&self, path: &[u8], last: LastLink) -> Result<Option<InodeId>, LookupError> {
        let mut rest: Vec<&[u8]> = reversed(path);
        let mut at = vec![InodeId::ROOT];
        let mut followed = 0;
        while let Some(component) = rest.pop() {
            let Some(directory) = at.last().and_then(|id| self.entries(*id)) else { return Ok(None) };
            if component == b".." {
                at.truncate(at.len().saturating_sub(1).max(1));
                continue;
            }
            let Some(&id) = directory.get(component) else { return Ok(None) };
            match self.inode(id).map(|inode| &inode.kind) {
                Some(InodeKind::Symlink(target)) if last == LastLink::Follow || !rest.is_empty() => {
                    followed += 1;
                    if followed > LINKS_FOLLOWED {
                        return Err(LookupError::LinkLoop {
                            path: EntryName::new(path),
                            limit: LINKS_FOLLOWED,
                        });
                    }
                    if target.starts_with(b"/") {
                        at.truncate(1);
                    }
                    rest.extend(reversed(target));
                }
                _ => at.push(id),
            }
        }
        Ok(at.last().copied())
    }
}

fn reversed(path: &[u8]) -> Vec<&[u8]> {
    let components = path.split(|byte| *byte == b'/');
    components.filter(|component| !matches!(*component, b"" | b".")).rev().collect()
}

/// The caller has checked the size.
fn read(data: &File, file: &FileData) -> io::Result<Vec<u8>> {
    let size =
        usize::try_from(file.size).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let mut contents = vec![0; size];
    match &file.blocks {
        FileBlocks::Run(start) => data.read_exact_at(&mut contents, u64::from(*start) * BLOCK_BYTES)?,
        FileBlocks::Chunks { chunk_bits, starts } => {
            let chunk_bytes = 1_usize.checked_shl(u32::from(*chunk_bits)).unwrap_or(usize::MAX);
            for (chunk, start) in contents.chunks_mut(chunk_bytes).zip(starts) {
                if let Some(start) = start {
                    data.read_exact_at(chunk, u64::from(*start) * BLOCK_BYTES)?;
                }
            }
        }
    }
    Ok(contents)
}
