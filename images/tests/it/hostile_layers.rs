//! Layers that no honest tool makes: each is refused with its reason, or means what the table says.
//!
//! No entry has a path on the host: the only file that indexing writes is the data file. What an
//! entry means is seen in the merged tree.
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;

use images::layer::{BLOCK_BYTES, Content, EntryProblem, FileBlocks, FileData, IndexLayerError, Node};
use images::limits::Limits;
use images::tree::{MergeError, NodeReader, Tree, merge};

use crate::layer_tar::{
    Entry, Indexed, block_device, char_device, dir, fifo, file, gnu_long, hardlink, index, index_with,
    symlink, tar,
};

mod stream;

/// What becomes of layers, lowest first.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// One entry is refused.
    Entry(EntryProblem),
    /// A hard link leads nowhere.
    NoLinkTarget,
    /// All paths but directories, with what they are.
    Shows(Vec<(String, String)>),
}

/// Name, entries of the layer, what is shown.
type Case = (&'static str, Vec<Entry>, &'static [(&'static str, &'static str)]);

fn shows(paths: &[(&str, &str)]) -> Verdict {
    Verdict::Shows(paths.iter().map(|(path, what)| ((*path).into(), (*what).into())).collect())
}

fn check(name: &str, layers: &[Vec<Entry>], expected: &Verdict) {
    assert_eq!(verdict(layers), *expected, "{name}");
}

fn verdict(layers: &[Vec<Entry>]) -> Verdict {
    let mut indexed = Vec::new();
    for entries in layers {
        match index(&tar(entries)) {
            Ok(layer) => indexed.push(layer),
            Err(IndexLayerError::Entry { problem, .. }) => return Verdict::Entry(problem),
            Err(error) => panic!("{error}"),
        }
    }
    match merged(&indexed) {
        Ok(tree) => Verdict::Shows(listing(&tree, &indexed).into_iter().collect()),
        Err(MergeError::NoLinkTarget { .. }) => Verdict::NoLinkTarget,
        Err(error) => panic!("{error}"),
    }
}

pub fn merged(layers: &[Indexed]) -> Result<Tree, MergeError> {
    let indexes: Vec<_> = layers.iter().map(Indexed::index).collect();
    merge(&indexes, &Limits::default())
}

/// What lies at a path without links.
fn node_at(tree: &Tree, layers: &[Indexed], path: &str) -> Node {
    let indexes: Vec<_> = layers.iter().map(Indexed::index).collect();
    let child = |id, name: &str| tree.entries(id).find(|entry| entry.0 == name.as_bytes()).unwrap().1;
    let id = path.split('/').fold(tree.root(), child);
    NodeReader::new(&indexes).read(tree, id).unwrap().1
}

/// A small file's contents in its layer's data.
fn contents(layer: &Indexed, file: &FileData) -> Vec<u8> {
    let mut contents = vec![0; file.size as usize];
    let mut read = |at: usize, length: usize, block: u32| {
        let part = &mut contents[at..at + length];
        layer.open().read_exact_at(part, u64::from(block) * BLOCK_BYTES).unwrap();
    };
    match &file.blocks {
        FileBlocks::Run(_) if file.size == 0 => {}
        FileBlocks::Run(start) => read(0, file.size as usize, *start),
        FileBlocks::Chunks { starts, .. } => {
            assert!(starts.len() <= 1, "larger ones are read in mounts");
            starts.iter().flatten().for_each(|start| read(0, file.size as usize, *start));
        }
    }
    contents
}

