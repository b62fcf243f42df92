//! Streams that are no archive, or one without end; and the index that damage has touched.
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use images::layer::{
    ArchiveProblem, Budget, IndexLayerError, LayerIndex, Parts, ReadIndexError, index_layer,
};
use images::limits::Limits;
use images::tree::merge;

use super::{check, shows};
use crate::layer_tar::{
    Entry, block_device, char_device, dir, fifo, file, gnu_long, hardlink, index, index_stream, index_with,
    pax_record, symlink, tar,
};

#[test]
fn extension_headers_speak_for_the_next_entry_only() {
    let global =
        Entry::new(b'g', "g").body([pax_record(b"path", b"../evil"), pax_record(b"comment", b"x")].concat());
    check("global", &[vec![global.clone(), file("f", "x")]], &shows(&[("f", "x")]));
    let pax = || Entry::new(b'x', "x").body(pax_record(b"path", b"renamed"));
    check(
        "before",
        &[vec![global.clone(), pax(), file("f", "x"), file("g", "y")]],
        &shows(&[("g", "y"), ("renamed", "x")]),
    );
    // Some readers forget the record at the global header.
    check_archive(&tar(&[pax(), global, file("f", "x")]), &ArchiveProblem::DanglingExtension);
    let long_name = "n/".repeat(400) + "end";
    check(
        "GNU name over PAX",
        &[vec![gnu_long(b'L', long_name.as_bytes()), pax(), file("f", "x")]],
        &shows(&[(&long_name, "x")]),
    );
    check(
        "size of a long name is its own",
        &[vec![
            Entry::new(b'x', "x").body(pax_record(b"size", b"1")),
            gnu_long(b'L', b"long"),
            file("f", "x"),
        ]],
        &shows(&[("long", "x")]),
    );
    check(
        "GNU link",
        &[vec![gnu_long(b'K', &[b't'; 300]), symlink("l", "short")]],
        &shows(&[("l", &format!("-> {}", "t".repeat(300)))]),
    );
    for twice in [vec![pax(), pax()], vec![gnu_long(b'L', b"a"), gnu_long(b'L', b"b")], vec![pax()]] {
        let bytes = tar(&if twice.len() == 2 { [twice, vec![file("f", "x")]].concat() } else { twice });
        check_archive(&bytes, &ArchiveProblem::DanglingExtension);
    }
}

fn check_archive(bytes: &[u8], expected: &ArchiveProblem) {
    match index(bytes).err() {
        Some(IndexLayerError::Archive { problem, .. }) => assert_eq!(problem, *expected),
        other => panic!("{other:?} instead of {expected:?}"),
    }
}

#[test]
fn extension_headers_are_refused_before_they_are_read() {
    let too_long = |length, limit| ArchiveProblem::ExtensionTooLong { length, limit };
    for kind in [b'x', b'g'] {
        let header = Entry::new(kind, "x").size((1 << 20) + 1).bytes();
        check_archive(&header, &too_long((1 << 20) + 1, 1 << 20));
    }
    for kind in [b'L', b'K'] {
        let header = Entry::new(kind, "x").size((64 << 10) + 1).bytes();
        check_archive(&header, &too_long((64 << 10) + 1, 64 << 10));
    }
    check_archive(&tar(&[Entry::new(b'x', "x").body("6 a=b")]), &ArchiveProblem::Pax);
}

