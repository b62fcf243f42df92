//! Mounts of images and overlays in a namespace of the test's own.
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use images::mount::{ImageMount, MountError, mount_image, mount_overlay};
use rustix::fs::{StatVfsMountFlags, fstatvfs};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::layer_tar::{Entry, dir, file, index, symlink, tar};
use crate::namespace::{comes_true, in_own_mount_namespace};
use crate::one_file;
use crate::snapshot::xattrs;
use crate::written::{Written, write};

fn written(entries: &[Entry]) -> Written {
    write(vec![index(&tar(entries)).unwrap()])
}

fn directory(written: &Written, name: &str) -> PathBuf {
    let path = written.directory.path().join(name);
    fs::create_dir(&path).unwrap();
    path
}

fn mount_at(written: &Written, name: &str) -> ImageMount {
    mount_image(&written.metadata, &written.devices, &directory(written, name)).unwrap()
}

/// The type and source of what is mounted at a path, as the kernel says.
pub fn mounted(at: &Path) -> (String, String) {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let line = table.lines().rev().find(|line| line.split(' ').nth(4) == at.to_str()).unwrap();
    let mut fields = line.split(" - ").nth(1).unwrap().split(' ');
    (fields.next().unwrap().into(), fields.next().unwrap().into())
}

#[test]
fn the_image_is_mounted_read_only_without_set_id_devices_or_programs() {
    let written = written(&[dir("bin"), file("bin/x", "x").mode(0o4755)]);
    in_own_mount_namespace(|| {
        let image = mount_at(&written, "root");
        let flags = fstatvfs(image.root()).unwrap().f_flag;
        let expected = StatVfsMountFlags::RDONLY
            | StatVfsMountFlags::NOSUID
            | StatVfsMountFlags::NODEV
            | StatVfsMountFlags::NOEXEC;
        assert!(flags.contains(expected), "{flags:?}");
        assert_eq!(fs::read(image.at().join("bin/x")).unwrap(), b"x");
        let (kind, source) = mounted(image.at());
        assert_eq!((kind.as_str(), Path::new(&source)), ("erofs", &*written.metadata));
    });
    assert!(!written.directory.path().join("root/bin").exists(), "nothing is seen outside");
}

#[test]
fn the_overlay_takes_owner_mode_time_and_attributes_of_the_images_root() {
    let root = dir(".").mode(0o1751).owner(12, 34).modified(1_234_567_890).xattr("user.root", "yes");
    let written = written(&[root, file("f", "lower")]);
    in_own_mount_namespace(|| {
        let image = mount_at(&written, "root");
        let upper = directory(&written, "task");
        let at = directory(&written, "merged");
        let merged = mount_overlay(&image, &upper, &at).unwrap();
        let metadata = fs::metadata(&at).unwrap();
        assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (12, 34, 0o1751));
        assert_eq!(metadata.mtime(), 1_234_567_890);
        assert_eq!(xattrs(&at), [("user.root".into(), "yes".into())]);
        let flags = fstatvfs(&merged).unwrap().f_flag;
        let refused = StatVfsMountFlags::RDONLY | StatVfsMountFlags::NOSUID | StatVfsMountFlags::NODEV;
        assert!(!flags.intersects(refused | StatVfsMountFlags::NOEXEC), "{flags:?}");
        fs::write(at.join("f"), "upper").unwrap();
        fs::write(at.join("new"), "new").unwrap();
        assert_eq!(fs::read(upper.join("upper/f")).unwrap(), b"upper");
        assert_eq!(fs::read(image.at().join("f")).unwrap(), b"lower");
        assert_eq!(fs::metadata(upper.join("upper")).unwrap().permissions().mode() & 0o7777, 0o1751);
        assert_eq!(mounted(&at).0, "overlay");
    });
}

#[test]
fn a_file_is_one_file_by_all_its_names_whatever_happens_to_it() {
    let written = written(&one_file::entries());
    in_own_mount_namespace(|| {
        let image = mount_at(&written, "root");
        let at = directory(&written, "merged");
        mount_overlay(&image, &directory(&written, "task"), &at).unwrap();
        one_file::check(&at);
    });
}

#[test]
fn a_program_of_the_image_runs_from_the_overlay() {
    let busybox = fs::read("/bin/busybox").unwrap();
    let written = written(&[file("busybox", busybox).mode(0o755), symlink("echo", "busybox")]);
    in_own_mount_namespace(|| {
        let image = mount_at(&written, "root");
        let at = directory(&written, "merged");
        mount_overlay(&image, &directory(&written, "task"), &at).unwrap();
        let output = Command::new(at.join("echo")).arg("hello").output().unwrap();
        assert_eq!(output.stdout, b"hello\n");
        let refused = Command::new(image.at().join("echo")).output();
        assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    });
}

