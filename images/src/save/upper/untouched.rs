//! Names that the upper directory lacks: of files that the image has several names of and the container
//! changed by another.
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::FileType;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::entry::{Writer, changed};
use super::links::{Same, same};
use super::walk::{Walk, find};
use super::{SaveUpperError, Trees, unread};
use crate::layer::WHITEOUT_PREFIX;

/// By what they are in the merged tree: the name that the layer has, and how many it lacks.
type Wanted = HashMap<Same, (Box<[u8]>, u64)>;

/// Writes them as hard links, with their directories where the layer lacks these too.
pub fn add(writer: &mut Writer<'_>, trees: Trees<'_>) -> Result<(), SaveUpperError> {
    // What is remembered of them stays so until the end, and counts.
    let (mut links, held) = writer.take_links();
    let Some(first) = links.next() else { return Ok(()) };
    let merged = alone(trees.merged)
        .map_err(|error| unread(b".", "clone the mount of the container's root", error))?;
    let mut wanted = Wanted::new();
    for link in std::iter::once(first).chain(links) {
        writer.look_at_cancel()?;
        let found = find(merged.as_fd(), &link.first)?.ok_or_else(|| changed(&link.first))?;
        let lacks = found.stat.st_nlink.saturating_sub(link.seen);
        if lacks > 0 {
            wanted.insert(same(&found.stat), (link.first, lacks));
        }
    }
    look(writer, (merged.as_fd(), trees.upper), (wanted, held))
}

/// The tree without what is mounted in it.
fn alone(merged: BorrowedFd<'_>) -> Result<OwnedFd, rustix::io::Errno> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(merged, "", flags)
}

fn look(
    writer: &mut Writer<'_>,
    (merged, upper): (BorrowedFd<'_>, BorrowedFd<'_>),
    (mut wanted, held): (Wanted, u64),
) -> Result<(), SaveUpperError> {
    let limits = writer.limits;
    let mut walk = Walk::new(merged, limits)?;
    let root = walk.root()?;
    walk.enter(&root, held)?;
    let mut last_directory = Vec::new();
    while !wanted.is_empty() {
        let Some(found) = walk.next()? else { return Ok(()) };
        writer.look_at_cancel()?;
        if walk.name().starts_with(WHITEOUT_PREFIX) {
            continue;
        }
        if found.kind() == FileType::Directory {
            walk.enter(&found, held)?;
            continue;
        }
        let Some((first, lacks)) = wanted.get_mut(&same(&found.stat)) else { continue };
        if find(upper, walk.path())?.is_some() {
            continue; // It is in the layer.
        }
        parents(writer, (merged, upper), walk.path(), &mut last_directory)?;
        // The upper directory's, whose attributes are as they are: the merged tree shows the container's own as overlayfs's.
        let written = find(upper, first)?.ok_or_else(|| changed(first))?;
        writer.hard_link(&written, walk.path(), first)?;
        *lacks -= 1;
        if *lacks == 0 {
            wanted.remove(&same(&found.stat));
        }
    }
    Ok(())
}

/// Writes the directories of a path that are not in the layer: loaders would make them up.
fn parents(
    writer: &mut Writer<'_>,
    (merged, upper): (BorrowedFd<'_>, BorrowedFd<'_>),
    path: &[u8],
    last: &mut Vec<u8>,
) -> Result<(), SaveUpperError> {
    for (slash, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
        let (directory, _) = path.split_at(slash);
        // The walk goes down before it goes on: what was written last is in all that may be written again.
        let is_written =
            last.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"));
        if is_written || find(upper, directory)?.is_some() {
            continue;
        }
        let Some(found) = find(merged, directory)? else { continue };
        writer.directory(&found, directory)?;
        last.clear();
        last.extend_from_slice(directory);
    }
    Ok(())
}
