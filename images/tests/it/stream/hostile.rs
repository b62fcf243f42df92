//! Archives that are cut, that lie, that grow: each is refused in a sentence, and the store is as before.
use std::time::{Duration, Instant};

use images::archive::ArchiveError;
use images::digest::Digest;
use images::store::{Cancel, IngestError};
use serde_json::{Value, json};

use super::*;
use crate::layer_tar::{dir, hardlink};
use crate::sample::descriptor;

/// Loads what has to be refused, and looks at what is left.
fn refused(what: &str, bytes: &[u8]) -> PullError {
    refused_with(what, bytes, &options())
}

fn refused_with(what: &str, bytes: &[u8], options: &PullOptions) -> PullError {
    let test = TestStore::new();
    let before = test.files();
    let error = match load_with(&test.store, "a", (Encoding::Identity, bytes), options) {
        Ok(lease) => panic!("{what}: {:?}", lease.image()),
        Err(error) => error,
    };
    assert_eq!(test.files(), before, "{what}: {error}");
    assert_eq!(fs::read_dir(test.root().join("work")).unwrap().count(), 0, "{what}");
    assert!(find_stream(&test.store, "a").is_none(), "{what}");
    error
}

fn of_archive(what: &str, bytes: &[u8], is_expected: impl Fn(&ArchiveError) -> bool) {
    match refused(what, bytes) {
        PullError::Archive(error) => assert!(is_expected(&error), "{what}: {error:?}"),
        error => panic!("{what}: {error:?}"),
    }
}

#[test]
fn an_archive_that_is_cut_anywhere_is_refused() {
    let (_, entries) = docker_archive();
    let archive = tar(&entries);
    let end = archive.len() - 2 * 512;
    // Before the end of the last document: afterwards all is there.
    let manifest = entries.last().unwrap().bytes().len();
    let cuts = (0..16).map(|part| (end - manifest) * part / 16).chain([end - 512, 1, 511, 512, 700]);
    for cut in cuts {
        let error = refused(&format!("cut at {cut}"), &archive[..cut]);
        assert_eq!(error.kind(), PullErrorKind::Refused, "cut at {cut}: {error:?}");
    }
    for tool in ["gzip", "zstd", "xz", "bzip2", "lz4"] {
        let bytes = compressed_by(tool, &archive);
        for cut in [bytes.len() / 2, bytes.len() - 3] {
            let error = refused(&format!("{tool} cut at {cut}"), &bytes[..cut]);
            assert_eq!(error.kind(), PullErrorKind::Refused, "{tool}: {error:?}");
        }
        let error = refused(&format!("{tool} with more"), &[&bytes[..], b"more"].concat());
        assert_eq!(error.kind(), PullErrorKind::Refused, "{tool}: {error:?}");
    }
}

/// All of it has come, but nobody has said so.
#[test]
fn a_stream_that_breaks_off_is_no_archive_even_where_nothing_is_missing() {
    let (_, entries) = docker_archive();
    let archive = tar(&entries);
    for bytes in [&archive[..], &archive[..archive.len() / 2], &archive[..0]] {
        let test = TestStore::new();
        let before = test.files();
        let loaded = block_on(async {
            let (sender, stream) = Stream::new(Encoding::Identity, None);
            let (name, options) = (name("a"), options());
            let sending = async {
                sender.send(Bytes::copy_from_slice(bytes)).await;
                drop(sender);
            };
            tokio::join!(load_stream(&test.store, &name, stream, &options, &|_| {}), sending).0
        });
        let error = loaded.unwrap_err();
        assert!(matches!(error, PullError::Broken { .. }), "{error:?}");
        assert_eq!((error.kind(), test.files()), (PullErrorKind::Unreachable, before));
    }
}

