//! What real packages bring, against what umoci unpacks from the same image.
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

use crate::round_trip::check_tars;

/// Programs, libraries, links and owners as Debian's packages bring them, packed by GNU tar in both
/// of its formats, the second layer on the first.
#[test]
fn real_packages_of_this_host_are_as_umoci_unpacks_them() {
    let pack = |arguments: &[&str]| {
        let output =
            Command::new("tar").args(["-C", "/", "--sort=name", "-c"]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let usr = ["usr/sbin", "usr/lib/python3", "usr/lib/python3.11", "usr/share/perl5"];
    let usr: Vec<_> = usr.into_iter().filter(|path| Path::new("/").join(path).exists()).collect();
    let layers = [
        pack(
            &[
                &["--format=gnu", "--no-recursion", ".", "usr", "usr/lib", "usr/share", "--recursion"],
                &usr[..],
            ]
            .concat(),
        ),
        pack(&["--format=posix", "--xattrs", "--no-recursion", ".", "usr", "--recursion", "usr/sbin", "etc"]),
    ];
    assert!(check_tars(&layers).len() > 2000);
}

/// debootstrap's minimal system and Python in a second layer, gzip as umoci packs it.
#[test]
fn a_debian_image_is_as_umoci_unpacks_it() {
    let layout = debian_image();
    let blob = |descriptor: &serde_json::Value| {
        let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
        fs::read(layout.join("blobs").join(digest)).unwrap()
    };
    let json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
    let index = json(&fs::read(layout.join("index.json")).unwrap());
    let manifest = json(&blob(&index["manifests"][0]));
    let layers: Vec<_> =
        manifest["layers"].as_array().unwrap().iter().map(|layer| inflate(&blob(layer))).collect();
    assert!(layers.len() >= 2);
    assert!(check_tars(&layers).len() > 7000);
}

fn inflate(gzip: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    flate2::read::MultiGzDecoder::new(gzip).read_to_end(&mut tar).unwrap();
    tar
}

/// What `tests/debian-image` makes: a minute the first time, then kept in cargo's directory for tests,
/// where other test binaries look for it too.
fn debian_image() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (done, partial) = (directory.join("debian"), directory.join("debian.partial"));
    let lock = File::create(directory.join("debian.lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    if !done.exists() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/debian-image");
        let output = Command::new(script).arg(&partial).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::rename(&partial, &done).unwrap();
    }
    done
}
