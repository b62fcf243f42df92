//! Images that are refused as a whole, by their form or by who serves them: assertions S14 to S17, and what goes wrong
//! between a task's `image` and a started command. Each is one clear sentence, one exit status, and nothing left.

use std::fs;
use std::net::TcpListener;

use serde_json::json;

use crate::support::{
    Canary, Compression, Image, Layer, Registry, Run, ScriptedServer, SmallDisk, Worker, busybox_image, dir,
    file, sha256, shell_payload, symlink, tar,
};

/// The exit status of an image that is not to be had.
const NO_IMAGE: i32 = 121;

/// The run ended with `status`, and one line of what the operator or the author reads holds every word.
fn explained(run: Run, status: i32, words: &[&str], case: &str) {
    let run = run.expect(status, case);
    let all = run.words();
    let line = all.lines().find(|line| words.iter().all(|word| line.contains(word)));
    assert!(line.is_some(), "{case}: no line has all of {words:?}: {run:?}");
    assert!(!all.contains("panicked"), "{case}: {run:?}");
}

#[test]
fn s14_a_mount_point_that_is_a_link_is_not_followed() {
    let worker = Worker::new();
    let canary = Canary::place(&worker.scratch().join("outside"));
    let outside = canary.directory.to_str().unwrap();
    for name in ["proc", "sys", "dev"] {
        for entries in
            [vec![symlink(name, outside)], vec![symlink("second", outside), symlink(name, "/second")]]
        {
            let image = worker.image(&busybox_image().layer(&entries));
            let run = worker.run(&image.source, &["true"]);
            assert!(run.status == 123 && run.output().trim().is_empty(), "{name}: {run:?}");
            assert!(run.words().contains(&format!("/{name}")), "{name} is not named: {run:?}");
            canary.assert_intact(name);
            worker.assert_nothing_left(name);
        }
    }
}

#[test]
fn s15_wrong_diff_ids_are_refused_and_spoil_nothing() {
    let worker = Worker::new();
    let image = busybox_image().layer(&[file("f", "the layer\n")]);
    let right = image.true_diff_ids();
    let reversed = right.iter().rev().cloned().collect();
    let wrong = vec![right[0].clone(), sha256(b"something else")];
    for (case, diff_ids) in
        [("wrong", wrong), ("one too few", right[..1].to_vec()), ("wrong order", reversed)]
    {
        let hostile = worker.image(&image.clone().diff_ids(diff_ids));
        explained(worker.run(&hostile.source, &["true"]), NO_IMAGE, &["rebuild the image"], case);
    }
    let honest = worker.image(&image);
    assert_eq!(worker.run(&honest.source, &["cat", "/f"]).expect(0, "honest").output(), "the layer\n");
}

