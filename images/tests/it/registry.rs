//! Pulls from registries that misbehave. Each test also looks at what is left in the store.
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use images::digest::Digest;
use images::image::Image;
use images::registry::RegistryError;
use images::store::{PullError, PullErrorKind, PullOptions};
use serde_json::json;

use crate::sample::{Compression, Sample, TestStore, descriptor, noise_tar, small_tars};
use crate::scripted::{Body, Reply, Request, ScriptedServer, honest, is_layer};
use crate::store::{block_on, options, source};

mod choice;
mod credentials;
mod docker_config;
mod members;
mod mirrors;

mod origins;
mod proxies;
mod resume;

/// The limits, but nobody has to wait for them.
fn quick() -> PullOptions {
    let mut options = options();
    let limits = &mut options.limits;
    limits.backoff = (Duration::from_millis(5), Duration::from_millis(20));
    limits.first_byte = Duration::from_millis(500);
    limits.read_idle = Duration::from_millis(500);
    limits.rate_window = Duration::from_millis(700);
    limits.retry_after = Duration::from_millis(1500);
    options
}

/// Pulls, and checks that a failed pull leaves the store as it was; but what it has fetched stays where
/// another try may need it.
fn pull(test: &TestStore, server: &ScriptedServer, options: &PullOptions) -> Result<Image, PullError> {
    let before = test.files();
    let pulled = block_on(test.store.pull(&source(&server.name()), options, &|_| {}));
    if let Err(error) = &pulled {
        let mut after = test.files();
        let is_fetched = |path: &PathBuf| {
            let path = path.strip_prefix(test.root()).unwrap();
            path.starts_with("layers") || path.starts_with("blobs")
        };
        if ![PullErrorKind::Refused, PullErrorKind::DiskFull].contains(&error.kind()) {
            after.retain(|path| before.contains(path) || !is_fetched(path));
        }
        assert_eq!(after, before, "{error}");
    }
    pulled.map(|lease| lease.image().clone())
}

fn refusal(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> PullError {
    let server = ScriptedServer::start(handler);
    let error = pull(&TestStore::new(), &server, &quick()).unwrap_err();
    let text = chain(&error);
    assert!(!text.contains('\n') && !text.contains("<html>"), "{text}");
    error
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(|error| error.to_string())
        .collect::<Vec<_>>()
        .join(": ")
}

fn check(name: &str, expected: PullErrorKind, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
    let error = refusal(handler);
    assert_eq!(error.kind(), expected, "{name}: {}", chain(&error));
}

#[test]
fn s15_a_wrong_list_of_diff_ids_is_refused_and_spoils_nothing() {
    let good = Sample::small(Compression::Gzip);
    let ids = good.diff_ids();
    let other = Sample::of(&[noise_tar("other", 10)], Compression::Gzip).diff_ids();
    let lists = [
        vec![ids[0].clone(), other[0].clone()],
        vec![ids[0].clone()],
        vec![ids[1].clone(), ids[0].clone()],
        vec![ids[0].clone(), ids[1].clone(), ids[1].clone()],
    ];
    let test = TestStore::new();
    for list in lists {
        let config = json!({ "os": "linux", "rootfs": { "type": "layers", "diff_ids": list } });
        let bad = Sample::with_config(&config, good.layers.clone(), Compression::Gzip);
        let server = ScriptedServer::start(move |request| honest(&bad, request));
        let error = pull(&test, &server, &quick()).unwrap_err();
        assert_eq!(error.kind(), PullErrorKind::Refused, "{}", chain(&error));
    }
    let id = good.id();
    let server = ScriptedServer::start(move |request| honest(&good, request));
    assert_eq!(pull(&test, &server, &quick()).unwrap().id.to_string(), id);
}

#[test]
fn s22_a_blob_that_is_not_what_the_manifest_says_is_refused() {
    let sample = Sample::small(Compression::Gzip);
    let blob = sample.layers[1].clone();
    let mut flipped = blob.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let other = Compression::Gzip.compress(&small_tars()[0]);
    let longer = [&blob[..], b"x"].concat();
    let shorter = blob[..blob.len() - 1].to_vec();
    let length = blob.len();
    let bodies = [
        ("flipped bit", Body::Whole(flipped)),
        ("another blob", Body::Whole(other)),
        ("longer", Body::Whole(longer.clone())),
        ("longer, chunked", Body::Chunked(longer)),
        ("shorter", Body::Whole(shorter.clone())),
        ("shorter, chunked", Body::Chunked(shorter)),
        ("announced too long", Body::Announced(blob.clone(), length + 1)),
        ("empty", Body::Whole(Vec::new())),
        ("a page", Body::Whole(b"<html>hello</html>".to_vec())),
    ];
    // Not the image is at fault, although it was the tar or gzip reader that stumbled first.
    let damaged = bodies[0].1.clone();
    let served = sample.clone();
    let path = Digest::of(&blob).to_string();
    let error = refusal(move |request| match request.path.ends_with(&path) {
        true => Reply::body(200, damaged.clone()),
        false => honest(&served, request),
    });
    assert!(chain(&error).contains("its content has digest"), "{}", chain(&error));
    for (name, body) in bodies {
        let sample = sample.clone();
        check(name, PullErrorKind::Refused, move |request| match is_layer(&sample, request) {
            true => Reply::body(200, body.clone()),
            false => honest(&sample, request),
        });
    }
}

#[test]
fn s12_a_layer_that_inflates_beyond_the_limit_is_refused_on_the_way() {
    let mut zeros = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut header = crate::layer_tar::file("zeros", "").size(2 << 30).bytes();
    header.truncate(512);
    std::io::Write::write_all(&mut zeros, &header).unwrap();
    for _ in 0..2048 {
        std::io::Write::write_all(&mut zeros, &[0; 1 << 20]).unwrap();
    }
    let bomb = zeros.finish().unwrap();
    let config = json!({ "os": "linux", "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", "0".repeat(64))] } });
    let sample = Sample::with_config(&config, vec![bomb], Compression::Gzip);
    let server = ScriptedServer::start(move |request| honest(&sample, request));
    let mut options = quick();
    options.limits.unpacked_bytes = 32 << 20;
    let error = pull(&TestStore::new(), &server, &options).unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Refused, "{}", chain(&error));
    assert!(chain(&error).contains("limit"), "{}", chain(&error));
}

