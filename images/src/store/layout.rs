//! Where things lie in the store.
//!
//! ```text
//! version                 the number of this layout
//! lock                    flock: shared while a name is read or written and a lease taken, exclusive for `gc`
//! blobs/HEX               verified blobs as they came: layers (compressed), configurations, manifests
//! blobs/HEX.OF.partial    a blob on its way; its flock is the claim on the work (see `claim`). OF is the SHA-256 of its
//!                         registry, or says that it is no blob of a registry
//! work/HEX.OF/            the layer or image that the holder of that claim is making
//! layers/HEX.vN/          a layer by diff id, made by unpacker version N: `data`, `index`, `split`, `mark`,
//!                         `durable`; those that older programs made have no `split`
//! images/HEX.vN/          an image by configuration digest, of such layers: `image.json`, `tree.erofs`, …
//! names/HASH.json         a name (HASH is its SHA-256), its image, and when it was last used
//! leases/ID               flock'd by the process that uses or makes the objects listed inside
//! ```
//!
//! HEX is the digits of a checked [`Digest`], so no outside text is ever part of a path. Everything
//! outside `work` and `*.partial` appears by rename of something complete and verified.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::digest::Digest;
use crate::scratch::SCRATCH_PREFIX;

use super::claim::{Work, is_work};
use super::lock::{Holder, Lock, Waiting};
use super::{StoreError, lease, lock};

/// The number in `version`. It goes up when an older program would misread what is there.
const VERSION: u32 = 2;
/// Part of the names of layers and images. It goes up with every change of what is made of the same
/// blobs (data file, index, tree), which fit together only as one version made them; what another version
/// made is not used again.
const UNPACKER: u32 = 2;

/// Extension of a blob that is on its way.
pub(crate) const PARTIAL: &str = "partial";
/// Extension of a name's record.
pub(crate) const NAME: &str = "json";
/// Extension of a small file that is not complete yet.
pub(crate) const FRESH: &str = "new";
/// Extension of an object that is being removed.
pub(crate) const GONE: &str = "gone";

/// How long a lock may be held that is for moments: removing what an older version has made, or renaming on a disk that is
/// busy.
const MOMENTS: Duration = Duration::from_secs(60);

const DIRECTORIES: &[&str] = &["blobs", "work", "layers", "images", "names", "leases"];

/// Paths of one store.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
    holder: Holder,
}

impl Layout {
    /// Makes what is absent, and checks the version: a newer one is refused, and an older one's content
    /// discarded. Says which version that was.
    pub(crate) fn open(root: &Path, holder: Holder) -> Result<(Layout, Option<u32>), StoreError> {
        let layout = Layout { root: root.to_owned(), holder };
        make_directory(root)?;
        let stamp = layout.root.join("version");
        let mut older = None;
        if version(root, &stamp)? != Some(VERSION) {
            // One program at a time: the others find it done.
            let _alone = lock::exclusive_directory(root, layout.moments(&|| true))?;
            let found = version(root, &stamp)?;
            older = found.filter(|found| *found < VERSION);
            if older.is_some() {
                layout.discard_all()?;
            }
            if found != Some(VERSION) {
                write_stamp(root, &stamp)?;
            }
        }
        for directory in DIRECTORIES {
            make_directory(&layout.root.join(directory))?;
        }
        Ok((layout, older))
    }

    /// Removes everything that an older version has made, unless a process still works with it.
    fn discard_all(&self) -> Result<(), StoreError> {
        let busy = || StoreError::Busy { root: self.root.clone() };
        let _alone = lock::try_exclusive(&self.lock())?.ok_or_else(busy)?;
        let leases = self.leases();
        if leases.exists() {
            lease::remove_dead(self)?;
            if !entries(&leases)?.is_empty() {
                return Err(busy());
            }
        }
        for directory in
            DIRECTORIES.iter().map(|directory| self.root.join(directory)).filter(|path| path.exists())
        {
            entries(&directory)?.iter().try_for_each(|path| remove_any(path))?;
        }
        Ok(())
    }

    /// Waits for the store's lock, which others may share.
    pub(crate) fn lock_shared(&self, wanted: &dyn Fn() -> bool) -> Result<Lock, StoreError> {
        lock::shared(&self.lock(), self.moments(wanted))
    }

    /// Waits for the store's lock alone.
    pub(crate) fn lock_exclusive(&self, wanted: &dyn Fn() -> bool) -> Result<Lock, StoreError> {
        lock::exclusive(&self.lock(), self.moments(wanted))
    }

