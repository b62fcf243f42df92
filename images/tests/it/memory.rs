//! What an image may take of a worker's memory, whatever is in it: each is pulled by a child, whose
//! peak is compared with what it had before.
use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use hyper::body::Bytes;
use images::store::{Encoding, Stream, StreamName};

use crate::archive::saved;
use crate::layer_tar::{Entry, file, tar};
use crate::sample::{Compression, Sample, TestStore, noise_tar, open_store};
use crate::store::{block_on, options, source};
use crate::stream::load_stream;

const STORE: &str = "IMAGES_TEST_STORE";
const IMAGE: &str = "IMAGES_TEST_IMAGE";

const MIB: u64 = 1 << 20;
/// Threads, their channels, decoders and buffers.
const BASE_BYTES: u64 = 24 * MIB;
/// So that 500,000 entries stay within 64 MiB. Large images take minutes where nothing is optimised:
/// these are a fifth of that.
const ENTRY_BYTES: u64 = 40 * MIB / 500_000;
/// An entry's extension records, which may have a mebibyte: as they come, its attributes, and what is written of them. They
/// grow by doubling. How many layers of the three are at that at the same moment is up to the scheduler.
const EXTENSION_BYTES: u64 = 4 * MIB;

fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// In a child: pulls, and prints by how much its memory grew at most.
fn pulled_as_child() -> bool {
    let (Some(root), Ok(name)) = (std::env::var_os(STORE), std::env::var(IMAGE)) else { return false };
    let store = open_store(Path::new(&root));
    let before = status("VmRSS:");
    block_on(store.pull(&source(&name), &options(), &|_| {})).unwrap();
    println!("grew {}", status("VmHWM:") - before);
    true
}

fn check(test: &str, layers: &[Vec<Entry>], allowed: u64) {
    if pulled_as_child() {
        return;
    }
    let store = TestStore::new();
    let name = {
        let tars: Vec<_> = layers.iter().map(|entries| tar(entries)).collect();
        Sample::of(&tars, Compression::Gzip).write_layout(&store.directory.path().join("layout"))
    };
    measure(test, (&store, name.as_ref()), allowed);
}

/// Has a child bring the image, and looks at what it says.
fn measure(test: &str, (store, image): (&TestStore, &OsStr), allowed: u64) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("memory::{test}"), "--nocapture"])
        .env(STORE, store.root())
        .env(IMAGE, image)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let grew = text.lines().find_map(|line| line.strip_prefix("grew "));
    let grew: u64 = grew.unwrap_or_else(|| panic!("{text}")).parse().unwrap();
    assert!(grew <= allowed, "{test}: {} MiB, allowed are {} MiB", grew / MIB, allowed / MIB);
}

/// Nothing in a child: the image is there.
fn made(entries: impl Fn() -> Vec<Vec<Entry>>) -> Vec<Vec<Entry>> {
    if std::env::var_os(IMAGE).is_some() { Vec::new() } else { entries() }
}

/// Neither the archive nor a layer of it is ever in memory as a whole.
#[test]
fn an_archive_that_comes_as_a_stream() {
    let test = "an_archive_that_comes_as_a_stream";
    if let (Some(root), Some(path)) = (std::env::var_os(STORE), std::env::var_os(IMAGE)) {
        let store = open_store(Path::new(&root));
        let mut archive = std::fs::File::open(path).unwrap();
        let before = status("VmRSS:");
        block_on(async {
            let (sender, stream) = Stream::new(Encoding::Identity, None);
            let (name, options) = (StreamName::new("a"), options());
            let sending = async {
                let mut piece = vec![0; 1 << 16];
                loop {
                    let count = archive.read(&mut piece).unwrap();
                    if count == 0 || !sender.send(Bytes::copy_from_slice(&piece[..count])).await {
                        break;
                    }
                }
                sender.finish().await;
            };
            tokio::join!(load_stream(&store, &name, stream, &options, &|_| {}), sending).0.unwrap();
        });
        println!("grew {}", status("VmHWM:") - before);
        return;
    }
    let store = TestStore::new();
    let path = store.directory.path().join("archive.tar.zst");
    {
        let tars = [noise_tar("x", 100 << 20)];
        let sample = Sample::of(&tars, Compression::Plain);
        let archive = tar(&saved(&sample, &tars, "config.json", &["0/layer.tar"]));
        std::fs::write(&path, Compression::Zstd.compress(&archive)).unwrap();
    }
    measure(test, (&store, path.as_os_str()), BASE_BYTES);
}

#[test]
fn all_files_in_one_directory() {
    let files = || vec![(0..100_000).map(|number| file(format!("d/file-{number:06}"), "")).collect()];
    check("all_files_in_one_directory", &made(files), BASE_BYTES + 100_000 * ENTRY_BYTES);
}

#[test]
fn a_directory_for_each_file_in_three_layers() {
    let layer = |layer: u32| (0..20_000).map(move |number| file(format!("{layer}-{number}/f"), "")).collect();
    let layers = || (0..3).map(layer).collect();
    check("a_directory_for_each_file_in_three_layers", &made(layers), BASE_BYTES + 120_000 * ENTRY_BYTES);
}

#[test]
fn as_many_long_attributes_as_compress_well() {
    let entry = |layer: u32, number: u32| {
        let value =
            |name: u32| [format!("{layer}.{number}.{name}").into_bytes(), vec![b'v'; 60_000]].concat();
        (0..16).fold(file(format!("{number}"), ""), |entry, name| {
            entry.xattr(&format!("user.{name}"), value(name))
        })
    };
    let layers = || (0..3).map(|layer| (0..30).map(|number| entry(layer, number)).collect()).collect();
    check(
        "as_many_long_attributes_as_compress_well",
        &made(layers),
        BASE_BYTES + 3 * EXTENSION_BYTES + 90 * 16 * 96,
    );
}
