//! A layer's tar stream, written again from the layer's files: byte for byte, or not at all.
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use images::layer::{ArchiveProblem, Budget, IndexLayerError, Parts, SplitReader, index_layer};
use images::limits::Limits;

use crate::layer_tar::{Entry, dir, file, gnu_long, hardlink, symlink, tar};
use crate::sample::noise_tar;

/// The files of a layer that count here.
struct Kept {
    data: File,
    split: File,
}

impl Kept {
    fn of(tar: &[u8]) -> Kept {
        let [data, index, split] = [(); 3].map(|()| tempfile::tempfile().unwrap());
        let parts = Parts { data: &data, index: &index, split: Some(&split), disk: None };
        index_layer(&mut &*tar, &parts, &Budget::new(&Limits::default()), &AtomicBool::new(false)).unwrap();
        Kept { data, split }
    }

    fn open(&self) -> io::Result<SplitReader> {
        SplitReader::new(self.split.try_clone()?, self.data.try_clone()?)
    }

    fn again(&self) -> io::Result<Vec<u8>> {
        let (mut stream, mut tar) = (self.open()?, Vec::new());
        stream.read_to_end(&mut tar)?;
        assert_eq!((tar.len() as u64, stream.read(&mut [0; 9])?), (stream.tar_bytes(), 0));
        Ok(tar)
    }

    fn split_bytes(&self) -> u64 {
        self.split.metadata().unwrap().len()
    }
}

fn check(what: &str, tar: &[u8]) -> Kept {
    let kept = Kept::of(tar);
    assert!(kept.again().unwrap() == tar, "{what}");
    kept
}

#[test]
fn whatever_a_layer_is_it_is_written_again_as_it_came() {
    let padded = |entry: Entry, byte: u8| {
        let (body, mut bytes) = (entry.body.len(), entry.bytes());
        let padding = bytes.len() - body.next_multiple_of(512) + body;
        bytes[padding..].fill(byte);
        bytes
    };
    let end = [0; 1024];
    let global = Entry::new(b'g', "pax_global_header").body("20 comment=anything\n");
    let without_padding = &file("f", "cut").bytes()[..512 + 3];
    let old_directory = Entry::new(0, "old/");
    let cases: &[(&str, Vec<u8>)] = &[
        ("nothing", Vec::new()),
        ("an end", end.to_vec()),
        ("half an end", end[..512].to_vec()),
        ("no end", file("f", "x").bytes()),
        ("the body's own end", without_padding.to_vec()),
        (
            "noise as padding",
            [padded(file("f", "x"), 0xa5), padded(file("g", [7; 4096]), 1), end.to_vec()].concat(),
        ),
        ("more behind the end", [tar(&[file("f", "x")]), vec![9; 70_001]].concat()),
        ("another archive behind the end", [tar(&[file("f", "x")]), tar(&[file("g", "y")])].concat()),
        ("whole records of zeros", [tar(&[file("f", "x")]), vec![0; 9 * 512]].concat()),
        (
            "long names",
            tar(&[gnu_long(b'L', &[b'n'; 200]), file("n", "x"), gnu_long(b'K', b"f"), symlink("l", "f")]),
        ),
        ("global records", tar(&[global, file("f", "x").pax("mtime", "1.5")])),
        ("links with a size", tar(&[file("f", "x"), hardlink("h", "f").size(1), symlink("s", "f").size(0)])),
        (
            "bodies that nobody keeps",
            tar(&[file(".wh.gone", vec![b'w'; 10_000]), file("d/.wh..wh..opq", "marked")]),
        ),
        ("what lies aside", tar(&[file(".wh..wh.plnk/1.2", [3; 5000]), hardlink("h", ".wh..wh.plnk/1.2")])),
        ("directories of old", tar(&[old_directory, dir("new"), file("new/f", "")])),
        (
            "sizes around a block",
            tar(&[4095, 4096, 4097].map(|size| file(format!("f{size}"), vec![b'b'; size]))),
        ),
        ("the same name twice", tar(&[file("f", "one"), file("f", "another")])),
        ("a sparse file among others", {
            let map = "0,3,100000,5,4194304,1";
            let sparse = file("s", "abcdefghi").pax("GNU.sparse.map", map).pax("GNU.sparse.size", "9000000");
            tar(&[file("a", "a"), sparse, file("z", "z")])
        }),
        ("a mebibyte and more", noise_tar("f", (2 << 20) + 77)),
    ];
    for (what, tar) in cases {
        check(what, tar);
    }
}

/// Of every form that GNU tar has for them, made by it.
#[test]
fn sparse_files_are_written_again_with_their_maps() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let sparse = File::create(directory.path().join("sparse")).unwrap();
    sparse.set_len(50 << 20).unwrap();
    for piece in 0..60 {
        sparse.write_all_at(&[piece; 5000], u64::from(piece) * 700_001).unwrap();
    }
    std::fs::write(directory.path().join("behind"), [7; 5000]).unwrap();
    let versions = ["0.0", "0.1", "1.0"]
        .map(|version| vec!["--format=pax".to_owned(), format!("--sparse-version={version}")]);
    for form in versions.into_iter().chain([vec!["--format=gnu".to_owned()]]) {
        let mut command = Command::new("tar");
        command.arg("--sparse").args(&form).arg("-C").arg(directory.path()).args(["-c", "sparse", "behind"]);
        let output = command.output().unwrap();
        assert!(output.status.success() && output.stdout.len() < 1 << 20, "{form:?}");
        check(&format!("{form:?}"), &output.stdout);
    }
}

