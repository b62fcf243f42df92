//! What makes a file one file in a task's root: (device, inode), the same by every name and for good.
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::layer_tar::{Entry, dir, file, hardlink};

/// The layer that [`check`] wants below the root.
pub fn entries() -> Vec<Entry> {
    let mut entries =
        vec![dir("etc"), file("etc/group", "group\n"), file("etc/mode", ""), file("etc/name", "")];
    entries.extend([file("etc/held", ""), file("etc/one", "1"), hardlink("etc/two", "etc/one")]);
    entries
}

type Identity = (u64, u64);

fn identity(path: &Path) -> Identity {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.dev(), metadata.ino())
}

/// Has the kernel forget every name and inode that nobody holds, as a memory limit does bit by bit.
fn drop_dentries() {
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
}

/// Changes files of the image in each way that copies them up, and looks who is who.
pub fn check(root: &Path) {
    let etc = root.join("etc");
    let [group, second, mode, name, renamed, held, one, two] =
        ["group", "second", "mode", "name", "renamed", "held", "one", "two"].map(|name| etc.join(name));
    let before = [&group, &mode, &name, &held, &one].map(|path| identity(path));
    let device = before[0].0;
    assert!(before.iter().all(|known| known.0 == device), "{before:?}");
    assert_eq!([identity(root).0, identity(&etc).0], [device; 2], "directories are on the same device");

    let open = File::open(&held).unwrap();
    fs::hard_link(&group, &second).unwrap();
    fs::set_permissions(&mode, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::rename(&name, &renamed).unwrap();
    for path in [&held, &one] {
        File::options().append(true).open(path).unwrap().write_all(b"more").unwrap();
    }
    for _ in 0..2 {
        let after = [&group, &mode, &renamed, &held, &one].map(|path| identity(path));
        assert_eq!(after, before);
        assert_eq!(identity(&second), before[0], "a link that was made in the task");
        assert_eq!(identity(&two), before[4], "a link of the image");
        assert_eq!(open.metadata().unwrap().ino(), before[3].1, "by a descriptor from before the change");
        drop_dentries();
    }
    assert_eq!(fs::read(&two).unwrap(), b"1more", "the image's links stay linked");
    assert_eq!(fs::metadata(&two).unwrap().nlink(), 2);
    fs::write(&second, "written").unwrap();
    assert_eq!(fs::read(&group).unwrap(), b"written");
    fs::remove_file(&group).unwrap();
    drop_dentries();
    assert_eq!((identity(&second), fs::metadata(&second).unwrap().nlink()), (before[0], 1));
}
