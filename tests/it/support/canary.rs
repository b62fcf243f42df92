//! A host file that nothing may touch.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const CONTENT: &str = "a file of the host, nobody's business";

/// A directory of the host with one file in it. Whoever reads it, finds [`Canary::SECRET`]; whoever changes it, is seen.
pub struct Canary {
    pub directory: PathBuf,
    pub file: PathBuf,
    before: State,
}

#[derive(Debug, PartialEq)]
struct State {
    content: String,
    metadata: (u32, u32, u32, u64, i64, i64),
    siblings: Vec<PathBuf>,
    directory: (u32, u32, u32),
}

impl Canary {
    /// What the file holds, to look for where it must not be.
    pub const SECRET: &str = CONTENT;

    /// Makes `directory` with the file `canary` in it.
    pub fn place(directory: &Path) -> Canary {
        fs::create_dir_all(directory).unwrap();
        let file = directory.join("canary");
        fs::write(&file, CONTENT).unwrap();
        let before = look(directory, &file);
        Canary { directory: directory.to_owned(), file, before }
    }

    /// Fails the test if the file or its directory is not as it was: content, mode, owner, links, times, neighbours.
    pub fn assert_intact(&self, case: &str) {
        assert_eq!(look(&self.directory, &self.file), self.before, "{case}: the host's file was touched");
    }
}

fn look(directory: &Path, file: &Path) -> State {
    let inode = fs::symlink_metadata(file).unwrap();
    let parent = fs::symlink_metadata(directory).unwrap();
    let mut siblings: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    siblings.sort();
    State {
        content: fs::read_to_string(file).unwrap(),
        metadata: (inode.mode(), inode.uid(), inode.gid(), inode.nlink(), inode.mtime(), inode.ctime_nsec()),
        siblings,
        directory: (parent.mode(), parent.uid(), parent.gid()),
    }
}
