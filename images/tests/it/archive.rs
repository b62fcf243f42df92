//! Archives that lie, and archives of several images.
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use images::archive::ArchiveError;
use images::source::Source;
use images::store::{PullError, PullErrorKind, PullEvent, StreamName};
use serde_json::json;

use crate::layer_tar::{Entry, file, gnu_long, hardlink, pax_record, symlink as link, tar};
use crate::sample::{
    Compression, Sample, TestStore, descriptor, open_store, read_file, skopeo_copy, small_tars,
};
use crate::store::{block_on, find, options, pull, pull_leased, source};

/// What `docker save` would write of a sample, with these names in its manifest.
pub fn saved(sample: &Sample, tars: &[Vec<u8>], config: &str, layers: &[&str]) -> Vec<Entry> {
    let manifest = json!([{ "Config": config, "RepoTags": ["x/y:1"], "Layers": layers }]);
    let mut entries = vec![file("config.json", &sample.config), file("manifest.json", manifest.to_string())];
    entries.extend(tars.iter().enumerate().map(|(at, tar)| file(format!("{at}/layer.tar"), tar)));
    entries
}

fn check(directory: &Path, entries: &[Entry], is_expected: impl Fn(&ArchiveError) -> bool) {
    let path = directory.join("archive.tar");
    fs::write(&path, tar(entries)).unwrap();
    let test = TestStore::new();
    let before = test.files();
    match pull(&test.store, &format!("docker-archive:{}", path.display())) {
        Err(PullError::Archive(error)) => assert!(is_expected(&error), "{error:?}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(test.files(), before);
}

#[test]
fn s16_names_that_lead_out_of_the_archive_are_no_members() {
    let directory = tempfile::tempdir().unwrap();
    let tars = small_tars();
    let sample = Sample::of(&tars, Compression::Plain);
    let secret = directory.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let secret = secret.to_str().unwrap();
    let missing = |error: &ArchiveError| matches!(error, ArchiveError::Missing { .. });
    for escape in ["../../../../etc/shadow", "/etc/shadow", secret, "./../secret", ""] {
        check(directory.path(), &saved(&sample, &tars, escape, &["0/layer.tar", "1/layer.tar"]), missing);
        check(directory.path(), &saved(&sample, &tars, "config.json", &["0/layer.tar", escape]), missing);
    }
    let mut linked = saved(&sample, &tars, "config.json", &["0/layer.tar", "l/layer.tar"]);
    linked.push(link("l/layer.tar", secret));
    check(directory.path(), &linked, missing);
    let mut twice = saved(&sample, &tars, "config.json", &["0/layer.tar", "1/layer.tar"]);
    twice.push(file("manifest.json", "[]"));
    check(directory.path(), &twice, |error| matches!(error, ArchiveError::Twice { .. }));
}

/// What readers of tar disagree about: where a body ends that several headers speak of. The image
/// that one reader shows must be the one that runs.
#[test]
fn s16_what_skopeo_shows_of_an_archive_is_what_runs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("archive.tar");
    let archive = format!("docker-archive:{}", path.display());
    let of = |name: &str| {
        let tars = vec![tar(&[file(name, "")])];
        let sample = Sample::of(&tars, Compression::Plain);
        (saved(&sample, &tars, "config.json", &["0/layer.tar"]), sample.id())
    };
    let ((shown, id), (hidden, _)) = (of("shown"), of("hidden"));
    let hidden: Vec<u8> = hidden.iter().flat_map(Entry::bytes).collect();
    let length = hidden.len().to_string();
    let size = || Entry::new(b'x', "x").body(pax_record(b"size", length.as_bytes()));
    let junk = || file("junk", &hidden).size(0);
    let global = || Entry::new(b'g', "g").body(pax_record(b"size", length.as_bytes()));
    let cases = [
        ("a long name takes no size", vec![size(), gnu_long(b'L', b"junk"), junk()]),
        ("nor a global header", vec![global(), size(), junk()]),
        ("nor a hard link", vec![hardlink("l", "x").size(hidden.len() as u64)]),
        ("by record", vec![hardlink("l", "x").pax("size", &length)]),
        ("nor a symbolic link", vec![link("l", "x").size(512)]),
        ("nor a directory in the oldest form", vec![Entry::new(0, "d/").size(512)]),
    ];
    for (name, entries) in cases {
        fs::write(&path, tar(&[entries, shown.clone()].concat())).unwrap();
        let skopeo = std::process::Command::new("skopeo")
            .args(["--insecure-policy", "inspect", "--config", "--raw", &archive])
            .output()
            .unwrap();
        assert!(skopeo.status.success(), "{name}: {}", String::from_utf8_lossy(&skopeo.stderr));
        assert_eq!(images::digest::Digest::of(&skopeo.stdout).to_string(), id, "{name}: skopeo");
        let image = pull(&TestStore::new().store, &archive).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(image.id.to_string(), id, "{name}");
    }
    // Readers part here: Go forgets the record at the global header.
    fs::write(&path, tar(&[vec![size(), global(), junk()], shown].concat())).unwrap();
    assert!(matches!(
        pull(&TestStore::new().store, &archive),
        Err(PullError::Archive(ArchiveError::Format { .. }))
    ));
}

#[test]
fn archives_are_read_whatever_compressed_them() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let tars = small_tars();
    let sample = Sample::of(&tars, Compression::Plain);
    let docker = directory.path().join("docker.tar");
    fs::write(&docker, tar(&saved(&sample, &tars, "config.json", &["0/layer.tar", "1/layer.tar"]))).unwrap();
    let oci = directory.path().join("oci.tar");
    let layout = sample.write_layout(&directory.path().join("layout"));
    skopeo_copy(&[], &layout, &format!("oci-archive:{}", oci.display()));
    for tool in ["gzip", "zstd", "xz", "bzip2", "lz4"] {
        for (transport, plain) in [("docker-archive", &docker), ("oci-archive", &oci)] {
            let path = directory.path().join(format!("{transport}.{tool}"));
            let status = std::process::Command::new(tool)
                .arg("-c")
                .stdin(fs::File::open(plain).unwrap())
                .stdout(fs::File::create(&path).unwrap())
                .status();
            assert!(status.unwrap().success(), "{tool}");
            let image = pull(&TestStore::new().store, &format!("{transport}:{}", path.display()));
            assert_eq!(image.unwrap().id.to_string(), sample.id(), "{transport}, {tool}");
        }
    }
}