    /// How a lock is waited for that nobody holds for long.
    pub(crate) fn moments<'a>(&self, wanted: &'a dyn Fn() -> bool) -> Waiting<'a> {
        self.at_most(MOMENTS, wanted)
    }

    /// How a lock is waited for that somebody may hold for as long as their work takes.
    pub(crate) fn at_most<'a>(&self, most: Duration, wanted: &'a dyn Fn() -> bool) -> Waiting<'a> {
        Waiting { most, wanted, holder: self.holder }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Everything that the store has made, in no order.
    pub(super) fn everything(&self) -> Result<Vec<PathBuf>, StoreError> {
        let mut found = Vec::new();
        for directory in DIRECTORIES {
            found.extend(entries(&self.root.join(directory))?);
        }
        Ok(found)
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    pub(crate) fn partial(&self, of: &Work) -> PathBuf {
        self.blobs().join(format!("{}.{PARTIAL}", of.name()))
    }

    pub(crate) fn works(&self) -> PathBuf {
        self.root.join("work")
    }

    pub(crate) fn work(&self, of: &Work) -> PathBuf {
        self.works().join(of.name())
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(crate) fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.layers().join(format!("{}.v{UNPACKER}", diff_id.hex()))
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    pub(crate) fn image(&self, id: &Digest) -> PathBuf {
        self.images().join(format!("{}.v{UNPACKER}", id.hex()))
    }

    pub(crate) fn names(&self) -> PathBuf {
        self.root.join("names")
    }

    pub(crate) fn name(&self, name: &str) -> PathBuf {
        self.names().join(format!("{}.{NAME}", Digest::of(name.as_bytes()).hex()))
    }

    pub(crate) fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }
}

/// The one file that is on disk before anything else is: without it nobody knows how to read the rest.
fn write_stamp(root: &Path, stamp: &Path) -> Result<(), StoreError> {
    replace(stamp, format!("{VERSION}\n").as_bytes())?;
    open_file(stamp)?.sync_all().map_err(StoreError::file("sync", stamp))?;
    open_directory(root)?.sync_all().map_err(StoreError::file("sync", root))
}

/// The version of a store, which may be older; `None` for a new one.
fn version(root: &Path, stamp: &Path) -> Result<Option<u32>, StoreError> {
    let text = read_small(stamp)?.unwrap_or_default();
    // Empty, or zeros: a power cut came between the rename and the content.
    let found = String::from_utf8_lossy(&text);
    let found = found.trim_matches(|left: char| left.is_whitespace() || left == '\0');
    if found.is_empty() {
        return Ok(None);
    }
    match found.parse::<u32>() {
        Ok(version) if version <= VERSION => Ok(Some(version)),
        Ok(found) => Err(StoreError::Version { root: root.to_owned(), found, known: VERSION }),
        Err(_) => {
            let found = found.chars().take(20).collect();
            Err(StoreError::Stamp { root: root.to_owned(), found })
        }
    }
}

/// Makes a directory for root only, parents included; it may be there already.
pub(crate) fn make_directory(path: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(StoreError::file("make directory", path))
}

/// Makes an empty file for root only, in place of any other, open for reading and writing.
pub(crate) fn create_file(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    // No link: what lies elsewhere is not emptied.
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    let opened = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(path);
    opened.map_err(StoreError::file("create", path))
}

/// Opens one of our own files for reading.
pub(crate) fn open_file(path: &Path) -> Result<File, StoreError> {
    open_regular(path).map_err(StoreError::file("open", path))
}

/// The same with the system's error. What is no regular file is refused.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    // NONBLOCK: opening a FIFO of that name must not hold us up before it is refused.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(Errno::ISDIR.into()) }
}

/// Opens one of our own directories.
pub(crate) fn open_directory(path: &Path) -> Result<File, StoreError> {
    let flags = OFlags::DIRECTORY.bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    opened.map_err(StoreError::file("open", path))
}

/// Renames a complete file or directory to where it is looked for.
pub(crate) fn commit(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(StoreError::file("commit", to))
}

/// Puts a small file in place by rename. The name in between is this call's own; `gc` removes one
/// that a crash leaves.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let fresh = path.with_extension(format!("{}.{FRESH}", unique()));
    let mut file = create_file(&fresh)?;
    file.write_all(content).map_err(StoreError::file("write", &fresh))?;
    commit(&fresh, path)
}

/// One of our own small files (at most 64 MiB); `None` if it does not exist.
pub(crate) fn read_small(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    const MAX_BYTES: u64 = 64 << 20;
    let failed = StoreError::file("read", path);
    let file = match open_regular(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut content = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut content).map_err(failed)?;
    Ok(Some(content))
}

/// Removes a file; it may be gone already.
pub(crate) fn remove_file(path: &Path) -> Result<(), StoreError> {
    gone_is_fine(fs::remove_file(path), path)
}

/// Removes a tree of our own making; it may be gone already.
pub(crate) fn remove_tree(path: &Path) -> Result<(), StoreError> {
    gone_is_fine(fs::remove_dir_all(path), path)
}

fn gone_is_fine(removed: io::Result<()>, path: &Path) -> Result<(), StoreError> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::file("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Takes an object away: out of sight at once, so that nobody ever sees a part of it. What is left
/// to be done is [`remove_set_aside`], which may take long; after a crash the next start does it.
pub(crate) fn set_aside(layout: &Layout, object: &Path) -> Result<Option<PathBuf>, StoreError> {
    let gone = layout.works().join(format!("{}.{GONE}", unique()));
    match fs::rename(object, &gone) {
        Ok(()) => Ok(Some(gone)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::file("remove", object)(error)),
    }
}

/// Removes what [`set_aside`] took away, unless another process is just doing so.
pub(crate) fn remove_set_aside(gone: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(gone) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => remove_file(gone),
        removed => gone_is_fine(removed, gone),
    }
}