#[test]
fn documents_that_lie_are_refused() {
    let tars = small_tars();
    let sample = Sample::of(&tars, Compression::Plain);
    let honest = |config: &str, layers: &[&str]| saved(&sample, &tars, config, layers);
    let both = ["0/layer.tar", "1/layer.tar"];
    let archive = |entries: &[Entry]| tar(entries);
    let missing = |error: &ArchiveError| matches!(error, ArchiveError::Missing { .. });
    for escape in ["../../../../etc/shadow", "/etc/shadow", "", "none"] {
        of_archive("config", &archive(&honest(escape, &both)), missing);
        of_archive("layer", &archive(&honest("config.json", &["0/layer.tar", escape])), missing);
    }
    let mut linked = honest("config.json", &["0/layer.tar", "l/layer.tar"]);
    linked.push(symlink("l/layer.tar", "/etc/shadow"));
    of_archive("link out", &archive(&linked), missing);
    of_archive("swapped", &archive(&honest("config.json", &[both[1], both[0]])), |error| {
        matches!(error, ArchiveError::DiffId { .. })
    });
    of_archive("one too few", &archive(&honest("config.json", &both[..1])), |error| {
        matches!(error, ArchiveError::Config { .. })
    });
    let of_kind = |error: &ArchiveError| matches!(error, ArchiveError::NotOfKind { .. });
    of_archive("a layer for a config", &archive(&honest("0/layer.tar", &both)), of_kind);
    of_archive(
        "a config for a layer",
        &archive(&honest("config.json", &["0/layer.tar", "config.json"])),
        of_kind,
    );
    let mut twice = honest("config.json", &both);
    twice.push(file("./manifest.json", "[]"));
    of_archive("two manifests", &archive(&twice), |error| matches!(error, ArchiveError::Twice { .. }));
    let mut twice = honest("config.json", &both);
    twice.push(file("0//layer.tar", &tars[1]));
    of_archive("two layers of a name", &archive(&twice), |error| matches!(error, ArchiveError::Twice { .. }));
    let mut large = honest("large.json", &both);
    large.push(file("large.json", ["{", &" ".repeat(9 << 20)].concat()));
    of_archive("a config of 9 MiB", &archive(&large), |error| matches!(error, ArchiveError::TooLarge { .. }));
    let mut sparse = honest("config.json", &both);
    sparse.push(file("s", "").pax("GNU.sparse.size", "8").pax("GNU.sparse.map", "8,0"));
    drop(refused("a sparse member", &archive(&sparse)));
}

#[test]
fn what_is_no_archive_of_one_image_is_refused_in_words() {
    let (_, entries) = docker_archive();
    let without = tar(&entries[..entries.len() - 1]);
    let says = |what: &str, bytes: &[u8], words: &str| {
        let error = refused(what, bytes);
        let text = error.to_string();
        assert!(text.contains(words) && text.contains("\"a\"") && text.len() < 400, "{what}: {text}");
        assert_eq!(error.kind(), PullErrorKind::Refused, "{what}: {text}");
    };
    says("no manifest", &without, "Unknown docker archive format");
    says("another tar", &tar(&[file("x", "y")]), "Unknown docker archive format");
    says("empty", b"", "Unknown docker archive format");
    says("text", &[b'x'; 5000], "checksum");
    says("a page", b"<html>not found</html>", "block");
    let mut two = entries.clone();
    let entry = |config: &str| json!({ "Config": config, "RepoTags": [config], "Layers": ["0/layer.tar", "1/layer.tar"] });
    let manifest = |entries: Value| file("manifest.json", entries.to_string());
    *two.last_mut().unwrap() = manifest(json!([entry("config.json"), entry("other.json")]));
    says("two images", &tar(&two), "Image tarballs must only contain one image");
    *two.last_mut().unwrap() = manifest(json!([]));
    says("no image", &tar(&two), "lists no image");
    *two.last_mut().unwrap() = file("manifest.json", "{\"Config\": 1}");
    says("no list", &tar(&two), "manifest.json");
}

