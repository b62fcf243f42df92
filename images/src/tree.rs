//! The file system of an image: its layers, merged.
//!
//! ```text
//! index 0 (lowest) ─┐   names: whiteouts, opaque marks, type changes
//! index 1 ──────────┼─► Tree ──► erofs::Plan
//! index 2 ──────────┘     what an inode is stays in its layer's index until it is written
//! ```
//!
//! Inodes are named by number; a hard link, also one to a file of a lower layer, is a second name of a
//! number. What no name leads to any more stays among the numbers and is not written.
use crate::layer::{Content, Kind, LayerIndex, Metadata, Node, Nodes, ReadIndexError};
use crate::name_table::{Named, SortedNames};

mod merge;

pub use merge::{MergeError, merge};

/// Number of an inode in its [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InodeId(u32);

impl InodeId {
    /// The number, for tables that go beside the tree.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// The merged tree of some layers, which have to be at hand for what it does not hold itself.
#[derive(Debug)]
pub struct Tree {
    root: InodeId,
    inodes: Vec<Inode>,
    names: SortedNames,
    layer_blocks: Vec<u32>,
}

/// A thing in the tree.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inode {
    pub kind: Kind,
    /// Position of the layer that describes it and has its contents, lowest first.
    pub layer: u16,
    /// Where its node is in the layer's index; `None` for a directory that no layer describes.
    node: Option<u64>,
}

impl Tree {
    /// The root directory.
    pub fn root(&self) -> InodeId {
        self.root
    }

    /// What kind of thing an inode is.
    pub fn kind(&self, id: InodeId) -> Option<Kind> {
        self.inode(id).map(|inode| inode.kind)
    }

    /// The names of a directory, in byte order.
    pub fn entries(&self, id: InodeId) -> impl Iterator<Item = (&[u8], InodeId)> {
        self.names.of(id.0).filter_map(|Named { name, value, .. }| Some((name, InodeId(value?))))
    }

    /// Length of each layer's data file in blocks, lowest first.
    pub(crate) fn layer_blocks(&self) -> &[u32] {
        &self.layer_blocks
    }

    /// How many numbers are in use.
    pub(crate) fn len(&self) -> usize {
        self.inodes.len()
    }

    pub(crate) fn inode(&self, id: InodeId) -> Option<Inode> {
        self.inodes.get(id.index()).copied()
    }
}

/// Reads what the inodes of a tree are from the indexes that it was merged of.
pub struct NodeReader<'a> {
    layers: Vec<Nodes<'a>>,
}

impl<'a> NodeReader<'a> {
    /// Of the same layers in the same order.
    pub fn new(layers: &'a [LayerIndex]) -> NodeReader<'a> {
        NodeReader { layers: layers.iter().map(LayerIndex::nodes).collect() }
    }

    /// The layer that has an inode's contents, and all that is known of it.
    ///
    /// # Errors
    ///
    /// Those of reading the index; [`ReadIndexError::Damaged`] for the number of another tree.
    pub fn read(&mut self, tree: &Tree, id: InodeId) -> Result<(usize, Node), ReadIndexError> {
        let inode = tree.inode(id).ok_or(ReadIndexError::Damaged)?;
        Ok((usize::from(inode.layer), self.of_inode(inode)?))
    }

    fn of_inode(&mut self, inode: Inode) -> Result<Node, ReadIndexError> {
        let Some(at) = inode.node else {
            return Ok(Node { metadata: Metadata::of_implied_directory(), content: Content::Directory });
        };
        self.layers.get_mut(usize::from(inode.layer)).ok_or(ReadIndexError::Damaged)?.read(at)
    }
}
