//! The same changes by `docker commit`, and our layer by `docker load`.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{in_container, make_new_things, seen, set};
use crate::docker::{Docker, Overlay};
use crate::layer_tar::{Entry, dir, file, tar};
use crate::namespace::in_own_mount_namespace;
use crate::round_trip::CAPABILITY;
use crate::snapshot::{assert_same, hex, snapshot};

/// What a layer says of a name, but for the times of directories, which are those of the tests' own runs.
type Said = BTreeMap<String, String>;

/// Runs `work` in a mount of a container's overlay, with the options that dockerd itself has for it.
fn mounted<T: Send>(overlay: &Overlay, at: &Path, work: impl FnOnce(&Path) -> T + Send) -> T {
    let text = format!(
        "index=off,lowerdir={},upperdir={},workdir={}",
        overlay.lower,
        overlay.upper.display(),
        overlay.work.display()
    );
    let options = std::ffi::CString::new(text).unwrap();
    fs::create_dir_all(at).unwrap();
    in_own_mount_namespace(|| {
        mount("overlay", at, "overlay", MountFlags::empty(), options.as_c_str()).unwrap();
        let result = work(at);
        unmount(at, UnmountFlags::empty()).unwrap();
        result
    })
}

fn said(layer: &[u8]) -> Said {
    let mut archive = ::tar::Archive::new(layer);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path_bytes().escape_ascii().to_string();
        let link = entry.link_name_bytes().map(|name| name.escape_ascii().to_string());
        let is_capability = |record: io::Result<::tar::PaxExtension<'_>>| {
            // The crate ends a record at the first newline: what is behind one in another value is none.
            let is_it = |it: ::tar::PaxExtension<'_>| {
                it.key_bytes() == b"SCHILY.xattr.security.capability" && it.value_bytes() == CAPABILITY
            };
            record.is_ok_and(is_it)
        };
        let capability = entry.pax_extensions().unwrap().into_iter().flatten().any(is_capability);
        let mut contents = Vec::new();
        entry.read_to_end(&mut contents).unwrap();
        let header = entry.header();
        let kind = header.entry_type();
        // A mark has no owner, mode or link of its own, though theirs may have another one's.
        let is_mark = name.rsplit('/').next().unwrap().starts_with(".wh.");
        let owner = (header.uid().unwrap(), header.gid().unwrap(), header.mode().unwrap() & 0o7777);
        let owner = if is_mark { (0, 0, 0) } else { owner };
        let link = link.filter(|_| !is_mark);
        let device = (header.device_major().unwrap(), header.device_minor().unwrap());
        let device =
            if kind.is_character_special() || kind.is_block_special() { device } else { (None, None) };
        let sum = hex(&Sha256::digest(&contents));
        (name, format!("{kind:?} {link:?} {owner:?} {device:?} {capability} {} {sum}", contents.len()))
    });
    entries.collect()
}

fn image() -> Vec<Entry> {
    vec![
        dir("."),
        dir("etc"),
        file("etc/passwd", "root"),
        dir("gone"),
        file("gone/x", "x"),
        file("gone-file", "x"),
        dir("again"),
        file("again/old", "old"),
        file("again/same", "old"),
        file("ping", "x").xattr("security.capability", CAPABILITY),
        dir("to-file"),
        file("to-file/x", "x"),
        file("to-directory", "x"),
        dir("untouched"),
        file("untouched/x", "x"),
    ]
}

fn change(root: &Path) {
    let at = |name: &str| root.join(name);
    make_new_things(root);
    fs::write(at("etc/passwd"), "changed").unwrap();
    fs::remove_dir_all(at("gone")).unwrap();
    fs::remove_file(at("gone-file")).unwrap();
    fs::remove_dir_all(at("again")).unwrap();
    fs::create_dir(at("again")).unwrap();
    fs::write(at("again/same"), "new").unwrap();
    fs::rename(at("ping"), at("etc/ping")).unwrap();
    fs::remove_dir_all(at("to-file")).unwrap();
    fs::write(at("to-file"), "x").unwrap();
    fs::remove_file(at("to-directory")).unwrap();
    fs::create_dir(at("to-directory")).unwrap();
    set(at("to-directory"), "user.ours", b"docker drops it");
}