#[test]
fn what_is_kept_of_an_entry_is_small() {
    let entries: Vec<Entry> = (0..3000)
        .map(|number| {
            file(format!("usr/share/doc/package-{number}/copyright"), vec![b'x'; number * 7 % 9000])
                .modified(1_700_000_000 + number as u64)
        })
        .collect();
    let kept = check("many files", &tar(&entries));
    assert!(kept.split_bytes() < 60 * 3000, "{} bytes", kept.split_bytes());
}

#[test]
fn a_damaged_file_is_an_error_or_another_stream_of_the_same_length_and_never_a_longer_one() {
    let whole = tar(&[file("f", [b'f'; 5000]), dir("d"), file("d/g", "g")]);
    let kept = check("whole", &whole);
    let bytes = kept.split_bytes();
    for at in 0..bytes {
        for bit in [1, 0x80] {
            let mut byte = [0];
            kept.split.read_exact_at(&mut byte, at).unwrap();
            kept.split.write_all_at(&[byte[0] ^ bit], at).unwrap();
            if let Ok(mut stream) = kept.open() {
                let (most, mut tar) = (stream.tar_bytes(), Vec::new());
                let limited = stream.by_ref().take(whole.len() as u64 + 1).read_to_end(&mut tar);
                assert!(limited.is_err() || tar.len() as u64 <= most, "{at}");
                let is_same = limited.is_ok() && most == whole.len() as u64 && tar == whole;
                assert!(!is_same || at >= 24, "{at}: a bit of zstd's own may mean nothing");
            }
            kept.split.write_all_at(&byte, at).unwrap();
        }
    }
    for cut in 0..bytes {
        let copy = tempfile::tempfile().unwrap();
        let mut start = vec![0; usize::try_from(cut).unwrap()];
        kept.split.read_exact_at(&mut start, 0).unwrap();
        copy.write_all_at(&start, 0).unwrap();
        let cut_off = Kept { split: copy, data: kept.data.try_clone().unwrap() };
        assert!(cut_off.again().is_err(), "{cut}");
    }
    // Whatever the data file has lost is missed.
    kept.data.set_len(4096).unwrap();
    assert!(kept.again().is_err());
}

#[test]
fn what_is_kept_leaves_the_disk_its_reserve() {
    // Nothing of it is an entry's: all goes into the one file.
    let mut behind = noise_tar("x", 1 << 20);
    behind.splice(..512, [0; 1024]);
    let limits = Limits { free_disk_bytes: u64::MAX, ..Limits::default() };
    let [data, index, split] = [(); 3].map(|()| tempfile::tempfile().unwrap());
    let parts =
        Parts { data: &data, index: &index, split: Some(&split), disk: Some(std::path::Path::new("/")) };
    let error =
        index_layer(&mut &*behind, &parts, &Budget::new(&limits), &AtomicBool::new(false)).unwrap_err();
    assert!(matches!(error, IndexLayerError::DiskFull(_)), "{error:?}");
    assert!(split.metadata().unwrap().len() < 1 << 17);
}

#[test]
fn what_is_kept_of_all_layers_counts_together_and_nothing_of_a_layer_that_failed() {
    let limits = Limits { unpacked_bytes: 1 << 20, ..Limits::default() };
    let budget = Budget::new(&limits);
    let index = |tar: &[u8]| {
        let [data, index, split] = [(); 3].map(|()| tempfile::tempfile().unwrap());
        let parts = Parts { data: &data, index: &index, split: Some(&split), disk: None };
        index_layer(&mut &*tar, &parts, &budget, &AtomicBool::new(false))
    };
    // Behind the end, in the body of a whiteout, and attributes that no file gets.
    let behind = |bytes| [vec![0; 1024], vec![7; bytes]].concat();
    let whiteout = tar(&[file(".wh.gone", vec![b'w'; 300 << 10])]);
    let dropped = tar(&[file("f", "").pax("SCHILY.xattr.trusted.x", vec![b'x'; 60 << 10])]);
    index(&behind(300 << 10)).unwrap();
    index(&dropped).unwrap();
    for _ in 0..3 {
        let error = index(&behind(700 << 10)).unwrap_err();
        let is_too_large = matches!(
            &error,
            IndexLayerError::Archive { problem: ArchiveProblem::ImageTooLarge { limit: 0x10_0000, .. }, .. }
        );
        assert!(is_too_large, "{error:?}");
    }
    index(&whiteout).unwrap();
    index(&whiteout).unwrap_err();
    index(&behind(1 << 10)).unwrap();
}