/// Contents of files, `-> target`, `c 1:3`, `b 8:0`, `p`; an empty directory is `/`.
pub fn listing(tree: &Tree, layers: &[Indexed]) -> BTreeMap<String, String> {
    let indexes: Vec<_> = layers.iter().map(Indexed::index).collect();
    let mut nodes = NodeReader::new(&indexes);
    let mut all = BTreeMap::new();
    let mut directories = vec![(Vec::new(), tree.root())];
    while let Some((path, id)) = directories.pop() {
        if tree.entries(id).next().is_none() && !path.is_empty() {
            all.insert(path.escape_ascii().to_string(), "/".into());
        }
        for (name, id) in tree.entries(id) {
            let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
            let path = [&path, separator, name].concat();
            let (layer, node) = nodes.read(tree, id).unwrap();
            let what = match &node.content {
                Content::Directory => {
                    directories.push((path, id));
                    continue;
                }
                Content::File(file) => contents(&layers[layer], file).escape_ascii().to_string(),
                Content::Symlink(target) => format!("-> {}", target.escape_ascii()),
                Content::CharDevice(device) => format!("c {}:{}", device.major, device.minor),
                Content::BlockDevice(device) => format!("b {}:{}", device.major, device.minor),
                Content::Fifo => "p".into(),
            };
            all.insert(path.escape_ascii().to_string(), what);
        }
    }
    all
}

#[test]
fn s1_a_name_with_a_parent_component_refuses_the_layer() {
    for name in ["../../canary", "a/../../../canary", "..", "a/..", "/..", "./../x", "a/../b"] {
        check(name, &[vec![file(name, "x")]], &Verdict::Entry(EntryProblem::LeavesLayer));
        check(name, &[vec![dir(name)]], &Verdict::Entry(EntryProblem::LeavesLayer));
        check(name, &[vec![hardlink("h", name)]], &Verdict::Entry(EntryProblem::LeavesLayer));
        let by_pax = Entry::new(b'0', "harmless").pax("path", name);
        check(name, &[vec![by_pax]], &Verdict::Entry(EntryProblem::LeavesLayer));
        let by_gnu = vec![gnu_long(b'L', name.as_bytes()), file("harmless", "x")];
        check(name, &[by_gnu], &Verdict::Entry(EntryProblem::LeavesLayer));
    }
    check("not a component", &[vec![file("..a/b..", "x")]], &shows(&[("..a/b..", "x")]));
}

#[test]
fn s2_an_absolute_name_is_one_inside() {
    for name in ["/canary", "//canary", "/./canary", "./canary", "././/canary"] {
        check(name, &[vec![file(name, "x")]], &shows(&[("canary", "x")]));
    }
}

#[test]
fn s3_an_entry_behind_a_link_of_its_layer_lands_inside() {
    let cases: &[Case] = &[
        (
            "absolute",
            vec![symlink("l", "/hostdir"), file("l/canary", "x")],
            &[("hostdir/canary", "x"), ("l", "-> /hostdir")],
        ),
        (
            "upwards",
            vec![symlink("l", "../../../hostdir"), file("l/canary", "x")],
            &[("hostdir/canary", "x"), ("l", "-> ../../../hostdir")],
        ),
        ("root", vec![symlink("l", "/"), file("l/canary", "x")], &[("canary", "x"), ("l", "-> /")]),
        (
            "parent of root",
            vec![symlink("l", ".."), file("l/l/l/canary", "x")],
            &[("canary", "x"), ("l", "-> ..")],
        ),
        (
            "in a directory",
            vec![dir("a/b"), symlink("a/b/l", "../c"), file("a/b/l/canary", "x")],
            &[("a/b/l", "-> ../c"), ("a/c/canary", "x")],
        ),
        (
            "chain",
            vec![symlink("l", "m/n"), symlink("m", "/o"), file("l/canary", "x")],
            &[("l", "-> m/n"), ("m", "-> /o"), ("o/n/canary", "x")],
        ),
        (
            "existing",
            vec![dir("usr/bin"), symlink("bin", "usr/bin"), file("bin/sh", "x")],
            &[("bin", "-> usr/bin"), ("usr/bin/sh", "x")],
        ),
        ("whiteout", vec![symlink("l", "d"), file("l/.wh.x", "")], &[("d", "/"), ("l", "-> d")]),
    ];
    for (name, entries, expected) in cases {
        check(name, std::slice::from_ref(entries), &shows(expected));
    }
}

