//! Which image of several a pull takes.
use images::digest::Digest;
use serde_json::json;

use super::{chain, pull, quick, refusal};
use crate::sample::{Compression, Sample, TestStore, descriptor, small_tars};
use crate::scripted::{Reply, ScriptedServer, honest};
use crate::store::{block_on, find, source};

#[test]
fn one_image_of_an_index_is_chosen_as_containerd_does() {
    let sample = Sample::small(Compression::Gzip);
    let other = Sample::of(&small_tars()[..1], Compression::Gzip);
    let mut foreign = other.clone();
    foreign.config = String::from_utf8(other.config.clone()).unwrap().replace("amd64", "s390x").into_bytes();
    foreign.manifest["config"] = descriptor("application/vnd.oci.image.config.v1+json", &foreign.config);
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let index_type = "application/vnd.oci.image.index.v1+json";
    let amd64 = |sample: &Sample, variant: Option<&str>| {
        let mut entry = descriptor(manifest, &sample.manifest_bytes());
        entry["platform"] = json!({ "os": "linux", "architecture": "amd64" });
        if let Some(variant) = variant {
            entry["platform"]["variant"] = json!(variant);
        }
        entry
    };
    let unsaid = |sample: &Sample| descriptor(manifest, &sample.manifest_bytes());
    let nested = json!({ "schemaVersion": 2, "manifests": [{ "mediaType": manifest, "digest": other.id(),
        "size": 1, "platform": { "os": "linux", "architecture": "s390x" } }] })
    .to_string();
    let cases = [
        ("without a platform", vec![unsaid(&sample)]),
        ("without a platform, for another", vec![unsaid(&foreign), unsaid(&sample)]),
        ("a variant that nobody has", vec![amd64(&other, Some("v9")), amd64(&sample, None)]),
        ("a higher variant", vec![amd64(&other, None), amd64(&sample, Some("v2"))]),
        ("behind a nested index", vec![descriptor(index_type, nested.as_bytes()), amd64(&sample, None)]),
        ("behind a nested index, unsaid", vec![descriptor(index_type, nested.as_bytes()), unsaid(&sample)]),
    ];
    for (what, entries) in cases {
        let index = json!({ "schemaVersion": 2, "manifests": entries }).to_string();
        let samples = [sample.clone(), other.clone(), foreign.clone()];
        let nested = nested.clone();
        let server = ScriptedServer::start(move |request| {
            let is = |document: &[u8]| request.path.ends_with(&Digest::of(document).to_string());
            if request.path.ends_with("/manifests/1") {
                return Reply::new(200, index.clone()).with("Content-Type", index_type);
            }
            if is(nested.as_bytes()) {
                return Reply::new(200, nested.clone()).with("Content-Type", index_type);
            }
            let mut owners = samples.iter().filter(|sample| {
                let blobs = sample.layers.iter().chain([&sample.config]);
                is(&sample.manifest_bytes()) || blobs.into_iter().any(|blob| is(blob))
            });
            owners.next().map_or_else(|| Reply::new(404, ""), |sample| honest(sample, request))
        });
        let mut options = quick();
        options.platform.level = options.platform.level.max(2);
        let pulled = pull(&TestStore::new(), &server, &options);
        assert_eq!(pulled.map(|image| image.id.to_string()).ok(), Some(sample.id()), "{what}");
    }
}

#[test]
fn an_image_for_another_architecture_is_warned_of() {
    let sample = Sample::small(Compression::Gzip);
    let config = String::from_utf8(sample.config.clone()).unwrap().replace("amd64", "s390x");
    let other = Sample::with_config(
        &serde_json::from_str(&config).unwrap(),
        sample.layers.clone(),
        Compression::Gzip,
    );
    let server = ScriptedServer::start(move |request| honest(&other, request));
    let events = std::sync::Mutex::new(Vec::new());
    let test = TestStore::new();
    let note = |event| events.lock().unwrap().push(event);
    block_on(test.store.pull(&source(&server.name()), &quick(), &note)).unwrap();
    let text = format!("{:?}", events.into_inner().unwrap());
    assert!(text.contains("WARNING: The image's platform (linux/s390x) does not match"), "{text}");
}

#[test]
fn the_first_image_of_an_index_for_this_platform_is_taken() {
    let sample = Sample::small(Compression::Gzip);
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let entry = |architecture: &str, document: &[u8]| {
        let mut entry = descriptor(manifest, document);
        entry["platform"] = json!({ "os": "linux", "architecture": architecture });
        entry
    };
    let entries =
        [entry("s390x", b"other"), entry("amd64", &sample.manifest_bytes()), entry("amd64", b"later")];
    let index = json!({ "schemaVersion": 2, "manifests": entries }).to_string();
    let (served, document) = (sample.clone(), index.clone());
    let server = ScriptedServer::start(move |request| match request.path.ends_with("/manifests/1") {
        true => {
            Reply::new(200, document.clone()).with("Content-Type", "application/vnd.oci.image.index.v1+json")
        }
        false => honest(&served, request),
    });
    let test = TestStore::new();
    let image = pull(&test, &server, &quick()).unwrap();
    assert_eq!(image.id.to_string(), sample.id());
    for digest in [Digest::of(index.as_bytes()), Digest::of(&sample.manifest_bytes())] {
        let by_digest = format!("{}/x/y@{digest}", server.address);
        assert_eq!(find(&test.store, &by_digest).as_ref(), Some(&image), "{digest}");
    }
    let nothing_for = json!({ "schemaVersion": 2, "manifests": [entry("s390x", b"other")] }).to_string();
    let error = refusal(move |_| {
        Reply::new(200, nothing_for.clone()).with("Content-Type", "application/vnd.oci.image.index.v1+json")
    });
    assert!(chain(&error).contains("linux/s390x"), "{}", chain(&error));
}