/// A name that no other call of any process uses at the same time.
fn unique() -> String {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    format!("{}.{}", std::process::id(), CALLS.fetch_add(1, Ordering::Relaxed))
}

/// What the store has made in one of its directories, in no order. An operator may have given it a directory with
/// things of their own: those are not its to read or remove.
pub(super) fn entries(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let failed = StoreError::file("list", directory);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_str().is_some_and(is_own_name) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Whether the store, of this version or another, gives such names: see the list at the head of this file.
fn is_own_name(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let are_numbers = |text: &str, between: char| {
        text.split_once(between).is_some_and(|(one, other)| is_number(one) && is_number(other))
    };
    let is_unique = |name: &str, extension: &str| {
        let call = name.strip_suffix(extension).and_then(|name| name.strip_suffix('.'));
        call.is_some_and(|call| are_numbers(call, '.'))
    };
    match name.split_once('.') {
        Some((stem, extension)) if Digest::from_hex(stem).is_ok() => {
            extension == NAME
                || is_work(name.strip_suffix(PARTIAL).and_then(|name| name.strip_suffix('.')).unwrap_or(name))
                || extension.strip_prefix('v').is_some_and(is_number)
                || is_unique(extension, FRESH)
        }
        None if Digest::from_hex(name).is_ok() => true,
        _ => {
            let scratch = name.strip_prefix(SCRATCH_PREFIX);
            are_numbers(name, '-')
                || is_unique(name, GONE)
                || scratch.is_some_and(|scratch| are_numbers(scratch, '-'))
        }
    }
}

fn remove_any(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() && !path.is_symlink() { remove_tree(path) } else { remove_file(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_store_is_refused_in_words() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("images");
        Layout::open(&root, |_| None).unwrap();
        Layout::open(&root, |_| None).unwrap();
        fs::write(root.join("version"), "3\n").unwrap();
        assert!(matches!(Layout::open(&root, |_| None), Err(StoreError::Version { found: 3, .. })));
        for damaged in [&b"x"[..], b"-1", b"2 3", b"\xff\0\n", &[b'9'; 1000]] {
            fs::write(root.join("version"), damaged).unwrap();
            let error = Layout::open(&root, |_| None).unwrap_err();
            assert!(matches!(error, StoreError::Stamp { .. }) && error.to_string().len() < 300, "{error}");
        }
    }

    #[test]
    fn only_names_that_the_store_gives_are_its_own() {
        let hex = Digest::of(b"x").hex().to_owned();
        for own in ["", ".partial", ".image", ".stream.partial", ".json", ".v2", ".12.0.new"]
            .map(|end| format!("{hex}{end}"))
        {
            assert!(is_own_name(&own), "{own}");
        }
        let own = ["12.0.gone", "12-0", "archive-12-0"];
        let theirs =
            ["", "x", "12", "12.gone", "a.gone", ".gone", "archive-12", "archive-x", "12-x", "2025-11-29"];
        let like_ours = [".jpg", ".v", ".vx", ".new", ".x.new", ".partial.jpg", ".image.jpg", "a"]
            .map(|end| format!("{hex}{end}"));
        assert!(own.iter().all(|name| is_own_name(name)));
        for theirs in theirs.into_iter().chain(like_ours.iter().map(String::as_str)) {
            assert!(!is_own_name(theirs), "{theirs}");
        }
    }

    #[test]
    fn a_version_that_a_power_cut_left_empty_is_written_again() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("images");
        for left in ["", "\n", "\0\0"] {
            make_directory(&root).unwrap();
            fs::write(root.join("version"), left).unwrap();
            assert_eq!(Layout::open(&root, |_| None).unwrap().1, None);
            assert_eq!(fs::read(root.join("version")).unwrap(), b"2\n", "{left:?}");
        }
    }

    #[test]
    fn an_older_store_is_discarded_once_nobody_uses_it() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("images");
        let (layout, _) = Layout::open(&root, |_| None).unwrap();
        let old = layout.layers().join(format!("{}.v0", Digest::of(b"old").hex()));
        fs::create_dir(&old).unwrap();
        fs::write(root.join("version"), "1\n").unwrap();
        let used = lock::open(&layout.leases().join("1-0")).unwrap();
        assert!(lock::try_lock(&used).unwrap());
        let error = Layout::open(&root, |_| None).unwrap_err();
        assert!(matches!(error, StoreError::Busy { .. }) && old.exists(), "{error}");
        drop(used);
        // Of several programs that start at once one does it, and all go on.
        let opened: Vec<Option<u32>> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| Layout::open(&root, |_| None).unwrap().1)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(opened.iter().flatten().count(), 1, "{opened:?}");
        assert!(!old.exists());
        assert_eq!(Layout::open(&root, |_| None).unwrap().1, None);
    }

    #[test]
    fn only_root_reaches_the_store() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("data/images");
        Layout::open(&root, |_| None).unwrap();
        for path in [root.clone(), root.join("blobs"), root.join("layers")] {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700, "{path:?}");
        }
    }
}
