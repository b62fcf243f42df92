//! Mirrors, and who is asked when they fail.
use std::fs;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use images::digest::Digest;
use images::registry::{Fallback, HostRules, Place, Scheme};
use images::save::{Layers, write_archive};
use images::store::{PullError, PullErrorKind, PullEvent, PullOptions};

use super::credentials::{BASIC, password};
use super::{chain, quick};
use crate::sample::{Compression, Sample, TestStore};
use crate::scripted::{Body, Reply, Request, ScriptedServer, honest, is_layer};
use crate::store::{block_on, source};

/// For `upstream`, which those mirrors stand before.
fn mirrored(upstream: &ScriptedServer, mirrors: &[&str], fallback: Fallback) -> PullOptions {
    let mut options = quick();
    let rules = HostRules {
        scheme: Scheme::Http,
        mirrors: mirrors.iter().map(|mirror| Place::new(mirror)).collect(),
        fallback,
        ..HostRules::default()
    };
    options.access.hosts.insert(upstream.address.to_string(), rules);
    options
}

/// The image's id, and what was told on the way.
fn attempt(upstream: &ScriptedServer, options: &PullOptions) -> (Result<String, PullError>, Vec<String>) {
    let (test, told) = (TestStore::new(), Mutex::new(Vec::new()));
    let pulled = block_on(test.store.pull(&source(&upstream.name()), options, &|event| {
        if let PullEvent::Status(text) = event {
            told.lock().unwrap().push(text);
        }
    }));
    let told = told.into_inner().unwrap().into_iter().filter(|text| text.contains("mirror"));
    (pulled.map(|lease| lease.image().id.to_string()), told.collect())
}

fn server(sample: &Sample) -> ScriptedServer {
    let sample = sample.clone();
    ScriptedServer::start(move |request| honest(&sample, request))
}

#[test]
fn a_mirror_is_asked_in_the_place_of_the_registry_and_below_its_prefix() {
    let sample = Sample::small(Compression::Gzip);
    let (mirror, upstream) = (server(&sample), server(&sample));
    let place = format!("{}/proxy/hub", mirror.address);
    let (pulled, told) = attempt(&upstream, &mirrored(&upstream, &[&place], Fallback::Registry));
    assert_eq!((pulled.unwrap(), told), (sample.id(), Vec::new()));
    assert_eq!(upstream.requests(), []);
    assert!(mirror.requests().iter().all(|request| request.path.starts_with("/v2/proxy/hub/x/y/")));
}

#[test]
fn a_mirror_that_fails_in_whatever_way_is_named_and_the_next_one_asked() {
    let sample = Sample::small(Compression::Gzip);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let scripted = |reply: fn(&Request) -> Reply| ScriptedServer::start(reply);
    let token_403: fn(&Request) -> Reply = |request| match request.path.starts_with("/token") {
        true => Reply::new(403, ""),
        false => Reply::new(401, "").with("WWW-Authenticate", r#"Bearer realm="/token",service="m""#),
    };
    let failing = [
        ("404", scripted(|_| Reply::new(404, ""))),
        ("401", scripted(|_| Reply::new(401, "").with("WWW-Authenticate", "Basic realm=m"))),
        ("403 of its token server", scripted(token_403)),
        ("429", scripted(|_| Reply::new(429, "").with("Retry-After", "100"))),
        ("503", scripted(|_| Reply::new(503, ""))),
        ("hangs", scripted(|_| Reply::body(200, Body::Silence))),
        ("a page", scripted(|_| Reply::new(200, "<html>").with("Content-Type", "text/html"))),
        ("endless", scripted(|_| Reply::body(200, Body::Endless(vec![b'x'; 10_000])))),
        ("leads away", scripted(|_| Reply::new(302, "").with("Location", "http://169.254.169.254/"))),
    ];
    let mut cases: Vec<(&str, String)> =
        failing.iter().map(|(case, server)| (*case, server.address.to_string())).collect();
    cases.push(("refuses", free));
    cases.push(("nobody has its name", "mirror.invalid:5000".to_owned()));
    for (case, mirror) in &cases {
        let upstream = server(&sample);
        let began = Instant::now();
        let (pulled, told) = attempt(&upstream, &mirrored(&upstream, &[mirror], Fallback::Registry));
        assert_eq!(pulled.unwrap(), sample.id(), "{case}");
        assert_eq!(told.len(), 1, "{case}: {told:?}");
        let (host, next) = (format!("//{mirror}"), format!("for http://{}", upstream.address));
        assert!(told[0].contains(&next), "{case}: {told:?}");
        assert!(told[0].contains(&host) || told[0].contains("169.254"), "{case}: {told:?}");
        assert!(began.elapsed() < Duration::from_secs(10), "{case}: {:?}", began.elapsed());
        let upstream = server(&sample);
        let mut options = mirrored(&upstream, &[mirror], Fallback::Nobody);
        options.limits.attempts = 1;
        let (pulled, told) = attempt(&upstream, &options);
        pulled.unwrap_err();
        assert_eq!((told.len(), upstream.requests().len()), (0, 0), "{case}: the registry sees nothing");
    }
    // All of them, and one that works.
    let (upstream, last) = (server(&sample), server(&sample));
    let last = last.address.to_string();
    let mut mirrors: Vec<&str> = cases.iter().map(|(_, mirror)| mirror.as_str()).collect();
    mirrors.push(&last);
    let (pulled, told) = attempt(&upstream, &mirrored(&upstream, &mirrors, Fallback::Registry));
    assert_eq!((pulled.unwrap(), told.len(), upstream.requests().len()), (sample.id(), cases.len(), 0));
}

#[test]
fn a_layer_that_a_mirror_breaks_off_is_gone_on_with_where_it_broke_off() {
    let sample = Sample::of(&[crate::sample::noise_tar("a", 300_000)], Compression::Gzip);
    let (broken, upstream) = (sample.clone(), server(&sample));
    let mirror = ScriptedServer::start(move |request| match is_layer(&broken, request) {
        true => {
            Reply::body(200, Body::Announced(broken.layers[0][..100_000].to_vec(), broken.layers[0].len()))
        }
        false => honest(&broken, request),
    });
    let place = mirror.address.to_string();
    let (pulled, told) = attempt(&upstream, &mirrored(&upstream, &[&place], Fallback::Registry));
    assert_eq!(pulled.unwrap(), sample.id());
    assert_eq!(told.len(), 1, "{told:?}");
    let asked = upstream.requests();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].from(), 100_000);
}