#[test]
fn s12_limits_end_a_layer_before_they_are_passed() {
    let limits = Limits { unpacked_bytes: 1 << 20, entries: 100, index_bytes: 16 << 10, ..Limits::default() };
    let what = |bytes: &[u8]| match index_with(bytes, &limits).err() {
        Some(IndexLayerError::TooLarge { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(what(&file("f", "").size((1 << 20) + 1).bytes()), "files' bytes");
    assert_eq!(what(&file("f", "").pax("size", "9223372036854775808").bytes()), "files' bytes");
    let eight_eib =
        Entry::new(b'0', "f").pax("GNU.sparse.map", "0,0").pax("GNU.sparse.size", "9223372036854775807");
    assert_eq!(what(&eight_eib.bytes()), "files' bytes");
    let many: Vec<_> = (0..101).map(|number| file(format!("f{number}"), "")).collect();
    assert_eq!(what(&tar(&many)), "entries");
    assert_eq!(what(&tar(&[file("a/".repeat(200) + "f", "")])), "entries");
    let names: Vec<_> = (0..90).map(|number| file(format!("{number}{}", "n".repeat(250)), "")).collect();
    assert_eq!(what(&tar(&names)), "names and attributes");
    let one = || file("f", "").xattr("user.long", [b'v'; 1000]);
    let shared: Vec<_> = (0..90).map(|number| one().xattr(&format!("user.{number}"), [b'v'; 1000])).collect();
    assert_eq!(what(&tar(&shared)), "names and attributes");
}

/// 10 GiB of zeros as one file, then behind the end of an archive: never held anywhere.
#[test]
fn s12_an_endless_layer_costs_neither_memory_nor_disk() {
    let limits = Limits { unpacked_bytes: 1 << 30, ..Limits::default() };
    let header = file("zeros", "").size(10 << 30).bytes();
    let mut stream = header.chain(io::repeat(0).take(10 << 30));
    assert!(matches!(index_stream(&mut stream, &limits).err(), Some(IndexLayerError::TooLarge { .. })));

    let mut trailing = io::repeat(0).take(10 << 30);
    let error = index_stream(&mut trailing, &limits).err();
    assert!(matches!(error, Some(IndexLayerError::Archive { problem: ArchiveProblem::TooLong { .. }, .. })));
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kib < 256 << 10, "{peak_kib} KiB");
}

#[test]
fn s13_a_stream_that_is_cut_or_damaged_fails() {
    let whole = tar(&[file("a", [1; 2000]), file("b", "x").xattr("user.x", "y")]);
    let truncated = |bytes: &[u8]| {
        let error = index(bytes).err();
        matches!(error, Some(IndexLayerError::Archive { problem: ArchiveProblem::Truncated { .. }, .. }))
    };
    for (cut, why) in [
        (100, "in a header"),
        (512, "before the body"),
        (1000, "in the body"),
        (1024, "in the body, between blocks"),
        (3090, "in a PAX block"),
    ] {
        assert!(truncated(&whole[..cut]), "{why}");
    }
    check_archive(&whole[..3584], &ArchiveProblem::DanglingExtension);
    // What only fills the last block, and the end mark, may be missing: `umoci insert` writes neither.
    let last = tar(&[file("a", "x"), file("b", [1; 700])]);
    for end in [1024 + 512 + 700, 1024 + 512 + 701, 1024 + 512 + 1024] {
        assert!(index(&last[..end]).is_ok(), "{end}");
    }
    assert!(truncated(&last[..1024 + 512 + 699]));

    let mut wrong = whole.clone();
    wrong[2560] ^= 1;
    check_archive(&wrong, &ArchiveProblem::Checksum);
    let negative = |field: std::ops::Range<usize>| {
        let mut block = file("a", "").bytes();
        block[field].fill(0xff);
        with_checksum(block)
    };
    check_archive(&negative(124..136), &ArchiveProblem::Number { field: "size" });
    check_archive(&negative(108..116), &ArchiveProblem::Number { field: "owner" });
}

fn with_checksum(mut header: Vec<u8>) -> Vec<u8> {
    header[148..156].fill(b' ');
    let sum: u32 = header[..512].iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[test]
fn an_archive_ends_at_two_zero_blocks_or_between_entries() {
    let one = file("a", "x").bytes();
    let end = [0; 1024];
    assert!(index(&one).is_ok(), "no end at all");
    assert!(index(&[&one[..], &end[..512]].concat()).is_ok(), "one zero block, then the stream's end");
    assert!(index(&[]).is_ok(), "an empty stream");
    let single = [&one[..], &end[..512], &one].concat();
    check_archive(&single, &ArchiveProblem::SingleZeroBlock);
}

/// Whoever hashes the stream must see all of it.
#[test]
fn the_stream_is_read_to_its_end_behind_the_archives_own() {
    let mut bytes = tar(&[file("a", "x")]);
    bytes.extend([b't'; 100_000]);
    let mut rest = &bytes[..];
    assert!(index_stream(&mut rest, &Limits::default()).is_ok());
    assert!(rest.is_empty());
}

#[test]
fn an_error_of_the_stream_stays_what_it_is() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let start = file("a", [1; 2000]).bytes();
    let error = index_stream(&mut start[..1000].chain(Broken), &Limits::default()).err().unwrap();
    assert!(
        matches!(error, IndexLayerError::Read { offset: 1000, source } if source.kind() == io::ErrorKind::ConnectionReset)
    );
}

#[test]
fn a_raised_flag_ends_a_layer_in_the_middle_of_a_file() {
    struct Raising<'a>(&'a AtomicBool, u64);
    impl Read for Raising<'_> {
        fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
            self.1 += space.len() as u64;
            self.0.store(self.1 > 4 << 20, Ordering::Relaxed);
            space.fill(0);
            Ok(space.len())
        }
    }
    let flag = AtomicBool::new(false);
    let header = file("endless", "").size(1 << 36).bytes();
    let [data, index] = [(); 2].map(|()| tempfile::tempfile().unwrap());
    let mut stream = header.chain(Raising(&flag, 0));
    let parts = Parts { data: &data, index: &index, split: None, disk: None };
    let error = index_layer(&mut stream, &parts, &Budget::new(&Limits::default()), &flag).unwrap_err();
    assert!(matches!(error, IndexLayerError::Cancelled));
    assert!(data.metadata().unwrap().len() < 8 << 20);
}