#[test]
fn s16_an_archive_that_names_host_paths_is_refused_without_opening_them() {
    let worker = Worker::new();
    let canary = Canary::place(&worker.scratch().join("outside"));
    let path = canary.file.to_str().unwrap();
    let up = format!("{}{path}", "../".repeat(20));
    let config = json!({ "architecture": "amd64", "os": "linux", "config": {},
                         "rootfs": { "type": "layers", "diff_ids": [sha256(Canary::SECRET.as_bytes())] } });
    for (config_name, layer) in
        [("config.json", path), ("config.json", up.as_str()), (path, "layer.tar"), (&up, "x")]
    {
        let manifest = json!([{ "Config": config_name, "RepoTags": ["x:1"], "Layers": [layer] }]);
        let archive = worker.fresh("archive");
        let entries = [file("manifest.json", manifest.to_string()), file("config.json", config.to_string())];
        fs::write(&archive, tar(&entries)).unwrap();
        let trace = worker.fresh("trace");
        let worker_command =
            worker.command(&["run", "--image", &format!("docker-archive:{}", archive.display())]);
        let status = std::process::Command::new("strace")
            .args(["-f", "-qq", "-e", "trace=open,openat,openat2", "-o", trace.to_str().unwrap()])
            .arg(worker_command.get_program())
            .args(worker_command.get_args())
            .args(["--", "true"])
            .envs(worker_command.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .output()
            .unwrap();
        assert_eq!(status.status.code(), Some(NO_IMAGE), "{config_name} {layer}: {status:?}");
        let opened = fs::read_to_string(&trace).unwrap();
        assert!(opened.contains(archive.to_str().unwrap()), "the trace is empty");
        assert!(!opened.contains(path), "{config_name} {layer}: the host's file was opened");
    }
    canary.assert_intact("archives");
}

#[test]
fn s17_a_user_that_does_not_exist_never_becomes_root() {
    let worker = Worker::new();
    for user in ["4294967296", "-1", "0:-1", "nosuchuser", "0:nosuchgroup", "worker:4294967295", " 0"] {
        let image = worker.image(&busybox_image().set("User", json!(user)));
        let run = worker.run(&image.source, &["id"]).expect(123, user);
        assert_eq!(run.output(), "", "{user}");
        assert!(
            user.split(':').any(|part| run.words().contains(&format!("{part:?}"))),
            "{user} is not named: {run:?}"
        );
    }
    for (user, expected) in [
        ("worker", "uid=1000(worker) gid=1000(worker) groups=1000(worker),2000(extra)\n"),
        ("1000:0", "uid=1000(worker) gid=0(root) groups=0(root)\n"),
        ("4000", "uid=4000 gid=0(root) groups=0(root)\n"),
    ] {
        let image = worker.image(&busybox_image().set("User", json!(user)));
        assert_eq!(worker.run(&image.source, &["id"]).expect(0, user).output(), expected, "{user}");
    }
}

#[test]
fn an_image_that_is_not_there_is_one_sentence_and_121() {
    let worker = Worker::new();
    let registry = Registry::start(worker.scratch());
    let pushed = registry.push(&worker.image(&busybox_image()), "library/busybox:1");
    explained(worker.run(&pushed, &["true"]), 0, &[], "an image that is there");
    let address = &registry.address;
    let absent = format!("{address}/library/absent:1");
    explained(worker.run(&absent, &["true"]), NO_IMAGE, &["absent:1"], "no such repository");
    let other_tag = format!("{address}/library/busybox:2");
    explained(worker.run(&other_tag, &["true"]), NO_IMAGE, &["busybox:2"], "no such tag");
    let digest = sha256(b"nothing");
    let other_digest = format!("{address}/library/busybox@{digest}");
    explained(worker.run(&other_digest, &["true"]), NO_IMAGE, &[&digest], "no such digest");
    let no_file = worker.fresh("none").display().to_string();
    for source in
        ["docker-archive", "oci-archive", "oci", "dir"].map(|transport| format!("{transport}:{no_file}"))
    {
        explained(worker.run(&source, &["true"]), NO_IMAGE, &[&no_file], &source);
    }
}

#[test]
fn a_registry_that_is_down_is_one_sentence_and_121() {
    let worker = Worker::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let run = worker.run(&format!("{address}/busybox:1"), &["true"]);
    explained(run, NO_IMAGE, &[&address, "refused"], "nobody listens");
}

#[test]
fn a_blob_that_was_cut_or_changed_is_refused_by_its_digest() {
    let worker = Worker::new();
    let registry = Registry::start(worker.scratch());
    let written = worker.image(&busybox_image().layer(&[file("f", [3; 100_000])]));
    let reference = registry.push(&written, "broken:1");
    let layer = written.layers.last().unwrap();
    let blob = registry.blob(layer);
    let whole = fs::read(&blob).unwrap();
    let mut changed = whole.clone();
    *changed.last_mut().unwrap() ^= 1;
    let longer = [whole.as_slice(), b"x"].concat();
    for (case, bytes) in [("cut", &whole[..whole.len() / 2]), ("changed", &changed), ("longer", &longer)] {
        fs::write(&blob, bytes).unwrap();
        explained(worker.run(&reference, &["true"]), NO_IMAGE, &[layer], case);
    }
    fs::write(&blob, whole).unwrap();
    worker.run(&reference, &["true"]).expect(0, "the blob is whole again");
}

#[test]
fn a_manifest_that_is_none_is_refused_without_echoing_it() {
    let worker = Worker::new();
    let schema_1 = json!({ "schemaVersion": 1, "name": "x", "tag": "1", "fsLayers": [], "history": [] });
    let both = json!({ "schemaVersion": 2, "layers": [], "manifests": [] });
    let html = "<html>secret-marker</html>".to_owned();
    for (case, media_type, body) in [
        ("schema 1", "application/vnd.docker.distribution.manifest.v1+prettyjws", schema_1.to_string()),
        ("schema 1 without its media type", "application/json", schema_1.to_string()),
        ("layers and manifests", "application/vnd.oci.image.manifest.v1+json", both.to_string()),
        ("HTML", "text/html", html),
        ("not JSON", "application/vnd.oci.image.manifest.v1+json", "secret-marker {".to_owned()),
        ("empty", "application/vnd.oci.image.manifest.v1+json", String::new()),
    ] {
        let server = ScriptedServer::start(media_type, body.as_bytes());
        let run = worker.run(&format!("{}/x:1", server.address), &["true"]).expect(NO_IMAGE, case);
        let words = run.words();
        assert!(!words.contains("secret-marker") && words.contains("manifest"), "{case}: {run:?}");
        assert!(case != "schema 1" || words.contains("schema 1"), "{case}: {run:?}");
    }
}

#[test]
fn a_command_that_cannot_start_has_the_status_a_shell_would_give() {
    let worker = Worker::new();
    let busybox = worker.image(&busybox_image().layer(&[file("data", "no program"), dir("directory")]));
    for (command, status) in [("/no/such", 127), ("no-such", 127), ("/data", 126), ("/directory", 126)] {
        let run = worker.run(&busybox.source, &[command]);
        explained(run, status, &[command.trim_start_matches('/')], command);
    }
    let mut empty_path = shell_payload(&busybox.source, "true");
    empty_path["command"] = json!([""]);
    explained(worker.task(&empty_path), 127, &["first word is empty"], "an empty first word");

    let no_shell = worker.image(&Image::new().layer(&[file("hello", "")]).set("Cmd", json!(["/bin/sh"])));
    explained(worker.run(&no_shell.source, &["sh", "-c", "true"]), 127, &["sh"], "an image without a shell");
    let nothing = worker.image(&Image::new());
    explained(worker.run(&nothing.source, &["/bin/sh"]), 127, &["/bin/sh"], "an image without a file");
}

#[test]
fn a_full_disk_is_one_sentence_and_the_disk_is_as_before() {
    let worker = Worker::new();
    let mounted = SmallDisk::mount(&worker.data(), "110m");
    let config = worker.fresh("config").with_extension("yml");
    fs::write(&config, "capacityManagement: {diskspaceThreshold: 1000000}\n").unwrap();
    let options = ["--config", config.to_str().unwrap(), "--image"];
    // Blob and data file take 60 MB each.
    let layer = Layer::from_tar(&tar(&[file("large", vec![1; 60_000_000])]), Compression::None);
    let large = worker.image(&busybox_image().with(layer));
    let small = worker.image(&busybox_image());
    let run = worker.run_with(&[&options[..], &[&large.source]].concat(), &["true"]);
    assert!([121, 122].contains(&run.status), "{run:?}");
    assert!(run.words().contains("space") || run.words().contains("full"), "{run:?}");
    worker.run_with(&[&options[..], &[&small.source]].concat(), &["true"]).expect(0, "a smaller image");
    drop(mounted); // It could not be unmounted if a loop device or a mount still held it.
}
