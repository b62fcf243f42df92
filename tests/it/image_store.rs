//! The commands about the image store, as an operator uses them beside tasks.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Registry, Scratch, Worker, busybox_image, file, finish, tool};

const NAME: &str = "local.test/box:1";
const LIMIT: Duration = Duration::from_secs(180);

/// A worker that has an image under [`NAME`].
fn worker_with_image() -> Worker {
    let worker = Worker::new();
    let archive = worker.fresh("archive").display().to_string();
    busybox_image().layer(&[file("f", "the layer\n")]).write_docker_archive(Path::new(&archive), NAME);
    let loaded = worker.call(&["load", "-i", &archive]);
    assert_eq!(
        (loaded.status.code(), loaded.stdout.as_slice()),
        (Some(0), &b"local.test/box:1\n"[..]),
        "{loaded:?}"
    );
    worker
}

fn images(worker: &Worker) -> Value {
    let listed = worker.call(&["images", "--json"]);
    assert_eq!(listed.status.code(), Some(0), "{listed:?}");
    serde_json::from_slice(&listed.stdout).unwrap()
}

#[test]
fn what_one_store_saves_another_loads_and_runs_without_a_registry() {
    let worker = worker_with_image();
    let id = images(&worker)["images"][0]["id"].clone();
    for (number, output) in
        ["x.tar", "docker-archive:x.tar", "oci-archive:x.tar", "-"].into_iter().enumerate()
    {
        let path = worker.fresh("saved");
        let word = output.replace("x.tar", path.to_str().unwrap());
        let mut command = worker.command(&["save", NAME]);
        match output {
            "-" => drop(command.stdout(fs::File::create(&path).unwrap())),
            _ => drop(command.args(["-o", &word])),
        }
        let saved = finish(command.spawn().unwrap(), LIMIT);
        assert_eq!(saved.status.code(), Some(0), "{output}: {saved:?}");
        let other = Worker::new();
        let mut command = other.command(&["load"]);
        match number {
            0 => drop(command.stdin(fs::File::open(&path).unwrap())),
            _ => drop(command.arg(&path)),
        }
        let loaded = finish(command.spawn().unwrap(), LIMIT);
        assert_eq!(loaded.status.code(), Some(0), "{output}: {loaded:?}");
        assert_eq!(images(&other)["images"][0]["id"], id, "{output}");
        let run = other.run(NAME, &["cat", "/f"]).expect(0, output);
        assert_eq!(run.output(), "the layer\n");
    }
}

/// A number of a descriptor means nothing to anybody, and something else the next time.
#[test]
fn an_image_without_a_name_that_comes_through_a_pipe_is_known_by_its_id() {
    let worker = Worker::new();
    let archive = worker.fresh("archive");
    for content in ["one", "another"] {
        busybox_image().layer(&[file("f", content)]).write_docker_archive(&archive, "");
        let mut command = worker.command(&["load"]);
        command.stdin(fs::File::open(&archive).unwrap());
        let loaded = finish(command.spawn().unwrap(), LIMIT);
        assert_eq!(loaded.status.code(), Some(0), "{loaded:?}");
        let id = String::from_utf8(loaded.stdout).unwrap();
        let id = id.trim_end();
        let listed = images(&worker);
        let named = |image: &&Value| image["id"] == id;
        let image = listed["images"].as_array().unwrap().iter().find(named).unwrap();
        assert_eq!(image["names"], serde_json::json!([format!("archive {id}")]));
        let saved = worker.call(&["save", "-o", worker.fresh("saved").to_str().unwrap(), id]);
        assert_eq!(saved.status.code(), Some(0), "{saved:?}");
    }
    assert_eq!(images(&worker)["images"].as_array().unwrap().len(), 2);
    let ids: Vec<_> =
        images(&worker)["images"].as_array().unwrap().iter().map(|it| it["id"].clone()).collect();
    for id in ids {
        let removed = worker.call(&["rmi", id.as_str().unwrap()]);
        assert_eq!(removed.status.code(), Some(0), "{removed:?}");
    }
    assert_eq!(images(&worker)["images"], serde_json::json!([]));
}