#[test]
fn a_stored_index_reads_back_and_a_damaged_one_is_refused() {
    let layer = index(&tar(&[
        dir("d").xattr("user.x", "y"),
        file("d/f", "x"),
        hardlink("h", "d/f"),
        hardlink("lower", "other/f"),
        symlink("l", "t"),
        file("d/.wh.gone", ""),
        file("e/.wh..wh..opq", ""),
        char_device("c", 1, 3),
        block_device("b", 8, 0),
        fifo("p"),
        file("s", "xx").pax("GNU.sparse.map", "0,2").pax("GNU.sparse.size", "1000000"),
    ]))
    .unwrap();
    let stored = fs::read(&layer.index_file).unwrap();
    assert_eq!(layer.index().entries(), 11 + 1, "one directory is implied");
    let damaged = File::options().read(true).write(true).open(&layer.index_file).unwrap();
    let open = || LayerIndex::open(File::open(&layer.index_file).unwrap());
    for cut in 0..stored.len() {
        damaged.set_len(cut as u64).unwrap();
        assert!(matches!(open(), Err(ReadIndexError::Damaged)), "{cut}");
        damaged.write_all_at(&stored, 0).unwrap();
    }
    let head = stored[..256].iter().rposition(|byte| *byte != 0).unwrap();
    for position in (0..=head).chain(256..stored.len()) {
        for bit in [1, 0x80] {
            damaged.write_all_at(&[stored[position] ^ bit], position as u64).unwrap();
            assert!(open().is_err(), "{position}");
            damaged.write_all_at(&[stored[position]], position as u64).unwrap();
        }
    }
    assert!(open().is_ok());
    damaged.write_all_at(&[stored[12] + 1], 12).unwrap();
    assert!(matches!(open(), Err(ReadIndexError::Version { .. })));
}

/// Every byte of every header changed, with a checksum that fits again, and cut at every block.
#[test]
fn no_header_makes_the_reader_panic_or_write_beyond_its_limits() {
    let entries = [
        file("f", [1; 600]).xattr("user.x", "y"),
        file("s", "xx").pax("GNU.sparse.map", "0,2").pax("GNU.sparse.size", "1000"),
        gnu_long(b'L', b"long"),
        hardlink("h", "f"),
        symlink("l", "f"),
        char_device("c", 1, 3),
        file("d/.wh.x", ""),
    ];
    let whole = tar(&entries);
    let headers: Vec<_> =
        (0..whole.len()).step_by(512).filter(|at| whole[at + 257..].starts_with(b"ustar")).collect();
    assert!(headers.len() >= entries.len());
    let [data, index] = [(); 2].map(|()| tempfile::tempfile().unwrap());
    let limits = Limits { unpacked_bytes: 1 << 20, ..Limits::default() };
    let run = |bytes: &[u8]| {
        data.set_len(0).unwrap();
        index.set_len(0).unwrap();
        let parts = Parts { data: &data, index: &index, split: None, disk: None };
        if index_layer(&mut &*bytes, &parts, &Budget::new(&limits), &AtomicBool::new(false)).is_ok() {
            let index = LayerIndex::open(index.try_clone().unwrap()).unwrap();
            drop(merge(&[index], &limits));
        }
        assert!(data.metadata().unwrap().len() <= 2 << 20);
    };
    for at in headers {
        for position in
            (0..512).filter(|position| !(16..100).contains(position) && !(148..156).contains(position))
        {
            for value in [0, b'7', 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at + position] = value;
                let header = with_checksum(bytes[at..at + 512].to_vec());
                bytes[at..at + 512].copy_from_slice(&header);
                run(&bytes);
            }
        }
    }
    for end in (0..whole.len()).step_by(256) {
        run(&whole[..end]);
    }
}