/// The last layer of an image, as `docker save` has it.
fn top_layer(docker: &Docker, image: &str) -> Vec<u8> {
    let archive = docker.directory.path().join("saved.tar");
    docker.tell(&["save", "--output", archive.to_str().unwrap(), image]);
    let member = |name: &str| {
        let mut archive = ::tar::Archive::new(fs::File::open(&archive).unwrap());
        let mut entries = archive.entries().unwrap().map(Result::unwrap);
        let mut entry = entries.find(|entry| entry.path().unwrap() == Path::new(name)).unwrap();
        let mut contents = Vec::new();
        entry.read_to_end(&mut contents).unwrap();
        contents
    };
    let manifest: serde_json::Value = serde_json::from_slice(&member("manifest.json")).unwrap();
    member(manifest[0]["Layers"].as_array().unwrap().last().unwrap().as_str().unwrap())
}

/// What `docker load` takes, of an image with these layers.
fn archive_of(name: &str, layers: [&[u8]; 2]) -> Vec<u8> {
    let diff_ids = layers.map(|layer| format!("sha256:{}", hex(&Sha256::digest(layer))));
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let manifest = json!([{ "Config": "config.json", "RepoTags": [name], "Layers": ["0.tar", "1.tar"] }]);
    tar(&[
        file("config.json", config.to_string()),
        file("0.tar", layers[0]),
        file("1.tar", layers[1]),
        file("manifest.json", manifest.to_string()),
    ])
}

#[test]
fn it_says_what_docker_commit_says_and_loads_as_what_the_container_was() {
    let docker = Docker::start();
    let place = |name: &str| docker.directory.path().join(name);
    let lower = tar(&image());
    fs::write(place("lower.tar"), &lower).unwrap();
    docker.tell(&["import", place("lower.tar").to_str().unwrap(), "lower"]);
    let overlay = docker.create("lower", "changed");
    mounted(&overlay, &place("merged"), change);
    docker.tell(&["commit", "changed", "committed"]);
    let mut theirs = said(&top_layer(&docker, "committed"));

    let (layer, container) = in_container(&image(), |container| {
        change(&container.root);
        (container.layer().0, seen(snapshot(&container.root)))
    });
    let mut ours = said(&layer);
    // Theirs has no root, and with it no change of its mode; where there was nothing below, nothing is hidden either.
    for name in ["./", "new/.wh..wh..opq"] {
        ours.remove(name).unwrap();
    }
    // It drops the byte.
    let kept = ours.remove(r"new/not-utf-8-\xff\n").unwrap();
    assert_eq!(theirs.remove(r"new/not-utf-8-\n").unwrap(), kept);
    let names: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let differ: Vec<_> = names.into_iter().filter(|name| ours.get(*name) != theirs.get(*name)).collect();
    let both =
        |name: &&String| format!("{name}\n  ours   {:?}\n  theirs {:?}", ours.get(*name), theirs.get(*name));
    assert!(differ.is_empty(), "{}", differ.iter().map(both).collect::<Vec<_>>().join("\n"));

    let archive = archive_of("ours:latest", [&lower, &layer]);
    fs::write(place("ours.tar"), archive).unwrap();
    docker.tell(&["load", "--input", place("ours.tar").to_str().unwrap()]);
    // It takes layers apart, and gives them back by what it has kept of them.
    assert!(top_layer(&docker, "ours") == layer);
    let loaded = docker.create("ours", "loaded");
    let mut loaded = mounted(&loaded, &place("loaded"), |at| seen(snapshot(at)));
    // What it makes for each container, over the image.
    for name in [
        ".dockerenv",
        "dev",
        "dev/console",
        "dev/pts",
        "dev/shm",
        "etc/hostname",
        "etc/hosts",
        "etc/mtab",
        "etc/resolv.conf",
        "proc",
        "sys",
    ] {
        loaded.remove(Path::new(name));
    }
    let mut container = container;
    for name in ["", "etc"] {
        // Times of the directories that these are in.
        let [ours, theirs] = [&mut container, &mut loaded].map(|tree| tree.get_mut(Path::new(name)).unwrap());
        theirs.modified = ours.modified;
    }
    // To it, time begins in 1970.
    for old in ["new/file", "new/owned"] {
        container.get_mut(Path::new(old)).unwrap().modified = (0, 0);
    }
    assert_same(&loaded, &container);
}