#[test]
fn a_layer_with_wrong_bytes_is_fetched_anew_from_the_next_place_and_accepted_from_nobody() {
    let sample = Sample::of(&[crate::sample::noise_tar("a", 300_000)], Compression::Gzip);
    let lying = |length: fn(usize) -> usize| {
        let served = sample.clone();
        ScriptedServer::start(move |request| match honest(&served, request) {
            Reply { body: Body::Whole(mut layer), .. } if is_layer(&served, request) => {
                layer[100_000] ^= 1;
                // The rest is for the next one to send.
                Reply::body(200, Body::Announced(layer[..length(layer.len())].to_vec(), layer.len()))
            }
            reply => reply,
        })
    };
    let (whole, half) = (lying(|length| length), lying(|length| length / 2));
    let places = [&whole, &half].map(|mirror| mirror.address.to_string());
    for mirrors in [&[&*places[0]][..], &[&*places[1]], &[&*places[0], &*places[1]]] {
        let upstream = server(&sample);
        let (pulled, told) = attempt(&upstream, &mirrored(&upstream, mirrors, Fallback::Registry));
        assert_eq!(pulled.unwrap(), sample.id(), "{told:?}");
        assert!(told.iter().any(|line| line.contains("digest")), "{told:?}");
        let asked = upstream.requests();
        assert_eq!(asked.last().map(Request::from), Some(0), "{asked:?}");
    }
    let lies = lying(|length| length);
    for (upstream, fallback) in [(&lies, Fallback::Registry), (&server(&sample), Fallback::Nobody)] {
        let error = attempt(upstream, &mirrored(upstream, &[&places[0]], fallback)).0.unwrap_err();
        assert_eq!(error.kind(), PullErrorKind::Refused, "{}", chain(&error));
    }
}

#[test]
fn a_layer_that_is_fetched_anew_counts_once_for_the_images_bounds() {
    let sample = Sample::of(&[crate::sample::noise_tar("a", 300_000)], Compression::Plain);
    let served = sample.clone();
    // As good a layer, but another one: that shows at its end.
    let mirror = ScriptedServer::start(move |request| match honest(&served, request) {
        Reply { body: Body::Whole(mut layer), .. } if is_layer(&served, request) => {
            layer[100_000] ^= 1;
            Reply::new(200, layer)
        }
        reply => reply,
    });
    let upstream = server(&sample);
    let mut options = mirrored(&upstream, &[&mirror.address.to_string()], Fallback::Registry);
    options.limits.unpacked_bytes = 500_000;
    assert_eq!(attempt(&upstream, &options).0.unwrap(), sample.id());
}

