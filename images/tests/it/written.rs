//! Writes the image of some layers, has it checked, and mounts it.
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use images::erofs::Plan;
use images::layer::LayerIndex;
use images::limits::Limits;
use images::mount::mount_image;
use images::tree::merge;
use tempfile::TempDir;

use crate::layer_tar::Indexed;
use crate::namespace::in_own_mount_namespace;
use crate::snapshot::{Seen, snapshot};

/// The metadata image of some layers.
pub struct Written {
    pub directory: TempDir,
    pub metadata: PathBuf,
    pub devices: Vec<PathBuf>,
    _layers: Vec<Indexed>,
}

const UUID: [u8; 16] = *b"an image's own id".first_chunk().unwrap();

/// Writes the image of layers and lets erofs-utils check it.
pub fn write(layers: Vec<Indexed>) -> Written {
    let written = write_unchecked(layers);
    fsck(&written.metadata, &written.devices);
    written
}

/// Without the reading of all contents, for files that are too large for that.
pub fn write_unchecked(layers: Vec<Indexed>) -> Written {
    let directory = tempfile::tempdir().unwrap();
    let metadata = directory.path().join("metadata");
    let indexes: Vec<LayerIndex> = layers.iter().map(Indexed::index).collect();
    let tree = merge(&indexes, &Limits::default()).unwrap();
    let plan = Plan::new(&tree, &indexes).unwrap();
    let bytes = plan.bytes();
    plan.write(UUID, &mut File::create_new(&metadata).unwrap()).unwrap();
    assert_eq!(fs::metadata(&metadata).unwrap().len(), bytes);
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