#[test]
fn a_layer_that_the_archive_links_is_taken_once() {
    let directory = tempfile::tempdir().unwrap();
    let lower = small_tars().remove(0);
    let sample = Sample::of(&[lower.clone(), lower.clone()], Compression::Plain);
    let mut entries = saved(&sample, &[lower], "config.json", &["0/layer.tar", "1/layer.tar"]);
    entries.push(link("1/layer.tar", "../0/layer.tar"));
    let path = directory.path().join("archive.tar");
    fs::write(&path, tar(&entries)).unwrap();
    let test = TestStore::new();
    let lease = pull_leased(&test.store, &format!("docker-archive:{}", path.display())).unwrap();
    assert_eq!((lease.image().layers.len(), lease.image().id.to_string()), (2, sample.id()));
    assert!(read_file(&test.store, &lease, "gone").is_some());
}

#[test]
fn archives_of_something_else_are_refused_in_words() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("text"), "hello").unwrap();
    fs::write(at("empty"), "").unwrap();
    fs::write(at("other.tar"), tar(&[file("x", "y")])).unwrap();
    fs::write(at("cut.tar.gz"), &Compression::Gzip.compress(&tar(&[file("x", "y")]))[..20]).unwrap();
    fs::create_dir(at("directory")).unwrap();
    // Nobody writes into it: opening it must not wait for that.
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    let cases = [
        ("docker-archive:text", PullErrorKind::Refused),
        ("docker-archive:empty", PullErrorKind::Refused),
        ("docker-archive:other.tar", PullErrorKind::Refused),
        ("docker-archive:cut.tar.gz", PullErrorKind::Refused),
        ("docker-archive:directory", PullErrorKind::Refused),
        ("docker-archive:fifo", PullErrorKind::Refused),
        ("oci-archive:fifo", PullErrorKind::Refused),
        ("docker-archive:absent", PullErrorKind::NotFound),
        ("docker-archive:other.tar:x:1", PullErrorKind::Refused),
        ("oci-archive:other.tar", PullErrorKind::Refused),
        ("oci:directory", PullErrorKind::Refused),
        ("oci:absent", PullErrorKind::NotFound),
        ("oci:text", PullErrorKind::NotFound),
        ("dir:directory", PullErrorKind::Refused),
    ];
    for (text, expected) in cases {
        let (transport, name) = text.split_once(':').unwrap();
        let text = format!("{transport}:{}", at(name).display());
        let error = pull(&TestStore::new().store, &text).unwrap_err();
        assert_eq!(error.kind(), expected, "{text}: {error}");
        assert!(error.to_string().contains(directory.path().to_str().unwrap()), "{error}");
    }
}

