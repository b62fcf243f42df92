//! The layer's tree while its entries come in: names are resolved, replaced, linked and whited out here.
//!
//! Parents are resolved inside the layer: a symbolic link *of this layer* leads on within the layer's
//! root, a directory that is missing is made. Links of lower layers are never followed.
//!
//! What an entry describes goes to the index at once; here remain names and kinds.
use std::io;

use super::budget::{Budget, Share};
use super::error::{EntryName, EntryProblem, IndexLayerError};
use super::names::{check_component, check_length};
use super::stored::{Head, IndexWriter, ReadIndexError};
use super::{Below, Content, FOLLOW_COST, Kind, Metadata, Name, Node, Target};
use crate::disk::Watch;
use crate::limits::Limits;
use crate::name_table::NameTable;

const ROOT: u32 = 0;
/// A directory in which names have a meaning to hard links only: what aufs kept aside.
const ASIDE: u32 = u32::MAX;

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

/// What is remembered of a node; the index has the rest, at `record`.
#[derive(Debug, Clone, Copy)]
struct NodeSlot {
    /// `None` for a directory that only the paths of others imply.
    record: Option<u64>,
    is: Is,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Thing(Kind),
    OpaqueDirectory,
    /// A hard link to a path of a lower layer, which the record holds as a symbolic link would.
    LowerLink,
}

impl Is {
    fn is_directory(self) -> bool {
        matches!(self, Is::Thing(Kind::Directory) | Is::OpaqueDirectory)
    }
}

/// A layer's tree under construction.
pub struct Builder<'a> {
    budget: &'a Budget,
    /// What this layer has taken of the budget, until it is finished.
    share: Share,
    index: IndexWriter<'a>,
    disk: Option<Watch<'a>>,
    nodes: Vec<NodeSlot>,
    /// Values are nodes, marks are whiteouts; both together mean one for lower layers only.
    names: NameTable,
    lower_links: u64,
    components_walked: u64,
    dropped_xattrs: u64,
}

impl Drop for Builder<'_> {
    fn drop(&mut self) {
        self.budget.give_back(self.share);
    }
}

impl<'a> Builder<'a> {
    pub fn new(budget: &'a Budget, index: IndexWriter<'a>, disk: Option<Watch<'a>>) -> Builder<'a> {
        Builder {
            budget,
            share: Share::default(),
            index,
            disk,
            nodes: vec![NodeSlot { record: None, is: Is::Thing(Kind::Directory) }],
            names: NameTable::default(),
            lower_links: 0,
            components_walked: 0,
            dropped_xattrs: 0,
        }
    }

    pub fn limits(&self) -> &'a Limits {
        self.budget.limits()
    }

    /// Counts a share against the limits, before anything of it is kept or written.
    pub fn admit(&mut self, entry: &[u8], share: Share) -> Result<(), IndexLayerError> {
        self.share = self.share.and(share);
        let taken = self.budget.take(share);
        taken.map_err(|(what, limit)| IndexLayerError::TooLarge { entry: EntryName::new(entry), what, limit })
    }

    pub fn count_dropped_xattrs(&mut self, count: u64) {
        self.dropped_xattrs += count;
    }

    /// The layer's root directory.
    pub fn describe_root(&mut self, node: &Node) -> Result<(), IndexLayerError> {
        let record = self.record(node)?;
        if let Some(root) = self.nodes.first_mut() {
            root.record = Some(record);
        }
        Ok(())
    }

    /// Resolves the directory that `parents` lead to, and makes what is missing of it.
    pub fn directory(&mut self, entry: &[u8], parents: &[&[u8]]) -> Result<u32, IndexLayerError> {
        let mut walk = Walk::new(parents);
        while let Some(name) = self.advance(entry, &mut walk)? {
            // A link's target may bring components that no entry's name could have.
            check_component(&name, self.limits())
                .map_err(|problem| IndexLayerError::entry(entry, problem))?;
            self.admit(entry, Share::of_entry(name.len()))?;
            let made = self.push(NodeSlot { record: None, is: Is::Thing(Kind::Directory) });
            self.names.set(walk.here(), &name, made);
            walk.enter(made, name);
        }
        Ok(walk.here())
    }

