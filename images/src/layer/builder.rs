//! The layer's tree while its entries come in: names are resolved, replaced, linked and whited out here.
//!
//! Parents are resolved inside the layer: a symbolic link *of this layer* leads on within the layer's
//! root, a directory that is missing is made. Links of lower layers are never followed.
use std::collections::BTreeMap;

use super::error::{EntryName, EntryProblem, IndexLayerError};
use super::names::check_component;
use super::{Below, Content, LayerIndex, Metadata, Name, Node, Target};
use crate::limits::Limits;

const ROOT: u32 = 0;

/// Where an entry goes: a name in a directory that exists.
#[derive(Debug)]
pub struct Place {
    directory: u32,
    name: Box<[u8]>,
}

/// What a hard link leads to.
#[derive(Debug)]
pub enum LinkTarget {
    Node(u32),
    Lower(Box<[u8]>),
}

/// A name of a directory; both may be there, then the whiteout is for lower layers only.
#[derive(Debug, Default)]
struct Child {
    is_whiteout: bool,
    target: Option<LinkTarget>,
}

type Children = BTreeMap<Box<[u8]>, Child>;

/// A layer's tree under construction.
pub struct Builder<'a> {
    limits: &'a Limits,
    nodes: Vec<Node>,
    /// By node; empty for what is no directory.
    children: Vec<Children>,
    names_made: u64,
    index_bytes: u64,
    unpacked_bytes: u64,
    dropped_xattrs: u64,
}

