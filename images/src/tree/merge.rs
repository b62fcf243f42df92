//! Layers on top of one another, as overlayfs would show them.
use super::{Inode, InodeId, NodeReader, Tree};
use crate::layer::{
    Below, Content, EntryName, FOLLOW_COST, Kind, LayerIndex, Name, ReadIndexError, Share, Target,
};
use crate::limits::Limits;
use crate::name_table::NameTable;

const ROOT: InodeId = InodeId(0);

/// Why layers do not make a tree.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// More layers, names or bytes than allowed.
    #[error("merge the image's layers: its {what} exceed the limit of {limit}; make the image smaller")]
    TooLarge {
        /// What was counted.
        what: &'static str,
        /// How many may be.
        limit: u64,
    },
    /// A hard link to what neither its own layer nor a lower one has.
    #[error(
        "merge layer {layer} of the image: the hard link {entry} leads to {target}, which no layer has as a file; \
         the image has to be built again"
    )]
    NoLinkTarget {
        /// Position of the layer, 1 is the lowest.
        layer: usize,
        /// The link's path.
        entry: EntryName,
        /// Where it leads.
        target: EntryName,
    },
    /// A layer's index could not be read, or speaks of numbers that it does not have.
    #[error("merge layer {layer} of the image")]
    Index {
        /// Position of the layer, 1 is the lowest.
        layer: usize,
        /// Why not.
        source: ReadIndexError,
    },
}

/// Merges layers, lowest first.
///
/// Hard links to lower layers lead to what those had before this layer changed anything.
///
/// # Errors
///
/// Limits on the whole image, by what the indexes say of themselves; hard links to files that no layer has.
pub fn merge(layers: &[LayerIndex], limits: &Limits) -> Result<Tree, MergeError> {
    check_limits(layers, limits)?;
    let root = Inode { kind: Kind::Directory, layer: 0, node: None };
    let mut tree = Growing { root: ROOT, inodes: vec![root], names: NameTable::default() };
    for (position, layer) in layers.iter().enumerate() {
        Merge { tree: &mut tree, layers, limits, layer, position, numbers: Vec::new() }.apply()?;
    }
    Ok(Tree {
        root: tree.root,
        inodes: tree.inodes,
        names: tree.names.sort(),
        layer_blocks: layers.iter().map(LayerIndex::data_blocks).collect(),
    })
}

fn check_limits(layers: &[LayerIndex], limits: &Limits) -> Result<(), MergeError> {
    let sum = layers.iter().map(Share::of_layer).fold(Share::default(), Share::and);
    let counts = [
        ("layers", layers.len() as u64, limits.layers as u64),
        ("files' bytes", sum.unpacked_bytes, limits.unpacked_bytes),
        ("entries", sum.entries, limits.entries),
        ("names and attributes", sum.memory_bytes, limits.index_bytes),
    ];
    match counts.into_iter().find(|(_, count, limit)| count > limit) {
        Some((what, _, limit)) => Err(MergeError::TooLarge { what, limit }),
        None => Ok(()),
    }
}

/// A tree in the making.
struct Growing {
    root: InodeId,
    inodes: Vec<Inode>,
    names: NameTable,
}

impl Growing {
    fn child(&self, directory: InodeId, name: &[u8]) -> Option<InodeId> {
        self.names.value(directory.0, name).map(InodeId)
    }

    fn kind(&self, id: InodeId) -> Option<Kind> {
        self.inodes.get(id.index()).map(|inode| inode.kind)
    }
}

/// One layer being put on a tree.
struct Merge<'a> {
    tree: &'a mut Growing,
    layers: &'a [LayerIndex],
    limits: &'a Limits,
    layer: &'a LayerIndex,
    position: usize,
    /// By number of the layer's things: their inodes, as far as they were met.
    numbers: Vec<InodeId>,
}