    /// The place of an entry, its parents resolved.
    pub fn place(&mut self, entry: &[u8], parents: &[&[u8]], name: &[u8]) -> Result<Place, IndexLayerError> {
        Ok(Place { directory: self.directory(entry, parents)?, name: name.into() })
    }

    /// The place of a file that only hard links lead to.
    pub fn place_aside(name: &[u8]) -> Place {
        Place { directory: ASIDE, name: name.into() }
    }

    /// What aufs kept aside under a name.
    pub fn aside(&self, name: &[u8]) -> Option<LinkTarget> {
        self.names.value(ASIDE, name).map(LinkTarget::Node)
    }

    /// What a hard link's target is: a thing of this layer, or a path for the lower ones.
    pub fn link_target(&mut self, entry: &[u8], path: &[&[u8]]) -> Result<LinkTarget, IndexLayerError> {
        let to_directory = || IndexLayerError::entry(entry, EntryProblem::LinkToDirectory);
        let Some((name, parents)) = path.split_last() else { return Err(to_directory()) };
        let mut walk = Walk::new(parents);
        if let Some(missing) = self.advance(entry, &mut walk)? {
            return Ok(LinkTarget::Lower(walk.path_with(Some(missing), name)));
        }
        match self.node_at(walk.here(), name) {
            None => Ok(LinkTarget::Lower(walk.path_with(None, name))),
            Some((_, slot)) if slot.is.is_directory() => Err(to_directory()),
            Some((node, _)) => Ok(LinkTarget::Node(node)),
        }
    }

    /// A directory keeps what it holds if it was one. In the place of anything else of this layer it
    /// is a new one, in which nothing of the lower layers' directory comes back.
    pub fn put_directory(&mut self, place: &Place, metadata: Metadata) -> Result<(), IndexLayerError> {
        let record = Some(self.record(&Node { metadata, content: Content::Directory })?);
        match self.node_at(place.directory, &place.name) {
            Some((node, slot)) if slot.is.is_directory() => self.change(node, NodeSlot { record, ..slot }),
            Some(_) => self.put(place, NodeSlot { record, is: Is::OpaqueDirectory }),
            None => self.put(place, NodeSlot { record, is: Is::Thing(Kind::Directory) }),
        }
        Ok(())
    }

    /// Puts a new thing at its place; what had the name before goes.
    pub fn put_node(&mut self, place: &Place, node: &Node) -> Result<(), IndexLayerError> {
        let record = Some(self.record(node)?);
        self.put(place, NodeSlot { record, is: Is::Thing(node.content.kind()) });
        Ok(())
    }

    /// Gives an existing thing a second name.
    pub fn put_link(&mut self, place: &Place, target: LinkTarget) -> Result<(), IndexLayerError> {
        match target {
            LinkTarget::Node(node) => self.names.set(place.directory, &place.name, node),
            LinkTarget::Lower(path) => {
                let metadata = Metadata::of_implied_directory();
                let record = Some(self.record(&Node { metadata, content: Content::Symlink(path) })?);
                self.put(place, NodeSlot { record, is: Is::LowerLink });
            }
        }
        Ok(())
    }

    /// Hides the lower layers' entry of that name.
    pub fn put_whiteout(&mut self, place: &Place) {
        self.names.mark(place.directory, &place.name);
    }

    /// Hides all entries that lower layers have in a directory.
    pub fn hide_below(&mut self, directory: u32) {
        if let Some(slot) = self.nodes.get(directory as usize).copied().filter(|slot| slot.is.is_directory())
        {
            self.change(directory, NodeSlot { is: Is::OpaqueDirectory, ..slot });
        }
    }