#[test]
fn oci_documents_are_verified_and_foreign_layers_are_called_so() {
    let sample = Sample::small(Compression::Gzip);
    let layout = |manifest: &Value, layers: &[Vec<u8>]| {
        let manifest = manifest.to_string().into_bytes();
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor("application/vnd.oci.image.manifest.v1+json", &manifest)] });
        let blob = |blob: &[u8]| file(format!("blobs/sha256/{}", Digest::of(blob).hex()), blob);
        let mut entries: Vec<_> = layers.iter().map(|layer| blob(layer)).collect();
        entries.extend([blob(&sample.config), blob(&manifest)]);
        entries.push(file("index.json", index.to_string()));
        entries.push(file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#));
        entries
    };
    let honest = layout(&sample.manifest, &sample.layers);
    assert_eq!(
        load(&TestStore::new().store, "a", &tar(&honest)).unwrap().image().id.to_string(),
        sample.id()
    );
    let mut swapped = honest.clone();
    let [first, second] = [swapped[0].body.clone(), swapped[1].body.clone()];
    (swapped[0].body, swapped[1].body) = (second, first);
    of_archive("swapped blobs", &tar(&swapped), |error| matches!(error, ArchiveError::Digest { .. }));
    let mut longer = sample.manifest.clone();
    longer["layers"][0]["size"] = json!(1);
    of_archive("a size that lies", &tar(&layout(&longer, &sample.layers)), |error| {
        matches!(error, ArchiveError::Digest { .. })
    });
    let mut foreign = sample.manifest.clone();
    foreign["layers"][0]["mediaType"] = json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
    of_archive("foreign", &tar(&layout(&foreign, &sample.layers[1..])), |error| {
        matches!(error, ArchiveError::Foreign { .. })
    });
    // One that is there all the same is as good as any.
    load(&TestStore::new().store, "a", &tar(&layout(&foreign, &sample.layers))).unwrap();
}

#[test]
fn layers_that_no_image_may_have_are_refused_by_their_name() {
    for (what, entry) in [
        ("out", file("../../escape", "x")),
        ("hard link to nothing", hardlink("h", "../../etc/shadow")),
        ("a directory by a whiteout", dir(".wh...")),
    ] {
        let tars = [tar(&[entry])];
        let sample = Sample::of(&tars, Compression::Plain);
        let error = refused(what, &tar(&saved(&sample, &tars, "config.json", &["0/layer.tar"])));
        // What a hard link leads to is known once all layers are.
        let is_of_member = matches!(&error, PullError::Member { member, source: IngestError::Index(_), .. } if member == "0/layer.tar");
        assert!(is_of_member || what.starts_with("hard link"), "{what}: {error:?}");
        assert_eq!(error.kind(), PullErrorKind::Refused, "{what}: {error:?}");
    }
}

#[test]
fn s12_what_grows_without_bound_ends_at_the_limits() {
    let mut tight = options();
    tight.limits.unpacked_bytes = 1 << 20;
    let zeros = vec![0; 64 << 20];
    let tars = [tar(&[file("zeros", &zeros)])];
    let sample = Sample::of(&tars, Compression::Plain);
    let archive = |layers: &[Vec<u8>]| tar(&saved(&sample, layers, "config.json", &["0/layer.tar"]));
    let squeezed = [Compression::Gzip.compress(&tars[0])];
    let nested = Compression::Zstd.compress(&archive(&tars));
    // An end at once, and then zeros for ever; frames that mean nothing.
    let behind_the_end = Compression::Gzip.compress(&zeros);
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0x20, 0][..], &vec![0; 2 << 20]].concat();
    for (what, bytes) in [
        ("a layer", archive(&squeezed)),
        ("the archive", nested),
        ("behind its end", behind_the_end),
        ("on the way", skippable),
    ] {
        let error = refused_with(what, &bytes, &tight);
        assert_eq!(error.kind(), PullErrorKind::Refused, "{what}: {error:?}");
    }
    let entries: Vec<_> = (0..1000).map(|number| file(format!("{number}"), "")).collect();
    let (one, more) = ([tar(&entries)], [tar(&entries[..600]), tar(&entries[600..])]);
    tight = options();
    tight.limits.entries = 900;
    for tars in [&one[..], &more[..]] {
        let sample = Sample::of(tars, Compression::Plain);
        let names: Vec<_> = (0..tars.len()).map(|at| format!("{at}/layer.tar")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let error = refused_with("entries", &tar(&saved(&sample, tars, "config.json", &names)), &tight);
        assert_eq!(error.kind(), PullErrorKind::Refused, "{error:?}");
    }
    tight = options();
    tight.limits.layers = 3;
    let many: Vec<_> = (0..4).map(|number| file(format!("{number}"), &small_tars()[0])).collect();
    let error = refused_with("layers", &tar(&many), &tight);
    assert!(error.to_string().contains("more than 3 layers"), "{error}");
    tight = options();
    tight.limits.archive_members = 50;
    let error = refused_with("members", &tar(&entries), &tight);
    assert!(error.to_string().contains("more than 50 members"), "{error}");
    tight = options();
    tight.limits.window_bytes = 1 << 20;
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(23).unwrap();
    std::io::Write::write_all(&mut encoder, &archive(&tars)).unwrap();
    let error = refused_with("a window", &encoder.finish().unwrap(), &tight);
    assert_eq!(error.kind(), PullErrorKind::Refused, "{error:?}");
}

