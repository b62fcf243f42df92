//! Images to be pulled: OCI layouts made here, and what skopeo turns them into.
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use images::digest::Digest;
use images::limits::Limits;
use serde_json::{Value, json};

use crate::layer_tar::{Entry, dir, file, symlink, tar};
use crate::namespace::in_own_mount_namespace;

/// How a layer of a sample is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Plain,
    Gzip,
    Zstd,
}

impl Compression {
    pub fn compress(self, tar: &[u8]) -> Vec<u8> {
        match self {
            Compression::Plain => tar.to_vec(),
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(tar).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Zstd => zstd::encode_all(tar, 3).unwrap(),
        }
    }

    pub fn media_type(self) -> &'static str {
        match self {
            Compression::Plain => "application/vnd.oci.image.layer.v1.tar",
            Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// The documents and blobs of one image.
#[derive(Clone, Debug)]
pub struct Sample {
    pub config: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
    pub manifest: Value,
}

impl Sample {
    /// An image of these layers' tar streams.
    pub fn of(tars: &[Vec<u8>], compression: Compression) -> Sample {
        let diff_ids: Vec<_> = tars.iter().map(|tar| Digest::of(tar).to_string()).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux",
            "config": { "Env": ["PATH=/bin"], "Cmd": ["/bin/sh"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        Sample::with_config(&config, tars.iter().map(|tar| compression.compress(tar)).collect(), compression)
    }

    pub fn with_config(config: &Value, layers: Vec<Vec<u8>>, compression: Compression) -> Sample {
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers.iter().map(|layer| descriptor(compression.media_type(), layer)).collect::<Vec<_>>(),
        });
        Sample { config, layers, manifest }
    }

    /// Two small layers; the upper one hides a file of the lower.
    pub fn small(compression: Compression) -> Sample {
        Sample::of(&small_tars(), compression)
    }

    pub fn id(&self) -> String {
        Digest::of(&self.config).to_string()
    }

    /// By the configuration.
    pub fn diff_ids(&self) -> Vec<String> {
        let config: Value = serde_json::from_slice(&self.config).unwrap();
        let ids = config["rootfs"]["diff_ids"].as_array().unwrap();
        ids.iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    }

    pub fn manifest_bytes(&self) -> Vec<u8> {
        self.manifest.to_string().into_bytes()
    }

    /// Writes an OCI layout whose only image has the tag `t`; gives `oci:DIR:t`.
    pub fn write_layout(&self, directory: &Path) -> String {
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &self.manifest_bytes());
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "t" });
        let index = json!({ "schemaVersion": 2, "manifests": [entry] });
        fs::create_dir_all(directory.join("blobs/sha256")).unwrap();
        for blob in self.layers.iter().chain([&self.config, &self.manifest_bytes()]) {
            fs::write(directory.join("blobs/sha256").join(Digest::of(blob).hex()), blob).unwrap();
        }
        fs::write(directory.join("index.json"), index.to_string()).unwrap();
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        format!("oci:{}:t", directory.display())
    }
}

pub fn small_tars() -> Vec<Vec<u8>> {
    let lower = [
        dir("etc"),
        file("etc/passwd", "root:x:0:0::/root:/bin/sh\n"),
        file("gone", "x"),
        symlink("link", "etc/passwd"),
    ];
    vec![tar(&lower), tar(&[file("new", vec![b'n'; 100_000]), whiteout("gone")])]
}

/// A layer of one file whose content does not compress: for tests that watch a download.
pub fn noise_tar(name: &str, bytes: usize) -> Vec<u8> {
    let mut state =
        name.bytes().fold(88_172_645_463_325_252_u64, |state, byte| state.rotate_left(8) ^ u64::from(byte));
    let mut content = Vec::with_capacity(bytes);
    while content.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        content.extend_from_slice(&state.to_le_bytes());
    }
    content.truncate(bytes);
    tar(&[file(name, content)])
}

pub fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(blob).to_string(), "size": blob.len() })
}

fn whiteout(name: &str) -> Entry {
    file(format!(".wh.{name}"), "")
}

/// `skopeo copy FROM TO`.
pub fn skopeo_copy(options: &[&str], from: &str, to: &str) {
    let mut command = Command::new("skopeo");
    command.args([
        "--insecure-policy",
        "copy",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        "--quiet",
    ]);
    let output = command.args(options).args([from, to]).output().expect("skopeo is installed");
    assert!(output.status.success(), "skopeo copy {from} {to}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A file of an image as it is mounted, links followed inside; `None` if there is none.
pub fn read_file(store: &images::store::Store, lease: &images::store::Lease, path: &str) -> Option<Vec<u8>> {
    let at = tempfile::tempdir().unwrap();
    in_own_mount_namespace(|| {
        let content = store.mount(lease, at.path(), &|| true).unwrap().read_file(path, 1 << 24).unwrap();
        rustix::mount::unmount(at.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
        content
    })
}

/// A store in a directory that goes with it.
pub struct TestStore {
    pub directory: tempfile::TempDir,
    pub store: images::store::Store,
}

impl Drop for TestStore {
    /// The store's background thread may add a mark to a directory that is just being removed.
    fn drop(&mut self) {
        let removed = (0..100).any(|_| fs::remove_dir_all(self.directory.path()).is_ok());
        assert!(removed || std::thread::panicking(), "{} is left", self.directory.path().display());
    }
}

/// A store that keeps no disk free for others: the host that tests run on may be fuller than is good for one.
pub fn open_store(root: &Path) -> images::store::Store {
    let limits = Limits { free_disk_bytes: 0, free_disk_percent: 0, ..Limits::default() };
    images::store::Store::open_within(root, &limits, |_| None).unwrap()
}

impl TestStore {
    pub fn new() -> TestStore {
        let directory = tempfile::tempdir_in(crate::DISK).unwrap();
        let store = open_store(&directory.path().join("images"));
        TestStore { directory, store }
    }

    pub fn root(&self) -> PathBuf {
        self.directory.path().join("images")
    }

    /// Every file of the store but its lock, which a first use makes, and the marks of what is on disk, which
    /// come in the background.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut directories = vec![self.root()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { directories.push(path) } else { files.push(path) }
            }
        }
        files.retain(|path| !["lock", "durable"].map(OsStr::new).contains(&path.file_name().unwrap()));
        files.sort();
        files
    }
}
