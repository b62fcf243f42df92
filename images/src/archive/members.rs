//! The members of a tar file by name: where each lies, without reading its content.
//!
//! Of an archive of images only regular files matter, and links to them: `docker save` writes a
//! layer that occurs twice as a link to the first. Extension headers are bounded and joined here;
//! the `tar` crate would read them whole, however large.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};

use crate::limits::Limits;

use super::ArchiveError;

const BLOCK_BYTES: u64 = 512;

/// Members by name, without a leading `./`.
#[derive(Debug)]
pub(super) struct Members {
    by_name: HashMap<String, Member>,
}

/// A regular file's place in the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub offset: u64,
    pub size: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Member {
    File(Content),
    /// The name of another member.
    Link(String),
}

/// What extension headers say about the next member.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Members {
    /// Walks the headers of an uncompressed tar file.
    pub(super) fn index(path: &Path, file: &File, limits: &Limits) -> Result<Members, ArchiveError> {
        let walk = Walk { path: path.to_owned(), file, limits };
        let mut by_name = HashMap::new();
        let mut extensions = Extensions::default();
        let mut offset = 0;
        while let Some(header) = walk.header(offset)? {
            let content = offset + BLOCK_BYTES;
            let size = match extensions.size {
                Some(size) => size,
                None => header.entry_size().map_err(|error| walk.bad(offset, error))?,
            };
            match header.entry_type() {
                EntryType::XHeader => walk.pax(content, size, &mut extensions)?,
                EntryType::GNULongName => extensions.name = Some(walk.text(content, size)?),
                EntryType::GNULongLink => extensions.link = Some(walk.text(content, size)?),
                EntryType::XGlobalHeader => {}
                _ => {
                    let found = std::mem::take(&mut extensions);
                    walk.add(&mut by_name, &header, found, Content { offset: content, size })?;
                }
            }
            let blocks = size.div_ceil(BLOCK_BYTES).checked_mul(BLOCK_BYTES);
            offset = blocks
                .and_then(|bytes| content.checked_add(bytes))
                .ok_or_else(|| walk.bad(offset, io::Error::other("a member's size is absurd")))?;
        }
        Ok(Members { by_name })
    }

    /// The regular file of that name, or that a link of that name leads to.
    pub(super) fn get(&self, name: &str) -> Option<Content> {
        match self.by_name.get(name)? {
            Member::File(content) => Some(*content),
            Member::Link(target) => match self.by_name.get(target)? {
                Member::File(content) => Some(*content),
                Member::Link(_) => None,
            },
        }
    }
}

struct Walk<'a> {
    path: PathBuf,
    file: &'a File,
    limits: &'a Limits,
}

impl Walk<'_> {
    /// The header at an offset; `None` at a block of zeros, or at the end of the file.
    fn header(&self, offset: u64) -> Result<Option<Header>, ArchiveError> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + filled as u64).map_err(|error| self.bad(offset, error))? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(self.bad(offset, io::Error::other("the file ends inside a header"))),
                read => filled += read,
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
            .sum();
        match header.cksum() {
            Ok(expected) if expected == sum => Ok(Some(header)),
            _ => Err(self.bad(offset, io::Error::other("a header's checksum is wrong"))),
        }
    }

    fn add(
        &self,
        members: &mut HashMap<String, Member>,
        header: &Header,
        extensions: Extensions,
        content: Content,
    ) -> Result<(), ArchiveError> {
        let name = extensions.name.unwrap_or_else(|| header.path_bytes().into_owned());
        // Image archives name their members in ASCII; no document could name another one.
        let Ok(name) = String::from_utf8(name) else { return Ok(()) };
        let name = name.trim_start_matches("./").to_owned();
        let link = || {
            let target =
                extensions.link.clone().or_else(|| header.link_name_bytes().map(|name| name.into_owned()));
            target.and_then(|target| String::from_utf8(target).ok()).unwrap_or_default()
        };
        let member = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous => Member::File(content),
            EntryType::Link => Member::Link(link().trim_start_matches("./").to_owned()),
            EntryType::Symlink => match beside(&name, &link()) {
                Some(target) => Member::Link(target),
                None => return Ok(()),
            },
            _ => return Ok(()),
        };
        if members.len() >= self.limits.archive_members {
            let error = format!("it has more than {} members", self.limits.archive_members);
            return Err(self.bad(content.offset, io::Error::other(error)));
        }
        if members.contains_key(&name)
            && matches!(name.as_str(), "manifest.json" | "index.json" | "oci-layout")
        {
            return Err(ArchiveError::Twice { path: self.path.clone(), member: name });
        }
        members.insert(name, member);
        Ok(())
    }

    /// The records that concern us of a PAX header: `LENGTH KEY=VALUE\n`.
    fn pax(&self, offset: u64, size: u64, extensions: &mut Extensions) -> Result<(), ArchiveError> {
        let block = self.bounded(offset, size, self.limits.pax_bytes)?;
        for record in tar::PaxExtensions::new(&block) {
            let record = record.map_err(|error| self.bad(offset, error))?;
            match record.key_bytes() {
                b"path" => extensions.name = Some(record.value_bytes().to_vec()),
                b"linkpath" => extensions.link = Some(record.value_bytes().to_vec()),
                b"size" => {
                    let size = record.value().ok().and_then(|value| value.parse().ok());
                    let error = || self.bad(offset, io::Error::other("a PAX size is not a number"));
                    extensions.size = Some(size.ok_or_else(error)?);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A GNU long name: text that ends at a NUL.
    fn text(&self, offset: u64, size: u64) -> Result<Vec<u8>, ArchiveError> {
        let text = self.bounded(offset, size, self.limits.long_name_bytes)?;
        Ok(text.split(|byte| *byte == 0).next().unwrap_or_default().to_vec())
    }

    fn bounded(&self, offset: u64, size: u64, limit: u64) -> Result<Vec<u8>, ArchiveError> {
        let length = usize::try_from(size).ok().filter(|_| size <= limit);
        let too_large = || self.bad(offset, io::Error::other("an extension header is too large"));
        let mut content = vec![0; length.ok_or_else(too_large)?];
        self.file.read_exact_at(&mut content, offset).map_err(|error| self.bad(offset, error))?;
        Ok(content)
    }

    fn bad(&self, offset: u64, error: io::Error) -> ArchiveError {
        let reason = format!("{error}, at byte {offset}");
        ArchiveError::Format { path: self.path.clone(), format: "a tar file", reason }
    }
}

/// The member that a symbolic link beside `name` leads to; `None` if it leaves the archive.
fn beside(name: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn index(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Result<Members, ArchiveError> {
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
        let size = |name: &str| members.get(name).map(|content| content.size);
        assert_eq!((size("a/layer.tar"), size("b/layer.tar"), size("c")), (Some(5), Some(5), Some(5)));
        assert_eq!(size(&long), Some(3));
        for name in ["twice", "out", "absolute", "none", "../../etc/passwd", "/etc/passwd"] {
            assert_eq!(size(name), None, "{name}");
        }
    }

    #[test]
    fn s16_two_manifests_are_refused() {
        let twice = index(|builder| {
            add(builder, "manifest.json", b"[]");
            add(builder, "./manifest.json", b"[]");
        });
        assert!(matches!(twice, Err(ArchiveError::Twice { .. })));
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