#[test]
fn links_of_lower_layers_are_not_followed() {
    let lower = vec![dir("usr/lib"), symlink("lib", "usr/lib")];
    check("lower link", &[lower, vec![file("lib/x", "x")]], &shows(&[("lib/x", "x"), ("usr/lib", "/")]));
}

#[test]
fn a_parent_that_is_no_directory_refuses_the_layer() {
    let not_directory = Verdict::Entry(EntryProblem::ParentNotDirectory);
    check("file", &[vec![file("f", "x"), file("f/x", "x")]], &not_directory);
    check("device", &[vec![char_device("f", 1, 3), file("f/x", "x")]], &not_directory);
    check("link to file", &[vec![file("f", "x"), symlink("l", "f"), file("l/x", "x")]], &not_directory);
    check("hard link", &[vec![file("f", "x")], vec![hardlink("h", "f"), file("h/x", "x")]], &not_directory);
    let long = Verdict::Entry(EntryProblem::TooLong { what: "component", length: 300, limit: 255 });
    check("a link's long component", &[vec![symlink("l", "c".repeat(300)), file("l/x", "x")]], &long);
    let marked = Verdict::Entry(EntryProblem::BelowWhiteout);
    check("a link to a whiteout", &[vec![symlink("l", ".wh.x"), file("l/x", "x")]], &marked);
    let circle = Verdict::Entry(EntryProblem::LinkLoop { limit: 40 });
    check("itself", &[vec![symlink("l", "l"), file("l/x", "x")]], &circle);
    check("each other", &[vec![symlink("l", "m"), symlink("m", "/l"), file("l/x", "x")]], &circle);
    check("growing", &[vec![symlink("l", "l/l"), file("l/x", "x")]], &circle);
}

#[test]
fn s4_a_hard_link_leads_to_a_file_of_the_image_or_nowhere() {
    let link_out = vec![symlink("l", "../../../../hostdir"), hardlink("h", "l/secret")];
    check("through a link", &[link_out], &Verdict::NoLinkTarget);
    check("missing", &[vec![hardlink("h", "no/such")]], &Verdict::NoLinkTarget);
    check("later", &[vec![hardlink("h", "f"), file("f", "x")]], &Verdict::NoLinkTarget);
    check("directory", &[vec![dir("d"), hardlink("h", "d")]], &Verdict::Entry(EntryProblem::LinkToDirectory));
    check("root", &[vec![hardlink("h", "/")]], &Verdict::Entry(EntryProblem::LinkToDirectory));
    check("lower directory", &[vec![dir("d")], vec![hardlink("h", "d")]], &Verdict::NoLinkTarget);
    check("nothing", &[vec![hardlink("h", "")]], &Verdict::Entry(EntryProblem::EmptyTarget));
    check(
        "link itself",
        &[vec![symlink("s", "/etc/shadow"), hardlink("h", "s")]],
        &shows(&[("h", "-> /etc/shadow"), ("s", "-> /etc/shadow")]),
    );
    check(
        "behind a link",
        &[vec![dir("d"), file("d/f", "x"), symlink("l", "/d"), hardlink("h", "l/f")]],
        &shows(&[("d/f", "x"), ("h", "x"), ("l", "-> /d")]),
    );
    check(
        "lower, behind a lower link",
        &[vec![dir("d"), file("d/f", "x"), symlink("l", "/d")], vec![hardlink("h", "l/f")]],
        &shows(&[("d/f", "x"), ("h", "x"), ("l", "-> /d")]),
    );
    check(
        "a rename by link and whiteout",
        &[vec![file("old", "x")], vec![file(".wh.old", ""), hardlink("new", "old")]],
        &shows(&[("new", "x")]),
    );
}

#[test]
fn s5_the_last_entry_of_a_name_counts_and_is_never_written_through() {
    let entries = vec![file("a", "first"), symlink("a", "/etc/canary"), file("a", "last")];
    check("file, link, file", &[entries], &shows(&[("a", "last")]));
    let entries = vec![file("a", "first"), hardlink("b", "a"), file("a", "last")];
    check("the other name keeps the file", &[entries], &shows(&[("a", "last"), ("b", "first")]));
    let entries = vec![symlink("a", "/etc"), dir("a"), file("a/x", "x")];
    check("directory instead of a link", &[entries], &shows(&[("a/x", "x")]));
}

