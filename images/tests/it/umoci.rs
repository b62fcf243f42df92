//! The same image as umoci unpacks it.
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::snapshot::{Seen, hex, snapshot};

/// An OCI layout by hand, unpacked by umoci.
pub fn unpacked_by_umoci(layers: &[Vec<u8>]) -> BTreeMap<PathBuf, Seen> {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let layout = directory.path().join("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let put = |bytes: &[u8]| {
        let sum = hex(&Sha256::digest(bytes));
        fs::write(layout.join("blobs/sha256").join(&sum), bytes).unwrap();
        (format!("sha256:{sum}"), bytes.len())
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
