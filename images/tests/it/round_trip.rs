//! What we mount, against what umoci unpacks from the same image.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::layer_tar::{Entry, block_device, char_device, dir, fifo, file, hardlink, index, symlink, tar};
use crate::snapshot::{Seen, assert_same, readable};
use crate::umoci::unpacked_by_umoci;
use crate::written::{mounted_snapshot, write};

pub fn check(layers: &[Vec<Entry>]) -> BTreeMap<PathBuf, Seen> {
    check_tars(&layers.iter().map(|entries| tar(entries)).collect::<Vec<_>>())
}

pub fn check_tars(tars: &[Vec<u8>]) -> BTreeMap<PathBuf, Seen> {
    let ours = mounted_snapshot(tars.iter().map(|tar| index(tar).unwrap()).collect());
    assert_same(&ours, &unpacked_by_umoci(tars));
    ours
}

/// `user::rw-,user:1000:r--,group::r--,mask::r--,other::r--` in the kernel's form.
const ACL: &[u8] = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\xe8\x03\0\0\
    \x04\0\x04\0\xff\xff\xff\xff\x10\0\x04\0\xff\xff\xff\xff\x20\0\x04\0\xff\xff\xff\xff";

/// CAP_NET_RAW, permitted and effective, as `setcap` writes it.
pub const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

#[test]
fn every_kind_of_entry_is_as_umoci_unpacks_it() {
    let many_names = (0..700).map(|number| file(format!("many/{number:03}-{}", "n".repeat(90)), "x"));
    let entries = vec![
        dir(".").mode(0o1755).modified(1_500_000_000),
        dir("bin"),
        dir("dev"),
        dir("run"),
        dir("d".repeat(200)),
        dir(format!("{}/{}", "d".repeat(200), "e".repeat(200))),
        dir("etc"),
        file("etc/passwd", "root:x:0:0::/root:/bin/sh\n").owner(1, 2).mode(0o600),
        file("etc/empty", ""),
        file("etc/block", [7; 4096]),
        file("etc/blocks", (0..50_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>()),
        file("bin/su", "x").mode(0o4755),
        file("bin/ping", "x").mode(0o755).xattr("security.capability", CAPABILITY),
        dir("tmp").mode(0o1777),
        symlink("link", "etc/passwd"),
        symlink("absolute", "/etc/passwd"),
        symlink("dangling", "../../no/where"),
        symlink("long", "a/".repeat(2000)),
        hardlink("etc/passwd-2", "etc/passwd"),
        hardlink("link-2", "link"),
        char_device("dev/null", 1, 3).mode(0o666),
        block_device("dev/sda", 8, 0).mode(0o660).owner(0, 6),
        block_device("dev/big", 259, 1_000_000 - 1),
        fifo("run/pipe").mode(0o620),
        file("big-owner", "x").owner(100_000, 2_000_000),
        file("nanoseconds", "x").pax("mtime", "1350244992.023960108"),
        file("before-1970", "x").pax("mtime", "-12.5"),
        file("attributes", "x")
            .xattr("user.one", "1")
            .xattr("user.binary", b"\0\n=\xff")
            .xattr("user.long", vec![b'v'; 3000]),
        file("access-list", "x").xattr("system.posix_acl_access", ACL),
        file("same-attributes", "x").xattr("user.long", vec![b'v'; 3000]),
        file(format!("{}/{}/deep", "d".repeat(200), "e".repeat(200)), "x"),
        file(b"not-utf-8-\xff\xfe\n", "x"),
        dir("many"),
    ];
    let seen = check(&[entries.into_iter().chain(many_names).collect()]);
    assert_eq!(seen[Path::new("etc/passwd")].links, 2);
    assert_eq!(seen[Path::new("etc/passwd-2")].same_as, Path::new("etc/passwd"));
    assert_eq!(seen[Path::new("bin/ping")].xattrs[0].1, readable(CAPABILITY));
    assert!(seen.len() > 700);
}

#[test]
fn layers_change_what_is_below_them_as_umoci_does() {
    let lower = vec![
        dir("."),
        dir("keep"),
        file("keep/a", "a"),
        file("keep/b", "b"),
        dir("gone"),
        file("gone/x", "x"),
        dir("opaque").mode(0o700),
        file("opaque/old", "old"),
        dir("opaque/old-directory"),
        file("file-to-dir", "x"),
        dir("dir-to-file"),
        file("dir-to-file/x", "x"),
        symlink("link-to-dir", "keep"),
        file("linked", "shared"),
        hardlink("linked-too", "linked"),
        file("replaced", "old"),
        dir("moded").mode(0o700),
        file("moded/x", "x"),
    ];
    let upper = vec![
        file("keep/.wh.a", ""),
        file(".wh.gone", ""),
        file("opaque/.wh..wh..opq", ""),
        file("opaque/new", "new"),
        dir("file-to-dir"),
        file("file-to-dir/inside", "x"),
        file("dir-to-file", "now a file"),
        dir("link-to-dir"),
        file("link-to-dir/own", "x"),
        file("replaced", "new"),
        hardlink("keep/across", "linked"),
        dir("moded").mode(0o711).owner(5, 6),
    ];
    let top = vec![
        dir("gone"),
        file("gone/again", "x"),
        file("replaced", "newest"),
        file(".wh.file-to-dir", ""),
        symlink("dir-to-file", "keep"),
        file(".wh.never-was", ""),
    ];
    let mut seen = check(&[lower.clone(), upper.clone(), top]);
    assert_eq!(seen.remove(Path::new("keep/across")).unwrap().links, 3);
    assert!(!seen.contains_key(Path::new("opaque/old")));
    assert!(!seen.contains_key(Path::new("keep/a")));
    assert!(!seen.contains_key(Path::new("gone/x")));
}

/// More than ext4 could hold: not compared with an unpacked image, but with what the layer says.
#[test]
fn attributes_as_many_and_as_long_as_allowed_read_back() {
    let lengths: Vec<usize> =
        (0..64).map(|number| if number % 8 == 0 { 60_000 } else { 900 + number }).collect();
    let give = |entry: Entry| {
        lengths.iter().enumerate().fold(entry, |entry, (number, length)| {
            entry.xattr(&format!("user.{number:02}"), vec![b'a' + (number % 26) as u8; *length])
        })
    };
    // A PAX block has a mebibyte at most, and these are half of it.
    let tar = tar(&[give(file("f", "contents")), give(dir("d")), file("d/x", "x"), file("after", "x")]);
    let seen = mounted_snapshot(vec![index(&tar).unwrap()]);
    for path in ["f", "d"] {
        let xattrs = &seen[Path::new(path)].xattrs;
        assert_eq!(xattrs.len(), 64);
        for (number, length) in lengths.iter().enumerate() {
            let value = readable(&vec![b'a' + (number % 26) as u8; *length]);
            assert_eq!(xattrs[number], (format!("user.{number:02}"), value));
        }
    }
}

#[test]
fn the_same_layers_give_the_same_bytes() {
    let layers = || {
        [
            tar(&[dir("d").xattr("user.x", "y"), file("d/f", "x"), hardlink("h", "d/f")]),
            tar(&[file("d/.wh.f", "")]),
        ]
    };
    let bytes =
        || std::fs::read(&write(layers().iter().map(|tar| index(tar).unwrap()).collect()).metadata).unwrap();
    assert_eq!(bytes(), bytes());
}
