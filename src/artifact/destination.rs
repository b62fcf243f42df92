//! Where `run` puts artifacts: below a directory of the operator's, or nowhere.
//!
//! Files land decoded under their names, as a client that honours `Content-Encoding` would see
//! them; a name that ends in `.gz` keeps its gzip bytes. Nothing below the directory is followed
//! that is a link: an earlier run's task may have had a say in what lies there.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::ContentEncoding;
use crate::task::artifact_name::ArtifactName;
use crate::task::interrupt::Interrupts;

/// Bytes copied between two looks at whether the task was interrupted.
const COPY_BYTES: usize = 256 * 1024;

/// gzip's number for Unix.
const GZIP_UNIX: u8 = 3;

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
    /// In a file of the worker's own that nobody writes any more.
    Own(PathBuf),
}

impl Source {
    fn open(&self) -> io::Result<File> {
        match self {
            Source::Task(file) => file.try_clone(),
            Source::Own(path) => File::open(path),
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
}

/// Why `--artifacts DIR` cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("use the directory {} for artifacts: {source}; choose another with --artifacts", path.display())]
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
    /// Reading or writing failed; [`io::ErrorKind::Interrupted`] when the task was interrupted by
    /// more than `before` says.
    pub fn store(
        &self,
        name: &ArtifactName,
        source: Source,
        encoding: ContentEncoding,
        patience: &Patience,
    ) -> io::Result<Stored> {
        let file = source.open()?;
        // What is appended meanwhile does not count: the length is what it is now.
        let size = file.metadata()?.len();
        let Destination::Directory(top) = self else {
            return Ok(Stored { size, sha256: None });
        };
        let mut copy = Copy { source: file.take(size), patience };
        if encoding == ContentEncoding::Gzip && name.as_str().ends_with(".gz") {
            // The header of zlib's default, which the original wrote: no time, Unix.
            let header = GzBuilder::new().operating_system(GZIP_UNIX);
            let mut out = header.write(create(top, name)?, Compression::default());
            let stored = copy.to(&mut out)?;
            out.finish()?;
            return Ok(stored);
        }
        match source {
            // A second name costs nothing, however long the log is; only its hash is left to make.
            Source::Own(path) if adopt(top, name, &path)? => copy.to(&mut io::sink()),
            Source::Own(_) | Source::Task(_) => copy.to(&mut create(top, name)?),
        }
    }

    /// Makes a name stand for what another name has: a hard link.
    ///
    /// # Errors
    ///
    /// When the other one is missing or the file system has no hard links.
    pub fn link(&self, name: &ArtifactName, existing: &ArtifactName) -> io::Result<()> {
        let Destination::Directory(top) = self else { return Ok(()) };
        let (from, old) = parent(top, existing)?;
        let (to, new) = parent(top, name)?;
        remove(&to, new)?;
        match fs::linkat(&from, old, &to, new, AtFlags::empty()) {
            // A file system without hard links: a copy looks the same.
            Err(Errno::PERM | Errno::OPNOTSUPP) => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut source = File::from(fs::openat(&from, old, flags, Mode::empty())?);
                io::copy(&mut source, &mut create(top, name)?).map(drop)
            }
            result => Ok(result?),
        }
    }

    /// Writes a file of the worker's own, such as `resolution.json`.
    ///
    /// # Errors
    ///
    /// When it cannot be created or written: then there is no such file, rather than half of one.
    pub fn write(&self, name: &ArtifactName, contents: &[u8]) -> io::Result<()> {
        let Destination::Directory(top) = self else { return Ok(()) };
        let written = create(top, name)?.write_all(contents);
        if written.is_err() {
            let (directory, last) = parent(top, name)?;
            remove(&directory, last)?;
        }
        written
    }
}

/// How long storing goes on: until an interrupt that was not there when it began.
#[derive(Clone, Debug)]
pub struct Patience {
    interrupts: Interrupts,
    known: bool,
}

impl Patience {
    /// What has interrupted the task so far does not count; what comes now does.
    pub fn from_now(interrupts: &Interrupts) -> Patience {
        Patience { interrupts: interrupts.clone(), known: interrupts.current().is_some() }
    }

