//! One entry of the upper directory as entries of the layer.
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    CWD, FileType, Mode, OFlags, SeekFrom, Stat, fstat, major, minor, openat, readlinkat, seek,
};
use rustix::io::{Errno, pread, retry_on_intr};

use super::attributes::{self, Attributes};
use super::links::{Incomplete, Links};
use super::output::{Output, too_large};
use super::walk::{Found, Walk};
use super::{LeftOut, SaveUpperError, Tree, WrittenLayer, unread};
use crate::layer::{Device, EntryName, EntryProblem, OPAQUE_MARK, Timestamp, WHITEOUT_PREFIX};
use crate::limits::Limits;
use crate::mount::path_of;
use crate::save::header::{BLOCK_DEVICE, CHAR_DEVICE, DIRECTORY, FIFO, FILE, HARD_LINK, Header, SYMLINK};

/// The unit of `st_blocks`.
const STAT_BLOCK: u64 = 512;

/// Writes entries, and remembers which files have more names to come.
pub struct Writer<'a> {
    tree: Tree,
    output: Output<'a>,
    pub limits: &'a Limits,
    links: Links,
    entries: u64,
    left_out: LeftOut,
}

impl<'a> Writer<'a> {
    pub fn new(tree: Tree, output: Output<'a>, limits: &'a Limits) -> Writer<'a> {
        Writer { tree, output, limits, links: Links::default(), entries: 0, left_out: LeftOut::default() }
    }

    /// Writes the root directory and goes into it.
    pub fn root(&mut self, walk: &mut Walk<'_>) -> Result<(), SaveUpperError> {
        let root = walk.root()?;
        self.enter(&root, walk)
    }

    /// Writes what the walk has found.
    pub fn add(&mut self, found: &Found, walk: &mut Walk<'_>) -> Result<(), SaveUpperError> {
        self.output.look_at_cancel()?;
        let path = walk.path();
        let is_upper = self.tree == Tree::Upper;
        match found.kind() {
            _ if is_upper && is_left_out(path) => self.leave_out(found, path),
            FileType::Socket => {
                self.left_out.sockets.add(path);
                if is_upper {
                    // What the image has by that name is gone.
                    self.whiteout(path)?;
                }
            }
            FileType::CharacterDevice if is_upper && found.stat.st_rdev == 0 => self.whiteout(path)?,
            FileType::Directory => self.enter(found, walk)?,
            kind => self.thing(found, kind, path)?,
        }
        // The walk's own share is looked at where it grows.
        let limit = self.limits.index_bytes;
        match self.links.held() + walk.held() > limit {
            true => Err(too_large(walk.path(), "bytes of names in memory", limit)),
            false => Ok(()),
        }
    }

    /// Ends the work if the caller wants that.
    pub fn look_at_cancel(&self) -> Result<(), SaveUpperError> {
        self.output.look_at_cancel()
    }

    /// Those files of which there are more links than names, and the memory that they take.
    pub fn take_links(&mut self) -> (impl Iterator<Item = Incomplete> + use<>, u64) {
        let held = self.links.held();
        (self.links.take_rest(), held)
    }

    /// Writes the end of the archive.
    pub fn finish(self) -> Result<WrittenLayer, SaveUpperError> {
        let (diff_id, bytes) = self.output.finish()?;
        Ok(WrittenLayer { diff_id, bytes, entries: self.entries, left_out: self.left_out })
    }

    /// Writes the entry of a directory; whether it hides what is below.
    pub fn directory(&mut self, found: &Found, path: &[u8]) -> Result<bool, SaveUpperError> {
        let attributes = self.attributes(found, path)?;
        let name = if path.is_empty() { b"./".to_vec() } else { [path, b"/"].concat() };
        self.header(&describe(DIRECTORY, &name, &found.stat, &attributes))?;
        Ok(attributes.is_opaque)
    }

    /// Writes one more name of a file that has been written. As Docker does, with all that is known of the file: some
    /// loaders take attributes away when they set its owner.
    pub fn hard_link(&mut self, found: &Found, path: &[u8], first: &[u8]) -> Result<(), SaveUpperError> {
        let attributes = match found.kind() {
            FileType::Symlink => Attributes::default(),
            _ => self.attributes(found, path)?,
        };
        self.header(&Header { link: first, ..describe(HARD_LINK, path, &found.stat, &attributes) })
    }

    /// The directory, the mark that it hides what is below, and then the walk goes on in it.
    fn enter(&mut self, found: &Found, walk: &mut Walk<'_>) -> Result<(), SaveUpperError> {
        if self.directory(found, walk.path())? {
            let mark = match walk.path() {
                b"" => OPAQUE_MARK.to_vec(),
                path => [path, b"/", OPAQUE_MARK].concat(),
            };
            self.header(&Header::mark(&mark))?;
        }
        walk.enter(found, self.links.held())
    }

    /// A name that would hide another file. It may be another one of a file that is in the layer: then it is known, and not
    /// looked for in the merged tree. A directory is not gone through: what lies below is bounded by nothing.
    fn leave_out(&mut self, found: &Found, path: &[u8]) {
        self.left_out.hiding_names.add(path);
        if found.kind() != FileType::Directory {
            self.links.see_left_out(&found.stat);
        }
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<(), SaveUpperError> {
        let start = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let (directory, name) = path.split_at(start);
        self.header(&Header::mark(&[directory, WHITEOUT_PREFIX, name].concat()))
    }

    /// Anything but a directory.
    fn thing(&mut self, found: &Found, kind: FileType, path: &[u8]) -> Result<(), SaveUpperError> {
        let stat = &found.stat;
        let attributes = match kind {
            FileType::Symlink => Attributes::default(), // Of those that are kept it can have none.
            _ => self.attributes(found, path)?,
        };
        if attributes.is_whiteout {
            return self.whiteout(path);
        }
        if let Some(first) = self.links.see(stat, path) {
            return self.header(&Header { link: &first, ..describe(HARD_LINK, path, stat, &attributes) });
        }
        match kind {
            FileType::RegularFile => self.file(found, path, &attributes),
            FileType::Symlink => {
                let target = readlinkat(&found.node, "", Vec::new());
                let target = target.map_err(|error| unread(path, "read the link", error))?;
                self.header(&Header { link: target.as_bytes(), ..describe(SYMLINK, path, stat, &attributes) })
            }
            FileType::CharacterDevice => self.header(&describe(CHAR_DEVICE, path, stat, &attributes)),
            FileType::BlockDevice => self.header(&describe(BLOCK_DEVICE, path, stat, &attributes)),
            FileType::Fifo => self.header(&describe(FIFO, path, stat, &attributes)),
            FileType::Directory | FileType::Socket | FileType::Unknown => {
                let kind = format!("{:o}", stat.st_mode);
                Err(refused(path, EntryProblem::UnknownType { kind }))
            }
        }
    }

    fn file(&mut self, found: &Found, path: &[u8], attributes: &Attributes) -> Result<(), SaveUpperError> {
        let size = found.stat.st_size.unsigned_abs();
        let limit = self.limits.unpacked_bytes;
        if size > limit.saturating_sub(self.output.bytes()) {
            return Err(too_large(path, "bytes of its files, holes included,", limit));
        }
        // By the descriptor: whatever has that name now, this is the regular file that was found.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(CWD, path_of(found.node.as_fd()), flags, Mode::empty());
        let file = file.map_err(|error| unread(path, "open to read", error))?;
        self.header(&Header { size, ..describe(FILE, path, &found.stat, attributes) })?;
        let blocks = found.stat.st_blocks.unsigned_abs();
        if blocks.saturating_mul(STAT_BLOCK) < size {
            self.pieces(&file, size, path)?;
        } else {
            self.copy(&file, (0, size), path)?;
        }
        let after = fstat(&file).map_err(|error| unread(path, "stat", error))?;
        if state(&after) != state(&found.stat) {
            return Err(changed(path));
        }
        self.output.pad()
    }

    /// A file with holes, which are not read.
    fn pieces(&mut self, file: &OwnedFd, size: u64, path: &[u8]) -> Result<(), SaveUpperError> {
        let mut at = 0;
        while at < size {
            let data = match seek(file, SeekFrom::Data(at)) {
                Err(Errno::NXIO) => size,
                result => result.map_err(|error| unread(path, "look for data", error))?.min(size),
            };
            self.output.zeros(data - at)?;
            if data == size {
                break;
            }
            let end = seek(file, SeekFrom::Hole(data));
            let end = end.map_err(|error| unread(path, "look for a hole", error))?.min(size);
            if end <= data {
                return Err(changed(path));
            }
            self.copy(file, (data, end), path)?;
            at = end;
        }
        Ok(())
    }

    fn copy(&mut self, file: &OwnedFd, (start, end): (u64, u64), path: &[u8]) -> Result<(), SaveUpperError> {
        let mut at = start;
        self.output.fill(end - start, |room| {
            let count = retry_on_intr(|| pread(file, &mut *room, at));
            match count.map_err(|error| unread(path, "read", error))? {
                0 => Err(changed(path)),
                count => {
                    at += count as u64;
                    Ok(count)
                }
            }
        })
    }

    fn attributes(&mut self, found: &Found, path: &[u8]) -> Result<Attributes, SaveUpperError> {
        let attributes = attributes::read(&found.node, path, (self.tree, self.limits))?;
        if attributes.lacks_some {
            self.left_out.attributes.add(path);
        }
        Ok(attributes)
    }

    fn header(&mut self, header: &Header<'_>) -> Result<(), SaveUpperError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(too_large(header.name, "entries", self.limits.entries));
        }
        let lengths = [
            ("path", header.name.len(), self.limits.path_bytes),
            ("link target", header.link.len(), self.limits.link_target_bytes),
        ];
        for (what, length, limit) in lengths {
            if length > limit {
                return Err(refused(header.name, EntryProblem::TooLong { what, length, limit }));
            }
        }
        let records = header.records();
        if records.len() as u64 > self.limits.pax_bytes {
            return Err(refused(header.name, EntryProblem::Xattrs));
        }
        let (bytes, limit) = (header.encode(&records), self.limits.unpacked_bytes);
        // Attributes are repeated with each link: headers alone may be without measure.
        if bytes.len() as u64 > limit.saturating_sub(self.output.bytes()) {
            return Err(too_large(header.name, "bytes", limit));
        }
        self.output.put(&bytes)
    }
}

