//! What the other tests are made of is sound: peers read our images, and our registry is theirs.

use std::fs;

use crate::support::{
    Compression, Image, Layer, Registry, Scratch, busybox_image, character, dir, file, hardlink, symlink,
    tar, tool,
};

#[test]
fn umoci_unpacks_an_image_of_ours() {
    let scratch = Scratch::new();
    let long = format!("{}/file", "long-name".repeat(20));
    let entries = [
        dir("d").owner(1000, 1000).mode(0o2755),
        file("d/f", "text").xattr("user.note", "kept"),
        hardlink("d/h", "d/f"),
        symlink("l", "/d/f"),
        character("null", 1, 3),
        file(&long, "deep"),
    ];
    let image = Image::new().layer(&[file("below", "")]).layer(&entries).layer(&[file(".wh.below", "")]);
    let written = image.write_oci(&scratch.join("image"));
    let layout = written.source.trim_start_matches("oci:");
    tool("umoci", &["unpack", "--image", layout, scratch.join("bundle").to_str().unwrap()]);

    let root = scratch.join("bundle/rootfs");
    assert_eq!(fs::read_to_string(root.join("d/h")).unwrap(), "text");
    assert_eq!(fs::read_to_string(root.join(&long)).unwrap(), "deep");
    assert_eq!(fs::read_link(root.join("l")).unwrap().to_str(), Some("/d/f"));
    assert!(!root.join("below").exists());
    let listing = tool("stat", &["-c", "%a %u:%g %F", root.join("d").to_str().unwrap()]);
    assert_eq!(listing, "2755 1000:1000 directory\n");
}

#[test]
fn skopeo_takes_every_compression_to_the_registry() {
    let scratch = Scratch::new();
    let registry = Registry::start(&scratch);
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let layer = Layer::from_tar(&tar(&[file("f", [7; 9000])]), compression);
        let written = busybox_image().with(layer).write_oci(&scratch.join(&format!("{compression:?}")));
        registry.push(&written, "some/name:latest");
        for digest in written.layers.iter().chain([&written.config, &written.manifest]) {
            assert!(registry.blob(digest).exists(), "{compression:?}: {digest}");
        }
    }
}
