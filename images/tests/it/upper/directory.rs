//! A plain directory, as a cache is one: everything in it stands for itself.
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use images::limits::Limits;
use images::save::upper::{SaveUpperError, WrittenLayer, write_directory};
use rustix::fs::FileType;

use super::{make_new_things, names, node, seen, set};
use crate::snapshot::{assert_same, snapshot};

fn written(directory: &Path, limits: &Limits) -> Result<(Vec<u8>, WrittenLayer), SaveUpperError> {
    let (opened, mut tar) = (File::open(directory).unwrap(), Vec::new());
    let written = write_directory(opened.as_fd(), &mut tar, limits, &AtomicBool::new(false))?;
    Ok((tar, written))
}

#[test]
fn gnu_tar_gives_the_directory_back_with_what_would_mean_something_else_in_a_layer() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let at = |name: &str| directory.path().join("cache").join(name);
    fs::create_dir(at("")).unwrap();
    make_new_things(&at(""));
    fs::write(at(".wh.x"), "a name as any other").unwrap();
    fs::create_dir(at(".wh..wh..opq")).unwrap();
    fs::write(at(".wh..wh..opq/y"), "y").unwrap();
    node(&at("nothing"), FileType::CharacterDevice, (0, 0));
    fs::create_dir(at("opaque")).unwrap();
    let (tar, first) = written(&at(""), &Limits::default()).unwrap();
    assert_eq!((first.bytes, first.left_out.sentences()), (tar.len() as u64, Vec::new()));
    let before = seen(snapshot(&at("")));
    // What overlayfs would read there is nobody's business here.
    set(at("opaque"), "trusted.overlay.opaque", b"y");
    set(at("opaque"), "trusted.overlay.redirect", b"/elsewhere");
    let (again, _) = written(&at(""), &Limits::default()).unwrap();
    assert!(again == tar);

    let (archive, root) = (directory.path().join("cache.tar"), directory.path().join("root"));
    fs::write(&archive, tar).unwrap();
    fs::create_dir(&root).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-owner", "-xpf"]);
    let output = tar.arg(&archive).arg("-C").arg(&root).output().unwrap();
    assert!(output.status.success(), "tar: {}", String::from_utf8_lossy(&output.stderr));
    assert_same(&seen(snapshot(&root)), &before);
}

#[test]
fn s58_links_stay_links_and_what_is_mounted_there_stays_out() {
    let (directory, host) = (tempfile::tempdir_in(crate::DISK).unwrap(), tempfile::tempdir().unwrap());
    let at = |name: &str| directory.path().join(name);
    fs::write(host.path().join("canary"), "the host's own").unwrap();
    symlink(host.path().join("canary"), at("file")).unwrap();
    symlink(host.path(), at("directory")).unwrap();
    symlink("/proc/self/root", at("magic")).unwrap();
    node(&at("fifo"), FileType::Fifo, (0, 0));
    node(&at("device"), FileType::CharacterDevice, (4000, 1));
    drop(UnixListener::bind(at("socket")).unwrap());
    let (tar, written_whole) = written(directory.path(), &Limits::default()).unwrap();
    assert_eq!(names(&tar), ["./", "device", "directory", "fifo", "file", "magic"]);
    assert!(!tar.windows(14).any(|part| part == b"the host's own"));
    assert_eq!(written_whole.left_out.sockets.count, 1);
    let mut archive = ::tar::Archive::new(&tar[..]);
    let file = archive.entries().unwrap().map(Result::unwrap).find(|it| it.path_bytes().ends_with(b"file"));
    assert_eq!(file.unwrap().link_name().unwrap().unwrap(), host.path().join("canary"));

    crate::namespace::in_own_mount_namespace(|| {
        fs::create_dir(at("mounted")).unwrap();
        rustix::mount::mount_bind(host.path(), at("mounted")).unwrap();
        let refused = written(directory.path(), &Limits::default()).unwrap_err();
        assert!(matches!(refused, SaveUpperError::Read { .. }), "{refused}");
    });
}

#[test]
fn a_file_that_is_larger_than_all_may_be_is_refused_before_it_is_read() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    File::create(directory.path().join("hole")).unwrap().set_len(1 << 40).unwrap();
    let opened = File::open(directory.path()).unwrap();
    let limits = Limits { unpacked_bytes: 1 << 30, ..Limits::default() };
    let refused = write_directory(opened.as_fd(), &mut io::sink(), &limits, &AtomicBool::new(false));
    assert!(matches!(refused, Err(SaveUpperError::TooLarge { .. })), "{refused:?}");
}