#[test]
fn a_layer_that_is_saved_comes_from_the_next_place_where_one_gives_wrong_bytes() {
    let sample = Sample::small(Compression::Gzip);
    let (turned, wrong) = (Arc::new(AtomicBool::new(false)), sample.clone());
    let has_turned = Arc::clone(&turned);
    let mirror = ScriptedServer::start(move |request| match honest(&wrong, request) {
        Reply { body: Body::Whole(mut blob), status, headers }
            if has_turned.load(Ordering::Acquire) && is_layer(&wrong, request) =>
        {
            blob[7] ^= 1;
            Reply { status, headers, body: Body::Whole(blob) }
        }
        reply => reply,
    });
    let upstream = server(&sample);
    let options = mirrored(&upstream, &[&mirror.address.to_string()], Fallback::Registry);
    let (test, told) = (TestStore::new(), Mutex::new(Vec::new()));
    let lease = block_on(test.store.pull(&source(&upstream.name()), &options, &|_| {})).unwrap();
    let save = || {
        for layer in &sample.layers {
            fs::remove_file(test.root().join("blobs").join(Digest::of(layer).hex())).unwrap();
        }
        let tell = |event| {
            if let PullEvent::Status(text) = event {
                told.lock().unwrap().push(text);
            }
        };
        let form = (Vec::new(), Layers::AsTheyCame);
        let prepared = block_on(test.store.prepare_save(&lease, form, &options, &tell)).unwrap();
        let mut archive = Vec::new();
        write_archive(&[prepared], &mut archive, &AtomicBool::new(false)).unwrap();
        archive
    };
    let before = save();
    assert_eq!((upstream.requests(), told.lock().unwrap().len()), (Vec::new(), 0));
    turned.store(true, Ordering::Release);
    assert!(save() == before);
    let told = told.into_inner().unwrap();
    // Each layer is asked for anew: both times the mirror is the first.
    assert!(
        told.len() == 2 && told.iter().all(|text| text.contains("WARNING: A mirror was left")),
        "{told:?}"
    );
    let layers = upstream.requests().iter().filter(|request| is_layer(&sample, request)).count();
    assert_eq!(layers, 2);
}

#[test]
fn what_a_mirror_gives_has_to_be_what_the_name_says() {
    let sample = Sample::small(Compression::Gzip);
    let other = Sample::of(&[crate::sample::noise_tar("other", 10)], Compression::Gzip);
    let (mirror, upstream) = (server(&other), server(&sample));
    let options = mirrored(&upstream, &[&mirror.address.to_string()], Fallback::Registry);
    let name = format!("{}/x/y@{}", upstream.address, images::digest::Digest::of(&sample.manifest_bytes()));
    let test = TestStore::new();
    let pulled = block_on(test.store.pull(&source(&name), &options, &|_| {})).unwrap();
    assert_eq!(pulled.image().id.to_string(), sample.id());
}

#[test]
fn a_mirror_is_told_its_own_credentials_and_the_registry_its_own() {
    let sample = Sample::small(Compression::Gzip);
    let served = sample.clone();
    let is_down = std::sync::Arc::new(AtomicBool::new(false));
    let down = std::sync::Arc::clone(&is_down);
    let mirror = ScriptedServer::start(move |request| match request.header("authorization") {
        _ if down.load(Ordering::SeqCst) => Reply::new(503, ""),
        Some("Basic bTptaXJyb3I=") => honest(&served, request),
        _ => Reply::new(401, "").with("WWW-Authenticate", "Basic realm=m"),
    });
    let served = sample.clone();
    let upstream = ScriptedServer::start(move |request| match request.header("authorization") {
        Some(BASIC) => honest(&served, request),
        _ => Reply::new(401, "").with("WWW-Authenticate", "Basic realm=u"),
    });
    let place = format!("{}/hub", mirror.address);
    let mut options = mirrored(&upstream, &[&place], Fallback::Registry);
    let held = &mut options.access.credentials.held;
    held.insert(Place::new(&place), password("m", "mirror"));
    held.insert(Place::new(&upstream.address.to_string()), password("user", "pa55word"));
    attempt(&upstream, &options).0.unwrap();
    assert_eq!(upstream.requests(), []);
    is_down.store(true, Ordering::SeqCst);
    attempt(&upstream, &options).0.unwrap();
    let told = |server: &ScriptedServer| -> Vec<String> {
        server.requests().iter().filter_map(|it| it.header("authorization").map(str::to_owned)).collect()
    };
    assert!(told(&mirror).iter().all(|header| header == "Basic bTptaXJyb3I="), "{:?}", told(&mirror));
    assert!(!told(&upstream).is_empty() && told(&upstream).iter().all(|header| header == BASIC));
}

#[test]
fn the_registrys_own_failure_is_the_pulls() {
    let mirror = ScriptedServer::start(|_| Reply::new(503, ""));
    let upstream = ScriptedServer::start(|_| Reply::new(404, ""));
    let options = mirrored(&upstream, &[&mirror.address.to_string()], Fallback::Registry);
    let error = attempt(&upstream, &options).0.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::NotFound, "{}", chain(&error));
    assert_eq!((mirror.requests().len(), upstream.requests().len()), (1, 1));
}