#[test]
fn s6_a_change_of_type_leaves_nothing_of_the_old_one() {
    let directory = vec![dir("d"), file("d/old", "old"), dir("d/sub"), file("d/sub/x", "x")];
    let as_file = vec![file("d", "file")];
    let again = vec![dir("d"), file("d/new", "new")];
    check("three layers", &[directory.clone(), as_file.clone(), again.clone()], &shows(&[("d/new", "new")]));
    check("two layers", &[directory.clone(), as_file.clone()], &shows(&[("d", "file")]));
    check("in one", &[[directory.clone(), as_file].concat()], &shows(&[("d", "file")]));
    check(
        "directory again",
        &[[directory.clone(), vec![file("d", "f"), dir("d")]].concat()],
        &shows(&[("d", "/")]),
    );
    let through_file = vec![file("d", "f"), dir("d"), file("d/new", "new")];
    check("over a lower one", &[directory.clone(), through_file], &shows(&[("d/new", "new")]));
    check(
        "kept",
        &[[directory, again].concat()],
        &shows(&[("d/new", "new"), ("d/old", "old"), ("d/sub/x", "x")]),
    );
}

#[test]
fn s7_a_whiteout_of_nothing_or_of_a_parent_refuses_the_layer() {
    for name in [".wh...", ".wh..", ".wh.", "a/.wh...", "a/.wh.", "./.wh..."] {
        let expected = Verdict::Entry(EntryProblem::BadWhiteout);
        check(name, &[vec![dir("a"), file("a/x", "x")], vec![file(name, "")]], &expected);
    }
    for name in ["x/.wh.../y", ".wh.x/y", ".wh./y"] {
        check(name, &[vec![file(name, "")]], &Verdict::Entry(EntryProblem::BelowWhiteout));
    }
    for name in [".wh..wh.aufs", ".wh..wh.plnk/123", ".wh..wh..opq/x"] {
        check(name, &[vec![file("a", "x")], vec![file(name, "")]], &shows(&[("a", "x")]));
    }
}

#[test]
fn what_aufs_kept_aside_is_shown_by_its_hard_links_only() {
    let kept = || file(".wh..wh.plnk/12.34", "kept");
    let linked =
        vec![kept(), hardlink("a/hl", ".wh..wh.plnk/12.34"), hardlink("hl", "/.wh..wh.plnk/./12.34")];
    check("linked", &[linked], &shows(&[("a/hl", "kept"), ("hl", "kept")]));
    let missing = Verdict::Entry(EntryProblem::NothingAside);
    check("missing", &[vec![kept(), hardlink("a/hl", ".wh..wh.plnk/12.35")]], &missing);
    check("of another layer", &[vec![kept()], vec![hardlink("h", ".wh..wh.plnk/12.34")]], &missing);
}

#[test]
fn a_whiteout_of_a_directory_and_of_what_is_in_it_leave_nothing_in_any_order() {
    let lower =
        vec![dir("a"), dir("a/dir"), file("a/dir/f", "x"), dir("a/dir/sub"), file("a/dir/sub/g", "x")];
    let marks = ["a/.wh.dir", "a/dir/.wh.f", "a/dir/sub/.wh.g", "a/dir/.wh.sub"];
    for first in 0..marks.len() {
        let upper = (0..marks.len()).map(|at| file(marks[(first + at) % marks.len()], "")).collect();
        check(marks[first], &[lower.clone(), upper], &shows(&[("a", "/")]));
    }
    let with_new = vec![file("a/.wh.dir", ""), file("a/dir/.wh.f", ""), file("a/dir/sub/new", "n")];
    check("but what is new", &[lower.clone(), with_new], &shows(&[("a/dir/sub/new", "n")]));
    let described = vec![file("a/dir/.wh.f", ""), dir("a/dir"), file("a/.wh.dir", "")];
    check("or described", &[lower], &shows(&[("a/dir/f", "x"), ("a/dir/sub/g", "x")]));
    check("or described", &[vec![file("a/dir/f", "x")], described], &shows(&[("a/dir", "/")]));
}

