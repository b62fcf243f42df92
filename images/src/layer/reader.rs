//! The tar reader, for layers and for archives of images: 512-byte blocks in, members out,
//! extension headers taken in.
//!
//! As Docker's and skopeo's reader does it, so that what they show is what runs here: GNU long names win over PAX records, PAX records over the header, and
//! links, devices, directories and FIFOs have no body whatever their size field says. What it takes
//! for one thing and older readers for another is refused: extension headers that belong to no
//! entry, that come twice, or that a global header parts from their entry.
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek};
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::{ArchiveProblem, EntryName, EntryProblem, IndexLayerError};
use super::header::{Header, TAR_BLOCK, text, unsigned};
use super::pax::{PaxRecords, PaxSparse};
use super::sparse::{self, MapReader, SparseMap};
use super::split::SplitWriter;
use super::{Device, Timestamp, Xattr};
use crate::limits::Limits;

/// Read at once from the stream; larger requests go round the buffer.
const BUFFER_BYTES: usize = 256 << 10;

/// One entry with everything that its headers say. Its body is read from the archive afterwards.
#[derive(Debug)]
pub struct Member {
    pub name: Vec<u8>,
    pub kind: MemberKind,
    pub link: Vec<u8>,
    pub mode: u16,
    pub uid: u64,
    pub gid: u64,
    pub modified: Timestamp,
    pub xattrs: Vec<Xattr>,
    pub device: Device,
    /// For a file that is not sparse: its length.
    pub body_bytes: u64,
    pub sparse: Option<SparseMap>,
}

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberKind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// Extension headers that wait for their entry.
#[derive(Debug, Default)]
struct Extensions {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Option<PaxRecords>,
}

impl Extensions {
    fn is_empty(&self) -> bool {
        matches!(self, Extensions { long_name: None, long_link: None, pax: None })
    }
}

/// Where the blocks come from.
enum Input<'a> {
    Stream(BufReader<&'a mut dyn Read>),
    /// Bodies that nobody reads are passed over. Its length is known.
    File(BufReader<&'a File>, u64),
}

/// A tar stream.
pub struct TarReader<'a> {
    input: Input<'a>,
    offset: u64,
    limits: &'a Limits,
    cancelled: &'a AtomicBool,
    /// Of the current member or extension header.
    body_left: u64,
    padding_left: u64,
    /// Name of the current member, for messages; `None` in an extension header.
    current: Option<Vec<u8>>,
    /// Takes note of every byte.
    split: Option<SplitWriter<'a>>,
}

impl<'a> TarReader<'a> {
    /// Reads a stream to its end.
    pub fn new(stream: &'a mut dyn Read, limits: &'a Limits, cancelled: &'a AtomicBool) -> TarReader<'a> {
        TarReader::of(Input::Stream(BufReader::with_capacity(BUFFER_BYTES, stream)), limits, cancelled)
    }

    /// Reads a file from its start.
    ///
    /// # Errors
    ///
    /// Those of going to its start and asking for its length.
    pub fn of_file(
        mut file: &'a File,
        limits: &'a Limits,
        cancelled: &'a AtomicBool,
    ) -> io::Result<TarReader<'a>> {
        file.rewind()?;
        let length = file.metadata()?.len();
        Ok(TarReader::of(Input::File(BufReader::new(file), length), limits, cancelled))
    }

    fn of(input: Input<'a>, limits: &'a Limits, cancelled: &'a AtomicBool) -> TarReader<'a> {
        let (body_left, padding_left) = (0, 0);
        TarReader { input, offset: 0, limits, cancelled, body_left, padding_left, current: None, split: None }
    }

    /// The same with somebody who takes note of every byte of a stream.
    pub fn noted_by(self, split: Option<SplitWriter<'a>>) -> TarReader<'a> {
        TarReader { split, ..self }
    }

    /// Where the next byte is read: after [`TarReader::next_member`], where the member's body begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Skips what is left of the member before and reads the next one's headers.
    pub fn next_member(&mut self) -> Result<Option<Member>, IndexLayerError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_body()?;
            let Some(header) = self.next_header()? else {
                return match extensions.is_empty() {
                    true => Ok(None),
                    false => Err(self.problem(ArchiveProblem::DanglingExtension)),
                };
            };
            let is_new = match header.kind() {
                b'g' => {
                    self.begin_extension(&header, self.limits.pax_bytes)?;
                    extensions.is_empty() // Of global records only comments would count.
                }
                b'x' => {
                    let block = self.extension(&header, self.limits.pax_bytes)?;
                    let records = PaxRecords::parse(&block).map_err(|problem| self.problem(problem))?;
                    extensions.pax.replace(records).is_none()
                }
                b'L' => extensions.long_name.replace(self.long_name(&header)?).is_none(),
                b'K' => extensions.long_link.replace(self.long_name(&header)?).is_none(),
                _ => return self.member(&header, extensions).map(Some),
            };
            if !is_new {
                return Err(self.problem(ArchiveProblem::DanglingExtension));
            }
        }
    }