impl Merge<'_> {
    fn apply(mut self) -> Result<(), MergeError> {
        let mut lower_links = self.resolve_lower_links()?.into_iter();
        let head = &self.layer.head;
        let (node, below) = (head.root, head.root_below);
        self.tree.root = self.update_directory(self.tree.root, node, below)?;
        self.numbers.push(self.tree.root);
        for name in self.layer.names() {
            let Name { parent, name, target } = name.map_err(|source| self.unreadable(source))?;
            let parent = self.number(parent)?;
            match target {
                Target::Whiteout => self.tree.names.clear(parent.0, &name),
                Target::Lower(_) => {
                    let target = lower_links.next().ok_or_else(|| self.damaged())?;
                    self.tree.names.set(parent.0, &name, target.0);
                }
                Target::Same(number) => {
                    let known = self.number(number)?;
                    if self.tree.kind(known) == Some(Kind::Directory) {
                        return Err(self.damaged()); // A directory with two names would be a circle.
                    }
                    self.tree.names.set(parent.0, &name, known.0);
                }
                Target::New { kind, node, below } => {
                    let id = self.put(parent, &name, (kind, node, below))?;
                    self.tree.names.set(parent.0, &name, id.0);
                    self.numbers.push(id);
                }
            }
        }
        Ok(())
    }

    /// Before anything changes: a rename is often a link to the old name and a whiteout of it.
    fn resolve_lower_links(&self) -> Result<Vec<InodeId>, MergeError> {
        let mut found = Vec::new();
        if self.layer.head.lower_links == 0 {
            return Ok(found);
        }
        let mut nodes = NodeReader::new(self.layers);
        let mut walked = 0;
        for (at, name) in self.layer.names().enumerate() {
            let name = name.map_err(|source| self.unreadable(source))?;
            let Target::Lower(path) = &name.target else { continue };
            match self.lookup(path, &mut nodes, &mut walked)? {
                Some(id) if self.tree.kind(id) != Some(Kind::Directory) => found.push(id),
                _ => {
                    let (entry, target) = (EntryName::new(&self.path_of(at)?), EntryName::new(path));
                    return Err(MergeError::NoLinkTarget { layer: self.position + 1, entry, target });
                }
            }
        }
        Ok(found)
    }

    /// What a path of the lower layers leads to. Links on the way are followed, one at its end is not.
    fn lookup(
        &self,
        path: &[u8],
        nodes: &mut NodeReader<'_>,
        walked: &mut u64,
    ) -> Result<Option<InodeId>, MergeError> {
        let mut rest: Vec<Vec<u8>> = reversed(path).collect();
        let mut at = vec![self.tree.root];
        let (mut followed, mut length) = (0, path.len());
        while let Some(component) = rest.pop() {
            *walked += 1;
            if *walked > self.limits.components_walked {
                let limit = self.limits.components_walked;
                return Err(MergeError::TooLarge { what: "hard links' components", limit });
            }
            if component == b".." {
                at.truncate(at.len().saturating_sub(1).max(1));
                continue;
            }
            let Some(&directory) = at.last() else { return Ok(None) };
            let Some(id) = self.tree.child(directory, &component) else { return Ok(None) };
            if self.tree.kind(id) != Some(Kind::Symlink) || rest.is_empty() {
                at.push(id);
                continue;
            }
            let target = self.target_of(id, nodes)?;
            *walked += FOLLOW_COST;
            (followed, length) = (followed + 1, length + target.len());
            if followed > self.limits.links_followed || length > self.limits.followed_bytes {
                return Ok(None); // The kernel would find nothing either.
            }
            if target.starts_with(b"/") {
                at.truncate(1);
            }
            rest.extend(reversed(&target));
        }
        Ok(at.last().copied())
    }

    fn target_of(&self, link: InodeId, nodes: &mut NodeReader<'_>) -> Result<Box<[u8]>, MergeError> {
        let inode = self.tree.inodes.get(link.index()).copied().ok_or_else(|| self.damaged())?;
        match nodes.of_inode(inode).map_err(|source| self.unreadable(source))?.content {
            Content::Symlink(target) => Ok(target),
            _ => Err(self.damaged()),
        }
    }

    /// The whole path of the layer's name at a position, for a message.
    fn path_of(&self, position: usize) -> Result<Vec<u8>, MergeError> {
        let mut parents = vec![0];
        let mut path = Vec::new();
        for name in self.layer.names().take(position + 1) {
            let name = name.map_err(|source| self.unreadable(source))?;
            if matches!(name.target, Target::New { .. }) {
                parents.push(name.parent);
            }
            path = vec![(name.parent, name.name)];
        }
        // Directories have smaller numbers than what is in them: the highest is wanted last.
        let first = path.first().map_or(0, |(parent, _)| *parent);
        let up = |number: &u32| parents.get(*number as usize).copied();
        let mut wanted: Vec<u32> =
            std::iter::successors(Some(first), up).take_while(|number| *number > 0).collect();
        let mut names = self.layer.names();
        let mut number = 0;
        let mut above = Vec::new();
        while let (Some(next), Some(name)) = (wanted.last().copied(), names.next()) {
            let name = name.map_err(|source| self.unreadable(source))?;
            number += u32::from(matches!(name.target, Target::New { .. }));
            if number == next {
                above.push(name.name);
                wanted.pop();
            }
        }
        above.extend(path.into_iter().map(|(_, name)| name));
        Ok(above.join(&b'/'))
    }

    /// The inode of a thing that has its first name here.
    fn put(
        &mut self,
        parent: InodeId,
        name: &[u8],
        (kind, node, below): (Kind, Option<u64>, Below),
    ) -> Result<InodeId, MergeError> {
        let lower = self.tree.child(parent, name);
        match lower.filter(|id| self.tree.kind(*id) == Some(Kind::Directory)) {
            Some(lower) if kind == Kind::Directory => self.update_directory(lower, node, below),
            _ => self.add(kind, node),
        }
    }

    /// A directory on a directory: new metadata if the layer has any, the old names unless hidden. A
    /// directory without its names has a new number: so they are gone at once.
    fn update_directory(
        &mut self,
        id: InodeId,
        node: Option<u64>,
        below: Below,
    ) -> Result<InodeId, MergeError> {
        let layer = self.layer_number()?;
        let known = self.tree.inodes.get(id.index()).copied().ok_or_else(|| self.damaged())?;
        let changed = match (node, below) {
            (None, Below::Kept | Below::Hidden) => known,
            (node, _) => Inode { kind: Kind::Directory, layer, node },
        };
        match below {
            Below::Kept => {
                if let Some(inode) = self.tree.inodes.get_mut(id.index()) {
                    *inode = changed;
                }
                Ok(id)
            }
            Below::Hidden | Below::Replaced => self.push(changed),
        }
    }

    fn add(&mut self, kind: Kind, node: Option<u64>) -> Result<InodeId, MergeError> {
        let layer = self.layer_number()?;
        self.push(Inode { kind, layer, node })
    }

    fn push(&mut self, inode: Inode) -> Result<InodeId, MergeError> {
        let id = u32::try_from(self.tree.inodes.len()).map_err(|_| self.damaged())?;
        self.tree.inodes.push(inode);
        Ok(InodeId(id))
    }

    fn layer_number(&self) -> Result<u16, MergeError> {
        u16::try_from(self.position).map_err(|_| self.damaged()) // The limit on layers is far below.
    }

    fn number(&self, number: u32) -> Result<InodeId, MergeError> {
        self.numbers.get(number as usize).copied().ok_or_else(|| self.damaged())
    }

    fn damaged(&self) -> MergeError {
        self.unreadable(ReadIndexError::Damaged)
    }

    fn unreadable(&self, source: ReadIndexError) -> MergeError {
        MergeError::Index { layer: self.position + 1, source }
    }
}

fn reversed(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let components = path.split(|byte| *byte == b'/');
    components.filter(|component| !matches!(*component, b"" | b".")).rev().map(<[u8]>::to_vec)
}