#[test]
fn the_reserve_of_the_disk_is_kept() {
    let (_, entries) = docker_archive();
    let archive = tar(&entries);
    let test = TestStore::new();
    let free = rustix::fs::statvfs(test.root()).unwrap();
    let free = free.f_bavail * free.f_frsize;
    let mut full = options();
    full.limits.free_disk_bytes = u64::MAX;
    // Whether or not somebody says how much will come.
    for announced in [Some(1), None] {
        let before = test.files();
        let loaded = block_on(async {
            let (sender, stream) = Stream::new(Encoding::Identity, announced);
            let name = name("a");
            tokio::join!(load_stream(&test.store, &name, stream, &full, &|_| {}), send(sender, &archive)).0
        });
        let error = loaded.unwrap_err();
        assert_eq!((error.kind(), test.files()), (PullErrorKind::DiskFull, before), "{error:?}");
    }
    // What nobody uses makes room.
    drop(load(&test.store, "old", &archive).unwrap());
    let mut needy = options();
    needy.limits.free_disk_bytes = free * 2;
    let error = load_with(&test.store, "a", (Encoding::Identity, &archive), &needy).unwrap_err();
    assert!(block_on(test.store.make_room_for(&name("a"), &needy, &error)).is_ok());
    assert!(find_stream(&test.store, "old").is_none());
}

#[test]
fn whoever_sends_nothing_any_more_keeps_no_refusal_waiting() {
    let test = TestStore::new();
    let error = block_on(async {
        let (sender, stream) = Stream::new(Encoding::Identity, None);
        let (name, options) = (name("a"), options());
        let loading = load_stream(&test.store, &name, stream, &options, &|_| {});
        let sending = async {
            sender.send(Bytes::from(vec![b'x'; 1 << 20])).await;
            sender.closed().await;
            sender
        };
        let (error, _sender) = tokio::join!(loading, sending);
        error.unwrap_err()
    });
    assert_eq!(error.kind(), PullErrorKind::Refused, "{error:?}");
}

#[test]
fn a_load_that_is_cancelled_or_takes_too_long_ends_soon_whatever_its_sender_does() {
    let (_, entries) = docker_archive();
    let archive = tar(&entries);
    let mut short = options();
    short.limits.pull = Duration::from_millis(200);
    let cancel = Cancel::default();
    let cancelled = PullOptions { cancel: cancel.clone(), ..options() };
    for (options, kind) in [(short, PullErrorKind::Unreachable), (cancelled, PullErrorKind::Cancelled)] {
        let test = TestStore::new();
        let before = test.files();
        let began = Instant::now();
        let error = block_on(async {
            let (sender, stream) = Stream::new(Encoding::Identity, None);
            let name = name("a");
            let loading = load_stream(&test.store, &name, stream, &options, &|_| {});
            let sending = async {
                sender.send(Bytes::copy_from_slice(&archive[..archive.len() / 2])).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
                cancel.cancel();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                loaded = loading => loaded.unwrap_err(),
                () = sending => unreachable!(),
            }
        });
        assert_eq!((error.kind(), test.files()), (kind, before), "{error:?}");
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}