#[test]
fn s22_a_configuration_that_is_not_what_the_manifest_says_is_refused() {
    let sample = Sample::small(Compression::Gzip);
    for body in
        [vec![b'x'; sample.config.len()], sample.config[1..].to_vec(), [&sample.config[..], b" "].concat()]
    {
        let sample = sample.clone();
        check("config", PullErrorKind::Refused, move |request| match request.path.ends_with(&sample.id()) {
            true => Reply::new(200, body.clone()),
            false => honest(&sample, request),
        });
    }
}

#[test]
fn s23_what_never_ends_is_ended() {
    let sample = Sample::small(Compression::Gzip);
    let page = || Body::Endless(vec![b'x'; 10_000]);
    type Case = (&'static str, fn(&Sample, &Request) -> bool, Reply, PullErrorKind);
    let cases: [Case; 8] = [
        ("endless manifest", is_manifest, Reply::body(200, page()), PullErrorKind::Refused),
        ("endless blob", is_layer, Reply::body(200, page()), PullErrorKind::Refused),
        ("endless error", is_manifest, Reply::body(500, page()), PullErrorKind::Unreachable),
        ("endless headers", is_manifest, Reply::body(200, Body::EndlessHeaders), PullErrorKind::Unreachable),
        ("silence", is_manifest, Reply::body(200, Body::Silence), PullErrorKind::Unreachable),
        (
            "slow",
            is_manifest,
            Reply::body(200, Body::Dripping(Duration::from_millis(100))),
            PullErrorKind::Unreachable,
        ),
        (
            "slow blob",
            is_layer,
            Reply::body(200, Body::Dripping(Duration::from_millis(100))),
            PullErrorKind::Refused,
        ),
        (
            "stalled",
            is_manifest,
            Reply::body(200, Body::Dripping(Duration::from_secs(60))),
            PullErrorKind::Unreachable,
        ),
    ];
    for (name, concerns, reply, expected) in cases {
        let sample = sample.clone();
        let started = Instant::now();
        check(name, expected, move |request| {
            if concerns(&sample, request) { reply.clone() } else { honest(&sample, request) }
        });
        assert!(started.elapsed() < Duration::from_secs(20), "{name}: {:?}", started.elapsed());
    }
}

fn is_manifest(_sample: &Sample, request: &Request) -> bool {
    request.path.contains("/manifests/")
}

#[test]
fn s24_a_busy_registry_is_asked_again_within_bounds() {
    let sample = Sample::small(Compression::Gzip);
    for (retry_after, least, most) in [("1", 1.0, 10.0), ("999999", 1.5, 10.0), ("nonsense", 0.0, 10.0)] {
        let (sample, asked) = (sample.clone(), AtomicUsize::new(0));
        let server = ScriptedServer::start(move |request| match asked.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::new(429, "").with("Retry-After", retry_after),
            _ => honest(&sample, request),
        });
        let started = Instant::now();
        pull(&TestStore::new(), &server, &quick()).unwrap();
        let took = started.elapsed().as_secs_f64();
        assert!((least..most).contains(&took), "{retry_after}: {took}");
    }
}