#[test]
fn links_that_multiply_a_path_are_refused_before_they_cost_time() {
    let long = "a/".repeat(2000);
    let limits = Limits { components_walked: 10_000, ..Limits::default() };
    let refused = |entries: &[Entry]| match index_with(&tar(entries), &limits).err() {
        Some(IndexLayerError::TooLarge { what, .. }) => what,
        Some(IndexLayerError::Entry { problem: EntryProblem::TooLong { what, .. }, .. }) => what,
        other => panic!("{other:?}"),
    };
    let back = "../".repeat(1300);
    let links: Vec<_> =
        (0..40).map(|number| symlink(format!("l{number}"), format!("{back}l{}", number + 1))).collect();
    assert_eq!(refused(&[links, vec![file("l0/x", "")]].concat()), "path with its links");
    let many: Vec<_> = (0..10).map(|number| file(format!("{long}{number}"), "")).collect();
    assert_eq!(refused(&many), "paths' components");
}

#[test]
fn a_hard_link_without_a_target_is_named_with_its_whole_path() {
    let layers = [index(&tar(&[dir("x"), dir("a"), dir("a/b"), hardlink("a/b/hl", "no/such")])).unwrap()];
    let error = merged(&layers).err().unwrap().to_string();
    assert!(error.contains("the hard link \"a/b/hl\" leads to \"no/such\""), "{error}");
}

#[test]
fn a_whiteout_hides_lower_layers_only() {
    let lower = vec![file("a", "old"), dir("d"), file("d/old", "x")];
    let cases: &[Case] = &[
        ("file", vec![file(".wh.a", "")], &[("d/old", "x")]),
        ("file, then new", vec![file(".wh.a", ""), file("a", "new")], &[("a", "new"), ("d/old", "x")]),
        ("new, then file", vec![file("a", "new"), file(".wh.a", "")], &[("a", "new"), ("d/old", "x")]),
        ("directory", vec![file(".wh.d", "")], &[("a", "old")]),
        ("directory, then new", vec![file(".wh.d", ""), dir("d")], &[("a", "old"), ("d", "/")]),
        ("implied directory", vec![file("d/new", "x"), file(".wh.d", "")], &[("a", "old"), ("d/new", "x")]),
        ("never was", vec![file(".wh.none", "")], &[("a", "old"), ("d/old", "x")]),
        ("as a directory", vec![dir(".wh.a")], &[("d/old", "x")]),
    ];
    for (name, upper, expected) in cases {
        check(name, &[lower.clone(), upper.clone()], &shows(expected));
    }
}

#[test]
fn s8_an_opaque_mark_hides_what_is_below_whatever_its_place() {
    let lower = vec![dir("d"), file("d/a", "a"), dir("d/sub"), file("d/sub/x", "x")];
    let mark = || file("d/.wh..wh..opq", "");
    for upper in [
        vec![mark(), file("d/b", "b")],
        vec![file("d/b", "b"), mark()],
        vec![dir("d"), mark(), file("d/b", "b")],
    ] {
        check("opaque", &[lower.clone(), upper], &shows(&[("d/b", "b")]));
    }
    check("root", &[lower.clone(), vec![file(".wh..wh..opq", ""), file("b", "b")]], &shows(&[("b", "b")]));
    check("empty", &[lower, vec![mark()]], &shows(&[("d", "/")]));
}

#[test]
fn s9_the_whiteout_device_is_refused_and_other_devices_stay_in_the_tree() {
    check("0:0", &[vec![char_device("w", 0, 0)]], &Verdict::Entry(EntryProblem::WhiteoutDevice));
    check("8:0", &[vec![block_device("sda", 8, 0)]], &shows(&[("sda", "b 8:0")]));
    check("0:0 as block", &[vec![block_device("b", 0, 0)]], &shows(&[("b", "b 0:0")]));
    check("major", &[vec![char_device("c", 4096, 0)]], &Verdict::Entry(EntryProblem::DeviceNumber));
    check("minor", &[vec![block_device("b", 8, 1 << 20)]], &Verdict::Entry(EntryProblem::DeviceNumber));
    check("fifo", &[vec![fifo("p")]], &shows(&[("p", "p")]));
}