#[test]
fn an_image_is_saved_by_its_name_its_id_and_its_digest_with_all_that_its_documents_name() {
    let scratch = Scratch::new();
    let registry = Registry::start(&scratch);
    let worker = Worker::new();
    let name = registry.push(&worker.image(&busybox_image().layer(&[file("f", "x")])), "a/b:1");
    assert_eq!(worker.call(&["pull", &name]).status.code(), Some(0));
    let listed = images(&worker)["images"][0].clone();
    let word = |field: &str| listed[field].as_str().unwrap().to_owned();
    let by_digest = format!("{}@{}", name.strip_suffix(":1").unwrap(), word("digest"));
    for word in [name.clone(), word("id"), by_digest] {
        for transport in ["docker-archive", "oci-archive"] {
            let path = worker.fresh("saved").display().to_string();
            let saved = worker.call(&["save", "-o", &format!("{transport}:{path}"), &word]);
            assert_eq!(saved.status.code(), Some(0), "{word}: {saved:?}");
            let unpacked = worker.fresh("unpacked");
            fs::create_dir(&unpacked).unwrap();
            tool("tar", &["-xf", &path, "-C", unpacked.to_str().unwrap()]);
            let json = |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
            let blob = |descriptor: &Value| {
                let digest = descriptor["digest"].as_str().unwrap();
                let path = unpacked.join("blobs").join(digest.replace(':', "/"));
                assert_eq!(fs::metadata(&path).unwrap().len(), descriptor["size"], "{word} {transport}");
                path
            };
            let index = json(&unpacked.join("index.json"));
            let manifests = index["manifests"].as_array().unwrap();
            assert_eq!(manifests.len(), 1, "{word} {transport}");
            let manifest = json(&blob(&manifests[0]));
            let diff_ids = json(&blob(&manifest["config"]))["rootfs"]["diff_ids"].clone();
            let layers = manifest["layers"].as_array().unwrap();
            assert_eq!(layers.len(), diff_ids.as_array().unwrap().len());
            layers.iter().for_each(|layer| drop(blob(layer)));
            for reader in ["docker-archive", "oci-archive"] {
                let config = tool("skopeo", &["inspect", "--config", "--raw", &format!("{reader}:{path}")]);
                let config: Value = serde_json::from_str(&config).unwrap();
                assert_eq!(config["rootfs"]["diff_ids"], diff_ids, "{word} {transport} read as {reader}");
            }
        }
    }
}

#[test]
fn images_are_pulled_listed_removed_and_collected() {
    let scratch = Scratch::new();
    let registry = Registry::start(&scratch);
    let worker = Worker::new();
    let name = registry.push(&worker.image(&busybox_image().layer(&[file("f", "x")])), "a/b:1");
    let pulled = worker.call(&["pull", &name]);
    assert_eq!(pulled.status.code(), Some(0), "{pulled:?}");
    assert_eq!(String::from_utf8(pulled.stdout).unwrap(), format!("{name}\n"));
    let listed = &images(&worker)["images"][0];
    assert_eq!((listed["names"][0].as_str(), listed["layers"].as_u64()), (Some(name.as_str()), Some(2)));
    assert!(listed["ownBytes"].as_u64().unwrap() > 0 && listed["isUsed"] == false, "{listed}");
    let digits = &listed["id"].as_str().unwrap()["sha256:".len()..][..12];
    let table = worker.call(&["images"]);
    let table = String::from_utf8(table.stdout).unwrap();
    let row = table.lines().nth(1).unwrap();
    assert!(table.starts_with("NAME ") && row.starts_with(&name) && row.contains(digits), "{table}");

    // What is gone as it came comes again from the registry, and the archive is the same.
    let path = worker.fresh("saved").display().to_string();
    let save = |path: &str| {
        let saved = worker.call(&["save", "-o", &format!("oci-archive:{path}"), &name]);
        assert_eq!(saved.status.code(), Some(0), "{saved:?}");
        fs::read(path).unwrap()
    };
    let before = save(&path);
    for blob in fs::read_dir(worker.data().join("images/blobs")).unwrap() {
        let blob = blob.unwrap();
        if blob.metadata().unwrap().len() > 10_000 {
            fs::remove_file(blob.path()).unwrap();
        }
    }
    assert!(save(&path) == before);
    drop(registry);

    let removed = worker.call(&["rmi", digits]);
    assert_eq!((removed.status.code(), removed.stdout), (Some(0), format!("{name}\n").into_bytes()));
    assert_eq!(images(&worker)["images"], serde_json::json!([]));
    assert_eq!(fs::read_dir(worker.data().join("images/layers")).unwrap().count(), 0);
    let archive = worker.fresh("archive");
    let source = busybox_image().write_docker_archive(&archive, NAME);
    assert_eq!(worker.call(&["load", &source]).status.code(), Some(0));
    let kept = worker.call(&["gc", "--unused-for", "1h"]);
    assert_eq!((kept.status.code(), kept.stdout.as_slice()), (Some(0), &b""[..]));
    let collected = worker.call(&["gc", "--all"]);
    assert_eq!(String::from_utf8(collected.stdout).unwrap(), format!("{NAME}\n"));
}