    /// Writes the names in tree order, and the head.
    pub fn finish(mut self, data_blocks: u32) -> Result<(), IndexLayerError> {
        let holds = self.directories_that_hold_something();
        let names = std::mem::take(&mut self.names).sort();
        let mut numbers = vec![None; self.nodes.len()];
        let mut count = 0;
        let mut next = 1; // The root has number 0.
        let mut directories = vec![(ROOT, 0)];
        while let Some((directory, parent)) = directories.pop() {
            for named in names.of(directory) {
                let gone = named.is_marked && named.value.is_some_and(|node| self.is_idle(node, &holds));
                let target = match named.value.filter(|_| !gone) {
                    None if named.is_marked => Target::Whiteout,
                    None => continue, // Never given a thing, because the entry was refused.
                    Some(node) => self.target(node, named.is_marked, &mut numbers, &mut next)?,
                };
                if let (Target::New { kind: Kind::Directory, .. }, Some(node)) = (&target, named.value) {
                    directories.push((node, next - 1));
                }
                count += 1;
                let name = Name { parent, name: named.name.into(), target };
                self.index.name(&name).map_err(|source| self.unwritten(source))?;
                self.watch_disk()?;
            }
        }
        self.write_head(count, data_blocks)
    }

    fn write_head(&mut self, names: u64, data_blocks: u32) -> Result<(), IndexLayerError> {
        let root = self.nodes.first().copied();
        let is_opaque = root.is_some_and(|root| root.is == Is::OpaqueDirectory);
        let head = Head {
            entries: self.share.entries,
            names,
            lower_links: self.lower_links,
            memory_bytes: self.share.memory_bytes,
            unpacked_bytes: self.share.unpacked_bytes,
            dropped_xattrs: self.dropped_xattrs,
            data_blocks,
            root: root.and_then(|root| root.record),
            root_below: if is_opaque { Below::Hidden } else { Below::Kept },
            place: Default::default(),
        };
        self.index.finish(head).map_err(|source| self.unwritten(source))?;
        self.share = Share::default(); // The image keeps it.
        Ok(())
    }

    /// What a name stands for in the index; a node's first name brings it there.
    fn target(
        &mut self,
        node: u32,
        is_marked: bool,
        numbers: &mut [Option<u32>],
        next: &mut u32,
    ) -> Result<Target, IndexLayerError> {
        let Some(slot) = self.nodes.get(node as usize).copied() else { return Ok(Target::Whiteout) };
        let kind = match slot.is {
            Is::LowerLink => return self.lower_link(slot),
            Is::OpaqueDirectory => Kind::Directory,
            Is::Thing(kind) => kind,
        };
        let Some(number) = numbers.get_mut(node as usize) else { return Ok(Target::Whiteout) };
        if let Some(known) = *number {
            return Ok(Target::Same(known));
        }
        *number = Some(*next);
        *next += 1;
        let below = match slot.is {
            _ if is_marked => Below::Replaced,
            Is::OpaqueDirectory => Below::Hidden,
            _ => Below::Kept,
        };
        Ok(Target::New { kind, node: slot.record, below })
    }

    fn lower_link(&mut self, slot: NodeSlot) -> Result<Target, IndexLayerError> {
        self.lower_links += 1;
        match self.read(slot)?.map(|node| node.content) {
            Some(Content::Symlink(path)) => Ok(Target::Lower(path)),
            _ => Ok(Target::Whiteout), // `put_link` has written it.
        }
    }

    /// By node: whether anything but marks and implied directories lies in it.
    fn directories_that_hold_something(&self) -> Vec<bool> {
        let mut holds = vec![false; self.nodes.len()];
        // A directory's own name is older than all that lies in it.
        for named in self.names.youngest_first() {
            let Some(node) = named.value else { continue };
            if !self.is_idle(node, &holds)
                && let Some(directory) = holds.get_mut(named.directory as usize)
            {
                *directory = true;
            }
        }
        holds
    }

    /// Whether a directory was made only to hold whiteouts.
    fn is_idle(&self, node: u32, holds: &[bool]) -> bool {
        let slot = self.nodes.get(node as usize);
        slot.is_some_and(|slot| slot.is == Is::Thing(Kind::Directory) && slot.record.is_none())
            && !holds.get(node as usize).copied().unwrap_or(true)
    }