#[test]
fn s10_attributes_that_steer_the_host_are_left_out_and_counted() {
    let kept = ["user.mine", "security.capability", "system.posix_acl_access", "system.posix_acl_default"];
    let dropped = [
        "trusted.overlay.redirect",
        "trusted.overlay.opaque",
        "trusted.overlay.metacopy",
        "trusted.any",
        "user.overlay.opaque",
        "user.overlay.whiteout",
        "security.selinux",
        "security.ima",
        "security.capabilityx",
        "system.nfs4_acl",
        "user.",
        "user",
        "no-namespace",
    ];
    let entry = kept.iter().chain(&dropped).fold(file("f", "x"), |entry, name| entry.xattr(name, "/x"));
    let layer =
        index(&tar(&[entry.clone(), Entry { kind: b'5', name: b"d".into(), body: Vec::new(), ..entry }]))
            .unwrap();
    assert_eq!(layer.index().dropped_xattrs(), 2 * dropped.len() as u64);
    let layers = [layer];
    let tree = merged(&layers).unwrap();
    for path in ["f", "d"] {
        let node = node_at(&tree, &layers, path);
        let mut names: Vec<_> = node.metadata.xattrs.iter().map(|xattr| xattr.name.to_vec()).collect();
        names.sort();
        let mut expected = kept.map(|name| name.as_bytes().to_vec());
        expected.sort();
        assert_eq!(names, expected);
    }
}

#[test]
fn names_and_targets_have_limits_and_no_zero_bytes() {
    let too_long = |what, length, limit| Verdict::Entry(EntryProblem::TooLong { what, length, limit });
    let path = |length: usize| "abcdefghi/".repeat(length / 10) + &"x".repeat(length % 10);
    let cases = [
        (file("c".repeat(256), "x"), too_long("component", 256, 255)),
        (file(path(4096), "x"), too_long("path", 4096, 4095)),
        (symlink("l", "t".repeat(4096)), too_long("link target", 4096, 4095)),
        (hardlink("h", path(4096)), too_long("path", 4096, 4095)),
        (symlink("l", ""), Verdict::Entry(EntryProblem::EmptyTarget)),
        (file("", "x"), Verdict::Entry(EntryProblem::EmptyName)),
        (file(".", "x"), Verdict::Entry(EntryProblem::RootNotDirectory)),
        (symlink("/", "etc"), Verdict::Entry(EntryProblem::RootNotDirectory)),
        (file("f", "x").owner(u64::from(u32::MAX), 0), Verdict::Entry(EntryProblem::Owner)),
        (file("f", "x").pax("gid", "4294967295"), Verdict::Entry(EntryProblem::Owner)),
    ];
    for (entry, expected) in cases {
        check(&String::from_utf8_lossy(&entry.name), std::slice::from_ref(&vec![entry.clone()]), &expected);
    }
    let name = "c".repeat(255);
    let removed = [vec![file(&name, "x")], vec![file(format!(".wh.{name}"), "")]];
    check("longest component, removed", &removed, &shows(&[]));
    check("longest component", &[vec![file(&name, "x")]], &shows(&[(&name, "x")]));
    assert!(index(&tar(&[file(path(4095), "x"), symlink("l", "t".repeat(4095))])).is_ok());
    check("newline", &[vec![file("a\nb", "x")]], &shows(&[("a\\nb", "x")]));
}