    /// Reads a part of the current body into `space`: at least one byte, unless one of the two has none.
    pub fn read_body(&mut self, space: &mut [u8]) -> Result<usize, IndexLayerError> {
        self.read_body_for(space, None)
    }

    /// The same of what goes into the data file, at that place.
    pub fn read_body_to(&mut self, space: &mut [u8], at: u64) -> Result<usize, IndexLayerError> {
        self.read_body_for(space, Some(at))
    }

    fn read_body_for(&mut self, space: &mut [u8], stored: Option<u64>) -> Result<usize, IndexLayerError> {
        let wanted = space.len().min(usize::try_from(self.body_left).unwrap_or(usize::MAX));
        let (space, _) = space.split_at_mut(wanted);
        let count = self.read_for(space, stored)?;
        if count == 0 && wanted > 0 {
            return Err(self.truncated_member());
        }
        self.body_left -= count as u64;
        Ok(count)
    }

    /// Reads the stream to its end, behind the archive's own end. Then whoever took note of it is done as well.
    pub fn drain(&mut self) -> Result<(), IndexLayerError> {
        let mut block = vec![0; BUFFER_BYTES];
        while self.read_some(&mut block)? > 0 {}
        self.split.take().map_or(Ok(()), SplitWriter::finish)
    }

    fn member(&mut self, header: &Header, extensions: Extensions) -> Result<Member, IndexLayerError> {
        let pax = extensions.pax.unwrap_or_default();
        let number = |result: Result<u64, ArchiveProblem>| result.map_err(|problem| self.problem(problem));
        let (uid, gid) = (number(header.uid())?, number(header.gid())?);
        let size = number(header.size())?;
        let mode = header.mode().map_err(|problem| self.problem(problem))?;
        let modified = header.modified().map_err(|problem| self.problem(problem))?;
        let device = header.device().map_err(|problem| self.problem(problem))?;

        let names = [extensions.long_name, pax.sparse.name.clone(), pax.path];
        let name = names.into_iter().flatten().next().unwrap_or_else(|| header.name());
        self.current = Some(name.clone());
        let kind = kind(header.kind(), &name)
            .ok_or_else(|| IndexLayerError::entry(&name, unknown_type(header.kind())))?;
        let sparse = match kind {
            MemberKind::File => {
                self.begin_body(pax.size.unwrap_or(size));
                self.sparse_map(header, &pax.sparse)?
            }
            _ => None,
        };
        let link = extensions.long_link.or(pax.link).unwrap_or_else(|| header.link());
        Ok(Member {
            name,
            kind,
            link,
            mode,
            uid: pax.uid.unwrap_or(uid),
            gid: pax.gid.unwrap_or(gid),
            modified: pax.modified.unwrap_or(modified),
            xattrs: pax.xattrs,
            device,
            body_bytes: self.body_left,
            sparse,
        })
    }

    /// The map of a sparse file in whichever form; afterwards the body holds the pieces only.
    fn sparse_map(&mut self, header: &Header, pax: &PaxSparse) -> Result<Option<SparseMap>, IndexLayerError> {
        let (size, pieces) = if header.kind() == b'S' {
            let gnu = header.gnu().ok_or_else(|| self.wrong_map())?;
            let size = unsigned(&gnu.realsize, "sparse size").map_err(|problem| self.problem(problem))?;
            (Some(size), self.gnu_map(gnu)?)
        } else if (pax.major, pax.minor) == (Some(1), Some(0)) {
            (pax.real_size, self.map_in_body()?)
        } else if let Some(pieces) = &pax.pieces {
            (pax.real_size, pieces.clone())
        } else {
            return Ok(None);
        };
        let size = size.ok_or_else(|| self.wrong_map())?;
        SparseMap::check(size, pieces, self.body_left).map(Some).ok_or_else(|| self.wrong_map())
    }

