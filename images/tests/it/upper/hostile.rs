//! Containers that make it hard, and callers that want no more.
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use images::layer::EntryProblem;
use images::limits::Limits;
use images::save::upper::{SaveUpperError, Trees, write_layer};
use rustix::fs::{CWD, FileType, Mode, OFlags, mkdirat, openat};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::{Container, check, in_container, names, node, set};
use crate::layer_tar::{dir, file, index, tar};
use crate::namespace::in_own_mount_namespace;
use crate::written::mounted_snapshot;

fn error_within(container: &Container, limits: &Limits) -> SaveUpperError {
    container.write(&mut io::sink(), limits, &AtomicBool::new(false)).unwrap_err()
}

fn error(container: &Container) -> SaveUpperError {
    error_within(container, &Limits::default())
}

#[test]
fn what_no_layer_can_say_is_left_out_and_told() {
    let image = [dir("."), file("x", "lower"), file("y", "lower")];
    let (layer, left_out) = in_container(&image, |container| {
        let at = |name: &str| container.root.join(name);
        // Anywhere but in the deep directory, whose name is too long for an address.
        let listener = UnixListener::bind(at("x.sock")).unwrap();
        drop(listener);
        fs::create_dir(at(".wh.y")).unwrap();
        fs::write(at(".wh.y/inside"), "hides").unwrap();
        fs::write(at(".wh.x"), "hides").unwrap();
        fs::hard_link(at(".wh.x"), at("also")).unwrap();
        fs::write(at(".wh..wh..opq"), "hides all").unwrap();
        fs::write(at("attribute"), "x").unwrap();
        set(at("attribute"), "user.a=b", b"c");
        let (layer, written) = container.layer();
        (layer, written.left_out)
    });
    assert_eq!(
        left_out.sentences(),
        [
            r#"1 sockets were left out, "x.sock" the first: an archive cannot hold them"#,
            r#"3 entries named ".wh.…" were left out, ".wh..wh..opq" the first: in an image, that name hides another file instead of being one"#,
            r#"1 extended attributes with an equals sign in their names were left out, "attribute" the first: an archive cannot hold them"#,
        ]
    );
    let seen = mounted_snapshot([tar(&image), layer].iter().map(|tar| index(tar).unwrap()).collect());
    let paths: Vec<_> = seen.keys().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(paths, ["", "also", "attribute", "x", "y"]);
    assert_eq!(seen[Path::new("attribute")].xattrs, []);
}

#[test]
fn a_socket_in_the_place_of_an_images_file_leaves_nothing_there() {
    let image = [dir("."), dir("run"), file("run/f", "lower"), file("run/g", "lower")];
    let layer = in_container(&image, |container| {
        fs::remove_file(container.root.join("run/f")).unwrap();
        drop(UnixListener::bind(container.root.join("run/f")).unwrap());
        drop(UnixListener::bind(container.root.join("run/new")).unwrap());
        container.layer().0
    });
    assert_eq!(names(&layer), ["./", "run/", "run/.wh.f", "run/.wh.new"]);
    let seen = mounted_snapshot([tar(&image), layer].iter().map(|tar| index(tar).unwrap()).collect());
    let paths: Vec<_> = seen.keys().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(paths, ["", "run", "run/g"]);
}

/// Where it is looked for other names, the merged tree is gone through: here it is none, and that would be an error.
#[test]
fn names_that_are_left_out_make_nobody_look_for_them() {
    in_container(&[dir("."), file("image", "x")], |container| {
        let at = |name: &str| container.root.join(name);
        fs::write(at("f"), "x").unwrap();
        fs::write(at("z"), "z").unwrap();
        fs::hard_link(at("f"), at(".wh.f")).unwrap();
        fs::hard_link(at("z"), at(".wh.z")).unwrap();
        let upper = images::mount::open_upper(container.upper.parent().unwrap()).unwrap();
        let nothing = tempfile::tempfile().unwrap();
        let trees = Trees { upper: upper.as_fd(), merged: nothing.as_fd() };
        let mut layer = Vec::new();
        let written = write_layer(trees, &mut layer, &Limits::default(), &AtomicBool::new(false)).unwrap();
        assert_eq!(names(&layer), ["./", "f", "z"]);
        assert_eq!(written.left_out.hiding_names.count, 2);
    });
}

