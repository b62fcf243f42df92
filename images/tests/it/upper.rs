//! What a container changed, as a layer: an image with that layer on top is the container's own tree.
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use images::limits::Limits;
use images::mount::{mount_image, mount_overlay, open_upper};
use images::save::upper::{SaveUpperError, Trees, WrittenLayer, write_layer};
use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lsetxattr, mknodat, utimensat};
use sha2::{Digest, Sha256};

use crate::layer_tar::{Entry, dir, file, hardlink, index, tar};
use crate::namespace::in_own_mount_namespace;
use crate::round_trip::CAPABILITY;
use crate::snapshot::{Seen, assert_same, hex, snapshot};
use crate::umoci::unpacked_by_umoci;
use crate::written::{mounted_snapshot, write};

mod directory;
mod docker;
mod hostile;

/// A container's root, mounted in the thread's own namespace.
pub struct Container {
    pub root: PathBuf,
    pub upper: PathBuf,
}

impl Container {
    pub fn write(
        &self,
        sink: &mut dyn Write,
        limits: &Limits,
        cancelled: &AtomicBool,
    ) -> Result<WrittenLayer, SaveUpperError> {
        let upper = open_upper(self.upper.parent().unwrap()).unwrap();
        let merged = File::open(&self.root).unwrap();
        let trees = Trees { upper: upper.as_fd(), merged: merged.as_fd() };
        write_layer(trees, sink, limits, cancelled)
    }

    /// The layer, which says of itself what is true.
    pub fn layer(&self) -> (Vec<u8>, WrittenLayer) {
        let mut layer = Vec::new();
        let written = self.write(&mut layer, &Limits::default(), &AtomicBool::new(false)).unwrap();
        assert_eq!(written.bytes, layer.len() as u64);
        assert_eq!(written.diff_id.hex(), hex(&Sha256::digest(&layer)));
        assert_eq!(written.entries, names(&layer).len() as u64);
        (layer, written)
    }
}

/// Runs `work` in a container of an image of one layer.
pub fn in_container<T: Send>(image: &[Entry], work: impl FnOnce(&Container) -> T + Send) -> T {
    let written = write(vec![index(&tar(image)).unwrap()]);
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let place = |name: &str| {
        let path = directory.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    in_own_mount_namespace(|| {
        let image = mount_image(&written.metadata, &written.devices, &place("image")).unwrap();
        let (task, root) = (place("task"), place("root"));
        mount_overlay(&image, &task, &root).unwrap();
        work(&Container { root, upper: task.join("upper") })
    })
}

/// Names of a layer's entries, as GNU tar and others would see them.
pub fn names(layer: &[u8]) -> Vec<String> {
    let mut archive = ::tar::Archive::new(layer);
    archive.entries().unwrap().map(|entry| entry.unwrap().path_bytes().escape_ascii().to_string()).collect()
}

/// A directory's number of links is the file system's own affair.
fn seen(tree: BTreeMap<PathBuf, Seen>) -> BTreeMap<PathBuf, Seen> {
    let directory = |seen: &Seen| FileType::from_raw_mode(seen.mode) == FileType::Directory;
    let links = |seen: Seen| Seen { links: if directory(&seen) { 0 } else { seen.links }, ..seen };
    tree.into_iter().map(|(path, seen)| (path, links(seen))).collect()
}

/// Changes a container and compares it with the image that has its layer on top, as we mount it and as
/// umoci unpacks it. Gives the layer's names.
fn check(image: &[Entry], change: impl FnOnce(&Path) + Send) -> Vec<String> {
    let (layer, container) = in_container(image, |container| {
        change(&container.root);
        (container.layer().0, seen(snapshot(&container.root)))
    });
    let layers = [tar(image), layer];
    let ours = mounted_snapshot(layers.iter().map(|layer| index(layer).unwrap()).collect());
    assert_same(&seen(ours), &container);
    assert_same(&seen(unpacked_by_umoci(&layers)), &container);
    names(&layers[1])
}

pub fn set(path: impl AsRef<Path>, name: &str, value: &[u8]) {
    lsetxattr(path.as_ref(), name, value, XattrFlags::empty()).unwrap();
}

fn age(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub fn node(path: &Path, kind: FileType, (major, minor): (u32, u32)) {
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), rustix::fs::makedev(major, minor)).unwrap();
}