    fn is_over(&self) -> bool {
        !self.known && self.interrupts.current().is_some()
    }
}

struct Copy<'a, R> {
    source: R,
    patience: &'a Patience,
}

impl<R: Read> Copy<'_, R> {
    fn to(&mut self, out: &mut impl Write) -> io::Result<Stored> {
        let mut buffer = vec![0_u8; COPY_BYTES];
        let mut hash = Sha256::new();
        let mut size = 0;
        loop {
            if self.patience.is_over() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let bytes = match self.source.read(&mut buffer)? {
                0 => break,
                filled => buffer.get(..filled).unwrap_or_default(),
            };
            hash.update(bytes);
            out.write_all(bytes)?;
            size += bytes.len() as u64;
        }
        let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Stored { size, sha256: Some(sha256) })
    }
}

/// Creates the file for a name, in the place of what is there.
fn create(top: &OwnedFd, name: &ArtifactName) -> io::Result<File> {
    let (directory, last) = parent(top, name)?;
    remove(&directory, last)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = fs::openat(&directory, last, flags, Mode::from_raw_mode(0o600))?;
    // The operator's file, to be read as any other of theirs: the worker's umask is not for it.
    fs::fchmod(&file, Mode::from_raw_mode(0o644))?;
    Ok(File::from(file))
}

/// Gives a file of the worker's the name as well; `false` where the file system cannot do that.
fn adopt(top: &OwnedFd, name: &ArtifactName, path: &Path) -> io::Result<bool> {
    let (directory, last) = parent(top, name)?;
    remove(&directory, last)?;
    match fs::linkat(fs::CWD, path, &directory, last, AtFlags::empty()) {
        Ok(()) => {}
        Err(Errno::XDEV | Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK) => return Ok(false),
        Err(errno) => return Err(errno.into()),
    }
    fs::chmodat(&directory, last, Mode::from_raw_mode(0o644), AtFlags::empty())?;
    Ok(true)
}

/// Removes what has the name, a link itself and not what it points to.
fn remove(directory: &OwnedFd, last: &str) -> io::Result<()> {
    match fs::unlinkat(directory, last, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The directory in which a name's last component lies; made as far as it is missing.
fn parent<'a>(top: &OwnedFd, name: &'a ArtifactName) -> io::Result<(OwnedFd, &'a str)> {
    let (above, last) = name.as_str().rsplit_once('/').unwrap_or(("", name.as_str()));
    let mut directory = top.as_fd().try_clone_to_owned()?;
    for component in above.split('/').filter(|component| !component.is_empty()) {
        directory = open_or_make(&directory, component)?;
    }
    Ok((directory, last))
}

fn open_or_make(directory: &OwnedFd, component: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match fs::mkdirat(directory, component, Mode::from_raw_mode(0o700)) {
        Ok(()) => {
            let made = fs::openat(directory, component, flags, Mode::empty())?;
            fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
            Ok(made)
        }
        Err(Errno::EXIST) => Ok(fs::openat(directory, component, flags, Mode::empty())?),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;
    use crate::task::interrupt::{Interrupt, channel};

    struct Place {
        directory: tempfile::TempDir,
        destination: Destination,
    }

    fn place() -> Place {
        let directory = tempfile::tempdir().unwrap();
        let destination = Destination::directory(&directory.path().join("out")).unwrap();
        Place { directory, destination }
    }

    impl Place {
        fn store(&self, name: &str, text: &str, encoding: ContentEncoding) -> io::Result<Stored> {
            let path = self.directory.path().join("source");
            std::fs::write(&path, text).unwrap();
            let (_interrupter, interrupts) = channel();
            let patience = Patience::from_now(&interrupts);
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
        assert_eq!(stored, Stored { size: 3, sha256: Some(sha256.to_owned()) });
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
        let patience = Patience::from_now(&interrupts);
        let own = Source::Own(path.clone());
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
    fn storing_ends_with_a_new_interrupt_and_not_with_an_old_one() {
        let (interrupter, interrupts) = channel();
        let before = Patience::from_now(&interrupts);
        interrupter.interrupt(Interrupt::Cancelled);
        assert!(before.is_over());
        assert!(!Patience::from_now(&interrupts).is_over());
    }
}
