//! Blobs that do not come in one go.
use std::sync::atomic::{AtomicUsize, Ordering};

use images::digest::Digest;
use images::store::{PullError, PullErrorKind};

use super::{check, pull, quick};
use crate::sample::{Compression, Sample, TestStore, noise_tar};
use crate::scripted::{Body, Reply, Request, ScriptedServer, honest, is_layer};

#[test]
fn a_truncated_blob_is_resumed_where_it_broke_off() {
    let sample = Sample::of(&[noise_tar("noise", 3_000_000)], Compression::Gzip);
    let (served, id) = (sample.clone(), sample.id());
    let server = ScriptedServer::start(move |request| {
        let mut reply = honest(&served, request);
        if let (true, Body::Whole(body)) = (is_layer(&served, request), &reply.body) {
            // A million bytes at a time, then the connection breaks.
            let length = body.len();
            let piece = body[..length.min(1_000_000)].to_vec();
            reply.body = Body::Announced(piece, length);
        }
        reply
    });
    let test = TestStore::new();
    assert_eq!(pull(&test, &server, &quick()).unwrap().id.to_string(), id);
    let froms: Vec<usize> =
        server.requests().iter().filter(|request| is_layer(&sample, request)).map(Request::from).collect();
    assert_eq!(froms, [0, 1_000_000, 2_000_000, 3_000_000]);
}

#[test]
fn attempts_are_counted_anew_while_a_blob_gets_on() {
    let sample = Sample::of(&[noise_tar("noise", 12_600_000)], Compression::Plain);
    let (served, id) = (sample.clone(), sample.id());
    let server = ScriptedServer::start(move |request| {
        let mut reply = honest(&served, request);
        if let (true, Body::Whole(body)) = (is_layer(&served, request), &reply.body) {
            let length = body.len();
            reply.body = Body::Announced(body[..length.min(1_300_000)].to_vec(), length);
        }
        reply
    });
    assert_eq!(pull(&TestStore::new(), &server, &quick()).unwrap().id.to_string(), id);
}

#[test]
fn what_has_been_fetched_is_there_for_the_next_try() {
    let sample = Sample::of(&[noise_tar("base", 200_000), noise_tar("top", 900_000)], Compression::Plain);
    let (served, broken) = (sample.clone(), AtomicUsize::new(0));
    let top = Digest::of(&sample.layers[1]).to_string();
    let server = ScriptedServer::start(move |request| match honest(&served, request) {
        Reply { body: Body::Whole(body), .. }
            if request.path.ends_with(&top) && broken.fetch_add(1, Ordering::SeqCst) < 5 =>
        {
            let length = body.len();
            // A hundred thousand bytes more each time, and never a million.
            Reply { body: Body::Announced(body[..100_000].to_vec(), length), ..honest(&served, request) }
        }
        reply => reply,
    });
    let test = TestStore::new();
    assert_eq!(pull(&test, &server, &quick()).unwrap_err().kind(), PullErrorKind::Unreachable);
    let before = server.requests().len();
    assert_eq!(pull(&test, &server, &quick()).unwrap().id.to_string(), sample.id());
    let again: Vec<usize> = server
        .requests()
        .split_off(before)
        .iter()
        .filter(|request| is_layer(&sample, request))
        .map(Request::from)
        .collect();
    assert!(matches!(again[..], [from] if from > 300_000), "{again:?}");
}

#[test]
fn without_proper_ranges_a_blob_is_fetched_from_the_start_again() {
    let sample = Sample::of(&[noise_tar("noise", 300_000)], Compression::Gzip);
    let cases = [
        ("whole again", None),
        ("wrong part", None),
        ("not satisfiable", None),
        ("nothing but wrong parts", Some(PullErrorKind::Refused)),
    ];
    for (name, expected) in cases {
        let (served, asked) = (sample.clone(), AtomicUsize::new(0));
        let server = ScriptedServer::start(move |request| {
            if !is_layer(&served, request) {
                return honest(&served, request);
            }
            let blob = served.layers[0].clone();
            let length = blob.len();
            let wrong_part = || {
                Reply::new(206, &blob[..length - 100_000])
                    .with("Content-Range", format!("bytes 0-{length}/{length}"))
            };
            match (asked.fetch_add(1, Ordering::SeqCst), request.from(), name) {
                (0, ..) => Reply::body(200, Body::Announced(blob[..100_000].to_vec(), length)),
                (_, 1.., "wrong part") | (_, _, "nothing but wrong parts") => wrong_part(),
                (_, 1.., "not satisfiable") => Reply::new(416, ""),
                _ => Reply::new(200, blob),
            }
        });
        let pulled = pull(&TestStore::new(), &server, &quick());
        assert_eq!(pulled.as_ref().err().map(PullError::kind), expected, "{name}");
    }
}

#[test]
fn a_blob_that_always_breaks_off_at_the_same_byte_fails() {
    let sample = Sample::small(Compression::Gzip);
    check("cut", PullErrorKind::Unreachable, move |request| match honest(&sample, request) {
        Reply { body: Body::Whole(body), .. } if is_layer(&sample, request) && request.from() == 0 => {
            Reply::body(200, Body::Announced(body[..50].to_vec(), body.len()))
        }
        _ if is_layer(&sample, request) => Reply::new(503, ""),
        reply => reply,
    });
}