#[test]
fn a_registry_that_goes_on_to_limit_us_is_asked_a_few_times_and_its_limit_named() {
    let words =
        r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#;
    for retry_after in [None, Some("0"), Some("999999")] {
        let server = ScriptedServer::start(move |_| match retry_after {
            None => Reply::new(429, words),
            Some(hint) => Reply::new(429, words).with("Retry-After", hint),
        });
        let mut options = quick();
        options.limits.retry_after = Duration::from_millis(100);
        let error = pull(&TestStore::new(), &server, &options).unwrap_err();
        assert_eq!((error.kind(), server.requests().len()), (PullErrorKind::Unreachable, 5));
        let text = error.to_string();
        assert!(text.contains("limits how often") && text.ends_with("your pull rate limit."), "{text}");
    }
}

#[test]
fn s24_five_server_errors_are_the_registrys_failure_not_a_success() {
    let server = ScriptedServer::start(|_| Reply::new(500, ""));
    let error = pull(&TestStore::new(), &server, &quick()).unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Unreachable);
    assert_eq!(server.requests().len(), 5);
}

#[test]
fn s25_a_false_digest_is_refused_before_it_is_asked_for() {
    let good = Sample::small(Compression::Gzip);
    let hex = good.id()[7..].to_owned();
    let digests = [
        "sha256:../../x".to_owned(),
        format!("md5:{}", &hex[..32]),
        format!("sha256:{}", hex.to_uppercase()),
        format!("sha256:{}", &hex[1..]),
    ];
    for digest in digests {
        for place in ["/config/digest", "/layers/0/digest"] {
            let mut bad = good.clone();
            *bad.manifest.pointer_mut(place).unwrap() = json!(digest);
            let server = ScriptedServer::start(move |request| honest(&bad, request));
            let error = pull(&TestStore::new(), &server, &quick()).unwrap_err();
            assert_eq!(error.kind(), PullErrorKind::Refused, "{place} {digest}");
            assert_eq!(server.requests().len(), 1, "{place} {digest}");
        }
        let (sample, stated) = (good.clone(), digest.clone());
        let error =
            refusal(move |request| honest(&sample, request).with("Docker-Content-Digest", stated.clone()));
        assert!(
            matches!(error, PullError::Registry(RegistryError::StatedDigest { .. })),
            "{digest}: {error}"
        );
    }
    let other = format!("sha256:{hex}");
    check("another digest", PullErrorKind::Refused, move |request| {
        honest(&good, request).with("Docker-Content-Digest", other.clone())
    });
}