#[test]
fn what_cannot_be_done_is_one_sentence_and_a_status() {
    let worker = worker_with_image();
    let nothing = worker.fresh("nothing").display().to_string();
    fs::write(&nothing, "no archive").unwrap();
    let within = format!("{nothing}/x.tar");
    let cases: &[(&[&str], i32, &[&str])] = &[
        (&["pull"], 2, &["this is missing: <IMAGE>"]),
        (&["pull", "A"], 2, &["<IMAGE>", "\"A\""]),
        (&["pull", "127.0.0.1:1/x"], 121, &["failed to", "127.0.0.1:1"]),
        (&["pull", "oci:/nowhere"], 121, &["/nowhere"]),
        (&["rmi", "local.test/box:2"], 1, &["no image \"local.test/box:2\"", "docker-worker images"]),
        (&["save", "local.test/box:2"], 121, &["no image \"local.test/box:2\"", "pull it first"]),
        (&["save", "-o", "oci:d", NAME], 2, &["--output", "oci-archive:FILE"]),
        (&["save", "-o", "/dev/full", NAME], 1, &["/dev/full", "No space left"]),
        (&["save", "-o", &within, NAME], 1, &["failed to write the archive to", "Not a directory"]),
        (&["load", &nothing], 1, &["failed to read", &nothing]),
        (&["load", "/nowhere"], 121, &["/nowhere"]),
        (&["gc", "--all", "--until-free", "1G"], 2, &["exclude each other"]),
        (&["gc", "--unused-for", "soon"], 2, &["--unused-for \"soon\"", "must be seconds"]),
    ];
    for (arguments, status, words) in cases {
        let ended = worker.call(arguments);
        let said = String::from_utf8(ended.stderr.clone()).unwrap();
        assert_eq!(ended.status.code(), Some(*status), "{arguments:?}: {ended:?}");
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
        assert!(words.iter().all(|word| said.contains(word)), "{arguments:?}: {said}");
    }
}

#[test]
fn an_archive_that_nobody_takes_ends_the_command() {
    let worker = worker_with_image();
    // It reads a little, and closes the pipe.
    let mut child = worker.command(&["save", NAME]).spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 10]).unwrap();
    let closed = finish(child, LIMIT);
    assert_eq!(closed.status.code(), Some(1), "{closed:?}");
    // It reads nothing at all: the pipe is full, or, by its name, not even open.
    let pipe = worker.fresh("pipe");
    tool("mkfifo", &[pipe.to_str().unwrap()]);
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        for arguments in [vec!["save", NAME], vec!["save", "-o", pipe.to_str().unwrap(), NAME]] {
            let mut command = worker.command(&arguments);
            command.stdout(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let stdout = child.stdout.take();
            crate::support::await_that("signals are listened to", || catches(child.id(), signal));
            kill_process(Pid::from_child(&child), signal).unwrap();
            let ended = finish(child, LIMIT);
            assert_eq!(ended.status.code(), Some(status), "{arguments:?}: {ended:?}");
            drop(stdout);
        }
    }
}

/// Whether a process has a handler for a signal.
fn catches(pid: u32, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or_default();
    u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask >> (signal.as_raw() - 1) & 1 == 1)
}
