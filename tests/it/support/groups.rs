//! Control groups of this host, in whichever hierarchy.

use std::fs;
use std::path::{Path, PathBuf};

/// The groups that bear one of these names. Others may come and go meanwhile.
pub fn groups_named(names: &[String]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    visit(Path::new("/sys/fs/cgroup"), &mut |group| {
        let name = group.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| names.iter().any(|wanted| wanted == name)) {
            found.push(group.to_owned());
        }
    });
    found
}

fn visit(group: &Path, see: &mut impl FnMut(&Path)) {
    see(group);
    // One that is gone has nothing below it.
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            visit(&entry.path(), see);
        }
    }
}