impl<'a> Builder<'a> {
    pub fn new(limits: &'a Limits) -> Builder<'a> {
        let root = Node { metadata: None, content: Content::Directory { below: Below::Kept } };
        Builder {
            limits,
            nodes: vec![root],
            children: vec![Children::new()],
            names_made: 0,
            index_bytes: 0,
            unpacked_bytes: 0,
            dropped_xattrs: 0,
        }
    }

    /// Counts one entry against the limits, before anything of it is kept or written.
    pub fn admit(&mut self, entry: &[u8], file_bytes: u64, index_bytes: u64) -> Result<(), IndexLayerError> {
        self.unpacked_bytes = self.unpacked_bytes.saturating_add(file_bytes);
        self.index_bytes = self.index_bytes.saturating_add(index_bytes);
        self.names_made += 1;
        let counts = [
            ("files' bytes", self.unpacked_bytes, self.limits.unpacked_bytes),
            ("names and attributes", self.index_bytes, self.limits.index_bytes),
            ("entries", self.names_made, self.limits.entries),
        ];
        match counts.into_iter().find(|(_, count, limit)| count > limit) {
            Some((what, _, limit)) => {
                Err(IndexLayerError::TooLarge { entry: EntryName::new(entry), what, limit })
            }
            None => Ok(()),
        }
    }

    pub fn count_dropped_xattrs(&mut self, count: u64) {
        self.dropped_xattrs += count;
    }

    /// Metadata of the layer's root directory.
    pub fn describe_root(&mut self, metadata: Metadata) {
        if let Some(root) = self.nodes.first_mut() {
            root.metadata = Some(metadata);
        }
    }

    /// Resolves the directory that `parents` lead to, and makes what is missing of it.
    pub fn directory(&mut self, entry: &[u8], parents: &[&[u8]]) -> Result<u32, IndexLayerError> {
        let refuse = |problem| IndexLayerError::entry(entry, problem);
        let mut walk = Walk::new(parents);
        while let Some(name) = self.advance(&mut walk).map_err(refuse)? {
            // A link's target may bring components that no entry's name could have.
            check_component(&name, self.limits).map_err(refuse)?;
            self.admit(entry, 0, name.len() as u64)?;
            let made = self.make_directory(walk.here(), name.as_slice().into());
            walk.enter(made, name);
        }
        Ok(walk.here())
    }

    /// The place of an entry, its parents resolved.
    pub fn place(&mut self, entry: &[u8], parents: &[&[u8]], name: &[u8]) -> Result<Place, IndexLayerError> {
        Ok(Place { directory: self.directory(entry, parents)?, name: name.into() })
    }

    /// What a hard link's target is: a thing of this layer, or a path for the lower ones.
    pub fn link_target(&self, path: &[&[u8]]) -> Result<LinkTarget, EntryProblem> {
        let Some((name, parents)) = path.split_last() else { return Err(EntryProblem::LinkToDirectory) };
        let mut walk = Walk::new(parents);
        if let Some(missing) = self.advance(&mut walk)? {
            return Ok(LinkTarget::Lower(walk.path_with(Some(missing), name)));
        }
        match self.target(walk.here(), name) {
            None => Ok(LinkTarget::Lower(walk.path_with(None, name))),
            Some(LinkTarget::Lower(path)) => Ok(LinkTarget::Lower(path.clone())),
            Some(LinkTarget::Node(node)) => match self.content(*node) {
                Some(Content::Directory { .. }) => Err(EntryProblem::LinkToDirectory),
                _ => Ok(LinkTarget::Node(*node)),
            },
        }
    }

    /// A directory keeps what it holds if it was one. In the place of anything else of this layer it
    /// is a new one, in which nothing of the lower layers' directory comes back.
    pub fn put_directory(&mut self, place: Place, metadata: Metadata) {
        let before = self.target(place.directory, &place.name);
        let below = if before.is_some() { Below::Hidden } else { Below::Kept };
        if let Some(LinkTarget::Node(number)) = before
            && let number = *number as usize
            && let Some(node) = self.nodes.get_mut(number)
            && matches!(node.content, Content::Directory { .. })
        {
            node.metadata = Some(metadata);
            return;
        }
        self.put_node(place, Node { metadata: Some(metadata), content: Content::Directory { below } });
    }

    /// Puts a new thing at its place; what had the name before goes.
    pub fn put_node(&mut self, place: Place, node: Node) {
        let number = self.push(node);
        self.put_link(place, LinkTarget::Node(number));
    }

    /// Gives an existing thing a second name.
    pub fn put_link(&mut self, place: Place, target: LinkTarget) {
        if let Some(children) = self.children.get_mut(place.directory as usize) {
            children.entry(place.name).or_default().target = Some(target);
        }
    }

    /// Hides the lower layers' entry of that name.
    pub fn put_whiteout(&mut self, place: Place) {
        if let Some(children) = self.children.get_mut(place.directory as usize) {
            children.entry(place.name).or_default().is_whiteout = true;
        }
    }

    /// Hides all entries that lower layers have in a directory.
    pub fn hide_below(&mut self, directory: u32) {
        if let Some(node) = self.nodes.get_mut(directory as usize)
            && matches!(node.content, Content::Directory { .. })
        {
            node.content = Content::Directory { below: Below::Hidden };
        }
    }

    /// The index, names in tree order.
    pub fn finish(mut self, data_blocks: u32) -> LayerIndex {
        let mut names = Vec::new();
        let mut directories = vec![ROOT];
        while let Some(parent) = directories.pop() {
            let children = self.children.get_mut(parent as usize).map(std::mem::take).unwrap_or_default();
            for (name, child) in children {
                let target = match child.target {
                    None => Target::Whiteout,
                    Some(LinkTarget::Lower(path)) => Target::Lower(path),
                    Some(LinkTarget::Node(number)) => {
                        if let Some(node) = self.nodes.get_mut(number as usize)
                            && matches!(node.content, Content::Directory { .. })
                        {
                            directories.push(number);
                            if child.is_whiteout {
                                replace_below(node);
                            }
                        }
                        Target::Node(number)
                    }
                };
                names.push(Name { parent, name, target });
            }
        }
        LayerIndex {
            nodes: self.nodes,
            names,
            data_blocks,
            unpacked_bytes: self.unpacked_bytes,
            dropped_xattrs: self.dropped_xattrs,
        }
    }

    /// Walks as far as this layer has directories. `Some` is the name that the last one lacks.
    fn advance(&self, walk: &mut Walk) -> Result<Option<Vec<u8>>, EntryProblem> {
        while let Some(name) = walk.components.pop() {
            if name == b".." {
                walk.at.pop();
                continue;
            }
            let node = match self.target(walk.here(), &name) {
                None => return Ok(Some(name)),
                Some(LinkTarget::Lower(_)) => return Err(EntryProblem::ParentNotDirectory),
                Some(LinkTarget::Node(node)) => *node,
            };
            match self.content(node) {
                Some(Content::Directory { .. }) => walk.enter(node, name),
                Some(Content::Symlink(target)) => walk.follow(target, self.limits.links_followed)?,
                _ => return Err(EntryProblem::ParentNotDirectory),
            }
        }
        Ok(None)
    }

    fn make_directory(&mut self, parent: u32, name: Box<[u8]>) -> u32 {
        let number = self.push(Node { metadata: None, content: Content::Directory { below: Below::Kept } });
        self.put_link(Place { directory: parent, name }, LinkTarget::Node(number));
        number
    }

    /// Numbers fit: [`Limits::entries`] is far below 2^32.
    fn push(&mut self, node: Node) -> u32 {
        let number = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        self.nodes.push(node);
        self.children.push(Children::new());
        number
    }

    fn target(&self, directory: u32, name: &[u8]) -> Option<&LinkTarget> {
        self.children.get(directory as usize)?.get(name)?.target.as_ref()
    }

    fn content(&self, node: u32) -> Option<&Content> {
        self.nodes.get(node as usize).map(|node| &node.content)
    }
}

/// A directory with a whiteout of its own name is a new one: nothing of the lower one stays, not even its mode.
fn replace_below(directory: &mut Node) {
    directory.content = Content::Directory { below: Below::Hidden };
    directory.metadata.get_or_insert_with(Metadata::of_implied_directory);
}

/// A path that is being resolved within the layer.
struct Walk {
    /// Still to go, last first; a link puts its own on top.
    components: Vec<Vec<u8>>,
    /// The directories gone through, below the root.
    at: Vec<(u32, Vec<u8>)>,
    followed: u32,
}

impl Walk {
    fn new(components: &[&[u8]]) -> Walk {
        let components = components.iter().rev().map(|component| component.to_vec()).collect();
        Walk { components, at: Vec::new(), followed: 0 }
    }

    fn here(&self) -> u32 {
        self.at.last().map_or(ROOT, |(node, _)| *node)
    }

    fn enter(&mut self, directory: u32, name: Vec<u8>) {
        self.at.push((directory, name));
    }

    fn follow(&mut self, target: &[u8], limit: u32) -> Result<(), EntryProblem> {
        self.followed += 1;
        if self.followed > limit {
            return Err(EntryProblem::LinkLoop { limit });
        }
        if target.starts_with(b"/") {
            self.at.clear();
        }
        let components = target.split(|byte| *byte == b'/');
        let components = components.filter(|component| !matches!(*component, b"" | b"."));
        self.components.extend(components.rev().map(<[u8]>::to_vec));
        Ok(())
    }

    /// Where the walk has come to, what is left to go, and a last name.
    fn path_with(self, missing: Option<Vec<u8>>, name: &[u8]) -> Box<[u8]> {
        let gone = self.at.into_iter().map(|(_, name)| name);
        let left = missing.into_iter().chain(self.components.into_iter().rev());
        gone.chain(left).chain([name.to_vec()]).collect::<Vec<_>>().join(&b'/').into()
    }
}