    fn gnu_map(&mut self, header: &tar::GnuHeader) -> Result<Vec<sparse::Piece>, IndexLayerError> {
        let mut pieces = Vec::new();
        sparse::gnu_pieces(&header.sparse, &mut pieces).map_err(|problem| self.problem(problem))?;
        let mut is_extended = header.isextended[0] == 1;
        let mut bytes = 0;
        while is_extended {
            bytes += TAR_BLOCK as u64;
            self.check_extension(bytes, self.limits.pax_bytes)?;
            let mut block = tar::GnuExtSparseHeader::new();
            if !self.fill(block.as_mut_bytes())? {
                return Err(self.truncated_member());
            }
            sparse::gnu_pieces(&block.sparse, &mut pieces).map_err(|problem| self.problem(problem))?;
            is_extended = block.isextended[0] == 1;
        }
        Ok(pieces)
    }

    fn map_in_body(&mut self) -> Result<Vec<sparse::Piece>, IndexLayerError> {
        let mut reader = MapReader::default();
        let mut bytes = 0;
        loop {
            bytes += TAR_BLOCK as u64;
            self.check_extension(bytes, self.limits.pax_bytes)?;
            let mut block = [0; TAR_BLOCK];
            if self.body_left < TAR_BLOCK as u64 || !self.fill(&mut block)? {
                return Err(self.truncated_member());
            }
            self.body_left -= TAR_BLOCK as u64;
            if let Some(pieces) = reader.take(&block).map_err(|problem| self.problem(problem))? {
                return Ok(pieces);
            }
        }
    }

    /// The next header, or `None` at two zero blocks or where the stream ends between blocks.
    fn next_header(&mut self) -> Result<Option<Header>, IndexLayerError> {
        let mut block = [0; TAR_BLOCK];
        if !self.fill(&mut block)? {
            return Ok(None);
        }
        if block != [0; TAR_BLOCK] {
            return Header::parse(&block).map(Some).map_err(|problem| self.problem(problem));
        }
        if self.fill(&mut block)? && block != [0; TAR_BLOCK] {
            return Err(self.problem(ArchiveProblem::SingleZeroBlock));
        }
        Ok(None)
    }

    fn long_name(&mut self, header: &Header) -> Result<Vec<u8>, IndexLayerError> {
        let name = self.extension(header, self.limits.long_name_bytes)?;
        Ok(text(&name).to_vec())
    }

    /// The whole body of an extension header.
    fn extension(&mut self, header: &Header, limit: u64) -> Result<Vec<u8>, IndexLayerError> {
        let length = self.begin_extension(header, limit)?;
        let mut body = vec![0; length];
        if !self.fill(&mut body)? && length > 0 {
            return Err(self.truncated_member());
        }
        self.body_left = 0;
        Ok(body)
    }

    fn begin_extension(&mut self, header: &Header, limit: u64) -> Result<usize, IndexLayerError> {
        let length = header.size().map_err(|problem| self.problem(problem))?;
        self.check_extension(length, limit)?;
        self.current = None;
        self.begin_body(length);
        usize::try_from(length).map_err(|_| self.problem(ArchiveProblem::ExtensionTooLong { length, limit }))
    }

    fn check_extension(&self, length: u64, limit: u64) -> Result<(), IndexLayerError> {
        if length > limit {
            return Err(self.problem(ArchiveProblem::ExtensionTooLong { length, limit }));
        }
        Ok(())
    }

    fn begin_body(&mut self, length: u64) {
        self.body_left = length;
        self.padding_left = length.wrapping_neg() % TAR_BLOCK as u64;
    }

    fn skip_body(&mut self) -> Result<(), IndexLayerError> {
        self.pass_over()?;
        let mut block = [0; TAR_BLOCK];
        let padding = usize::try_from(std::mem::take(&mut self.padding_left)).unwrap_or(TAR_BLOCK);
        let (mut padding, _) = block.split_at_mut(padding.min(TAR_BLOCK));
        while !padding.is_empty() {
            let count = self.read_some(padding)?;
            if count == 0 {
                return Ok(()); // The archive ends with the body, as `umoci insert` writes it and Go reads it.
            }
            (_, padding) = padding.split_at_mut(count);
        }
        Ok(())
    }

