//! Tests for a kernel that cannot mount files as EROFS (Debian 12's 6.1): they run in the virtual machine.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]
#![allow(dead_code, reason = "what the host's tests use of the shared modules")]

use std::fs;
use std::path::{Path, PathBuf};

use images::mount::{mount_image, mount_overlay};
use layer_tar::{dir, file, index, tar};
use namespace::{comes_true, in_own_mount_namespace};
use snapshot::xattrs;
use written::{Written, write};

#[path = "../it/layer_tar.rs"]
mod layer_tar;
#[path = "../it/namespace.rs"]
mod namespace;
#[path = "../it/one_file.rs"]
mod one_file;
#[path = "../it/round_trip.rs"]
mod round_trip;
#[path = "../it/snapshot.rs"]
mod snapshot;
#[path = "../it/umoci.rs"]
mod umoci;
#[path = "../it/written.rs"]
mod written;

/// The guest's ext4; its `/tmp` is a tmpfs.
const DISK: &str = "/scratch";

fn source_of(at: &Path) -> String {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let line = table.lines().rev().find(|line| line.split(' ').nth(4) == at.to_str()).unwrap();
    line.split(" - ").nth(1).unwrap().split(' ').nth(1).unwrap().into()
}

fn copy_to(place: &Path, written: &Written) -> (PathBuf, Vec<PathBuf>) {
    let copy = |from: &Path, name: String| {
        let to = place.join(name);
        fs::copy(from, &to).unwrap();
        to
    };
    let metadata = copy(&written.metadata, "metadata".into());
    let devices = written.devices.iter().enumerate();
    (metadata, devices.map(|(layer, from)| copy(from, format!("layer-{layer}"))).collect())
}

#[test]
fn an_image_and_its_overlay_work_over_loop_devices_on_disk_and_in_memory() {
    let root = dir(".").mode(0o1751).owner(12, 34).xattr("security.capability", round_trip::CAPABILITY);
    let mut entries = vec![root, file("f", "lower"), file("big", [7; 100_000])];
    entries.extend(one_file::entries());
    let written = write(vec![index(&tar(&entries)).unwrap()]);
    for place in [DISK, "/tmp"] {
        let place = tempfile::tempdir_in(place).unwrap();
        let (metadata, devices) = copy_to(place.path(), &written);
        let [root, task, merged] = ["root", "task", "merged"].map(|name| place.path().join(name));
        for directory in [&root, &task, &merged] {
            fs::create_dir(directory).unwrap();
        }
        in_own_mount_namespace(|| {
            let image = mount_image(&metadata, &devices, &root).unwrap();
            assert!(source_of(&root).starts_with("/dev/loop"));
            assert_eq!(fs::read(root.join("big")).unwrap(), [7; 100_000]);
            mount_overlay(&image, &task, &merged).unwrap();
            use std::os::unix::fs::MetadataExt;
            let metadata = fs::metadata(&merged).unwrap();
            assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (12, 34, 0o1751));
            assert_eq!(
                xattrs(&merged),
                [("security.capability".into(), snapshot::readable(round_trip::CAPABILITY))]
            );
            fs::write(merged.join("f"), "upper").unwrap();
            assert_eq!(fs::read(task.join("upper/f")).unwrap(), b"upper");
            assert_eq!(fs::read(root.join("f")).unwrap(), b"lower");
            one_file::check(&merged);
        });
    }
}

#[test]
fn as_many_layers_as_an_image_may_have_are_mounted_over_loop_devices() {
    let layers = (0..127).map(|layer| index(&tar(&[file(format!("f{layer}"), format!("{layer}"))])).unwrap());
    let written = write(layers.collect());
    let at = written.directory.path().join("root");
    fs::create_dir(&at).unwrap();
    in_own_mount_namespace(|| {
        mount_image(&written.metadata, &written.devices, &at).unwrap();
        for layer in 0..127 {
            assert_eq!(fs::read(at.join(format!("f{layer}"))).unwrap(), format!("{layer}").as_bytes());
        }
    });
    let is_ours = |device: fs::DirEntry| {
        let file = fs::read_to_string(device.path().join("loop/backing_file"));
        file.is_ok_and(|file| file.contains(&*written.directory.path().to_string_lossy()))
    };
    let in_use = || fs::read_dir("/sys/block").unwrap().any(|device| is_ours(device.unwrap()));
    assert!(comes_true(|| !in_use()), "the kernel clears them with the namespace");
}