#[test]
fn what_a_killed_process_left_of_an_archive_is_swept_and_in_nobodys_way() {
    let directory = tempfile::tempdir().unwrap();
    let tars = small_tars();
    let sample = Sample::of(&tars, Compression::Plain);
    let path = directory.path().join("archive.tar.gz");
    let archive = tar(&saved(&sample, &tars, "config.json", &["0/layer.tar", "1/layer.tar"]));
    fs::write(&path, Compression::Gzip.compress(&archive)).unwrap();
    let test = TestStore::new();
    let left = test.root().join(format!("work/archive-{}-0", std::process::id()));
    fs::write(&left, "half").unwrap();
    let image = pull(&test.store, &format!("docker-archive:{}", path.display())).unwrap();
    assert_eq!(image.id.to_string(), sample.id());
    open_store(&test.root());
    assert!(!left.exists());
}

#[test]
fn a_layout_reaches_no_file_outside_itself() {
    let directory = tempfile::tempdir().unwrap();
    let sample = Sample::small(Compression::Gzip);
    let name = sample.write_layout(&directory.path().join("layout"));
    let blob = directory.path().join("layout/blobs/sha256").join(sample.id().trim_start_matches("sha256:"));
    let outside = directory.path().join("outside");
    fs::rename(&blob, &outside).unwrap();
    symlink(&outside, &blob).unwrap();
    let error = pull(&TestStore::new().store, &name).unwrap_err();
    assert!(matches!(error, PullError::Archive(ArchiveError::Read { .. })), "{error}");
    fs::remove_file(&blob).unwrap();
    nix::unistd::mkfifo(&blob, nix::sys::stat::Mode::S_IRUSR).unwrap();
    let error = pull(&TestStore::new().store, &name).unwrap_err();
    assert!(matches!(error, PullError::Archive(ArchiveError::Read { .. })), "{error}");
}

#[test]
fn load_keeps_the_names_inside_the_archive_and_a_name_chooses_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("two.tar");
    let samples = [Sample::of(&small_tars()[..1], Compression::Plain), Sample::small(Compression::Plain)];
    let tars = small_tars();
    let manifest = json!([
        { "Config": "0.json", "RepoTags": ["one:1", "localhost:5000/uno:1"], "Layers": ["0/layer.tar"] },
        { "Config": "1.json", "RepoTags": null, "Layers": ["0/layer.tar", "1/layer.tar"] },
    ]);
    let entries = [
        file("manifest.json", manifest.to_string()),
        file("0.json", &samples[0].config),
        file("1.json", &samples[1].config),
        file("0/layer.tar", &tars[0]),
        file("1/layer.tar", &tars[1]),
    ];
    fs::write(&path, tar(&entries)).unwrap();
    let archive = format!("docker-archive:{}", path.display());
    let test = TestStore::new();
    assert!(matches!(pull(&test.store, &archive), Err(PullError::Archive(ArchiveError::Several { .. }))));
    let error = pull(&test.store, &format!("{archive}:two:1")).unwrap_err();
    assert!(matches!(error, PullError::Archive(ArchiveError::NoSuchImage { .. })), "{error}");
    let one = pull(&test.store, &format!("{archive}:docker.io/library/one:1")).unwrap();
    assert_eq!(one.id.to_string(), samples[0].id());

    let loaded = block_on(test.store.load(&source(&archive), &options(), &|_| {})).unwrap();
    let names: Vec<_> = loaded.iter().map(|lease| lease.image().name.as_str()).collect();
    assert_eq!(names, ["docker.io/library/one:1", "localhost:5000/uno:1", archive.as_str()]);
    for (name, id) in [("one:1", samples[0].id()), ("localhost:5000/uno:1", samples[0].id())] {
        assert_eq!(find(&test.store, name).unwrap().id.to_string(), id, "{name}");
    }
}