    fn pass_over(&mut self) -> Result<(), IndexLayerError> {
        if let Input::File(file, length) = &mut self.input {
            if length.saturating_sub(self.offset) < self.body_left {
                return Err(self.truncated_member());
            }
            let bytes = i64::try_from(self.body_left).unwrap_or(i64::MAX); // Within the file.
            let offset = self.offset;
            file.seek_relative(bytes).map_err(|source| IndexLayerError::Read { offset, source })?;
            self.offset += std::mem::take(&mut self.body_left);
        }
        let mut block = [0; 8 * TAR_BLOCK];
        while self.body_left > 0 {
            self.read_body(&mut block)?;
        }
        Ok(())
    }

    /// Fills `space`, or returns false where the stream ends before its first byte.
    fn fill(&mut self, space: &mut [u8]) -> Result<bool, IndexLayerError> {
        let mut rest = space;
        let whole = rest.len();
        while !rest.is_empty() {
            let count = self.read_some(rest)?;
            if count == 0 && rest.len() == whole {
                return Ok(false);
            }
            if count == 0 {
                return Err(self.problem(ArchiveProblem::Truncated { within: "a block".into() }));
            }
            (_, rest) = rest.split_at_mut(count);
        }
        Ok(true)
    }

    fn read_some(&mut self, space: &mut [u8]) -> Result<usize, IndexLayerError> {
        self.read_for(space, None)
    }

    /// Reads some bytes, which will lie in the data file at `stored` or nowhere.
    fn read_for(&mut self, space: &mut [u8], stored: Option<u64>) -> Result<usize, IndexLayerError> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(IndexLayerError::Cancelled);
        }
        let count = loop {
            let read = match &mut self.input {
                Input::Stream(stream) => stream.read(space),
                Input::File(file, _) => file.read(space),
            };
            match read {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        let offset = self.offset;
        let count = count.map_err(|source| IndexLayerError::Read { offset, source })?;
        self.offset = offset.saturating_add(count as u64);
        if self.offset > self.limits.unpacked_bytes {
            return Err(self.problem(ArchiveProblem::TooLong { limit: self.limits.unpacked_bytes }));
        }
        match (&mut self.split, stored) {
            (None, _) => {}
            (Some(split), Some(at)) => split.stored(at, count as u64)?,
            (Some(split), None) => split.verbatim(space.get(..count).unwrap_or_default())?,
        }
        Ok(count)
    }

    fn wrong_map(&self) -> IndexLayerError {
        IndexLayerError::entry(self.current.as_deref().unwrap_or_default(), EntryProblem::SparseMap)
    }

    fn truncated_member(&self) -> IndexLayerError {
        let within = self.current.as_deref().map(|name| EntryName::new(name).to_string());
        let within = within.unwrap_or_else(|| "an extension header".into());
        self.problem(ArchiveProblem::Truncated { within })
    }

    fn problem(&self, problem: ArchiveProblem) -> IndexLayerError {
        IndexLayerError::Archive { offset: self.offset, problem }
    }
}

/// Whether a stream that starts like this may be a tar archive: with a header, or with the end of an empty one.
pub fn may_be_tar(start: &[u8]) -> bool {
    let block = start.first_chunk::<TAR_BLOCK>();
    block.is_some_and(|block| *block == [0; TAR_BLOCK] || Header::parse(block).is_ok())
}

/// The meaning of a type byte. In the oldest archives a directory is a file whose name ends in a slash.
fn kind(byte: u8, name: &[u8]) -> Option<MemberKind> {
    Some(match byte {
        0 if name.ends_with(b"/") => MemberKind::Directory,
        0 | b'0' | b'7' | b'S' => MemberKind::File,
        b'1' => MemberKind::HardLink,
        b'2' => MemberKind::Symlink,
        b'3' => MemberKind::CharDevice,
        b'4' => MemberKind::BlockDevice,
        b'5' => MemberKind::Directory,
        b'6' => MemberKind::Fifo,
        _ => return None,
    })
}

fn unknown_type(byte: u8) -> EntryProblem {
    EntryProblem::UnknownType { kind: byte.escape_ascii().to_string() }
}
