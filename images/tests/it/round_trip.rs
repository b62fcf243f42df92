//! What we mount, against what umoci unpacks from the same image, and what erofs-utils say of it.
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use images::erofs::write_image;
use images::layer::LayerIndex;
use images::limits::Limits;
use images::mount::mount_image;
use images::tree::merge;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::layer_tar::{
    Entry, Indexed, block_device, char_device, dir, fifo, file, hardlink, index, index_stream, pax_record,
    symlink, tar,
};
use crate::namespace::in_own_mount_namespace;
use crate::snapshot::{Seen, assert_same, snapshot};

/// The metadata image of some layers.
pub struct Written {
    pub directory: TempDir,
    pub metadata: PathBuf,
    pub devices: Vec<PathBuf>,
    _layers: Vec<Indexed>,
}

/// Writes the image of layers and lets erofs-utils check it.
pub fn write(layers: Vec<Indexed>) -> Written {
    let written = write_unchecked(layers);
    fsck(&written.metadata, &written.devices);
    written
}

/// Without the reading of all contents, for files that are too large for that.
fn write_unchecked(layers: Vec<Indexed>) -> Written {
    let directory = tempfile::tempdir().unwrap();
    let metadata = directory.path().join("metadata");
    let indexes: Vec<LayerIndex> = layers.iter().map(|layer| layer.index.clone()).collect();
    let tree = merge(&indexes, &Limits::default()).unwrap();
    let mut out = File::create_new(&metadata).unwrap();
    let image = write_image(&tree, &mut out).unwrap();
    assert_eq!(fs::metadata(&metadata).unwrap().len(), u64::from(image.blocks) * 4096);
    let devices: Vec<_> = layers.iter().map(|layer| layer.data.clone()).collect();
    Written { directory, metadata, devices, _layers: layers }
}

/// `fsck.erofs` walks the tree and reads all contents, `dump.erofs` the superblock.
pub fn fsck(metadata: &Path, devices: &[PathBuf]) {
    for (tool, flag) in [("fsck.erofs", "--extract"), ("dump.erofs", "-s")] {
        let devices = devices.iter().map(|device| format!("--device={}", device.display()));
        let output = Command::new(tool).arg(flag).args(devices).arg(metadata).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{tool}: {text}{}", String::from_utf8_lossy(&output.stderr));
    }
}

pub fn mounted_snapshot(layers: Vec<Indexed>) -> BTreeMap<PathBuf, Seen> {
    let written = write(layers);
    in_own_mount_namespace(|| {
        let at = written.directory.path().join("root");
        fs::create_dir(&at).unwrap();
        mount_image(&written.metadata, &written.devices, &at).unwrap();
        snapshot(&at)
    })
}

/// An OCI layout by hand, unpacked by umoci.
fn unpacked_by_umoci(layers: &[Vec<u8>]) -> BTreeMap<PathBuf, Seen> {
    let directory = tempfile::tempdir().unwrap();
    let layout = directory.path().join("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let put = |bytes: &[u8]| {
        let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(layout.join("blobs/sha256").join(&hex), bytes).unwrap();
        (format!("sha256:{hex}"), bytes.len())
    };
    let layers: Vec<_> = layers.iter().map(|layer| put(layer)).collect();
    let diff_ids: Vec<_> = layers.iter().map(|(digest, _)| digest).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = put(config.to_string().as_bytes());
    let descriptor = |kind: &str, (digest, size): &(String, usize)| {
        let media_type = format!("application/vnd.oci.image.{kind}");
        serde_json::json!({ "mediaType": media_type, "digest": digest, "size": size })
    };
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "config": descriptor("config.v1+json", &config),
        "layers": layers.iter().map(|layer| descriptor("layer.v1.tar", layer)).collect::<Vec<_>>(),
    });
    let mut manifest = descriptor("manifest.v1+json", &put(manifest.to_string().as_bytes()));
    manifest["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": "t" });
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();

    let root = directory.path().join("root");
    let image = format!("{}:t", layout.display());
    let output =
        Command::new("umoci").args(["raw", "unpack", "--image", &image]).arg(&root).output().unwrap();
    assert!(output.status.success(), "umoci: {}", String::from_utf8_lossy(&output.stderr));
    snapshot(&root)
}

fn check(layers: &[Vec<Entry>]) -> BTreeMap<PathBuf, Seen> {
    let tars: Vec<_> = layers.iter().map(|entries| tar(entries)).collect();
    let indexed = tars.iter().map(|tar| index(tar).unwrap()).collect();
    let ours = mounted_snapshot(indexed);
    assert_same(&ours, &unpacked_by_umoci(&tars));
    ours
}

/// CAP_NET_RAW, permitted and effective, as `setcap` writes it.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

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
        file("same-attributes", "x").xattr("user.long", vec![b'v'; 3000]),
        file(format!("{}/{}/deep", "d".repeat(200), "e".repeat(200)), "x"),
        file(b"not-utf-8-\xff\xfe\n", "x"),
        dir("many"),
    ];
    let seen = check(&[entries.into_iter().chain(many_names).collect()]);
    assert_eq!(seen[Path::new("etc/passwd")].links, 2);
    assert_eq!(seen[Path::new("etc/passwd-2")].same_as, Path::new("etc/passwd"));
    assert_eq!(seen[Path::new("bin/ping")].xattrs[0].1, CAPABILITY);
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
    assert_eq!(seen[Path::new("f")].contents, Sha256::digest(body).to_vec());
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
    assert_eq!(u64::from(layer.index.data_blocks()), SIZE.div_ceil(4096));
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
