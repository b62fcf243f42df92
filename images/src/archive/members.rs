//! The members of a tar file by name: where each lies, without reading its content.
//!
//! Of an archive of images only regular files matter, and links to them: `docker save` writes a
//! layer that occurs twice as a link to the first. Names are compared as Go's `path.Clean` leaves
//! them, which is how skopeo and Docker look for a member; a name that comes twice is refused where
//! it is asked for, because readers would take different ones.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::json::shortened;
use crate::layer::{IndexLayerError, Member, MemberKind, TarReader};
use crate::limits::Limits;

use super::ArchiveError;

/// Bytes of all names together, those that links lead to included: one alone may have 64 KiB.
const MOST_NAME_BYTES: usize = 16 << 20;

/// Members by their clean names.
#[derive(Debug)]
pub(super) struct Members<P> {
    by_name: HashMap<String, Named<P>>,
    name_bytes: usize,
}

/// A regular file's place in the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub offset: u64,
    pub size: u64,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Named<P> {
    File(P),
    /// The clean name of another member.
    Link(String),
    Twice,
}

/// What a member is to an archive of images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A regular file with so many bytes.
    File(u64),
    /// Another name for the member of that clean name.
    Link(String),
}

impl Members<Extent> {
    /// Walks the headers of an uncompressed tar file.
    pub(super) fn index(path: &Path, file: &File, limits: &Limits) -> Result<Members<Extent>, ArchiveError> {
        let never = AtomicBool::new(false);
        let mut reader = TarReader::of_file(file, limits, &never)
            .map_err(|source| ArchiveError::Open { path: path.to_owned(), source })?;
        let mut members = Members::default();
        while let Some(member) = reader.next_member().map_err(|error| ArchiveError::of_tar(path, error))? {
            let Some((name, role)) = named(path, member)? else { continue };
            match role {
                Role::File(size) => {
                    members.add(path, name, Extent { offset: reader.offset(), size }, limits)?;
                }
                Role::Link(target) => members.link(path, name, target, limits)?,
            }
        }
        Ok(members)
    }
}

impl<P> Default for Members<P> {
    fn default() -> Members<P> {
        Members { by_name: HashMap::new(), name_bytes: 0 }
    }
}

impl<P> Members<P> {
    /// Adds a regular file by its clean name.
    pub(super) fn add(
        &mut self,
        path: &Path,
        name: String,
        place: P,
        limits: &Limits,
    ) -> Result<(), ArchiveError> {
        self.put(path, name, Named::File(place), limits)
    }

    /// Adds another name for the member of a clean name.
    pub(super) fn link(
        &mut self,
        path: &Path,
        name: String,
        target: String,
        limits: &Limits,
    ) -> Result<(), ArchiveError> {
        self.put(path, name, Named::Link(target), limits)
    }

    fn put(
        &mut self,
        path: &Path,
        name: String,
        named: Named<P>,
        limits: &Limits,
    ) -> Result<(), ArchiveError> {
        if self.by_name.len() >= limits.archive_members {
            return Err(bad(path, format!("it has more than {} members", limits.archive_members)));
        }
        let target = match &named {
            Named::Link(target) => target.len(),
            Named::File(_) | Named::Twice => 0,
        };
        self.name_bytes = self.name_bytes.saturating_add(name.len()).saturating_add(target);
        if self.name_bytes > MOST_NAME_BYTES {
            return Err(bad(path, format!("its members' names have more than {MOST_NAME_BYTES} bytes")));
        }
        self.by_name.entry(name).and_modify(|known| *known = Named::Twice).or_insert(named);
        Ok(())
    }

    /// The regular file of that name, or that a link of that name leads to.
    ///
    /// # Errors
    ///
    /// [`Ambiguous`] where one of the two names stands for several members.
    pub(super) fn get(&self, name: &str) -> Result<Option<&P>, Ambiguous> {
        let mut name = &clean(name);
        for _ in ["the name", "one link"] {
            match self.by_name.get(name) {
                Some(Named::File(place)) => return Ok(Some(place)),
                Some(Named::Link(target)) => name = target,
                Some(Named::Twice) => return Err(Ambiguous),
                None => break,
            }
        }
        Ok(None)
    }
}

/// A member's clean name, and what it is; nothing for what no document could name.
pub(crate) fn named(path: &Path, member: Member) -> Result<Option<(String, Role)>, ArchiveError> {
    // Image archives name their members in ASCII; no document could name another one.
    let (Ok(name), Ok(link)) = (String::from_utf8(member.name), String::from_utf8(member.link)) else {
        return Ok(None);
    };
    let name = clean(&name);
    let role = match member.kind {
        MemberKind::File if member.sparse.is_some() => {
            return Err(bad(path, format!("{:?} is sparse", shortened(&name))));
        }
        MemberKind::File => Role::File(member.body_bytes),
        MemberKind::HardLink => Role::Link(clean(&link)),
        MemberKind::Symlink => Role::Link(beside(&name, &link)),
        MemberKind::CharDevice | MemberKind::BlockDevice | MemberKind::Directory | MemberKind::Fifo => {
            return Ok(None);
        }
    };
    Ok(Some((name, role)))
}

fn bad(path: &Path, reason: String) -> ArchiveError {
    ArchiveError::Format { path: path.to_owned(), format: "a tar file", reason }
}

