//! Names in a layer: taken apart, and what the special ones mean.
//!
//! Source: OCI image specification, "Representing Changes", whiteouts.
use super::error::EntryProblem;
use crate::limits::Limits;

pub const WHITEOUT_PREFIX: &[u8] = b".wh.";
const WHITEOUT_META_PREFIX: &[u8] = b".wh..wh.";
pub const OPAQUE_MARK: &[u8] = b".wh..wh..opq";
/// Where aufs keeps files that have several names in a layer.
const AUFS_LINKS: &[u8] = b".wh..wh.plnk";

/// What a path means, once it is taken apart.
pub enum Role<'a> {
    Root,
    Entry {
        parents: &'a [&'a [u8]],
        name: &'a [u8],
    },
    Whiteout {
        parents: &'a [&'a [u8]],
        name: &'a [u8],
    },
    OpaqueMark {
        directory: &'a [&'a [u8]],
    },
    /// A file that only hard links show.
    Aside {
        name: &'a [u8],
    },
    /// Book-keeping of aufs.
    Ignored,
}

/// Takes a path apart. What comes out can be neither absolute nor lead upwards.
pub fn components<'a>(path: &'a [u8], limits: &Limits) -> Result<Vec<&'a [u8]>, EntryProblem> {
    check_length("path", path.len(), limits.path_bytes)?;
    if path.is_empty() {
        return Err(EntryProblem::EmptyName);
    }
    if path.contains(&0) {
        return Err(EntryProblem::ZeroByte);
    }
    let components = path.split(|byte| *byte == b'/');
    let components: Vec<_> = components.filter(|component| !matches!(*component, b"" | b".")).collect();
    for component in &components {
        if *component == b".." {
            return Err(EntryProblem::LeavesLayer);
        }
        // The mark is on top of what a name may have: the longest names can be removed too.
        let name = component.strip_prefix(WHITEOUT_PREFIX).unwrap_or(component);
        check_length("component", name.len(), limits.component_bytes)?;
    }
    Ok(components)
}

/// Whether a directory may be made under this name, wherever it comes from.
pub fn check_component(name: &[u8], limits: &Limits) -> Result<(), EntryProblem> {
    check_length("component", name.len(), limits.component_bytes)?;
    if name.starts_with(WHITEOUT_PREFIX) {
        return Err(EntryProblem::BelowWhiteout);
    }
    Ok(())
}

pub fn check_length(what: &'static str, length: usize, limit: usize) -> Result<(), EntryProblem> {
    if length > limit { Err(EntryProblem::TooLong { what, length, limit }) } else { Ok(()) }
}

/// What a path means.
pub fn role<'a>(components: &'a [&'a [u8]]) -> Result<Role<'a>, EntryProblem> {
    let Some((name, parents)) = components.split_last() else { return Ok(Role::Root) };
    if parents == [AUFS_LINKS] {
        return Ok(Role::Aside { name });
    }
    if parents.iter().any(|parent| parent.starts_with(WHITEOUT_META_PREFIX)) {
        return Ok(Role::Ignored);
    }
    if parents.iter().any(|parent| parent.starts_with(WHITEOUT_PREFIX)) {
        return Err(EntryProblem::BelowWhiteout);
    }
    let Some(hidden) = name.strip_prefix(WHITEOUT_PREFIX) else { return Ok(Role::Entry { parents, name }) };
    match hidden {
        _ if *name == OPAQUE_MARK => Ok(Role::OpaqueMark { directory: parents }),
        _ if name.starts_with(WHITEOUT_META_PREFIX) => Ok(Role::Ignored),
        b"" | b"." | b".." => Err(EntryProblem::BadWhiteout),
        hidden => Ok(Role::Whiteout { parents, name: hidden }),
    }
}