#[test]
fn what_lies_below_a_name_that_is_left_out_costs_nothing_and_refuses_nothing() {
    let layer = in_container(&[dir("."), file("image", "x")], |container| {
        let at = |name: &str| container.root.join(name);
        fs::write(at("f"), "x").unwrap();
        // Deeper than any path may be, and with another name of a file that is in the layer.
        let name = "d".repeat(250);
        fs::create_dir(at(".wh.d")).unwrap();
        fs::hard_link(at("f"), at(".wh.d/f")).unwrap();
        let mut directory = openat(CWD, at(".wh.d"), OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..20 {
            mkdirat(&directory, &name, Mode::RWXU).unwrap();
            directory = openat(&directory, &name, OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        // Of more entries there are more than the limit.
        let limits = Limits { entries: 2, ..Limits::default() };
        let mut layer = Vec::new();
        let written = container.write(&mut layer, &limits, &AtomicBool::new(false)).unwrap();
        assert_eq!(written.left_out.hiding_names.count, 1, "what lies below is not counted");
        layer
    });
    assert_eq!(names(&layer), ["./", "f"]);
}

/// Without `xino` numbers of several file systems stand side by side in the merged tree.
#[test]
fn another_files_number_on_another_device_is_not_the_same_file() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    in_own_mount_namespace(|| {
        let at = |name: &str| directory.path().join(name);
        for place in ["image", "task", "root"] {
            fs::create_dir(at(place)).unwrap();
        }
        for place in ["image", "task"] {
            mount("tmpfs", at(place), "tmpfs", MountFlags::empty(), None).unwrap();
        }
        for place in ["task/upper", "task/work"] {
            fs::create_dir(at(place)).unwrap();
        }
        let options = format!(
            "index=off,xino=off,lowerdir={},upperdir={},workdir={}",
            at("image").display(),
            at("task/upper").display(),
            at("task/work").display()
        );
        // Numbers are given one after the other: some are both a file's of the image and one's of the container.
        for number in 0..60 {
            fs::write(at(&format!("image/a{number}")), "the image's").unwrap();
        }
        let options = std::ffi::CString::new(options).unwrap();
        mount("overlay", at("root"), "overlay", MountFlags::empty(), options.as_c_str()).unwrap();
        for number in 0..60 {
            fs::write(at(&format!("root/z{number}")), "the container's").unwrap();
            // Names that are no longer in the tree.
            fs::hard_link(at(&format!("task/upper/z{number}")), at(&format!("task/{number}"))).unwrap();
        }
        let numbers = |kind: char| -> std::collections::BTreeSet<u64> {
            let number = |number: i32| fs::metadata(at(&format!("root/{kind}{number}"))).unwrap().ino();
            (0..60).map(number).collect()
        };
        assert!(numbers('a').intersection(&numbers('z')).count() > 0, "the test needs some in common");
        let (upper, merged) = (File::open(at("task/upper")).unwrap(), File::open(at("root")).unwrap());
        let trees = Trees { upper: upper.as_fd(), merged: merged.as_fd() };
        let mut layer = Vec::new();
        write_layer(trees, &mut layer, &Limits::default(), &AtomicBool::new(false)).unwrap();
        let of_image: Vec<_> = names(&layer).into_iter().filter(|name| name.starts_with('a')).collect();
        assert_eq!(of_image, [""; 0]);
        for place in ["root", "task", "image"] {
            unmount(at(place), UnmountFlags::DETACH).unwrap();
        }
    });
}

/// Of the names that are looked for and those of a directory each alone would do.
#[test]
fn looking_for_other_names_has_the_same_bound_as_all_else() {
    let linked = (0..300).flat_map(|number| {
        let name = format!("a{number}");
        [file(&name, "x"), crate::layer_tar::hardlink(format!("zz/{name}"), &name)]
    });
    let many = (0..1500).map(|number| file(format!("many/{number}-{}", "n".repeat(30)), ""));
    let image: Vec<_> = [dir("."), dir("zz"), dir("many")].into_iter().chain(linked).chain(many).collect();
    in_container(&image, |container| {
        for number in 0..300 {
            fs::write(container.root.join(format!("a{number}")), "changed").unwrap();
        }
        let links = 300 * 192;
        let enough = Limits { index_bytes: links + 160_000, ..Limits::default() };
        container.write(&mut io::sink(), &enough, &AtomicBool::new(false)).unwrap();
        let error = error_within(container, &Limits { index_bytes: links + 40_000, ..Limits::default() });
        assert!(
            matches!(&error, SaveUpperError::TooLarge { what, .. } if what.contains("memory")),
            "{error}"
        );
    });
}

/// Deeper than directories stay open, and back up; `depth` of them with names of `length` bytes.
fn dig(root: &Path, depth: usize, length: usize) {
    let mut at = openat(CWD, root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    for level in 0..depth {
        let name = |kind: char| format!("{kind}{}", "-".repeat(length - 1));
        for kind in ['a', 'd', 'z'] {
            mkdirat(&at, name(kind), Mode::RWXU).unwrap();
        }
        let file = openat(&at, "e", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        rustix::io::write(&file, level.to_string().as_bytes()).unwrap();
        at = openat(&at, name('d'), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    }
}

#[test]
fn deep_directories_are_gone_through_up_to_what_a_path_may_be() {
    let names = check(&[dir(".")], |root| dig(root, 200, 10));
    // Of every level three directories, each a mark, and a file.
    assert!(names.len() > 200 * 4, "{}", names.len());
    in_container(&[dir(".")], |container| {
        dig(&container.root, 420, 10);
        let error = error(container);
        let SaveUpperError::Entry {
            problem: EntryProblem::TooLong { what: "path", limit: 4095, .. }, ..
        } = error
        else {
            panic!("{error}")
        };
    });
}

#[test]
fn links_are_not_followed_and_special_files_not_opened() {
    in_container(&[dir(".")], |container| {
        let canary = tempfile::tempdir().unwrap();
        fs::write(canary.path().join("canary"), "the host's own").unwrap();
        symlink(canary.path(), container.root.join("directory")).unwrap();
        symlink(canary.path().join("canary"), container.root.join("file")).unwrap();
        symlink("/proc/self/root", container.root.join("magic")).unwrap();
        // Opening would wait for a writer, and report that there is no such device.
        node(&container.root.join("fifo"), FileType::Fifo, (0, 0));
        node(&container.root.join("device"), FileType::CharacterDevice, (4000, 1));
        let (layer, _) = container.layer();
        assert_eq!(names(&layer), ["./", "device", "directory", "fifo", "file", "magic"]);
        assert!(!layer.windows(14).any(|part| part == b"the host's own"));
    });
}

#[test]
fn overlayfs_attributes_mean_what_they_do_or_end_the_work() {
    let cases = [
        ("redirect", "/elsewhere", None),
        ("metacopy", "", None),
        ("opaque", "z", None),
        ("made-up-tomorrow", "1", None),
        ("impure", "y", Some(vec!["./", "d/", "d/f"])),
        ("overlay.opaque", "y", Some(vec!["./", "d/", "d/f"])),
        ("opaque", "x", Some(vec!["./", "d/", "d/f"])),
        ("opaque", "y", Some(vec!["./", "d/", "d/.wh..wh..opq", "d/f"])),
    ];
    for (name, value, expected) in cases {
        in_container(&[dir("."), dir("d")], |container| {
            fs::write(container.root.join("d/f"), "x").unwrap();
            set(container.upper.join("d"), &format!("trusted.overlay.{name}"), value.as_bytes());
            match expected {
                Some(expected) => {
                    let (layer, _) = container.layer();
                    assert_eq!(names(&layer), expected, "{name}={value}");
                    assert!(!layer.windows(8).any(|part| part == b"trusted."));
                }
                None => {
                    let error = error(container);
                    assert!(
                        matches!(&error, SaveUpperError::Overlay { attribute, .. }
                        if *attribute == format!("trusted.overlay.{name}")),
                        "{error}"
                    );
                }
            }
        });
    }
    in_container(&[dir("."), dir("d"), file("d/f", "x")], |container| {
        fs::write(container.root.join("d/g"), "").unwrap();
        set(container.upper.join("d"), "trusted.overlay.opaque", b"x");
        fs::write(container.upper.join("d/f"), "").unwrap();
        set(container.upper.join("d/f"), "trusted.overlay.whiteout", b"");
        assert_eq!(names(&container.layer().0), ["./", "d/", "d/.wh.f", "d/g"]);
    });
}

/// Does something when the first mebibyte comes.
struct Sink<F: FnMut() -> io::Result<()>> {
    taken: u64,
    at_first: F,
}

impl<F: FnMut() -> io::Result<()>> Write for Sink<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.taken == 0 {
            (self.at_first)()?;
        }
        self.taken += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_ends_the_work() {
    type Change = fn(&File);
    let changes: [(&str, Change); 4] = [
        ("shorter", |file| file.set_len(2 << 20).unwrap()),
        ("empty", |file| file.set_len(0).unwrap()),
        ("longer", |file| file.set_len(5 << 20).unwrap()),
        ("other bytes", |file| file.write_all_at(b"x", (4 << 20) - 1).unwrap()),
    ];
    for (name, change) in changes {
        in_container(&[dir(".")], |container| {
            let path = container.root.join("file");
            fs::write(&path, vec![7; 4 << 20]).unwrap();
            let open = File::options().write(true).open(&path).unwrap();
            let mut sink = Sink {
                taken: 0,
                at_first: || {
                    change(&open);
                    Ok(())
                },
            };
            let result = container.write(&mut sink, &Limits::default(), &AtomicBool::new(false));
            assert!(matches!(result, Err(SaveUpperError::Changed { .. })), "{name}: {result:?}");
        });
    }
}

#[test]
fn an_entry_that_goes_before_it_is_read_ends_the_work() {
    in_container(&[dir(".")], |container| {
        fs::write(container.root.join("a"), vec![7; 2 << 20]).unwrap();
        fs::write(container.root.join("b"), "x").unwrap();
        let gone = || fs::remove_file(container.root.join("b"));
        let mut sink = Sink { taken: 0, at_first: gone };
        let result = container.write(&mut sink, &Limits::default(), &AtomicBool::new(false));
        assert!(matches!(result, Err(SaveUpperError::Changed { .. })), "{result:?}");
    });
}

#[test]
fn a_cancel_ends_the_work_soon_and_a_full_sink_at_once() {
    in_container(&[dir(".")], |container| {
        File::create(container.root.join("hole")).unwrap().set_len(50 << 30).unwrap();
        let cancelled = AtomicBool::new(false);
        let raise = || {
            cancelled.store(true, Ordering::Relaxed);
            Ok(())
        };
        let mut sink = Sink { taken: 0, at_first: raise };
        let result = container.write(&mut sink, &Limits::default(), &cancelled);
        assert!(matches!(result, Err(SaveUpperError::Cancelled)), "{result:?}");
        assert_eq!(sink.taken, 1 << 20);

        let full = || Err(io::ErrorKind::StorageFull.into());
        let mut sink = Sink { taken: 0, at_first: full };
        let result = container.write(&mut sink, &Limits::default(), &AtomicBool::new(false));
        let Err(SaveUpperError::Sink { offset: 0, source }) = result else { panic!("{result:?}") };
        assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    });
}

#[test]
fn what_our_own_images_may_not_have_is_refused() {
    in_container(&[dir(".")], |container| {
        for number in 0..100 {
            let path = container.root.join(format!("{number}-{}", "n".repeat(100)));
            fs::write(&path, vec![7; 1000]).unwrap();
            fs::hard_link(&path, path.with_extension("link")).unwrap();
        }
        let limits = Limits { unpacked_bytes: 100_000, ..Limits::default() };
        let bytes = error_within(container, &limits);
        let entries = error_within(container, &Limits { entries: 150, ..Limits::default() });
        let memory = error_within(container, &Limits { index_bytes: 10_000, ..Limits::default() });
        for (error, counted) in [(bytes, "bytes of its files"), (entries, "entries"), (memory, "memory")] {
            assert!(
                matches!(&error, SaveUpperError::TooLarge { what, .. } if what.contains(counted)),
                "{error}"
            );
        }
        set(container.root.join(format!("5-{}", "n".repeat(100))), "user.a", b"x");
        let error = error_within(container, &Limits { xattrs_per_entry: 0, ..Limits::default() });
        assert!(matches!(error, SaveUpperError::Entry { problem: EntryProblem::Xattrs, .. }), "{error}");
    });
}

/// The header of a file that octal digits cannot size, by GNU tar; the rest would take long.
#[test]
fn a_file_of_more_than_eight_gibibytes_has_its_size() {
    in_container(&[dir(".")], |container| {
        File::create(container.root.join("hole")).unwrap().set_len(9 << 30).unwrap();
        let mut start = Vec::new();
        struct Start<'a>(&'a mut Vec<u8>);
        impl Write for Start<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.extend_from_slice(bytes);
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let result = container.write(&mut Start(&mut start), &Limits::default(), &AtomicBool::new(false));
        assert!(result.is_err());
        let directory = tempfile::tempdir().unwrap();
        let archive = directory.path().join("start.tar");
        fs::write(&archive, start).unwrap();
        let output = std::process::Command::new("tar").arg("-tvf").arg(&archive).output().unwrap();
        let list = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(list.lines().any(|line| line.contains(" 9663676416 ") && line.ends_with(" hole")), "{list}");
    });
}

#[test]
fn a_directory_of_many_names_is_in_order() {
    let names = check(&[dir(".")], |root| {
        fs::create_dir(root.join("many")).unwrap();
        for number in 0..5000 {
            fs::write(root.join(format!("many/{}", number * 7919 % 5000)), "").unwrap();
        }
    });
    assert!(names.len() > 5000 && names.is_sorted_by(|one, other| one < other), "{:?}", &names[..20]);
}