fn sparse(path: &Path) {
    let mut file = File::create(path).unwrap();
    file.set_len(3 << 20).unwrap();
    for at in [4096, 1 << 20, (3 << 20) - 10] {
        io::Seek::seek(&mut file, io::SeekFrom::Start(at)).unwrap();
        file.write_all(b"not a hole").unwrap();
    }
}

/// One of everything that has no lower name.
fn make_new_things(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::create_dir(at("new")).unwrap();
    fs::write(at("new/file"), "x").unwrap();
    fs::write(at("new/empty"), "").unwrap();
    fs::write(at("new/block"), [7; 512]).unwrap();
    fs::write(at("new/large"), (0..800_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>()).unwrap();
    sparse(&at("new/sparse"));
    File::create(at("new/only-a-hole")).unwrap().set_len(100_000).unwrap();
    fs::write(at("new/set-id"), "x").unwrap();
    fs::set_permissions(at("new/set-id"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::write(at("new/owned"), "x").unwrap();
    std::os::unix::fs::chown(at("new/owned"), Some(3_000_000), Some(4_000_000_000)).unwrap();
    fs::write(at("new/ping"), "x").unwrap();
    set(at("new/ping"), "security.capability", CAPABILITY);
    fs::hard_link(at("new/ping"), at("new/ping-too")).unwrap();
    fs::write(at("new/attributes"), "x").unwrap();
    set(at("new/attributes"), "user.binary", b"\0\n=\xff");
    set(at("new/attributes"), "user.long", &[b'v'; 2000]);
    symlink("../../etc/passwd", at("new/link")).unwrap();
    symlink("a/".repeat(2000), at("new/long-link")).unwrap();
    fs::hard_link(at("new/link"), at("new/link-too")).unwrap();
    node(&at("new/null"), FileType::CharacterDevice, (1, 3));
    node(&at("new/disk"), FileType::BlockDevice, (259, 1_000_000));
    node(&at("new/fifo"), FileType::Fifo, (0, 0));
    fs::write(root.join(OsStr::from_bytes(b"new/not-utf-8-\xff\n")), "x").unwrap();
    let long = at("new").join("d".repeat(255));
    fs::create_dir(&long).unwrap();
    fs::write(long.join("f".repeat(255)), "x").unwrap();
    fs::hard_link(long.join("f".repeat(255)), at("new/z-link-of-a-long-name")).unwrap();
    age(&at("new/file"), -13, 500_000_000);
    // 1960, and a fraction that nobody rounds up.
    age(&at("new/owned"), -315_619_200, 900_000_000);
    age(&at("new/block"), 1_600_000_000, 999_999_999);
    age(&at("new/link"), 1_234_567_890, 1);
    age(&at("new/empty"), 1 << 33, 999_999_999);
}

fn image() -> Vec<Entry> {
    let long = format!("gone-{}", "n".repeat(250));
    vec![
        dir("."),
        dir("etc"),
        file("etc/passwd", "root"),
        file("etc/shadow", "secret").mode(0o600),
        dir("gone"),
        file("gone/x", "x"),
        file("gone-file", "x"),
        file(&long, "x"),
        dir("again"),
        file("again/old", "old"),
        dir("moded").mode(0o700),
        file("moded/x", "x"),
        file("file-to-dir", "x"),
        dir("dir-to-file"),
        file("dir-to-file/x", "x"),
        file("renamed", "renamed").xattr("user.kept", "yes"),
        file("ping", "x").xattr("security.capability", CAPABILITY),
        dir("untouched"),
        file("untouched/x", "x"),
    ]
}

#[test]
fn an_image_with_the_layer_on_top_is_what_the_container_was() {
    let names = check(&image(), |root| {
        make_new_things(root);
        let at = |name: &str| root.join(name);
        fs::write(at("etc/passwd"), "changed").unwrap();
        fs::set_permissions(at("etc/shadow"), fs::Permissions::from_mode(0o644)).unwrap();
        fs::remove_dir_all(at("gone")).unwrap();
        fs::remove_file(at("gone-file")).unwrap();
        fs::remove_file(at(&format!("gone-{}", "n".repeat(250)))).unwrap();
        fs::remove_dir_all(at("again")).unwrap();
        fs::create_dir(at("again")).unwrap();
        fs::write(at("again/new"), "new").unwrap();
        fs::set_permissions(at("moded"), fs::Permissions::from_mode(0o711)).unwrap();
        fs::remove_file(at("file-to-dir")).unwrap();
        fs::create_dir(at("file-to-dir")).unwrap();
        fs::write(at("file-to-dir/inside"), "x").unwrap();
        fs::remove_dir_all(at("dir-to-file")).unwrap();
        fs::write(at("dir-to-file"), "now a file").unwrap();
        fs::rename(at("renamed"), at("etc/other-name")).unwrap();
        fs::set_permissions(at("ping"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(root, fs::Permissions::from_mode(0o1777)).unwrap();
    });
    let here = |name: &str| names.iter().position(|other| other == name);
    assert_eq!(here("./"), Some(0));
    for name in [".wh.gone", ".wh.gone-file", ".wh.renamed", "again/.wh..wh..opq", "etc/other-name"] {
        assert!(here(name).is_some(), "{name}: {names:?}");
    }
    assert_eq!(here("again/.wh..wh..opq"), here("again/").map(|at| at + 1), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("untouched")), "{names:?}");
}

#[test]
fn a_container_that_changed_nothing_gives_its_root_alone() {
    assert_eq!(check(&[dir(".").mode(0o750).owner(3, 4), file("f", "x")], |_| {}), ["./"]);
}

/// `index=on` shows the change by all names, of which the upper directory has one.
#[test]
fn a_file_of_the_image_that_was_changed_by_one_name_is_changed_by_all() {
    let image = [
        dir("."),
        file("a", "old"),
        dir("far").mode(0o700).owner(5, 6),
        dir("far/away").mode(0o711).owner(7, 8),
        hardlink("far/away/b", "a"),
        hardlink("far/c", "a"),
        hardlink("gone", "a"),
        hardlink("written", "a"),
        dir("near"),
        hardlink("near/d", "a"),
        file("other", "x"),
        hardlink("other-too", "other"),
        file("single", "x"),
        hardlink("single-gone", "single"),
    ];
    let names = check(&image, |root| {
        fs::write(root.join("written"), "new").unwrap();
        fs::write(root.join("near/e"), "x").unwrap();
        fs::remove_file(root.join("gone")).unwrap();
        fs::remove_file(root.join("single-gone")).unwrap();
    });
    let expected = ["./", ".wh.gone", "near/", "near/e", ".wh.single-gone", "written"];
    assert!(expected.iter().all(|name| names.iter().any(|other| other == name)), "{names:?}");
    let far: Vec<_> = names.iter().filter(|name| name.starts_with("far")).collect();
    assert_eq!(far, ["far/", "far/away/", "far/away/b", "far/c"]);
    assert!(!names.iter().any(|name| name.starts_with("other")), "{names:?}");
}

#[test]
fn a_name_that_the_container_added_to_a_changed_file_costs_no_second_copy() {
    let image = [dir("."), file("a", "old"), hardlink("b", "a"), dir("d")];
    let (layer, _) = in_container(&image, |container| {
        fs::write(container.root.join("a"), vec![7; 100_000]).unwrap();
        fs::hard_link(container.root.join("b"), container.root.join("d/c")).unwrap();
        container.layer()
    });
    assert!(layer.len() < 110_000, "{}", layer.len());
    let changed = check(&image, |root| {
        fs::write(root.join("a"), vec![7; 100_000]).unwrap();
        fs::hard_link(root.join("b"), root.join("d/c")).unwrap();
    });
    assert!(["a", "b", "d/c"].iter().all(|name| changed.iter().any(|other| other == name)), "{changed:?}");
}

#[test]
fn gnu_tar_extracts_it() {
    let (layer, container) = in_container(&[dir(".")], |container| {
        make_new_things(&container.root);
        (container.layer().0, seen(snapshot(&container.root)))
    });
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let archive = directory.path().join("layer.tar");
    fs::write(&archive, layer).unwrap();
    let root = directory.path().join("root");
    fs::create_dir(&root).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-owner", "-xpf"]);
    // The directory is new, so that nothing below shows through: the mark for that is a file to GNU tar.
    let output = tar.arg(&archive).arg("-C").arg(&root).arg("--exclude=.wh..wh..opq").output().unwrap();
    assert!(output.status.success(), "tar: {}", String::from_utf8_lossy(&output.stderr));
    assert_same(&seen(snapshot(&root)), &container);
}

#[test]
fn the_same_directory_gives_the_same_bytes_and_stays_as_it_was() {
    in_container(&image(), |container| {
        make_new_things(&container.root);
        fs::remove_dir_all(container.root.join("gone")).unwrap();
        let before = snapshot(&container.upper);
        let (one, other) = (container.layer().0, container.layer().0);
        assert!(one == other);
        assert_same(&snapshot(&container.upper), &before);
    });
}