#[test]
fn pax_records_and_base_256_outrank_the_headers_fields() {
    let by_pax = file("short", "body")
        .pax("path", "long/name")
        .pax("uid", "70000")
        .pax("gid", "4294967294")
        .pax("mtime", "-1.25")
        .pax("size", "4");
    let by_base_256 = file("big", "x").owner(3_000_000, 4_000_000_000);
    let link = symlink("l", "header").pax("linkpath", "record");
    let layers = [index(&tar(&[by_pax, by_base_256, link])).unwrap()];
    let tree = merged(&layers).unwrap();
    let of = |path| node_at(&tree, &layers, path);
    let metadata = &of("long/name").metadata;
    assert_eq!((metadata.uid, metadata.gid), (70_000, u32::MAX - 1));
    assert_eq!((metadata.modified.seconds, metadata.modified.nanoseconds), (-2, 750_000_000));
    assert_eq!((of("big").metadata.uid, of("big").metadata.gid), (3_000_000, 4_000_000_000));
    assert_eq!(of("l").content, Content::Symlink(b"record".as_slice().into()));
}

#[test]
fn attributes_have_limits() {
    let many =
        |count| (0..count).fold(file("f", "x"), |entry, number| entry.xattr(&format!("user.{number}"), "v"));
    let long = |length| file("f", "x").xattr("user.x", vec![b'v'; length]);
    for (entry, fits) in [(many(64), true), (many(65), false), (long(65_535), true), (long(65_536), false)] {
        let result = index(&tar(&[entry]));
        assert_eq!(result.is_ok(), fits);
        if let Err(error) = result {
            assert!(matches!(error, IndexLayerError::Entry { problem: EntryProblem::Xattrs, .. }), "{error}");
        }
    }
}

#[test]
fn types_that_are_no_files_are_refused_by_name() {
    for kind in [b'V', b'M', b'D', b'N', b'A', b'X', b'8', b's', 0xff] {
        let Verdict::Entry(EntryProblem::UnknownType { kind: said }) =
            verdict(&[vec![Entry::new(kind, "x")]])
        else {
            panic!("{kind} was taken")
        };
        assert_eq!(said, kind.escape_ascii().to_string());
    }
    check("contiguous", &[vec![Entry::new(b'7', "f").body("x")]], &shows(&[("f", "x")]));
    check("oldest file", &[vec![Entry::new(0, "f").body("x")]], &shows(&[("f", "x")]));
    check("oldest directory", &[vec![Entry::new(0, "d/")]], &shows(&[("d", "/")]));
    check(
        "a size without a body",
        &[vec![dir("d").size(4096), symlink("l", "t").size(7), file("f", "x")]],
        &shows(&[("d", "/"), ("f", "x"), ("l", "-> t")]),
    );
}

#[test]
fn sparse_maps_that_do_not_fit_are_refused() {
    let sparse = |map: &str, size: &str, body: usize| {
        let entry = file("f", vec![b'x'; body]).pax("GNU.sparse.map", map).pax("GNU.sparse.size", size);
        verdict(&[vec![entry]])
    };
    let wrong = Verdict::Entry(EntryProblem::SparseMap);
    assert_eq!(sparse("0,4,8,4", "10", 8), wrong, "beyond the size");
    assert_eq!(sparse("0,4,2,4", "10", 8), wrong, "overlapping");
    assert_eq!(sparse("6,4,0,4", "10", 8), wrong, "unordered");
    assert_eq!(sparse("0,4", "10", 8), wrong, "less than the body");
    assert_eq!(sparse("0,4,4,8", "20", 8), wrong, "more than the body");
    assert_eq!(sparse("0,2,8,2", "12", 4), shows(&[("f", r"xx\x00\x00\x00\x00\x00\x00xx\x00\x00")]));
    let nothing = Entry::new(b'S', "f");
    assert_eq!(verdict(&[vec![nothing]]), wrong, "an old GNU header that is none");
}

#[test]
fn an_error_names_the_entry_escaped_and_says_what_to_do() {
    let error = index(&tar(&[file(b"a\x1b[31m\n/../b", "x")])).err().unwrap();
    assert_eq!(
        error.to_string(),
        r#"index the layer's entry "a\x1b[31m\n/../b": its path has a component "..", which leads out of the layer; the image has to be built again without it"#
    );
}