impl ArchiveError {
    /// What the tar reader says, in the words of an archive.
    pub(crate) fn of_tar(path: &Path, error: IndexLayerError) -> ArchiveError {
        bad(path, reason(error))
    }
}

/// A name stands for several members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ambiguous;

/// What a layer's reader says, in the words of an archive.
fn reason(error: IndexLayerError) -> String {
    match error {
        IndexLayerError::Archive { offset, problem } => format!("{problem}, at byte {offset}"),
        IndexLayerError::Entry { entry, problem } => format!("its member {entry}: {problem}"),
        other => other.to_string(),
    }
}

/// As Go's `path.Clean`: one slash where there are several, no `.`, and `..` takes a name away.
fn clean(name: &str) -> String {
    let root = if name.starts_with('/') { "/" } else { "" };
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if !root.is_empty() => {}
            part => parts.push(part),
        }
    }
    format!("{root}{}", parts.join("/"))
}

/// Where a symbolic link beside `name` leads to, which may be no member's name.
fn beside(name: &str, target: &str) -> String {
    let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
    if target.starts_with('/') { clean(target) } else { clean(&format!("{directory}/{target}")) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tar::{EntryType, Header};

    use super::*;

    fn index(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Result<Members<Extent>, ArchiveError> {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&builder.into_inner().unwrap()).unwrap();
        Members::index(Path::new("x.tar"), &file, &Limits::default())
    }

    fn add(builder: &mut tar::Builder<Vec<u8>>, name: &str, content: &[u8]) {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content).unwrap();
    }

    fn link(builder: &mut tar::Builder<Vec<u8>>, kind: EntryType, name: &str, target: &str) {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        builder.append_link(&mut header, name, target).unwrap();
    }

    #[test]
    fn names_take_a_bounded_room_together_however_few_they_are() {
        let long = |number: usize| format!("{number}/{}", "n".repeat(60_000));
        for (kind, most) in [(EntryType::Regular, 279), (EntryType::Link, 139)] {
            let made = |count| {
                index(|builder| {
                    for number in 0..count {
                        match kind {
                            EntryType::Link => link(builder, kind, &long(number), &long(number)),
                            _ => add(builder, &long(number), b""),
                        }
                    }
                })
            };
            made(most).unwrap();
            let told = made(most + 1).unwrap_err().to_string();
            assert!(told.contains("its members' names have more than 16777216 bytes"), "{told}");
        }
    }

    #[test]
    fn files_are_found_by_short_and_long_names_and_through_one_link() {
        let long = format!("{}layer.tar", "d/".repeat(90));
        let members = index(|builder| {
            add(builder, "a/layer.tar", b"12345");
            add(builder, &long, b"123");
            link(builder, EntryType::Symlink, "b/layer.tar", "../a/layer.tar");
            link(builder, EntryType::Link, "c", "a/layer.tar");
            link(builder, EntryType::Symlink, "twice", "c");
            link(builder, EntryType::Symlink, "out", "../../etc/passwd");
            link(builder, EntryType::Symlink, "absolute", "/etc/passwd");
        })
        .unwrap();
        let size = |name: &str| members.get(name).map(|extent| extent.map(|extent| extent.size));
        assert_eq!(
            (size("a/layer.tar"), size("b/layer.tar"), size("c")),
            (Ok(Some(5)), Ok(Some(5)), Ok(Some(5)))
        );
        assert_eq!(size(&long), Ok(Some(3)));
        for name in ["twice", "out", "absolute", "none", "../../etc/passwd", "/etc/passwd"] {
            assert_eq!(size(name), Ok(None), "{name}");
        }
    }

    #[test]
    fn s16_a_name_that_comes_twice_is_refused_whatever_its_spelling() {
        for second in ["a/b", "./a/b", "a//b", "a/./b", "x/../a/b"] {
            let twice = index(|builder| {
                add(builder, "a/b", b"1");
                let mut header = Header::new_old();
                header.as_old_mut().name[..second.len()].copy_from_slice(second.as_bytes());
                header.set_size(1);
                header.set_cksum();
                builder.append(&header, &b"2"[..]).unwrap();
                add(builder, "c", b"3");
            });
            let twice = twice.unwrap();
            assert_eq!((twice.get("a/b"), twice.get("./c").is_ok()), (Err(Ambiguous), true), "{second}");
        }
    }

    #[test]
    fn names_are_cleaned_as_go_does() {
        let cases =
            [("./a", "a"), ("a//b/", "a/b"), ("a/../b", "b"), ("/../a", "/a"), ("../a", "../a"), (".", "")];
        for (name, expected) in cases {
            assert_eq!(clean(name), expected, "{name}");
        }
    }

    #[test]
    fn damaged_archives_are_errors() {
        for (name, content) in [("text", vec![b'x'; 700]), ("cut header", vec![b'x'; 100])] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&content).unwrap();
            let members = Members::index(Path::new("x.tar"), &file, &Limits::default());
            assert!(matches!(members, Err(ArchiveError::Format { .. })), "{name}");
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::XHeader);
        header.set_size(u64::MAX / 2);
        header.set_cksum();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(header.as_bytes()).unwrap();
        assert!(Members::index(Path::new("x.tar"), &file, &Limits::default()).is_err());
    }
}