#[test]
fn one_image_with_two_names_is_one_image() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("twice.tar");
    let mut entries = saved(
        &Sample::small(Compression::Plain),
        &small_tars(),
        "config.json",
        &["0/layer.tar", "1/layer.tar"],
    );
    let named = |names: serde_json::Value| {
        let layers = ["0/layer.tar", "1/layer.tar"];
        file(
            "manifest.json",
            json!([{ "Config": "config.json", "RepoTags": names, "Layers": layers }]).to_string(),
        )
    };
    for names in [json!(["a:1", "a:2"]), json!(["a:1", "b:1"]), json!(["a:1", "a:1"])] {
        entries[1] = named(names);
        fs::write(&path, tar(&entries)).unwrap();
        let image = pull(&TestStore::new().store, &format!("docker-archive:{}", path.display())).unwrap();
        assert_eq!(image.id.to_string(), Sample::small(Compression::Plain).id());
    }
}

#[test]
fn images_of_equal_names_and_other_content_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let test = TestStore::new();
    let path = directory.path().join("image.tar");
    // One after the other in the same file, and the first again.
    for marker in ["one", "two", "one"] {
        let tars = [tar(&[file("marker", marker)])];
        let sample = Sample::of(&tars, Compression::Plain);
        fs::write(&path, tar(&saved(&sample, &tars, "config.json", &["0/layer.tar"]))).unwrap();
        let archive = format!("docker-archive:{}", path.display());
        let lease = pull_leased(&test.store, &archive).unwrap();
        assert_eq!(read_file(&test.store, &lease, "marker").unwrap(), marker.as_bytes());
        let loaded = block_on(test.store.load(&source(&archive), &options(), &|_| {})).unwrap();
        assert_eq!(read_file(&test.store, &loaded[0], "marker").unwrap(), marker.as_bytes());
        assert_eq!(find(&test.store, "x/y:1").unwrap().id.to_string(), sample.id());
    }
}

#[test]
fn load_understands_the_names_that_skopeo_gives_archives() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let sample = Sample::small(Compression::Gzip);
    let oci = sample.write_layout(&directory.path().join("oci"));
    let docker = format!("docker-archive:{}", directory.path().join("d.tar").display());
    skopeo_copy(&["--additional-tag", "other:2"], &oci, &format!("{docker}:some/name:1"));
    let loaded = block_on(TestStore::new().store.load(&source(&docker), &options(), &|_| {})).unwrap();
    let names: Vec<_> = loaded.iter().map(|lease| lease.image().name.as_str()).collect();
    assert_eq!(names, ["docker.io/some/name:1", "docker.io/library/other:2"]);
    let archive = format!("oci-archive:{}", directory.path().join("o.tar").display());
    skopeo_copy(&[], &oci, &format!("{archive}:registry.example/a:7"));
    let loaded = block_on(TestStore::new().store.load(&source(&archive), &options(), &|_| {})).unwrap();
    assert_eq!(loaded[0].image().name, "registry.example/a:7");
    assert!(matches!(source(&archive), Source::OciArchive { .. }));
}