    /// Walks as far as this layer has directories. `Some` is the name that the last one lacks.
    fn advance(&mut self, entry: &[u8], walk: &mut Walk) -> Result<Option<Vec<u8>>, IndexLayerError> {
        let refuse = |problem| IndexLayerError::entry(entry, problem);
        while let Some(name) = walk.components.pop() {
            self.components_walked += 1;
            let limit = self.limits().components_walked;
            if self.components_walked > limit {
                let entry = EntryName::new(entry);
                return Err(IndexLayerError::TooLarge { entry, what: "paths' components", limit });
            }
            if name == b".." {
                walk.at.pop();
                continue;
            }
            let Some((node, slot)) = self.node_at(walk.here(), &name) else { return Ok(Some(name)) };
            match slot.is {
                is if is.is_directory() => walk.enter(node, name),
                Is::Thing(Kind::Symlink) => match self.read(slot)?.map(|node| node.content) {
                    Some(Content::Symlink(target)) => {
                        self.components_walked += FOLLOW_COST;
                        walk.follow(&target, self.limits()).map_err(refuse)?;
                    }
                    _ => return Err(refuse(EntryProblem::ParentNotDirectory)),
                },
                _ => return Err(refuse(EntryProblem::ParentNotDirectory)),
            }
        }
        Ok(None)
    }

    fn put(&mut self, place: &Place, slot: NodeSlot) {
        let node = self.push(slot);
        self.names.set(place.directory, &place.name, node);
    }

    /// Numbers fit: [`Limits::entries`] is far below 2^32.
    fn push(&mut self, slot: NodeSlot) -> u32 {
        let number = u32::try_from(self.nodes.len()).unwrap_or(ASIDE);
        self.nodes.push(slot);
        number
    }

    fn change(&mut self, node: u32, slot: NodeSlot) {
        if let Some(known) = self.nodes.get_mut(node as usize) {
            *known = slot;
        }
    }

    fn node_at(&self, directory: u32, name: &[u8]) -> Option<(u32, NodeSlot)> {
        let node = self.names.value(directory, name)?;
        self.nodes.get(node as usize).map(|slot| (node, *slot))
    }

    fn record(&mut self, node: &Node) -> Result<u64, IndexLayerError> {
        let written = self.index.node(node);
        let at = written.map_err(|source| self.unwritten(source))?;
        self.watch_disk()?;
        Ok(at)
    }

    fn read(&mut self, slot: NodeSlot) -> Result<Option<Node>, IndexLayerError> {
        let Some(at) = slot.record else { return Ok(None) };
        self.index.read(at).map(Some).map_err(|error| match error {
            ReadIndexError::Read(source) => self.unwritten(source),
            other => self.unwritten(io::Error::other(other)),
        })
    }

    fn watch_disk(&mut self) -> Result<(), IndexLayerError> {
        let bytes = self.index.bytes();
        self.disk.as_mut().map_or(Ok(()), |disk| disk.reached(bytes)).map_err(IndexLayerError::DiskFull)
    }

    fn unwritten(&self, source: io::Error) -> IndexLayerError {
        IndexLayerError::Write { file: "index", offset: self.index.bytes(), source }
    }
}

/// A path that is being resolved within the layer.
struct Walk {
    /// Still to go, last first; a link puts its own on top.
    components: Vec<Vec<u8>>,
    /// The directories gone through, below the root.
    at: Vec<(u32, Vec<u8>)>,
    followed: u32,
    /// Bytes of the path and of all targets followed.
    length: usize,
}

impl Walk {
    fn new(components: &[&[u8]]) -> Walk {
        let length = components.iter().map(|component| component.len() + 1).sum();
        let components = components.iter().rev().map(|component| component.to_vec()).collect();
        Walk { components, at: Vec::new(), followed: 0, length }
    }

    fn here(&self) -> u32 {
        self.at.last().map_or(ROOT, |(node, _)| *node)
    }

    fn enter(&mut self, directory: u32, name: Vec<u8>) {
        self.at.push((directory, name));
    }

    fn follow(&mut self, target: &[u8], limits: &Limits) -> Result<(), EntryProblem> {
        self.followed += 1;
        if self.followed > limits.links_followed {
            return Err(EntryProblem::LinkLoop { limit: limits.links_followed });
        }
        // Links that multiply a path's components would make every entry below them dear.
        self.length += target.len();
        check_length("path with its links", self.length, limits.followed_bytes)?;
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
