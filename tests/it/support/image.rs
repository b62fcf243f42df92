//! Images, honest or hostile, written as an OCI layout or as `docker save` writes them.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::layer::{Compression, Entry, Layer, file, sha256, tar};

/// An image in the making. Everything may be wrong: what is not replaced is computed truthfully.
#[derive(Clone)]
pub struct Image {
    layers: Vec<Layer>,
    config: Value,
    diff_ids: Option<Vec<String>>,
}

/// An OCI layout on disk, and the digests that a test may name.
pub struct WrittenImage {
    /// `oci:DIR:latest`, as `--image` takes it.
    pub source: String,
    pub manifest: String,
    pub config: String,
    pub layers: Vec<String>,
}

impl Image {
    /// An image without layers, whose config holds a PATH and nothing else.
    pub fn new() -> Image {
        let config = json!({ "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"] });
        Image { layers: Vec::new(), config, diff_ids: None }
    }

    /// Adds a gzip layer of these entries.
    pub fn layer(self, entries: &[Entry]) -> Image {
        self.with(Layer::of(entries))
    }

    /// Adds a layer that was made by hand.
    pub fn with(mut self, layer: Layer) -> Image {
        self.layers.push(layer);
        self
    }

    /// Sets a field of the image's config: `User`, `Cmd`, `Entrypoint`, `WorkingDir`, `Volumes`, `Env`.
    pub fn set(mut self, field: &str, value: Value) -> Image {
        self.config[field] = value;
        self
    }

    /// Claims other diff ids than the layers' own.
    pub fn diff_ids(self, diff_ids: Vec<String>) -> Image {
        Image { diff_ids: Some(diff_ids), ..self }
    }

    /// The layers' true diff ids, to build false ones from.
    pub fn true_diff_ids(&self) -> Vec<String> {
        self.layers.iter().map(|layer| layer.diff_id.clone()).collect()
    }

    fn config_json(&self) -> Vec<u8> {
        let diff_ids = self.diff_ids.clone().unwrap_or_else(|| self.true_diff_ids());
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        config.to_string().into_bytes()
    }

    /// Writes an OCI layout with the tag `latest`.
    pub fn write_oci(&self, directory: &Path) -> WrittenImage {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let put = |media_type: &str, bytes: &[u8]| {
            let digest = sha256(bytes);
            fs::write(blobs.join(digest.trim_start_matches("sha256:")), bytes).unwrap();
            json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
        };
        let config = put("application/vnd.oci.image.config.v1+json", &self.config_json());
        let layers: Vec<Value> =
            self.layers.iter().map(|layer| put(media_type(layer.compression), &layer.blob)).collect();
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers });
        let mut descriptor = put(media_type, manifest.to_string().as_bytes());
        let manifest = digest_of(&descriptor);
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
        fs::write(directory.join("index.json"), index.to_string()).unwrap();
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
        WrittenImage {
            source: format!("oci:{}:latest", directory.display()),
            manifest,
            config: digest_of(&config),
            layers: layers.iter().map(digest_of).collect(),
        }
    }

    /// Writes an archive as `docker save` does, with plain layers, named `reference`. Returns `docker-archive:PATH`.
    pub fn write_docker_archive(&self, path: &Path, reference: &str) -> String {
        let config = self.config_json();
        let config_name = format!("{}.json", sha256(&config).trim_start_matches("sha256:"));
        let names: Vec<String> =
            (0..self.layers.len()).map(|number| format!("layer{number}/layer.tar")).collect();
        let manifest = json!([{ "Config": config_name, "RepoTags": [reference], "Layers": names }]);
        let mut entries = vec![file("manifest.json", manifest.to_string()), file(&config_name, config)];
        entries.extend(names.iter().zip(&self.layers).map(|(name, layer)| file(name, &layer.blob)));
        fs::write(path, tar(&entries)).unwrap();
        format!("docker-archive:{}", path.display())
    }
}

impl WrittenImage {
    /// The image with the tag `latest` of a layout that somebody else has written.
    pub fn read(directory: &Path) -> WrittenImage {
        let json = |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
        let index = json(&directory.join("index.json"));
        let is_latest =
            |it: &&Value| it["annotations"]["org.opencontainers.image.ref.name"] == json!("latest");
        let manifest = digest_of(index["manifests"].as_array().unwrap().iter().find(is_latest).unwrap());
        let blobs = directory.join("blobs/sha256");
        let parts = json(&blobs.join(manifest.trim_start_matches("sha256:")));
        WrittenImage {
            source: format!("oci:{}:latest", directory.display()),
            config: digest_of(&parts["config"]),
            layers: parts["layers"].as_array().unwrap().iter().map(digest_of).collect(),
            manifest,
        }
    }
}

fn media_type(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "application/vnd.oci.image.layer.v1.tar",
        Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
    }
}

fn digest_of(descriptor: &Value) -> String {
    descriptor["digest"].as_str().unwrap().to_owned()
}