#[test]
fn files_on_tmpfs_are_mounted_through_loop_devices_that_go_with_the_mount() {
    let written = written(&[file("f", vec![b'x'; 10_000])]);
    in_own_mount_namespace(|| {
        let tmpfs = directory(&written, "tmpfs");
        mount("tmpfs", &tmpfs, "tmpfs", MountFlags::empty(), None).unwrap();
        let copy = |from: &Path, name: &str| {
            let to = tmpfs.join(name);
            fs::copy(from, &to).unwrap();
            to
        };
        let metadata = copy(&written.metadata, "metadata");
        let device = copy(&written.devices[0], "data");
        let at = directory(&written, "root");
        drop(mount_image(&metadata, &[device], &at).unwrap());
        let (_, source) = mounted(&at);
        assert!(source.starts_with("/dev/loop"), "{source}");
        assert_eq!(fs::read(at.join("f")).unwrap(), vec![b'x'; 10_000]);
        let backing =
            Path::new("/sys/block").join(source.trim_start_matches("/dev/")).join("loop/backing_file");
        let ours = || fs::read_to_string(&backing).is_ok_and(|file| file.contains("tmpfs/metadata"));
        assert!(ours());
        unmount(&at, UnmountFlags::empty()).unwrap();
        assert!(comes_true(|| !ours()), "the kernel clears {source}");
    });
}

#[test]
fn long_paths_are_mounted_by_descriptor() {
    let written = written(&[file("f", "x")]);
    let deep = (0..5).fold(written.directory.path().to_path_buf(), |path, _| path.join("d".repeat(100)));
    fs::create_dir_all(&deep).unwrap();
    let metadata = deep.join("metadata");
    fs::copy(&written.metadata, &metadata).unwrap();
    in_own_mount_namespace(|| {
        let at = deep.join("root");
        fs::create_dir(&at).unwrap();
        let image = mount_image(&metadata, &written.devices, &at).unwrap();
        assert_eq!(fs::read(at.join("f")).unwrap(), b"x");
        let merged = deep.join("merged: with, signs\\");
        fs::create_dir(&merged).unwrap();
        mount_overlay(&image, &deep.join("."), &merged).unwrap();
        assert_eq!(fs::read(merged.join("f")).unwrap(), b"x");
    });
}

#[test]
fn as_many_layers_as_an_image_may_have_are_mounted() {
    let layers = (0..127).map(|layer| index(&tar(&[file(format!("f{layer}"), format!("{layer}"))])).unwrap());
    let written = write(layers.collect());
    in_own_mount_namespace(|| {
        let image = mount_at(&written, "root");
        for layer in 0..127 {
            assert_eq!(
                fs::read(image.at().join(format!("f{layer}"))).unwrap(),
                format!("{layer}").as_bytes()
            );
        }
    });
}

#[test]
fn what_cannot_be_mounted_is_told_with_the_call_and_its_error() {
    let written = written(&[file("f", "x")]);
    let garbage = written.directory.path().join("garbage");
    fs::write(&garbage, vec![1; 8192]).unwrap();
    let missing = written.directory.path().join("missing");
    let at = directory(&written, "root");
    let too_many = [&written.devices[..], &written.devices].concat();
    let cases: &[(&Path, &[PathBuf], &Path, i32)] = &[
        (&garbage, &[], &at, libc::EINVAL),
        (&missing, &written.devices, &at, libc::ENOENT),
        (&written.metadata, std::slice::from_ref(&missing), &at, libc::ENOENT),
        (&written.metadata, &too_many, &at, libc::EINVAL),
        (&written.metadata, &written.devices, &missing, libc::ENOENT),
    ];
    in_own_mount_namespace(|| {
        for (metadata, devices, at, number) in cases {
            let error = mount_image(metadata, devices, at).unwrap_err();
            let MountError::Refused { source, .. } = &error else { panic!("{error}") };
            assert_eq!(source.raw_os_error(), Some(*number), "{error}");
        }
        let image = mount_image(&written.metadata, &written.devices, &at).unwrap();
        let upper = directory(&written, "task");
        File::create(upper.join("work")).unwrap();
        let error = mount_overlay(&image, &upper, &missing).unwrap_err();
        assert!(matches!(error, MountError::Prepare { .. }), "{error}");
    });
}
