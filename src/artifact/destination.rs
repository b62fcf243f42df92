//! Where `run` puts artifacts: below a directory of the operator's, or nowhere.
//!
//! Files land decoded under their names, as a client that honours `Content-Encoding` would see
//! them; a name that ends in `.gz` keeps its gzip bytes. Nothing below the directory is followed
//! that is a link: an earlier run's task may have had a say in what lies there. A name is had by a
//! whole file or by none: it is written beside its place (see [`draft`](crate::draft)).

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::ContentEncoding;
use super::copy::{Copied, Copy, CopyError, Patience, Piece};
use super::gzip::Compressors;
use super::place::Place;
use crate::queue::artifact_name::ArtifactName;

/// Where artifacts go.
#[derive(Debug)]
pub enum Destination {
    /// Nowhere: they are looked for, and not kept.
    Nowhere,
    /// Below a directory.
    Directory(OwnedFd),
}

/// Where an artifact's bytes are.
#[derive(Debug)]
pub enum Source {
    /// In a file of the task's, opened for reading.
    Task(File),
    /// In a file of the worker's own, opened for reading.
    Own(File),
    /// In the finished log of the task, a file of the worker's own.
    Log(PathBuf),
}

impl Source {
    pub(super) fn open(&self) -> io::Result<File> {
        match self {
            Source::Task(file) | Source::Own(file) => file.try_clone(),
            Source::Log(path) => File::open(path),
        }
    }
}

/// What was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Uncompressed length in bytes.
    pub size: u64,
    /// SHA-256 of the uncompressed bytes, in hexadecimal; absent when nothing was kept.
    pub sha256: Option<String>,
    /// Where it lies below the directory, if not under its name.
    pub stored_as: Option<String>,
}

/// Why `--artifacts DIR` cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("use the directory {} for artifacts; choose another with --artifacts", path.display())]
pub struct DestinationError {
    path: PathBuf,
    source: io::Error,
}

impl Destination {
    /// Opens a directory for artifacts; it is made if it is missing.
    ///
    /// # Errors
    ///
    /// When it is no directory, or cannot be made.
    pub fn directory(path: &Path) -> Result<Destination, DestinationError> {
        let open = || {
            std::fs::create_dir_all(path)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Ok(fs::open(path, flags, Mode::empty())?)
        };
        open()
            .map(Destination::Directory)
            .map_err(|source| DestinationError { path: path.to_owned(), source })
    }

    /// Stores a file's bytes under a name. Blocks.
    ///
    /// # Errors
    ///
    /// [`CopyError`]
    pub fn store(
        &self,
        name: &ArtifactName,
        source: Source,
        encoding: ContentEncoding,
        patience: &Patience,
    ) -> Result<Stored, CopyError> {
        let file = source.open().map_err(CopyError::Read)?;
        // What is appended meanwhile does not count: the length is what it is now.
        let size = file.metadata().map_err(CopyError::Read)?.len();
        let Destination::Directory(top) = self else {
            return Ok(Stored { size, sha256: None, stored_as: None });
        };
        let place = Place::of(top, name)?;
        let copy = Copy { source: &file, size, patience, place: Some(place.directory()) };
        let copied = if encoding == ContentEncoding::Gzip && name.as_str().ends_with(".gz") {
            let draft = place.draft()?;
            let copied = Compressors::default().gzip(&copy, draft.file())?;
            draft.keep()?;
            copied
        } else {
            match source {
                // A second name costs nothing, however long the log is; only its hash is left to make.
                Source::Log(path) if place.adopt(fs::CWD, &path)? => copy.to(|_, _| Ok(()))?,
                Source::Log(_) | Source::Own(_) | Source::Task(_) => store_as_it_is(&place, &copy)?,
            }
        };
        let Copied { size, sha256 } = copied;
        Ok(Stored { size, sha256: Some(sha256), stored_as: place.other_name(name) })
    }

