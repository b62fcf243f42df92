//! Everything that a tree shows of itself, to compare two of them.
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// What is compared of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub mode: u32,
    pub owner: (u32, u32),
    pub links: u64,
    pub modified: (i64, i64),
    pub device: u64,
    pub size: u64,
    pub xattrs: Vec<(String, String)>,
    /// Link target, or SHA-256 of a file.
    pub contents: String,
    /// The first path, in order, of the same inode.
    pub same_as: PathBuf,
}

/// All paths below `root`, itself as "".
pub fn snapshot(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut paths = vec![root.to_path_buf()];
    let mut all = Vec::new();
    while let Some(path) = paths.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            paths.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        all.push((path, metadata));
    }
    all.sort_by(|one, other| one.0.cmp(&other.0));
    let mut first_of_inode = BTreeMap::new();
    let mut seen = BTreeMap::new();
    for (path, metadata) in all {
        let relative = path.strip_prefix(root).unwrap().to_path_buf();
        let inode = (metadata.dev(), metadata.ino());
        let same_as = first_of_inode.entry(inode).or_insert_with(|| relative.clone()).clone();
        seen.insert(relative, look(&path, &metadata, same_as));
    }
    seen
}

fn look(path: &Path, metadata: &Metadata, same_as: PathBuf) -> Seen {
    let kind = metadata.file_type();
    let contents = match () {
        () if kind.is_symlink() => readable(fs::read_link(path).unwrap().as_os_str().as_bytes()),
        () if kind.is_file() => hash(path),
        () => String::new(),
    };
    let is_device = kind.is_char_device() || kind.is_block_device();
    Seen {
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
        links: metadata.nlink(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        device: if is_device { metadata.rdev() } else { 0 },
        size: if kind.is_dir() { 0 } else { metadata.size() },
        xattrs: xattrs(path),
        contents,
        same_as,
    }
}

/// Short bytes escaped, long ones as their sum, so that a failing test can be read.
pub fn readable(bytes: &[u8]) -> String {
    if bytes.len() <= 100 { bytes.escape_ascii().to_string() } else { hex(&Sha256::digest(bytes)) }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hash(path: &Path) -> String {
    let mut file = fs::File::open(path).unwrap_or_else(|error| panic!("open {path:?}: {error}"));
    let (mut sum, mut block) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut block).unwrap_or_else(|error| panic!("read {path:?}: {error}")) {
            0 => return hex(&sum.finalize()),
            count => sum.update(&block[..count]),
        }
    }
}

/// Names and values, both readable.
pub fn xattrs(path: &Path) -> Vec<(String, String)> {
    let mut names = vec![0; 65_536];
    let length = rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap();
    let mut all: Vec<_> = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 65_536];
            let length =
                rustix::fs::lgetxattr(path, CString::new(name).unwrap(), value.as_mut_slice()).unwrap();
            (readable(name), readable(&value[..length]))
        })
        .collect();
    all.sort();
    all
}

/// Fails with the first differences, path by path.
pub fn assert_same(ours: &BTreeMap<PathBuf, Seen>, theirs: &BTreeMap<PathBuf, Seen>) {
    let paths: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let differ: Vec<_> = paths
        .into_iter()
        .filter(|path| ours.get(*path) != theirs.get(*path))
        .map(|path| format!("{path:?}\n  ours   {:?}\n  theirs {:?}", ours.get(path), theirs.get(path)))
        .collect();
    assert!(
        differ.is_empty(),
        "{} differences:\n{}",
        differ.len(),
        differ[..differ.len().min(10)].join("\n")
    );
}
