//! Sparse files, and files beyond 32 bits.
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use images::limits::Limits;
use images::mount::mount_image;
use sha2::{Digest, Sha256};

use crate::layer_tar::{Entry, Indexed, file, index, index_stream, pax_record, tar};
use crate::namespace::in_own_mount_namespace;
use crate::snapshot::{hex, snapshot};
use crate::written::{mounted_snapshot, write_unchecked};

/// A sparse file in the four forms of GNU tar, made by GNU tar itself.
#[test]
fn sparse_files_of_all_four_forms_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sparse");
    let sparse = File::create(&path).unwrap();
    sparse.set_len(300 << 20).unwrap();
    for piece in 0..40_u64 {
        sparse
            .write_all_at(format!("piece {piece}").as_bytes(), piece * 7 * 1_048_576 + 4096 * piece)
            .unwrap();
    }
    let own = snapshot(directory.path())[Path::new("sparse")].contents.clone();
    for form in [
        &["--format=gnu"][..],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ] {
        let output = Command::new("tar")
            .arg("--sparse")
            .args(form)
            .arg("-C")
            .arg(directory.path())
            .args(["-c", "sparse"])
            .output()
            .unwrap();
        assert!(output.status.success());
        assert!(output.stdout.len() < 1 << 20, "GNU tar has left the holes out");
        let layer = index(&output.stdout).unwrap();
        assert!(fs::metadata(&layer.data).unwrap().blocks() * 512 < 4 << 20, "holes cost no disk");
        let seen = mounted_snapshot(vec![layer]);
        assert_eq!(seen[Path::new("sparse")].size, 300 << 20, "{form:?}");
        assert_eq!(seen[Path::new("sparse")].contents, own, "{form:?}");
    }
}

#[test]
fn a_size_record_of_pax_outranks_the_header() {
    let body = vec![b'b'; 3000];
    let mut entry = Entry::new(b'0', "f").size(0).pax("size", "3000");
    entry.body = body.clone();
    let layer = index(&tar(&[entry, file("after", "x")])).unwrap();
    let seen = mounted_snapshot(vec![layer]);
    assert_eq!(seen[Path::new("f")].size, 3000);
    assert_eq!(seen[Path::new("f")].contents, hex(&Sha256::digest(body)));
    assert_eq!(seen[Path::new("after")].size, 1);
    assert_eq!(pax_record(b"size", b"3000").len(), 13);
}

/// One chunk whatever the size: 5 GiB, of which only the ends are not zero.
#[test]
fn a_file_of_5_gib_reads_back() {
    const SIZE: u64 = (5 << 30) + 1234;
    let marks: [(u64, &[u8]); 3] = [(0, b"start"), ((4 << 30) - 2, b"over"), (SIZE - 3, b"end")];
    let header = Entry::new(b'0', "big").size(SIZE).bytes();
    let mut stream = header.chain(Marked { at: 0, size: SIZE.next_multiple_of(512), marks: &marks });
    let layer = index_stream(&mut stream, &Limits::default()).unwrap();
    assert_eq!(u64::from(layer.index().data_blocks()), SIZE.div_ceil(4096));
    check_marks(layer, SIZE, &marks);
}

#[test]
fn a_sparse_file_of_5_gib_reads_back_and_takes_no_disk() {
    const SIZE: u64 = (5 << 30) + 1234;
    let marks: [(u64, &[u8]); 3] = [(0, b"start"), ((4 << 30) - 2, b"over"), (SIZE - 3, b"end")];
    let map: Vec<_> = marks.iter().map(|(at, mark)| format!("{at},{}", mark.len())).collect();
    let body: Vec<_> = marks.iter().map(|(_, mark)| *mark).collect();
    let entry = file("big", body.concat())
        .pax("GNU.sparse.map", map.join(","))
        .pax("GNU.sparse.size", SIZE.to_string());
    let layer = index(&tar(&[entry])).unwrap();
    assert!(fs::metadata(&layer.data).unwrap().blocks() * 512 < 1 << 20);
    check_marks(layer, SIZE, &marks);
}

fn check_marks(layer: Indexed, size: u64, marks: &[(u64, &[u8])]) {
    let written = write_unchecked(vec![layer]);
    in_own_mount_namespace(|| {
        let at = written.directory.path().join("root");
        fs::create_dir(&at).unwrap();
        mount_image(&written.metadata, &written.devices, &at).unwrap();
        let big = File::open(at.join("big")).unwrap();
        assert_eq!(big.metadata().unwrap().len(), size);
        for (position, mark) in marks {
            let start = position.saturating_sub(10);
            let mut around = vec![0xff; 30.min((size - start) as usize)];
            big.read_exact_at(&mut around, start).unwrap();
            let mut expected = vec![0; around.len()];
            let within = (position - start) as usize;
            expected[within..within + mark.len()].copy_from_slice(mark);
            assert_eq!(around, expected, "at {position}");
        }
    });
}

/// Zeros with a few words in them.
struct Marked<'a> {
    at: u64,
    size: u64,
    marks: &'a [(u64, &'a [u8])],
}

impl Read for Marked<'_> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let count = space.len().min((self.size - self.at) as usize);
        let space = &mut space[..count];
        space.fill(0);
        for (position, mark) in self.marks {
            for (offset, byte) in mark.iter().enumerate() {
                let place = (position + offset as u64).checked_sub(self.at);
                if let Some(slot) = place.and_then(|place| space.get_mut(place as usize)) {
                    *slot = *byte;
                }
            }
        }
        self.at += count as u64;
        Ok(count)
    }
}
