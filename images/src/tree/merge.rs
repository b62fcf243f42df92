//! Layers on top of one another, as overlayfs would show them.
use super::{Entries, Inode, InodeId, InodeKind, Tree};
use crate::layer::{Below, Content, EntryName, LayerIndex, Metadata, Name, Node, Target};
use crate::limits::Limits;

/// Why layers do not make a tree.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// More layers, names or bytes than allowed.
    #[error("merge the image's layers: its {what} exceed the limit of {limit}")]
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
        /// The link's last component.
        entry: EntryName,
        /// Where it leads.
        target: EntryName,
    },
    /// Node numbers that do not exist: only a damaged index has them.
    #[error("merge layer {layer} of the image: its index is damaged; remove the image and pull it again")]
    Damaged {
        /// Position of the layer, 1 is the lowest.
        layer: usize,
    },
}

/// Merges layers, lowest first.
///
/// Hard links to lower layers lead to what those had before this layer changed anything.
///
/// # Errors
///
/// Limits on the whole image, and hard links to files that no layer has.
pub fn merge(layers: &[LayerIndex], limits: &Limits) -> Result<Tree, MergeError> {
    check_limits(layers, limits)?;
    let root =
        Inode { metadata: Metadata::of_implied_directory(), kind: InodeKind::Directory(Entries::new()) };
    let layer_blocks = layers.iter().map(LayerIndex::data_blocks).collect();
    let mut tree = Tree { inodes: vec![root], layer_blocks };
    for (position, layer) in layers.iter().enumerate() {
        Merge::new(&mut tree, layer, position).apply()?;
    }
    Ok(tree)
}

fn check_limits(layers: &[LayerIndex], limits: &Limits) -> Result<(), MergeError> {
    let sum = |count: fn(&LayerIndex) -> u64| layers.iter().map(count).fold(0, u64::saturating_add);
    let counts = [
        ("layers", layers.len() as u64, limits.layers as u64),
        ("files' bytes", sum(LayerIndex::unpacked_bytes), limits.unpacked_bytes),
        ("entries", sum(LayerIndex::entries), limits.entries),
    ];
    match counts.into_iter().find(|(_, count, limit)| count > limit) {
        Some((what, _, limit)) => Err(MergeError::TooLarge { what, limit }),
        None => Ok(()),
    }
}

/// One layer being put on a tree.
struct Merge<'a> {
    tree: &'a mut Tree,
    layer: &'a LayerIndex,
    position: usize,
    /// By node of the layer: its inode, once its first name was met.
    inodes: Vec<Option<InodeId>>,
}

impl<'a> Merge<'a> {
    fn new(tree: &'a mut Tree, layer: &'a LayerIndex, position: usize) -> Merge<'a> {
        Merge { tree, layer, position, inodes: vec![None; layer.nodes.len()] }
    }

    fn apply(mut self) -> Result<(), MergeError> {
        let lower_links = self.resolve_lower_links()?;
        let mut lower_links = lower_links.into_iter();
        let root = self.node(0)?;
        self.update_directory(InodeId::ROOT, root);
        self.remember(0, InodeId::ROOT);
        for name in &self.layer.names {
            let parent = self.inodes.get(name.parent as usize).copied().flatten();
            let parent = parent.ok_or_else(|| self.damaged())?;
            match &name.target {
                Target::Whiteout => {
                    self.entries(parent)?.remove(&name.name);
                }
                Target::Lower(_) => {
                    let target = lower_links.next().ok_or_else(|| self.damaged())?;
                    self.entries(parent)?.insert(name.name.clone(), target);
                }
                Target::Node(number) => self.put(parent, name, *number)?,
            }
        }
        Ok(())
    }

    /// Before anything changes: a rename is often a link to the old name and a whiteout of it.
    fn resolve_lower_links(&self) -> Result<Vec<InodeId>, MergeError> {
        let mut found = Vec::new();
        for name in &self.layer.names {
            let Target::Lower(path) = &name.target else { continue };
            let target = self.tree.lookup_no_follow(path).ok().flatten();
            let is_file = |id: &InodeId| self.tree.entries(*id).is_none();
            found.push(target.filter(is_file).ok_or_else(|| MergeError::NoLinkTarget {
                layer: self.position + 1,
                entry: EntryName::new(&name.name),
                target: EntryName::new(path),
            })?);
        }
        Ok(found)
    }

    fn put(&mut self, parent: InodeId, name: &Name, number: u32) -> Result<(), MergeError> {
        if let Some(known) = self.inodes.get(number as usize).copied().flatten() {
            if self.tree.entries(known).is_some() {
                return Err(self.damaged()); // A directory with two names would be a circle.
            }
            self.entries(parent)?.insert(name.name.clone(), known); // A hard link.
            return Ok(());
        }
        let node = self.node(number)?;
        let below = self.entries(parent)?.get(&name.name).copied();
        let below_directory = below.filter(|id| self.tree.entries(*id).is_some());
        let id = match (&node.content, below_directory) {
            (Content::Directory { .. }, Some(directory)) => {
                self.update_directory(directory, node);
                directory
            }
            _ => {
                let id = self.add(node)?;
                self.entries(parent)?.insert(name.name.clone(), id);
                id
            }
        };
        self.remember(number, id);
        Ok(())
    }

    /// A directory on a directory: new metadata if the layer has any, the old names unless hidden.
    fn update_directory(&mut self, id: InodeId, node: &Node) {
        if let Some(inode) = self.tree.inode_mut(id) {
            if let Some(metadata) = &node.metadata {
                inode.metadata = metadata.clone();
            }
            if let (Content::Directory { below: Below::Hidden }, InodeKind::Directory(entries)) =
                (&node.content, &mut inode.kind)
            {
                entries.clear();
            }
        }
    }

    fn add(&mut self, node: &Node) -> Result<InodeId, MergeError> {
        let kind = match &node.content {
            Content::Directory { .. } => InodeKind::Directory(Entries::new()),
            Content::File(data) => InodeKind::File { layer: self.position, data: data.clone() },
            Content::Symlink(target) => InodeKind::Symlink(target.clone()),
            Content::CharDevice(device) => InodeKind::CharDevice(*device),
            Content::BlockDevice(device) => InodeKind::BlockDevice(*device),
            Content::Fifo => InodeKind::Fifo,
        };
        let id = u32::try_from(self.tree.inodes.len()).map_err(|_| self.damaged())?;
        let metadata = node.metadata.clone().unwrap_or_else(Metadata::of_implied_directory);
        self.tree.inodes.push(Inode { metadata, kind });
        Ok(InodeId(id))
    }

    fn remember(&mut self, number: u32, id: InodeId) {
        if let Some(slot) = self.inodes.get_mut(number as usize) {
            *slot = Some(id);
        }
    }

    fn node(&self, number: u32) -> Result<&'a Node, MergeError> {
        self.layer.nodes.get(number as usize).ok_or_else(|| self.damaged())
    }

    fn entries(&mut self, id: InodeId) -> Result<&mut Entries, MergeError> {
        let layer = self.position + 1;
        self.tree.entries_mut(id).ok_or(MergeError::Damaged { layer })
    }

    fn damaged(&self) -> MergeError {
        MergeError::Damaged { layer: self.position + 1 }
    }
}