fn describe<'a>(kind: u8, name: &'a [u8], stat: &Stat, attributes: &'a Attributes) -> Header<'a> {
    let device = match kind {
        CHAR_DEVICE | BLOCK_DEVICE => Device { major: major(stat.st_rdev), minor: minor(stat.st_rdev) },
        _ => Device { major: 0, minor: 0 },
    };
    Header {
        kind,
        name,
        link: b"",
        size: 0,
        mode: stat.st_mode & 0o7777,
        owner: (stat.st_uid, stat.st_gid),
        modified: Timestamp {
            seconds: stat.st_mtime,
            nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
        },
        device,
        xattrs: &attributes.kept,
    }
}

/// Whether marks and whiteouts begin like a path's last component.
fn is_left_out(path: &[u8]) -> bool {
    path.rsplit(|byte| *byte == b'/').next().is_some_and(|name| name.starts_with(WHITEOUT_PREFIX))
}

/// What is another after a file was written to.
fn state(stat: &Stat) -> [i128; 5] {
    [
        stat.st_size.into(),
        stat.st_mtime.into(),
        stat.st_mtime_nsec.into(),
        stat.st_ctime.into(),
        stat.st_ctime_nsec.into(),
    ]
}

pub fn changed(path: &[u8]) -> SaveUpperError {
    SaveUpperError::Changed { entry: EntryName::new(path) }
}

fn refused(path: &[u8], problem: EntryProblem) -> SaveUpperError {
    SaveUpperError::Entry { entry: EntryName::new(path), problem }
}