/// A tag alone is no name: `latest` of an archive would be `docker.io/library/latest:latest`, an image that nobody made.
#[test]
fn an_archive_that_knows_a_tag_alone_gives_its_image_no_name_of_it() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let layout = directory.path().join("layout");
    Sample::small(Compression::Gzip).write_layout(&layout);
    let index = fs::read_to_string(layout.join("index.json")).unwrap();
    fs::write(layout.join("index.json"), index.replace(r#""t""#, r#""latest""#)).unwrap();
    let archive = format!("oci-archive:{}", directory.path().join("x.tar").display());
    skopeo_copy(&[], &format!("oci:{}:latest", layout.display()), &format!("{archive}:latest"));
    for archive in [archive, format!("oci:{}", layout.display())] {
        let test = TestStore::new();
        let leases = block_on(test.store.load(&source(&archive), &options(), &|_| {})).unwrap();
        assert_eq!(leases[0].image().name, archive);
        let nameless = block_on(test.store.load_nameless(&source(&archive), &options(), &|_| {})).unwrap();
        let id = &nameless[0].image().id;
        assert_eq!(nameless[0].image().name, StreamName::of_image(id).to_string());
        assert!(nameless[0].image().name.ends_with(&id.to_string()));
    }
}

/// The sample for another architecture.
fn for_architecture(sample: &Sample, architecture: &str) -> Sample {
    let mut config: serde_json::Value = serde_json::from_slice(&sample.config).unwrap();
    config["architecture"] = json!(architecture);
    Sample::with_config(&config, sample.layers.clone(), Compression::Gzip)
}

/// Writes a layout of these entries of `index.json`, and the blobs of all samples.
fn write_index(directory: &Path, samples: &[&Sample], entries: &[serde_json::Value]) {
    samples.iter().for_each(|sample| drop(sample.write_layout(directory)));
    let index = json!({ "schemaVersion": 2, "manifests": entries });
    fs::write(directory.join("index.json"), index.to_string()).unwrap();
}

#[test]
fn of_several_platforms_a_layout_gives_the_host_s_or_says_which_there_are() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let (ours, layout) = (Sample::small(Compression::Gzip), format!("oci:{}", directory.path().display()));
    let (arm, s390) = (for_architecture(&ours, "arm64"), for_architecture(&ours, "s390x"));
    let entry = |sample: &Sample, says: bool, tag: &str| {
        let mut entry =
            descriptor("application/vnd.oci.image.manifest.v1+json", sample.manifest.to_string().as_bytes());
        let config: serde_json::Value = serde_json::from_slice(&sample.config).unwrap();
        if says {
            entry["platform"] = json!({ "os": "linux", "architecture": config["architecture"] });
        }
        if !tag.is_empty() {
            entry["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        }
        entry
    };
    let samples = [&ours, &arm, &s390];
    for tag in ["", "t"] {
        let source = if tag.is_empty() { layout.clone() } else { format!("{layout}:{tag}") };
        write_index(directory.path(), &samples, &[&arm, &ours, &s390].map(|sample| entry(sample, true, tag)));
        let test = TestStore::new();
        assert_eq!(pull(&test.store, &source).unwrap().id.to_string(), ours.id());
        let loaded = block_on(test.store.load(&self::source(&layout), &options(), &|_| {})).unwrap();
        assert_eq!(loaded.iter().map(|lease| lease.image().id.to_string()).collect::<Vec<_>>(), [ours.id()]);
        write_index(directory.path(), &samples, &[&arm, &s390].map(|sample| entry(sample, true, tag)));
        let text = refusal(&source);
        assert!(text.contains("it has only linux/arm64, linux/s390x"), "{text}");
        // Two images of one name, and nothing that tells them apart.
        write_index(directory.path(), &samples, &[&arm, &ours].map(|sample| entry(sample, false, tag)));
        let error = pull(&TestStore::new().store, &source).unwrap_err();
        assert!(matches!(error, PullError::Archive(ArchiveError::Several { .. })), "{error}");
    }
    // An index in the index whose entries do not say what they are for: they are asked.
    let nested =
        json!({ "schemaVersion": 2, "manifests": [entry(&arm, false, ""), entry(&ours, false, "")] });
    let nested = nested.to_string().into_bytes();
    let blob = directory.path().join("blobs/sha256").join(images::digest::Digest::of(&nested).hex());
    fs::write(blob, &nested).unwrap();
    let entries = [descriptor("application/vnd.oci.image.index.v1+json", &nested)];
    write_index(directory.path(), &samples, &entries);
    assert_eq!(pull(&TestStore::new().store, &layout).unwrap().id.to_string(), ours.id());
}

/// All of what a pull is refused with.
fn refusal(source: &str) -> String {
    let error = pull(&TestStore::new().store, source).unwrap_err();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

#[test]
fn an_image_for_another_architecture_is_warned_of_wherever_it_comes_from() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let arm = for_architecture(&Sample::small(Compression::Gzip), "arm64");
    let layout = arm.write_layout(&directory.path().join("oci"));
    let at = |name: &str| directory.path().join(name).display().to_string();
    let others = [
        format!("docker-archive:{}:x:1", at("d")),
        format!("oci-archive:{}", at("o")),
        format!("dir:{}", at("f")),
    ];
    others.iter().for_each(|to| skopeo_copy(&[], &layout, to));
    for text in others.iter().chain([&layout]) {
        let warned = std::sync::Mutex::new(0);
        let observe = |event| {
            let is_warning =
                matches!(&event, PullEvent::Status(text) if text.contains("(linux/arm64) does not match"));
            *warned.lock().unwrap() += usize::from(is_warning);
        };
        block_on(TestStore::new().store.pull(&source(text), &options(), &observe)).unwrap();
        assert_eq!(*warned.lock().unwrap(), 1, "{text}");
    }
}