    /// Makes a name stand for what another name has: a hard link.
    ///
    /// # Errors
    ///
    /// When the other one is missing or the file system has no hard links.
    pub fn link(&self, name: &ArtifactName, existing: &ArtifactName) -> io::Result<Option<String>> {
        let Destination::Directory(top) = self else { return Ok(None) };
        let (place, existing) = (Place::of(top, name)?, Place::of(top, existing)?);
        if !place.adopt(existing.directory(), existing.last())? {
            // A file system without hard links: a copy looks the same.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let source = fs::openat(existing.directory(), existing.last(), flags, Mode::empty())?;
            let draft = place.draft()?;
            io::copy(&mut File::from(source), &mut draft.file())?;
            draft.keep()?;
        }
        Ok(place.other_name(name))
    }

    /// Writes a file of the worker's own, such as `resolution.json`.
    ///
    /// # Errors
    ///
    /// When it cannot be created or written: then there is no such file, rather than half of one.
    pub fn write(&self, name: &ArtifactName, contents: &[u8]) -> io::Result<()> {
        let Destination::Directory(top) = self else { return Ok(()) };
        let place = Place::of(top, name)?;
        let draft = place.draft()?;
        draft.file().write_all(contents)?;
        draft.keep()
    }

    /// Removes a file that an earlier run has left, if there is one.
    ///
    /// # Errors
    ///
    /// When it resists.
    pub fn remove(&self, name: &ArtifactName) -> io::Result<()> {
        let Destination::Directory(top) = self else { return Ok(()) };
        let place = Place::of(top, name)?;
        if place.other_name(name).is_some() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        match fs::unlinkat(place.directory(), place.last(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            // A read-only file system says so before it looks for the name.
            Err(Errno::ROFS) if !place.is_taken()? => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn store_as_it_is(place: &Place, copy: &Copy<'_>) -> Result<Copied, CopyError> {
    let draft = place.draft()?;
    let mut file = draft.file();
    let copied = copy.to(|piece, bytes| match piece {
        Piece::Data => file.write_all(bytes),
        Piece::Hole => file.seek_relative(bytes.len().cast_signed() as i64),
    })?;
    // What ends in a hole is as long as it was.
    draft.file().set_len(copied.size)?;
    draft.keep()?;
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;
    use crate::interrupt::{Interrupt, Notice, channel};

    struct Fixture {
        directory: tempfile::TempDir,
        destination: Destination,
    }

    fn place() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let destination = Destination::directory(&directory.path().join("out")).unwrap();
        Fixture { directory, destination }
    }

    impl Fixture {
        fn store(&self, name: &str, text: &str, encoding: ContentEncoding) -> Result<Stored, CopyError> {
            let path = self.directory.path().join("source");
            std::fs::write(&path, text).unwrap();
            let (_interrupter, interrupts) = channel();
            let patience = Patience::with_artifact(&interrupts);
            let source = Source::Task(File::open(path).unwrap());
            self.destination.store(&named(name), source, encoding, &patience)
        }

        fn read(&self, name: &str) -> Vec<u8> {
            std::fs::read(self.directory.path().join("out").join(name)).unwrap()
        }
    }

    fn named(name: &str) -> ArtifactName {
        ArtifactName::new(name).unwrap()
    }

    #[test]
    fn files_land_decoded_and_gz_names_keep_their_gzip_bytes() {
        let place = place();
        let stored = place.store("public/a.txt", "abc", ContentEncoding::Gzip).unwrap();
        assert_eq!(place.read("public/a.txt"), b"abc");
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(stored, Stored { size: 3, sha256: Some(sha256.to_owned()), stored_as: None });
        let stored = place.store("public/a.gz", "abc", ContentEncoding::Gzip).unwrap();
        assert_eq!(stored.size, 3);
        let bytes = place.read("public/a.gz");
        // The header of zlib's default: no time, no flags, Unix.
        assert_eq!(bytes[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
        let text = io::read_to_string(flate2::read::GzDecoder::new(&bytes[..])).unwrap();
        assert_eq!(text, "abc");
        place.store("public/b.gz", "as it is", ContentEncoding::Identity).unwrap();
        assert_eq!(place.read("public/b.gz"), b"as it is");
    }

    #[test]
    fn a_file_of_the_workers_own_gets_a_second_name_and_the_same_record() {
        let place = place();
        let copied = place.store("copied", "log", ContentEncoding::Gzip).unwrap();
        let path = place.directory.path().join("source");
        let (_interrupter, interrupts) = channel();
        let patience = Patience::with_artifact(&interrupts);
        let own = Source::Log(path.clone());
        let adopted = place.destination.store(&named("own"), own, ContentEncoding::Gzip, &patience).unwrap();
        assert_eq!(adopted, copied);
        assert_eq!(place.read("own"), b"log");
        assert_eq!(std::fs::metadata(path).unwrap().nlink(), 2);
    }

    #[test]
    fn s57_links_that_lie_in_the_directory_are_not_followed() {
        let place = place();
        let (top, outside) = (place.directory.path().join("out"), place.directory.path().join("x"));
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("canary"), "canary").unwrap();
        symlink(&outside, top.join("public")).unwrap();
        symlink(outside.join("canary"), top.join("file")).unwrap();
        assert!(place.store("public/new", "text", ContentEncoding::Identity).is_err());
        place.store("file", "text", ContentEncoding::Identity).unwrap();
        assert_eq!(std::fs::read(outside.join("canary")).unwrap(), b"canary");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
        assert_eq!(place.read("file"), b"text");
    }

    #[test]
    fn a_live_log_is_a_hard_link_of_the_backing_log() {
        let place = place();
        place.store("public/live_backing.log", "log", ContentEncoding::Gzip).unwrap();
        for _ in 0..2 {
            place.destination.link(&named("public/live.log"), &named("public/live_backing.log")).unwrap();
        }
        assert_eq!(place.read("public/live.log"), b"log");
        let path = place.directory.path().join("out/public/live.log");
        assert_eq!(std::fs::metadata(path).unwrap().nlink(), 2);
    }

    #[test]
    fn names_that_no_directory_can_hold_together_lie_beside_one_another() {
        let place = place();
        let as_it_is = ContentEncoding::Identity;
        for (name, path) in [
            ("public/a", None),
            ("public/a/b", Some("public/a%2Fb")),
            ("public/a/b/c", Some("public/a%2Fb%2Fc")),
            ("public/d/e", None),
            ("public/d", Some("public/d%2F")),
            ("resolution.json/x", Some("resolution.json%2Fx")),
            ("resolution.json", None),
        ] {
            let stored = place.store(name, name, as_it_is).unwrap();
            assert_eq!(stored.stored_as.as_deref(), path, "{name}");
            assert_eq!(place.read(path.unwrap_or(name)), name.as_bytes());
        }
    }

    #[test]
    fn what_is_not_stored_to_its_end_is_not_there_and_what_was_there_stays() {
        let place = place();
        place.store("a", "old", ContentEncoding::Identity).unwrap();
        let path = place.directory.path().join("source");
        std::fs::write(&path, "new").unwrap();
        let (interrupter, interrupts) = channel();
        let patience = Patience::with_artifact(&interrupts);
        interrupter.interrupt(Interrupt::Cancelled, Notice::Signal);
        for name in ["a", "b", "c.gz"] {
            let source = Source::Task(File::open(&path).unwrap());
            let result = place.destination.store(&named(name), source, ContentEncoding::Gzip, &patience);
            assert!(matches!(result, Err(CopyError::Interrupted)), "{result:?}");
        }
        let left = std::fs::read_dir(place.directory.path().join("out")).unwrap();
        assert_eq!(left.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>(), ["a"]);
        assert_eq!(place.read("a"), b"old");
    }

    #[test]
    fn a_sparse_file_stays_sparse() {
        let place = place();
        let path = place.directory.path().join("source");
        File::create(&path).unwrap().set_len(1 << 30).unwrap();
        let (_interrupter, interrupts) = channel();
        let source = Source::Task(File::open(&path).unwrap());
        let patience = Patience::with_artifact(&interrupts);
        let stored =
            place.destination.store(&named("hole"), source, ContentEncoding::Gzip, &patience).unwrap();
        let status = std::fs::metadata(place.directory.path().join("out/hole")).unwrap();
        assert_eq!((stored.size, status.len()), (1 << 30, 1 << 30));
        assert!(status.blocks() < 1024, "{} blocks", status.blocks());
    }
}