#[test]
fn s26_what_is_no_manifest_of_one_kind_is_refused() {
    let sample = Sample::small(Compression::Gzip);
    let typed = |media_type: &str, body: String| Reply::new(200, body).with("Content-Type", media_type);
    let oci = "application/vnd.oci.image.manifest.v1+json";
    let mut both = sample.manifest.clone();
    both["manifests"] = json!([]);
    let mut untyped = sample.manifest.clone();
    untyped.as_object_mut().unwrap().remove("mediaType");
    untyped["manifests"] = json!([]);
    let cases = [
        ("both kinds", typed(oci, both.to_string())),
        ("both kinds, untyped", typed("application/vnd.oci.image.index.v1+json", untyped.to_string())),
        (
            "types differ",
            typed("application/vnd.docker.distribution.manifest.v2+json", sample.manifest.to_string()),
        ),
        (
            "schema 1",
            typed(
                "application/vnd.docker.distribution.manifest.v1+prettyjws",
                r#"{"schemaVersion":1}"#.into(),
            ),
        ),
        ("schema 1 in disguise", typed(oci, r#"{"schemaVersion":1,"fsLayers":[]}"#.into())),
        ("a page", typed("text/html", "<html>\n<body>log in</body></html>".into())),
        ("a page in disguise", typed(oci, "<html>\n<body>log in</body></html>".into())),
        ("not JSON", typed(oci, String::new())),
    ];
    for (name, reply) in cases {
        check(name, PullErrorKind::Refused, move |_| reply.clone());
    }
}

#[test]
fn absence_and_missing_rights_are_told_apart_and_not_retried() {
    let missing = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown\n\u001b[31m"}]}"#;
    for (status, expected) in [(404, PullErrorKind::NotFound), (403, PullErrorKind::Unauthorized)] {
        let server = ScriptedServer::start(move |_| Reply::new(status, missing));
        let error = pull(&TestStore::new(), &server, &quick()).unwrap_err();
        assert_eq!((error.kind(), server.requests().len()), (expected, 1), "{status}");
        assert!(!error.to_string().contains(['\n', '\u{1b}']), "{error}");
    }
    let basic = ScriptedServer::start(|_| Reply::new(401, "").with("WWW-Authenticate", "Basic realm=\"x\""));
    assert_eq!(pull(&TestStore::new(), &basic, &quick()).unwrap_err().kind(), PullErrorKind::Unauthorized);
}

#[test]
fn a_registry_that_is_down_is_unreachable() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let test = TestStore::new();
    let error = block_on(test.store.pull(&source(&format!("{free}/x:1")), &quick(), &|_| {})).unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Unreachable);
    assert!(error.to_string().contains(&free.to_string()), "{error}");
}

#[test]
fn a_foreign_layer_that_is_not_there_is_called_so() {
    let mut sample = Sample::small(Compression::Gzip);
    sample.manifest["layers"][0]["mediaType"] =
        json!("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
    let error = refusal(move |request| match is_layer(&sample, request) {
        true => Reply::new(404, ""),
        false => honest(&sample, request),
    });
    assert!(
        chain(&error).contains("the foreign layer") || chain(&error).contains("blob"),
        "{}",
        chain(&error)
    );
}

#[test]
fn a_hostile_key_makes_no_long_line() {
    let mut sample = Sample::small(Compression::Gzip);
    let key = "k".repeat(3 << 20);
    sample.config =
        format!(r#"{{"config":{{"Labels":{{"{key}":7}}}},"rootfs":{{"diff_ids":[]}}}}"#).into_bytes();
    sample.manifest["config"] = descriptor("application/vnd.oci.image.config.v1+json", &sample.config);
    let error = refusal(move |request| honest(&sample, request));
    let text = chain(&error);
    assert!(text.len() < 1000 && text.matches("invalid type").count() == 1, "{} {text:.1000}", text.len());
}

#[test]
fn a_cancelled_pull_ends_soon_and_leaves_nothing() {
    let sample = Sample::of(&[noise_tar("noise", 300_000)], Compression::Gzip);
    let options = quick();
    let cancel = options.cancel.clone();
    let server = ScriptedServer::start(move |request| {
        if is_layer(&sample, request) {
            cancel.cancel();
            return Reply::body(200, Body::Silence);
        }
        honest(&sample, request)
    });
    let error = pull(&TestStore::new(), &server, &options).unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Cancelled);
}

#[test]
fn a_full_disk_is_told_before_anything_is_fetched() {
    let sample = Sample::small(Compression::Gzip);
    let server = ScriptedServer::start({
        let sample = sample.clone();
        move |request| honest(&sample, request)
    });
    let test = TestStore::new();
    let mut options = quick();
    options.limits.free_disk_bytes = u64::MAX;
    let error = pull(&test, &server, &options).unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::DiskFull);
    let root: PathBuf = test.root();
    assert!(error.to_string().contains(&root.display().to_string()), "{error}");
    assert!(!server.requests().iter().any(|request| is_layer(&sample, request)));
}
